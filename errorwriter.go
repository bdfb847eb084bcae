package admit

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"strconv"
	"time"
)

// Error is a refusal or a failure as a client sees it: a status (400 to 599), a
// stable snake_case Code for programs, and a Message for people. The zero Code and
// Message follow from the status; any other status is sent as 500. An Error is
// never changed once made, so sentinels may be shared between goroutines. Its
// cause is logged and never sent.
type Error struct {
	Status     int
	Code       string
	Message    string
	Fields     []FieldError   // what is wrong with the content, mostly for 422
	RetryAfter time.Duration  // sent in whole seconds, rounded up; 0: not sent
	Header     http.Header    // copied to the response; Vary is merged
	Meta       map[string]any // further members of the body, such as upgrade_url

	cause  error
	origin *Error // what Because copied
}

// FieldError says what is wrong with one member of the request's content. Path is
// written as in items[0].price.
type FieldError struct {
	Path    string `json:"path"`
	Code    string `json:"code"`
	Message string `json:"message"`
}

// NewError returns an Error whose Code follows from the status; an empty message
// stands for the default of the status. It panics if the status is not 400 to 599.
func NewError(status int, message string) *Error {
	if status < 400 || status > 599 {
		panic(fmt.Sprintf("admit: NewError(%d, ...): an error has a status from 400 to 599", status))
	}
	return &Error{Status: status, Code: codeOf(status), Message: message}
}

// Because returns a copy of e with a cause, which is logged and never sent.
func (e *Error) Because(cause error) *Error {
	c := *e
	c.cause, c.origin = cause, e
	return &c
}

// Error describes e for logs, with its cause.
func (e *Error) Error() string {
	if e == nil {
		return "admit: an *Error that is nil"
	}
	c := e.complete()
	s := "admit: " + strconv.Itoa(c.Status) + " " + c.Code + ": " + c.Message
	if c.cause != nil {
		s += ": " + c.cause.Error()
	}
	return s
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error {
	if e == nil {
		return nil
	}
	return e.cause
}

// Is reports whether target is e, or an Error that e was copied from by Because.
func (e *Error) Is(target error) bool {
	t, ok := target.(*Error)
	for o := e; ok && o != nil; o = o.origin {
		if o == t {
			return true
		}
	}
	return false
}

// complete returns e, or a copy with what e leaves to its status.
func (e *Error) complete() *Error {
	if e.Status >= 400 && e.Status <= 599 && e.Code != "" && e.Message != "" {
		return e
	}
	c := *e
	if c.Status < 400 || c.Status > 599 {
		c.Status = http.StatusInternalServerError
	}
	if c.Code == "" {
		c.Code = codeOf(c.Status)
	}
	if c.Message == "" {
		c.Message = messageOf(c.Status)
	}
	return &c
}

// retrySeconds is the number in the header and in the body; 0: neither is sent.
func (e *Error) retrySeconds() int64 { return ceilSeconds(e.RetryAfter) }

// ceilSeconds rounds up, so that who waits that long has waited d.
func ceilSeconds(d time.Duration) int64 {
	if d <= 0 {
		return 0
	}
	return int64((d-1)/time.Second) + 1
}

// ErrorWriter decides how errors are written, logged and observed. The zero value
// writes the envelope as application/json, or application/problem+json (RFC 9457)
// to a client that prefers it. It is read-only once in use, by any number of
// goroutines.
type ErrorWriter struct {
	// Logger gets every 5xx that has a cause, with that cause. Nil: slog.Default().
	Logger *slog.Logger
	// Map turns the service's own errors into an Error. It is not asked about an
	// error that has an Error in its chain; nil falls through to 500.
	Map func(error) *Error
	// Encode replaces the envelope. The Error is complete, and read-only.
	Encode func(*http.Request, *Error) (contentType string, body []byte)
	// Observe is told each error as it is written, for metrics. It is read-only.
	Observe func(*http.Request, *Error)
}

// Wrap installs ew for everything inside: for WriteError, HandlerFunc and every
// refusal of this package. One inside another holds for what is inside it.
func (ew *ErrorWriter) Wrap(next http.Handler) http.Handler {
	mustWrap("ErrorWriter.Wrap", next)
	if ew == nil {
		panic("admit: ErrorWriter.Wrap: the ErrorWriter is nil; use new(ErrorWriter) for the defaults")
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s, inner := enter(r, slotErrors)
		s.errors = ew
		s.publish(slotErrors)
		defer handBack(r, inner)
		panicking := true
		defer func() {
			if panicking {
				s.withdraw(slotErrors) // a Recover outside writes as is right there
			}
		}()
		next.ServeHTTP(track(w, inner), inner)
		panicking = false
	})
}

