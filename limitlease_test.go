package admit_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
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

// network is the way to a store that processes share: it takes a time, and counts.
type network struct {
	admit.LimitStore
	takes atomic.Int64 // a time.Duration
	calls atomic.Int64
	down  atomic.Bool // some answers are lost then, and some calls
}

func (n *network) Take(ctx context.Context, key string, cost int, limits []admit.Limit) (admit.Decision, error) {
	n.calls.Add(1)
	time.Sleep(time.Duration(n.takes.Load()))
	if n.down.Load() {
		if n.calls.Load()%2 == 0 {
			_, _ = n.LimitStore.Take(ctx, key, cost, limits)
		}
		return admit.Decision{}, errors.New("no route to the store")
	}
	return n.LimitStore.Take(ctx, key, cost, limits)
}

// fleet are processes with limits in one store.
type fleet struct {
	network
	processes []*admit.Limiter
	admitted  []time.Duration
	mu        sync.Mutex
	began     time.Time
}

func newFleet(t *testing.T, n int, lease admit.Lease, limits ...admit.Limit) *fleet {
	f := &fleet{network: network{LimitStore: newMemoryStore(t, 0)}, began: time.Now()}
	f.takes.Store(int64(time.Millisecond))
	for range n {
		f.processes = append(f.processes, newLimiter(t, admit.LimiterConfig{Name: "api", Limits: limits, Store: &f.network, Replicas: n, Lease: lease}))
	}
	return f
}

// send has a caller send a request to one of the processes, and notes when it was let in.
func (f *fleet) send(t *testing.T, process int, r *http.Request, cost int) admit.Decision {
	d, err := f.processes[process].Take(r, cost)
	require.NoError(t, err)
	if d.Allowed {
		f.let(cost)
	}
	return d
}

func (f *fleet) let(cost int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for range cost {
		f.admitted = append(f.admitted, time.Since(f.began))
	}
}

// most returns how many were let in in any one period.
func (f *fleet) most(per time.Duration) (most int) {
	first := 0
	for i, at := range f.admitted {
		for at-f.admitted[first] >= per {
			first++
		}
		most = max(most, i-first+1)
	}
	return most
}

// close gives all back, after which nothing may be left that goes on.
func (f *fleet) close(t *testing.T) {
	for _, l := range f.processes {
		require.NoError(t, l.Close(t.Context()))
	}
}

// What a lease spares: eight processes, one caller whose requests come by chance, and a store that
// is a millisecond away.
func TestLeaseSparesTrips(t *testing.T) {
	t.Parallel()
	if raceDetector || testing.Short() {
		t.Skip("it is about numbers, and there are many")
	}
	var table strings.Builder
	fmt.Fprintf(&table, "%-34s %5s %9s %9s %8s %9s\n", "limit, lease", "load", "requests", "admitted", "of limit", "calls/req")
	for _, c := range []struct {
		limit admit.Limit
		lease admit.Lease
		calls [4]float64 // for each request, at most
	}{
		{admit.PerSecond(1000), admit.Lease{Share: 0.25, For: time.Second}, [4]float64{0.15, 0.1, 0.4, 0.1}},
		{admit.PerMinute(6000), admit.Lease{Share: 0.1, For: 2 * time.Second}, [4]float64{0.15, 0.1, 0.4, 0.1}},
		{admit.PerSecond(100), admit.Lease{Share: 0.5, For: time.Second}, [4]float64{0.4, 0.3, 0.4, 0.1}}, // six ahead are few
		{admit.PerSecond(1000), admit.Lease{}, [4]float64{1, 1, 1, 1}},
	} {
		for i, load := range []float64{0.5, 0.9, 2, 10} {
			name := fmt.Sprintf("%d/%v, %v of it for %v", c.limit.Requests, c.limit.Per, c.lease.Share, c.lease.For)
			synctest.Test(t, func(t *testing.T) {
				f := newFleet(t, 8, c.lease, c.limit)
				rate := load * float64(c.limit.Requests) / c.limit.Per.Seconds()
				lasts := time.Duration(float64(10*time.Second) * load * 1000 / rate)
				rnd := rand.New(rand.NewPCG(1, 2))
				// A full bucket is no part of the long run.
				_, _ = f.LimitStore.Take(t.Context(), "addr:api:192.0.2.1", c.limit.Requests, []admit.Limit{c.limit})
				var all sync.WaitGroup
				sent, r := 0, get("/")
				for time.Since(f.began) < lasts {
					time.Sleep(time.Duration(rnd.ExpFloat64() / rate * float64(time.Second)))
					sent++
					process := rnd.IntN(8)
					all.Go(func() { f.send(t, process, r, 1) })
				}
				all.Wait()
				f.close(t)
				calls := float64(f.calls.Load()) / float64(sent)
				of := float64(len(f.admitted)) / min(float64(sent), rate/load*lasts.Seconds())
				fmt.Fprintf(&table, "%-34s %4.1fx %9d %9d %8.3f %9.3f\n", name, load, sent, len(f.admitted), of, calls)
				assert.LessOrEqual(t, calls, c.calls[i], "%s, %.1fx: calls for each request", name, load)
				assert.GreaterOrEqual(t, of, 0.9, "%s, %.1fx: let in, of the limit", name, load)
				assert.LessOrEqual(t, of, 1.001+c.lease.Share, "%s, %.1fx: let in, of the limit", name, load)
				assert.LessOrEqual(t, float64(f.most(c.limit.Per)), float64(2*c.limit.Requests)*(1+c.lease.Share/2), "%s, %.1fx: in any one period", name, load)
			})
		}
	}
	t.Logf("\n%s", &table)
}

