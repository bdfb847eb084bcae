package main

import (
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/admit-go/admit"
)

// record is what has happened.
type record struct {
	fleet *fleet
	demo  *demo
	began time.Time

	mu                      sync.Mutex
	sent, refused, failed   int
	admitted                []int // of each caller
	failsAt, backAt, overAt time.Duration
	points                  []point
	excess                  string // the first time that a caller had more than may be
	calls                   int64  // of Redis, when the failure began
	callsInOutage           int64
	slowest                 time.Duration // 99 of 100 during the outage
	rowCalls                int64
}

// point is a moment of the plot.
type point struct {
	at       time.Duration
	admitted int
	bound    float64
	calls    int64
}

func newRecord(f *fleet, d *demo) *record {
	return &record{fleet: f, demo: d, began: time.Now(), admitted: make([]int, len(f.callers))}
}

// bound is what a caller may have had by then, by the limit that allows the least: the
// bucket and what has come back. When Redis fails, the shares of the replicas may be
// full; when it is back, its own buckets are full again, and the last replica finds out
// about a second later. A decision that failed on its own may have let in one more.
func (r *record) bound(c caller, at time.Duration) float64 {
	least := math.Inf(1)
	for _, l := range limitsOf(c.plan) {
		rate := float64(l.Requests) / l.Per.Seconds()
		n := float64(l.Requests) + at.Seconds()*rate
		if r.failsAt > 0 && at >= r.failsAt {
			n += float64(max(l.Requests/r.fleet.size, 1) * r.fleet.size)
		}
		if r.backAt > 0 && at >= r.backAt {
			n += float64(l.Requests) + rate*min(at-r.backAt, 1100*time.Millisecond).Seconds()
		}
		least = min(least, n)
	}
	return least + float64(r.demo.lostBy(c.name))
}

// limitsOf are those of the example's plans.
func limitsOf(plan string) []admit.Limit {
	if plan == "free" {
		return []admit.Limit{admit.PerSecond(5), admit.PerMinute(100)}
	}
	return []admit.Limit{admit.PerSecond(50), admit.PerMinute(5000)}
}

func (r *record) answer(caller, status int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	at := time.Since(r.began)
	r.sent++
	switch status {
	case http.StatusOK:
		r.admitted[caller]++
		c := r.fleet.callers[caller]
		if n := r.bound(c, at); float64(r.admitted[caller]) > n && r.excess == "" {
			r.excess = fmt.Sprintf("%s had %d requests after %v, and may have %.0f", c.name, r.admitted[caller], at, n)
		}
	case http.StatusTooManyRequests:
		r.refused++
	default:
		r.failed++
	}
	if n := len(r.points); n == 0 || at-r.points[n-1].at >= 100*time.Millisecond {
		r.points = append(r.points, r.now(at))
	}
}

func (r *record) now(at time.Duration) point {
	p := point{at: at, calls: r.fleet.calls.Load()}
	for i, c := range r.fleet.callers {
		p.admitted += r.admitted[i]
		p.bound += r.bound(c, at)
	}
	return p
}

func (r *record) begins() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.failsAt, r.calls = time.Since(r.began), r.fleet.calls.Load()
	r.demo.excuse(true)
}

func (r *record) ends() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.backAt, r.callsInOutage = time.Since(r.began), r.fleet.calls.Load()-r.calls
	time.AfterFunc(1500*time.Millisecond, func() { r.demo.excuse(false) })
}

func (r *record) finish() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.overAt = time.Since(r.began)
	r.points = append(r.points, r.now(r.overAt))
}

// row is the state at the moment, and what the last second has added.
func (r *record) row() string {
	s := r.demo
	s.mu.Lock()
	took := s.took
	s.took = nil
	s.mu.Unlock()
	slices.Sort(took)
	p50, p99 := quantile(took, 50), quantile(took, 99)

	r.mu.Lock()
	defer r.mu.Unlock()
	p := r.now(time.Since(r.began))
	calls := p.calls - r.rowCalls
	r.rowCalls = p.calls
	if r.failsAt > 0 && r.backAt == 0 {
		r.slowest = max(r.slowest, p99)
	}
	return fmt.Sprintf("%5.0fs %8d %9d %8d %7d %8.0f %7d/s %11v %11v", p.at.Seconds(), r.sent, p.admitted, r.refused, r.failed, p.bound, calls,
		p50.Round(time.Microsecond), p99.Round(time.Microsecond))
}

func quantile(sorted []time.Duration, percent int) time.Duration {
	if len(sorted) == 0 {
		return 0
	}
	return sorted[len(sorted)*percent/100]
}

// verdict prints what was promised and what was kept, and returns an error for what not.
func (r *record) verdict(w io.Writer) error {
	var faults []error
	check := func(ok bool, format string, args ...any) {
		text := fmt.Sprintf(format, args...)
		if ok {
			fmt.Fprintln(w, "  ok    ", text)
			return
		}
		fmt.Fprintln(w, "  FAILED", text)
		faults = append(faults, errors.New(text))
	}
	fmt.Fprintln(w)
	for i, c := range r.fleet.callers {
		bound := r.bound(c, r.overAt)
		check(float64(r.admitted[i]) <= bound, "%s: %d admitted, at most %.0f may be (%.1f%%)", c.name, r.admitted[i], bound, 100*float64(r.admitted[i])/bound)
		check(float64(r.admitted[i]) >= 0.75*bound, "%s: what it has bought was there", c.name)
	}
	check(r.excess == "", "nobody had more than may be at any time %s", r.excess)
	lost := 0
	for _, c := range r.fleet.callers {
		lost += r.demo.lostBy(c.name)
	}
	fmt.Fprintf(w, "         %d decisions had no answer in time while Redis was there\n", lost)
	check(r.failed == 0, "%d of %d requests were answered with anything but 200 or 429", r.failed, r.sent)
	if r.failsAt > 0 {
		lasted := r.backAt - r.failsAt
		most := int64(r.fleet.size) * (5 + 5 + 3*(5+5+1) + int64(lasted.Seconds()))
		check(r.callsInOutage <= most, "%d calls to Redis in %v without it, at most %d: five of each replica that trip the breaker, as many under way, probes of three tries for each, and one a second",
			r.callsInOutage, lasted.Round(time.Millisecond), most)
		fmt.Fprintf(w, "         added to 99 of 100 requests in the worst second of the outage: at most %v\n", r.slowest.Round(time.Microsecond))
		check(len(r.lateUsers()) == 0, "all replicas use Redis again%s", r.lateUsers())
	}
	return errors.Join(faults...)
}

// lateUsers names the replicas that have not used Redis in the last seconds.
func (r *record) lateUsers() (late string) {
	s := r.demo
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range r.fleet.size {
		if s.used[i].Before(r.began.Add(r.overAt - (r.overAt-r.backAt)/2)) {
			late += fmt.Sprint(", not replica ", i)
		}
	}
	return late
}
