package admit_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/iotest"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/admit-go/admit"
	"github.com/admit-go/admit/internal/testkit"
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

// There is no int64 for one byte more.
func TestMaxBodyWithoutEnd(t *testing.T) {
	t.Parallel()
	for name, handler := range map[string]http.Handler{
		"read": readAll(0),
		"decoded": admit.HandlerFunc(func(w http.ResponseWriter, r *http.Request) error {
			got, err := admit.Decode[string](r)
			if err != nil {
				return err
			}
			return admit.Success(w, r, http.StatusOK, len(got)+2)
		}),
	} {
		r := newRequest("POST", "/", `"abc"`)
		r.ContentLength = -1
		w := httptest.NewRecorder()
		admit.MaxBody(math.MaxInt64)(handler).ServeHTTP(w, r)
		assert.Equal(t, 200, w.Code, name)
		assert.Contains(t, w.Body.String(), `"data":5}`, name)
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
		"Shedder": newShedder(t, admit.ShedderConfig{Max: 100}).Wrap,
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

// A BodyTimeout counts what is read through it, and no longer: a Read of an earlier handler has
// no say in how long an inner BodyTimeout waits.
func TestBodyTimeoutReplacesOneThatWasUsed(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		d := &drip{parts: []string{"a", "b"}, pause: 900 * time.Millisecond, end: io.EOF, deadline: make(chan struct{})}
		w := &dripWriter{ResponseRecorder: httptest.NewRecorder(), d: d}
		r := httptest.NewRequest("POST", "/", d)
		r.ContentLength, r.ProtoMajor = -1, 2
		h := wrap(readAll(0), admit.BodyTimeout{Grace: time.Second}.Wrap, func(next http.Handler) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				_, err := r.Body.Read(make([]byte, 1))
				assert.NoError(t, err)
				d.pause = 3 * time.Second
				next.ServeHTTP(w, r)
			})
		}, admit.BodyTimeout{Grace: time.Minute}.Wrap)
		h.ServeHTTP(w, r)
		assert.Equal(t, 200, w.Code, w.Body)
		assert.Zero(t, w.deadlines)
	})
}

// What arrives in no time may earn more time than a Duration holds.
func TestBodyTimeoutOfALargeBody(t *testing.T) {
	t.Parallel()
	const block, size = 1 << 24, 10 << 30 // at 1 byte a second: 340 years
	h := admit.BodyTimeout{Grace: time.Hour, MinRate: 1}.Wrap(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		for p, left := make([]byte, block), int64(size); left > 0; left -= block {
			n, err := r.Body.Read(p)
			require.NoError(t, err, "with %d bytes left", left)
			require.Equal(t, block, n)
		}
	}))
	r := httptest.NewRequest("POST", "/", endless{})
	r.ContentLength = -1
	h.ServeHTTP(httptest.NewRecorder(), r)
}

// endless has all that is asked for, and does not write it down.
type endless struct{}

func (endless) Read(p []byte) (int, error) { return len(p), nil }

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

