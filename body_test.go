package admit_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"testing/iotest"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/admit-go/admit"
)

// readAll is a handler that reads the body, and answers with its length.
func readAll(pause time.Duration) http.Handler {
	return admit.HandlerFunc(func(w http.ResponseWriter, r *http.Request) error {
		n := 0
		buf := make([]byte, 1024)
		for {
			time.Sleep(pause)
			m, err := r.Body.Read(buf)
			n += m
			if err == io.EOF {
				return admit.Success(w, r, http.StatusOK, n)
			}
			if err != nil {
				_, again := r.Body.Read(buf)
				if !errors.Is(again, err) {
					return fmt.Errorf("not sticky: %w, then %w", err, again)
				}
				return err
			}
		}
	})
}

func TestMaxBody(t *testing.T) {
	t.Parallel()
	h := admit.MaxBody(100)(readAll(0))
	for _, length := range []int64{0, 1, 99, 100, 101, 5000} {
		for _, known := range []bool{true, false} {
			r := newRequest("POST", "/", strings.Repeat("x", int(length)))
			if !known {
				r = httptest.NewRequest("POST", "/", iotest.OneByteReader(strings.NewReader(strings.Repeat("x", int(length)))))
				r.ContentLength = -1
			}
			w := httptest.NewRecorder()
			h.ServeHTTP(w, r)
			if length <= 100 {
				assert.Equal(t, 200, w.Code)
				assert.Contains(t, w.Body.String(), fmt.Sprintf(`"data":%d}`, length))
				continue
			}
			assert.Equal(t, 413, w.Code, "length %d, known %v", length, known)
			assert.Equal(t, "body_too_large", readEnvelope(t, 413, w.Header(), w.Body.Bytes()).Code)
		}
	}
	for _, bad := range []int64{0, -1} {
		assert.Panics(t, func() { admit.MaxBody(bad) })
	}
}

func TestMaxBodyGivesTheErrorThatOthersKnow(t *testing.T) {
	t.Parallel()
	var got error
	h := admit.MaxBody(3)(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		var text []byte
		text, got = io.ReadAll(r.Body)
		assert.Equal(t, "abc", string(text))
	}))
	r := newRequest("POST", "/", "abcd")
	r.ContentLength = -1
	h.ServeHTTP(httptest.NewRecorder(), r)
	var tooLarge *http.MaxBytesError
	require.ErrorAs(t, got, &tooLarge)
	assert.Equal(t, int64(3), tooLarge.Limit)
}

func TestMaxBodyReadsOneByteMore(t *testing.T) {
	t.Parallel()
	source := strings.NewReader(strings.Repeat("x", 100))
	r := httptest.NewRequest("POST", "/", io.NopCloser(source))
	r.ContentLength = -1
	refused(t, admit.MaxBody(10)(readAll(0)), r, 413)
	assert.Equal(t, 100-11, source.Len())
}

// between reads n bytes before next, and the rest after it.
func between(t *testing.T, n int, after func(rest []byte, err error)) admit.Middleware {
	return func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			_, err := io.ReadFull(r.Body, make([]byte, n))
			assert.NoError(t, err)
			next.ServeHTTP(w, r)
			after(io.ReadAll(r.Body))
		})
	}
}

// A body that has been read in part keeps its bound, and gets another.
func TestMaxBodyInsideAnotherThatHasBegun(t *testing.T) {
	t.Parallel()
	for _, inner := range []int64{1, 9, 100} {
		h := wrap(readAll(0), admit.MaxBody(10), between(t, 8, func([]byte, error) {}), admit.MaxBody(inner))
		for length, status := range map[int64]int{8 + min(inner, 2): 200, 9 + min(inner, 2): 413} {
			r := newRequest("POST", "/", strings.Repeat("x", int(length)))
			r.ContentLength = -1
			w := httptest.NewRecorder()
			h.ServeHTTP(w, r)
			assert.Equal(t, status, w.Code, "%d of %d", length, inner)
		}
	}
}

