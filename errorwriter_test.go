package admit_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/iotest"
	"time"
	"unicode/utf8"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/admit-go/admit"
)

// fails is a handler that ends in err.
func fails(err error) http.Handler {
	return admit.HandlerFunc(func(http.ResponseWriter, *http.Request) error { return err })
}

func TestCodeAndMessageFollowFromStatus(t *testing.T) {
	t.Parallel()
	codes := map[int]string{
		400: "bad_request", 401: "unauthorized", 402: "payment_required", 403: "forbidden", 404: "not_found",
		405: "method_not_allowed", 406: "not_acceptable", 408: "request_timeout", 409: "conflict",
		413: "body_too_large", 415: "unsupported_media_type", 422: "unprocessable", 429: "too_many_requests",
		500: "internal", 501: "not_implemented", 502: "bad_gateway", 503: "unavailable", 504: "gateway_timeout",
		// Not in the contract: the name of the status.
		410: "gone", 412: "precondition_failed", 418: "im_a_teapot", 499: "error",
	}
	for status, code := range codes {
		e, _ := refused(t, fails(admit.NewError(status, "")), get("/"), status)
		assert.Equal(t, code, e.Code, "status %d", status)
		e, _ = refused(t, fails(admit.NewError(status, "Another message.")), get("/"), status)
		assert.Equal(t, "Another message.", e.Message)
		e, _ = refused(t, fails(&admit.Error{Status: status}), get("/"), status)
		assert.Equal(t, code, e.Code, "a literal with status %d", status)
	}
	for _, status := range []int{-1, 0, 200, 302, 399, 600} {
		assert.Panics(t, func() { admit.NewError(status, "") }, "status %d", status)
		refused(t, fails(&admit.Error{Status: status, Message: "x"}), get("/"), http.StatusInternalServerError)
	}
}

func TestErrorIsAndUnwrap(t *testing.T) {
	t.Parallel()
	sentinel := admit.NewError(http.StatusConflict, "Two users match.")
	other := admit.NewError(http.StatusConflict, "Two users match.")
	cause := errors.New("row 7")
	once := sentinel.WithCause(cause)
	twice := once.WithCause(io.EOF)

	assert.ErrorIs(t, once, sentinel)
	assert.ErrorIs(t, once, cause)
	assert.ErrorIs(t, twice, sentinel)
	assert.ErrorIs(t, twice, once)
	assert.ErrorIs(t, fmt.Errorf("wrapped: %w", once), sentinel)
	assert.NotErrorIs(t, sentinel, once)
	assert.NotErrorIs(t, other, sentinel)
	assert.NoError(t, sentinel.Unwrap(), "the sentinel stays as it is")
	assert.EqualError(t, once, "admit: 409 conflict: Two users match.: row 7")
	assert.EqualError(t, &admit.Error{}, "admit: 500 internal: Something went wrong on our side.")
}

func TestBlame(t *testing.T) {
	t.Parallel()
	conflict := admit.NewError(http.StatusConflict, "")
	var typedNil *admit.Error
	tests := map[string]struct {
		err    error
		status int
	}{
		"an Error":                           {conflict, 409},
		"an Error in a chain":                {fmt.Errorf("place order: %w", conflict), 409},
		"a joined Error":                     {errors.Join(io.EOF, conflict), 409},
		"a body over its bound":              {fmt.Errorf("read: %w", &http.MaxBytesError{Limit: 3}), 413},
		"a deadline":                         {fmt.Errorf("query: %w", context.DeadlineExceeded), 503},
		"the EOF of an upstream":             {io.EOF, 500},
		"the cut of an upstream":             {io.ErrUnexpectedEOF, 500},
		"the socket deadline of an upstream": {os.ErrDeadlineExceeded, 500},
		"a cancel of the handler's own":      {context.Canceled, 500},
		"an Error that is nil":               {typedNil, 500},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			logger, log := logged()
			h := (&admit.ErrorWriter{Logger: logger}).Wrap(fails(test.err))
			e, _ := refused(t, h, get("/"), test.status)
			if test.status == 500 {
				assert.Equal(t, "Something went wrong on our side.", e.Message)
			}
			if test.status >= 500 {
				assert.Contains(t, log.String(), "a request failed")
			} else {
				assert.Empty(t, log.String())
			}
		})
	}
}

