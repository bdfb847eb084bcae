// Package alarm wakes several waiters with one timer.
package alarm

import (
	"sync"
	"time"
)

// Waiter is who is woken. Wake is called in a goroutine of its own, and may come when nobody
// waits any more.
type Waiter interface{ Wake() }

// Alarm wakes waiters, each at its own time. Its timer is made when first needed, and is not
// moved when a time is set that is later, or one is taken back while others are set: what fires
// in vain now and then is cheaper. The zero value is ready. It must not be copied, and is safe
// for concurrent use. It holds no lock while it wakes.
type Alarm struct {
	mu    sync.Mutex
	timer *time.Timer
	fires time.Time // when the timer does; zero: it does not
	waits *Wait
}

// Wait is the time of one waiter in an Alarm, of which it is a part: it needs no allocation.
type Wait struct {
	who  Waiter    // nil: it is not in the Alarm yet
	at   time.Time // zero: not at all
	next *Wait
}

// Set has who be woken at now+in, instead of at the time that w had before. A Wait belongs to
// one waiter and to one Alarm.
func (a *Alarm) Set(w *Wait, who Waiter, now time.Time, in time.Duration) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if w.who == nil {
		w.who, w.next, a.waits = who, a.waits, w
	}
	w.at = now.Add(in)
	if a.fires.IsZero() || w.at.Before(a.fires) {
		a.arm(w.at, in)
	}
}

// Unset takes the time of w back. Who waits may be woken all the same, if that is now.
func (a *Alarm) Unset(w *Wait) {
	a.mu.Lock()
	defer a.mu.Unlock()
	w.at = time.Time{}
	for w := a.waits; w != nil; w = w.next {
		if !w.at.IsZero() {
			return
		}
	}
	if !a.fires.IsZero() {
		a.timer.Stop()
		a.fires = time.Time{}
	}
}

// IsSet reports whether w has a time that has not come: one who is woken then is not meant any
// more, but has waited anew since.
func (a *Alarm) IsSet(w *Wait) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return !w.at.IsZero()
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
	for w := a.waits; w != nil; w = w.next {
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
	for i, who := range due {
		if i < len(due)-1 {
			go who.Wake() // it may have to wait for something of its own
		} else {
			who.Wake()
		}
	}
}