// The body ends with the wrapper that has made it: until then it may be read, and
// after it nobody reaches the connection.
func TestBodyEndsWithItsWrapper(t *testing.T) {
	t.Parallel()
	wrappers := map[string]admit.Middleware{
		"MaxBody": admit.MaxBody(100), "BodyTimeout": admit.BodyTimeout{Grace: time.Minute}.Wrap, "Timeout": admit.Timeout(time.Minute),
	}
	for outer, wrapper := range wrappers {
		for inner, another := range wrappers {
			var late io.Reader
			h := wrap(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { late = r.Body }),
				wrapper, between(t, 0, func(rest []byte, err error) {
					assert.NoError(t, err, "%s in %s", inner, outer)
					assert.Equal(t, "body", string(rest))
				}), another)
			h.ServeHTTP(httptest.NewRecorder(), newRequest("POST", "/", "body"))
			_, err := late.Read(make([]byte, 1))
			assert.Error(t, err)
		}
		var late io.Reader
		wrapper(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { late = r.Body })).
			ServeHTTP(httptest.NewRecorder(), newRequest("POST", "/", "body"))
		_, err := late.Read(make([]byte, 1))
		assert.ErrorIs(t, err, http.ErrBodyReadAfterClose, outer)
	}
}

// A request is copied before its body is replaced, and not at all if it has none.
func TestBodyIsReplacedInACopy(t *testing.T) {
	t.Parallel()
	for name, wrapper := range map[string]admit.Middleware{"MaxBody": admit.MaxBody(100), "BodyTimeout": admit.BodyTimeout{Grace: time.Minute}.Wrap} {
		var got *http.Request
		h := wrapper(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { got = r }))
		for _, change := range []func(r *http.Request){
			func(r *http.Request) { r.Body, r.ContentLength = http.NoBody, -1 },
			func(r *http.Request) { r.Body, r.ContentLength = nil, -1 },
			func(r *http.Request) { r.ContentLength = 0 },
		} {
			r := newRequest("POST", "/", "body")
			change(r)
			h.ServeHTTP(httptest.NewRecorder(), r)
			assert.Same(t, r, got, name)
		}
		admit.RequestID(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			r = r.WithContext(r.Context())
			body := r.Body
			h.ServeHTTP(w, r)
			assert.True(t, body == r.Body, name)
			assert.NotSame(t, r, got, name)
		})).ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("POST", "/", &drip{}))
	}
}

// The smallest bound holds, wherever it stands; Decode has none of its own inside.
func TestMaxBodyInsideAnother(t *testing.T) {
	t.Parallel()
	for _, bounds := range [][2]int64{{10, 100}, {100, 10}} {
		h := wrap(readAll(0), admit.MaxBody(bounds[0]), admit.MaxBody(bounds[1]))
		r := newRequest("POST", "/", strings.Repeat("x", 11))
		r.ContentLength = -1
		refused(t, h, r, 413)
	}
	large := `"` + strings.Repeat("x", 2<<20) + `"`
	decode := admit.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) error {
		_, err := admit.Decode[string](r)
		return err
	})
	allowed(t, admit.MaxBody(3<<20)(decode), newRequest("POST", "/", large))
	refused(t, decode, newRequest("POST", "/", large), 413)
	small := newRequest("POST", "/", large)
	small.ContentLength = -1
	refused(t, admit.MaxBody(1<<20)(decode), small, 413)
}

// A bound that is passed closes the connection, also through the writers of others and
// when the handler answers as if nothing were.
func TestMaxBodyClosesTheConnection(t *testing.T) {
	t.Parallel()
	careless := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		_, _ = io.WriteString(w, "fine")
	})
	h := wrap(careless, new(admit.ErrorWriter).Wrap, func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { next.ServeHTTP(unwrapper{w}, r) })
	}, admit.MaxBody(10))
	for _, wire := range plainWires {
		c := dial(t, serve(t, wire, h))
		_, err := io.WriteString(c, "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n14\r\n"+strings.Repeat("x", 20)+"\r\n0\r\n\r\n")
		require.NoError(t, err)
		res, _ := answerOn(t, bufio.NewReader(c))
		assert.True(t, res.Close, wire)
	}
}