func TestWriteErrorNil(t *testing.T) {
	t.Parallel()
	h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { admit.WriteError(w, r, nil) })
	logger, log := logged()
	refused(t, (&admit.ErrorWriter{Logger: logger}).Wrap(h), get("/"), 500)
	assert.Contains(t, log.String(), "a request failed")
}

// What a client that has left makes fail is no failure of the service: nothing is observed or
// written, and no alarm goes off, whether the handler returns the error or panics with it.
func TestClientGone(t *testing.T) {
	t.Parallel()
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	write := &net.OpError{Op: "write", Err: syscall.EPIPE}
	for name, test := range map[string]struct {
		err  error
		ctx  context.Context
		gone bool
	}{
		"the context":                     {context.Canceled, ended, true},
		"a write":                         {write, ended, true},
		"another error":                   {errors.New("no such table"), ended, false},
		"a bug":                           {runtimeError(), ended, false},
		"a cancel of the handler's own":   {context.Canceled, t.Context(), false},
		"a connection of the handler's":   {write, t.Context(), false},
		"a deadline of the handler's own": {context.DeadlineExceeded, ended, false},
	} {
		err := fmt.Errorf("query: %w", test.err)
		for how, h := range map[string]http.Handler{"returned": fails(err), "panicked": admit.Recover(panics(err))} {
			t.Run(name+"/"+how, func(t *testing.T) {
				t.Parallel()
				logger, log := logged()
				observed := false
				ew := &admit.ErrorWriter{Logger: logger, Observe: func(*http.Request, *admit.Error) { observed = true }}
				w := httptest.NewRecorder()
				ew.Wrap(h).ServeHTTP(w, get("/").WithContext(test.ctx))
				assert.Equal(t, !test.gone, observed)
				assert.Equal(t, !test.gone, strings.Contains(log.String(), "level=ERROR"))
				assert.Equal(t, test.gone, w.Body.Len() == 0)
				assert.Equal(t, test.gone, len(w.Header()) == 0)
				assert.Contains(t, log.String(), "query: ")
			})
		}
	}
}

func runtimeError() (err error) {
	defer func() { err, _ = recover().(error) }()
	var number any = 1
	_ = number.(string)
	return nil
}

// A client that leaves in the middle of an answer leaves no line above Debug.
func TestClientGoneInTheMiddle(t *testing.T) {
	t.Parallel()
	for _, wire := range wires {
		t.Run(wire, func(t *testing.T) {
			t.Parallel()
			logger, log := logged()
			ended := make(chan struct{})
			h := (&admit.ErrorWriter{Logger: logger}).Wrap(admit.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) error {
				for {
					if _, err := w.Write(make([]byte, 1<<16)); err != nil {
						return err
					}
				}
			}))
			s := serve(t, wire, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				defer close(ended)
				h.ServeHTTP(w, r)
			}))
			res, err := s.Client().Get(s.URL)
			require.NoError(t, err)
			_ = res.Body.Close()
			<-ended
			s.Close()
			assert.NotEmpty(t, log.String())
			assert.NotContains(t, log.String(), "level=ERROR")
		})
	}
}