// However the requests of a caller, what they cost, what is given back, outages and lost answers
// come together, all processes stay within the bound.
func TestLeaseBound(t *testing.T) {
	t.Parallel()
	schedules := uint64(60)
	if raceDetector || testing.Short() {
		schedules = 6
	}
	for seed := range schedules {
		synctest.Test(t, func(t *testing.T) {
			rnd := rand.New(rand.NewPCG(seed, 3))
			per := time.Duration(1+rnd.IntN(20)) * 100 * time.Millisecond
			limits := []admit.Limit{{Requests: 1 + rnd.IntN(100), Per: per, Burst: 20 + rnd.IntN(200)}}
			lease := admit.Lease{Share: 0.2 + 0.8*rnd.Float64(), For: time.Duration(10+rnd.IntN(1000)) * time.Millisecond}
			f := &fleet{network: network{LimitStore: newMemoryStore(t, 0)}, began: time.Now()}
			costOf := func(r *http.Request) int { return len(r.Host) }
			var handlers []http.Handler
			for range 4 {
				l := newLimiter(t, admit.LimiterConfig{
					Name: "api", Limits: limits, Cost: costOf, Store: &f.network, StoreDown: admit.RefuseAll, Replicas: 4, Lease: lease,
				})
				f.processes = append(f.processes, l)
				handlers = append(handlers, (&admit.ErrorWriter{Logger: discardLogs}).Wrap(l.Wrap(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { f.let(costOf(r)) }))))
			}
			var all sync.WaitGroup
			for range 2000 {
				process, cost := rnd.IntN(4), max(rnd.IntN(30)-25, 1)
				r := get("/")
				r.Host = strings.Repeat("x", cost)
				patience := time.Duration(1+rnd.IntN(100)) * time.Millisecond
				switch rnd.IntN(100) {
				case 0:
					time.Sleep(time.Duration(rnd.Int64N(int64(2 * per))))
				case 1:
					f.down.Store(rnd.IntN(2) == 0)
				case 2:
					f.takes.Store(rnd.Int64N(int64(20 * time.Millisecond)))
				case 3:
					if rnd.IntN(20) == 0 {
						all.Go(func() { _ = f.processes[process].Close(t.Context()) })
					}
				}
				if rnd.IntN(3) == 0 {
					time.Sleep(time.Duration(rnd.Int64N(int64(per) / int64(limits[0].Requests))))
				}
				all.Go(func() {
					ctx, cancel := context.WithTimeout(t.Context(), patience)
					defer cancel()
					handlers[process].ServeHTTP(newDiscard(), r.WithContext(ctx))
				})
			}
			all.Wait()
			f.down.Store(false)
			f.close(t)
			bound := limits[0].Burst + limits[0].Requests + int(lease.Share*float64(limits[0].Burst))
			assert.LessOrEqual(t, f.most(per), bound, "seed %d", seed)
			time.Sleep(3 * time.Second) // calls that nobody waits for
		})
	}
}

func leased(t *testing.T, c admit.LimiterConfig) *admit.Limiter {
	t.Helper()
	c.Name = "api"
	if c.Limits == nil {
		c.Limits = []admit.Limit{admit.PerSecond(1000)}
	}
	if c.Replicas == 0 {
		c.Replicas = 1
	}
	if c.Lease == (admit.Lease{}) {
		c.Lease = admit.Lease{Share: 0.25, For: time.Second}
	}
	l := newLimiter(t, c)
	t.Cleanup(func() {
		assert.NoError(t, l.Close(context.Background()))
		assert.False(t, admit.WaitsForLeases(l))
	})
	return l
}

func newNetwork(t *testing.T) *network {
	n := &network{LimitStore: newMemoryStore(t, 0)}
	n.takes.Store(int64(time.Millisecond))
	return n
}

// remaining asks the store itself what a caller has left.
func (n *network) remaining(t *testing.T, key string, l admit.Limit) int {
	d, err := n.LimitStore.Take(t.Context(), key, 0, []admit.Limit{l})
	require.NoError(t, err)
	return d.States[0].Remaining
}

const someone = "addr:api:192.0.2.1"

// Nothing goes on when nobody comes any more: what was left is back in the store by then.
func TestLeaseGoesBackByItself(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		day := admit.PerDay(10_000)
		store := newNetwork(t)
		l := leased(t, admit.LimiterConfig{Store: store, Limits: []admit.Limit{day}})
		for range 20 {
			allowed(t, l.Wrap(ok), get("/"))
			time.Sleep(time.Millisecond)
		}
		assert.EqualValues(t, 5, store.calls.Load(), "for 1, 2, 4, 8 and 16")
		assert.Equal(t, 10_000-31, store.remaining(t, someone, day))
		assert.Equal(t, admit.LimiterStats{Callers: 1, Leased: 11, LeaseHits: 15}, l.Stats())
		time.Sleep(3 * time.Second)
		assert.Equal(t, 10_000-20, store.remaining(t, someone, day))
		assert.EqualValues(t, 6, store.calls.Load())
		assert.Equal(t, admit.LimiterStats{Callers: 1, LeaseHits: 15}, l.Stats())
		allowed(t, l.Wrap(ok), get("/"))
		assert.EqualValues(t, 7, store.calls.Load(), "who comes after a while is asked about")
		assert.Equal(t, 10_000-21, store.remaining(t, someone, day))
		assert.True(t, admit.WaitsForLeases(l))
		time.Sleep(3 * time.Second)
		assert.False(t, admit.WaitsForLeases(l), "no timer is left")
	})
}

