package admit_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"mime/multipart"
	"net/http"
	"net/http/httptest"
	"net/http/httptrace"
	"net/textproto"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/admit-go/admit"
	"github.com/admit-go/admit/internal/testkit"
)

func TestTimeoutDoesNotBuild(t *testing.T) {
	t.Parallel()
	assert.Panics(t, func() { admit.Timeout(0) })
	assert.Panics(t, func() { admit.Timeout(-time.Second) })
	assert.Panics(t, func() { admit.Timeout(time.Second)(nil) })
	_, err := admit.NewHandlerTimeout(admit.HandlerTimeoutConfig{Total: -1})
	assert.ErrorContains(t, err, "FirstByte")
	assert.ErrorContains(t, err, "Total")
	_, err = admit.NewHandlerTimeout(admit.HandlerTimeoutConfig{FirstByte: time.Second, Total: time.Millisecond})
	assert.ErrorContains(t, err, "at least FirstByte")
}

func TestTimeout(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var late, cause, ctxErr error
		h := wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("X-Handler", "late")
			w.Header().Del("X-Outside")
			<-r.Context().Done()
			ctxErr, cause = r.Context().Err(), context.Cause(r.Context())
			time.Sleep(time.Second) // the answer is written
			w.WriteHeader(http.StatusCreated)
			_, late = io.WriteString(w, "too late")
		}), admit.RequestID, new(admit.ErrorWriter).Wrap, outside, admit.Timeout(time.Second))
		began := time.Now()
		e, header := refused(t, h, get("/"), 503)
		assert.Equal(t, time.Second, time.Since(began))
		assert.Equal(t, "handler_timeout", e.Code)
		assert.Equal(t, header.Get("X-Request-Id"), e.RequestID)
		assert.NotContains(t, header, "X-Handler", "the header of a late handler is its own")
		assert.Equal(t, "kept", header.Get("X-Outside"))
		time.Sleep(time.Minute)
		synctest.Wait()
		assert.Equal(t, context.DeadlineExceeded, ctxErr)
		assert.Equal(t, context.DeadlineExceeded, cause)
		assert.Equal(t, http.ErrHandlerTimeout, late)
	})
}

// outside sets a header before the Timeout.
func outside(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Outside", "kept")
		next.ServeHTTP(w, r)
	})
}

func TestTimeoutInTime(t *testing.T) {
	t.Parallel()
	for name, h := range map[string]http.HandlerFunc{
		"writes":       func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("body")) },
		"strings":      func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "body") },
		"status first": func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(200); _, _ = io.WriteString(w, "body") },
		"reads from":   func(w http.ResponseWriter, _ *http.Request) { _, _ = io.Copy(w, strings.NewReader("body")) },
	} {
		w := httptest.NewRecorder()
		wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			assert.Equal(t, "kept", w.Header().Get("X-Outside"), "the handler sees what is set outside")
			w.Header().Add("X-Outside", "and more")
			w.Header().Set("X-Handler", "1")
			h(w, r)
		}), outside, admit.Timeout(time.Hour)).ServeHTTP(w, get("/"))
		assert.Equal(t, 200, w.Code, name)
		assert.Equal(t, "body", w.Body.String(), name)
		assert.Equal(t, []string{"kept", "and more"}, w.Header()["X-Outside"], name)
		assert.Equal(t, "1", w.Header().Get("X-Handler"), name)
	}
	w := httptest.NewRecorder()
	admit.Timeout(time.Hour)(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("X-Handler", "writes nothing")
	})).ServeHTTP(w, get("/"))
	assert.Equal(t, "writes nothing", w.Header().Get("X-Handler"))
}

// Once the answer has begun it may take any time, unless there is a total.
func TestTimeoutLetsStreamsGoOn(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		stream := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			for i := range 10 {
				if _, err := fmt.Fprint(w, i); err != nil {
					return
				}
				w.(http.Flusher).Flush()
				time.Sleep(time.Minute)
			}
			assert.NoError(t, r.Context().Err())
		})
		w := httptest.NewRecorder()
		admit.Timeout(time.Second)(stream).ServeHTTP(w, get("/"))
		assert.Equal(t, "0123456789", w.Body.String())

		total, err := admit.NewHandlerTimeout(admit.HandlerTimeoutConfig{FirstByte: time.Second, Total: 150 * time.Second})
		require.NoError(t, err)
		w = httptest.NewRecorder()
		began := time.Now()
		assert.PanicsWithValue(t, http.ErrAbortHandler, func() { total.Wrap(stream).ServeHTTP(w, get("/")) })
		assert.Equal(t, 150*time.Second, time.Since(began))
		assert.Equal(t, "012", w.Body.String())
		time.Sleep(time.Hour) // the handler ends
	})
}

func TestStopTimeout(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		total, err := admit.NewHandlerTimeout(admit.HandlerTimeoutConfig{FirstByte: time.Second, Total: time.Minute})
		require.NoError(t, err)
		poll := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			assert.True(t, admit.StopTimeout(r.Context()))
			time.Sleep(time.Hour)
			_, _ = io.WriteString(w, "news")
			time.Sleep(time.Hour)
			_, _ = io.WriteString(w, " and more")
		})
		w := httptest.NewRecorder()
		total.Wrap(poll).ServeHTTP(w, get("/"))
		assert.Equal(t, "news and more", w.Body.String())

		stopped := true
		refused(t, admit.Timeout(time.Second)(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			time.Sleep(2 * time.Second)
			stopped = admit.StopTimeout(r.Context())
		})), get("/"), 503)
		time.Sleep(time.Minute)
		synctest.Wait()
		assert.False(t, stopped, "too late")
		assert.True(t, admit.StopTimeout(t.Context()), "there is none")
	})
}

func TestTimeoutPanics(t *testing.T) {
	t.Parallel()
	logger, log := logged()
	chain := func(h http.Handler) http.Handler {
		return wrap(h, (&admit.ErrorWriter{Logger: logger}).Wrap, admit.Recover, admit.Timeout(time.Hour))
	}
	refused(t, chain(http.HandlerFunc(panickingHere)), get("/"), 500)
	assert.Contains(t, log.String(), "panickingHere", "the stack is the handler's")

	for _, v := range []any{"text", errors.New("an error"), 7} {
		func() {
			defer func() {
				p, isPanic := recover().(*admit.HandlerPanic)
				require.True(t, isPanic)
				assert.Equal(t, v, p.Value)
				assert.Contains(t, string(p.Stack), "panics")
				assert.Contains(t, p.Error(), fmt.Sprint(v))
				if err, isError := v.(error); isError {
					assert.ErrorIs(t, p, err)
				}
			}()
			wrap(panics(v), admit.Timeout(time.Hour), admit.Timeout(time.Hour)).ServeHTTP(httptest.NewRecorder(), get("/"))
		}()
	}
	assert.PanicsWithValue(t, http.ErrAbortHandler, func() {
		admit.Timeout(time.Hour)(panics(http.ErrAbortHandler)).ServeHTTP(httptest.NewRecorder(), get("/"))
	})
	assert.PanicsWithValue(t, http.ErrAbortHandler, func() {
		admit.Timeout(time.Hour)(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { runtime.Goexit() })).
			ServeHTTP(httptest.NewRecorder(), get("/"))
	})
}

