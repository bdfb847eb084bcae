package admit

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// ErrorWriter decides how errors are written, logged and observed. The zero value writes the
// envelope as application/json, or as application/problem+json (RFC 9457) to a client that
// prefers it. An ErrorWriter must not change once it is in use. It is safe for concurrent use.
type ErrorWriter struct {
	// Logger gets each 5xx that has a cause, with that cause, and the other log lines about a
	// request. The attributes have the names of AccessLog. Default: slog.Default().
	Logger *slog.Logger
	// Map turns errors of the service into an Error. It is not called for an error that has an
	// *Error in its chain. If it returns nil, the error is written as WriteError describes.
	Map func(error) *Error
	// Encode replaces the envelope. The Error has all fields set, and must not be changed.
	Encode func(*http.Request, *Error) (contentType string, body []byte)
	// Observe is called with each error as it is written, for metrics. It must not change the
	// Error.
	Observe func(*http.Request, *Error)
}

// Wrap sets ew for everything inside: WriteError, HandlerFunc and every rejection of this
// package. The innermost ErrorWriter applies.
func (ew *ErrorWriter) Wrap(next http.Handler) http.Handler {
	if ew == nil {
		panic("admit: ErrorWriter.Wrap: the ErrorWriter is nil; use new(ErrorWriter) for the defaults")
	}
	return wrap("ErrorWriter.Wrap", next, func(in inside, w http.ResponseWriter, r *http.Request) {
		s, w, inner := in.fill(w, r, slotErrors)
		defer s.leave(r, inner)
		s.errors = ew
		in.ServeHTTP(track(w), inner)
	})
}

// WriteError writes err with the ErrorWriter of the request, or with the zero ErrorWriter if
// there is none. The first *Error in the chain of err is sent as it is. Other errors have these
// statuses:
//
//   - 413: *http.MaxBytesError and multipart.ErrMessageTooLarge
//   - 503: context.DeadlineExceeded
//   - 415: http.ErrNotMultipart
//   - 400: http.ErrMissingBoundary and http.ErrMissingFile
//   - 400, or 408 once Server.ReadTimeout is over: the error of a Read of the body inside
//     MaxBody, BodyTimeout, Shedder or Timeout
//   - 500, with a fixed message: any other error
//
// If the client is gone, or if the response has begun inside an ErrorWriter, Recover or
// HandlerFunc, WriteError panics with http.ErrAbortHandler, which cuts the connection.
func WriteError(w http.ResponseWriter, r *http.Request, err error) {
	errorWriterOf(r.Context()).write(w, r, err)
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
	if gone(ctx, err) {
		if !tooSlow(ctx) {
			noteFailure(ctx, err, nil, false)
			ew.log(r, slog.LevelDebug, "admit: the client is gone", slog.Any("error", err))
			abort(w)
			return
		}
		err = errBodyTooSlow // the slow body has ended the context
	}
	if errors.Is(err, errStalled) {
		noteFailure(ctx, err, nil, false)
		ew.log(r, slog.LevelDebug, "admit: the client did not read the response in time", slog.Any("error", err))
		panic(http.ErrAbortHandler)
	}
	e := ew.resolve(ctx, err)
	if !beginAnswer(ctx) {
		ew.log(r, slog.LevelDebug, "admit: a handler returned an error after its timeout", slog.Any("error", err))
		return
	}
	defer endAnswer(ctx)
	if ew.tooLate(w, r, err, e) {
		return
	}
	if plain, ok := err.(*Error); e.Status >= 500 && !(ok && plain != nil && plain.cause == nil) {
		ew.log(r, slog.LevelError, "admit: a request failed",
			slog.Int("http.response.status_code", e.Status), slog.String("error.type", e.Code), slog.Any("error", err))
	}
	ew.send(w, r, err, e)
}

// gone reports whether err is there because the client has left: the handler got it from its
// context, or from a connection that failed. A handler may also have canceled a context of its
// own, and a body that broke off has an error of its own.
func gone(ctx context.Context, err error) bool {
	if ctx.Err() != context.Canceled {
		return false
	}
	return errors.Is(err, context.Canceled) || errors.As(err, new(*net.OpError)) && !bodyBroke(ctx, err)
}

// abort makes the server cut the connection. Without a response the server would send an empty
// 200, and a client that has only closed its half of the connection would take it for a
// success.
func abort(w http.ResponseWriter) {
	if canWake(w) {
		panic(http.ErrAbortHandler)
	}
}

// tooLate reports whether e, which stands for err, can no longer be sent, because the
// connection was hijacked. If the response has begun, tooLate cuts the connection.
func (ew *ErrorWriter) tooLate(w http.ResponseWriter, r *http.Request, err error, e *Error) bool {
	t := tracker(w)
	if t == nil || t.status == 0 && !t.hijacked {
		return false
	}
	noteFailure(r.Context(), err, e, false)
	if t.hijacked {
		ew.log(r, slog.LevelError, "admit: an error after the connection was hijacked", slog.Any("error", err))
		return true
	}
	level := slog.LevelError
	if r.Context().Err() == context.Canceled {
		level = slog.LevelDebug // the client went away in the middle
	}
	ew.log(r, level, "admit: an error after the response had begun; the connection is cut",
		slog.Int("http.response.status_code", t.status), slog.Any("error", err))
	panic(http.ErrAbortHandler)
}

