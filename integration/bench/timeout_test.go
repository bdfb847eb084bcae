package main

import (
	"fmt"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-chi/chi/v5/middleware"

	"github.com/admit-go/admit"
)

// BenchmarkTimeout has a handler that is in time, and writes its answer in so many parts.
func BenchmarkTimeout(b *testing.B) { compare(b, timeouts()) }

func timeouts() (all []contest) {
	libs := []struct {
		name string
		wrap func(time.Duration) func(http.Handler) http.Handler
	}{
		{"admit", admit.Timeout},
		{"http.TimeoutHandler", func(d time.Duration) func(http.Handler) http.Handler {
			return func(next http.Handler) http.Handler { return http.TimeoutHandler(next, d, "") }
		}},
		{"chi", middleware.Timeout},
	}
	for _, c := range []struct {
		name         string
		parts, bytes int
	}{{"1KiB", 1, 1 << 10}, {"1MiB", 1, 1 << 20}, {"1MiB-in-32-parts", 32, 32 << 10}} {
		part := make([]byte, c.bytes)
		writes := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			for range c.parts {
				_, _ = w.Write(part)
			}
		})
		work := contest{name: "case=" + c.name}
		for _, l := range libs {
			get := requests("GET", "")
			work.entries = append(work.entries, entry{l.name, func(v *verdict) {
				w := newRecorder()
				if l.wrap(time.Minute)(writes).ServeHTTP(w, get()); w.Body.Len() != c.parts*c.bytes {
					v.wrong("passes %d bytes on, not %d", w.Body.Len(), c.parts*c.bytes)
				}
				checkTimeout(v, l.wrap(time.Second), get)
			}, bothWays(l.wrap(time.Minute)(writes), get, 200)})
		}
		all = append(all, work)
	}
	return all
}

// checkTimeout has wrap, with a timeout below an hour, around a handler that takes an hour,
// and around one that sends a part at once.
func checkTimeout(v *verdict, wrap func(http.Handler) http.Handler, newRequest func() *http.Request) {
	synctest.Test(v.T, func(*testing.T) {
		h := wrap(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { time.Sleep(time.Hour) }))
		began, w := time.Now(), newRecorder()
		h.ServeHTTP(w, newRequest())
		if time.Since(began) >= time.Hour {
			v.wrong("does not interrupt a handler that overruns")
		} else if res := w.Result(); res.StatusCode != 503 {
			v.wrong("answers an overrun with %d, not 503", res.StatusCode)
		} else if fault := bodyFault(res); fault != "" {
			v.note("%s", fault)
		}
		h = wrap(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			_, _ = fmt.Fprint(w, "part")
			if http.NewResponseController(w).Flush() != nil {
				v.note("lets no part of an answer out before its end")
			}
		}))
		h.ServeHTTP(newRecorder(), newRequest())
		time.Sleep(time.Hour) // until the handler has ended
	})
}
