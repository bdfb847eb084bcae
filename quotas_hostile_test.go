package admit_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"net/http"
	"net/http/httptest"
	"runtime"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/admit-go/admit"
)

// slowQuotas is a store that takes its time, and may answer whatever it likes.
type slowQuotas struct {
	admit.QuotaStore
	wait   time.Duration
	answer func([]admit.QuotaBalance) []admit.QuotaBalance // nil: as it is
	well   atomic.Bool                                     // from now on, it does as it should
	calls  atomic.Int64
}

func (s *slowQuotas) Settle(ctx context.Context, claims []admit.QuotaClaim) ([]admit.QuotaBalance, error) {
	s.calls.Add(1)
	if s.well.Load() {
		return s.QuotaStore.Settle(ctx, claims)
	}
	time.Sleep(s.wait) // it looks at no context
	balances, err := s.QuotaStore.Settle(ctx, claims)
	if s.answer != nil {
		balances = s.answer(balances)
	}
	return balances, err
}

// through has a service ask its store through another one.
func through(s *slowQuotas) func(*admit.QuotasConfig) {
	return func(c *admit.QuotasConfig) {
		s.QuotaStore = c.Store
		c.Store = s
	}
}

// silence keeps what is logged in an outage out of the output of tests.
func silence(t *testing.T) {
	old := slog.Default()
	slog.SetDefault(discardLogs)
	t.Cleanup(func() { slog.SetDefault(old) })
}

// atOnce sends requests at once, and returns how many were admitted and the longest that one took.
func (s *quotaService) atOnce(n int, headers ...string) (admitted int64, longest time.Duration) {
	var wg sync.WaitGroup
	var in, most atomic.Int64
	began := time.Now()
	for range n {
		wg.Go(func() {
			if s.get(headers...).Code == http.StatusOK {
				in.Add(1)
			}
			most.Store(int64(time.Since(began)))
		})
	}
	wg.Wait()
	return in.Load(), time.Duration(most.Load())
}

func TestQuotasOfAThousandRequestsAtOnce(t *testing.T) {
	for _, quota := range []int64{1, 50, 999, 1000, 1_000_000} {
		t.Run(strconv.FormatInt(quota, 10), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				store := &slowQuotas{wait: 300 * time.Millisecond}
				s := newQuotaService(t, monthly(quota), ok, through(store))
				admitted, longest := s.atOnce(1000)
				assert.Equal(t, min(quota, 1000), admitted)
				assert.LessOrEqual(t, store.calls.Load(), int64(4), "calls of the store")
				assert.LessOrEqual(t, longest, 2*store.wait, "one call to learn what there is, and one to get it")

				// What a crowd wanted is not what the next one gets ahead.
				s.get()
				synctest.Wait()
				b := s.balance(t)
				assert.LessOrEqual(t, b.Used+b.Held, admitted+1+(quota-admitted)/100)
				require.NoError(t, s.Close(t.Context()))
				assert.Zero(t, s.balance(t).Held)
			})
		})
	}
}

// Clients that leave while they wait take nothing with them.
func TestQuotasOfClientsThatLeave(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &slowQuotas{wait: 300 * time.Millisecond}
		s := newQuotaService(t, monthly(2000), ok, through(store))
		var wg sync.WaitGroup
		var in atomic.Int64
		for i := range 1000 {
			ctx, leave := context.WithTimeout(t.Context(), time.Duration(i)*time.Millisecond)
			defer leave()
			wg.Go(func() {
				r := get("/").WithContext(ctx)
				w := httptest.NewRecorder()
				s.handler.ServeHTTP(w, r)
				if w.Code == http.StatusOK {
					in.Add(1)
				}
			})
		}
		wg.Wait()
		require.Positive(t, in.Load())
		require.Less(t, in.Load(), int64(1000))
		require.NoError(t, s.Close(t.Context()))
		assert.Equal(t, admit.QuotaBalance{Used: in.Load()}, s.balance(t))
		assert.LessOrEqual(t, store.calls.Load(), int64(6))

		admitted, _ := s.atOnce(3000)
		assert.EqualValues(t, 2000-in.Load(), admitted, "who is gone wants nothing")
	})
}