// Close gives all back, once, and the Limiter is exact from then on.
func TestLimiterClose(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := newNetwork(t)
		day := admit.PerDay(10_000)
		l := leased(t, admit.LimiterConfig{Store: store, Limits: []admit.Limit{day}})
		r := from("192.0.2.1:1")
		for range 20 {
			allowed(t, l.Wrap(ok), r)
			allowed(t, l.Wrap(ok), from("192.0.2.2:1"))
		}
		var under sync.WaitGroup
		under.Go(func() { _, _ = l.Take(r, 20) }) // is answered when all is closed
		synctest.Wait()
		var closing sync.WaitGroup
		for range 3 {
			closing.Go(func() { assert.NoError(t, l.Close(t.Context())) })
		}
		closing.Wait()
		under.Wait()
		assert.Equal(t, 10_000-40, store.remaining(t, someone, day))
		assert.Equal(t, 10_000-20, store.remaining(t, "addr:api:192.0.2.2", day))
		calls := store.calls.Load()
		for range 10 {
			allowed(t, l.Wrap(ok), r)
		}
		assert.Equal(t, calls+10, store.calls.Load())
		assert.Zero(t, l.Stats().Leased)
		require.NoError(t, newLimiter(t, admit.LimiterConfig{Limits: []admit.Limit{day}}).Close(t.Context()))
	})
	synctest.Test(t, func(t *testing.T) { // while something is asked for, and while it goes back
		store := newNetwork(t)
		day := admit.PerDay(10_000)
		l := leased(t, admit.LimiterConfig{Store: store, Limits: []admit.Limit{day}})
		for range 3 {
			allowed(t, l.Wrap(ok), get("/"))
		}
		go func() { _, _ = l.Take(get("/"), 1) }()
		synctest.Wait()
		require.NoError(t, l.Close(t.Context()))
		time.Sleep(time.Second)
		assert.Equal(t, 10_000-4, store.remaining(t, someone, day))

		l = leased(t, admit.LimiterConfig{Store: store, Limits: []admit.Limit{day}})
		for range 4 {
			allowed(t, l.Wrap(ok), get("/"))
		}
		store.takes.Store(int64(300 * time.Millisecond))
		for l.Stats().Leased > 0 {
			time.Sleep(50 * time.Millisecond)
		}
		assert.Equal(t, 10_000-4-7, store.remaining(t, someone, day))
		require.NoError(t, l.Close(t.Context()))
		assert.Equal(t, 10_000-4-4, store.remaining(t, someone, day), "Close has waited for what was on its way")
	})
	synctest.Test(t, func(t *testing.T) {
		store := newNetwork(t)
		l := leased(t, admit.LimiterConfig{Store: store})
		for range 4 {
			allowed(t, l.Wrap(ok), get("/"))
			allowed(t, l.Wrap(ok), from("192.0.2.2:1"))
		}
		require.EqualValues(t, 6, l.Stats().Leased)
		store.down.Store(true)
		require.ErrorContains(t, l.Close(t.Context()), "what was taken ahead for 2 callers could not be given back: no route")
		assert.Zero(t, l.Stats().Leased)
	})
}

// A thousand requests at a time cost few trips, and each is decided.
func TestLeaseOfManyRequestsAtOnce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := newNetwork(t)
		limit := admit.Limit{Requests: 1, Per: time.Hour, Burst: 600}
		l := leased(t, admit.LimiterConfig{Store: store, Limits: []admit.Limit{limit}})
		var in, out atomic.Int64
		var all sync.WaitGroup
		for range 1000 {
			all.Go(func() {
				d, err := l.Take(get("/"), 1)
				assert.NoError(t, err)
				if d.Allowed {
					in.Add(1)
				} else {
					out.Add(1)
					assert.GreaterOrEqual(t, d.RetryAfter, time.Hour-time.Second)
					assert.LessOrEqual(t, d.RetryAfter, time.Hour+time.Second)
				}
			})
		}
		all.Wait()
		assert.EqualValues(t, 600, in.Load())
		assert.EqualValues(t, 400, out.Load())
		assert.LessOrEqual(t, store.calls.Load(), int64(5))
		time.Sleep(2 * time.Second)
	})
}

// Who waits for the trip of another is let go when its client leaves; and the others go on when
// that of the other leaves.
func TestLeaseOfRequestsThatAreLeft(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := newNetwork(t)
		store.takes.Store(int64(100 * time.Millisecond))
		day := admit.PerDay(1000)
		l := leased(t, admit.LimiterConfig{Store: store, Limits: []admit.Limit{day}})
		began := time.Now()
		var all sync.WaitGroup
		take := func(patience time.Duration) {
			all.Go(func() {
				ctx, cancel := context.WithTimeout(t.Context(), patience)
				defer cancel()
				d, err := l.Take(get("/").WithContext(ctx), 1)
				if patience < time.Second {
					assert.ErrorIs(t, err, context.DeadlineExceeded)
					assert.Equal(t, patience, time.Since(began))
				} else {
					assert.NoError(t, err)
					assert.True(t, d.Allowed)
				}
			})
			synctest.Wait()
		}
		take(50 * time.Millisecond) // asks
		take(20 * time.Millisecond)
		take(time.Hour)
		take(70 * time.Millisecond)
		take(time.Hour)
		all.Wait()
		assert.LessOrEqual(t, time.Since(began), 300*time.Millisecond)
		time.Sleep(3 * time.Second)
		assert.GreaterOrEqual(t, store.remaining(t, someone, day), 1000-4, "what a call took that was left stays taken, as ever")
	})
}