func panickingHere(http.ResponseWriter, *http.Request) { panic("as asked for") }

// A source that ends too early ends the answer too early, and what has come from a slow
// one is not held back.
func TestTimeoutCopiesFromBadSources(t *testing.T) {
	t.Parallel()
	for _, size := range []int{0, 10, 512, 5000} {
		var got error
		w := httptest.NewRecorder()
		admit.Timeout(time.Minute)(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			cut := io.MultiReader(strings.NewReader(strings.Repeat("x", size)), cutReader{io.ErrUnexpectedEOF})
			var n int64
			n, got = io.Copy(w, cut)
			assert.Equal(t, int64(size), n)
		})).ServeHTTP(w, get("/"))
		assert.Equal(t, io.ErrUnexpectedEOF, got)
		assert.Equal(t, size, w.Body.Len())
	}
	synctest.Test(t, func(t *testing.T) {
		w := httptest.NewRecorder()
		admit.Timeout(time.Second)(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			r, pipe := io.Pipe()
			go func() {
				_, _ = io.WriteString(pipe, "first ")
				time.Sleep(time.Minute)
				_, _ = io.WriteString(pipe, "second")
				_ = pipe.Close()
			}()
			_, err := io.Copy(w, r)
			assert.NoError(t, err)
		})).ServeHTTP(w, get("/"))
		assert.Equal(t, "first second", w.Body.String())
	})
}

type cutReader struct{ error }

func (f cutReader) Read([]byte) (int, error) { return 0, f.error }

// A handler may change the header of its request, also while its 503 is written.
func TestTimeoutDoesNotShareTheHeader(t *testing.T) {
	t.Parallel()
	ew := &admit.ErrorWriter{Observe: func(r *http.Request, _ *admit.Error) { _ = r.Header.Get("X-Any") }}
	h := wrap(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		for range 1000 {
			r.Header.Set("Accept", "changed")
			time.Sleep(10 * time.Microsecond)
		}
	}), ew.Wrap, admit.Timeout(time.Millisecond))
	for range 20 {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, get("/", "Accept", "application/problem+json"))
		assert.Equal(t, "application/problem+json", w.Header().Get("Content-Type"))
	}
}

// The server gets the parsed form back, also from a handler that panics in a Timeout.
func TestTimeoutHandsBack(t *testing.T) {
	t.Parallel()
	var body strings.Builder
	mw := multipart.NewWriter(&body)
	part, err := mw.CreateFormFile("f", "f")
	require.NoError(t, err)
	_, err = part.Write(make([]byte, 1000))
	require.NoError(t, err)
	require.NoError(t, mw.Close())
	for _, panicking := range []bool{false, true} {
		mux := http.NewServeMux()
		var file string
		mux.HandleFunc("POST /form", func(_ http.ResponseWriter, r *http.Request) {
			assert.NoError(t, r.ParseMultipartForm(10))
			f, err := r.MultipartForm.File["f"][0].Open()
			if assert.NoError(t, err) {
				file = f.(*os.File).Name()
				_ = f.Close()
			}
			if panicking {
				panic("after the form")
			}
		})
		var pattern string
		s := serve(t, "HTTP/1.1", wrap(admit.Mux(mux), func(next http.Handler) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				next.ServeHTTP(w, r)
				pattern = r.Pattern
			})
		}, (&admit.ErrorWriter{Logger: discardLogs}).Wrap, admit.Recover, admit.Timeout(time.Minute)))
		do(t, s, "POST", "/form", body.String(), "Content-Type", mw.FormDataContentType())
		assert.Equal(t, "POST /form", pattern)
		require.NotEmpty(t, file)
		assert.Eventually(t, func() bool { _, err := os.Stat(file); return os.IsNotExist(err) }, 10*time.Second, time.Millisecond)
	}
}

// The handler's own error is not overtaken by the 503 while it waits for the body.
func TestErrorIsNotOvertakenByTheTimeout(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	var observed []string
	ew := &admit.ErrorWriter{Observe: func(_ *http.Request, e *admit.Error) {
		mu.Lock()
		defer mu.Unlock()
		observed = append(observed, e.Code)
	}}
	s := serve(t, "HTTP/1.1", admit.Policy{Errors: ew, Timeout: 250 * time.Millisecond}.Wrap(fails(admit.NewError(409, ""))))
	res, body, _ := stalledUpload(t, s, "/", 1000)
	assert.Equal(t, 409, res.StatusCode, body)
	mu.Lock()
	defer mu.Unlock()
	assert.Equal(t, []string{"conflict"}, observed)
}

func TestStopTimeoutStopsAll(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h := wrap(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			assert.True(t, admit.StopTimeout(r.Context()))
			time.Sleep(time.Hour)
		}), admit.Timeout(time.Second), admit.Timeout(2*time.Second))
		allowed(t, h, get("/"))
	})
}

func TestEarlyHintsKeepTheHeaderOutside(t *testing.T) {
	t.Parallel()
	w := httptest.NewRecorder()
	wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Handler", "1")
		w.WriteHeader(http.StatusEarlyHints)
		<-r.Context().Done()
	}), outside, admit.Timeout(10*time.Millisecond)).ServeHTTP(&hinting{w}, get("/"))
	assert.Equal(t, 503, w.Code)
	assert.Equal(t, "kept", w.Header().Get("X-Outside"))
	assert.NotContains(t, w.Header(), "X-Handler")
}

// hinting is a recorder for which a 1xx begins nothing, as with a server.
type hinting struct{ *httptest.ResponseRecorder }

func (h *hinting) WriteHeader(status int) {
	if status >= 200 {
		h.ResponseRecorder.WriteHeader(status)
	}
}