// Whoever ends the read, it is the client that was slow: for a handler that returns the
// error of Read, as for one that uses Decode.
func TestReadTimeoutIsTheClients(t *testing.T) {
	t.Parallel()
	for name, read := range map[string]admit.HandlerFunc{
		"Read":   func(_ http.ResponseWriter, r *http.Request) error { _, err := io.ReadAll(r.Body); return err },
		"Decode": func(_ http.ResponseWriter, r *http.Request) error { _, err := admit.Decode[any](r); return err },
		"ParseForm": func(_ http.ResponseWriter, r *http.Request) error {
			r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
			return admit.ParseForm(r, 0)
		},
	} {
		for _, timeout := range []time.Duration{0, time.Minute} {
			t.Run(fmt.Sprint(name, timeout), func(t *testing.T) {
				t.Parallel()
				h := admit.Policy{Errors: &admit.ErrorWriter{Logger: discardLogs}, BodyTimeout: admit.BodyTimeout{Grace: time.Minute}, Timeout: timeout}.Wrap(read)
				c := dial(t, serve(t, "HTTP/1.1", h, func(s *http.Server) { s.ReadTimeout = time.Second })) // of the header too
				_, err := io.WriteString(c, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nbody")
				require.NoError(t, err)
				res, _ := answerOn(t, bufio.NewReader(c))
				assert.Equal(t, http.StatusRequestTimeout, res.StatusCode)
			})
		}
	}
}

// An answer to a request whose body nobody reads leaves, though the client stalls.
func TestAnswerToAnUnreadStalledBody(t *testing.T) {
	t.Parallel()
	careless := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "fine") })
	h := admit.Policy{Methods: []string{"POST"}, BodyTimeout: admit.BodyTimeout{Grace: 100 * time.Millisecond}, Timeout: time.Second}.Wrap(careless)
	for _, wire := range plainWires {
		for method, status := range map[string]int{"POST": 200, "OPTIONS": 204, "DELETE": 405} {
			t.Run(wire+" "+method, func(t *testing.T) {
				t.Parallel()
				c := dial(t, serve(t, wire, h))
				began := time.Now()
				_, err := io.WriteString(c, method+" / HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\npart")
				require.NoError(t, err)
				res, _ := answerOn(t, bufio.NewReader(c))
				assert.Equal(t, status, res.StatusCode)
				assert.Less(t, time.Since(began), 3*time.Second)
			})
		}
	}
}

// A handler that outlives the wrappers outside of http.TimeoutHandler does not reach
// the connection any more.
func TestBodyOutlivesItsConnection(t *testing.T) {
	t.Parallel()
	throttled := func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			r2 := r.Clone(r.Context())
			r2.Body = sleepy{r.Body}
			next.ServeHTTP(w, r2)
		})
	}
	for _, wire := range wires {
		t.Run(wire, func(t *testing.T) {
			t.Parallel()
			ended := make(chan error, 1)
			h := wrap(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
				_, err := r.Body.Read(make([]byte, 10))
				ended <- err
			}), throttled, admit.MaxBody(1000), func(next http.Handler) http.Handler {
				return http.TimeoutHandler(next, 50*time.Millisecond, "over")
			}, admit.BodyTimeout{Grace: 100 * time.Millisecond}.Wrap)
			// The foreign body waits in a Read, and goes on after the handlers have returned.
			res, _ := do(t, testkit.ServeUnguarded(t, wire, h), "POST", "/", "body")
			assert.Equal(t, 503, res.StatusCode)
			assert.Error(t, <-ended)
		})
	}
}

type sleepy struct{ io.ReadCloser }

func (s sleepy) Read(p []byte) (int, error) {
	time.Sleep(300 * time.Millisecond)
	return s.ReadCloser.Read(p)
}

func TestBodyTimeoutSaysWhenItCannotWork(t *testing.T) {
	t.Parallel()
	type opaque struct{ http.ResponseWriter }
	logger, log := logged()
	h := wrap(ok, (&admit.ErrorWriter{Logger: logger}).Wrap, func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { next.ServeHTTP(opaque{w}, r) })
	}, admit.BodyTimeout{Grace: time.Second}.Wrap)
	s := serve(t, "HTTP/1.1", h)
	do(t, s, "POST", "/", "body")
	do(t, s, "POST", "/", "body")
	assert.Equal(t, 1, strings.Count(log.String(), "has no Unwrap method; add one (httptest.ResponseRecorder has none either"))
	logger, log = logged()
	h = wrap(ok, (&admit.ErrorWriter{Logger: logger}).Wrap, admit.BodyTimeout{Grace: time.Second}.Wrap)
	do(t, serve(t, "HTTP/1.1", h), "POST", "/", "body")
	assert.Empty(t, log.String())
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
						time.Sleep(900 * time.Millisecond)
					}
					assert.NoError(t, r.Context().Err())
				})), func(s *http.Server) { s.ReadTimeout = 3 * time.Second }) // of the handshake too
				_, text := do(t, s, "POST", "/", body)
				assert.Equal(t, "0123", string(text))
			})
		}
	}
}