// send writes e, which is complete and stands for err. The response has not begun.
func (ew *ErrorWriter) send(w http.ResponseWriter, r *http.Request, err error, e *Error) {
	if ew.Observe != nil {
		ew.Observe(r, e)
	}
	noteFailure(r.Context(), err, e, true)

	var contentType string
	var body []byte
	if ew.Encode != nil {
		contentType, body = ew.Encode(r, e)
	} else {
		buf := buffers.Get().(*[]byte)
		defer putBuffer(buf)
		id := requestIDOf(r.Context())
		if prefersProblem(r) {
			contentType, body = "application/problem+json", appendProblem((*buf)[:0], e, id)
		} else {
			contentType, body = "application/json", appendEnvelope((*buf)[:0], e, id)
		}
		*buf = body
	}

	h := w.Header()
	maps.DeleteFunc(h, func(name string, _ []string) bool { return ofTheAnswer(name) })
	if t, direct := w.(interface{ tracked() *responseWriter }); direct { // else a foreign compressor may be between
		t.tracked().restoreEncoding()
	}
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
	values := [...]string{contentType, "nosniff", "no-store", strconv.Itoa(len(body)), ""} // one allocation for all
	h["Content-Type"] = values[0:1:1]
	h["X-Content-Type-Options"] = values[1:2:2]
	h["Cache-Control"] = values[2:3:3]
	h["Content-Length"] = values[3:4:4]
	if n := e.retrySeconds(); n > 0 {
		values[4] = strconv.FormatInt(n, 10)
		h["Retry-After"] = values[4:5:5]
	}
	stopInterceptions(w) // this is sent as it is, whatever its type
	reply(w, r, e.Status, body)
}

// ofTheAnswer reports whether a header belongs to the response that the error replaces: it
// describes the body, says how long caches may keep it, or tells a proxy where to find it.
func ofTheAnswer(name string) bool {
	switch name {
	case "Accept-Ranges", "Content-Disposition", "Content-Language", "Content-Location", "Etag", "Expires", "Last-Modified", "Transfer-Encoding",
		"Content-Digest", "Repr-Digest", "Digest", "Content-Md5", // RFC 9530, and what it replaces
		"Age", "Surrogate-Control", "X-Accel-Expires", // these override Cache-Control in caches that know them
		"X-Accel-Redirect", "X-Sendfile":
		return true
	}
	return strings.HasSuffix(name, "-Cache-Control") // for one kind of cache (RFC 9213), overrides it too
}

// resolve finds the Error for err, complete. It does not guess whether an untyped error is the
// client's: io.EOF may come from the body of the request or from an upstream of the handler. A
// body of this package knows the error that it has failed with.
func (ew *ErrorWriter) resolve(ctx context.Context, err error) *Error {
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
	case bodyBroke(ctx, err):
		return errorOf(bodyFault(err)).complete()
	case errors.Is(err, context.DeadlineExceeded):
		return errDeadline
	}
	if e := formError(err); e != nil {
		return e.complete()
	}
	return errInternal.complete()
}

// log adds what identifies the request. The query is left out: it may hold a key.
func (ew *ErrorWriter) log(r *http.Request, level slog.Level, message string, attrs ...slog.Attr) {
	logger := ew.Logger
	if logger == nil {
		logger = slog.Default()
	}
	ctx := r.Context()
	if !logger.Enabled(ctx, level) {
		return
	}
	for i, a := range attrs {
		if err, ok := a.Value.Any().(error); ok {
			if text := fmt.Sprint(err); len(text) > maxErrorText { // Sprint recovers if err is a nil pointer
				attrs[i] = slog.String(a.Key, cutTo(text, maxErrorText))
			}
		}
	}
	attrs = append(attrs, slog.String("http.request.method", knownMethod(r.Method)), slog.String("url.path", shortened(r.URL.Path)))
	if id := requestIDOf(ctx); id != "" {
		attrs = append(attrs, slog.String("request_id", id))
	}
	logger.LogAttrs(ctx, level, message, attrs...)
}

const other = "_OTHER" // the value of OpenTelemetry for unknown methods and errors

func knownMethod(method string) string {
	switch method {
	case "GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH", "QUERY":
		return method
	}
	return other
}

// maxErrorText is how much of an error is logged: it may contain text from the client.
const maxErrorText = 4 << 10

// shortened cuts text from the client, which must not decide how long a log line is.
func shortened(s string) string { return cutTo(s, 512) }

func cutTo(s string, most int) string {
	if len(s) <= most {
		return s
	}
	cut := most
	for cut > most-utf8.UTFMax && !utf8.RuneStart(s[cut]) {
		cut--
	}
	return strings.ToValidUTF8(s[:cut], "\uFFFD") + "…"
}
