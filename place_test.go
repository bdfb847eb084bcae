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

// bound is an InFlight or a Shedder.
type bound interface {
	Wrap(http.Handler) http.Handler
	InUse() (running, waiting, callers int)
}

// eachBound runs f with how to make each of them with so many places.
func eachBound(t *testing.T, f func(t *testing.T, newBound func(places int) bound)) {
	t.Parallel()
	t.Run("InFlight", func(t *testing.T) {
		t.Parallel()
		f(t, func(places int) bound {
			return newInFlight(t, admit.InFlightConfig{Max: places, PerAddress: places})
		})
	})
	t.Run("Shedder", func(t *testing.T) {
		t.Parallel()
		f(t, func(places int) bound {
			return newShedder(t, admit.ShedderConfig{Max: places})
		})
	})
}

func inUse(t testing.TB, b bound, running, waiting, callers int) {
	t.Helper()
	r, w, c := b.InUse()
	assert.Equal(t, []int{running, waiting, callers}, []int{r, w, c}, "running, waiting, callers")
}

func TestPlacesAreGivenBack(t *testing.T) {
	eachBound(t, func(t *testing.T, newBound func(int) bound) {
		f := newBound(1)
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

func TestPlaceIsHeldByAHandlerThatGoesOn(t *testing.T) {
	eachBound(t, func(t *testing.T, newBound func(int) bound) {
		synctest.Test(t, func(t *testing.T) {
			outer := newBound(5)
			inner := newBound(1)
			g := newGate()
			var done sync.WaitGroup
			// An overrun inside another holds the places of both, too.
			h := outer.Wrap(admit.RequestID(inner.Wrap(overrun(overrun(g, &done), &done))))
			allowed(t, h, get("/"))
			synctest.Wait()
			assert.Equal(t, int32(1), g.inside.Load())
			inUse(t, inner, 1, 0, 1)
			inUse(t, outer, 1, 0, 1)
			refused(t, h, get("/"), http.StatusTooManyRequests)
			inUse(t, outer, 1, 0, 1)

			close(g.out)
			done.Wait()
			inUse(t, inner, 0, 0, 0)
			inUse(t, outer, 0, 0, 0)
			allowed(t, h, get("/"))
			done.Wait()
		})
		admit.HoldPlaces(t.Context())() // without an InFlight there is nothing to hold
	})
}

func TestPlaceIsHeldByAHandlerThatHasOverrun(t *testing.T) {
	eachBound(t, func(t *testing.T, newBound func(int) bound) {
		synctest.Test(t, func(t *testing.T) {
			f := newBound(1)
			h := f.Wrap(admit.Timeout(time.Second)(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
				if r.URL.Path == "/slow" {
					time.Sleep(5 * time.Second) // and does not look at its context
				}
			})))
			allowed(t, h, get("/"))
			inUse(t, f, 0, 0, 0)
			body, _ := refused(t, h, get("/slow"), http.StatusServiceUnavailable)
			assert.Equal(t, "handler_timeout", body.Code)
			inUse(t, f, 1, 0, 1)
			refused(t, h, get("/"), http.StatusTooManyRequests)
			time.Sleep(4 * time.Second)
			synctest.Wait()
			inUse(t, f, 0, 0, 0)
			allowed(t, h, get("/"))
		})
	})
}

// A refusal that waits for its client to have seen it holds no place meanwhile: of what is
// around it, and of those further outside.
func TestPlaceIsGivenBackBeforeARefusalLingers(t *testing.T) {
	eachBound(t, func(t *testing.T, newBound func(int) bound) {
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
					outer := newBound(1)
					inner := newBound(1)
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
	})
}

// A place that has been given back is not given back again, nor taken again, by a Timeout
// that comes too late for it.
func TestPlaceIsGivenBackOnce(t *testing.T) {
	eachBound(t, func(t *testing.T, newBound func(int) bound) {
		synctest.Test(t, func(t *testing.T) {
			f := newBound(1)
			var after *http.Request
			h := f.Wrap(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { after = r }))
			allowed(t, h, get("/"))
			allowed(t, admit.Timeout(time.Second)(ok), after)
			inUse(t, f, 0, 0, 0)
		})
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
func TestPlacesOfARequestThatTakesTwo(t *testing.T) {
	eachBound(t, func(t *testing.T, newBound func(int) bound) {
		for name, around := range map[string]func(bound, http.Handler) http.Handler{
			"a retry": func(f bound, h http.Handler) http.Handler {
				return admit.RequestID(twice(f.Wrap(admit.Timeout(time.Minute)(h))))
			},
			"a timeout around the next": func(f bound, h http.Handler) http.Handler {
				return admit.RequestID(inTurn(f.Wrap(h), admit.Timeout(time.Minute)(ok), admit.Timeout(time.Minute)(ok)))
			},
			"two, one of them outside": func(f bound, h http.Handler) http.Handler {
				return admit.MaxInFlight(9)(inTurn(f.Wrap(h), f.Wrap(ok), admit.Timeout(time.Minute)(ok)))
			},
		} {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				synctest.Test(t, func(t *testing.T) {
					f := newBound(1)
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
					time.Sleep(time.Second) // nobody waits any more
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
	})
}

// An InFlight or Shedder that is around a request already counts it once; one handler after the
// other takes a place each.
func TestPlaceIsTakenOnce(t *testing.T) {
	eachBound(t, func(t *testing.T, newBound func(int) bound) {
		f := newBound(1)
		inner := admit.Policy{}
		if s, is := f.(*admit.Shedder); is {
			inner.Shedder = s
		} else {
			inner.InFlight = f.(*admit.InFlight)
		}
		mux := http.NewServeMux()
		mux.Handle("/", inner.Wrap(ok))
		for name, h := range map[string]http.Handler{
			"directly":          f.Wrap(f.Wrap(ok)),
			"two policies":      inner.Wrap(inner.Wrap(ok)),
			"around a mux":      inner.Wrap(admit.Mux(mux)),
			"inside a Timeout":  f.Wrap(admit.Timeout(time.Minute)(f.Wrap(ok))),
			"another between":   wrap(ok, f.Wrap, admit.MaxInFlight(1), newShedder(t, admit.ShedderConfig{Max: 1}).Wrap, f.Wrap),
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
	})
}

// Who has no place any more takes one for what it does inside, as does work that goes on with
// the context of a request that has ended.
func TestPlaceIsTakenAgainByWhoHasNone(t *testing.T) {
	eachBound(t, func(t *testing.T, newBound func(int) bound) {
		synctest.Test(t, func(t *testing.T) {
			f := newBound(1)
			g := newGate()
			var after *http.Request
			allowed(t, f.Wrap(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { after = r })), get("/"))
			first := send(f.Wrap(g), after)
			synctest.Wait()
			inUse(t, f, 1, 0, 1)
			refused(t, f.Wrap(ok), after, http.StatusTooManyRequests)
			close(g.out)
			assert.Equal(t, http.StatusOK, <-first)
			inUse(t, f, 0, 0, 0)
		})
	})
}

// Answers that wait for a client may be several, and may take longer than the handler; who
// comes back has its place, also where somebody else has got it meanwhile.
func TestPlaceIsLentAndReclaimed(t *testing.T) {
	eachBound(t, func(t *testing.T, newBound func(int) bound) {
		f := newBound(1)
		var late []func()
		h := f.Wrap(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			inUse(t, f, 1, 0, 1)
			one, two := admit.LendPlaces(r.Context()), admit.LendPlaces(r.Context())
			inUse(t, f, 0, 0, 0)
			one()
			inUse(t, f, 0, 0, 0)
			allowed(t, f.Wrap(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
				two()
				running, _, _ := f.InUse()
				assert.Equal(t, 2, running)
			})), get("/"))
			inUse(t, f, 1, 0, 1)
			release := admit.HoldPlaces(r.Context())
			admit.LendPlaces(r.Context())()
			inUse(t, f, 1, 0, 1)
			refused(t, f.Wrap(ok), get("/"), http.StatusTooManyRequests) // somebody works there
			release()
			late = []func(){admit.LendPlaces(r.Context()), admit.LendPlaces(r.Context())}
		}))
		allowed(t, h, get("/"))
		inUse(t, f, 0, 0, 0)
		allowed(t, f.Wrap(ok), get("/"))
		for _, reclaim := range late {
			reclaim()
			inUse(t, f, 0, 0, 0)
		}
	})
}

// What is found out about a request inside is known outside.
func TestPlaceHandsBackTheRoute(t *testing.T) {
	eachBound(t, func(t *testing.T, newBound func(int) bound) {
		mux := http.NewServeMux()
		mux.Handle("GET /{x}", ok)
		r := get("/a")
		allowed(t, newBound(1).Wrap(mux), r)
		assert.Equal(t, "GET /{x}", r.Pattern)
	})
}

// Who has no BodyTimeout is told once, where it matters.
func TestPlaceThatASlowClientHoldsIsLogged(t *testing.T) {
	t.Parallel()
	logger, lines := logged()
	errs := &admit.ErrorWriter{Logger: logger}
	reads := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		if r.Method == http.MethodPut {
			w.WriteHeader(http.StatusConflict)
		}
	})
	bounded := admit.BodyTimeout{Grace: time.Minute}
	for name, test := range map[string]struct {
		around, inside admit.Middleware
		method         string
		readTimeout    time.Duration
		warned         int
	}{
		"no bound":              {method: "POST", warned: 1},
		"a BodyTimeout inside":  {method: "POST", inside: bounded.Wrap},
		"in an inner Policy":    {method: "POST", inside: func(h http.Handler) http.Handler { return passing(admit.Policy{BodyTimeout: bounded}.Wrap(h)) }},
		"a BodyTimeout outside": {method: "POST", around: bounded.Wrap},
		"the server's":          {method: "POST", readTimeout: time.Minute},
		"no body":               {method: "GET"},
		"refused":               {method: "PUT"},
	} {
		lines.Reset()
		h := http.Handler(reads)
		if test.inside != nil {
			h = test.inside(h)
		}
		h = newInFlight(t, admit.InFlightConfig{Max: 1}).Wrap(h)
		if test.around != nil {
			h = test.around(h)
		}
		s := serve(t, "HTTP/1.1", errs.Wrap(h), func(s *http.Server) { s.ReadTimeout = test.readTimeout })
		for range 2 {
			body := "x"
			if test.method == "GET" {
				body = ""
			}
			do(t, s, test.method, "/", body)
		}
		s.Close()
		assert.Equal(t, test.warned, strings.Count(lines.String(), "had a place"), name)
	}
}