// A proxy's transport reads the body in a goroutine of its own, which finds out that it is
// too large while the upstream's answer is on its way: that ends no process.
func TestMaxBodyAroundAProxy(t *testing.T) {
	t.Parallel()
	upstream := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_ = http.NewResponseController(w).EnableFullDuplex() // or the server would read all of the body first
		_, _ = io.ReadFull(r.Body, make([]byte, 500))
		w.WriteHeader(http.StatusAccepted)
		_ = http.NewResponseController(w).Flush()
		_, _ = io.Copy(io.Discard, r.Body)
	}))
	t.Cleanup(upstream.Close)
	target, err := url.Parse(upstream.URL)
	require.NoError(t, err)
	proxy := &httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) { r.SetURL(target) }, ErrorHandler: admit.ProxyError}
	total, err := admit.NewHandlerTimeout(admit.HandlerTimeoutConfig{FirstByte: 10 * time.Second, Total: 20 * time.Second})
	require.NoError(t, err)
	chains := map[string]http.Handler{
		"":           wrap(proxy, (&admit.ErrorWriter{Logger: discardLogs}).Wrap, admit.MaxBody(1000)),
		", timed":    wrap(proxy, (&admit.ErrorWriter{Logger: discardLogs}).Wrap, admit.MaxBody(1000), total.Wrap),
		", in timed": wrap(proxy, (&admit.ErrorWriter{Logger: discardLogs}).Wrap, total.Wrap, admit.MaxBody(1000)),
	}
	for _, wire := range wires {
		for name, h := range chains {
			t.Run(wire+name, func(t *testing.T) {
				t.Parallel()
				s := serve(t, wire, h)
				var clients sync.WaitGroup
				for range 8 {
					clients.Go(func() {
						for range 25 {
							body, pipe := io.Pipe()
							go func() {
								_, _ = pipe.Write(make([]byte, 500))
								time.Sleep(rand.N(800 * time.Microsecond))
								_, _ = pipe.Write(make([]byte, 1000))
								_ = pipe.Close()
							}()
							r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, s.URL, body)
							if !assert.NoError(t, err) {
								return
							}
							if res, err := s.Client().Do(r); err == nil {
								assert.Contains(t, []int{202, 413}, res.StatusCode)
								_ = res.Body.Close()
							}
							_ = body.Close()
						}
					})
				}
				clients.Wait()
			})
		}
	}
}

// After a hijack the connection is left alone, whatever was set before, and whoever takes
// it.
func TestBodyTimeoutAfterHijack(t *testing.T) {
	t.Parallel()
	const grace = 100 * time.Millisecond
	hijacks := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/read" {
			_, _ = r.Body.Read(make([]byte, 4))
		}
		c, buffered, err := http.NewResponseController(w).Hijack()
		if !assert.NoError(t, err) {
			return
		}
		go func() {
			defer c.Close()
			line, err := buffered.ReadString('\n')
			for err == nil && !strings.HasPrefix(line, "late") {
				line, err = buffered.ReadString('\n')
			}
			assert.NoError(t, err)
			_, _ = io.WriteString(c, "echo "+line)
		}()
	})
	first := func(h http.Handler) http.Handler { // reads nothing
		unread := admit.BodyTimeout{Grace: grace}.Wrap(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			unread.ServeHTTP(w, r)
			h.ServeHTTP(w, r)
		})
	}
	body := admit.BodyTimeout{Grace: grace}.Wrap
	for name, h := range map[string]http.Handler{
		"alone":   body(hijacks),
		"Timeout": wrap(hijacks, admit.RequestID, body, admit.WriteStall(grace), admit.Timeout(time.Minute)),
		"before":  wrap(hijacks, admit.RequestID, first),
		"outside": wrap(hijacks, body, passing, admit.Recover),
	} {
		for _, wire := range plainWires {
			for _, path := range []string{"/", "/read"} {
				t.Run(wire+", "+name+path, func(t *testing.T) {
					t.Parallel()
					c := dial(t, serve(t, wire, h))
					_, err := io.WriteString(c, "POST "+path+" HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: echo\r\nTransfer-Encoding: chunked\r\n\r\n4\r\npart\r\n")
					require.NoError(t, err)
					time.Sleep(3 * grace)
					_, err = io.WriteString(c, "\nlate\n")
					require.NoError(t, err)
					echo, err := io.ReadAll(c)
					require.NoError(t, err)
					assert.Equal(t, "echo late\n", string(echo))
				})
			}
		}
	}
}

