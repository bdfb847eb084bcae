package admit_test

import (
	"context"
	"fmt"
	"net/http"
	"runtime"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/admit-go/admit"
)

func newInFlight(t testing.TB, c admit.InFlightConfig) *admit.InFlight {
	t.Helper()
	f, err := admit.NewInFlight(c)
	require.NoError(t, err)
	return f
}

// gate is a handler in which requests stay until they are let out.
type gate struct {
	out    chan struct{}
	inside atomic.Int32
}

func newGate() *gate { return &gate{out: make(chan struct{})} }

func (g *gate) ServeHTTP(http.ResponseWriter, *http.Request) {
	g.inside.Add(1)
	defer g.inside.Add(-1)
	<-g.out
}

// send serves r in a goroutine, and says what it was answered.
func send(h http.Handler, r *http.Request) <-chan int {
	answered := make(chan int, 1)
	go func() { answered <- status(h, r) }()
	return answered
}

func TestMaxInFlight(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		g := newGate()
		limit := admit.MaxInFlight(2)
		a, b := limit(g), limit(g)
		first, second := send(a, get("/")), send(b, get("/"))
		synctest.Wait()
		body, headers := refused(t, a, get("/"), http.StatusTooManyRequests)
		assert.Equal(t, "overloaded", body.Code)
		assert.EqualValues(t, 1, body.RetryAfter)
		assert.Equal(t, "1", headers.Get("Retry-After"))
		refused(t, limit(ok), get("/"), http.StatusTooManyRequests)

		g.out <- struct{}{}
		synctest.Wait()
		third := send(a, get("/"))
		synctest.Wait()
		refused(t, b, get("/"), http.StatusTooManyRequests)
		close(g.out)
		for _, answered := range []<-chan int{first, second, third} {
			assert.Equal(t, http.StatusOK, <-answered)
		}
		allowed(t, a, get("/"))
	})
}

func TestInFlightFaults(t *testing.T) {
	t.Parallel()
	_, err := admit.NewInFlight(admit.InFlightConfig{PerAddress: -1, Queue: -2, Wait: -3, RetryAfter: -4})
	for _, fault := range []string{"Max is 0", "PerAddress is -1", "Queue is -2", "Wait is -3ns", "RetryAfter is -4ns"} {
		assert.ErrorContains(t, err, fault)
	}
	_, err = admit.NewInFlight(admit.InFlightConfig{Max: 1, Queue: 1})
	assert.ErrorContains(t, err, "one needs the other")
	_, err = admit.NewInFlight(admit.InFlightConfig{Max: 1, Wait: 1})
	assert.ErrorContains(t, err, "one needs the other")
	assert.Panics(t, func() { admit.MaxInFlight(0) })
	assert.Panics(t, func() { admit.MaxInFlight(1)(nil) })
	assert.Panics(t, func() { (*admit.InFlight)(nil).Wrap(ok) })
}

func TestInFlightSkipAndRetryAfter(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		g := newGate()
		f := newInFlight(t, admit.InFlightConfig{
			Max: 1, RetryAfter: 1500 * time.Millisecond,
			Skip: func(r *http.Request) bool { return r.URL.Path == "/healthz" },
		})
		first := send(f.Wrap(g), get("/"))
		synctest.Wait()
		allowed(t, f.Wrap(ok), get("/healthz"))
		_, headers := refused(t, f.Wrap(ok), get("/"), http.StatusTooManyRequests)
		assert.Equal(t, "2", headers.Get("Retry-After"))
		close(g.out)
		<-first
	})
}