// Whose fault a failed Read is, the body knows: the client's, where that was cut or is
// malformed, and not that of an upstream which has failed in the same way.
func TestErrorOfTheBody(t *testing.T) {
	t.Parallel()
	malformed := errors.New("invalid byte in chunk length")
	broken := func(err error) func() io.Reader { return func() io.Reader { return iotest.ErrReader(err) } }
	whole := func() io.Reader { return strings.NewReader("x") }
	for name, wrapper := range map[string]admit.Middleware{
		"MaxBody":     admit.MaxBody(100),
		"BodyTimeout": admit.BodyTimeout{Grace: time.Minute}.Wrap,
		"Timeout":     admit.Timeout(time.Minute),
		"two bodies":  func(h http.Handler) http.Handler { return admit.MaxBody(100)(recast(admit.MaxBody(50)(h))) },
	} {
		for which, test := range map[string]struct {
			body   func() io.Reader
			reads  func(r *http.Request) error
			status int
		}{
			"cut":                    {broken(io.ErrUnexpectedEOF), readWhole, 400},
			"malformed":              {broken(malformed), readWhole, 400},
			"Server.ReadTimeout":     {broken(os.ErrDeadlineExceeded), readWhole, 408},
			"whole":                  {whole, func(r *http.Request) error { return errors.Join(readWhole(r), io.EOF) }, 500},
			"of an upstream":         {whole, func(r *http.Request) error { return errors.Join(readWhole(r), io.ErrUnexpectedEOF) }, 500},
			"of an upstream, unread": {broken(malformed), func(*http.Request) error { return malformed }, 500},
			"another error":          {broken(malformed), func(r *http.Request) error { _ = readWhole(r); return errDown }, 500},
			"closed by the handler":  {func() io.Reader { return &closedBody{} }, func(r *http.Request) error { _ = r.Body.Close(); return readWhole(r) }, 500},
		} {
			t.Run(name+"/"+which, func(t *testing.T) {
				t.Parallel()
				logger, log := logged()
				request := func() *http.Request {
					r := httptest.NewRequest("POST", "/", test.body())
					r.ContentLength = -1
					return r
				}
				h := admit.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) error {
					if err := test.reads(r); err != nil {
						return fmt.Errorf("import: %w", err)
					}
					return nil
				})
				refused(t, (&admit.ErrorWriter{Logger: logger}).Wrap(wrapper(h)), request(), test.status)
				assert.Equal(t, test.status == 500, strings.Contains(log.String(), "level=ERROR"))
				if test.status == 500 {
					return
				}
				refused(t, wrapper(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					admit.ProxyError(w, r, fmt.Errorf("round trip: %w", test.reads(r))) // not 502
				})), request(), test.status)
			})
		}
	}
}

func readWhole(r *http.Request) error {
	_, err := io.ReadAll(r.Body)
	return err
}

// closedBody is one that cannot be read once it is closed.
type closedBody struct{ closed bool }

func (b *closedBody) Close() error { b.closed = true; return nil }

func (b *closedBody) Read([]byte) (int, error) {
	if b.closed {
		return 0, http.ErrBodyReadAfterClose
	}
	return 0, io.EOF
}

// recast hides what it wraps from the wrapper around it.
func recast(h http.Handler) http.Handler { return http.HandlerFunc(h.ServeHTTP) }

func TestErrorWriterMap(t *testing.T) {
	t.Parallel()
	errStock, errOther := errors.New("no stock"), errors.New("other")
	outOfStock := admit.NewError(http.StatusConflict, "Out of stock.")
	ew := &admit.ErrorWriter{Map: func(err error) *admit.Error {
		if errors.Is(err, errStock) {
			return outOfStock
		}
		return nil
	}}
	e, _ := refused(t, ew.Wrap(fails(fmt.Errorf("order: %w", errStock))), get("/"), 409)
	assert.Equal(t, "Out of stock.", e.Message)
	refused(t, ew.Wrap(fails(errOther)), get("/"), 500)
	e, _ = refused(t, ew.Wrap(fails(admit.NewError(404, "No such order.").WithCause(errStock))), get("/"), 404)
	assert.Equal(t, "No such order.", e.Message, "an Error says itself what it is")
}

func TestErrorWriterInsideAnother(t *testing.T) {
	t.Parallel()
	counts := map[string]int{}
	var mu sync.Mutex
	observer := func(name string) *admit.ErrorWriter {
		return &admit.ErrorWriter{Observe: func(_ *http.Request, e *admit.Error) {
			mu.Lock()
			defer mu.Unlock()
			counts[fmt.Sprint(name, e.Status)]++
		}}
	}
	inner := observer("inner").Wrap(fails(admit.NewError(404, "")))
	outer := observer("outer").Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/inner" {
			inner.ServeHTTP(httptest.NewRecorder(), r)
		}
		admit.WriteError(w, r, admit.NewError(409, ""))
	}))
	refused(t, outer, get("/inner"), 409)
	refused(t, outer, get("/"), 409)
	assert.Equal(t, map[string]int{"inner404": 1, "outer409": 2}, counts)
}

