package redislimit

import (
	"sync/atomic"
	"time"
)

// breaker says whether to ask Redis. Calls that fail one after the other open it; then
// only a probe is let through, once in a while, and closes it when that works.
type breaker struct {
	failures   int32
	probeEvery time.Duration

	row    atomic.Int32 // failures in a row
	outage atomic.Pointer[outage]
}

// outage is from when the breaker opened, or from the last probe, to the next one.
type outage struct {
	cause   error
	probeAt time.Duration
	probing atomic.Bool
}

// check returns why not to ask, and whether the caller is the one to send a probe.
func (b *breaker) check(now time.Duration) (cause error, probe bool) {
	o := b.outage.Load()
	if o == nil {
		return nil, false
	}
	return o.cause, now >= o.probeAt && o.probing.CompareAndSwap(false, true)
}

func (b *breaker) worked() {
	if b.row.Load() != 0 {
		b.row.Store(0)
	}
}

func (b *breaker) failed(err error, now time.Duration) {
	if b.row.Add(1) >= b.failures {
		b.outage.CompareAndSwap(nil, &outage{cause: err, probeAt: now + b.probeEvery})
	}
}

// probed ends the outage, or begins its next part.
func (b *breaker) probed(err error, now time.Duration) {
	if err != nil {
		b.outage.Store(&outage{cause: err, probeAt: now + b.probeEvery})
		return
	}
	b.row.Store(0)
	b.outage.Store(nil)
}