// passing is a handler of others.
func passing(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { next.ServeHTTP(w, r) })
}

// A second handler has the time that it is given, not what the first has left.
func TestBodyTimeoutIsOfItsHandler(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		unread := admit.BodyTimeout{Grace: time.Second}.Wrap(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
		c := servePipe(t, admit.RequestID(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			unread.ServeHTTP(w, r)
			body, err := io.ReadAll(r.Body)
			assert.NoError(t, err)
			_, _ = w.Write(body)
		})))
		go func() {
			_, _ = io.WriteString(c.client, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\n")
			time.Sleep(time.Minute)
			_, _ = io.WriteString(c.client, "hello")
		}()
		res, body := answerOn(t, bufio.NewReader(c.client))
		assert.Equal(t, 200, res.StatusCode)
		assert.Equal(t, "hello", body)
	})
}

// The server reads what a handler has left of the body before it sends the header. A client
// that stalls there holds nobody for longer than Grace, however the handler writes; one that
// has sent all is let be, for as long as the answer takes.
func TestBodyTimeoutBoundsWhatTheServerReads(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "file")
	require.NoError(t, os.WriteFile(file, make([]byte, 100_000), 0o600))
	const grace = 5 * time.Second
	for name, handle := range map[string]func(http.ResponseWriter){
		"write":   func(w http.ResponseWriter) { _, _ = w.Write(make([]byte, 100_000)) },
		"strings": func(w http.ResponseWriter) { _, _ = io.WriteString(w, strings.Repeat("x", 100_000)) },
		"parts": func(w http.ResponseWriter) {
			for range 1000 {
				_, _ = w.Write(make([]byte, 100))
			}
		},
		"flush": func(w http.ResponseWriter) { _ = http.NewResponseController(w).Flush() },
		"file": func(w http.ResponseWriter) {
			f, err := os.Open(file)
			require.NoError(t, err)
			defer f.Close()
			_, _ = io.Copy(w, f)
		},
		"returns": func(w http.ResponseWriter) { _, _ = io.WriteString(w, "short") },
	} {
		for _, whole := range []bool{false, true} {
			t.Run(fmt.Sprint(name, whole), func(t *testing.T) {
				t.Parallel()
				synctest.Test(t, func(t *testing.T) {
					f := newInFlight(t, admit.InFlightConfig{Max: 1})
					c := servePipe(t, admit.Policy{InFlight: f, BodyTimeout: admit.BodyTimeout{Grace: grace}, Timeout: time.Minute}.Wrap(
						http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
							handle(w)
							time.Sleep(3 * grace)
							if whole { // else the server takes a body that does not come for a client that is gone
								assert.NoError(t, r.Context().Err())
							}
							_, _ = io.WriteString(w, "the end")
						})))
					began := time.Now()
					go func() {
						_, _ = io.WriteString(c.client, "GET / HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\n")
						if whole {
							_, _ = io.WriteString(c.client, "body")
						}
					}()
					r := bufio.NewReader(c.client)
					res, err := http.ReadResponse(r, nil)
					require.NoError(t, err)
					waited := time.Duration(0)
					if !whole {
						waited = grace
					}
					if name == "returns" {
						waited += 3 * grace
					}
					assert.Equal(t, waited, time.Since(began))
					assert.Equal(t, !whole, res.Close)
					body, err := io.ReadAll(res.Body)
					require.NoError(t, err)
					assert.True(t, strings.HasSuffix(string(body), "the end"))
					synctest.Wait()
					inUse(t, f, 0, 0, 0)
					if whole {
						_, err := io.WriteString(c.client, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
						require.NoError(t, err)
						res, _ := answerOn(t, r)
						assert.Equal(t, 200, res.StatusCode)
					}
					time.Sleep(time.Minute)
				})
			})
		}
	}
}