// WriteError writes err as the ErrorWriter of the request does; without one, as its
// zero value. The innermost *Error in the chain of err is sent as it is;
// *http.MaxBytesError is 413, context.DeadlineExceeded 503, and anything else 500
// with a fixed message. When the client is gone, or the response has begun inside an
// ErrorWriter, Recover or HandlerFunc, it panics with http.ErrAbortHandler, which cuts
// the connection.
func WriteError(w http.ResponseWriter, r *http.Request, err error) {
	errorWriterOf(r.Context()).write(w, r, err)
}

// mustWrap keeps a chain that ends in nothing from being built.
func mustWrap(name string, next http.Handler) {
	if next == nil {
		panic("admit: " + name + ": the handler is nil")
	}
}

var defaultErrorWriter = new(ErrorWriter)

func errorWriterOf(ctx context.Context) *ErrorWriter {
	if s := find(ctx, slotErrors); s != nil {
		return s.errors
	}
	return defaultErrorWriter
}

func (ew *ErrorWriter) write(w http.ResponseWriter, r *http.Request, err error) {
	ctx := r.Context()
	if ctx.Err() == context.Canceled && errors.Is(err, context.Canceled) {
		if !tooSlow(ctx) {
			ew.log(r, slog.LevelDebug, "admit: the client is gone", slog.Any("error", err))
			abort(w)
			return
		}
		err = errBodyTooSlow // that is what has ended the context
	}
	e := ew.resolve(err)
	if !decide(ctx) {
		ew.log(r, slog.LevelDebug, "admit: an error after the handler had overrun", slog.Any("error", err))
		return
	}
	if plain, ok := err.(*Error); e.Status >= 500 && !(ok && plain != nil && plain.cause == nil) {
		ew.log(r, slog.LevelError, "admit: a request failed",
			slog.Int("status", e.Status), slog.String("code", e.Code), slog.Any("error", err))
	}
	ew.send(w, r, e)
}

// abort makes the server cut the connection: an answer that is not written would be
// sent as an empty 200, which a client that has only closed its half takes for one.
func abort(w http.ResponseWriter) {
	if canWake(w) {
		panic(http.ErrAbortHandler)
	}
}

// send writes e, which is complete, unless the response has begun.
func (ew *ErrorWriter) send(w http.ResponseWriter, r *http.Request, e *Error) {
	if t := tracker(w); t != nil && t.hijacked {
		ew.log(r, slog.LevelError, "admit: an error after the connection was hijacked", slog.Any("error", e))
		return
	} else if t != nil && t.status != 0 {
		level := slog.LevelError
		if r.Context().Err() == context.Canceled {
			level = slog.LevelDebug // the client went away in the middle
		}
		ew.log(r, level, "admit: an error after the response had begun; the connection is cut",
			slog.Int("begun", t.status), slog.Any("error", e))
		panic(http.ErrAbortHandler)
	}
	if ew.Observe != nil {
		ew.Observe(r, e)
	}

	var contentType []string
	var body []byte
	if ew.Encode != nil {
		var ct string
		ct, body = ew.Encode(r, e)
		contentType = []string{ct}
	} else {
		buf := buffers.Get().(*[]byte)
		defer putBuffer(buf)
		id := RequestIDFrom(r.Context())
		if prefersProblem(r) {
			contentType, body = typeProblem, appendProblem((*buf)[:0], e, id)
		} else {
			contentType, body = typeJSON, appendEnvelope((*buf)[:0], e, id)
		}
		*buf = body
	}

	h := w.Header()
	// What a handler may have set for the answer that it did not give goes. Its
	// encoding stays: it is the work of a compressor outside.
	delete(h, "Content-Disposition")
	delete(h, "Etag")
	delete(h, "Last-Modified")
	if e.Status != http.StatusRequestedRangeNotSatisfiable {
		delete(h, "Content-Range")
	}
	for name, values := range e.Header {
		if name = http.CanonicalHeaderKey(name); name == "Vary" {
			addVary(h, values...)
		} else {
			h[name] = slices.Clone(values)
		}
	}
	h["Content-Type"] = contentType
	h["X-Content-Type-Options"] = nosniff
	h["Cache-Control"] = noStore
	values := [...]string{strconv.Itoa(len(body)), ""} // one allocation for both
	h["Content-Length"] = values[0:1:1]
	if n := e.retrySeconds(); n > 0 {
		values[1] = strconv.FormatInt(n, 10)
		h["Retry-After"] = values[1:2:2]
	}
	rest := settle(w, r)
	if rest != nil {
		h["Connection"] = closing
	}
	w.WriteHeader(e.Status)
	if r.Method != http.MethodHead {
		_, _ = w.Write(body)
	}
	if rest != nil {
		rest.linger()
	}
}