func TestTimeoutLatePanicIsLogged(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		logger, log := logged()
		h := wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			time.Sleep(2 * time.Second)
			panickingHere(w, r)
		}), (&admit.ErrorWriter{Logger: logger}).Wrap, admit.Recover, admit.Timeout(time.Second))
		refused(t, h, get("/"), 503)
		assert.NotContains(t, log.String(), "panickingHere")
		time.Sleep(time.Minute)
		synctest.Wait()
		assert.Contains(t, log.String(), "after its timeout")
		assert.Contains(t, log.String(), "panickingHere")
	})
}

// The late error of a handler is neither written nor counted.
func TestTimeoutLateErrorIsDropped(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		var observed []string
		logger, log := logged()
		ew := &admit.ErrorWriter{Logger: logger, Observe: func(_ *http.Request, e *admit.Error) {
			mu.Lock()
			defer mu.Unlock()
			observed = append(observed, e.Code)
		}}
		h := wrap(admit.HandlerFunc(func(http.ResponseWriter, *http.Request) error {
			time.Sleep(2 * time.Second)
			return errors.New("too late")
		}), ew.Wrap, admit.Recover, admit.Timeout(time.Second))
		refused(t, h, get("/"), 503)
		time.Sleep(time.Minute)
		synctest.Wait()
		assert.Equal(t, []string{"handler_timeout"}, observed)
		assert.Contains(t, log.String(), "a handler returned an error after its timeout")
	})
}

// A handler that is late does not reach the connection, on which the next request may
// be under way.
func TestTimeoutLateControls(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h := admit.Timeout(time.Second)(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			time.Sleep(2 * time.Second)
			c := http.NewResponseController(w)
			assert.ErrorIs(t, c.Flush(), http.ErrHandlerTimeout)
			assert.ErrorIs(t, c.SetReadDeadline(time.Now()), http.ErrHandlerTimeout)
			assert.ErrorIs(t, c.SetWriteDeadline(time.Now()), http.ErrHandlerTimeout)
			assert.ErrorIs(t, c.EnableFullDuplex(), http.ErrHandlerTimeout)
			_, _, err := c.Hijack()
			assert.ErrorIs(t, err, http.ErrHandlerTimeout)
			_, err = w.Write([]byte("x"))
			assert.ErrorIs(t, err, http.ErrHandlerTimeout)
			_, err = io.WriteString(w, "x")
			assert.ErrorIs(t, err, http.ErrHandlerTimeout)
			_, err = w.(io.ReaderFrom).ReadFrom(strings.NewReader("x"))
			assert.ErrorIs(t, err, http.ErrHandlerTimeout)
			for u, wrapped := w.(interface{ Unwrap() http.ResponseWriter }); wrapped; {
				inner := u.Unwrap()
				_, isRecorder := inner.(*httptest.ResponseRecorder)
				assert.False(t, isRecorder, "Unwrap does not give it away")
				u, wrapped = inner.(interface{ Unwrap() http.ResponseWriter })
			}
		}))
		refused(t, h, get("/"), 503)
		time.Sleep(time.Minute)
	})
}

// What http.TimeoutHandler breaks, over each wire.
func TestTimeoutOverTheWire(t *testing.T) {
	t.Parallel()
	mux := http.NewServeMux()
	mux.HandleFunc("/slow", func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	mux.HandleFunc("/hints", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Link", "</style.css>; rel=preload")
		w.WriteHeader(http.StatusEarlyHints)
		<-r.Context().Done() // a 1xx begins nothing
	})
	mux.HandleFunc("/trailer", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Trailer", "X-Sum")
		_, _ = io.WriteString(w, "body")
		w.Header().Set("X-Sum", "4")
		w.Header().Set(http.TrailerPrefix+"X-Late", "yes")
		w.Header().Set("X-Ignored", "it is no trailer")
	})
	path := filepath.Join(t.TempDir(), "file")
	content := strings.Repeat("0123456789", 100_000)
	require.NoError(t, os.WriteFile(path, []byte(content), 0o600))
	mux.HandleFunc("/file", func(w http.ResponseWriter, r *http.Request) { http.ServeFile(w, r, path) })
	mux.HandleFunc("/body", func(w http.ResponseWriter, r *http.Request) {
		_, err := io.Copy(io.Discard, r.Body)
		assert.ErrorIs(t, err, http.ErrHandlerTimeout, "a blocked Read is woken")
	})
	mux.HandleFunc("/stream", func(w http.ResponseWriter, _ *http.Request) {
		for i := range 4 {
			_, _ = fmt.Fprint(w, i)
			assert.NoError(t, http.NewResponseController(w).Flush())
			time.Sleep(150 * time.Millisecond) // in sum longer than the timeout
		}
	})
	h := wrap(admit.Mux(mux), new(admit.ErrorWriter).Wrap, admit.Recover, admit.Timeout(400*time.Millisecond))

	for _, wire := range wires {
		t.Run(wire, func(t *testing.T) {
			t.Parallel()
			s := serve(t, wire, h)
			res, body := do(t, s, "GET", "/slow", "")
			assert.Equal(t, 503, res.StatusCode)
			assert.Equal(t, "handler_timeout", readEnvelope(t, 503, res.Header, body).Code)

			var hints textproto.MIMEHeader
			ctx := httptrace.WithClientTrace(t.Context(), &httptrace.ClientTrace{Got1xxResponse: func(_ int, h textproto.MIMEHeader) error {
				hints = h
				return nil
			}})
			r, err := http.NewRequestWithContext(ctx, http.MethodGet, s.URL+"/hints", nil)
			require.NoError(t, err)
			res, err = s.Client().Do(r)
			require.NoError(t, err)
			_ = res.Body.Close()
			assert.Equal(t, 503, res.StatusCode)
			assert.Equal(t, "</style.css>; rel=preload", hints.Get("Link"))
			assert.NotContains(t, res.Header, "Link", "it was the handler's")

			res, body = do(t, s, "GET", "/trailer", "")
			assert.Equal(t, "body", string(body))
			assert.Equal(t, "4", res.Trailer.Get("X-Sum"))
			assert.Equal(t, "yes", res.Trailer.Get("X-Late"))
			assert.NotContains(t, res.Header, "X-Ignored")

			res, body = do(t, s, "GET", "/file", "")
			assert.Equal(t, 200, res.StatusCode)
			assert.Equal(t, content, string(body))

			_, body = do(t, s, "GET", "/stream", "")
			assert.Equal(t, "0123", string(body))

			for _, length := range []int64{1000, -1} {
				res, text, took := stalledUpload(t, s, "/body", length)
				assert.Equal(t, 503, res.StatusCode, text)
				assert.Less(t, took, 3*time.Second)
			}
		})
	}
}

