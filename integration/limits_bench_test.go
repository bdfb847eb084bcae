package integration

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-chi/httprate"
	"github.com/sethvargo/go-limiter/httplimit"
	"github.com/sethvargo/go-limiter/memorystore"
	"github.com/stretchr/testify/require"
	"github.com/throttled/throttled/v2"
	"github.com/throttled/throttled/v2/store/memstore"
	"github.com/ulule/limiter/v3"
	"github.com/ulule/limiter/v3/drivers/middleware/stdlib"
	"github.com/ulule/limiter/v3/drivers/store/memory"

	"github.com/admit-go/admit"
)

// limiters have the same limit, told to the client in headers, and the same way to know
// a caller: X-Caller. What differs is what they mean by a limit.
var limiters = []struct {
	name string
	wrap func(t testing.TB, requests int, per time.Duration) func(http.Handler) http.Handler
}{
	{"admit", func(t testing.TB, requests int, per time.Duration) func(http.Handler) http.Handler {
		l, err := admit.NewLimiter(admit.LimiterConfig{
			Limits: []admit.Limit{{Name: "limit", Requests: requests, Per: per}},
			By:     callerOf,
		})
		require.NoError(t, err)
		return l.Wrap
	}},
	{"throttled", func(t testing.TB, requests int, per time.Duration) func(http.Handler) http.Handler {
		store, err := memstore.NewCtx(0)
		require.NoError(t, err)
		l, err := throttled.NewGCRARateLimiterCtx(store, throttled.RateQuota{MaxRate: throttled.PerDuration(requests, per), MaxBurst: requests - 1})
		require.NoError(t, err)
		h := &throttled.HTTPRateLimiterCtx{RateLimiter: l, VaryBy: &throttled.VaryBy{Custom: callerOf}}
		return h.RateLimit
	}},
	{"httprate", func(_ testing.TB, requests int, per time.Duration) func(http.Handler) http.Handler {
		return httprate.LimitBy(requests, per, func(r *http.Request) (string, error) { return callerOf(r), nil })
	}},
	{"go-limiter", func(t testing.TB, requests int, per time.Duration) func(http.Handler) http.Handler {
		store, err := memorystore.New(&memorystore.Config{Tokens: uint64(requests), Interval: per})
		require.NoError(t, err)
		t.Cleanup(func() { _ = store.Close(t.Context()) })
		m, err := httplimit.NewMiddleware(store, func(r *http.Request) (string, error) { return callerOf(r), nil })
		require.NoError(t, err)
		return m.Handle
	}},
	{"ulule", func(_ testing.TB, requests int, per time.Duration) func(http.Handler) http.Handler {
		l := limiter.New(memory.NewStore(), limiter.Rate{Period: per, Limit: int64(requests)})
		return stdlib.NewMiddleware(l, stdlib.WithKeyGetter(callerOf)).Handler
	}},
}

func callerOf(r *http.Request) string { return r.Header["X-Caller"][0] }

func callers(n int) [][]string {
	all := make([][]string, n)
	for i, at := range rand.New(rand.NewPCG(1, 2)).Perm(n) {
		all[i] = []string{fmt.Sprintf("%032x", at)}
	}
	return all
}

// discard allocates nothing, and forgets the headers of the request before.
type discard struct {
	header http.Header
	status int
}

func (d *discard) Header() http.Header         { return d.header }
func (d *discard) WriteHeader(status int)      { d.status = status }
func (d *discard) Write(p []byte) (int, error) { return len(p), nil }

// call sends requests of the callers in turn, and fails on an answer that is not status.
func call(b *testing.B, h http.Handler, callers [][]string, status int, next func() bool) {
	r := httptest.NewRequest(http.MethodGet, "/", nil)
	w := &discard{header: make(http.Header)}
	at := rand.IntN(len(callers))
	for next() {
		if at++; at >= len(callers) {
			at = 0
		}
		r.Header["X-Caller"] = callers[at]
		clear(w.header)
		w.status = http.StatusOK
		h.ServeHTTP(w, r)
		if w.status != status {
			b.Errorf("status %d, not %d", w.status, status)
			return
		}
	}
}

// TestLimitersUnderConcurrency has 16 goroutines ask for more than there is. The counts
// of the peers, which have windows of the clock, are logged.
func TestLimitersUnderConcurrency(t *testing.T) {
	t.Parallel()
	for _, l := range limiters {
		h := l.wrap(t, 1000, time.Hour)(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
		var admitted atomic.Int64
		var goroutines sync.WaitGroup
		for range 16 {
			goroutines.Go(func() {
				r := httptest.NewRequest(http.MethodGet, "/", nil)
				r.Header["X-Caller"] = []string{"caller"}
				for range 200 {
					w := httptest.NewRecorder()
					h.ServeHTTP(w, r)
					if w.Code == http.StatusOK {
						admitted.Add(1)
					}
				}
			})
		}
		goroutines.Wait()
		t.Logf("%s: %d of 1000", l.name, admitted.Load())
		if l.name == "admit" {
			require.Equal(t, int64(1000), admitted.Load())
		}
	}
}

func BenchmarkLimiters(b *testing.B) {
	next := http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})
	for _, keys := range []int{1, 100_000} {
		callers := callers(keys)
		for _, refused := range []bool{false, true} {
			// Nothing comes back meanwhile, or it would be another comparison.
			requests, per, status, what := 10_000_000, 300*24*time.Hour, http.StatusOK, "accepted"
			if refused {
				requests, per, status, what = 1, time.Hour, http.StatusTooManyRequests, "refused"
			}
			for _, l := range limiters {
				wrap := func(b *testing.B) http.Handler {
					h := l.wrap(b, requests, per)(next)
					r, w := httptest.NewRequest(http.MethodGet, "/", nil), &discard{header: make(http.Header)}
					for i := range callers {
						r.Header["X-Caller"] = callers[i]
						clear(w.header)
						h.ServeHTTP(w, r)
					}
					return h
				}
				b.Run(fmt.Sprintf("keys=%d/%s/serial/%s", keys, what, l.name), func(b *testing.B) {
					h := wrap(b)
					b.ReportAllocs()
					call(b, h, callers, status, b.Loop)
				})
				b.Run(fmt.Sprintf("keys=%d/%s/parallel/%s", keys, what, l.name), func(b *testing.B) {
					h := wrap(b)
					b.ReportAllocs()
					b.ResetTimer()
					b.RunParallel(func(pb *testing.PB) { call(b, h, callers, status, pb.Next) })
				})
			}
		}
	}
}
