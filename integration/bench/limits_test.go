package main

import (
	"cmp"
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/didip/tollbooth/v7"
	tollboothlimiter "github.com/didip/tollbooth/v7/limiter"
	"github.com/go-chi/httprate"
	"github.com/labstack/echo/v4"
	"github.com/labstack/echo/v4/middleware"
	"github.com/sethvargo/go-limiter/httplimit"
	"github.com/sethvargo/go-limiter/memorystore"
	"github.com/throttled/throttled/v2"
	"github.com/throttled/throttled/v2/store/memstore"
	"github.com/ulule/limiter/v3"
	"github.com/ulule/limiter/v3/drivers/middleware/stdlib"
	"github.com/ulule/limiter/v3/drivers/store/memory"
	"golang.org/x/time/rate"

	"github.com/admit-go/admit"
)

// limiters have the same limit and the same way to know a caller: X-Caller. What differs
// is what they mean by a limit, and what they tell the client.
var limiters = []struct {
	name string
	wrap func(tb testing.TB, requests int, per time.Duration) func(http.Handler) http.Handler
}{
	{"admit", func(_ testing.TB, requests int, per time.Duration) func(http.Handler) http.Handler {
		return must(admit.NewLimiter(admit.LimiterConfig{
			Limits:  []admit.Limit{{Name: "limit", Requests: requests, Per: per}},
			CountBy: callerOf,
		})).Wrap
	}},
	{"throttled", func(_ testing.TB, requests int, per time.Duration) func(http.Handler) http.Handler {
		l := must(throttled.NewGCRARateLimiterCtx(must(memstore.NewCtx(0)),
			throttled.RateQuota{MaxRate: throttled.PerDuration(requests, per), MaxBurst: requests - 1}))
		h := &throttled.HTTPRateLimiterCtx{RateLimiter: l, VaryBy: &throttled.VaryBy{Custom: callerOf}}
		return h.RateLimit
	}},
	{"httprate", func(_ testing.TB, requests int, per time.Duration) func(http.Handler) http.Handler {
		return httprate.LimitBy(requests, per, func(r *http.Request) (string, error) { return callerOf(r), nil })
	}},
	{"go-limiter", func(tb testing.TB, requests int, per time.Duration) func(http.Handler) http.Handler {
		store := must(memorystore.New(&memorystore.Config{Tokens: uint64(requests), Interval: per}))
		tb.Cleanup(func() { _ = store.Close(context.Background()) })
		return must(httplimit.NewMiddleware(store, func(r *http.Request) (string, error) { return callerOf(r), nil })).Handle
	}},
	{"ulule", func(_ testing.TB, requests int, per time.Duration) func(http.Handler) http.Handler {
		l := limiter.New(memory.NewStore(), limiter.Rate{Period: per, Limit: int64(requests)})
		return stdlib.NewMiddleware(l, stdlib.WithKeyGetter(callerOf)).Handler
	}},
	{"echo", func(_ testing.TB, requests int, per time.Duration) func(http.Handler) http.Handler {
		store := middleware.NewRateLimiterMemoryStoreWithConfig(middleware.RateLimiterMemoryStoreConfig{
			Rate: rate.Limit(float64(requests) / per.Seconds()), Burst: requests, ExpiresIn: per,
		})
		limit := middleware.RateLimiterWithConfig(middleware.RateLimiterConfig{
			Store:               store,
			IdentifierExtractor: func(c echo.Context) (string, error) { return callerOf(c.Request()), nil },
		})
		return func(next http.Handler) http.Handler {
			e := echo.New()
			e.GET("/", echo.WrapHandler(next), limit)
			return e
		}
	}},
	{"tollbooth", func(_ testing.TB, requests int, per time.Duration) func(http.Handler) http.Handler {
		l := tollbooth.NewLimiter(float64(requests)/per.Seconds(), &tollboothlimiter.ExpirableOptions{DefaultExpirationTTL: per}).
			SetBurst(requests).SetHeader("X-Caller", nil).SetIgnoreURL(true)
		return func(next http.Handler) http.Handler { return tollbooth.LimitHandler(l, next) }
	}},
}

func callerOf(r *http.Request) string { return r.Header["X-Caller"][0] }

// callers returns n of them in no order, as values of X-Caller.
func callers(n int) [][]string {
	all := make([][]string, n)
	for i, at := range rand.New(rand.NewPCG(1, 2)).Perm(n) {
		all[i] = []string{fmt.Sprintf("%032x", at)}
	}
	return all
}

// call sends requests of the callers in turn, and fails on an answer that is not status.
func call(b *testing.B, h http.Handler, callers [][]string, status int, next func() bool) {
	r, w := httptest.NewRequest(http.MethodGet, "/", nil), newDiscard()
	at := rand.IntN(len(callers))
	for next() {
		if at++; at >= len(callers) {
			at = 0
		}
		r.Header["X-Caller"] = callers[at]
		w.clear()
		w.status = http.StatusOK
		h.ServeHTTP(w, r)
		if w.status != status {
			b.Errorf("status %d, not %d", w.status, status)
			return
		}
	}
}

// callAll has each caller known. As in a server, the name of a caller is a new string in
// each request, which a limiter that keeps it keeps alive.
func callAll(h http.Handler, callers [][]string) {
	r, w := httptest.NewRequest(http.MethodGet, "/", nil), newDiscard()
	for i := range callers {
		r.Header["X-Caller"] = []string{strings.Clone(callers[i][0])}
		w.clear()
		h.ServeHTTP(w, r)
	}
}

