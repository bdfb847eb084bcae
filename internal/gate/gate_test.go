package gate_test

import (
	"cmp"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/admit-go/admit/internal/gate"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

const (
	target   = 5 * time.Millisecond
	interval = 100 * time.Millisecond
)

// newGate returns a Gate on the clock of the bubble that it is called in.
func newGate(places, queue int) *gate.Gate {
	start := time.Now()
	return gate.New(gate.Config{
		Places: places, Queue: queue, Target: target, Interval: interval,
		Now: func() time.Duration { return time.Since(start) },
	})
}

func who(caller, priority int) gate.Who {
	return gate.Who{Caller: uint64(caller), Priority: priority}
}

func decided(w *gate.Waiter) bool {
	select {
	case <-w.Decided:
		return true
	default:
		return false
	}
}

// line is a gate of one place, which is taken, and those who wait for it.
type line struct {
	*gate.Gate
	has     gate.Who
	waiters map[*gate.Waiter]gate.Who
}

func newLine(t *testing.T, queue int) *line {
	l := &line{newGate(1, queue), who(99, 9), map[*gate.Waiter]gate.Who{}}
	require.Nil(t, l.Enter(l.has))
	return l
}

func (l *line) wait(t *testing.T, w gate.Who) *gate.Waiter {
	waiter := l.Enter(w)
	require.NotNil(t, waiter)
	l.waiters[waiter] = w
	return waiter
}

// next gives the place away, and returns who has it then.
func (l *line) next(t *testing.T) *gate.Waiter {
	l.Leave(l.has)
	for waiter, who := range l.waiters {
		if !decided(waiter) {
			continue
		}
		delete(l.waiters, waiter)
		if l.Settle(waiter) {
			l.has = who
			return waiter
		}
	}
	require.Fail(t, "nobody has got the place")
	return nil
}

func TestPlacesAreFreeUntilAllAreTaken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGate(2, 10)
		assert.Nil(t, g.Enter(who(1, 0)))
		assert.Nil(t, g.Enter(who(1, 0)))
		w := g.Enter(who(2, 0))
		require.NotNil(t, w)
		assert.Equal(t, gate.Stats{Running: 2, Waiting: 1, Admitted: 2}, g.Stats())
		g.Leave(who(1, 0))
		assert.True(t, decided(w))
		assert.True(t, g.Settle(w))
		g.Leave(who(1, 0))
		g.Leave(who(2, 0))
		assert.Equal(t, gate.Stats{Admitted: 3}, g.Stats())
	})
}

func TestHigherPriorityGoesFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLine(t, 10)
		low, high, middle := l.wait(t, who(1, -1)), l.wait(t, who(2, 7)), l.wait(t, who(3, 0))
		assert.Same(t, high, l.next(t))
		assert.Same(t, middle, l.next(t))
		assert.Same(t, low, l.next(t))
	})
}

func TestFewestPlacesGoFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGate(3, 10)
		for _, caller := range []int{1, 1, 2} {
			require.Nil(t, g.Enter(who(caller, 0)))
		}
		one, two, three := g.Enter(who(1, 0)), g.Enter(who(2, 0)), g.Enter(who(3, 0))
		g.Leave(who(1, 0)) // now 1 and 2 have one place each, 3 none
		assert.True(t, decided(three))
		g.Leave(who(2, 0))
		assert.True(t, decided(two))
		assert.False(t, decided(one))
	})
}

// Of callers with as many places, who was let in the longest ago goes first, so that one who
// asks for more than others has no more, also where all have the same places: none.
func TestWhoHadItsTurnGoesAfterOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLine(t, 10)
		greedy, more := l.wait(t, who(1, 0)), l.wait(t, who(1, 0))
		assert.Same(t, greedy, l.next(t))
		modest := l.wait(t, who(2, 0))
		assert.Same(t, modest, l.next(t))
		time.Sleep(interval)
		assert.Equal(t, target, l.wait(t, who(1, 0)).Patience)
		again := l.wait(t, who(2, 0))
		newest := l.next(t)
		assert.Equal(t, who(1, 0), l.has, "whose last turn was before that of 2")
		assert.NotSame(t, more, newest, "the queue stands")
		assert.Same(t, again, l.next(t))
		assert.Same(t, more, l.next(t))
	})
}

