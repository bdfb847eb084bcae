package alarm_test

import (
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"

	"github.com/admit-go/admit/internal/alarm"
)

// sleeper is a waiter as those of package admit are: it sets and takes back under a lock of its
// own.
type sleeper struct {
	a     *alarm.Alarm
	wait  alarm.Wait
	mu    sync.Mutex
	at    time.Time // zero: it does not wait
	woken time.Time
	early int // how often it was woken before its time
}

func (s *sleeper) set(in time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	s.at, s.woken = now.Add(in), time.Time{}
	s.a.Set(&s.wait, s, now, in)
}

func (s *sleeper) unset() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.at = time.Time{}
	s.a.Unset(&s.wait)
}

func (s *sleeper) overdue() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return !s.at.IsZero() && time.Now().After(s.at)
}

func (s *sleeper) Wake() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.at.IsZero() || s.a.IsSet(&s.wait) {
		return
	}
	if time.Now().Before(s.at) {
		s.early++
	}
	s.woken, s.at = time.Now(), time.Time{}
}

// Whatever is set and taken back, in any order: each is woken at its time, and once all are
// taken back there is no timer left, which the bubble would wait for.
func TestEachAtItsTime(t *testing.T) {
	t.Parallel()
	for seed := range uint64(300) {
		synctest.Test(t, func(t *testing.T) {
			random := rand.New(rand.NewPCG(seed, 1))
			a := new(alarm.Alarm)
			all := make([]*sleeper, 1+random.IntN(5))
			for i := range all {
				all[i] = &sleeper{a: a}
			}
			for range 100 {
				s := all[random.IntN(len(all))]
				switch random.IntN(3) {
				case 0:
					s.set(time.Duration(1+random.IntN(1000)) * time.Millisecond)
				case 1:
					s.unset()
				default:
					time.Sleep(time.Duration(random.IntN(400)) * time.Millisecond)
					synctest.Wait()
				}
				for i, s := range all {
					assert.False(t, s.overdue(), "seed %d, waiter %d", seed, i)
					assert.Zero(t, s.early, "seed %d, waiter %d", seed, i)
				}
			}
			for _, s := range all {
				s.unset()
			}
			began := time.Now()
			synctest.Wait()
			assert.Zero(t, time.Since(began))
		})
	}
}

// One timer serves all, and is stopped as soon as nobody waits.
func TestNoTimerIsLeft(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		a := new(alarm.Alarm)
		one, two := &counter{}, &counter{}
		now := time.Now()
		a.Set(&one.wait, one, now, time.Second)
		a.Set(&two.wait, two, now, 2*time.Second)
		a.Unset(&two.wait)
		a.Unset(&two.wait)
		a.Unset(new(alarm.Wait))
		time.Sleep(time.Minute)
		synctest.Wait()
		assert.Equal(t, []int{1, 0}, []int{one.n, two.n})
		a.Set(&two.wait, two, time.Now(), time.Second)
		a.Unset(&two.wait)
		time.Sleep(time.Minute)
		synctest.Wait()
		assert.Equal(t, []int{1, 0}, []int{one.n, two.n})
	})
}

type counter struct {
	wait alarm.Wait
	n    int
}

func (c *counter) Wake() { c.n++ }

// Who is woken sets the alarm again, and takes a lock that it also holds when it sets it.
func TestWakeSetsItAgain(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		a := new(alarm.Alarm)
		w := &again{a: a}
		a.Set(&w.wait, w, time.Now(), time.Second)
		time.Sleep(time.Minute)
		synctest.Wait()
		assert.Equal(t, 5, w.n)
	})
}

type again struct {
	a    *alarm.Alarm
	wait alarm.Wait
	n    int
}

func (w *again) Wake() {
	if w.n++; w.n < 5 {
		w.a.Set(&w.wait, w, time.Now(), time.Second)
	}
}

// One that waits in Wake does not hold up others whose time has come too.
func TestWakeMayWait(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		a := new(alarm.Alarm)
		held := make(chan struct{})
		var woken [3]atomic.Bool
		for i := range woken {
			w := &holding{woken: &woken[i], held: held}
			a.Set(&w.wait, w, time.Now(), time.Second)
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		for i := range woken {
			assert.True(t, woken[i].Load(), i)
		}
		close(held)
	})
}

type holding struct {
	wait  alarm.Wait
	woken *atomic.Bool
	held  chan struct{}
}

func (h *holding) Wake() {
	h.woken.Store(true)
	<-h.held
}

func TestAlarmAtOnce(t *testing.T) {
	t.Parallel()
	a := new(alarm.Alarm)
	var all sync.WaitGroup
	for range 4 {
		all.Go(func() {
			s := &sleeper{a: a}
			for range 2000 {
				s.set(50 * time.Microsecond)
				s.set(time.Hour)
				s.unset()
			}
			s.set(time.Millisecond)
			for {
				s.mu.Lock()
				woken := s.woken
				s.mu.Unlock()
				if !woken.IsZero() {
					return
				}
				time.Sleep(100 * time.Microsecond)
			}
		})
	}
	all.Wait()
}

func TestAlarmAllocates(t *testing.T) {
	waiters := make([][3]counter, 101)
	i := 0
	now := time.Now()
	assert.LessOrEqual(t, testing.AllocsPerRun(100, func() {
		var a alarm.Alarm
		for j := range waiters[i] {
			w := &waiters[i][j]
			a.Set(&w.wait, w, now, time.Hour)
			a.Set(&w.wait, w, now, time.Minute)
		}
		for j := range waiters[i] {
			a.Unset(&waiters[i][j].wait)
		}
		i++
	}), 3.0, "the alarm, its timer and what the timer calls")
}
