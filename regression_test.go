package admit_test

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"mime/multipart"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
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

// What a review has broken once: each test is a way in which it did.

// A proxy sees a stalled upload as a cancelled context.
func TestStalledUploadThroughAProxy(t *testing.T) {
	t.Parallel()
	upstream := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { _, _ = io.Copy(io.Discard, r.Body) }))
	t.Cleanup(upstream.Close)
	target, err := url.Parse(upstream.URL)
	require.NoError(t, err)
	proxy := &httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) { r.SetURL(target) }, ErrorHandler: admit.ProxyError}
	h := admit.Policy{Errors: new(admit.ErrorWriter), BodyTimeout: admit.BodyTimeout{Grace: 100 * time.Millisecond}, Timeout: 5 * time.Second}.Wrap(proxy)
	for _, wire := range wires {
		for _, length := range []int64{1000, -1} {
			t.Run(fmt.Sprint(wire, length), func(t *testing.T) {
				t.Parallel()
				res, body, _ := stalledUpload(t, serve(t, wire, h), "/", length)
				assert.Equal(t, 408, res.StatusCode, body)
			})
		}
	}
}

// A client that has closed its half is taken for one that is gone, but does not get a
// success.
func TestHalfClosedClientGetsNoSuccess(t *testing.T) {
	t.Parallel()
	s := serve(t, "HTTP/1.1", wrap(admit.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) error {
		<-r.Context().Done()
		return r.Context().Err()
	}), new(admit.ErrorWriter).Wrap, admit.Recover))
	c := dial(t, s)
	_, err := io.WriteString(c, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
	require.NoError(t, err)
	require.NoError(t, c.(*net.TCPConn).CloseWrite())
	answer, _ := io.ReadAll(c)
	assert.Empty(t, string(answer))
}

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

func TestLateErrorThroughMux(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		var observed []string
		ew := &admit.ErrorWriter{Logger: discardLogs, Observe: func(_ *http.Request, e *admit.Error) {
			mu.Lock()
			defer mu.Unlock()
			observed = append(observed, e.Code)
		}}
		mux := http.NewServeMux()
		mux.Handle("/", admit.Intercept(admit.HandlerFunc(func(http.ResponseWriter, *http.Request) error {
			time.Sleep(2 * time.Second)
			return errors.New("late")
		})))
		refused(t, admit.Policy{Errors: ew, Timeout: time.Second}.Wrap(admit.Mux(mux)), get("/"), 503)
		time.Sleep(time.Minute)
		synctest.Wait()
		assert.Equal(t, []string{"handler_timeout"}, observed)
	})
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
	assert.Equal(t, 1, strings.Count(log.String(), "no Unwrap"))
	logger, log = logged()
	h = wrap(ok, (&admit.ErrorWriter{Logger: logger}).Wrap, admit.BodyTimeout{Grace: time.Second}.Wrap)
	do(t, serve(t, "HTTP/1.1", h), "POST", "/", "body")
	assert.Empty(t, log.String())
}

// A Recover outside of an ErrorWriter does not write as the one inside does.
func TestErrorWriterDoesNotReachOutside(t *testing.T) {
	t.Parallel()
	inner := &admit.ErrorWriter{Encode: func(*http.Request, *admit.Error) (string, []byte) { return "text/inner", nil }}
	w := httptest.NewRecorder()
	wrap(panics("x"), admit.RequestID, admit.Recover, inner.Wrap).ServeHTTP(w, get("/"))
	readEnvelope(t, w.Code, w.Header(), w.Body.Bytes())
}

// A part that a writer between holds back is not mixed with an error.
func TestErrorAfterABufferedPart(t *testing.T) {
	t.Parallel()
	h := wrap(admit.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) error {
		_, _ = io.WriteString(w, `{"rows":[1,2,3`)
		return errors.New("the fourth")
	}), new(admit.ErrorWriter).Wrap, admit.Recover, func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			b := &buffering{ResponseWriter: w}
			next.ServeHTTP(b, r)
			_, _ = w.Write(b.b.Bytes())
		})
	})
	w := httptest.NewRecorder()
	assert.PanicsWithValue(t, http.ErrAbortHandler, func() { h.ServeHTTP(w, get("/")) })
	assert.Zero(t, w.Body.Len())
}

type buffering struct {
	http.ResponseWriter
	b bytes.Buffer
}

func (b *buffering) Write(p []byte) (int, error) { return b.b.Write(p) }
func (b *buffering) Unwrap() http.ResponseWriter { return b.ResponseWriter }

// One Auth in a Policy inside another that has it too: the credential is gone there,
// and the caller known.
func TestSameAuthTwice(t *testing.T) {
	t.Parallel()
	a := newAuth(t, admit.AuthConfig{})
	h := wrap(ok, a.Wrap, a.Wrap)
	allowed(t, h, get("/", "X-API-Key", "good"))
	refused(t, h, get("/"), 401)
	refused(t, h, get("/", "X-API-Key", "bad"), 401)
	other := newAuth(t, admit.AuthConfig{})
	refused(t, wrap(ok, a.Wrap, other.Wrap), get("/", "X-API-Key", "good"), 401)
}

func TestOptionalAuthWithScopesDoesNotBuild(t *testing.T) {
	t.Parallel()
	a := newAuth(t, admit.AuthConfig{Optional: true})
	_, err := admit.Policy{Auth: a, Scopes: []string{"x"}}.Chain()
	assert.ErrorContains(t, err, "optional")
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

// An error after the whole body has been read keeps the connection, Expect or not.
func TestExpectContinueAfterTheBody(t *testing.T) {
	t.Parallel()
	h := wrap(admit.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) error {
		_, err := admit.Decode[int](r)
		return err
	}), new(admit.ErrorWriter).Wrap, admit.MaxBody(100))
	c := dial(t, serve(t, "HTTP/1.1", h))
	r := bufio.NewReader(c)
	for range 2 {
		_, err := io.WriteString(c, "POST / HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n")
		require.NoError(t, err)
		line, err := r.ReadString('\n')
		require.NoError(t, err)
		assert.Equal(t, "HTTP/1.1 100 Continue\r\n", line)
		_, err = r.ReadString('\n')
		require.NoError(t, err)
		_, err = io.WriteString(c, `"x"`)
		require.NoError(t, err)
		res, _ := answerOn(t, r)
		require.Equal(t, 422, res.StatusCode)
		require.False(t, res.Close)
	}
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

func TestInterceptReadsRetryAfter(t *testing.T) {
	t.Parallel()
	e, header := refused(t, admit.Intercept(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Retry-After", "7")
		w.Header().Set("Content-Disposition", `attachment; filename="report.csv"`)
		http.Error(w, "later", http.StatusServiceUnavailable)
	})), get("/"), 503)
	assert.EqualValues(t, 7, e.RetryAfter)
	assert.Equal(t, "7", header.Get("Retry-After"))
	assert.NotContains(t, header, "Content-Disposition", "an error is no report.csv")
}