// Who has nothing for a moment is not new.
func TestTurnsAreRemembered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGate(1, 2)
		come := func(caller int) {
			require.Nil(t, g.Enter(who(caller, 0)))
			g.Leave(who(caller, 0))
		}
		first := func(one, two int) (caller int) { // of whom who comes in
			require.Nil(t, g.Enter(who(99, 0)))
			a, b := g.Enter(who(one, 0)), g.Enter(who(two, 0))
			g.Leave(who(99, 0))
			came, other := one, two
			if decided(b) {
				a, b, came, other = b, a, two, one
			}
			require.True(t, g.Settle(a))
			g.Leave(who(came, 0))
			require.True(t, g.Settle(b))
			g.Leave(who(other, 0))
			return came
		}
		come(1)
		assert.Equal(t, 2, first(1, 2), "it has not been here")
		assert.Equal(t, 2, first(1, 2), "its turn was before")
		for caller := 3; caller < 8; caller++ {
			come(caller)
		}
		assert.Zero(t, g.Callers())
		assert.Equal(t, 1, first(1, 2), "as many others have been here as fit in: both are new")
	})
}

func TestOldestGoesFirstUntilTheQueueStands(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLine(t, 10)
		a, b := l.wait(t, who(1, 0)), l.wait(t, who(2, 0))
		assert.Equal(t, interval, a.Patience)
		time.Sleep(interval - time.Nanosecond)
		c, d := l.wait(t, who(1, 0)), l.wait(t, who(3, 0))
		assert.Equal(t, interval, d.Patience)
		assert.Same(t, a, l.next(t), "the queue has not been there for an interval")
		time.Sleep(time.Nanosecond)
		e := l.wait(t, who(2, 0))
		assert.Equal(t, target, e.Patience, "it has: a standing queue")
		assert.Same(t, e, l.next(t))
		assert.Same(t, d, l.next(t))
		assert.Same(t, c, l.next(t))
		assert.Same(t, b, l.next(t))
		f := l.wait(t, who(1, 0))
		assert.Equal(t, interval, f.Patience, "the queue was empty")
	})
}

// Places may become free in batches, so that a queue is empty for a moment under any load.
func TestQueueStandsWhileItTurnsAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLine(t, 10)
		first := l.wait(t, who(1, 0))
		time.Sleep(interval)
		l.Impatient(first)
		require.False(t, l.Settle(first))
		time.Sleep(interval - time.Nanosecond)
		assert.Equal(t, interval, l.wait(t, who(5, 1)).Patience, "another priority")
		second, third := l.wait(t, who(1, 0)), l.wait(t, who(2, 0))
		assert.Equal(t, target, second.Patience)
		l.next(t)
		assert.Same(t, third, l.next(t))
		assert.Same(t, second, l.next(t))
		time.Sleep(time.Nanosecond)
		assert.Equal(t, interval, l.wait(t, who(1, 0)).Patience, "nobody was turned away for an interval")
	})
}