// A limit that nobody reaches. Nothing comes back meanwhile, or it would be another
// comparison.
const unreached, ages = 10_000_000, 300 * 24 * time.Hour

// BenchmarkRateLimit has callers in turn, of whom all or none is let in.
func BenchmarkRateLimit(b *testing.B) { compare(b, rateLimits()) }

func rateLimits() (all []contest) {
	for _, n := range []int{1, 100_000} {
		for _, c := range []struct {
			name     string
			status   int
			requests int
			per      time.Duration
		}{
			{"accepted", 200, unreached, ages},
			{"refused", 429, 1, time.Hour},
		} {
			work := contest{name: fmt.Sprintf("keys=%d/case=%s", n, c.name)}
			for _, l := range limiters {
				work.entries = append(work.entries, entry{l.name, func(v *verdict) {
					checkLimiter(v, l.wrap, c.status)
				}, func(b *testing.B) {
					h, callers := l.wrap(b, c.requests, c.per)(nothing), callers(n)
					callAll(h, callers)
					b.Run("mode=serial", func(b *testing.B) {
						b.ReportAllocs()
						call(b, h, callers, c.status, b.Loop)
					})
					b.Run("mode=parallel", func(b *testing.B) {
						b.ReportAllocs()
						b.RunParallel(func(pb *testing.PB) { call(b, h, callers, c.status, pb.Next) })
					})
				}})
			}
			all = append(all, work)
		}
	}
	return all
}

// checkLimiter sends a few requests, and looks at an answer with the status.
func checkLimiter(v *verdict, wrap func(testing.TB, int, time.Duration) func(http.Handler) http.Handler, status int) {
	h := wrap(v, 5, time.Hour)(nothing)
	as := func(caller string) *http.Request { return requests("GET", "", "X-Caller", caller)() }
	v.ask(h, as("one"), 200, "the first of five requests")
	res := v.ask(h, as("one"), 200, "the second of five requests")
	if status == 200 {
		if got, ok := remaining(res.Header); !ok {
			v.wrong("does not tell the client what is left")
		} else if got != 3 {
			v.wrong("tells the client that %d are left, not 3", got)
		}
		concurrently(v, wrap(v, 1000, time.Hour)(nothing))
		return
	}
	for range 3 {
		h.ServeHTTP(newDiscard(), as("one"))
	}
	res = v.refusal(h, as("one"), 429, "the sixth of five requests")
	switch after, seconds := retryAfter(res.Header); {
	case after == "":
		v.wrong("sends no Retry-After")
	case seconds == 0:
		v.wrong("sends a Retry-After that is neither seconds nor an HTTP-date, which ends in GMT")
	case seconds < 1 || seconds > 3601:
		v.wrong("sends Retry-After: %s, for a limit of an hour", after)
	}
	v.ask(h, as("other"), 200, "another caller")
}

// retryAfter reads both of its forms (RFC 9110 §10.2.3); one that is neither is 0 seconds.
func retryAfter(h http.Header) (value string, seconds int) {
	value = h.Get("Retry-After")
	if at, err := http.ParseTime(value); err == nil {
		return value, int(time.Until(at).Seconds()) + 1
	}
	seconds, _ = strconv.Atoi(value)
	return value, seconds
}

// concurrently has 16 goroutines ask for more than the 1000 that there are.
func concurrently(v *verdict, h http.Handler) {
	var admitted atomic.Int64
	var goroutines sync.WaitGroup
	for range 16 {
		goroutines.Go(func() {
			r, w := requests("GET", "", "X-Caller", "one")(), newDiscard()
			for range 200 {
				w.clear()
				w.status = http.StatusOK
				if h.ServeHTTP(w, r); w.status == http.StatusOK {
					admitted.Add(1)
				}
			}
		})
	}
	goroutines.Wait()
	if n := admitted.Load(); n != 1000 {
		v.wrong("lets %d of 1000 in when 16 goroutines ask at once", n)
	}
}

var draftRemaining = regexp.MustCompile(`;r=(\d+)`)

// remaining is what a client reads to be left, in one header or another.
func remaining(h http.Header) (int, bool) {
	for name, values := range h {
		value := values[0]
		if name == "Ratelimit" {
			if m := draftRemaining.FindStringSubmatch(value); m != nil {
				value = m[1]
			}
		} else if !strings.HasSuffix(name, "Remaining") {
			continue
		}
		if n, err := strconv.Atoi(value); err == nil {
			return n, true
		}
	}
	return 0, false
}

// BenchmarkMemory reports the heap for each of 100,000 callers with one limit.
func BenchmarkMemory(b *testing.B) {
	const n = 100_000
	keys := callers(n)
	for _, l := range limiters {
		b.Run("lib="+l.name, func(b *testing.B) {
			var each float64
			for b.Loop() {
				empty := heap()
				h := l.wrap(b, 2, time.Hour)(nothing)
				callAll(h, keys)
				each = cmp.Or(each, float64(heap()-empty)/n)
				runtime.KeepAlive(h)
			}
			b.ReportMetric(0, "ns/op") // of no interest
			b.ReportMetric(each, "B/key")
		})
	}
}

func heap() int64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.GC()
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}