// With full duplex the server reads nothing, and a handler may go on reading.
func TestBodyTimeoutWithFullDuplex(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := servePipe(t, admit.BodyTimeout{Grace: 5 * time.Second}.Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			assert.NoError(t, http.NewResponseController(w).EnableFullDuplex())
			_, _ = w.Write(make([]byte, 5000))
			assert.NoError(t, http.NewResponseController(w).Flush())
			time.Sleep(time.Minute)
			body, err := io.ReadAll(r.Body)
			assert.NoError(t, err)
			_, _ = w.Write(body)
		})))
		go func() {
			_, _ = io.WriteString(c.client, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\n")
			time.Sleep(time.Minute)
			_, _ = io.WriteString(c.client, "hello")
		}()
		res, body := answerOn(t, bufio.NewReader(c.client))
		assert.Equal(t, 200, res.StatusCode)
		assert.True(t, strings.HasSuffix(body, "hello"))
		time.Sleep(time.Minute)
	})
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

// unwrapped is the writer of an access log as one writes it today: Unwrap, and nothing else.
type unwrapped struct {
	http.ResponseWriter
	status int
}

func (w *unwrapped) WriteHeader(status int) { w.status = status; w.ResponseWriter.WriteHeader(status) }

func (w *unwrapped) Unwrap() http.ResponseWriter { return w.ResponseWriter }

func accessLog(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		next.ServeHTTP(&unwrapped{ResponseWriter: w}, r)
	})
}

// A hijack by way of Unwrap, past a writer that is no Hijacker, goes past ours too. They
// then set deadlines on a connection that is somebody else's.
func TestHijackPastAnAccessLog(t *testing.T) {
	t.Parallel()
	const d = 100 * time.Millisecond
	echoes := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c, buffered, err := http.NewResponseController(w).Hijack()
		if !assert.NoError(t, err) {
			return
		}
		go func() {
			defer c.Close()
			line, err := buffered.ReadString('\n')
			for err == nil && !strings.HasPrefix(line, "late") {
				line, err = buffered.ReadString('\n')
			}
			assert.NoError(t, err)
			_, err = io.WriteString(c, "echo "+line)
			assert.NoError(t, err)
		}()
	})
	for name, h := range map[string]http.Handler{
		"WriteStall":  admit.WriteStall(d)(echoes),
		"BodyTimeout": admit.BodyTimeout{Grace: d}.Wrap(echoes),
		"Timeout":     wrap(echoes, admit.WriteStall(d), admit.Timeout(time.Minute)),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := dial(t, serve(t, testkit.HTTP1, accessLog(h)))
			_, err := io.WriteString(c, "POST / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: echo\r\nTransfer-Encoding: chunked\r\n\r\n4\r\npart\r\n")
			require.NoError(t, err)
			time.Sleep(3 * d)
			_, err = io.WriteString(c, "\nlate\n")
			require.NoError(t, err)
			echo, err := io.ReadAll(c)
			require.NoError(t, err)
			assert.Equal(t, "echo late\n", string(echo))
		})
	}
}

// A late handler closes the body, as many do.
func TestLateHandlerClosesNothing(t *testing.T) {
	t.Parallel()
	for _, wire := range wires {
		t.Run(wire, func(t *testing.T) {
			t.Parallel()
			ended := make(chan struct{})
			s := serve(t, wire, testkit.GuardAll(t, admit.Timeout(50*time.Millisecond)(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
				defer close(ended)
				defer r.Body.Close()
				_, _ = io.Copy(io.Discard, r.Body)
				time.Sleep(time.Second)
			}))))
			res, _ := testkit.Do(t, s, "POST", "/", "hello")
			assert.Equal(t, 503, res.StatusCode)
			<-ended
		})
	}
}

