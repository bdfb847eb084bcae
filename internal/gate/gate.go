// Package gate has places for work, and a queue of those who wait for one. It decides who
// comes in next and who is turned away: by priority, then by how many places a caller has and
// when it was let in last, then by age. It turns away by how long they wait, as CoDel does.
package gate

import (
	"container/list"
	"sync"
	"time"
)

// Config says how many may work and wait, and for how long.
type Config struct {
	Places, Queue int
	// One waits for Interval at most. In a queue that stands, somebody is turned away as soon as
	// one has waited for Target: who would come in last of all with that priority.
	Target, Interval time.Duration
	// Now is the clock, which is read only where somebody waits.
	Now func() time.Duration
}

// Who has places, or waits for one. The callers of a priority share evenly; a caller has one
// priority.
type Who struct {
	Caller   uint64
	Priority int // the highest comes first
}

// Stats has what is, and what was so far.
type Stats struct {
	Running, Waiting int
	Admitted, Shed   uint64
}

// Gate is safe for concurrent use. Nothing goes on in it while nobody calls it.
type Gate struct {
	c Config

	mu      sync.Mutex
	stats   Stats
	callers map[uint64]*caller // by Who.Caller
	known   list.List          // of *caller: who has nothing, for the longest first; busy; who has something
	busy    *list.Element
	levels  []*level              // with a wait each, the highest priority first
	arrived uint64                // waiters
	shedAt  map[int]time.Duration // when a priority turned somebody away last
	pace    pace
}

// Waiter waits for a place until Decided is closed. Settle is to follow.
type Waiter struct {
	Decided  chan struct{}
	Patience time.Duration // Impatient is to follow after that

	caller   *caller
	at       *list.Element // of caller.waits; nil: it is decided
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

// Enter takes a place, or returns who waits for one. Leave is to follow once there is a
// place.
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

// Impatient turns somebody away because w has waited for long enough: w, or who comes in after
// it. It returns how long w waits on, unless it is decided then.
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

// Settle ends a wait, and reports whether there is a place. If nothing is decided yet, w has
// left.
func (g *Gate) Settle(w *Waiter) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if w.at != nil {
		g.dequeue(w)
		g.tidy(w.caller)
	}
	return w.admitted
}

// Leave gives a place to who is next, or back.
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

// Return takes a place that was left for a while, beyond Places if need be.
func (g *Gate) Return(who Who) {
	g.mu.Lock()
	defer g.mu.Unlock()
	c := g.caller(who)
	c.places++
	g.stats.Running++
	g.arrange(c)
}

// Backlog is how long the places need for as many as were turned away in the last second.
func (g *Gate) Backlog() time.Duration {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.pace.backlog(g.stats)
}

// Stats returns what is now.
func (g *Gate) Stats() Stats {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.stats
}

// Callers returns how many callers have a place or wait.
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

// remember keeps when a priority turned somebody away, which counts for an Interval. There
// may be any number of priorities: a few are remembered.
func (g *Gate) remember(priority int, now time.Duration) {
	if _, known := g.shedAt[priority]; !known && len(g.shedAt) == maxRemembered {
		clear(g.shedAt)
	}
	g.shedAt[priority] = now
}

const maxRemembered = 64

// shedLately reports whether a priority turned somebody away in the last Interval.
func (g *Gate) shedLately(priority int, now time.Duration) bool {
	at, known := g.shedAt[priority]
	return known && now-at < g.c.Interval
}