// A store that takes its time, and one account that comes faster than its share grows: nobody
// waits long.
func TestQuotasOfASlowStore(t *testing.T) {
	silence(t)
	for _, slow := range []time.Duration{60 * time.Millisecond, 300 * time.Millisecond} {
		for _, sold := range []int64{10_000, 1_000_000} {
			t.Run(fmt.Sprint(slow, sold), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					store := &slowQuotas{wait: slow}
					s := newQuotaService(t, monthly(sold), ok, through(store), func(c *admit.QuotasConfig) { c.Replicas = 8 })
					took := make([]time.Duration, 5000)
					var wg sync.WaitGroup
					for i := range took {
						if i == 2500 {
							wg.Go(func() { // nor does who asks for the usage, or closes
								began := time.Now()
								assert.NotZero(t, s.used(t))
								assert.NoError(t, s.Close(t.Context()))
								assert.Less(t, time.Since(began), 12*slow)
							})
						}
						wg.Go(func() {
							began := time.Now()
							assert.Equal(t, http.StatusOK, s.get().Code)
							took[i] = time.Since(began)
						})
						time.Sleep(time.Millisecond)
					}
					wg.Wait()
					slices.Sort(took)
					t.Logf("p50 %v, p99 %v, longest %v, %d calls", took[2500], took[4950], took[4999], store.calls.Load())
					assert.LessOrEqual(t, took[4999], 2*slow, "the call that is under way, and the next one")
					assert.Less(t, store.calls.Load(), int64(5000/40))
					time.Sleep(time.Second) // for what is asked ahead
				})
			})
		}
	}
}

// An account that comes steadily never waits once its share has grown, though the store is slow.
func TestQuotasAskAhead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newQuotaService(t, monthly(1_000_000), ok, through(&slowQuotas{wait: 50 * time.Millisecond}))
		for i := range 5000 {
			began := time.Now()
			require.Equal(t, http.StatusOK, s.get().Code)
			if i >= 200 {
				require.Zero(t, time.Since(began), "request %d waits", i)
			}
			time.Sleep(2 * time.Millisecond)
		}
		require.NoError(t, s.Close(t.Context()))
	})
}

// The store hears of a soft quota before a minute is over, and not at each request.
func TestQuotasSoftAreToldInTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		plan := admit.Plan{Name: "free", Quotas: []admit.Quota{{Requests: 10_000, Every: admit.Month, Soft: true}}}
		store := new(slowQuotas)
		s := newQuotaService(t, plan, ok, through(store))
		for range 10_000 {
			s.get()
			time.Sleep(time.Millisecond)
		}
		assert.Less(t, store.calls.Load(), int64(250))
		assert.Equal(t, 80, (<-s.notices).Percent)
		time.Sleep(time.Minute)
		assert.Equal(t, 100, (<-s.notices).Percent)

		other := newQuotaService(t, plan, ok, func(c *admit.QuotasConfig) { c.Store = s.store })
		w := other.get()
		assert.Equal(t, http.StatusOK, w.Code)
		assert.Contains(t, w.Header().Get("RateLimit"), `"month";r=0;`, "also the first request says what is left")
	})
}

// A request of a soft quota that lasts for long is not forgotten.
func TestQuotasSoftStream(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		plan := admit.Plan{Name: "free", Quotas: []admit.Quota{{Requests: 10, Every: admit.Month, Soft: true}}}
		s := newQuotaService(t, plan, http.HandlerFunc(func(http.ResponseWriter, *http.Request) { time.Sleep(10 * time.Minute) }))
		require.Equal(t, http.StatusOK, s.get().Code)
		require.NoError(t, s.Close(t.Context()))
		assert.Equal(t, admit.QuotaBalance{Used: 1}, s.balance(t))
	})
}