func TestTimeoutUpgrade(t *testing.T) {
	t.Parallel()
	s := serve(t, "HTTP/1.1", wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c, _, err := http.NewResponseController(w).Hijack()
		if !assert.NoError(t, err) {
			return
		}
		defer c.Close()
		time.Sleep(450 * time.Millisecond) // for longer than the timeout
		assert.NoError(t, r.Context().Err())
		_, _ = io.WriteString(c, "HTTP/1.1 299 Mine\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
	}), admit.Recover, admit.Timeout(300*time.Millisecond)))
	res, _ := do(t, s, "GET", "/", "")
	assert.Equal(t, 299, res.StatusCode)
}

// A client that does not read cannot hold a handler for longer than the total.
func TestTimeoutTotalCutsAWriteThatWaits(t *testing.T) {
	t.Parallel()
	total, err := admit.NewHandlerTimeout(admit.HandlerTimeoutConfig{FirstByte: 50 * time.Millisecond, Total: 200 * time.Millisecond})
	require.NoError(t, err)
	for _, wire := range plainWires {
		t.Run(wire, func(t *testing.T) {
			t.Parallel()
			ended := make(chan error, 1)
			s := serve(t, wire, total.Wrap(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				for {
					if _, err := w.Write(make([]byte, 1<<20)); err != nil {
						ended <- err
						return
					}
				}
			})))
			c := dial(t, s)
			_, err := io.WriteString(c, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
			require.NoError(t, err)
			select {
			case err := <-ended:
				assert.Error(t, err)
			case <-time.After(10 * time.Second):
				t.Fatal("the handler still writes")
			}
		})
	}
}

// Nor can one that does not send what it has announced: the server reads that before it
// writes, whatever the handler has called for it.
func TestTimeoutTotalCutsACallThatReads(t *testing.T) {
	t.Parallel()
	total, err := admit.NewHandlerTimeout(admit.HandlerTimeoutConfig{FirstByte: 50 * time.Millisecond, Total: 200 * time.Millisecond})
	require.NoError(t, err)
	for name, call := range map[string]func(w http.ResponseWriter) error{
		"Write": func(w http.ResponseWriter) error { _, err := w.Write(make([]byte, 10<<10)); return err },
		"Flush": func(w http.ResponseWriter) error { return http.NewResponseController(w).Flush() },
		"Hijack": func(w http.ResponseWriter) error {
			w.WriteHeader(http.StatusOK) // which it sends
			_, _, err := http.NewResponseController(w).Hijack()
			return err
		},
	} {
		for _, wire := range plainWires {
			t.Run(name+" over "+wire, func(t *testing.T) {
				t.Parallel()
				ended := make(chan error, 1)
				s := serve(t, wire, total.Wrap(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { ended <- call(w) })))
				c := dial(t, s)
				_, err := io.WriteString(c, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\nabc")
				require.NoError(t, err)
				select {
				case err := <-ended:
					if name == "Hijack" {
						assert.ErrorIs(t, err, http.ErrHandlerTimeout)
					}
				case <-time.After(10 * time.Second):
					t.Fatal("the handler is still held")
				}
				require.NoError(t, c.SetReadDeadline(time.Now().Add(10*time.Second)))
				_, err = io.Copy(io.Discard, c)
				assert.NotErrorIs(t, err, os.ErrDeadlineExceeded, "the connection is closed")
			})
		}
	}
}

// A connection serves on after a timeout without a body.
func TestTimeoutKeepsTheConnection(t *testing.T) {
	t.Parallel()
	h := admit.Timeout(300 * time.Millisecond)(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/slow" {
			<-r.Context().Done()
			return
		}
		_, _ = io.Copy(w, r.Body)
	}))
	for _, wire := range plainWires {
		t.Run(wire, func(t *testing.T) {
			t.Parallel()
			c := dial(t, serve(t, wire, h))
			r := bufio.NewReader(c)
			for range 3 {
				_, err := io.WriteString(c, "GET /slow HTTP/1.1\r\nHost: x\r\n\r\n")
				require.NoError(t, err)
				res, _ := answerOn(t, r)
				require.Equal(t, 503, res.StatusCode)
				require.False(t, res.Close)
				_, err = io.WriteString(c, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\nbody")
				require.NoError(t, err)
				res, body := answerOn(t, r)
				require.Equal(t, 200, res.StatusCode)
				require.Equal(t, "body", body)
			}
		})
	}
}

// A handler that is late and has parsed a form leaves no file behind.
func TestTimeoutRemovesFilesOfALateForm(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var body strings.Builder
		mw := multipart.NewWriter(&body)
		part, err := mw.CreateFormFile("f", "f")
		require.NoError(t, err)
		_, err = part.Write(make([]byte, 1<<20))
		require.NoError(t, err)
		require.NoError(t, mw.Close())
		var name string
		h := admit.Timeout(time.Second)(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			assert.NoError(t, r.ParseMultipartForm(10))
			f, err := r.MultipartForm.File["f"][0].Open()
			if assert.NoError(t, err) {
				name = f.(*os.File).Name()
				assert.FileExists(t, name)
				_ = f.Close()
			}
			time.Sleep(2 * time.Second)
		}))
		refused(t, h, newRequest("POST", "/", body.String(), "Content-Type", mw.FormDataContentType()), 503)
		time.Sleep(time.Minute)
		synctest.Wait()
		assert.NoFileExists(t, name)
	})
}

// Nothing is left of many requests that time out, are cut or panic.
func TestTimeoutLeavesNoGoroutine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) { // fails by itself if a goroutine is left
		h := wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			switch r.URL.Path {
			case "/slow":
				<-r.Context().Done()
			case "/panic":
				panic("now")
			default:
				_, _ = io.WriteString(w, "fine")
			}
		}), (&admit.ErrorWriter{Logger: discardLogs}).Wrap, admit.Recover, admit.Timeout(time.Second))
		for _, path := range []string{"/slow", "/panic", "/"} {
			h.ServeHTTP(httptest.NewRecorder(), get(path))
		}
	})
}

func BenchmarkTimeout(b *testing.B) {
	for name, size := range map[string]int{"1KiB": 1 << 10, "1MiB": 1 << 20} {
		content := make([]byte, size)
		h := admit.Timeout(time.Minute)(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(content) }))
		w, r := newDiscard(), get("/")
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				h.ServeHTTP(w, r)
			}
		})
	}
}