// A deadline wakes a Read that has just come to the end of the body. The connection is kept,
// though the server has taken that deadline for the end of its client: the context of the
// next request on it has ended before it begins (golang/go#70834).
func TestWokenConnectionIsNotKept(t *testing.T) {
	t.Parallel()
	// checks looks at the whole of a body when it has ended, and takes its time.
	checks := func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			r2 := *r
			r2.Body = struct {
				io.Reader
				io.Closer
			}{io.MultiReader(r.Body, readerFunc(func([]byte) (int, error) {
				time.Sleep(400 * time.Millisecond)
				return 0, io.EOF
			})), r.Body}
			next.ServeHTTP(w, &r2)
		})
	}
	read := admit.HandlerFunc(func(w http.ResponseWriter, r *http.Request) error {
		if err := r.Context().Err(); err != nil {
			return errors.Join(errors.New("the request is over before it begins"), errors.ErrUnsupported)
		}
		if _, err := io.ReadAll(r.Body); err != nil {
			return err
		}
		return admit.Success(w, r, 200, nil)
	})
	for name, m := range map[string]admit.Middleware{
		"BodyTimeout": admit.BodyTimeout{Grace: 100 * time.Millisecond}.Wrap,
		"Timeout":     admit.Timeout(100 * time.Millisecond),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := dial(t, serve(t, testkit.HTTP1, wrap(read, (&admit.ErrorWriter{Logger: discardLogs}).Wrap, checks, m)))
			b := bufio.NewReader(c)
			_, err := io.WriteString(c, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello")
			require.NoError(t, err)
			res, body := answerOn(t, b)
			t.Log(res.StatusCode, res.Close, body)
			if res.Close {
				return
			}
			_, err = io.WriteString(c, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
			require.NoError(t, err)
			res, body = answerOn(t, b)
			assert.Equal(t, 200, res.StatusCode, body)
		})
	}
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

// Server.ReadTimeout holds beside BodyTimeout, for what the handler leaves unread too.
func TestReadTimeoutHoldsForTheRest(t *testing.T) {
	t.Parallel()
	h := admit.BodyTimeout{Grace: 3 * time.Second}.Wrap(ok)
	s := serve(t, testkit.HTTP1, h, func(s *http.Server) { s.ReadTimeout = 300 * time.Millisecond })
	c := dial(t, s)
	began := time.Now()
	_, err := io.WriteString(c, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\npart")
	require.NoError(t, err)
	_, _ = io.ReadAll(c)
	assert.Less(t, time.Since(began), 1500*time.Millisecond)
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
		"Shedder": newShedder(t, admit.ShedderConfig{Max: 100}).Wrap,
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

// Nothing that the server reads without the handler takes longer than Grace, and a connection on
// which it did not read the whole body serves no other request.
func TestBodyTimeoutHoldsNoConnection(t *testing.T) {
	t.Parallel()
	const grace = 5 * time.Second
	write := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(make([]byte, 5000)) })
	closing := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Connection", "close")
		write(w, r)
	})
	duplex := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		assert.NoError(t, http.NewResponseController(w).EnableFullDuplex())
		write(w, r)
	})
	shuts := http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { _ = r.Body.Close() })
	answers := admit.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) error {
		defer r.Body.Close()
		return admit.NewError(http.StatusConflict, "no")
	})
	const part = "Content-Length: 10\r\n\r\n12345"
	body := admit.BodyTimeout{Grace: grace}.Wrap
	for name, test := range map[string]struct {
		h       http.Handler
		request string
	}{
		"the handler shuts the body":                 {body(shuts), part},
		"the handler shuts the body in a Timeout":    {body(admit.Timeout(time.Minute)(shuts)), part},
		"the handler responds and shuts the body":    {body(answers), part},
		"an outer BodyTimeout is shorter":            {admit.BodyTimeout{Grace: time.Second}.Wrap(passing(body(shuts))), part},
		"an outer BodyTimeout is longer":             {admit.BodyTimeout{Grace: time.Hour}.Wrap(passing(body(shuts))), part},
		"the handler closes the connection":          {body(closing), part},
		"the client closes the connection":           {body(write), "Connection: close\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n12345\r\n"},
		"the client waits for 100":                   {body(write), "Expect: 100-continue\r\nContent-Length: 10\r\n\r\n"},
		"the client waits for 100, the body is shut": {body(shuts), "Expect: 100-continue\r\nContent-Length: 10\r\n\r\n"},
		"full duplex": {body(duplex), part},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				c := servePipe(t, test.h)
				began := time.Now()
				require.NoError(t, c.client.SetDeadline(began.Add(time.Minute)))
				go func() { _, _ = io.WriteString(c.client, "POST / HTTP/1.1\r\nHost: x\r\n"+test.request) }()
				_, err := io.Copy(io.Discard, c.client)
				require.NotErrorIs(t, err, os.ErrDeadlineExceeded, "the connection is held")
				assert.InDelta(t, grace, time.Since(began), float64(time.Second/2)) // the server has its pauses
				time.Sleep(time.Minute)
			})
		})
	}
}