// A store that hangs, panics or answers nonsense is an outage, and never lets anybody in who has
// not bought it.
func TestQuotasOfABadStore(t *testing.T) {
	silence(t)
	for name, store := range map[string]*slowQuotas{
		"hangs":    {wait: time.Hour},
		"too few":  {answer: func([]admit.QuotaBalance) []admit.QuotaBalance { return nil }},
		"too many": {answer: func(b []admit.QuotaBalance) []admit.QuotaBalance { return append(b, b...) }},
		"panics":   {answer: func([]admit.QuotaBalance) []admit.QuotaBalance { panic("as asked for") }},
		"below zero": {answer: func(b []admit.QuotaBalance) []admit.QuotaBalance {
			return []admit.QuotaBalance{{Used: -5, Held: -5, MyUsed: -5, MyHeld: -5}}
		}},
		"the smallest": {answer: func(b []admit.QuotaBalance) []admit.QuotaBalance {
			return []admit.QuotaBalance{{math.MinInt64, math.MinInt64, math.MinInt64, math.MinInt64, 0}}
		}},
		"the largest": {answer: func(b []admit.QuotaBalance) []admit.QuotaBalance {
			return []admit.QuotaBalance{{math.MaxInt64, math.MaxInt64, math.MaxInt64, math.MaxInt64, 0}}
		}},
		"all is mine": {answer: func(b []admit.QuotaBalance) []admit.QuotaBalance {
			return []admit.QuotaBalance{{Held: math.MaxInt64, MyHeld: math.MaxInt64}}
		}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newQuotaService(t, monthly(10), ok, through(store), func(c *admit.QuotasConfig) { c.StoreDown = admit.RefuseAll })
				began := time.Now()
				admitted, longest := s.atOnce(20)
				assert.LessOrEqual(t, admitted, int64(10))
				assert.LessOrEqual(t, longest, 800*time.Millisecond)
				for range 20 {
					if s.get().Code == http.StatusOK {
						admitted++
					}
				}
				assert.LessOrEqual(t, admitted, int64(10))
				assert.LessOrEqual(t, time.Since(began), 2*time.Second)
				assert.LessOrEqual(t, store.calls.Load(), int64(45))
				store.well.Store(true)
				time.Sleep(2 * time.Hour) // what hung comes back
				require.NoError(t, s.Close(t.Context()))
				assert.Zero(t, s.balance(t).Held)
				for range 20 {
					if s.get().Code == http.StatusOK {
						admitted++
					}
				}
				assert.EqualValues(t, 10, admitted)
			})
		})
	}
}

func TestQuotasOfCosts(t *testing.T) {
	if strconv.IntSize < 64 {
		t.Skip("no cost is so high")
	}
	for _, soft := range []bool{false, true} {
		t.Run(fmt.Sprint("soft ", soft), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var cost atomic.Int64
				plan := admit.Plan{Name: "free", Quotas: []admit.Quota{{Requests: 999_999_999_999_999, Every: admit.Month, Soft: soft}}}
				s := newQuotaService(t, plan, ok, func(c *admit.QuotasConfig) {
					c.Cost = func(*http.Request) int { return int(cost.Load()) }
				})
				for _, c := range []int64{math.MaxInt64, math.MaxInt64 - 1, math.MaxInt64, 1, 0, -1, math.MinInt64} {
					cost.Store(c)
					w := s.get()
					assert.Equal(t, !soft && c > 1, w.Code == http.StatusTooManyRequests, "cost %d: %d %s", c, w.Code, w.Body)
					assert.NotContains(t, w.Header().Get("RateLimit"), "-")
				}
				require.NoError(t, s.Close(t.Context()))
				b := s.balance(t)
				assert.Zero(t, b.Held)
				if soft {
					assert.EqualValues(t, int64(math.MaxInt64), b.Used)
				} else {
					assert.EqualValues(t, 1, b.Used)
				}
			})
		})
	}
}