func TestBodyTimeoutDoesNotBuild(t *testing.T) {
	t.Parallel()
	for _, bad := range []admit.BodyTimeout{{}, {Max: time.Second}, {MinRate: 10}, {Grace: -1}, {Grace: time.Second, Max: time.Millisecond}, {Grace: 1, MinRate: -1}, {Grace: 1, Max: -1}} {
		assert.Panics(t, func() { bad.Wrap(ok) }, "%+v", bad)
	}
	assert.NotPanics(t, func() { admit.BodyTimeout{Grace: time.Second, Max: time.Second}.Wrap(ok) })
	assert.NotPanics(t, func() { admit.MaxBody(1) })
	assert.Panics(t, func() { admit.BodyTimeout{Grace: time.Second}.Wrap(nil) })
	assert.Panics(t, func() { admit.MaxBody(1)(nil) })
}

// drip is a body that comes in parts, each after a pause, on the clock of synctest. A
// deadline wakes a Read of it, as one of a connection would.
type drip struct {
	parts    []string
	pause    time.Duration
	end      error
	deadline chan struct{}
}

func (d *drip) Read(p []byte) (int, error) {
	select {
	case <-d.deadline:
		return 0, os.ErrDeadlineExceeded
	case <-time.After(d.pause):
	}
	if len(d.parts) == 0 {
		return 0, d.end
	}
	part := d.parts[0]
	d.parts = d.parts[1:]
	return copy(p, part), nil
}

// dripWriter is a response writer with the connection that a drip comes over.
type dripWriter struct {
	*httptest.ResponseRecorder
	d         *drip
	deadlines int
}

func (w *dripWriter) SetReadDeadline(at time.Time) error {
	w.deadlines++
	if !at.After(time.Now()) {
		close(w.d.deadline)
	}
	return nil
}

func TestBodyTimeoutOnTheClock(t *testing.T) {
	t.Parallel()
	parts := func(n, size int) []string { return strings.Fields(strings.Repeat(strings.Repeat("x", size)+" ", n)) }
	tests := map[string]struct {
		bounds  admit.BodyTimeout
		parts   []string
		pause   time.Duration // of the client, before each part
		handler time.Duration // of the handler, before each Read
		after   time.Duration // when it is refused; 0: it is not
	}{
		"fast":                        {admit.BodyTimeout{Grace: time.Second}, parts(100, 10), 10 * time.Millisecond, 0, 0},
		"nothing comes":               {admit.BodyTimeout{Grace: time.Second}, nil, time.Hour, 0, time.Second},
		"slow parts, each in time":    {admit.BodyTimeout{Grace: time.Second}, parts(100, 1), 999 * time.Millisecond, 0, 0},
		"a slow handler":              {admit.BodyTimeout{Grace: time.Second, Max: 2 * time.Second, MinRate: 1000}, parts(10, 10), time.Millisecond, time.Minute, 0},
		"longer than Max":             {admit.BodyTimeout{Grace: time.Second, Max: 3 * time.Second}, parts(100, 10), 900 * time.Millisecond, 0, 3 * time.Second},
		"longer than Max, two clocks": {admit.BodyTimeout{Grace: time.Second, Max: 3 * time.Second}, parts(100, 10), 900 * time.Millisecond, time.Second, 3*time.Second + 4*time.Second},
		"above MinRate":               {admit.BodyTimeout{Grace: time.Second, MinRate: 100}, parts(100, 20), 200 * time.Millisecond, 0, 0},
		"below MinRate":               {admit.BodyTimeout{Grace: 1050 * time.Millisecond, MinRate: 100}, parts(100, 10), 200 * time.Millisecond, 0, 1950 * time.Millisecond},
		"stalls with a credit":        {admit.BodyTimeout{Grace: time.Second, MinRate: 1}, append(parts(1, 1000), ""), 0, 0, 0},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				d := &drip{parts: test.parts, pause: test.pause, end: io.EOF, deadline: make(chan struct{})}
				w := &dripWriter{ResponseRecorder: httptest.NewRecorder(), d: d}
				r := httptest.NewRequest("POST", "/", d)
				r.ContentLength, r.ProtoMajor = -1, 2
				began := time.Now()
				test.bounds.Wrap(readAll(test.handler)).ServeHTTP(w, r)
				if test.after == 0 {
					require.Equal(t, 200, w.Code, w.Body)
					assert.Zero(t, w.deadlines, "a client that keeps up costs no deadline")
					return
				}
				require.Equal(t, 408, w.Code, w.Body)
				assert.Equal(t, "request_timeout", readEnvelope(t, 408, w.Header(), w.Body.Bytes()).Code)
				assert.Equal(t, test.after, time.Since(began))
				assert.Equal(t, 1, w.deadlines)
			})
		})
	}
}