// While the store is down, what was taken ahead is spent first, and what it has taken counts
// against the share.
func TestLeaseInAnOutage(t *testing.T) {
	t.Parallel()
	for _, down := range []admit.StoreDown{admit.LimitLocally, admit.AdmitAll, admit.RefuseAll} {
		synctest.Test(t, func(t *testing.T) {
			store := newNetwork(t)
			l := leased(t, admit.LimiterConfig{
				Store: store, StoreDown: down, Replicas: 2, Limits: []admit.Limit{{Requests: 1, Per: time.Hour, Burst: 80}}, Lease: admit.Lease{Share: 0.5, For: time.Minute},
			})
			h := (&admit.ErrorWriter{Logger: discardLogs}).Wrap(l.Wrap(ok))
			for range 16 {
				allowed(t, h, get("/"))
			}
			require.EqualValues(t, 15, l.Stats().Leased)
			store.down.Store(true)
			for range 7 {
				allowed(t, h, get("/"))
			}
			assert.False(t, l.Stats().StoreDown)
			status(h, from("192.0.2.9:1"))
			for range 8 {
				allowed(t, h, get("/"))
			}
			assert.True(t, l.Stats().StoreDown, "what needs no store says nothing of it")
			assert.EqualValues(t, 1, l.Stats().WithoutStore)
			in := 0
			for range 100 {
				if status(h, get("/")) == http.StatusOK {
					in++
				}
			}
			assert.EqualValues(t, 101, l.Stats().WithoutStore)
			assert.Equal(t, map[admit.StoreDown]int{admit.LimitLocally: 40 - 31, admit.AdmitAll: 100, admit.RefuseAll: 0}[down], in, "%v", down)
			store.down.Store(false)
			time.Sleep(2 * time.Second)
			allowed(t, h, get("/"))
			assert.False(t, l.Stats().StoreDown)
			time.Sleep(3 * time.Minute)
		})
	}
}

// A lease belongs to one list of limits: requests under another one are exact meanwhile, and have
// one of their own later.
func TestLeaseOfLimitsThatChange(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		day := admit.PerDay(10_000)
		more := admit.Limit{Name: "more", Requests: 10_000, Per: day.Per}
		store := newNetwork(t)
		var bought atomic.Bool
		l := leased(t, admit.LimiterConfig{Store: store, Limits: []admit.Limit{day}, LimitsFor: func(*http.Request) []admit.Limit {
			if bought.Load() {
				return []admit.Limit{day, more}
			}
			return nil
		}})
		for range 20 {
			allowed(t, l.Wrap(ok), get("/"))
		}
		require.EqualValues(t, 5, store.calls.Load())
		bought.Store(true)
		for range 10 {
			allowed(t, l.Wrap(ok), get("/"))
		}
		assert.EqualValues(t, 15, store.calls.Load())
		assert.Equal(t, 10_000-10, store.remaining(t, someone, more))
		time.Sleep(3 * time.Second)
		assert.Equal(t, 10_000-30, store.remaining(t, someone, day))
		calls := store.calls.Load()
		for range 20 {
			allowed(t, l.Wrap(ok), get("/"))
		}
		assert.Equal(t, calls+5, store.calls.Load())
		time.Sleep(3 * time.Second)
		assert.Equal(t, 10_000-30, store.remaining(t, someone, more))
		assert.Equal(t, 10_000-50, store.remaining(t, someone, day))
	})
}

// Looking costs no trip where an answer is fresh, and what is given back is there at once.
func TestLeaseOfOtherCosts(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		day := admit.PerDay(100)
		store := newNetwork(t)
		l := leased(t, admit.LimiterConfig{Store: store, Limits: []admit.Limit{day}})
		take := func(cost int) admit.Decision {
			d, err := l.Take(get("/"), cost)
			require.NoError(t, err)
			return d
		}
		assert.Equal(t, 100, take(0).States[0].Remaining)
		assert.EqualValues(t, 1, store.calls.Load())
		assert.Equal(t, 99, take(1).States[0].Remaining)
		assert.Equal(t, 98, take(1).States[0].Remaining)
		require.EqualValues(t, 3, store.calls.Load())
		assert.Equal(t, 98, take(0).States[0].Remaining)
		assert.Equal(t, 99, take(-1).States[0].Remaining)
		assert.Equal(t, 97, take(2).States[0].Remaining)
		assert.EqualValues(t, 3, store.calls.Load(), "held, and given back to what is held")

		assert.Equal(t, 47, take(50).States[0].Remaining, "more than may be held")
		for _, cost := range []int{101, math.MaxInt} {
			never := take(cost)
			assert.False(t, never.Allowed, "more than a full bucket")
			assert.Negative(t, never.RetryAfter)
		}
		d := take(60)
		assert.False(t, d.Allowed)
		assert.True(t, d.States[0].Exceeded)
		calls := store.calls.Load()
		wait := d.RetryAfter
		assert.InDelta(t, 13*24*time.Hour/100, wait, float64(5*time.Millisecond))
		for range 100 {
			time.Sleep(time.Millisecond)
			d = take(60)
			assert.False(t, d.Allowed)
		}
		assert.Equal(t, wait-100*time.Millisecond, d.RetryAfter)
		assert.Equal(t, calls, store.calls.Load(), "a refusal is known")
		for range 4 {
			time.Sleep(500 * time.Millisecond)
			assert.False(t, take(60).Allowed)
		}
		assert.Equal(t, calls, store.calls.Load())
		take(0)
		assert.Equal(t, calls+1, store.calls.Load(), "who looks sees nothing that is older than a lease")
		take(-20)
		assert.True(t, take(60).Allowed, "and what is given back counts at once")
		take(math.MinInt)
		assert.Equal(t, 100, store.remaining(t, someone, day))
		assert.True(t, take(90).Allowed)
		time.Sleep(3 * time.Second)
	})
}