func TestErrorWriterEncode(t *testing.T) {
	t.Parallel()
	ew := &admit.ErrorWriter{Encode: func(r *http.Request, e *admit.Error) (string, []byte) {
		return "application/vnd.shop+json", fmt.Appendf(nil, `{"fault":%q,"at":%q}`, e.Code, r.URL.Path)
	}}
	w := httptest.NewRecorder()
	ew.Wrap(fails(&admit.Error{Status: 409})).ServeHTTP(w, get("/orders"))
	assert.Equal(t, 409, w.Code)
	assert.Equal(t, "application/vnd.shop+json", w.Header().Get("Content-Type"))
	assert.JSONEq(t, `{"fault":"conflict","at":"/orders"}`, w.Body.String())
	assert.Equal(t, fmt.Sprint(w.Body.Len()), w.Header().Get("Content-Length"))
}

func TestErrorHeaders(t *testing.T) {
	t.Parallel()
	sentinel := admit.NewError(http.StatusTooManyRequests, "Slow down.")
	sentinel.RetryAfter = 1500 * time.Millisecond
	sentinel.Header = http.Header{"Allow": {"GET"}, "x-lower": {"1"}, "Vary": {"Accept", "origin"}}
	ofTheAnswer := map[string]string{
		"ETag": `"v1"`, "Last-Modified": "Mon, 02 Jan 2006 15:04:05 GMT", "Content-Range": "bytes 0-1/2", "Content-Encoding": "gzip",
		"Expires": "0", "Content-Language": "de", "Content-Location": "/x", "Accept-Ranges": "bytes", "Content-Disposition": "attachment",
		"Transfer-Encoding": "chunked",
		// The digest of another body: a client that checks it drops the error.
		"Content-Digest": "sha-256=:AA==:", "Repr-Digest": "sha-256=:AA==:", "Digest": "sha-256=AA==", "Content-MD5": "AA==",
		// A cache that knows one of these does not look at Cache-Control.
		"CDN-Cache-Control": "max-age=60", "Cloudflare-CDN-Cache-Control": "max-age=60", "Surrogate-Control": "max-age=60", "X-Accel-Expires": "60", "Age": "1",
		// nginx and Apache send that file instead.
		"X-Accel-Redirect": "/protected/file", "X-Sendfile": "/protected/file",
	}
	h := admit.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) error {
		for name, value := range ofTheAnswer {
			w.Header().Set(name, value)
		}
		for name, value := range map[string]string{
			"Content-Length": "7", "Cache-Control": "max-age=60", "Content-Type": "text/csv", "Vary": "Origin", "X-Kept": "yes", "Set-Cookie": "a=b",
		} {
			w.Header().Set(name, value)
		}
		return sentinel
	})
	e, got := refused(t, h, get("/"), 429)
	assert.EqualValues(t, 2, e.RetryAfter)
	assert.Equal(t, "2", got.Get("Retry-After"), "rounded up, as in the body")
	assert.Equal(t, []string{"Origin", "Accept"}, got["Vary"])
	assert.Equal(t, "GET", got.Get("Allow"))
	assert.Equal(t, "1", got.Get("X-Lower"))
	assert.Equal(t, "yes", got.Get("X-Kept"))
	assert.Equal(t, "a=b", got.Get("Set-Cookie"))
	for name := range ofTheAnswer {
		assert.NotContains(t, got, http.CanonicalHeaderKey(name))
	}
	assert.NotEqual(t, "7", got.Get("Content-Length"))

	got["Allow"][0] = "mutated"
	assert.Equal(t, "GET", sentinel.Header.Get("Allow"), "the header of a sentinel is copied")
}