// A request counts in the period in which it began, how long it may last.
func TestQuotasOfAStreamOverTheReset(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		stream := make(chan struct{})
		s := newQuotaService(t, monthly(2), http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			if r.Header.Get("Stream") != "" {
				<-stream
			}
		}))
		time.Sleep(30*24*time.Hour + 23*time.Hour + 59*time.Minute)
		done := make(chan int)
		go func() { done <- s.get("Stream: yes").Code }()
		synctest.Wait()
		require.Equal(t, http.StatusOK, s.get().Code)
		require.Equal(t, http.StatusTooManyRequests, s.get().Code)
		time.Sleep(time.Hour) // it is February
		require.Equal(t, http.StatusOK, s.get().Code)
		require.NoError(t, s.Close(t.Context()))
		assert.Equal(t, admit.QuotaBalance{Used: 1, Held: 1}, s.balance(t), "the stream is under way")
		calls := s.store.calls
		time.Sleep(24 * time.Hour)
		assert.Equal(t, calls, s.store.calls, "a stream has nothing to say")
		close(stream)
		require.Equal(t, http.StatusOK, <-done)
		time.Sleep(2 * time.Minute)
		assert.Equal(t, admit.QuotaBalance{Used: 2}, s.balance(t))
		assert.EqualValues(t, 1, s.used(t), "of February")
	})
}

// Replicas whose clocks differ by five minutes: each period is sold once.
func TestQuotasOfReplicasWhoseClocksDiffer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newQuotaService(t, monthly(1000), ok)
		late := newQuotaService(t, monthly(1000), ok, func(c *admit.QuotasConfig) {
			c.Store = s.store
			c.Anchor = func(*admit.Key) time.Time { return time.Date(1999, 1, 1, 0, 5, 0, 0, time.UTC) } // it is 5 minutes behind
		})
		time.Sleep(31*24*time.Hour - 10*time.Minute)
		admitted := 0
		for range 20 * 60 * 2 {
			for _, replica := range []*quotaService{s, late} {
				if replica.get().Code == http.StatusOK {
					admitted++
				}
			}
			time.Sleep(time.Second / 2)
		}
		require.NoError(t, s.Close(t.Context()))
		require.NoError(t, late.Close(t.Context()))
		assert.EqualValues(t, 1000, s.balance(t).Used, "of January")
		assert.EqualValues(t, 2000, admitted)
	})
}

// Two keys of one account that have bought different quotas take turns.
func TestQuotasOfTwoKeysInTurn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &slowQuotas{wait: time.Millisecond}
		s := newQuotaService(t, monthly(100), ok, through(store))
		for range 500 {
			s.get("Quota: 100000")
		}
		began, calls, admitted := time.Now(), store.calls.Load(), 0
		for range 5000 {
			assert.Equal(t, http.StatusTooManyRequests, s.get().Code, "500 are used of its 100")
			if s.get("Quota: 100000").Code == http.StatusOK {
				admitted++
			}
			time.Sleep(time.Millisecond)
		}
		assert.Equal(t, 5000, admitted)
		assert.LessOrEqual(t, store.calls.Load()-calls, int64(20*(1+time.Since(began)/time.Second)), "calls in %v", time.Since(began))
		require.NoError(t, s.Close(t.Context()))
		assert.Equal(t, admit.QuotaBalance{Used: 5500}, s.balance(t))
	})
}

// An account whose quota is used up costs a call of the store a second, however often it comes.
func TestQuotasOfWhoDoesNotStop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newQuotaService(t, monthly(10), ok)
		s.atOnce(10)
		calls := s.store.calls
		for range 10_000 {
			require.Equal(t, http.StatusTooManyRequests, s.get().Code)
			time.Sleep(time.Millisecond)
		}
		assert.InDelta(t, 10, s.store.calls-calls, 1)
	})
}

