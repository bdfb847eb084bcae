// Package alarm wakes several waiters with one timer.
package alarm

import (
	"sync"
	"time"
)

// Waiter is who is woken. Wake is called in a goroutine of its own, and may come when it is not
// waited for any more: it looks at the time itself.
type Waiter interface{ Wake() }

// Alarm wakes waiters, each at its own time. Its timer is made when first needed
// and not moved when a time is set that is later, or taken back: what would fire in vain is
// cheaper than that. The zero value is ready. It must not be copied, and is safe for concurrent
// use. It holds no lock while it wakes.
type Alarm struct {
	mu    sync.Mutex
	timer *time.Timer
	fires time.Time // when the timer does; zero: it does not
	waits []wait
	few   [3]wait // for waits
}

type wait struct {
	who Waiter
	at  time.Time // zero: not at all
}

// Set has who be woken at now+in, instead of at the time that was set for it before.
func (a *Alarm) Set(who Waiter, now time.Time, in time.Duration) {
	at := now.Add(in)
	a.mu.Lock()
	defer a.mu.Unlock()
	if w := a.find(who); w != nil {
		w.at = at
	} else {
		if a.waits == nil {
			a.waits = a.few[:0]
		}
		a.waits = append(a.waits, wait{who, at})
	}
	if a.fires.IsZero() || at.Before(a.fires) {
		a.arm(at, in)
	}
}

// Unset takes back the time of who, which may be woken all the same if that is now.
func (a *Alarm) Unset(who Waiter) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if w := a.find(who); w != nil {
		w.at = time.Time{}
	}
	for _, w := range a.waits {
		if !w.at.IsZero() {
			return
		}
	}
	if !a.fires.IsZero() {
		a.timer.Stop()
		a.fires = time.Time{}
	}
}

// find returns the wait of who, or nil.
func (a *Alarm) find(who Waiter) *wait {
	for i := range a.waits {
		if a.waits[i].who == who {
			return &a.waits[i]
		}
	}
	return nil
}

func (a *Alarm) arm(at time.Time, in time.Duration) {
	if a.timer == nil {
		a.timer = time.AfterFunc(in, a.ring)
	} else {
		a.timer.Reset(in)
	}
	a.fires = at
}

// ring wakes those whose time has come.
func (a *Alarm) ring() {
	var due []Waiter
	a.mu.Lock()
	now := time.Now()
	var next time.Time
	for i := range a.waits {
		w := &a.waits[i]
		switch {
		case w.at.IsZero():
		case !w.at.After(now):
			w.at = time.Time{}
			due = append(due, w.who)
		case next.IsZero() || w.at.Before(next):
			next = w.at
		}
	}
	a.fires = time.Time{}
	if !next.IsZero() {
		a.arm(next, next.Sub(now))
	}
	a.mu.Unlock()
	for _, who := range due {
		who.Wake()
	}
}
