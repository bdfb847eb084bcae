// Package gate has places for requests, and a queue of requests that wait for one. It decides
// which is admitted next and which is shed: by priority, then by the number of places of the
// caller and when the caller was last admitted, then by age. It sheds by how long requests wait,
// as CoDel does.
package gate

import (
	"container/list"
	"sync"
	"time"
)

// Config is how many requests may run and wait, and for how long.
type Config struct {
	Places, Queue int
	// A request waits for at most Interval. In a standing queue, one is shed as soon as a request
	// has waited for Target: the one that would be admitted last of that priority.
	Target, Interval time.Duration
	// Now is the clock. It is read only while something waits.
	Now func() time.Duration
}

// Who identifies a caller, which has places or waits for them. The callers of a priority share
// the places evenly. A caller has one priority.
type Who struct {
	Caller   uint64
	Priority int // the highest is admitted first
}

// Stats are the current numbers of requests, and the totals so far.
type Stats struct {
	Running, Waiting int
	Admitted, Shed   uint64
}

// Gate is safe for concurrent use. It has no goroutines and no timers.
type Gate struct {
	c Config

	mu      sync.Mutex
	stats   Stats
	callers map[uint64]*caller // by Who.Caller
	known   list.List          // of *caller: those without places and waits, the longest first; busy; the others
	busy    *list.Element
	levels  []*level              // each with at least one wait, the highest priority first
	arrived uint64                // number of waiters so far
	shedAt  map[int]time.Duration // by priority: when a request was last shed
	pace    pace
}

// Waiter is a request that waits for a place until Decided is closed. Then call Settle.
type Waiter struct {
	Decided  chan struct{}
	Patience time.Duration // after this, call Impatient

	caller   *caller
	at       *list.Element // in caller.waits; nil: it is decided
	came     time.Duration
	number   uint64 // in the order of arrival
	admitted bool
}

// New returns a Gate.
func New(c Config) *Gate {
	g := &Gate{c: c, callers: make(map[uint64]*caller), shedAt: make(map[int]time.Duration)}
	g.busy = g.known.PushBack(nil)
	return g
}

// Enter takes a place and returns nil, or returns a Waiter for one. Once there is a place, Leave
// must follow.
func (g *Gate) Enter(who Who) *Waiter {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.stats.Running < g.c.Places {
		g.stats.Running++
		g.admit(g.caller(who))
		return nil
	}
	w := g.enqueue(who)
	if g.stats.Waiting > g.c.Queue {
		g.shed(g.lastOf(g.levels[len(g.levels)-1])) // which may be w
	}
	return w
}

// Impatient sheds a request because w has waited long enough: w itself, or one that would be
// admitted after it. It returns how long w goes on waiting, unless it has been decided.
func (g *Gate) Impatient(w *Waiter) time.Duration {
	g.mu.Lock()
	defer g.mu.Unlock()
	left := g.c.Interval
	if w.at != nil {
		left -= g.c.Now() - w.came
		last := w
		if left > 0 {
			last = g.lastOf(w.caller.level)
		}
		g.shed(last)
	}
	return min(left, g.c.Target)
}

// Settle ends a wait, and reports whether it got a place. If the wait was not decided yet, the
// request has left.
func (g *Gate) Settle(w *Waiter) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if w.at != nil {
		g.dequeue(w)
		g.tidy(w.caller)
	}
	return w.admitted
}

// Leave gives back a place, to the next waiter if there is one.
func (g *Gate) Leave(who Who) {
	g.mu.Lock()
	defer g.mu.Unlock()
	c := g.callers[who.Caller]
	c.places--
	g.arrange(c)
	if len(g.levels) == 0 || g.stats.Running > g.c.Places {
		g.stats.Running--
	} else {
		w := g.nextOf(g.levels[0])
		g.dequeue(w)
		g.admit(w.caller)
		w.admitted = true
		close(w.Decided)
	}
	g.tidy(c)
}

// Return takes back a place that was left for a while, beyond Places if necessary.
func (g *Gate) Return(who Who) {
	g.mu.Lock()
	defer g.mu.Unlock()
	c := g.caller(who)
	c.places++
	g.stats.Running++
	g.arrange(c)
}

// Backlog returns how long it takes to admit as many requests as were shed in the last second.
func (g *Gate) Backlog() time.Duration {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.pace.backlog(g.stats)
}

// Stats returns the current Stats.
func (g *Gate) Stats() Stats {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.stats
}

// Callers returns the number of callers that have a place or wait.
func (g *Gate) Callers() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	n := 0
	for at := g.busy.Next(); at != nil; at = at.Next() {
		n++
	}
	return n
}

func (g *Gate) admit(c *caller) {
	g.stats.Admitted++
	c.places++
	c.turn = g.stats.Admitted
	g.arrange(c)
}

func (g *Gate) shed(w *Waiter) {
	now := g.c.Now()
	g.remember(w.caller.who.Priority, now)
	g.dequeue(w)
	g.tidy(w.caller)
	g.stats.Shed++
	g.pace.look(now, g.stats)
	close(w.Decided)
}

// remember records when a request of a priority was shed, which counts for an Interval. It keeps
// only a few priorities, since there may be any number of them.
func (g *Gate) remember(priority int, now time.Duration) {
	if _, known := g.shedAt[priority]; !known && len(g.shedAt) == maxRemembered {
		clear(g.shedAt)
	}
	g.shedAt[priority] = now
}

const maxRemembered = 64

// shedLately reports whether a request of a priority was shed in the last Interval.
func (g *Gate) shedLately(priority int, now time.Duration) bool {
	at, known := g.shedAt[priority]
	return known && now-at < g.c.Interval
}