func TestQuotasSoftAndHardOfOneKey(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		plan := admit.Plan{Name: "free", Quotas: []admit.Quota{
			{Requests: 5, Every: admit.Day, Soft: true}, {Requests: 20, Every: admit.Week}, {Requests: 100, Every: admit.Month},
		}}
		s := newQuotaService(t, plan, ok)
		admitted := 0
		for range 50 {
			if s.get().Code == http.StatusOK {
				admitted++
			}
		}
		assert.Equal(t, 20, admitted)
		usage, err := s.Of(t.Context(), &admit.Key{ID: "k", Plan: "free"})
		require.NoError(t, err)
		for i, name := range []string{"day", "week", "month"} {
			assert.Equal(t, name, usage[i].Name)
			assert.EqualValues(t, 20, usage[i].Used, "what was refused by one is taken from none: %s", name)
		}
		require.NoError(t, s.Close(t.Context()))
		assert.Equal(t, admit.QuotaBalance{Used: 20}, s.balance(t))
	})
}

// What surrounds a handler decides whether a request counts, and nothing of it stays behind.
func TestQuotasOfBadHandlers(t *testing.T) {
	silence(t)
	late := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		time.Sleep(time.Minute) // it looks at no context
		_, _ = io.WriteString(w, "late")
	})
	for name, test := range map[string]struct {
		around  func(*quotaService) http.Handler
		handler http.Handler
		counted int64
	}{
		"twice around":               {func(s *quotaService) http.Handler { return withQuotaKey(s.Wrap(s.Wrap(s.Wrap(ok)))) }, ok, 1},
		"late, in a Timeout inside":  {nil, admit.Timeout(time.Second)(late), 0},
		"late, in a Timeout outside": {func(s *quotaService) http.Handler { return admit.Timeout(time.Second)(s.handler) }, late, 1}, // its answer is replaced where Quotas does not see it
		"panics":                     {nil, http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic("as asked for") }), 0},
		"aborts a response": {nil, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(http.StatusOK)
			panic(http.ErrAbortHandler)
		}), 1},
		"ends its goroutine": {nil, http.HandlerFunc(func(http.ResponseWriter, *http.Request) { runtime.Goexit() }), 0},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newQuotaService(t, monthly(10), test.handler)
				h := s.handler
				if test.around != nil {
					h = test.around(s)
				}
				var wg sync.WaitGroup
				wg.Go(func() {
					defer func() { _ = recover() }()
					h.ServeHTTP(httptest.NewRecorder(), get("/"))
				})
				wg.Wait()
				time.Sleep(2 * time.Minute)
				require.NoError(t, s.Close(t.Context()))
				assert.Equal(t, admit.QuotaBalance{Used: test.counted}, s.balance(t))
			})
		})
	}
}

// A function of the service that panics takes nothing with it.
func TestQuotasOfFunctionsThatPanic(t *testing.T) {
	silence(t)
	for name, configure := range map[string]func(*admit.QuotasConfig){
		"Cost":    func(c *admit.QuotasConfig) { c.Cost = func(*http.Request) int { panic("as asked for") } },
		"Counts":  func(c *admit.QuotasConfig) { c.Counts = func(int) bool { panic("as asked for") } },
		"Account": func(c *admit.QuotasConfig) { c.Account = func(*admit.Key) string { panic("as asked for") } },
		"Anchor":  func(c *admit.QuotasConfig) { c.Anchor = func(*admit.Key) time.Time { panic("as asked for") } },
		"Skip":    func(c *admit.QuotasConfig) { c.Skip = func(*http.Request) bool { panic("as asked for") } },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newQuotaService(t, monthly(10), ok, configure)
				assert.Panics(t, func() { s.get() })
				time.Sleep(3 * time.Minute) // nothing is under way for ever: the test would not end
				assert.Equal(t, admit.QuotaBalance{}, s.balance(t))
			})
		})
	}
}

