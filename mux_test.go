package admit_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
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

func TestMux(t *testing.T) {
	t.Parallel()
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v1/items/{id}", func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, r.PathValue("id")+" "+r.Pattern)
	})
	mux.HandleFunc("DELETE /v1/items/{id}", func(w http.ResponseWriter, _ *http.Request) {
		http.Error(w, "a text of the handler's own", http.StatusNotFound)
	})
	mux.HandleFunc("/tree/", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusTeapot) })
	h := admit.Mux(mux)

	w := httptest.NewRecorder()
	h.ServeHTTP(w, get("/v1/items/7"))
	assert.Equal(t, "7 GET /v1/items/{id}", w.Body.String())

	e, _ := refused(t, h, get("/nowhere"), 404)
	assert.Equal(t, "not_found", e.Code)

	e, header := refused(t, h, newRequest("POST", "/v1/items/7", "x"), 405)
	assert.Equal(t, "method_not_allowed", e.Code)
	assert.Equal(t, "DELETE, GET, HEAD", header.Get("Allow"))

	for _, path := range []string{"/tree", "//tree/a", "/v1/../v1/items/7"} {
		w = httptest.NewRecorder()
		h.ServeHTTP(w, get(path))
		assert.Equal(t, 3, w.Code/100, "%s: %d", path, w.Code)
		assert.NotEmpty(t, w.Header().Get("Location"))
		assert.NotContains(t, w.Body.String(), `"result"`)
	}

	w = httptest.NewRecorder()
	h.ServeHTTP(w, newRequest("DELETE", "/v1/items/7", ""))
	assert.Equal(t, "a text of the handler's own\n", w.Body.String(), "handlers are left alone")
	w = httptest.NewRecorder()
	h.ServeHTTP(w, get("/tree/x"))
	assert.Equal(t, http.StatusTeapot, w.Code)
	assert.Empty(t, w.Body.String())
}

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

func TestMuxInsideAMux(t *testing.T) {
	t.Parallel()
	inner := http.NewServeMux()
	inner.HandleFunc("GET /a", func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, r.Pattern) })
	outer := http.NewServeMux()
	outer.Handle("/v1/", http.StripPrefix("/v1", admit.Mux(inner)))
	h := admit.Mux(outer)
	refused(t, h, get("/v1/b"), 404)
	refused(t, h, get("/b"), 404)
	allowed(t, h, get("/v1/a"))
}

func TestIntercept(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		handler   http.HandlerFunc
		status    int
		code      string // "": untouched
		untouched string
	}{
		"http.Error": {func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "secret", http.StatusConflict) }, 409, "conflict", ""},
		"no type":    {func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(503) }, 503, "unavailable", ""},
		"type in capitals": {func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "Text/Plain ; charset=utf-8")
			w.WriteHeader(400)
			_, _ = io.WriteString(w, "secret")
			_, _ = io.Copy(w, strings.NewReader("secret"))
			w.(http.Flusher).Flush()
			w.WriteHeader(200)
		}, 400, "bad_request", ""},
		"JSON of its own": {func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(400)
			_, _ = io.WriteString(w, `{"mine":true}`)
		}, 400, "", `{"mine":true}`},
		"a page of its own": {func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "text/html")
			w.WriteHeader(404)
			_, _ = io.WriteString(w, "<p>gone")
		}, 404, "", "<p>gone"},
		"an answer in text": {func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "text/plain")
			_, _ = io.WriteString(w, "fine")
		}, 200, "", "fine"},
		"a redirect":            {func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/there", http.StatusFound) }, 302, "", "<a href=\"/there\">Found</a>.\n\n"},
		"a status from nowhere": {func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(700) }, 700, "", ""},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := httptest.NewRecorder()
			admit.Intercept(test.handler).ServeHTTP(w, get("/"))
			require.Equal(t, test.status, w.Code)
			if test.code == "" {
				assert.Equal(t, test.untouched, w.Body.String())
				return
			}
			assert.Equal(t, test.code, readEnvelope(t, w.Code, w.Header(), w.Body.Bytes()).Code)
			assert.NotContains(t, w.Body.String(), "secret")
		})
	}
}

func TestInterceptKeepsAndDropsHeaders(t *testing.T) {
	t.Parallel()
	h := admit.Intercept(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Encoding", "gzip")
		w.Header().Set("Content-Range", "bytes */100")
		w.Header().Set("Retry-After", "7")
		w.Header().Set("WWW-Authenticate", "Bearer")
		http.Error(w, "compressed text", http.StatusRequestedRangeNotSatisfiable)
	}))
	e, header := refused(t, h, get("/"), http.StatusRequestedRangeNotSatisfiable)
	assert.Equal(t, "requested_range_not_satisfiable", e.Code)
	assert.NotContains(t, header, "Content-Encoding", "it was that of the text")
	assert.Equal(t, "bytes */100", header.Get("Content-Range"), "416 tells the length by it")
	assert.Equal(t, "7", header.Get("Retry-After"))
	assert.Equal(t, "Bearer", header.Get("Www-Authenticate"))

	w := httptest.NewRecorder()
	w.Header().Set("Content-Encoding", "br") // a compressor outside
	admit.Intercept(answer(404)).ServeHTTP(w, get("/"))
	assert.Equal(t, "br", w.Header().Get("Content-Encoding"))
}