func TestBodyTimeoutError(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		d := &drip{pause: time.Hour, deadline: make(chan struct{})}
		r := httptest.NewRequest("POST", "/", d)
		r.ContentLength = -1
		admit.BodyTimeout{Grace: time.Second}.Wrap(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			_, err := io.ReadAll(r.Body)
			assert.ErrorIs(t, err, os.ErrDeadlineExceeded)
			var e *admit.Error
			require.ErrorAs(t, err, &e)
			assert.Equal(t, 408, e.Status)
			_, again := r.Body.Read(make([]byte, 1))
			assert.Same(t, err, again)
		})).ServeHTTP(&dripWriter{ResponseRecorder: httptest.NewRecorder(), d: d}, r)
	})
}

// A handler that waits for the body when its time is over waits no longer.
func TestTimeoutWakesARead(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		d := &drip{pause: time.Hour, deadline: make(chan struct{})}
		w := &dripWriter{ResponseRecorder: httptest.NewRecorder(), d: d}
		r := httptest.NewRequest("POST", "/", d)
		r.ContentLength, r.ProtoMajor = -1, 2
		began := time.Now()
		woken := make(chan error, 1)
		admit.Timeout(time.Second)(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			_, err := r.Body.Read(make([]byte, 1))
			woken <- err
		})).ServeHTTP(w, r)
		assert.Equal(t, 503, w.Code)
		assert.ErrorIs(t, <-woken, http.ErrHandlerTimeout)
		assert.Equal(t, time.Second, time.Since(began))
	})
}

// When the context ends because the body did not come in time, that is the error; else
// the client is gone, and there is nobody to tell.
func TestBodyTimeoutEndsTheContext(t *testing.T) {
	t.Parallel()
	for name, pause := range map[string]time.Duration{"slow": time.Hour, "in time": 0, "no body": 0} {
		synctest.Test(t, func(t *testing.T) {
			d := &drip{pause: pause, end: io.EOF, deadline: make(chan struct{})}
			rec := httptest.NewRecorder()
			var w http.ResponseWriter = rec
			if name == "slow" {
				w = &dripWriter{ResponseRecorder: rec, d: d}
			}
			ctx, cancel := context.WithCancel(t.Context())
			r := httptest.NewRequest("POST", "/", d).WithContext(ctx)
			r.ContentLength, r.ProtoMajor = -1, 2
			if name == "no body" {
				r.Body = http.NoBody
			}
			admit.BodyTimeout{Grace: time.Second}.Wrap(admit.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) error {
				_, err := io.ReadAll(r.Body)
				assert.Equal(t, name == "slow", err != nil)
				cancel()
				return r.Context().Err()
			})).ServeHTTP(w, r)
			if name == "slow" {
				assert.Equal(t, 408, rec.Code)
			} else {
				assert.Empty(t, rec.Body.String(), name)
			}
		})
	}
}