// resolve finds the Error that stands for err, complete. The writer itself does not
// guess who is to blame for an untyped error: io.EOF may come from the client's body
// or from an upstream of the handler.
func (ew *ErrorWriter) resolve(err error) *Error {
	if e, ok := err.(*Error); ok && e != nil {
		return e.complete()
	}
	var e *Error
	if errors.As(err, &e) && e != nil {
		return e.complete()
	}
	if ew.Map != nil && err != nil {
		if e := ew.Map(err); e != nil {
			return e.complete()
		}
	}
	var tooLarge *http.MaxBytesError
	switch {
	case errors.As(err, &tooLarge):
		return errBodyTooLarge.complete()
	case errors.Is(err, context.DeadlineExceeded):
		return errDeadline
	default:
		return errInternal.complete()
	}
}

// log adds what tells the request apart. The query is left out: it may hold a key.
func (ew *ErrorWriter) log(r *http.Request, level slog.Level, message string, attrs ...slog.Attr) {
	logger := ew.Logger
	if logger == nil {
		logger = slog.Default()
	}
	ctx := r.Context()
	if !logger.Enabled(ctx, level) {
		return
	}
	attrs = append(attrs, slog.String("method", r.Method), slog.String("path", r.URL.Path))
	if id := RequestIDFrom(ctx); id != "" {
		attrs = append(attrs, slog.String("request_id", id))
	}
	logger.LogAttrs(ctx, level, message, attrs...)
}

// These are shared by every response that carries them, and never written to.
var (
	typeJSON    = []string{"application/json"}
	typeProblem = []string{"application/problem+json"}
	nosniff     = []string{"nosniff"}
	noStore     = []string{"no-store"}
	closing     = []string{"close"}
)

var (
	errInternal     = NewError(http.StatusInternalServerError, "")
	errBodyTooLarge = NewError(http.StatusRequestEntityTooLarge, "")
	errDeadline     = NewError(http.StatusServiceUnavailable, "The request took too long. Try again.")
)

// statusTexts has the code and the default message of each status of the contract.
var statusTexts = map[int]struct{ code, message string }{
	400: {"bad_request", "The request is malformed."},
	401: {"unauthorized", "The request needs valid credentials."},
	402: {"payment_required", "The request needs a plan that includes it."},
	403: {"forbidden", "The credentials do not allow this request."},
	404: {"not_found", "There is no such resource."},
	405: {"method_not_allowed", "The resource does not take this method."},
	406: {"not_acceptable", "The resource cannot be sent in an accepted media type."},
	408: {"request_timeout", "The request did not arrive in time."},
	409: {"conflict", "The request conflicts with the state of the resource."},
	413: {"body_too_large", "The request body is too large."},
	415: {"unsupported_media_type", "The content type of the request is not taken here."},
	422: {"unprocessable", "The request is well formed, but its content is invalid."},
	429: {"too_many_requests", "There were too many requests. Try again later."},
	500: {"internal", "Something went wrong on our side."},
	501: {"not_implemented", "The method is not implemented."},
	502: {"bad_gateway", "An upstream service failed."},
	503: {"unavailable", "The service is temporarily unavailable. Try again later."},
	504: {"gateway_timeout", "An upstream service did not answer in time."},
}

// codeOf returns the code of a status: that of the contract, else its name in
// snake_case, such as precondition_failed.
func codeOf(status int) string {
	if t, ok := statusTexts[status]; ok {
		return t.code
	}
	var code []byte
	for _, c := range []byte(http.StatusText(status)) {
		switch {
		case c >= 'A' && c <= 'Z':
			code = append(code, c+'a'-'A')
		case c >= 'a' && c <= 'z':
			code = append(code, c)
		case c == ' ' || c == '-':
			code = append(code, '_')
		}
	}
	if len(code) == 0 {
		return "error"
	}
	return string(code)
}

func messageOf(status int) string {
	if t, ok := statusTexts[status]; ok {
		return t.message
	}
	if text := http.StatusText(status); text != "" {
		return text + "."
	}
	return "The request failed."
}