// What a response gives back is spent again without a trip; a limiter that only watches has a
// lease as well.
func TestLeaseWithRefund(t *testing.T) {
	t.Parallel()
	for _, dry := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			day := admit.PerDay(100)
			store := newNetwork(t)
			l := leased(t, admit.LimiterConfig{Store: store, Limits: []admit.Limit{day}, DryRun: dry, Refund: func(status int) bool { return status == 404 }})
			for range 1000 {
				status(l.Wrap(answer(404)), get("/"))
			}
			assert.LessOrEqual(t, store.calls.Load(), int64(4))
			in := 0
			for range 1000 {
				if status(l.Wrap(ok), get("/")) == 200 {
					in++
				}
			}
			assert.Equal(t, map[bool]int{false: 100, true: 1000}[dry], in)
			assert.LessOrEqual(t, store.calls.Load(), int64(15))
			time.Sleep(3 * time.Second)
		})
	}
}

// A MemoryStore is no trip away, and a share below one request takes nothing ahead.
func TestLeaseThatSparesNothing(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		memory := newMemoryStore(t, 0)
		l := leased(t, admit.LimiterConfig{Store: memory, Limits: []admit.Limit{admit.PerDay(100)}})
		for range 10 {
			allowed(t, l.Wrap(ok), get("/"))
		}
		assert.Equal(t, 90, (&network{LimitStore: memory}).remaining(t, someone, admit.PerDay(100)))
		assert.Zero(t, l.Stats().LeaseHits)

		store := newNetwork(t)
		l = leased(t, admit.LimiterConfig{Store: store, Limits: []admit.Limit{admit.PerDay(100), admit.PerSecond(31)}, Replicas: 8})
		for range 10 {
			allowed(t, l.Wrap(ok), get("/"))
		}
		assert.EqualValues(t, 10, store.calls.Load())
		assert.Zero(t, l.Stats().LeaseHits)
	})
}

// A store that hangs holds requests as long as without a lease, also those that wait for another.
func TestLeaseOverAStoreThatHangs(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := newNetwork(t)
		store.takes.Store(int64(time.Minute))
		l := leased(t, admit.LimiterConfig{Store: store, Limits: []admit.Limit{admit.PerDay(100)}, Replicas: 2})
		h := (&admit.ErrorWriter{Logger: discardLogs}).Wrap(l.Wrap(ok))
		began := time.Now()
		var all sync.WaitGroup
		var in atomic.Int64
		for range 100 {
			time.Sleep(5 * time.Millisecond)
			all.Go(func() {
				if status(h, get("/")) == 200 {
					in.Add(1)
				}
			})
		}
		all.Wait()
		assert.LessOrEqual(t, time.Since(began), 900*time.Millisecond)
		assert.EqualValues(t, 50, in.Load(), "the share of this process")
		time.Sleep(3 * time.Minute)
	})
}

// A store that is slow is no store that fails: who has waited for long enough asks for itself.
func TestLeaseOverASlowStore(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := newNetwork(t)
		store.takes.Store(int64(300 * time.Millisecond))
		l := leased(t, admit.LimiterConfig{Store: store, Limits: []admit.Limit{admit.PerDay(100)}, StoreDown: admit.RefuseAll})
		began := time.Now()
		var all sync.WaitGroup
		for _, answered := range []time.Duration{300, 600, 700} {
			all.Go(func() {
				d, err := l.Take(get("/"), 1)
				assert.NoError(t, err)
				assert.True(t, d.Allowed)
				assert.Equal(t, answered*time.Millisecond, time.Since(began))
			})
			synctest.Wait()
		}
		all.Wait()
		assert.EqualValues(t, 3, store.calls.Load())
		assert.Zero(t, l.Stats().WithoutStore)
	})
}

// A store may panic, and return what makes no sense.
func TestLeaseOverAStoreThatIsWrong(t *testing.T) {
	t.Parallel()
	for name, take := range map[string]takeFunc{
		"panics": func(context.Context, string, int, []admit.Limit) (admit.Decision, error) { panic("no") },
		"no states": func(context.Context, string, int, []admit.Limit) (admit.Decision, error) {
			return admit.Decision{Allowed: true}, nil
		},
		"refuses without states": func(context.Context, string, int, []admit.Limit) (admit.Decision, error) {
			return admit.Decision{RetryAfter: time.Second}, nil
		},
		"refuses without a reason": func(context.Context, string, int, []admit.Limit) (admit.Decision, error) {
			return admit.Decision{States: make([]admit.LimitState, 1)}, nil
		},
		"of another list": func(context.Context, string, int, []admit.Limit) (admit.Decision, error) {
			return admit.Decision{Allowed: true, States: make([]admit.LimitState, 3)}, nil
		},
		"of other numbers": func(context.Context, string, int, []admit.Limit) (admit.Decision, error) {
			return admit.Decision{States: []admit.LimitState{{Remaining: math.MinInt, Reset: math.MinInt64, Exceeded: true}}}, nil
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				l := leased(t, admit.LimiterConfig{Store: boundedTake{take}, StoreDown: admit.RefuseAll, Limits: []admit.Limit{admit.PerDay(100)}})
				h := (&admit.ErrorWriter{Logger: discardLogs}).Wrap(l.Wrap(ok))
				var all sync.WaitGroup
				for range 50 {
					all.Go(func() {
						switch got := status(h, get("/")); {
						case name == "panics":
							assert.Equal(t, http.StatusServiceUnavailable, got)
						case name == "no states" || name == "of another list":
							assert.Equal(t, http.StatusOK, got)
						default:
							assert.Equal(t, http.StatusTooManyRequests, got)
						}
					})
				}
				all.Wait()
				time.Sleep(3 * time.Second)
			})
		})
	}
}

// boundedTake is a store that is called as it is.
type boundedTake struct{ takeFunc }

func (boundedTake) MaxWait() time.Duration { return time.Millisecond }

