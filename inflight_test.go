package admit_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"runtime"
	"sync"
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

func inUse(t testing.TB, f *admit.InFlight, running, waiting, addresses int) {
	t.Helper()
	r, w, a := f.InUse()
	assert.Equal(t, []int{running, waiting, addresses}, []int{r, w, a}, "running, waiting, addresses")
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

func TestInFlightGivesPlacesBack(t *testing.T) {
	t.Parallel()
	f := newInFlight(t, admit.InFlightConfig{Max: 1, PerAddress: 1})
	panics := f.Wrap(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic("oh") }))
	for range 3 {
		assert.PanicsWithValue(t, "oh", func() { status(panics, get("/")) })
	}
	inUse(t, f, 0, 0, 0)

	hijacks := make(chan http.ResponseWriter, 1)
	s := serve(t, "HTTP/1.1", f.Wrap(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		conn, _, err := http.NewResponseController(w).Hijack()
		if assert.NoError(t, err) {
			assert.NoError(t, conn.Close())
		}
		hijacks <- w
	})))
	for range 3 {
		_, err := s.Client().Get(s.URL)
		require.Error(t, err)
		<-hijacks
	}
	s.Close() // waits for the handlers
	allowed(t, f.Wrap(ok), get("/"))
	inUse(t, f, 0, 0, 0)
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

// overrun is a timeout in miniature: it answers at once, and its handler goes on.
func overrun(next http.Handler, done *sync.WaitGroup) http.Handler {
	return http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		release := admit.HoldPlaces(r.Context())
		done.Go(func() {
			defer release()
			next.ServeHTTP(httptest.NewRecorder(), r)
		})
	})
}

func TestInFlightHoldsThePlaceOfAHandlerThatGoesOn(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		outer := newInFlight(t, admit.InFlightConfig{Max: 5})
		inner := newInFlight(t, admit.InFlightConfig{Max: 1, PerAddress: 1})
		g := newGate()
		var done sync.WaitGroup
		// An overrun inside another holds the places of both, too.
		h := outer.Wrap(admit.RequestID(inner.Wrap(overrun(overrun(g, &done), &done))))
		allowed(t, h, get("/"))
		synctest.Wait()
		assert.Equal(t, int32(1), g.inside.Load())
		inUse(t, inner, 1, 0, 1)
		inUse(t, outer, 1, 0, 0)
		refused(t, h, get("/"), http.StatusTooManyRequests)
		inUse(t, outer, 1, 0, 0)

		close(g.out)
		done.Wait()
		inUse(t, inner, 0, 0, 0)
		inUse(t, outer, 0, 0, 0)
		allowed(t, h, get("/"))
		done.Wait()
	})
	admit.HoldPlaces(t.Context())() // without an InFlight there is nothing to hold
}

func TestInFlightAroundTimeout(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newInFlight(t, admit.InFlightConfig{Max: 1})
		h := f.Wrap(admit.Timeout(time.Second)(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/slow" {
				time.Sleep(5 * time.Second) // and does not look at its context
			}
		})))
		allowed(t, h, get("/"))
		inUse(t, f, 0, 0, 0)
		body, _ := refused(t, h, get("/slow"), http.StatusServiceUnavailable)
		assert.Equal(t, "handler_timeout", body.Code)
		inUse(t, f, 1, 0, 0)
		refused(t, h, get("/"), http.StatusTooManyRequests)
		time.Sleep(4 * time.Second)
		synctest.Wait()
		inUse(t, f, 0, 0, 0)
		allowed(t, h, get("/"))
	})
}

// Whatever becomes of them, no more than Max are inside, and every place comes back.
func TestInFlightUnderConcurrency(t *testing.T) {
	t.Parallel()
	const most = 4
	f := newInFlight(t, admit.InFlightConfig{Max: most, PerAddress: 6, Queue: 6, Wait: 2 * time.Millisecond})
	var inside, highest, admitted atomic.Int32
	work := http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		n := inside.Add(1)
		defer inside.Add(-1)
		for h := highest.Load(); n > h && !highest.CompareAndSwap(h, n); h = highest.Load() {
		}
		admitted.Add(1)
		for range rand.IntN(100) {
			runtime.Gosched()
		}
		if r.URL.Path == "/panic" {
			panic(http.ErrAbortHandler)
		}
	})
	var late, clients sync.WaitGroup
	plain, slow := f.Wrap(work), f.Wrap(overrun(work, &late))
	for c := range 32 {
		clients.Go(func() {
			for range 100 {
				ctx, leave := context.WithCancel(t.Context())
				r := from(fmt.Sprintf("192.0.2.%d:1", c%8)).WithContext(ctx)
				switch rand.IntN(4) {
				case 0:
					r.URL.Path = "/panic"
					func() {
						defer func() { _ = recover() }()
						status(plain, r)
					}()
				case 1:
					go leave()
					status(plain, r)
				case 2:
					status(slow, r)
				default:
					status(plain, r)
				}
				leave()
			}
		})
	}
	clients.Wait()
	late.Wait()
	assert.LessOrEqual(t, highest.Load(), int32(most))
	assert.Positive(t, admitted.Load())
	inUse(t, f, 0, 0, 0)
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

