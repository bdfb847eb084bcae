package gate

import (
	"cmp"
	"container/heap"
	"container/list"
	"slices"
	"time"
)

// caller is the places and waits of a caller at one priority. It is kept while it has any, and
// after that for as long as there is room: a caller that comes often is admitted after one that
// was last admitted longer ago, even if neither has a place.
type caller struct {
	who    Who
	places int
	turn   uint64        // Stats.Admitted when it was last admitted; 0: unknown
	waits  list.List     // of *Waiter, the oldest first
	level  *level        // nil: it has no waits
	next   int           // its index in level.next
	last   int           // its index in level.last
	at     *list.Element // in Gate.known
}

// level has the callers of one priority that wait. It is kept while there is one.
type level struct {
	priority int
	since    time.Duration // when the first of them came
	standing bool
	next     order // by fewest places, then by the longest time since it was last admitted
	last     order // by most places and waits
}

// newLevel returns a level. Among callers that are equal in these orders, as new ones are, the
// one that has waited longest is admitted first, so that a burst is served in its order. In a
// standing queue it is the one that came last: the others have already waited for most of their
// time in vain, and their clients may have given up.
func newLevel(priority int, since time.Duration) *level {
	l := &level{priority: priority, since: since}
	l.next = order{
		place: func(c *caller) *int { return &c.next },
		less: func(a, b *caller) bool {
			if a.places != b.places {
				return a.places < b.places
			}
			if a.turn != b.turn {
				return a.turn < b.turn
			}
			return l.before(l.front(a), l.front(b))
		},
	}
	l.last = order{
		place: func(c *caller) *int { return &c.last },
		less: func(a, b *caller) bool {
			if x, y := a.places+a.waits.Len(), b.places+b.waits.Len(); x != y {
				return x > y
			}
			return l.before(l.back(b), l.back(a))
		},
	}
	return l
}

// before reports whether v is admitted before w.
func (l *level) before(v, w *Waiter) bool { return v.number < w.number != l.standing }

// front returns the wait of a caller that is admitted first, and back the one that is admitted
// last.
func (l *level) front(c *caller) *Waiter { return l.end(c, l.standing) }
func (l *level) back(c *caller) *Waiter  { return l.end(c, !l.standing) }

func (l *level) end(c *caller, newest bool) *Waiter {
	if newest {
		return c.waits.Back().Value.(*Waiter)
	}
	return c.waits.Front().Value.(*Waiter)
}

// look records whether the queue is standing: there have been waiters at every moment of an
// Interval. A new queue is standing from its beginning if a request was shed in the Interval
// before: places may become free in batches, so that a queue is sometimes empty under any load.
func (l *level) look(c Config) {
	if !l.standing && c.Now()-l.since >= c.Interval {
		l.standing = true
		heap.Init(&l.next)
		heap.Init(&l.last)
	}
}

// nextOf returns the waiter that is admitted next, and lastOf the one that is shed next.
func (g *Gate) nextOf(l *level) *Waiter {
	l.look(g.c)
	return l.front(l.next.callers[0])
}

func (g *Gate) lastOf(l *level) *Waiter {
	l.look(g.c)
	return l.back(l.last.callers[0])
}

// enqueue adds a waiter.
func (g *Gate) enqueue(who Who) *Waiter {
	now := g.c.Now()
	i, found := g.level(who.Priority)
	if !found {
		l := newLevel(who.Priority, now)
		l.standing = g.shedLately(who.Priority, now)
		g.levels = slices.Insert(g.levels, i, l)
	}
	l := g.levels[i]
	l.look(g.c)
	g.arrived++
	g.stats.Waiting++
	w := &Waiter{Decided: make(chan struct{}), Patience: g.c.Interval, caller: g.caller(who), came: now, number: g.arrived}
	if l.standing {
		w.Patience = g.c.Target
	}
	w.at = w.caller.waits.PushBack(w)
	if w.caller.level == nil {
		w.caller.level = l
		heap.Push(&l.next, w.caller)
		heap.Push(&l.last, w.caller)
	}
	g.arrange(w.caller)
	return w
}

// dequeue ends the wait of w.
func (g *Gate) dequeue(w *Waiter) {
	c := w.caller
	l := c.level
	c.waits.Remove(w.at)
	w.at = nil
	g.stats.Waiting--
	if c.waits.Len() > 0 {
		g.arrange(c)
		return
	}
	c.level = nil
	heap.Remove(&l.next, c.next)
	heap.Remove(&l.last, c.last)
	if l.next.Len() == 0 {
		i, _ := g.level(l.priority)
		g.levels = slices.Delete(g.levels, i, i+1)
	}
}

// level returns the index of a priority in levels, or where to insert it. There may be as many
// levels as waits, if clients choose their priority.
func (g *Gate) level(priority int) (i int, found bool) {
	return slices.BinarySearchFunc(g.levels, priority, func(l *level, priority int) int {
		return cmp.Compare(priority, l.priority)
	})
}

// arrange restores the orders after a change of c.
func (g *Gate) arrange(c *caller) {
	if l := c.level; l != nil {
		heap.Fix(&l.next, c.next)
		heap.Fix(&l.last, c.last)
	}
}

// caller returns the caller of who, which it makes if it is unknown. If more callers are known
// than can have places or waits, it reuses the one that has had neither for the longest time.
func (g *Gate) caller(who Who) *caller {
	c := g.callers[who.Caller]
	switch {
	case c != nil:
	case len(g.callers) > g.c.Places+g.c.Queue && g.known.Front() != g.busy:
		c = g.known.Front().Value.(*caller)
		delete(g.callers, c.who.Caller)
		c.turn = 0
	default:
		c = new(caller)
		c.at = g.known.PushBack(c)
	}
	c.who = who
	g.callers[who.Caller] = c
	g.known.MoveToBack(c.at)
	return c
}

// tidy records that a caller has neither places nor waits any more.
func (g *Gate) tidy(c *caller) {
	if c.places == 0 && c.level == nil {
		g.known.MoveBefore(c.at, g.busy)
	}
}

// order is a heap of callers, each of which has its index in it.
type order struct {
	callers []*caller
	less    func(a, b *caller) bool
	place   func(*caller) *int
}

func (o *order) Len() int           { return len(o.callers) }
func (o *order) Less(i, j int) bool { return o.less(o.callers[i], o.callers[j]) }

func (o *order) Swap(i, j int) {
	o.callers[i], o.callers[j] = o.callers[j], o.callers[i]
	*o.place(o.callers[i]), *o.place(o.callers[j]) = i, j
}

func (o *order) Push(x any) {
	c := x.(*caller)
	*o.place(c) = len(o.callers)
	o.callers = append(o.callers, c)
}

func (o *order) Pop() any {
	n := len(o.callers) - 1
	c := o.callers[n]
	o.callers[n] = nil
	o.callers = o.callers[:n]
	return c
}
