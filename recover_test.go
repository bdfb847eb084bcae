package admit_test

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/admit-go/admit"
)

func panics(v any) http.Handler {
	return http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic(v) })
}

func TestRecover(t *testing.T) {
	t.Parallel()
	for _, v := range []any{"a secret", errors.New("a secret"), 7, fmt.Stringer(nil)} {
		logger, log := logged()
		var observed *admit.Error
		ew := &admit.ErrorWriter{Logger: logger, Observe: func(_ *http.Request, e *admit.Error) { observed = e }}
		w := httptest.NewRecorder()
		wrap(panics(v), ew.Wrap, admit.Recover).ServeHTTP(w, get("/"))
		assert.Equal(t, 500, w.Code)
		readEnvelope(t, 500, w.Header(), w.Body.Bytes())
		assert.NotContains(t, w.Body.String(), "secret")
		assert.Contains(t, log.String(), "recover_test.go", "the stack")
		require.NotNil(t, observed)
		assert.Equal(t, "internal", observed.Code)
		assert.ErrorContains(t, observed.Unwrap(), "panic: ")
	}
}

// A handler that ends without returning and without a value has not answered either: with
// GODEBUG=panicnil=1 recover sees nothing, as with runtime.Goexit.
func TestRecoverSeesAPanicWithoutAValue(t *testing.T) {
	t.Parallel()
	for _, begun := range []bool{false, true} {
		logger, log := logged()
		w := httptest.NewRecorder()
		h := wrap(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			if begun {
				_, _ = io.WriteString(w, "part of it")
			}
			runtime.Goexit()
		}), (&admit.ErrorWriter{Logger: logger}).Wrap, admit.Recover)
		done := make(chan any)
		go func() {
			defer func() { done <- recover() }()
			h.ServeHTTP(w, get("/"))
		}()
		v := <-done
		assert.Contains(t, log.String(), "a handler panicked")
		if begun {
			assert.Equal(t, http.ErrAbortHandler, v, "the connection is cut")
			continue
		}
		assert.Nil(t, v)
		assert.Equal(t, 500, w.Code)
		assert.Contains(t, log.String(), "runtime.Goexit")
	}
}

func TestRecoverReraisesAbort(t *testing.T) {
	t.Parallel()
	for _, v := range []error{http.ErrAbortHandler, fmt.Errorf("stop: %w", http.ErrAbortHandler)} {
		w := httptest.NewRecorder()
		assert.PanicsWithValue(t, http.ErrAbortHandler, func() { admit.Recover(panics(v)).ServeHTTP(w, get("/")) })
		assert.Empty(t, w.Body.String())
	}
}

func TestRecoverCutsAResponseThatHasBegun(t *testing.T) {
	t.Parallel()
	s := serve(t, "HTTP/1.1", wrap(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, "part of it")
		_ = http.NewResponseController(w).Flush()
		panic("in the middle")
	}), admit.Recover))
	res, err := s.Client().Get(s.URL)
	require.NoError(t, err)
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	assert.ErrorIs(t, err, io.ErrUnexpectedEOF, "a short 200 would be taken for the whole")
	assert.Equal(t, "part of it", string(body))
}

// Whoever hijacks answers; what the request said about upgrades tells nothing.
func TestRecoverAfterHijack(t *testing.T) {
	t.Parallel()
	logger, log := logged()
	hijacker := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/pretends" {
			panic("not hijacked")
		}
		conn, _, err := w.(http.Hijacker).Hijack()
		require.NoError(t, err)
		defer conn.Close()
		_, _ = io.WriteString(conn, "HTTP/1.1 299 Mine\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
		panic("after")
	})
	s := serve(t, "HTTP/1.1", wrap(hijacker, (&admit.ErrorWriter{Logger: logger}).Wrap, admit.Recover))
	for path, want := range map[string]int{"/pretends": 500, "/": 299} {
		r, err := http.NewRequest(http.MethodGet, s.URL+path, nil)
		require.NoError(t, err)
		if path == "/pretends" {
			r.Header.Set("Connection", "Upgrade")
			r.Header.Set("Upgrade", "websocket")
		}
		res, err := s.Client().Do(r)
		require.NoError(t, err)
		_ = res.Body.Close()
		assert.Equal(t, want, res.StatusCode)
	}
	assert.Eventually(t, func() bool { return strings.Contains(log.String(), "after the connection was hijacked") }, 10*time.Second, time.Millisecond)
}

func TestWriterKeepsWhatTheServerOffers(t *testing.T) {
	t.Parallel()
	check := func(hijacks bool) http.Handler {
		return wrap(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			_, flusher := w.(http.Flusher)
			_, hijacker := w.(http.Hijacker)
			_, readerFrom := w.(io.ReaderFrom)
			_, stringWriter := w.(io.StringWriter)
			assert.True(t, flusher && readerFrom && stringWriter)
			assert.Equal(t, hijacks, hijacker)
			c := http.NewResponseController(w)
			assert.NoError(t, c.EnableFullDuplex())
			_, err := io.WriteString(w, "text")
			assert.NoError(t, err)
			assert.NoError(t, c.Flush())
		}), admit.RequestID, new(admit.ErrorWriter).Wrap, admit.Recover, admit.Intercept)
	}
	for _, wire := range wires {
		s := serve(t, wire, check(wire != "HTTP/2"))
		res, err := s.Client().Get(s.URL)
		require.NoError(t, err)
		body, err := io.ReadAll(res.Body)
		require.NoError(t, err)
		_ = res.Body.Close()
		assert.Equal(t, "text", string(body), res.Proto)
	}
	// http.TimeoutHandler takes Flush away; the writer around it does not pretend.
	h := http.TimeoutHandler(wrap(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, flusher := w.(http.Flusher)
		assert.False(t, flusher)
	}), admit.Recover), 1<<40, "")
	h.ServeHTTP(httptest.NewRecorder(), get("/"))
}