// A refusal that waits for its client to have seen it holds no place meanwhile: of the
// InFlight around it, and of those further outside.
func TestInFlightGivesThePlaceBackBeforeARefusalLingers(t *testing.T) {
	t.Parallel()
	for name, head := range map[string]string{
		"401": "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n",
		"405": "PUT / HTTP/1.1\r\nHost: x\r\nX-API-Key: good\r\nContent-Length: 10\r\n\r\n",
		"204": "OPTIONS / HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n",
		"413": "POST / HTTP/1.1\r\nHost: x\r\nX-API-Key: good\r\nContent-Length: 1000\r\nContent-Type: text/plain\r\n\r\n",
		"415": "POST / HTTP/1.1\r\nHost: x\r\nX-API-Key: good\r\nContent-Length: 10\r\n\r\n",
		"409": "POST / HTTP/1.1\r\nHost: x\r\nX-API-Key: good\r\nContent-Length: 10\r\nContent-Type: text/plain\r\n\r\n",
		"417": "POST / HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 10\r\n\r\n", // a 401
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				outer := newInFlight(t, admit.InFlightConfig{Max: 1, PerAddress: 1})
				inner := newInFlight(t, admit.InFlightConfig{Max: 1})
				h := wrap(fails(admit.NewError(409, "")), outer.Wrap, passing, inner.Wrap, admit.Methods("POST"), admit.APIKey(oneKey),
					admit.MaxBody(100), admit.ContentType("text/plain"), admit.Timeout(time.Minute), passing, admit.Timeout(time.Minute))
				c := servePipe(t, h)
				go func() { _, _ = io.WriteString(c.client, head) }()
				synctest.Wait() // the refusal waits for the body
				inUse(t, outer, 0, 0, 0)
				inUse(t, inner, 0, 0, 0)
				began := time.Now()
				refused(t, h, newRequest("POST", "/", "", "X-API-Key", "good"), 409)
				assert.Zero(t, time.Since(began))
				res, _ := answerOn(t, bufio.NewReader(c.client))
				if name != "417" {
					assert.Equal(t, name, fmt.Sprint(res.StatusCode))
				}
				_ = c.client.Close()
				time.Sleep(time.Minute) // the server closes, too
				inUse(t, outer, 0, 0, 0)
				inUse(t, inner, 0, 0, 0)
			})
		})
	}
}

// A place that has been given back is not given back again, nor taken again, by a Timeout
// that comes too late for it.
func TestInFlightPlaceIsGivenBackOnce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newInFlight(t, admit.InFlightConfig{Max: 1})
		var after *http.Request
		h := f.Wrap(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { after = r }))
		allowed(t, h, get("/"))
		allowed(t, admit.Timeout(time.Second)(ok), after)
		inUse(t, f, 0, 0, 0)
	})
}

// twice calls h two times, as a retry does whose first try has failed.
func twice(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h.ServeHTTP(httptest.NewRecorder(), r)
		h.ServeHTTP(w, r)
	})
}

// inTurn calls one handler after the other; the last one answers.
func inTurn(handlers ...http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		last := len(handlers) - 1
		for _, h := range handlers[:last] {
			h.ServeHTTP(httptest.NewRecorder(), r)
		}
		handlers[last].ServeHTTP(w, r)
	})
}

// A place is given back once, however often a request takes one, and whatever holds it
// besides.
func TestInFlightTwiceInARequest(t *testing.T) {
	t.Parallel()
	for name, around := range map[string]func(*admit.InFlight, http.Handler) http.Handler{
		"a retry": func(f *admit.InFlight, h http.Handler) http.Handler {
			return admit.RequestID(twice(admit.Policy{InFlight: f, Timeout: time.Minute}.Wrap(h)))
		},
		"a timeout around the next": func(f *admit.InFlight, h http.Handler) http.Handler {
			return admit.RequestID(inTurn(f.Wrap(h), admit.Timeout(time.Minute)(ok), admit.Timeout(time.Minute)(ok)))
		},
		"two, one of them outside": func(f *admit.InFlight, h http.Handler) http.Handler {
			return admit.MaxInFlight(9)(inTurn(f.Wrap(h), f.Wrap(ok), admit.Timeout(time.Minute)(ok)))
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				f := newInFlight(t, admit.InFlightConfig{Max: 1, PerAddress: 1})
				for range 3 {
					allowed(t, around(f, ok), get("/"))
					inUse(t, f, 0, 0, 0)
				}
				g := newGate()
				h := around(f, g)
				first := send(h, get("/"))
				synctest.Wait()
				var others []<-chan int
				for range 3 {
					others = append(others, send(h, get("/")))
				}
				synctest.Wait()
				assert.Equal(t, int32(1), g.inside.Load())
				inUse(t, f, 1, 0, 1)
				close(g.out)
				<-first
				for _, other := range others {
					<-other
				}
				inUse(t, f, 0, 0, 0)
			})
		})
	}
}

// An InFlight that is around a request already counts it once; one handler after the
// other takes a place each.
func TestInFlightAroundTwice(t *testing.T) {
	t.Parallel()
	f := newInFlight(t, admit.InFlightConfig{Max: 1, PerAddress: 1})
	inner := admit.Policy{InFlight: f}
	mux := http.NewServeMux()
	mux.Handle("/", inner.Wrap(ok))
	for name, h := range map[string]http.Handler{
		"directly":          f.Wrap(f.Wrap(ok)),
		"two policies":      inner.Wrap(inner.Wrap(ok)),
		"around a mux":      inner.Wrap(admit.Mux(mux)),
		"inside a Timeout":  f.Wrap(admit.Timeout(time.Minute)(f.Wrap(ok))),
		"another between":   wrap(ok, f.Wrap, admit.MaxInFlight(1), f.Wrap),
		"through a handler": f.Wrap(inTurn(f.Wrap(ok))),
		"in turn":           inTurn(f.Wrap(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { inUse(t, f, 1, 0, 1) })), f.Wrap(ok)),
	} {
		assert.Equal(t, http.StatusOK, status(h, get("/")), name)
		inUse(t, f, 0, 0, 0)
	}
	inside := f.Wrap(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		refused(t, f.Wrap(ok), get("/"), http.StatusTooManyRequests) // another request
	}))
	allowed(t, inside, get("/"))
}
