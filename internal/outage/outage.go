// Package outage decides when to report something that fails: once when it begins to fail, and
// once when it works again.
package outage

import (
	"sync"
	"sync/atomic"
	"time"
)

// pause is the time between two reports of a beginning.
const pause = time.Minute

// Outage is the state of one thing that may fail. The zero value is ready to use. It is safe for
// concurrent use.
type Outage struct {
	// Quiet is the time without failures after which it works again, if failures and successes
	// are mixed.
	Quiet time.Duration

	failing atomic.Bool // so that a success need not lock

	mu          sync.Mutex
	since, last time.Time // of the first and the last failure
	due         time.Time // when the next beginning may be reported
	told        bool      // the beginning has been reported
	without     int64
	all         uint64 // calls of Without in all outages
}

// Failed records a failure, and reports whether it is a beginning to report.
func (o *Outage) Failed() (tell bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	now := time.Now()
	o.last = now
	if !o.failing.Load() {
		o.failing.Store(true)
		o.since, o.without, o.told = now, 0, false
	}
	if tell = !now.Before(o.due); tell {
		o.told, o.due = true, now.Add(pause)
	}
	return tell
}

// Without counts something that was done without the thing that fails.
func (o *Outage) Without() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.without++
	o.all++
}

// State reports whether it fails, and how often Without has been called.
func (o *Outage) State() (failing bool, without uint64) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.failing.Load(), o.all
}

// Worked records a success, and reports whether that is an end to report. It returns how long
// ago the outage began, and how often Without has been called since.
func (o *Outage) Worked() (away time.Duration, without int64, tell bool) {
	if !o.failing.Load() {
		return 0, 0, false
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	now := time.Now()
	if !o.failing.Load() || now.Sub(o.last) < o.Quiet {
		return 0, 0, false
	}
	o.failing.Store(false)
	return now.Sub(o.since), o.without, o.told
}