// storm has many callers come, leave, panic, overrun and go on as streams: whatever becomes of
// them, no more than most are at work, and every place comes back.
func storm(t *testing.T, b bound, most int32) {
	t.Helper()
	var inside, highest, admitted atomic.Int32
	work := http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		n := inside.Add(1)
		for h := highest.Load(); n > h && !highest.CompareAndSwap(h, n); h = highest.Load() {
		}
		admitted.Add(1)
		for range rand.IntN(100) {
			runtime.Gosched()
		}
		inside.Add(-1)
		switch r.URL.Path {
		case "/panic":
			panic(http.ErrAbortHandler)
		case "/stream":
			admit.ReleasePlace(r)
			runtime.Gosched()
		}
	})
	var late, clients sync.WaitGroup
	plain, slow := b.Wrap(work), b.Wrap(overrun(work, &late))
	for c := range 32 {
		clients.Go(func() {
			for range 100 {
				ctx, leave := context.WithCancel(t.Context())
				r := from(fmt.Sprintf("192.0.2.%d:1", c%12)).WithContext(ctx)
				switch rand.IntN(5) {
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
				case 3:
					r.URL.Path = "/stream"
					status(plain, r)
				default:
					status(plain, r)
				}
				leave()
			}
		})
	}
	clients.Wait()
	late.Wait()
	assert.LessOrEqual(t, highest.Load(), most)
	assert.Positive(t, admitted.Load())
	inUse(t, b, 0, 0, 0)
}
