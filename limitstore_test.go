package admit_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/admit-go/admit"
)

// slowStore takes its time for each call, whatever the context says.
type slowStore struct {
	admit.LimitStore
	pause atomic.Int64 // a time.Duration
	fails atomic.Bool
	calls atomic.Int64
	under atomic.Int64 // way
	most  atomic.Int64 // at a time
}

func (s *slowStore) Take(_ context.Context, key string, cost int, limits []admit.Limit) (admit.Decision, error) {
	s.calls.Add(1)
	for n := s.under.Add(1); ; {
		if most := s.most.Load(); n <= most || s.most.CompareAndSwap(most, n) {
			break
		}
	}
	defer s.under.Add(-1)
	time.Sleep(time.Duration(s.pause.Load()))
	if s.fails.Load() {
		return admit.Decision{}, errors.New("no route to the store")
	}
	return s.LimitStore.Take(context.Background(), key, cost, limits)
}

func (s *slowStore) set(d time.Duration) { s.pause.Store(int64(d)) }

func newSlowStore(t *testing.T) *slowStore { return &slowStore{LimitStore: newMemoryStore(t, 0)} }

// A store that hangs costs the first requests less than half a second, and the later ones
// nothing; it is used again soon after it is well, and the log has one line each way.
func TestLimiterLeavesAStoreThatHangsAlone(t *testing.T) {
	t.Parallel()
	for name, hangs := range map[string]struct {
		pause time.Duration
		fails bool
	}{
		"late": {2 * time.Second, false}, "for minutes": {10 * time.Minute, false}, "late, with an error": {2 * time.Second, true}, "slow to fail": {300 * time.Millisecond, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				logger, log := logged()
				store := newSlowStore(t)
				h := (&admit.ErrorWriter{Logger: logger}).Wrap(newLimiter(t, admit.LimiterConfig{
					Name: "api", Store: store, Replicas: 2, Limits: []admit.Limit{admit.PerDay(100_000)},
				}).Wrap(ok))
				wait := func() time.Duration {
					began := time.Now()
					allowed(t, h, get("/"))
					return time.Since(began)
				}
				assert.Zero(t, wait())
				store.set(hangs.pause)
				store.fails.Store(hangs.fails)
				store.calls.Store(0)
				assert.LessOrEqual(t, wait(), 400*time.Millisecond)
				for range 300 {
					require.Zero(t, wait())
					time.Sleep(100 * time.Millisecond)
				}
				assert.LessOrEqual(t, store.calls.Load(), int64(1+30), "a probe a second")

				store.set(0)
				store.fails.Store(false)
				began := time.Now()
				for before := store.calls.Load(); store.calls.Load() < before+2; { // a probe, and the request after it
					require.Less(t, time.Since(began), 7*time.Second)
					require.Zero(t, wait())
					time.Sleep(50 * time.Millisecond)
				}
				assert.Equal(t, 1, strings.Count(log.String(), "the limit store failed"), log.String())
				assert.Equal(t, 1, strings.Count(log.String(), "the limit store is back"), log.String())
				assert.Regexp(t, `level=WARN msg="admit: the limit store failed"`, log.String())
				assert.Regexp(t, `level=INFO msg="admit: the limit store is back" limiter=api away=3\d\.\d+s decisions_without_it=3\d\d`, log.String())
				time.Sleep(11 * time.Minute) // those that hang return
			})
		})
	}
}

// Whatever comes at once while it hangs, the calls that hang are bounded, those that
// never return too.
func TestLimiterBoundsTheCallsOfAStore(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := newSlowStore(t)
		store.set(24 * time.Hour)
		h := (&admit.ErrorWriter{Logger: discardLogs}).Wrap(newLimiter(t, admit.LimiterConfig{
			Name: "api", Store: store, Replicas: 2, Limits: []admit.Limit{admit.PerDay(1_000_000)},
		}).Wrap(ok))
		var requests sync.WaitGroup
		for range 10_000 {
			requests.Go(func() { assert.Equal(t, 200, status(h, get("/"))) })
		}
		requests.Wait()
		assert.EqualValues(t, 4096, store.most.Load())
		for range 100 {
			require.Equal(t, 200, status(h, get("/")))
			time.Sleep(time.Second)
		}
		assert.EqualValues(t, 4096, store.most.Load())
		time.Sleep(25 * time.Hour)
		store.set(0)
		status(h, get("/"))
		time.Sleep(time.Second)
		before := store.calls.Load()
		status(h, get("/"))
		synctest.Wait()
		assert.Greater(t, store.calls.Load(), before, "it is asked again")
	})
}