// Over each wire: a stalled body gets its 408, and Server.ReadTimeout works beside it.
func TestBodyTimeoutOverTheWire(t *testing.T) {
	t.Parallel()
	h := wrap(readAll(0), new(admit.ErrorWriter).Wrap, admit.BodyTimeout{Grace: 100 * time.Millisecond}.Wrap)
	for _, wire := range wires {
		for name, length := range map[string]int64{"Content-Length": 1000, "chunked": -1} {
			t.Run(wire+", "+name, func(t *testing.T) {
				t.Parallel()
				res, body, took := stalledUpload(t, serve(t, wire, h), "/", length)
				assert.Equal(t, 408, res.StatusCode, body)
				assert.Contains(t, body, "request_timeout")
				assert.GreaterOrEqual(t, took, 100*time.Millisecond)
				assert.Less(t, took, 3*time.Second)
			})
		}
	}
}

// A deadline that is left behind would end the next request of the connection, or the
// context of this one (golang/go#70834). A fast body leaves none.
func TestBodyTimeoutDoesNotPoisonTheConnection(t *testing.T) {
	t.Parallel()
	slow := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, err := io.Copy(io.Discard, r.Body)
		assert.NoError(t, err)
		select { // for longer than the grace, after the body has ended
		case <-r.Context().Done():
			t.Error("the context ended: ", r.Context().Err())
		case <-time.After(250 * time.Millisecond):
		}
		_, _ = io.WriteString(w, "done")
	})
	h := admit.BodyTimeout{Grace: 100 * time.Millisecond, Max: 200 * time.Millisecond}.Wrap(slow)
	for _, wire := range plainWires {
		t.Run(wire, func(t *testing.T) {
			t.Parallel()
			c := dial(t, serve(t, wire, h))
			r := bufio.NewReader(c)
			for _, request := range []string{
				"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\nbody",
				"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nbody\r\n0\r\n\r\n",
				"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
				"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\nbody",
			} {
				_, err := io.WriteString(c, request)
				require.NoError(t, err)
				res, body := answerOn(t, r)
				require.Equal(t, 200, res.StatusCode)
				require.Equal(t, "done", body)
			}
		})
	}
}

// The finding behind it: what a read deadline does after the body has ended.
func TestNetHTTPReadDeadlineAfterTheBodyEndsTheContext(t *testing.T) {
	t.Parallel()
	ended := make(chan bool, 1)
	s := serve(t, "HTTP/1.1", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		assert.NoError(t, http.NewResponseController(w).SetReadDeadline(time.Now().Add(50*time.Millisecond)))
		select {
		case <-r.Context().Done():
			ended <- true
		case <-time.After(5 * time.Second):
			ended <- false
		}
	}))
	do(t, s, "POST", "/", "body")
	assert.True(t, <-ended)
}