// 100,000 accounts that come once: what they take, and that they leave nothing.
func TestQuotasForgetWhoHasLeft(t *testing.T) {
	if raceDetector {
		t.Skip("the race detector has a memory of its own")
	}
	synctest.Test(t, func(t *testing.T) {
		const accounts = 100_000
		s := newQuotaService(t, monthly(10_000), ok)
		heap := func() int64 {
			var m runtime.MemStats
			runtime.GC()
			runtime.ReadMemStats(&m)
			return int64(m.HeapAlloc)
		}
		s.store.QuotaStore = nowhere{}
		before := heap()
		for i := range accounts {
			require.Equal(t, http.StatusOK, s.get("Owner: "+strconv.Itoa(i)).Code)
		}
		synctest.Wait()
		there := heap() - before
		time.Sleep(5 * time.Minute)
		synctest.Wait()
		gone := heap() - before
		t.Logf("%d bytes an account while it is there, %d after", there/accounts, gone/accounts)
		assert.Less(t, there/accounts, int64(700))
		assert.Less(t, gone/accounts, int64(10))
		calls := s.store.calls
		time.Sleep(time.Hour)
		assert.Equal(t, calls, s.store.calls)
		runtime.KeepAlive(s)
	})
}

// nowhere is a store that grants all and keeps nothing.
type nowhere struct{ admit.QuotaStore }

func (nowhere) Settle(_ context.Context, claims []admit.QuotaClaim) ([]admit.QuotaBalance, error) {
	balances := make([]admit.QuotaBalance, len(claims))
	for i, c := range claims {
		balances[i] = admit.QuotaBalance{Used: c.Used, Held: c.Want, MyUsed: c.Used, MyHeld: c.Want}
	}
	return balances, nil
}

// Requests, Of, Export, Close and a store that comes and goes, all at once.
func TestQuotasAllAtOnce(t *testing.T) {
	silence(t)
	var admitted atomic.Int64
	s := newQuotaService(t, monthly(5000), http.HandlerFunc(func(http.ResponseWriter, *http.Request) { admitted.Add(1) }),
		func(c *admit.QuotasConfig) { c.StoreDown = admit.RefuseAll })
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for j := range 1000 {
				switch {
				case i == 0 && j%50 == 0:
					s.store.fail(errors.New("away"))
				case i == 0 && j%50 == 10:
					s.store.fail(nil)
				case i == 1 && j%20 == 0:
					_ = s.Close(t.Context())
				case i == 2 && j%20 == 0:
					_, _ = s.Of(t.Context(), &admit.Key{ID: "k", Plan: "free"})
				case i == 3 && j%20 == 0:
					_ = s.Export(t.Context(), func(context.Context, []admit.UsageRecord) error { return nil })
				default:
					s.get()
				}
			}
		})
	}
	wg.Wait()
	s.store.fail(nil)
	require.NoError(t, s.Close(t.Context()))
	assert.LessOrEqual(t, admitted.Load(), int64(5000))
	assert.EqualValues(t, admitted.Load(), s.used(t))
}

// A store that has become too slow for requests still hears at the end what was used.
func TestQuotasCloseWaitsForASlowStore(t *testing.T) {
	silence(t)
	synctest.Test(t, func(t *testing.T) {
		store := &slowQuotas{}
		s := newQuotaService(t, monthly(1000), ok, through(store))
		for range 5 {
			require.Equal(t, http.StatusOK, s.get().Code)
		}
		store.wait = 2 * time.Second
		require.Equal(t, http.StatusOK, s.get().Code, "decided without it")
		require.NoError(t, s.Close(t.Context()))
		store.wait = 0
		assert.EqualValues(t, 6, s.balance(t).Used)
	})
}

// A connection that its handler takes over counts once, as it ends, and so does an answer on
// every wire.
func TestQuotasOverSockets(t *testing.T) {
	t.Parallel()
	for _, wire := range wires {
		t.Run(wire, func(t *testing.T) {
			t.Parallel()
			s := newQuotaService(t, monthly(2), http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				conn, _, err := http.NewResponseController(w).Hijack()
				if err != nil {
					return // HTTP/2 has none
				}
				_, _ = io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
				_ = conn.Close()
			}))
			server := serve(t, wire, s.handler)
			for i, status := range []int{200, 200, 429} {
				res, _ := do(t, server, "GET", "/", "")
				assert.Equal(t, status, res.StatusCode, i)
			}
			assert.Eventually(t, func() bool { return s.used(t) == 2 }, 10*time.Second, time.Millisecond)
		})
	}
}