func TestInterceptLogsTheTextOfA5xx(t *testing.T) {
	t.Parallel()
	logger, log := logged()
	ew := &admit.ErrorWriter{Logger: logger}
	text := func(status int, write func(http.ResponseWriter, string)) http.Handler {
		return ew.Wrap(admit.Intercept(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(status)
			write(w, "dial tcp: "+strings.Repeat("x", 2000))
			write(w, "second")
		})))
	}
	asBytes := func(w http.ResponseWriter, s string) { _, _ = w.Write([]byte(s)) }
	asString := func(w http.ResponseWriter, s string) { _, _ = io.WriteString(w, s) }
	refused(t, text(404, asBytes), get("/"), 404)
	assert.Empty(t, log.String())
	refused(t, text(500, asBytes), get("/"), 500)
	refused(t, text(500, asString), get("/"), 500)
	assert.Equal(t, 2, strings.Count(log.String(), "dial tcp"))
	assert.NotContains(t, log.String(), "second")
	assert.Less(t, len(log.String()), 2000)
}

func TestInterceptLetsStreamsThrough(t *testing.T) {
	t.Parallel()
	read := make(chan struct{})
	s := serve(t, "HTTP/1.1", admit.Intercept(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		_, _ = io.WriteString(w, "data: 1\n\n")
		w.(http.Flusher).Flush()
		<-read // the first event has arrived before the second exists
		_, _ = io.WriteString(w, "data: 2\n\n")
	})))
	res, err := s.Client().Get(s.URL)
	require.NoError(t, err)
	defer res.Body.Close()
	first := make([]byte, len("data: 1\n\n"))
	_, err = io.ReadFull(res.Body, first)
	close(read)
	require.NoError(t, err)
	rest, err := io.ReadAll(res.Body)
	require.NoError(t, err)
	assert.Equal(t, "data: 1\n\ndata: 2\n\n", string(first)+string(rest))
}

func TestNotFoundAndMethodNotAllowed(t *testing.T) {
	t.Parallel()
	e, _ := refused(t, http.HandlerFunc(admit.NotFound), get("/"), 404)
	assert.Equal(t, "not_found", e.Code)
	e, header := refused(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Allow", "GET")
		admit.MethodNotAllowed(w, r)
	}), get("/"), 405)
	assert.Equal(t, "method_not_allowed", e.Code)
	assert.Equal(t, "GET", header.Get("Allow"))
}

func TestProxyError(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		err    error
		status int
	}{
		"refused":           {&net.OpError{Op: "dial", Err: errors.New("connection refused")}, 502},
		"cut":               {io.ErrUnexpectedEOF, 502},
		"not in time":       {fmt.Errorf("round trip: %w", context.DeadlineExceeded), 504},
		"socket deadline":   {&net.OpError{Op: "read", Err: os.ErrDeadlineExceeded}, 504},
		"body too large":    {fmt.Errorf("copy: %w", &http.MaxBytesError{}), 413},
		"body did not come": {fmt.Errorf("copy: %w", admit.NewError(408, "")), 408},
		"a cancel inside":   {context.Canceled, 502},
	} {
		e, _ := refused(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			admit.ProxyError(w, r, test.err)
		}), get("/"), test.status)
		assert.NotContains(t, e.Message, "refused", name)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	w := httptest.NewRecorder()
	admit.ProxyError(w, get("/").WithContext(ctx), context.Canceled)
	assert.Empty(t, w.Header(), "the client is gone")
}

// An Encode that says text/plain, inside Intercept: the error is observed once.
func TestInterceptLeavesErrorsInText(t *testing.T) {
	t.Parallel()
	var observed atomic.Int32
	ew := &admit.ErrorWriter{
		Observe: func(*http.Request, *admit.Error) { observed.Add(1) },
		Encode:  func(_ *http.Request, e *admit.Error) (string, []byte) { return "text/plain", []byte(e.Code) },
	}
	w := httptest.NewRecorder()
	wrap(fails(admit.NewError(409, "")), ew.Wrap, admit.Intercept).ServeHTTP(w, get("/"))
	assert.Equal(t, 409, w.Code)
	assert.EqualValues(t, 1, observed.Load())
}