// A handler that ends when its total does is answered or cut, and the next request on its
// connection is answered: over HTTP/2 a timer that came too late once ended the process, and
// over HTTP/1 it left a deadline in the past.
func TestTimeoutTotalAtTheEndOfTheHandler(t *testing.T) {
	t.Parallel()
	const total = 50 * time.Millisecond
	timeout, err := admit.NewHandlerTimeout(admit.HandlerTimeoutConfig{FirstByte: total, Total: total})
	require.NoError(t, err)
	h := http.NewServeMux()
	h.Handle("/first", timeout.Wrap(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		began := time.Now()
		_, _ = io.WriteString(w, "first")
		_ = http.NewResponseController(w).Flush()
		time.Sleep(total - time.Since(began) - 200*time.Microsecond + rand.N(400*time.Microsecond))
	})))
	h.HandleFunc("/next", func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "next") })
	for _, wire := range wires {
		t.Run(wire, func(t *testing.T) {
			t.Parallel()
			s := serve(t, wire, h)
			s.Client().Transport.(*http.Transport).MaxIdleConnsPerHost = 20
			var clients sync.WaitGroup
			for range 20 {
				clients.Go(func() {
					for range 10 {
						if res, err := s.Client().Get(s.URL + "/first"); err == nil {
							_, _ = io.Copy(io.Discard, res.Body) // whole, or cut
							_ = res.Body.Close()
						}
						res, err := s.Client().Get(s.URL + "/next")
						if !assert.NoError(t, err) {
							return
						}
						body, err := io.ReadAll(res.Body)
						_ = res.Body.Close()
						assert.NoError(t, err)
						assert.Equal(t, "next", string(body))
					}
				})
			}
			clients.Wait()
		})
	}
}

// Headers, 1xx and trailers come out of a Timeout as they do without it, set, changed or
// taken back.
func TestTimeoutSendsHeadersAsNetHTTPDoes(t *testing.T) {
	t.Parallel()
	mux := http.NewServeMux()
	mux.HandleFunc("/trailers", func(w http.ResponseWriter, _ *http.Request) {
		h := w.Header()
		h.Set("Trailer", "A, B, C")
		h.Set("C", "taken back")
		_ = http.NewResponseController(w).Flush()
		h.Set("A", "1")
		h.Set("B", "0")
		h.Del("C")
		h.Set("B", "2")
		h.Set("Trailer", "D")
		h.Set("D", "4")
		h.Set(http.TrailerPrefix+"E", "5")
		h.Set(http.TrailerPrefix+"F", "6")
		h.Del(http.TrailerPrefix + "F")
		h.Set("Late", "x")
	})
	mux.HandleFunc("/prefixed", func(w http.ResponseWriter, _ *http.Request) {
		h := w.Header()
		h.Set(http.TrailerPrefix+"A", "taken back")
		_ = http.NewResponseController(w).Flush()
		h.Del(http.TrailerPrefix + "A")
		h.Set(http.TrailerPrefix+"B", "2")
	})
	mux.HandleFunc("/more", func(w http.ResponseWriter, _ *http.Request) {
		for i := range 8 {
			w.Header().Add("X-Outside-"+strconv.Itoa(i), "more")
		}
	})
	mux.HandleFunc("/hints", func(w http.ResponseWriter, _ *http.Request) {
		h := w.Header()
		h.Del("X-Outside")
		h.Set("Link", "first")
		w.WriteHeader(http.StatusEarlyHints)
		h.Set("Link", "second")
		h.Set("X-More", "1")
		w.WriteHeader(http.StatusEarlyHints)
		h.Del("Link")
		h.Del("X-More")
		h.Set("X-Final", "1")
		_, _ = io.WriteString(w, "body")
	})
	around := func(next http.Handler) http.Handler {
		return outside(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			for i := range 8 {
				w.Header().Set("X-Outside-"+strconv.Itoa(i), strconv.Itoa(i))
			}
			next.ServeHTTP(w, r)
		}))
	}
	for _, wire := range wires {
		t.Run(wire, func(t *testing.T) {
			t.Parallel()
			bare, timed := serve(t, wire, around(mux)), serve(t, wire, around(admit.Timeout(time.Minute)(mux)))
			for range 30 { // by the order of a map, trailers once got lost
				for _, path := range []string{"/trailers", "/prefixed", "/more", "/hints"} {
					want, got := headersOf(t, bare, path), headersOf(t, timed, path)
					require.Equal(t, want, got, path)
				}
			}
			trailer := headersOf(t, timed, "/trailers").trailer
			assert.Equal(t, "2", trailer.Get("B"))
		})
	}
}

type sentHeaders struct {
	hints           []textproto.MIMEHeader
	header, trailer http.Header
}

// headersOf returns all headers of an answer, but its Date.
func headersOf(t testing.TB, s *httptest.Server, path string) (sent sentHeaders) {
	t.Helper()
	ctx := httptrace.WithClientTrace(t.Context(), &httptrace.ClientTrace{Got1xxResponse: func(_ int, h textproto.MIMEHeader) error {
		sent.hints = append(sent.hints, h)
		return nil
	}})
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, s.URL+path, nil)
	require.NoError(t, err)
	res, err := s.Client().Do(r)
	require.NoError(t, err)
	defer res.Body.Close()
	_, err = io.Copy(io.Discard, res.Body)
	require.NoError(t, err)
	res.Header.Del("Date")
	sent.header, sent.trailer = res.Header, res.Trailer
	return sent
}

// A refusal that goes to a writer of others, which throws it away, does not end the bound
// of the next try.
func TestTimeoutBoundsTheNextTry(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h := wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			fails(admit.NewError(409, "")).ServeHTTP(httptest.NewRecorder(), r)
			time.Sleep(time.Minute)
		}), new(admit.ErrorWriter).Wrap, admit.Timeout(time.Second))
		began := time.Now()
		refused(t, h, get("/"), 503)
		assert.Equal(t, time.Second, time.Since(began))
		time.Sleep(time.Hour)
	})
}

// A late handler reaches nothing, whichever way it has kept.
func TestTimeoutGivesNothingAway(t *testing.T) {
	t.Parallel()
	late := make(chan error, 1)
	var kept http.ResponseWriter
	w := httptest.NewRecorder()
	admit.Timeout(time.Hour)(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		kept = w
		_, _ = io.WriteString(w, "body")
	})).ServeHTTP(w, get("/"))
	_, err := io.WriteString(kept, "after the end")
	late <- err
	assert.ErrorIs(t, <-late, http.ErrHandlerTimeout)
	kept.Header().Set("X-Late", "1")
	assert.Equal(t, "body", w.Body.String())
	assert.NotContains(t, w.Header(), "X-Late")
}