// An error is not in the encoding that the handler has announced for its own answer, and
// is in that of a compressor outside.
func TestErrorInPlaceOfAnEncodedAnswer(t *testing.T) {
	t.Parallel()
	gzips := func(then func()) admit.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) error {
			w.Header().Set("Content-Encoding", "gzip")
			then()
			return admit.NewError(404, "")
		}
	}
	overruns := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Encoding", "gzip")
		<-r.Context().Done()
	})
	handlers := map[string]http.Handler{
		"error":              gzips(func() {}),
		"error in a Policy":  admit.Policy{}.Wrap(gzips(func() {})),
		"panic":              admit.Recover(gzips(func() { panic("in the middle") })),
		"panic in a Policy":  admit.Policy{}.Wrap(gzips(func() { panic("in the middle") })),
		"error in a Timeout": admit.Policy{Timeout: time.Minute}.Wrap(gzips(func() {})),
		"panic in a Timeout": admit.Policy{Timeout: time.Minute}.Wrap(gzips(func() { panic("in the middle") })),
		"an overrun":         admit.Policy{Timeout: time.Millisecond}.Wrap(overruns),
		"inside WriteStall":  admit.WriteStall(time.Minute)(gzips(func() {})),
		"a refusal further in": admit.RequestID(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("X", "y")
			admit.MaxBody(1)(gzips(func() {})).ServeHTTP(w, r)
		})),
		"the text of an error": admit.Intercept(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Encoding", "gzip")
			w.WriteHeader(404)
		})),
		"WriteError in a Policy": admit.Policy{}.Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Encoding", "gzip")
			admit.WriteError(w, r, admit.NewError(404, ""))
		})),
	}
	for name, h := range handlers {
		for _, outside := range []string{"", "br"} {
			w := httptest.NewRecorder()
			if outside != "" {
				w.Header().Set("Content-Encoding", outside)
			}
			(&admit.ErrorWriter{Logger: discardLogs}).Wrap(h).ServeHTTP(w, get("/"))
			assert.GreaterOrEqual(t, w.Code, 404, name)
			assert.Equal(t, outside, w.Header().Get("Content-Encoding"), "%s, outside %q", name, outside)
		}
	}

	// A compressor between us and a handler that is not ours has a writer of its own.
	between := func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Encoding", "br")
			next.ServeHTTP(struct{ http.ResponseWriter }{w}, r)
		})
	}
	w := httptest.NewRecorder()
	admit.RequestID(between(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { admit.WriteError(w, r, admit.NewError(404, "")) }))).ServeHTTP(w, get("/"))
	assert.Equal(t, "br", w.Header().Get("Content-Encoding"))
}

func TestProblemHasATitle(t *testing.T) {
	t.Parallel()
	for status, title := range map[int]string{
		404: "Not Found", 413: "Content Too Large", 414: "URI Too Long", 416: "Range Not Satisfiable", 422: "Unprocessable Content",
		499: "Client Error", 599: "Server Error",
	} {
		w := httptest.NewRecorder()
		fails(admit.NewError(status, "x")).ServeHTTP(w, get("/", "Accept", "application/problem+json"))
		var problem struct{ Type, Title string }
		require.NoError(t, json.Unmarshal(w.Body.Bytes(), &problem))
		assert.Equal(t, title, problem.Title)
		assert.Equal(t, "about:blank", problem.Type)
	}
	e := admit.NewError(409, "x")
	e.Meta = map[string]any{"type": "https://example.com/problems/sold-out"}
	w := httptest.NewRecorder()
	fails(e).ServeHTTP(w, get("/", "Accept", "application/problem+json"))
	assert.Contains(t, w.Body.String(), `{"type":"https://example.com/problems/sold-out","title":"Conflict",`)
	w = httptest.NewRecorder()
	fails(e).ServeHTTP(w, get("/"))
	assert.NotContains(t, w.Body.String(), "sold-out", "the envelope has no type")
}

func TestRetryAfterRoundsUp(t *testing.T) {
	t.Parallel()
	for d, want := range map[time.Duration]string{
		-time.Second: "", 0: "", 1: "1", time.Second - 1: "1", time.Second: "1", time.Second + 1: "2",
		time.Hour: "3600", 1<<63 - 1: "9223372037",
	} {
		_, h := refused(t, fails(&admit.Error{Status: 503, RetryAfter: d}), get("/"), 503)
		assert.Equal(t, want, h.Get("Retry-After"), "%v", d)
	}
}