// Who has waited for long enough does not go if another would come in later.
func TestImpatienceFallsOnTheLast(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLine(t, 10)
		old := l.wait(t, who(1, 0))
		time.Sleep(interval - time.Millisecond)
		modest := l.wait(t, who(2, 0))
		greedy, again := l.wait(t, who(3, 0)), l.wait(t, who(3, 0))
		lower := l.wait(t, who(4, -1))
		time.Sleep(time.Millisecond)
		assert.Equal(t, target, l.Impatient(modest))
		assert.True(t, decided(greedy), "the older one of who waits twice")
		l.Impatient(old)
		assert.True(t, decided(old), "nobody waits for more than an interval")
		time.Sleep(interval - 3*time.Millisecond)
		assert.Equal(t, 2*time.Millisecond, l.Impatient(again), "it may wait for as long yet")
		assert.True(t, decided(modest), "the oldest")
		assert.False(t, decided(lower), "another priority")
		time.Sleep(2 * time.Millisecond)
		l.Impatient(again)
		assert.True(t, decided(again))
		assert.Equal(t, uint64(4), l.Stats().Shed)
	})
}

// Of priorities that clients choose a few are remembered.
func TestPrioritiesAreForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLine(t, 0)
		for i := range 100_000 {
			l.Enter(who(1, i))
			if i%1000 == 0 {
				time.Sleep(time.Millisecond)
			}
			require.LessOrEqual(t, l.Remembered(), 64)
		}
	})
}

func TestQueueOfOnePriorityDoesNotStandForAnother(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLine(t, 10)
		l.wait(t, who(1, 0))
		time.Sleep(interval)
		assert.Equal(t, target, l.wait(t, who(2, 0)).Patience)
		assert.Equal(t, interval, l.wait(t, who(3, 1)).Patience)
	})
}

func TestFullQueueTurnsAwayTheLast(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLine(t, 3)
		one, more, two := l.wait(t, who(1, 0)), l.wait(t, who(1, 0)), l.wait(t, who(2, 0))
		high := l.wait(t, who(3, 1))
		assert.True(t, decided(more), "of who waits twice, the newer: a burst is served in its order")
		assert.False(t, l.Settle(more))
		low := l.wait(t, who(4, -1))
		assert.True(t, decided(low), "who comes is the last")
		time.Sleep(interval)
		same := l.wait(t, who(2, 0))
		assert.True(t, decided(two), "of who waits twice in a queue that stands, the older")
		for _, w := range []*gate.Waiter{one, same, high} {
			assert.False(t, decided(w))
		}
		assert.Equal(t, uint64(3), l.Stats().Shed)
	})
}

// Places count too: who has some has had its turn.
func TestFullQueueCountsPlacesToo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGate(2, 2)
		require.Nil(t, g.Enter(who(1, 0)))
		require.Nil(t, g.Enter(who(1, 0)))
		one, two := g.Enter(who(1, 0)), g.Enter(who(2, 0))
		again := g.Enter(who(2, 0))
		assert.True(t, decided(one))
		assert.False(t, decided(two))
		assert.False(t, decided(again))
	})
}

func TestWhoIsGoneIsNotShed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLine(t, 10)
		gone, impatient := l.wait(t, who(1, 0)), l.wait(t, who(1, 0))
		assert.False(t, l.Settle(gone))
		time.Sleep(interval)
		l.Impatient(impatient)
		assert.True(t, decided(impatient))
		assert.Positive(t, l.Impatient(impatient), "once more changes nothing")
		assert.False(t, l.Settle(impatient))
		assert.False(t, l.Settle(impatient))
		assert.Equal(t, gate.Stats{Running: 1, Admitted: 1, Shed: 1}, l.Stats())
		l.Leave(l.has)
		assert.Equal(t, 0, l.Stats().Running)
	})
}

func TestPlaceIsReturnedBeyondTheBound(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGate(1, 10)
		require.Nil(t, g.Enter(who(1, 0)))
		g.Leave(who(1, 0))
		require.Nil(t, g.Enter(who(2, 0)))
		g.Return(who(1, 0))
		assert.Equal(t, 2, g.Stats().Running)
		w := g.Enter(who(3, 0))
		g.Leave(who(1, 0))
		assert.False(t, decided(w), "one was too many")
		g.Leave(who(2, 0))
		assert.True(t, decided(w))
	})
}