// A late handler changes the URL or the header of its request in place, as ProxyHeaders of
// gorilla and others do; what observes the 503, or an access log, reads them. Needs -race.
func TestTimeoutDoesNotShareTheRequest(t *testing.T) {
	t.Parallel()
	observed := make(chan string, 1)
	ew := &admit.ErrorWriter{Observe: func(r *http.Request, _ *admit.Error) { observed <- r.URL.Path }}
	ended := make(chan struct{})
	h := wrap(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		defer close(ended)
		<-r.Context().Done()
		r.URL.Path = "/rewritten"
		r.Header.Set("X-Internal", "1")
	}), ew.Wrap, admit.Timeout(50*time.Millisecond))
	logs := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h.ServeHTTP(w, r)
		_ = r.Header.Get("Referer")
	})
	s := serve(t, testkit.HTTP1, logs)
	res, _ := testkit.Do(t, s, "GET", "/", "")
	assert.Equal(t, 503, res.StatusCode)
	assert.Equal(t, "/", <-observed)
	<-ended
}

// A handler that is late goes on with a request and a header of its own: the race detector
// is the judge.
func TestTimeoutSharesNothingWithALateHandler(t *testing.T) {
	t.Parallel()
	total, err := admit.NewHandlerTimeout(admit.HandlerTimeoutConfig{FirstByte: time.Second, Total: 2 * time.Second})
	require.NoError(t, err)
	for name, around := range map[string]admit.Middleware{
		"bare": total.Wrap, "in a chain": func(h http.Handler) http.Handler { return wrap(h, admit.RequestID, total.Wrap) },
	} {
		for _, begins := range []bool{false, true} {
			for _, method := range []string{"GET", "POST"} {
				synctest.Test(t, func(t *testing.T) {
					var late sync.WaitGroup
					late.Add(1)
					looked := make(chan struct{})
					h := around(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
						defer late.Done()
						w.Header().Set("X-Own", "own")
						if begins {
							_, _ = io.WriteString(w, "begun")
						}
						<-r.Context().Done()
						for range 2 { // before and after it has been looked at outside
							spoil(w.Header())
							w.Header().Set("X-Late", "1")
							r.Header.Set("X-Late", "1")
							r.URL.Path = "/late"
							n, _ := r.Body.Read(make([]byte, 1))
							assert.Zero(t, n)
							_ = r.Body.Close()
							<-looked
						}
					}))
					r := newRequest(method, "/", "", "X-Request-Id", "known", "X-Any", "any")
					source := &closes{Reader: strings.NewReader("body")}
					r.Body = source
					if method == "POST" {
						r.ContentLength = 4
					}
					w := httptest.NewRecorder()
					one, two := []string{"one"}, []string{"one", "two"}
					w.Header()["X-One"], w.Header()["X-Two"] = one, two
					func() {
						defer func() { assert.Equal(t, begins, recover() != nil) }()
						h.ServeHTTP(w, r)
					}()
					for range 3 {
						assert.Equal(t, [][]string{{"one"}, {"one", "two"}}, [][]string{one, two}, name)
						assert.Equal(t, "/", r.URL.Path, name)
						assert.Empty(t, r.Header.Get("X-Late"), name)
						assert.Empty(t, w.Header().Get("X-Late"), name)
						assert.Equal(t, begins, w.Header().Get("X-Own") == "own", name)
						synctest.Wait()
					}
					close(looked)
					late.Wait()
					assert.Zero(t, source.n, name)
				})
			}
		}
	}
}

// Nor does a late error that would cut the connection look at it: the guard is the judge.
func TestTimeoutLateErrorCutsNothing(t *testing.T) {
	t.Parallel()
	over, done := make(chan struct{}), make(chan struct{})
	h := testkit.Guard(t, admit.Timeout(time.Millisecond)(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer close(done)
		<-over
		admit.ProxyError(w, r, context.Canceled)
	})))
	refused(t, h, get("/"), 503)
	close(over)
	<-done
}

// slowly is a body of n bytes, one each so often.
func slowly(n int, every time.Duration) io.Reader {
	left := n
	return readerFunc(func(p []byte) (int, error) {
		if left == 0 {
			return 0, io.EOF
		}
		time.Sleep(every)
		left--
		p[0] = 'x'
		return 1, nil
	})
}

// The time of a handler is its own: that of its client is bounded by a Max, or counts.
func TestTimeoutAndASlowBody(t *testing.T) {
	t.Parallel()
	second := time.Second
	for name, test := range map[string]struct {
		body   admit.BodyTimeout
		total  time.Duration
		upload time.Duration
		works  time.Duration // then
		status int
		after  time.Duration
	}{
		"slow and steady":     {admit.BodyTimeout{Grace: second, Max: 3 * second, MinRate: 5}, 0, 1600 * time.Millisecond, 0, 200, 1600 * time.Millisecond},
		"then works":          {admit.BodyTimeout{Grace: second, Max: 3 * second}, 0, 1600 * time.Millisecond, 900 * time.Millisecond, 200, 2500 * time.Millisecond},
		"then works too long": {admit.BodyTimeout{Grace: second, Max: 3 * second}, 0, 1600 * time.Millisecond, 5 * second, 503, 2600 * time.Millisecond},
		"too slow":            {admit.BodyTimeout{Grace: second, Max: 3 * second}, 0, 5 * second, 0, 408, 3 * second},
		"too slow, Total":     {admit.BodyTimeout{Grace: second, Max: 3 * second}, 2 * second, 5 * second, 0, 503, 2 * second},
		"without a Max":       {admit.BodyTimeout{Grace: second}, 0, 1600 * time.Millisecond, 0, 503, second},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				timeout, err := admit.NewHandlerTimeout(admit.HandlerTimeoutConfig{FirstByte: second, Total: test.total})
				require.NoError(t, err)
				h := admit.Policy{BodyTimeout: test.body, HandlerTimeout: timeout}.Wrap(admit.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) error {
					if _, err := io.Copy(io.Discard, r.Body); err != nil {
						return err
					}
					time.Sleep(test.works)
					return nil
				}))
				began := time.Now()
				r := httptest.NewRequest("POST", "/", slowly(int(test.upload/(100*time.Millisecond)), 100*time.Millisecond))
				assert.Equal(t, test.status, status(h, r))
				assert.InDelta(t, test.after, time.Since(began), float64(100*time.Millisecond))
				time.Sleep(time.Minute)
			})
		})
	}
}