func TestErrorBody(t *testing.T) {
	t.Parallel()
	e := &admit.Error{
		Status: 422, Code: "unprocessable", Message: "Quote \" backslash \\ tab \t bell \a unicode é bad \xff.",
		Fields:     []admit.FieldError{{Path: "a[0].b", Code: "too_long", Message: "is too long"}, {Path: "c"}},
		RetryAfter: time.Minute,
		Meta: map[string]any{
			"upgrade_url": "https://example.com/?a=1&b=2", "also": []int{1}, "status": "hidden", "result": "success",
			"broken": func() {},
		},
	}
	w := httptest.NewRecorder()
	admit.RequestID(fails(e)).ServeHTTP(w, get("/", "X-Request-Id", "id-1"))
	assert.JSONEq(t, `{
		"result":"error","message":"Quote \" backslash \\ tab \t bell \u0007 unicode é bad �.","code":"unprocessable",
		"request_id":"id-1","retry_after":60,
		"errors":[{"path":"a[0].b","code":"too_long","message":"is too long"},{"path":"c","code":"","message":""}],
		"also":[1],"upgrade_url":"https://example.com/?a=1&b=2"}`, w.Body.String())
	assert.Regexp(t, `^\{"result":"error","message":.*"code":.*"request_id":.*"retry_after":.*"errors":.*"also":.*"upgrade_url":`, w.Body.String())
}

func TestErrorHead(t *testing.T) {
	t.Parallel()
	h := admit.RequestID(fails(admit.NewError(404, "")))
	viaGet, viaHead := httptest.NewRecorder(), httptest.NewRecorder()
	h.ServeHTTP(viaGet, get("/", "X-Request-Id", "same"))
	h.ServeHTTP(viaHead, newRequest(http.MethodHead, "/", "", "X-Request-Id", "same"))
	assert.Equal(t, viaGet.Header(), viaHead.Header())
	assert.Equal(t, 404, viaHead.Code)
	assert.Zero(t, viaHead.Body.Len())
}

func TestErrorAfterTheResponseHasBegun(t *testing.T) {
	t.Parallel()
	begun := map[string]func(w http.ResponseWriter){
		"WriteHeader": func(w http.ResponseWriter) { w.WriteHeader(200) },
		"Write":       func(w http.ResponseWriter) { _, _ = w.Write([]byte("part")) },
		"WriteString": func(w http.ResponseWriter) { _, _ = io.WriteString(w, "part") },
		"Flush":       func(w http.ResponseWriter) { w.(http.Flusher).Flush() },
		"ReadFrom":    func(w http.ResponseWriter) { _, _ = io.Copy(w, &partReader{}) },
		"controller":  func(w http.ResponseWriter) { _ = http.NewResponseController(w).Flush() },
	}
	for name, begin := range begun {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			logger, log := logged()
			h := (&admit.ErrorWriter{Logger: logger}).Wrap(admit.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) error {
				begin(w)
				return errors.New("too late")
			}))
			w := httptest.NewRecorder()
			assert.PanicsWithValue(t, http.ErrAbortHandler, func() { h.ServeHTTP(w, get("/")) })
			assert.Equal(t, 200, w.Code)
			assert.NotContains(t, w.Body.String(), "error")
			assert.Contains(t, log.String(), "too late")
		})
	}
}

// partReader gives one part, then fails.
type partReader struct{ read bool }

func (p *partReader) Read(b []byte) (int, error) {
	if p.read {
		return 0, errors.New("cut")
	}
	p.read = true
	return copy(b, "part"), nil
}

func TestErrorBeforeTheFirstByteIsWritten(t *testing.T) {
	t.Parallel()
	h := admit.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) error {
		w.WriteHeader(http.StatusEarlyHints) // does not begin the response
		_, err := io.Copy(w, &partReader{read: true})
		return err
	})
	s := serve(t, "HTTP/1.1", h)
	res, err := s.Client().Get(s.URL)
	require.NoError(t, err)
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	require.NoError(t, err)
	assert.Equal(t, 500, res.StatusCode)
	readEnvelope(t, 500, res.Header, body)
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