func TestBacklog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLine(t, 0)
		second := func(admitted, shed int) (least, most time.Duration) {
			const steps = 100
			least = time.Hour
			for i := range steps {
				for range admitted*(i+1)/steps - admitted*i/steps {
					l.Leave(l.has)
					l.Enter(l.has)
				}
				for range shed*(i+1)/steps - shed*i/steps {
					l.Enter(who(2, 0))
				}
				least, most = min(least, l.Backlog()), max(most, l.Backlog())
				time.Sleep(time.Second / steps)
			}
			return least, most
		}
		around := func(want, delta time.Duration, admitted, shed int) {
			least, most := second(admitted, shed)
			assert.InDelta(t, want, least, float64(delta), "the least")
			assert.InDelta(t, want, most, float64(delta), "the most")
		}
		around(0, 0, 1000, 0)
		_, most := second(1000, 100)
		assert.Less(t, most, 200*time.Millisecond, "as long as nobody knows better")
		second(100, 900)
		second(100, 900)
		around(9*time.Second, 500*time.Millisecond, 100, 900)
		second(1000, 1)
		second(1000, 1)
		around(time.Millisecond, time.Millisecond, 1000, 1)
		second(0, 1000)
		second(0, 1000)
		least, most := second(0, 1000)
		assert.Greater(t, least, 900*time.Second, "nothing becomes free")
		assert.Less(t, most, 2100*time.Second)
	})
}

func TestFreePlaceAllocatesNothing(t *testing.T) {
	g := gate.New(gate.Config{Places: 4, Now: func() time.Duration { panic("the clock is not needed") }})
	g.Enter(who(1, 0))
	caller := 0
	assert.Zero(t, testing.AllocsPerRun(1000, func() {
		caller++
		g.Enter(who(caller, 0))
		g.Leave(who(caller, 0))
	}))
}

// Who has waited for an Interval is turned away itself, and nobody else.
func TestNobodyWaitsForLongerThanAnInterval(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLine(t, 10)
		oldest, one, two := l.wait(t, who(1, 0)), l.wait(t, who(2, 0)), l.wait(t, who(2, 0))
		time.Sleep(interval)
		l.Impatient(oldest)
		assert.True(t, decided(oldest))
		assert.False(t, l.Settle(oldest))
		assert.False(t, decided(one) || decided(two))
	})
}

// A decision among a hundred times as many waits costs little more, also where each has a
// caller and a priority of its own.
func TestDecisionsAmongManyWaits(t *testing.T) {
	for name, who := range map[string]func(i int) gate.Who{
		"one caller":   func(int) gate.Who { return who(1, 0) },
		"any callers":  func(i int) gate.Who { return who(i, 0) },
		"any priority": func(i int) gate.Who { return who(i, i*7919%10007) },
	} {
		cost := func(queue int) time.Duration {
			const decisions = 3000
			start, least := time.Now(), time.Hour
			g := gate.New(gate.Config{Places: 1, Queue: queue, Target: target, Interval: interval, Now: func() time.Duration { return time.Since(start) }})
			for i := range queue + 1 {
				g.Enter(who(i))
			}
			for range 5 { // the others were disturbed
				began := time.Now()
				for i := range decisions {
					g.Enter(who(queue + 1 + i))
				}
				least = min(least, time.Since(began))
			}
			return least / decisions
		}
		few, many := cost(100), cost(10_000)
		assert.Less(t, many, 6*few, "%s: %v, and %v among 100", name, many, few)
	}
}

