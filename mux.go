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

// Mux serves m, and answers in the envelope where m itself answers 404 or 405; Allow
// stays, and so do redirects, PathValue and Pattern. What the handlers of m write is
// left alone: see Intercept. Do not register "/" to get a 404 of your own: it takes
// the 405s away.
func Mux(m *http.ServeMux) http.Handler {
	if m == nil {
		panic("admit: Mux: the ServeMux is nil")
	}
	// The mux leaves the pattern empty where it answers by itself. That is seen when
	// the response begins, so that the request is routed once.
	return intercept("Mux", m, func(r *http.Request) bool { return r.Pattern == "" })
}

// Intercept puts the envelope in the place of errors that next, or a library inside
// it, writes as text: the status is 400 or above and the Content-Type is text/plain or
// absent, as http.Error leaves it. The text is not sent, since it may leak; the
// beginning of a 5xx's is logged. Headers such as Allow and Retry-After stay. Other
// types, streams and redirects pass untouched.
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

// takes decides whether the response that begins with status is replaced.
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

// log keeps the beginning of the text that is thrown away: of a 5xx it is often all
// that tells what went wrong.
func (i *envelopes) log(status int, text string) {
	if i.logged || status < 500 || text == "" {
		return
	}
	i.logged = true
	errorWriterOf(i.request.Context()).log(i.request, slog.LevelError, "admit: the text of an error was replaced",
		slog.Int("status", status), slog.String("text", text))
}

// NotFound answers 404 in the envelope, for routers that take such a handler.
func NotFound(w http.ResponseWriter, r *http.Request) { WriteError(w, r, errNotFound) }

// MethodNotAllowed answers 405 in the envelope, for routers that take such a handler.
// It needs Allow (RFC 9110 §15.5.6): set it before, or put Intercept around a router
// that sets it by itself and leave this one out.
func MethodNotAllowed(w http.ResponseWriter, r *http.Request) { WriteError(w, r, errMethodNotAllowed) }

// ProxyError is an httputil.ReverseProxy.ErrorHandler: 504 if the time of the Transport or
// of the request is over, else 502; a Timeout outside that is shorter answers 503. What the
// client's own body is to blame for keeps its status (413, 408, and 400 for one that was cut
// or is malformed, inside MaxBody, BodyTimeout, Shedder or Timeout), and nothing is written
// to a client that is gone.
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
	case r.Context().Err() == context.Canceled: // whatever the transport makes of it
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
