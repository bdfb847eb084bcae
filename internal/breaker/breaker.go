// Package breaker says whether to ask a store that fails. It is safe for concurrent use.
package breaker

import (
	"sync/atomic"
	"time"
)

// Breaker is opened by calls that fail one after the other; then only a probe is let
// through, once in a while, and closes it when that works. Times are since any one moment.
type Breaker struct {
	Failures   int32
	ProbeEvery time.Duration

	row    atomic.Int32 // failures in a row
	outage atomic.Pointer[outage]
	probes atomic.Int32 // under way
}

// outage is from when the breaker opened, or from the last probe, to the next one.
type outage struct {
	cause   error
	probeAt time.Duration
}

// Check returns why not to ask, and whether the caller is the one to send a probe.
func (b *Breaker) Check(now time.Duration) (cause error, probe bool) {
	o := b.outage.Load()
	if o == nil {
		return nil, false
	}
	return o.cause, now >= o.probeAt && b.probes.CompareAndSwap(0, 1)
}

// Open reports whether calls are not to be made.
func (b *Breaker) Open() bool { return b.outage.Load() != nil }

// Probe reports whether the caller may send a probe beside what it does, of which so many
// may be under way.
func (b *Breaker) Probe(most int32) bool {
	if b.probes.Add(1) <= most {
		return true
	}
	b.probes.Add(-1)
	return false
}

// Worked is told of a call that did.
func (b *Breaker) Worked() {
	if b.row.Load() != 0 {
		b.row.Store(0)
	}
}

// Failed is told of a call that did not work.
func (b *Breaker) Failed(err error, now time.Duration) {
	if b.row.Add(1) >= b.Failures {
		b.outage.CompareAndSwap(nil, &outage{cause: err, probeAt: now + b.ProbeEvery})
	}
}

// Probed ends the outage, or begins its next part. It ends a probe.
func (b *Breaker) Probed(err error, now time.Duration) {
	defer b.probes.Add(-1)
	if err == nil {
		b.row.Store(0)
		b.outage.Store(nil)
	} else if o := b.outage.Load(); o != nil {
		b.outage.CompareAndSwap(o, &outage{cause: err, probeAt: now + b.ProbeEvery})
	}
}