// Any number of goroutines come and go, and some lose patience: nothing is lost, and no more
// than the places are taken.
func TestGateIsSafeForConcurrentUse(t *testing.T) {
	start := time.Now()
	g := gate.New(gate.Config{Places: 3, Queue: 8, Target: target, Interval: interval, Now: func() time.Duration { return time.Since(start) }})
	var all sync.WaitGroup
	var mu sync.Mutex
	inside, most := 0, 0
	for i := range 24 {
		all.Go(func() {
			for n := range 500 {
				who := who(i%5+10*(i%3), i%3)
				if w := g.Enter(who); w != nil {
					if (i+n)%3 > 0 {
						<-w.Decided
					}
					if (i+n)%2 > 0 {
						g.Impatient(w)
					}
					if !g.Settle(w) {
						continue
					}
				}
				mu.Lock()
				inside++
				most = max(most, inside)
				mu.Unlock()
				mu.Lock()
				inside--
				mu.Unlock()
				g.Leave(who)
			}
		})
	}
	all.Wait()
	assert.LessOrEqual(t, most, 3)
	s := g.Stats()
	assert.Zero(t, s.Running)
	assert.Zero(t, s.Waiting)
}

// FuzzGate holds a Gate against a model that keeps all who wait in one list, and looks at each
// of them for each decision.
func FuzzGate(f *testing.F) {
	f.Add([]byte("\x02\x03" + "abcdefghijklmnopqrstuvwxyz0123456789"))
	f.Add([]byte("\x00\x09" + "aaaaaaaabbbbbbbbccccccccAAAAAAAABBBBBBBBzzzzzzzz"))
	random := rand.NewChaCha8([32]byte{})
	for range 100 {
		in := make([]byte, 400)
		_, _ = random.Read(in)
		f.Add(in)
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		if len(in) < 2 || len(in) > 1000 {
			return // the model is slow
		}
		var now time.Duration
		m := &model{places: 1 + int(in[0]%4), queue: int(in[1] % 10), turns: map[gate.Who]int{}}
		g := gate.New(gate.Config{
			Places: m.places, Queue: m.queue, Target: target, Interval: interval,
			Now: func() time.Duration { return now },
		})
		for _, op := range in[2:] {
			who := who(int(op>>2&7), int(op>>2&1)) // a caller has one priority
			switch op & 3 {
			case 0:
				if w := g.Enter(who); w != nil {
					m.wait(t, &waiting{w: w, who: who}, now)
				} else {
					m.enter(t, who)
				}
			case 2:
				if op&0x80 != 0 {
					now += time.Duration(op&0x7c) * time.Millisecond / 4
				} else if i := slices.IndexFunc(m.waiting, func(w *waiting) bool { return w.who == who }); i >= 0 {
					w := m.waiting[i]
					if op&0x40 != 0 {
						g.Impatient(w.w)
						m.impatient(t, w, now)
					} else {
						require.False(t, g.Settle(w.w))
						m.remove(w)
						m.tidy(who)
					}
				}
			default:
				if op >= 0xe0 {
					g.Return(who)
					m.know(who)
					m.running = append(m.running, who)
				} else if m.has(who) > 0 {
					g.Leave(who)
					m.leave(t, who, now)
				}
			}
			require.Equal(t, gate.Stats{Running: len(m.running), Waiting: len(m.waiting), Admitted: uint64(m.admitted), Shed: m.turnedAway}, g.Stats())
			require.Equal(t, len(m.turns)-len(m.idle), g.Callers())
			for _, w := range m.waiting {
				require.False(t, decided(w.w))
			}
		}
	})
}

type model struct {
	places, queue int
	running       []gate.Who
	waiting       []*waiting // the oldest first
	queues        map[int]*queue
	turns         map[gate.Who]int // of those who are known
	idle          []gate.Who       // the longest first
	admitted      int
	turnedAway    uint64
}

type queue struct {
	since, shed time.Duration // shed < 0: never
	stands      bool
}

type waiting struct {
	w    *gate.Waiter
	who  gate.Who
	came time.Duration
}

func (m *model) has(who gate.Who) (n int) {
	for _, r := range m.running {
		if r == who {
			n++
		}
	}
	return n
}

func (m *model) waits(who gate.Who) (n int) {
	for _, w := range m.waiting {
		if w.who == who {
			n++
		}
	}
	return n
}

