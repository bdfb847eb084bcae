//go:build linux

package main

import (
	"flag"
	"fmt"
	"net/http"
	"net/http/httptest"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

var million = flag.Bool("million", false, "run BenchmarkMillion too, about a minute for each limiter")

// BenchmarkMillion reports what a million callers need in memory, how much of
// it is left when all of them but a thousand have been idle until their buckets are
// full, and the slowest calls. A call is timed by the processor time of its thread: what
// others do on the machine does not count, what the garbage collector makes a call do
// does.
//
//	go test -run '^$' -bench Million -benchtime 1x -timeout 1h -million
func BenchmarkMillion(b *testing.B) {
	if !*million {
		b.Skip("takes minutes: see -million")
	}
	const n, live = 1_000_000, 1000
	const per = 40 * time.Second
	keys := callers(n)
	for _, l := range limiters {
		b.Run("lib="+l.name, func(b *testing.B) {
			runtime.LockOSThread()
			defer runtime.UnlockOSThread()
			h := l.wrap(b, 2, per)(nothing)
			r, w := httptest.NewRequest(http.MethodGet, "/", nil), newDiscard()
			serve := func(times []time.Duration, keys [][]string) []time.Duration {
				for i := range keys {
					r.Header["X-Caller"] = []string{strings.Clone(keys[i][0])}
					w.clear()
					began := threadTime(b)
					h.ServeHTTP(w, r)
					times = append(times, threadTime(b)-began)
				}
				return times
			}
			times := make([]time.Duration, 0, 3*n)
			for b.Loop() {
				empty := heap()
				times = serve(times[:0], keys)
				full := heap()
				times = serve(times, keys)
				report(b, times, "")
				b.ReportMetric(float64(full-empty)/n, "B/key")

				// Some go on, until a while after the rest were full again.
				times = times[:0]
				for began := time.Now(); time.Since(began) < per+5*time.Second; time.Sleep(time.Millisecond) {
					times = serve(times, keys[len(times)%live:][:10])
				}
				report(b, times, "-idle")
				b.ReportMetric(float64(heap()-empty)/n, "B/key-idle")
			}
			runtime.KeepAlive(h)
		})
	}
}

// report says how long the slowest call took, and the slowest of a thousand.
func report(b *testing.B, times []time.Duration, suffix string) {
	slices.Sort(times)
	at := func(part float64) float64 {
		return float64(times[int(part*float64(len(times)-1))].Nanoseconds()) / 1000
	}
	b.ReportMetric(at(1), "µs-slowest"+suffix)
	b.ReportMetric(at(0.999), "µs-p99.9"+suffix)
}

func threadTime(b *testing.B) time.Duration {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &t); err != nil {
		b.Fatal(fmt.Errorf("clock_gettime: %w", err))
	}
	return time.Duration(t.Nano())
}