// Who has no room, or a key that is too long to keep, is exact.
func TestLeasesAreBounded(t *testing.T) {
	t.Parallel()
	if testing.Short() || raceDetector {
		t.Skip("it makes 100,000 callers")
	}
	synctest.Test(t, func(t *testing.T) {
		store := newNetwork(t)
		store.takes.Store(0)
		caller := func(r *http.Request) string { return r.Host }
		l := leased(t, admit.LimiterConfig{Store: boundedTake{store.Take}, Limits: []admit.Limit{admit.PerDay(1000)}, CountBy: caller, StoreDown: admit.AdmitAll})
		keyed := leased(t, admit.LimiterConfig{Store: boundedTake{store.Take}, Limits: []admit.Limit{admit.PerDay(1000)}})
		often := func(l *admit.Limiter, r *http.Request) (calls int64) {
			before := store.calls.Load()
			for range 20 {
				allowed(t, l.Wrap(ok), r)
			}
			return store.calls.Load() - before
		}
		r := get("/")
		r.Host = strings.Repeat("x", 1000)
		assert.EqualValues(t, 20, often(l, r))
		for i := range 80_000 {
			r.Host = fmt.Sprint("stranger ", i)
			_, _ = l.Take(r, 1)
		}
		r.Host = "late"
		assert.EqualValues(t, 20, often(l, r), "there is no room")
		r.Host = "stranger 1"
		assert.EqualValues(t, 4, often(l, r), "who has an account keeps it")
		assert.EqualValues(t, 5, often(keyed, by(&admit.Key{ID: "1"})))
		time.Sleep(3 * time.Second)
		r.Host = "late"
		assert.EqualValues(t, 5, often(l, r), "there is room again")
		time.Sleep(3 * time.Second)
		assert.False(t, admit.WaitsForLeases(l), "all are gone")
	})
}

func TestLeaseAllocations(t *testing.T) {
	key := by(&admit.Key{ID: "0123456789abcdef0123456789abcdef"})
	w := newDiscard()
	defer admit.WithoutShedders()()
	limits := []admit.Limit{admit.PerHour(1_000_000), admit.PerDay(1_000_000)}
	for _, down := range []admit.StoreDown{admit.LimitLocally, admit.AdmitAll} {
		l := newLimiter(t, admit.LimiterConfig{
			Name: "api", Limits: limits, Store: newNetwork(t), StoreDown: down, Replicas: 1, Lease: admit.Lease{Share: 1, For: time.Hour},
		})
		h := l.Wrap(ok)
		for l.Stats().Leased < 1000 {
			h.ServeHTTP(w, key)
		}
		allocs(t, 2, func() {
			clear(w.h)
			h.ServeHTTP(w, key)
		})
		require.NoError(t, l.Close(t.Context()))
	}
}

func BenchmarkLease(b *testing.B) {
	key := by(&admit.Key{ID: "0123456789abcdef0123456789abcdef"})
	limits := []admit.Limit{{Requests: 1_000_000_000, Per: time.Second}}
	memory, err := admit.NewMemoryStore(admit.MemoryStoreConfig{})
	require.NoError(b, err)
	lease := admit.Lease{Share: 1, For: time.Hour}
	for name, c := range map[string]admit.LimiterConfig{
		"memory":                {Limits: limits},
		"lease":                 {Limits: limits, Name: "api", Store: boundedTake{memory.Take}, StoreDown: admit.AdmitAll, Replicas: 1, Lease: lease},
		"lease, and local":      {Limits: limits, Name: "api", Store: boundedTake{memory.Take}, Replicas: 1, Lease: lease},
		"a store without a way": {Limits: limits, Name: "api", Store: boundedTake{memory.Take}, Replicas: 1},
	} {
		b.Run(name, func(b *testing.B) {
			l, err := admit.NewLimiter(c)
			require.NoError(b, err)
			h, w := l.Wrap(ok), newDiscard()
			b.ReportAllocs()
			for b.Loop() {
				clear(w.h)
				h.ServeHTTP(w, key)
			}
			_ = l.Close(context.Background())
		})
	}
}

// What was taken for requests whose clients have left meanwhile goes back, but for what may be
// held.
func TestLeaseForRequestsThatAreLeft(t *testing.T) {
	t.Parallel()
	for name, more := range map[string]int{"nobody waits": 0, "somebody has to ask": 60} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				store := newNetwork(t)
				store.takes.Store(int64(100 * time.Millisecond))
				day := admit.PerDay(200)
				l := leased(t, admit.LimiterConfig{Store: store, Limits: []admit.Limit{day}, Lease: admit.Lease{Share: 0.05, For: time.Second}})
				take := func(patience time.Duration, cost int) {
					go func() {
						ctx, cancel := context.WithTimeout(t.Context(), patience)
						defer cancel()
						_, _ = l.Take(get("/").WithContext(ctx), cost)
					}()
					synctest.Wait()
				}
				take(time.Hour, 1)
				take(time.Hour, 1)
				for range 50 {
					take(150*time.Millisecond, 1)
				}
				time.Sleep(120 * time.Millisecond) // the second asks for all that wait
				if more > 0 {
					take(time.Hour, more)
				}
				time.Sleep(100*time.Millisecond + time.Microsecond)
				assert.LessOrEqual(t, l.Stats().Leased, int64(10))
				time.Sleep(time.Second)
				require.NoError(t, l.Close(t.Context()))
				assert.Equal(t, 200-2-more, store.remaining(t, someone, day))
			})
		})
	}
}

