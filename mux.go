package admit

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// Mux returns a handler that serves m, and responds in the envelope where m itself would respond
// with an error, such as 404 or 405. Allow, redirects, PathValue and Pattern stay as they are.
// Responses of the handlers in m are not changed; see [Intercept] for those.
//
// Do not register "/" in m to get a 404 of your own: it matches every method, so that m never
// responds with 405.
func Mux(m *http.ServeMux) http.Handler {
	if m == nil {
		panic("admit: Mux: the ServeMux is nil")
	}
	// The mux leaves the pattern empty where it responds by itself. This is checked when the
	// response begins, so that the request is routed once.
	return intercept("Mux", m, func(r *http.Request) bool { return r.Pattern == "" })
}

// Intercept returns a handler that serves next, and replaces errors that next, or a library
// inside it, writes as text by the envelope. An error is a response whose status is 400 or above
// and whose Content-Type is text/plain or absent, as http.Error writes it.
//
// The text is not sent, since it may leak internals; for a 5xx, its beginning is logged. Headers
// such as Allow and Retry-After stay. Other responses, such as streams and redirects, are not
// changed.
func Intercept(next http.Handler) http.Handler {
	return intercept("Intercept", next, func(*http.Request) bool { return true })
}

func intercept(name string, next http.Handler, applies func(*http.Request) bool) http.Handler {
	return wrap(name, next, func(in inside, w http.ResponseWriter, r *http.Request) {
		iw := &responseWriter{ResponseWriter: w, interception: &envelopes{
			request: r,
			applies: applies,
		}}
		in.ServeHTTP(iw.expose(), r)
	})
}

// envelopes is the interception of Intercept and Mux.
type envelopes struct {
	request *http.Request
	applies func(*http.Request) bool
	logged  bool
}

// takes decides whether to replace the response that begins with status.
func (i *envelopes) takes(w *responseWriter, status int) bool {
	if status < 400 || status > 599 {
		return false
	}
	contentType := w.Header()["Content-Type"]
	return (len(contentType) == 0 || isPlainText(contentType[0])) && i.applies(i.request)
}

func isPlainText(contentType string) bool {
	mediaType, _, _ := strings.Cut(contentType, ";")
	return strings.EqualFold(strings.TrimSpace(mediaType), "text/plain")
}

// write sends the envelope instead.
func (i *envelopes) write(w *responseWriter) {
	w.restoreEncoding()
	e := NewError(w.status, "")
	if n, err := strconv.ParseInt(w.Header().Get("Retry-After"), 10, 32); err == nil && n > 0 {
		e.RetryAfter = time.Duration(n) * time.Second
	}
	errorWriterOf(i.request.Context()).write(w.ResponseWriter, i.request, e)
}

// log logs the beginning of the text that is replaced. For a 5xx, it often is the only
// description of what went wrong.
func (i *envelopes) log(status int, text string) {
	if i.logged || status < 500 || text == "" {
		return
	}
	i.logged = true
	errorWriterOf(i.request.Context()).log(i.request, slog.LevelError, "admit: the text of an error was replaced",
		slog.Int("http.response.status_code", status), slog.String("text", text))
}

// NotFound responds with 404 in the envelope. It is for routers that take a handler for unknown
// paths.
func NotFound(w http.ResponseWriter, r *http.Request) { WriteError(w, r, errNotFound) }

// MethodNotAllowed responds with 405 in the envelope. It is for routers that take a handler for
// unknown methods. The response must have Allow (RFC 9110 §15.5.6): set it before the call. For a
// router that sets Allow itself, use Intercept around the router instead.
func MethodNotAllowed(w http.ResponseWriter, r *http.Request) { WriteError(w, r, errMethodNotAllowed) }

// ProxyError is an ErrorHandler for httputil.ReverseProxy. It responds with 504 if the Transport
// or the context of the request has timed out, else with 502. A shorter Timeout outside of the
// proxy responds with 503 before that.
//
// An error that the client's own body has caused keeps its status, inside MaxBody, BodyTimeout,
// Shedder or Timeout: 413 for a body that is too large, 408 for one that is too slow, and 400 for
// one that was cut off or is malformed. Nothing is written to a client that has left.
func ProxyError(w http.ResponseWriter, r *http.Request, err error) {
	var e *Error
	var tooLarge *http.MaxBytesError
	var timeout net.Error
	switch {
	case errors.As(err, &e), errors.As(err, &tooLarge):
		WriteError(w, r, err)
	case bodyBroke(r.Context(), err):
		WriteError(w, r, bodyFault(err))
	case tooSlow(r.Context()):
		WriteError(w, r, errBodyTooSlow.WithCause(err))
	case r.Context().Err() == context.Canceled: // whatever error the transport returns
		WriteError(w, r, fmt.Errorf("%w: %w", context.Canceled, err))
	case errors.Is(err, context.DeadlineExceeded), errors.As(err, &timeout) && timeout.Timeout():
		WriteError(w, r, errGatewayTimeout.WithCause(err))
	default:
		WriteError(w, r, errBadGateway.WithCause(err))
	}
}

var (
	errNotFound         = NewError(http.StatusNotFound, "")
	errMethodNotAllowed = NewError(http.StatusMethodNotAllowed, "")
	errBadGateway       = NewError(http.StatusBadGateway, "")
	errGatewayTimeout   = NewError(http.StatusGatewayTimeout, "")
)