func TestInFlightQueue(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newInFlight(t, admit.InFlightConfig{Max: 1, Queue: 3, Wait: time.Second})
		g := newGate()
		first := send(f.Wrap(g), get("/"))
		synctest.Wait()

		var order []string
		inTurn := f.Wrap(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { order = append(order, r.URL.Path) }))
		var waiting []<-chan int
		for i := range 3 {
			waiting = append(waiting, send(inTurn, get(fmt.Sprint("/", i))))
			synctest.Wait()
		}
		inUse(t, f, 1, 3, 0)
		start := time.Now()
		refused(t, inTurn, get("/"), http.StatusTooManyRequests)
		assert.Zero(t, time.Since(start), "a full queue refuses at once")

		time.Sleep(999 * time.Millisecond)
		g.out <- struct{}{}
		for _, answered := range append(waiting, first) {
			assert.Equal(t, http.StatusOK, <-answered)
		}
		assert.Equal(t, []string{"/0", "/1", "/2"}, order)
		inUse(t, f, 0, 0, 0)

		// Nobody waits longer than Wait.
		send(f.Wrap(g), get("/"))
		synctest.Wait()
		start = time.Now()
		body, _ := refused(t, inTurn, get("/"), http.StatusTooManyRequests)
		assert.Equal(t, "overloaded", body.Code)
		assert.Equal(t, time.Second, time.Since(start))
		inUse(t, f, 1, 0, 0)
		close(g.out)
	})
}

// A client that is gone waits no longer, and the place that comes goes to the next.
func TestInFlightQueueAndClientsThatAreGone(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newInFlight(t, admit.InFlightConfig{Max: 1, PerAddress: 9, Queue: 5, Wait: time.Minute})
		g := newGate()
		first := send(f.Wrap(g), get("/"))
		synctest.Wait()

		ran := make(chan string, 5)
		h := f.Wrap(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { ran <- r.URL.Path }))
		ctx, leave := context.WithCancel(t.Context())
		gone := send(h, get("/gone").WithContext(ctx))
		synctest.Wait()
		late := send(h, get("/late").WithContext(ctx))
		synctest.Wait()
		stays := send(h, get("/stays"))
		synctest.Wait()
		inUse(t, f, 1, 3, 1)

		// One leaves at the very moment at which its place comes.
		go leave()
		g.out <- struct{}{}
		<-first
		<-gone
		<-late
		assert.Equal(t, http.StatusOK, <-stays)
		close(ran)
		var paths []string
		for path := range ran {
			paths = append(paths, path)
		}
		assert.Contains(t, paths, "/stays")
		inUse(t, f, 0, 0, 0)
		close(g.out)
	})
}

func TestInFlightSharesForAddresses(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newInFlight(t, admit.InFlightConfig{Max: 3, PerAddress: 2, Queue: 2, Wait: time.Second})
		g := newGate()
		h := f.Wrap(g)
		var inside []<-chan int
		for _, addr := range []string{"[2001:db8::1]:1", "[2001:db8::2]:1", "192.0.2.1:1", "192.0.2.1:2"} {
			inside = append(inside, send(h, from(addr)))
			synctest.Wait()
		}
		inUse(t, f, 3, 1, 2)
		refused(t, h, from("[2001:db8::3]:1"), http.StatusTooManyRequests) // at once: one that waits counts
		refused(t, h, from("192.0.2.1:3"), http.StatusTooManyRequests)
		inside = append(inside, send(h, from("192.0.2.2:1")))
		synctest.Wait()
		inUse(t, f, 3, 2, 3)
		close(g.out)
		for _, answered := range inside {
			assert.Equal(t, http.StatusOK, <-answered)
		}
		inUse(t, f, 0, 0, 0)
	})
}

func TestInFlightUnderConcurrency(t *testing.T) {
	t.Parallel()
	storm(t, newInFlight(t, admit.InFlightConfig{Max: 4, PerAddress: 6, Queue: 6, Wait: 2 * time.Millisecond}), 4)
}

func TestInFlightAllocations(t *testing.T) {
	goroutines := runtime.NumGoroutine()
	w := newDiscard()
	h := admit.RequestID(admit.MaxInFlight(1)(ok))
	outer := admit.RequestID(ok)
	r := get("/")
	base := 0.0
	if !raceDetector {
		base = testing.AllocsPerRun(200, func() { outer.ServeHTTP(w, r) })
	}
	allocs(t, base, func() { h.ServeHTTP(w, r) })
	assert.LessOrEqual(t, runtime.NumGoroutine(), goroutines)
}