// However many leases there are, they go back in time: when they end, and when a server stops.
func TestManyLeasesGoBack(t *testing.T) {
	t.Parallel()
	const callers = 3000 // more than a batch
	limit := admit.PerDay(1000)
	start := func(t *testing.T) (*network, *admit.Limiter) {
		store := newNetwork(t)
		store.takes.Store(0)
		l := leased(t, admit.LimiterConfig{Store: boundedTake{store.Take}, Limits: []admit.Limit{limit}, CountBy: func(r *http.Request) string { return r.Host }, StoreDown: admit.AdmitAll})
		for i := range callers {
			r := get("/")
			r.Host = fmt.Sprint(i)
			for range 2 {
				allowed(t, l.Wrap(ok), r)
			}
		}
		require.EqualValues(t, callers, l.Stats().Leased)
		store.takes.Store(int64(3 * time.Millisecond))
		return store, l
	}
	back := func(t *testing.T, store *network) {
		for i := range callers {
			require.Equal(t, 1000-2, store.remaining(t, fmt.Sprint("by:api:", i), limit))
		}
	}
	synctest.Test(t, func(t *testing.T) { // by themselves
		store, l := start(t)
		time.Sleep(2 * time.Second)
		assert.Zero(t, l.Stats().Leased)
		back(t, store)
		time.Sleep(2 * time.Second)
		assert.False(t, admit.WaitsForLeases(l))
	})
	for name, ended := range map[string]time.Duration{"before they end": 0, "while they go back": time.Second + 100*time.Millisecond} {
		synctest.Test(t, func(t *testing.T) {
			store, l := start(t)
			time.Sleep(ended)
			began := time.Now()
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			require.NoError(t, l.Close(ctx), name)
			assert.Less(t, time.Since(began), 700*time.Millisecond, name)
			back(t, store)
		})
	}
}

// That the client of who asks leaves does not say that the store is back.
func TestLeaseInAnOutageThatGoesOn(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := newNetwork(t)
		l := leased(t, admit.LimiterConfig{Store: boundedTake{store.Take}, StoreDown: admit.RefuseAll, Limits: []admit.Limit{admit.PerDay(100)}, Lease: admit.Lease{Share: 0.25, For: time.Minute}})
		for range 4 {
			allowed(t, l.Wrap(ok), get("/"))
		}
		require.EqualValues(t, 3, l.Stats().Leased)
		store.down.Store(true)
		store.takes.Store(int64(50 * time.Millisecond))
		h := (&admit.ErrorWriter{Logger: discardLogs}).Wrap(l.Wrap(ok))
		status(h, from("192.0.2.9:1"))
		require.True(t, l.Stats().StoreDown)
		var all sync.WaitGroup
		all.Go(func() {
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
			defer cancel()
			_, err := l.Take(get("/").WithContext(ctx), 10)
			assert.ErrorIs(t, err, context.DeadlineExceeded)
		})
		synctest.Wait()
		allowed(t, h, get("/")) // of what is held
		all.Wait()
		assert.True(t, l.Stats().StoreDown)
		store.down.Store(false)
		store.takes.Store(0)
		time.Sleep(3 * time.Minute)
	})
}

// A client that leaves while its request asks costs its caller nothing of what was taken ahead.
func TestLeaseOfAClientThatLeaves(t *testing.T) {
	t.Parallel()
	for _, bounded := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			network := newNetwork(t)
			take := takeFunc(func(ctx context.Context, key string, cost int, limits []admit.Limit) (admit.Decision, error) {
				d, err := network.Take(context.WithoutCancel(ctx), key, cost, limits)
				if bounded && ctx.Err() != nil {
					return admit.Decision{}, ctx.Err() // the answer was on its way
				}
				return d, err
			})
			store := admit.LimitStore(take)
			if bounded {
				store = boundedTake{take}
			}
			day := admit.PerDay(1000)
			l := leased(t, admit.LimiterConfig{Limits: []admit.Limit{day}, StoreDown: admit.RefuseAll, Store: store})
			for range 100 {
				ctx, cancel := context.WithTimeout(t.Context(), 500*time.Microsecond)
				_, _ = l.Take(get("/").WithContext(ctx), 1)
				cancel()
			}
			require.NoError(t, l.Close(t.Context()))
			time.Sleep(time.Second)
			assert.GreaterOrEqual(t, network.remaining(t, someone, day), 1000-100, "bounded: %v", bounded)
		})
	}
}

// lateContext is looked at when something else has happened meanwhile.
type lateContext struct {
	context.Context
	by   time.Duration
	done chan struct{}
}

func (c lateContext) Done() <-chan struct{} {
	time.Sleep(c.by)
	return c.done
}

// Who was handed the turn to ask, and leaves or has waited for too long at the same moment, holds
// up nobody.
func TestLeaseOfATurnThatComesLate(t *testing.T) {
	t.Parallel()
	gone, leave := context.WithCancel(t.Context())
	leave()
	left := make(chan struct{})
	close(left)
	for name, ctx := range map[string]context.Context{
		"leaves": lateContext{gone, 5 * time.Millisecond, left},
		"waits":  lateContext{t.Context(), 500 * time.Millisecond, nil},
	} {
		synctest.Test(t, func(t *testing.T) {
			store := newNetwork(t)
			l := leased(t, admit.LimiterConfig{Limits: []admit.Limit{admit.PerDay(1000)}, StoreDown: admit.RefuseAll, Store: boundedTake{store.Take}})
			for i := range 20 {
				r := from(fmt.Sprintf("192.0.2.%d:1", i))
				var both sync.WaitGroup
				both.Go(func() { _, _ = l.Take(r, 1) })
				synctest.Wait()
				both.Go(func() { _, _ = l.Take(r.WithContext(ctx), 1) })
				both.Wait()
				began := time.Now()
				d, err := l.Take(r, 1)
				require.NoError(t, err, name)
				require.True(t, d.Allowed, name)
				require.LessOrEqual(t, time.Since(began), time.Millisecond, name)
			}
		})
	}
}