func TestErrorIsFoundThroughWritersOfOthers(t *testing.T) {
	t.Parallel()
	type foreign struct{ http.ResponseWriter }
	unwrapping := func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { next.ServeHTTP(unwrapper{w}, r) })
	}
	opaque := func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { next.ServeHTTP(foreign{w}, r) })
	}
	late := admit.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) error {
		w.WriteHeader(201)
		return errors.New("too late")
	})
	for name, wrap := range map[string]admit.Middleware{"with Unwrap": unwrapping, "without": opaque} {
		h := new(admit.ErrorWriter).Wrap(wrap(late))
		w := httptest.NewRecorder()
		assert.PanicsWithValue(t, http.ErrAbortHandler, func() { h.ServeHTTP(w, get("/")) }, name)
		assert.Equal(t, 201, w.Code)
	}
}

type unwrapper struct{ http.ResponseWriter }

func (u unwrapper) Unwrap() http.ResponseWriter { return u.ResponseWriter }

func TestSentinelsAreSharedBetweenGoroutines(t *testing.T) {
	t.Parallel()
	sentinel := admit.NewError(http.StatusConflict, "")
	sentinel.Header = http.Header{"X-Why": {"because"}}
	h := new(admit.ErrorWriter).Wrap(fails(sentinel))
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 100 {
				w := httptest.NewRecorder()
				h.ServeHTTP(w, get("/"))
				w.Header().Add("X-Why", "mine")
				assert.Len(t, w.Header()["X-Why"], 2)
			}
		})
	}
	wg.Wait()
}

func TestErrorAllocations(t *testing.T) {
	err := admit.NewError(http.StatusNotFound, "There is no such pair.")
	w, r := newDiscard(), get("/")
	allocs(t, 2, func() { admit.WriteError(w, r, err) })
}

// Any message comes out as JSON that reads back as the same text.
func FuzzErrorMessage(f *testing.F) {
	for _, seed := range []string{"", "plain", `"`, `\`, "\x00\x1f\x7f", "é€😀", "\xff\xfe", "\u2028", "a\xe2\x82"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, message string) {
		w := httptest.NewRecorder()
		admit.WriteError(w, get("/"), &admit.Error{Status: 400, Code: "x", Message: message})
		var e envelope
		require.NoError(t, json.Unmarshal(w.Body.Bytes(), &e))
		require.True(t, utf8.Valid(w.Body.Bytes()))
		want, err := json.Marshal(message)
		require.NoError(t, err)
		var wanted string
		require.NoError(t, json.Unmarshal(want, &wanted))
		if wanted == "" {
			wanted = "The request is malformed."
		}
		require.Equal(t, wanted, e.Message)
	})
}

func BenchmarkError(b *testing.B) {
	err := admit.NewError(http.StatusNotFound, "There is no such pair.")
	w, r := newDiscard(), get("/")
	b.ReportAllocs()
	for b.Loop() {
		admit.WriteError(w, r, err)
	}
}

// An ErrorWriter writes, logs and observes what is inside of it, and not what comes after.
func TestErrorWriterIsForOneHandler(t *testing.T) {
	t.Parallel()
	for name, around := range map[string]admit.Middleware{
		"bare": func(h http.Handler) http.Handler { return h }, "in a chain": func(h http.Handler) http.Handler { return wrap(h, admit.RequestID, admit.Recover) },
	} {
		logger, log := logged()
		var observed []int
		own := &admit.ErrorWriter{
			Logger: logger, Observe: func(_ *http.Request, e *admit.Error) { observed = append(observed, e.Status) },
			Encode: func(*http.Request, *admit.Error) (string, []byte) { return "text/own", nil },
			Map:    func(error) *admit.Error { return admit.NewError(418, "") },
		}
		second := fails(admit.NewError(409, "").WithCause(errors.New("another cause")))
		h := around(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			first := httptest.NewRecorder()
			own.Wrap(fails(admit.NewError(503, "").WithCause(errors.New("its cause")))).ServeHTTP(first, r)
			assert.Equal(t, "text/own", first.Header().Get("Content-Type"), name)
			second.ServeHTTP(w, r)
		}))
		refused(t, h, get("/"), 409)
		assert.Equal(t, []int{503}, observed, name)
		assert.Contains(t, log.String(), "its cause", name)
		assert.NotContains(t, log.String(), "another cause", name)
	}
}
