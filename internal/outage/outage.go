// Package outage knows when something that fails now and then is to be told of: once when it
// begins to fail, and once when it works again.
package outage

import (
	"sync"
	"sync/atomic"
	"time"
)

// pause is the time from one beginning that is told to the next.
const pause = time.Minute

// Outage is the state of one thing. The zero value works. It is safe for concurrent use.
type Outage struct {
	// Quiet is the time without a failure after which it works again, where failures and
	// successes come side by side.
	Quiet time.Duration

	failing atomic.Bool // so that who works need not lock

	mu          sync.Mutex
	since, last time.Time // failure
	due         time.Time // when the next beginning may be told
	told        bool      // the beginning
	without     int64
	all         uint64 // that Without has counted, in every outage
}

// Failed notes a failure, and reports whether it is the beginning to be told.
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

// Without counts something that was done without what fails.
func (o *Outage) Without() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.without++
	o.all++
}

// State reports whether it fails, and how often Without was called in all.
func (o *Outage) State() (failing bool, without uint64) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.failing.Load(), o.all
}

// Worked notes that it works, and reports whether that is the end to be told: how long ago it
// began, and how often Without was called since.
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