// Two goroutines should not read a body, but if they do, both Reads end before ServeHTTP returns.
func TestReadsEndWithTheRequest(t *testing.T) {
	t.Parallel()
	for name, first := range map[string]error{"both wait": nil, "one has failed": io.ErrUnexpectedEOF} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				d := &drip{deadline: make(chan struct{})}
				w := &dripWriter{ResponseRecorder: httptest.NewRecorder(), d: d}
				var reads atomic.Int32
				errs := make(chan error, 2)
				read := readerFunc(func([]byte) (int, error) {
					n := reads.Add(1)
					if n == 1 && first != nil {
						time.Sleep(time.Millisecond)
						return 0, first
					}
					<-d.deadline
					time.Sleep(time.Duration(n) * 100 * time.Millisecond)
					return 0, os.ErrDeadlineExceeded
				})
				h := admit.MaxBody(100)(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
					body := r.Body
					for range 2 {
						go func() {
							_, err := body.Read(make([]byte, 10))
							errs <- err
						}()
					}
					time.Sleep(time.Second) // both are under way, or one was
				}))
				began := time.Now()
				h.ServeHTTP(w, httptest.NewRequest("POST", "/", read))
				assert.Equal(t, time.Second+200*time.Millisecond, time.Since(began))
				want := http.ErrBodyReadAfterClose
				if first != nil {
					want = first
				}
				assert.Equal(t, []error{want, want}, []error{<-errs, <-errs})
			})
		})
	}
}

// A Read that cannot be woken does not hold the request: writers of others may not reach the
// connection, or take a deadline and do nothing.
func TestReadThatIsNotWoken(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		w    http.ResponseWriter
		wait time.Duration
	}{
		"no deadline":         {httptest.NewRecorder(), 0},
		"a deadline, in vain": {&vain{httptest.NewRecorder()}, time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				comes := make(chan struct{})
				read := readerFunc(func([]byte) (int, error) {
					<-comes
					return 0, io.EOF
				})
				h := admit.MaxBody(100)(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
					body := r.Body
					go func() { _, _ = body.Read(make([]byte, 10)) }()
					synctest.Wait()
				}))
				began := time.Now()
				h.ServeHTTP(test.w, httptest.NewRequest("POST", "/", read))
				assert.Equal(t, test.wait, time.Since(began))
				close(comes)
			})
		})
	}
}

// vain takes deadlines, and does nothing.
type vain struct{ *httptest.ResponseRecorder }

func (*vain) SetReadDeadline(time.Time) error { return nil }