func (m *model) enter(t *testing.T, who gate.Who) {
	require.Less(t, len(m.running), m.places)
	m.know(who)
	m.admit(who)
}

func (m *model) admit(who gate.Who) {
	m.running = append(m.running, who)
	m.admitted++
	m.turns[who] = m.admitted
}

func (m *model) know(who gate.Who) {
	if _, known := m.turns[who]; !known {
		if len(m.turns) > m.places+m.queue && len(m.idle) > 0 {
			delete(m.turns, m.idle[0])
			m.idle = m.idle[1:]
		}
		m.turns[who] = 0
	}
	m.idle = slices.DeleteFunc(m.idle, func(w gate.Who) bool { return w == who })
}

func (m *model) tidy(who gate.Who) {
	if m.has(who)+m.waits(who) == 0 {
		m.idle = append(m.idle, who)
	}
}

func (m *model) of(priority int) (all []*waiting) {
	for _, w := range m.waiting {
		if w.who.Priority == priority {
			all = append(all, w)
		}
	}
	return all
}

func (m *model) stands(priority int, now time.Duration) bool {
	q := m.queues[priority]
	return q.stands || now-q.since >= interval
}

func (m *model) shed(t *testing.T, w *waiting, now time.Duration) {
	require.True(t, decided(w.w))
	m.turnedAway++
	m.queues[w.who.Priority].shed = now
	m.remove(w)
	m.tidy(w.who)
}

func (m *model) impatient(t *testing.T, w *waiting, now time.Duration) {
	last := w
	if now-w.came < interval {
		last = m.last(w.who.Priority, now)
	}
	m.shed(t, last, now)
}

func (m *model) wait(t *testing.T, w *waiting, now time.Duration) {
	require.GreaterOrEqual(t, len(m.running), m.places)
	m.know(w.who)
	if m.queues == nil {
		m.queues = map[int]*queue{}
	}
	q := m.queues[w.who.Priority]
	if q == nil {
		q = &queue{shed: -interval}
		m.queues[w.who.Priority] = q
	}
	if len(m.of(w.who.Priority)) == 0 {
		q.since, q.stands = now, now-q.shed < interval
	}
	patience := interval
	if m.stands(w.who.Priority, now) {
		patience = target
	}
	require.Equal(t, patience, w.w.Patience)
	w.came = now
	m.waiting = append(m.waiting, w)
	if len(m.waiting) > m.queue {
		lowest := slices.MinFunc(m.waiting, func(a, b *waiting) int { return a.who.Priority - b.who.Priority }).who.Priority
		m.shed(t, m.last(lowest, now), now)
	}
}

func (m *model) last(priority int, now time.Duration) *waiting {
	all := m.of(priority)
	if !m.stands(priority, now) {
		slices.Reverse(all)
	}
	return slices.MaxFunc(all, func(a, b *waiting) int {
		return m.has(a.who) + m.waits(a.who) - m.has(b.who) - m.waits(b.who)
	})
}

func (m *model) leave(t *testing.T, who gate.Who, now time.Duration) {
	m.running = slices.Delete(m.running, slices.Index(m.running, who), slices.Index(m.running, who)+1)
	defer m.tidy(who)
	if len(m.waiting) == 0 || len(m.running) >= m.places {
		return
	}
	highest := slices.MaxFunc(m.waiting, func(a, b *waiting) int { return a.who.Priority - b.who.Priority }).who.Priority
	all := m.of(highest)
	if m.stands(highest, now) {
		slices.Reverse(all)
	}
	first := slices.MinFunc(all, func(a, b *waiting) int {
		return cmp.Or(m.has(a.who)-m.has(b.who), m.turns[a.who]-m.turns[b.who])
	})
	require.True(t, decided(first.w))
	m.remove(first)
	m.admit(first.who)
}

func (m *model) remove(w *waiting) {
	i := slices.Index(m.waiting, w)
	m.waiting = slices.Delete(m.waiting, i, i+1)
}