func TestReadTimeoutHoldsBesideBodyTimeout(t *testing.T) {
	t.Parallel()
	s := serve(t, "HTTP/1.1", wrap(readAll(0), new(admit.ErrorWriter).Wrap, admit.BodyTimeout{Grace: time.Minute}.Wrap),
		func(s *http.Server) { s.ReadTimeout = 200 * time.Millisecond })
	c := dial(t, s)
	began := time.Now()
	_, err := io.WriteString(c, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nbody")
	require.NoError(t, err)
	_, _ = io.ReadAll(c)
	assert.Less(t, time.Since(began), 5*time.Second)
}

func TestBodyAllocations(t *testing.T) {
	h := wrap(ok, admit.MaxBody(100), admit.BodyTimeout{Grace: time.Second}.Wrap)
	w, bare := newDiscard(), get("/")
	allocs(t, 0, func() { h.ServeHTTP(w, bare) })
	posted := newRequest("POST", "/", "x")
	allocs(t, 3, func() { h.ServeHTTP(w, posted) }) // the state, the body, and a copy of the request
}

// The finding that the advice in the README stands on: a ReadTimeout ends no stream,
// neither of a request without a body nor after the body has been read.
func TestReadTimeoutEndsNoStream(t *testing.T) {
	t.Parallel()
	for _, wire := range wires {
		for _, body := range []string{"", "body"} {
			t.Run(wire+" "+body, func(t *testing.T) {
				t.Parallel()
				s := serve(t, wire, admit.Recover(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					_, _ = io.Copy(io.Discard, r.Body)
					for i := range 4 {
						_, _ = fmt.Fprint(w, i)
						_ = http.NewResponseController(w).Flush()
						time.Sleep(350 * time.Millisecond)
					}
					assert.NoError(t, r.Context().Err())
				})), func(s *http.Server) { s.ReadTimeout = time.Second })
				_, text := do(t, s, "POST", "/", body)
				assert.Equal(t, "0123", string(text))
			})
		}
	}
}

// Whoever is around one handler leaves the body for the next, and the caller's request as
// it was.
func TestBodyIsForTheNextHandlerToo(t *testing.T) {
	t.Parallel()
	for name, wrapper := range map[string]admit.Middleware{
		"MaxBody": admit.MaxBody(5), "BodyTimeout": admit.BodyTimeout{Grace: time.Minute}.Wrap, "Timeout": admit.Timeout(time.Minute),
		"all": admit.Policy{MaxBody: 5, BodyTimeout: admit.BodyTimeout{Grace: time.Minute}, Timeout: time.Minute}.Wrap,
	} {
		for place, outside := range map[string]admit.Middleware{
			"RequestID": admit.RequestID, "MaxBody": admit.MaxBody(9), "bare": func(h http.Handler) http.Handler { return h },
		} {
			for _, wire := range wires {
				first := http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})
				h := outside(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					body, whole := r.Body, fmt.Sprintf("%#v", *r)
					wrapper(first).ServeHTTP(w, r)
					assert.True(t, body == r.Body, "%s in %s", name, place)
					r.Pattern = "" // as the mux outside has it
					assert.Equal(t, whole, fmt.Sprintf("%#v", *r), "%s in %s", name, place)
					_, err := io.Copy(w, r.Body)
					assert.NoError(t, err, "%s in %s", name, place)
				}))
				_, body := do(t, serve(t, wire, h), "POST", "/", "hello")
				assert.Equal(t, "hello", string(body), "%s in %s over %s", name, place, wire)
			}
		}
	}
}

// closes counts how often it is closed.
type closes struct {
	io.Reader
	n int
}

func (c *closes) Close() error { c.n++; return nil }

// A body that is closed late is not the handler's to close any more, whether it has been
// read or not.
func TestBodyIsNotClosedLate(t *testing.T) {
	t.Parallel()
	for name, wrapper := range map[string]admit.Middleware{
		"MaxBody": admit.MaxBody(100), "BodyTimeout": admit.BodyTimeout{Grace: time.Minute}.Wrap, "Timeout": admit.Timeout(time.Minute),
		"two": func(h http.Handler) http.Handler {
			return wrap(h, admit.MaxBody(100), between(t, 0, func([]byte, error) {}), admit.MaxBody(10))
		},
	} {
		for _, read := range []bool{false, true} {
			source := &closes{Reader: strings.NewReader("body")}
			r := newRequest("POST", "/", "body")
			r.Body = source
			var late io.Closer
			wrapper(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
				late = r.Body
				if read {
					_, _ = io.Copy(io.Discard, r.Body)
				}
				assert.NoError(t, r.Body.Close())
			})).ServeHTTP(httptest.NewRecorder(), r)
			assert.Equal(t, 1, source.n, "%s: in time", name)
			assert.NoError(t, late.Close())
			assert.Equal(t, 1, source.n, "%s: late", name)
		}
	}
}
