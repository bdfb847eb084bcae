// Package alarm wakes several waiters with one timer.
package alarm

import (
	"sync"
	"time"
)

// Waiter is something that an Alarm wakes. Wake is called in another goroutine, also if the
// waiter does not wait any more.
type Waiter interface{ Wake() }

// Alarm wakes waiters, each at its own time. It creates its timer when that is first needed. It
// does not reset the timer for a later time, or when one of several times is unset: firing in
// vain now and then is cheaper. The zero value is ready to use. An Alarm must not be copied, and
// is safe for concurrent use. It holds no lock while it wakes.
type Alarm struct {
	mu    sync.Mutex
	timer *time.Timer
	fires time.Time // when the timer fires; zero: it does not
	waits *Wait
}

// Wait is the time of one waiter in an Alarm. It is an element of a list in the Alarm, so that
// setting a time allocates nothing.
type Wait struct {
	who  Waiter    // nil: it is not in the Alarm yet
	at   time.Time // zero: none
	next *Wait
}

// Set makes the Alarm wake who at now+in, instead of at the time that w had before. A Wait
// belongs to one waiter and one Alarm.
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

// Unset removes the time of w. The waiter may still be woken if that time is now.
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

// IsSet reports whether w has a time in the future. A waiter that is woken then has begun a new
// wait, and the wake is for an earlier one.
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

// ring wakes the waiters whose time has come.
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
			go who.Wake() // which may block
		} else {
			who.Wake()
		}
	}
}