func TestTimeoutOverTheWireAndASlowBody(t *testing.T) {
	t.Parallel()
	for _, wire := range wires {
		t.Run(wire, func(t *testing.T) {
			t.Parallel()
			h := admit.Policy{
				BodyTimeout: admit.BodyTimeout{Grace: 5 * time.Second, Max: 30 * time.Second, MinRate: 10}, Timeout: 500 * time.Millisecond,
			}.Wrap(readAll(0))
			s := serve(t, wire, h)
			r, err := http.NewRequestWithContext(t.Context(), "POST", s.URL, slowly(15, 100*time.Millisecond))
			require.NoError(t, err)
			res, err := s.Client().Do(r)
			require.NoError(t, err)
			require.NoError(t, res.Body.Close())
			assert.Equal(t, 200, res.StatusCode)
		})
	}
}

// Where the handler's client is waited for, the deadline moves on, and never back.
func TestTimeoutDeadline(t *testing.T) {
	t.Parallel()
	for _, total := range []time.Duration{0, time.Minute} {
		synctest.Test(t, func(t *testing.T) {
			timeout, err := admit.NewHandlerTimeout(admit.HandlerTimeoutConfig{FirstByte: time.Second, Total: total})
			require.NoError(t, err)
			began := time.Now()
			in := func(r *http.Request) time.Duration {
				deadline, bounded := r.Context().Deadline()
				if !bounded {
					return -1
				}
				return deadline.Sub(began)
			}
			h := wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				assert.Equal(t, time.Second, in(r))
				_, err := io.Copy(io.Discard, r.Body)
				assert.NoError(t, err)
				assert.Equal(t, 1700*time.Millisecond, in(r))
				time.Sleep(100 * time.Millisecond)
				assert.Equal(t, 1700*time.Millisecond, in(r))
				assert.NoError(t, http.NewResponseController(w).Flush())
				if total == 0 {
					total = -1
				}
				assert.Equal(t, total, in(r))
				assert.True(t, admit.StopTimeout(r.Context()))
				assert.EqualValues(t, -1, in(r))
			}), admit.BodyTimeout{Grace: time.Second, Max: time.Minute}.Wrap, timeout.Wrap)
			h.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("POST", "/", slowly(7, 100*time.Millisecond)))

			ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
			defer cancel()
			began = time.Now()
			timeout.Wrap(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
				assert.Equal(t, 500*time.Millisecond, in(r), "that of the request is earlier")
			})).ServeHTTP(httptest.NewRecorder(), get("/").WithContext(ctx))
		})
	}
}

// What ends the context of a handler: its time, or its client.
func TestTimeoutContextErr(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		for _, outer := range []bool{false, true} {
			for want, end := range map[error]time.Duration{context.DeadlineExceeded: time.Hour, context.Canceled: time.Millisecond} {
				ended := make(chan struct{})
				wrapper := admit.Timeout(time.Second)
				if outer {
					wrapper = func(h http.Handler) http.Handler { return admit.Timeout(time.Second)(admit.Timeout(time.Minute)(h)) }
				}
				h := wrapper(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
					defer close(ended)
					assert.NoError(t, r.Context().Err())
					derived, cancel := context.WithCancel(r.Context())
					defer cancel()
					valued := context.WithValue(r.Context(), http.ServerContextKey, nil)
					<-derived.Done()
					assert.Equal(t, want, r.Context().Err())
					assert.Equal(t, want, valued.Err())
					assert.Equal(t, want, context.Cause(derived))
				}))
				ctx, cancel := context.WithCancel(t.Context())
				time.AfterFunc(end, cancel)
				h.ServeHTTP(httptest.NewRecorder(), get("/").WithContext(ctx))
				<-ended
			}
		}
		time.Sleep(time.Hour)
	})
}

// It is the same with a context of others between two Timeouts, and for who has not waited.
func TestTimeoutContextErrThroughOthers(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		between := func(h http.Handler) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				ctx, cancel := context.WithCancel(r.Context())
				defer cancel()
				h.ServeHTTP(w, r.WithContext(ctx))
			})
		}
		h := wrap(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			time.Sleep(2 * time.Second)
			assert.Equal(t, context.DeadlineExceeded, r.Context().Err())
			<-r.Context().Done()
			assert.Equal(t, context.DeadlineExceeded, r.Context().Err())
		}), admit.Timeout(time.Second), between, admit.Timeout(time.Minute))
		refused(t, h, get("/"), 503)
		time.Sleep(time.Hour)
	})
}

// An answer that goes to a writer of others, which takes longer than the time, does not end the
// bound of what comes after it.
func TestTimeoutBoundsWhatFollowsAnAnswer(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		h := admit.Timeout(time.Second)(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			admit.WriteError(slowWriter{httptest.NewRecorder(), 2 * time.Second}, r, admit.NewError(409, ""))
			time.Sleep(time.Hour)
		}))
		refused(t, h, get("/"), 503)
		assert.Equal(t, 2*time.Second, time.Since(began))
		time.Sleep(time.Hour)
	})
}

type slowWriter struct {
	http.ResponseWriter
	takes time.Duration
}

func (w slowWriter) WriteHeader(status int) {
	time.Sleep(w.takes)
	w.ResponseWriter.WriteHeader(status)
}

// A request that is over leaves nothing: its context ends, though nobody waited for it, and no
// timer holds what it had.
func TestTimeoutEndsWithItsHandler(t *testing.T) {
	t.Parallel()
	timeout, err := admit.NewHandlerTimeout(admit.HandlerTimeoutConfig{FirstByte: time.Hour, Total: 2 * time.Hour})
	require.NoError(t, err)
	for name, end := range map[string]func(http.ResponseWriter){
		"with an answer": func(w http.ResponseWriter) { _, _ = io.WriteString(w, "begun") },
		"with none":      func(http.ResponseWriter) {},
		"in a panic":     func(http.ResponseWriter) { panic(http.ErrAbortHandler) },
	} {
		freed := make(chan struct{})
		func() {
			defer func() { _ = recover() }()
			held := new([1 << 10]byte)
			runtime.AddCleanup(held, func(freed chan struct{}) { close(freed) }, freed)
			r := get("/").WithContext(context.WithValue(t.Context(), heldKey{}, held))
			var inner, derived context.Context
			defer func() {
				assert.Equal(t, context.Canceled, inner.Err(), name)
				assert.Equal(t, context.Canceled, derived.Err(), name)
			}()
			wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				inner = r.Context()
				derived = context.WithValue(inner, heldKey{}, nil)
				end(w)
			}), admit.RequestID, timeout.Wrap).ServeHTTP(httptest.NewRecorder(), r)
		}()
		for range 20 {
			runtime.GC()
		}
		select {
		case <-freed:
		case <-time.After(10 * time.Second):
			t.Error("something still has the request that ended " + name)
		}
	}
}