// What a late answer has taken stays taken, in the store and in the share, and the log
// says how often that was.
func TestLimiterChargesForLateAnswers(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		logger, log := logged()
		store := newSlowStore(t)
		limit := admit.PerDay(10)
		l := newLimiter(t, admit.LimiterConfig{Name: "api", Store: store, Replicas: 1, Limits: []admit.Limit{limit}})
		h := (&admit.ErrorWriter{Logger: logger}).Wrap(l.Wrap(ok))
		store.set(time.Second)
		assert.Contains(t, allowed(t, h, get("/")).Get("RateLimit"), "r=9;")
		store.set(0)
		time.Sleep(2 * time.Second)
		assert.Contains(t, allowed(t, h, get("/")).Get("RateLimit"), "r=8;", "by the share; a probe goes out")
		synctest.Wait()
		assert.Contains(t, allowed(t, h, get("/")).Get("RateLimit"), "r=8;", "by the store, which the second has not asked")
		assert.Contains(t, log.String(), "decisions_without_it=2 late_takes_that_count=1")
	})
}

// A store that panics is one that fails.
func TestLimiterOfAStoreThatPanics(t *testing.T) {
	t.Parallel()
	logger, log := logged()
	l := newLimiter(t, admit.LimiterConfig{Name: "api", Store: &failing{}, Replicas: 1, Limits: []admit.Limit{admit.PerDay(1)}})
	h := (&admit.ErrorWriter{Logger: logger}).Wrap(l.Wrap(ok))
	allowed(t, h, get("/"))
	refused(t, h, get("/"), http.StatusTooManyRequests)
	assert.Contains(t, log.String(), "the store panicked: runtime error")
}

// A store that fails once in a while fills no log.
func TestLimiterOfAStoreThatFlaps(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		logger, log := logged()
		store := newSlowStore(t)
		l := newLimiter(t, admit.LimiterConfig{Name: "api", Store: store, Replicas: 1, Limits: []admit.Limit{admit.PerDay(100_000)}})
		h := (&admit.ErrorWriter{Logger: logger}).Wrap(l.Wrap(ok))
		for i := range 10 * 60 * 10 {
			store.fails.Store(i%7 == 0)
			allowed(t, h, from(fmt.Sprintf("192.0.2.%d:1", i%5)))
			time.Sleep(100 * time.Millisecond)
		}
		assert.InDelta(t, 10, strings.Count(log.String(), "the limit store failed"), 1)
		assert.InDelta(t, 10, strings.Count(log.String(), "the limit store is back"), 1)
	})
}

// waits is a store that says how long Take waits.
type waits struct {
	admit.LimitStore
	most    time.Duration
	bounded bool // by the Limiter
}

func (s *waits) MaxWait() time.Duration { return s.most }

func (s *waits) Take(ctx context.Context, key string, cost int, limits []admit.Limit) (admit.Decision, error) {
	_, s.bounded = ctx.Deadline()
	return s.LimitStore.Take(ctx, key, cost, limits)
}

// A store that bounds itself well enough is asked as it is.
func TestLimiterTrustsAStoreThatBoundsItself(t *testing.T) {
	t.Parallel()
	for most, bounded := range map[time.Duration]bool{50 * time.Millisecond: false, 400 * time.Millisecond: false, time.Second: true} {
		store := &waits{LimitStore: newMemoryStore(t, 0), most: most}
		l := newLimiter(t, admit.LimiterConfig{Name: "api", Store: store, Replicas: 2, Limits: []admit.Limit{admit.PerDay(100_000)}})
		allowed(t, l.Wrap(ok), get("/"))
		assert.Equal(t, bounded, store.bounded, most)
	}
}
