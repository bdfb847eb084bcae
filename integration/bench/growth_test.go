package main

import (
	"fmt"
	"math"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-chi/httprate"
	"github.com/throttled/throttled/v2"
	"github.com/throttled/throttled/v2/store/memstore"

	"github.com/admit-go/admit"
)

// BenchmarkGrowth shows how the cost of a request grows with what there is of everything.
func BenchmarkGrowth(b *testing.B) {
	b.Run("by=keys", growthByKeys)
	b.Run("by=limits", growthByLimits)
	b.Run("by=offers", growthByOffers)
	b.Run("by=ranges", growthByRanges)
	b.Run("by=goroutines", growthByGoroutines)
}

// slow limiters are left out: they would take most of the time, and squeeze the others.
func growing(name string) bool { return name != "tollbooth" && name != "ulule" }

// growthByKeys lets callers in, one after the other.
func growthByKeys(b *testing.B) {
	for n := 100; n <= 1_000_000; n *= 10 {
		callers := callers(n)
		for _, l := range limiters {
			if !growing(l.name) {
				continue
			}
			b.Run(fmt.Sprintf("n=%d/lib=%s", n, l.name), func(b *testing.B) {
				h := l.wrap(b, unreached, ages)(nothing)
				callAll(h, callers)
				b.ReportAllocs()
				call(b, h, callers, http.StatusOK, b.Loop)
			})
		}
	}
}

// growthByLimits lets a thousand callers in; the peers have a wrapper for each limit.
func growthByLimits(b *testing.B) {
	callers := callers(1000)
	for _, n := range []int{1, 2, 4, 8} {
		var limits []admit.Limit
		var windows, buckets []func(http.Handler) http.Handler
		for i := range n {
			per := ages + time.Duration(i)*time.Hour
			limits = append(limits, admit.Limit{Name: fmt.Sprint("limit", i), Requests: unreached, Per: per})
			windows = append(windows, httprate.LimitBy(unreached, per, func(r *http.Request) (string, error) { return callerOf(r), nil }))
			l := must(throttled.NewGCRARateLimiterCtx(must(memstore.NewCtx(0)),
				throttled.RateQuota{MaxRate: throttled.PerDuration(unreached, per), MaxBurst: unreached - 1}))
			h := &throttled.HTTPRateLimiterCtx{RateLimiter: l, VaryBy: &throttled.VaryBy{Custom: callerOf}}
			buckets = append(buckets, h.RateLimit)
		}
		for _, l := range []struct {
			name string
			wrap func(http.Handler) http.Handler
		}{
			{"admit", func(h http.Handler) http.Handler {
				return must(admit.NewLimiter(admit.LimiterConfig{Limits: limits, CountBy: callerOf})).Wrap(h)
			}},
			{"throttled", chain(buckets...)},
			{"httprate", chain(windows...)},
		} {
			b.Run(fmt.Sprintf("n=%d/lib=%s", n, l.name), func(b *testing.B) {
				h := l.wrap(nothing)
				callAll(h, callers)
				b.ReportAllocs()
				call(b, h, callers, http.StatusOK, b.Loop)
			})
		}
	}
}

// growthByOffers decides for ten ranges; the last offer is the one that is taken.
func growthByOffers(b *testing.B) {
	for _, n := range []int{1, 2, 4, 8, 16} {
		offers := make([]string, n)
		for i := range offers {
			offers[i] = fmt.Sprintf("application/vnd.example.v%d+json", i)
		}
		offers[n-1] = "text/html"
		growthOf(b, n, tenRanges, offers)
	}
}

// growthByRanges decides between three offers, for so many ranges of which the last is
// the one that matches.
func growthByRanges(b *testing.B) {
	for _, n := range []int{1, 10, 100, 1000} {
		accept := strings.Repeat("application/vnd.example.v1+json;q=0.5, ", n-1) + "*/*;q=0.1"
		growthOf(b, n, accept, []string{"application/json", "text/csv", "text/html"})
	}
}

func growthOf(b *testing.B, n int, accept string, offers []string) {
	for _, l := range negotiators(offers...) {
		if l.name != "admit" && strings.HasPrefix(l.name, "admit") {
			continue
		}
		b.Run(fmt.Sprintf("n=%d/lib=%s", n, l.name), func(b *testing.B) {
			r := acceptRequest(accept)
			b.ReportAllocs()
			for b.Loop() {
				l.decide(r)
			}
		})
	}
}

// growthByGoroutines lets 100,000 callers in, so many at once.
func growthByGoroutines(b *testing.B) {
	callers := callers(100_000)
	for _, l := range limiters {
		if !growing(l.name) {
			continue
		}
		b.Run("lib="+l.name, func(b *testing.B) {
			h := l.wrap(b, unreached, ages)(nothing)
			callAll(h, callers)
			for n := 1; n <= 64; n *= 4 {
				b.Run(fmt.Sprint("n=", n), func(b *testing.B) {
					b.ReportAllocs()
					var running sync.WaitGroup
					for range n {
						left := int(math.Ceil(float64(b.N) / float64(n)))
						running.Go(func() {
							call(b, h, callers, http.StatusOK, func() bool { left--; return left >= 0 })
						})
					}
					running.Wait()
				})
			}
		})
	}
}