type heldKey struct{}

// What a wrapper has waited for before is not the handler's to spend.
func TestTimeoutAfterABodyThatWasRead(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		reads := func(next http.Handler) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				_, _ = io.Copy(io.Discard, r.Body)
				next.ServeHTTP(w, r)
			})
		}
		h := wrap(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { time.Sleep(time.Minute) }),
			admit.BodyTimeout{Grace: time.Second, Max: 3 * time.Second}.Wrap, reads, admit.Timeout(time.Second))
		began := time.Now()
		refused(t, h, httptest.NewRequest("POST", "/", slowly(20, 100*time.Millisecond)), 503)
		assert.Equal(t, 3*time.Second, time.Since(began))
		time.Sleep(time.Minute)
	})
}

// What stands outside may panic before the handler has begun.
func TestTimeoutPassesOnAPanicBeforeTheHandler(t *testing.T) {
	t.Parallel()
	h := admit.Timeout(time.Second)(ok)
	assert.PanicsWithValue(t, "no header", func() { h.ServeHTTP(headless{httptest.NewRecorder()}, get("/")) })
}

type headless struct{ http.ResponseWriter }

func (headless) Header() http.Header { panic("no header") }

// The server reads what is left of a body when it cuts a connection, and does so for as long as the
// client likes.
func TestCutOfAnUploadThatStalls(t *testing.T) {
	t.Parallel()
	timeout, err := admit.NewHandlerTimeout(admit.HandlerTimeoutConfig{FirstByte: time.Second, Total: time.Second})
	require.NoError(t, err)
	for name, h := range map[string]http.Handler{
		"Total": timeout.Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Connection", "close") // else the server reads the body before it answers
			_ = http.NewResponseController(w).Flush()
			<-r.Context().Done()
		})),
		"BodyTimeout": admit.BodyTimeout{Grace: time.Second}.Wrap(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
			panic(http.ErrAbortHandler)
		})),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				c := servePipe(t, h)
				began := time.Now()
				go func() {
					_, _ = io.WriteString(c.client, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\npart")
				}()
				require.NoError(t, c.client.SetReadDeadline(time.Now().Add(time.Minute)))
				_, err := io.Copy(io.Discard, c.client)
				require.NoError(t, err, "the server closes")
				assert.Equal(t, time.Second, time.Since(began))
				require.NoError(t, c.client.Close())
			})
		})
	}
}

// A client that stalls in the middle of its body holds its connection no longer than the handler:
// net/http would wait for the rest of the body without a deadline if the Read of the late handler
// ended after ServeHTTP.
func TestTimeoutHoldsNoConnection(t *testing.T) {
	t.Parallel()
	read := admit.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) error {
		_, err := io.Copy(io.Discard, r.Body)
		return err
	})
	begins := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_ = http.NewResponseController(w).EnableFullDuplex()
		_, _ = io.WriteString(w, "a part")
		_ = http.NewResponseController(w).Flush()
		_, _ = io.Copy(io.Discard, r.Body)
	})
	elsewhere := http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		body, reads := r.Body, make(chan bool)
		go func() {
			close(reads)
			_, _ = io.Copy(io.Discard, body)
		}()
		<-reads
	})
	errs := &admit.ErrorWriter{Logger: slog.New(slog.DiscardHandler)}
	total, err := admit.NewHandlerTimeout(admit.HandlerTimeoutConfig{FirstByte: 50 * time.Millisecond, Total: 50 * time.Millisecond})
	require.NoError(t, err)
	for name, h := range map[string]http.Handler{
		"Timeout":                   admit.Policy{Errors: errs, Timeout: 50 * time.Millisecond}.Wrap(read),
		"Timeout, BodyTimeout":      admit.Policy{Errors: errs, Timeout: 50 * time.Millisecond, BodyTimeout: admit.BodyTimeout{Grace: time.Hour}}.Wrap(read),
		"BodyTimeout outside":       admit.Policy{Errors: errs, BodyTimeout: admit.BodyTimeout{Grace: time.Hour}}.Wrap(admit.Policy{Timeout: 50 * time.Millisecond}.Wrap(read)),
		"Total":                     admit.Policy{Errors: errs, HandlerTimeout: total}.Wrap(begins),
		"BodyTimeout":               admit.Policy{Errors: errs, BodyTimeout: admit.BodyTimeout{Grace: 50 * time.Millisecond}}.Wrap(read),
		"Read in another goroutine": admit.Policy{Errors: errs, MaxBody: 1 << 20}.Wrap(elsewhere),
	} {
		for _, wire := range testkit.PlainWires {
			t.Run(name+"/"+wire, func(t *testing.T) {
				t.Parallel()
				s := serve(t, wire, h)
				var all sync.WaitGroup
				for range 20 {
					c := testkit.Dial(t, s) // whose deadline is 20 s
					all.Go(func() {
						_, err := io.WriteString(c, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n12345")
						assert.NoError(t, err)
						_, err = io.Copy(io.Discard, c)
						assert.NotErrorIs(t, err, os.ErrDeadlineExceeded, "the connection is held")
					})
				}
				all.Wait()
			})
		}
	}
}

// A late handler may change the header of its request while the chain ends.
func TestLateHandlerChangesItsHeaderBesideABodyTimeout(t *testing.T) {
	t.Parallel()
	ended := make(chan bool)
	auth, err := admit.NewAuth(admit.AuthConfig{Store: oneKey})
	require.NoError(t, err)
	h := admit.Policy{Auth: auth, BodyTimeout: admit.BodyTimeout{Grace: time.Second}, Timeout: 20 * time.Millisecond}.Wrap(
		http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			defer close(ended)
			for until := time.Now().Add(100 * time.Millisecond); time.Now().Before(until); {
				r.Header.Set("Expect", "a change")
				r.Header.Del("Expect")
			}
		}))
	res, _ := testkit.Do(t, serve(t, testkit.HTTP1, h), http.MethodPost, "/", "a body", "X-API-Key", "good")
	assert.Equal(t, http.StatusServiceUnavailable, res.StatusCode)
	<-ended
}