// A store that refuses to give anything ahead is asked for the request alone in the end, and at
// once if it is slow.
func TestLeaseOverAStoreThatGivesNothingAhead(t *testing.T) {
	t.Parallel()
	for takes, calls := range map[time.Duration]int64{time.Millisecond: 1 + 3, 150 * time.Millisecond: 1 + 2} {
		synctest.Test(t, func(t *testing.T) {
			store := newNetwork(t)
			store.takes.Store(int64(takes))
			l := leased(t, admit.LimiterConfig{Limits: []admit.Limit{admit.PerDay(1000)}, Store: boundedTake{func(ctx context.Context, key string, cost int, limits []admit.Limit) (admit.Decision, error) {
				d, err := store.Take(ctx, key, min(cost, 1), limits)
				d.Allowed = cost <= 1
				return d, err
			}}})
			for range 2 {
				d, err := l.Take(get("/"), 1)
				require.NoError(t, err)
				assert.True(t, d.Allowed)
			}
			assert.Equal(t, calls, store.calls.Load(), "%v", takes)
		})
	}
}

// What was taken for requests goes back when all their clients have left, also that of who asked.
func TestLeaseThatAllHaveLeft(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := newNetwork(t)
		store.takes.Store(int64(100 * time.Millisecond))
		day := admit.PerDay(200)
		l := leased(t, admit.LimiterConfig{Limits: []admit.Limit{day}, StoreDown: admit.RefuseAll, Store: boundedTake{store.Take}, Lease: admit.Lease{Share: 0.05, For: time.Second}})
		var all sync.WaitGroup
		for i := range 52 {
			all.Go(func() {
				ctx, cancel := context.WithTimeout(t.Context(), 150*time.Millisecond)
				defer cancel()
				if i == 0 {
					ctx = t.Context()
				}
				_, _ = l.Take(get("/").WithContext(ctx), 1)
			})
			synctest.Wait()
		}
		all.Wait()
		require.NoError(t, l.Close(t.Context()))
		time.Sleep(time.Second)
		assert.Equal(t, 200-2, store.remaining(t, someone, day))
	})
}

// A refusal that is known says how long the limit refuses that does so for longest.
func TestLeaseOfTwoLimitsThatRefuse(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := newNetwork(t)
		l := leased(t, admit.LimiterConfig{Store: store, Limits: []admit.Limit{
			{Name: "slow", Requests: 1, Per: time.Hour, Burst: 10},
			{Name: "fast", Requests: 1, Per: time.Minute, Burst: 10},
		}})
		_, err := l.Take(get("/"), 10)
		require.NoError(t, err)
		calls := store.calls.Load()
		d, err := l.Take(get("/"), 1)
		require.NoError(t, err)
		require.False(t, d.Allowed)
		require.Equal(t, calls, store.calls.Load())
		assert.True(t, d.States[0].Exceeded && d.States[1].Exceeded)
		assert.Equal(t, d.States[0].Reset, d.RetryAfter)
		assert.InDelta(t, time.Hour, d.RetryAfter, float64(time.Second))
	})
}

// A refusal of the store says how long a busy caller is held.
func TestARefusalSaysHowLongItHolds(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := newNetwork(t)
		second := admit.PerSecond(100)
		l := leased(t, admit.LimiterConfig{Limits: []admit.Limit{second}, Store: boundedTake{store.Take}, Lease: admit.Lease{Share: 0.5, For: time.Second}})
		take := func() (admit.Decision, int64) {
			before := store.calls.Load()
			d, err := l.Take(get("/"), 1)
			require.NoError(t, err)
			return d, store.calls.Load() - before
		}
		_, calls := take()
		for ahead := int64(0); ahead == 0 || calls == 0; {
			_, calls = take()
			ahead = l.Stats().Leased
		}
		for l.Stats().Leased > 0 {
			take()
		}
		_, err := store.LimitStore.Take(t.Context(), someone, store.remaining(t, someone, second), []admit.Limit{second}) // another process
		require.NoError(t, err)
		d, calls := take()
		require.Positive(t, calls)
		require.False(t, d.Allowed)
		assert.InDelta(t, 500*time.Millisecond, d.RetryAfter, float64(time.Millisecond))
		assert.Equal(t, d.RetryAfter, d.States[0].Reset)
	})
}

// So does one for nothing but a request, after the store has refused more.
func TestARefusalOfOneRequestSaysHowLongItHolds(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := newNetwork(t)
		second := admit.PerSecond(100)
		others := func(leave int) {
			_, err := store.LimitStore.Take(t.Context(), someone, store.remaining(t, someone, second)-leave, []admit.Limit{second})
			require.NoError(t, err)
		}
		take := func(ctx context.Context, key string, cost int, limits []admit.Limit) (admit.Decision, error) {
			d, err := store.Take(ctx, key, cost, limits)
			if !d.Allowed && cost > 1 {
				others(0) // what this answer says is left is gone before the next question
			}
			return d, err
		}
		l := leased(t, admit.LimiterConfig{Limits: []admit.Limit{second}, Store: boundedTake{take}, Lease: admit.Lease{Share: 0.5, For: time.Second}})
		for leased := int64(0); leased == 0 || l.Stats().Leased > 0; leased = max(leased, l.Stats().Leased) {
			_, err := l.Take(get("/"), 1)
			require.NoError(t, err)
		}
		others(1)
		before := store.calls.Load()
		d, err := l.Take(get("/"), 1)
		require.NoError(t, err)
		require.EqualValues(t, 2, store.calls.Load()-before)
		require.False(t, d.Allowed)
		assert.InDelta(t, 500*time.Millisecond, d.RetryAfter, float64(time.Millisecond))
	})
}
