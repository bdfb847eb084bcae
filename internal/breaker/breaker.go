// Package breaker has a circuit breaker for a store that fails. It is safe for concurrent use.
package breaker

import (
	"sync/atomic"
	"time"
)

// Breaker opens after Failures consecutive failures. Then it allows only a probe, every
// ProbeEvery, and closes when a probe succeeds. Times are durations since any fixed moment.
type Breaker struct {
	Failures   int32
	ProbeEvery time.Duration

	row    atomic.Int32 // consecutive failures
	outage atomic.Pointer[outage]
	probes atomic.Int32 // in flight
}

// outage lasts from when the breaker opened, or from the last probe, to the next probe.
type outage struct {
	cause   error
	probeAt time.Duration
}

// Check returns why the store must not be called, and whether the caller must send a probe.
func (b *Breaker) Check(now time.Duration) (cause error, probe bool) {
	o := b.outage.Load()
	if o == nil {
		return nil, false
	}
	return o.cause, now >= o.probeAt && b.probes.CompareAndSwap(0, 1)
}

// Open reports whether the breaker is open.
func (b *Breaker) Open() bool { return b.outage.Load() != nil }

// Probe reports whether the caller may send a probe now, if there are fewer than most in flight.
func (b *Breaker) Probe(most int32) bool {
	if b.probes.Add(1) <= most {
		return true
	}
	b.probes.Add(-1)
	return false
}

// Worked records a call that succeeded.
func (b *Breaker) Worked() {
	if b.row.Load() != 0 {
		b.row.Store(0)
	}
}

// Failed records a call that failed.
func (b *Breaker) Failed(err error, now time.Duration) {
	if b.row.Add(1) >= b.Failures {
		b.outage.CompareAndSwap(nil, &outage{cause: err, probeAt: now + b.ProbeEvery})
	}
}

// Probed records the result of a probe. A success closes the breaker.
func (b *Breaker) Probed(err error, now time.Duration) {
	defer b.probes.Add(-1)
	if err == nil {
		b.row.Store(0)
		b.outage.Store(nil)
	} else if o := b.outage.Load(); o != nil {
		b.outage.CompareAndSwap(o, &outage{cause: err, probeAt: now + b.ProbeEvery})
	}
}
