package admit

import (
	"fmt"
	"log/slog"
	"net/http"
)

// AccessLog writes one line for each request to l, when it has ended, at LevelInfo whatever
// the status: what is the fault of the service ErrorWriter logs as an error. Nil is
// slog.Default(). It may stand outermost of all, also around a mux.
//
// The attributes are those of OpenTelemetry's HTTP conventions where it has them:
//
//	http.request.method              _OTHER if it is not a known one
//	url.path                         without the query, which may hold a key
//	http.route                       the path of the pattern
//	http.response.status_code        see Outcome
//	http.response.body.size          bytes
//	http.server.request.duration     seconds
//	client.address                   as ClientIP has found it, else that of the peer
//	user_agent.original
//	error.type                       the code
//	error                            its cause, which is not sent
//	request_id                       of RequestID
//	admit.key.id, admit.key.owner, admit.plan
//	admit.key.status                 early, expired or revoked, of a key that was refused
//	admit.wait.duration              seconds, for a place
//
// What is empty is left out. What a client writes is cut after 512 bytes, and so is an error,
// in which that may stand. A token is never in it, unless an error of the service has one.
// Within a request the outermost AccessLog writes.
func AccessLog(l *slog.Logger) Middleware {
	kind := observers.kind("AccessLog")
	return func(next http.Handler) http.Handler {
		return observed("AccessLog", kind, next, func(e ending) {
			logger := l
			if logger == nil {
				logger = slog.Default()
			}
			ctx := e.r.Context()
			if !logger.Enabled(ctx, slog.LevelInfo) {
				return
			}
			var room [16]slog.Attr
			logger.LogAttrs(ctx, slog.LevelInfo, "request", e.attrs(room[:0])...)
		})
	}
}

// attrs appends the attributes of a line.
func (e ending) attrs(attrs []slog.Attr) []slog.Attr {
	o := e.outcome()
	text := func(key, value string) {
		if value != "" {
			attrs = append(attrs, slog.String(key, value))
		}
	}
	text("http.request.method", knownMethod(e.method))
	text("url.path", shortened(e.path))
	text("http.route", pathOf(o.Route))
	attrs = append(attrs,
		slog.Int("http.response.status_code", o.Status),
		slog.Int64("http.response.body.size", o.Written),
		slog.Float64("http.server.request.duration", o.Duration.Seconds()))
	text("client.address", e.client())
	text("user_agent.original", shortened(e.agent))
	text("error.type", o.Code)
	text("error", shortened(causeOf(o.Err)))
	text("request_id", e.requestID())
	text("admit.key.id", o.KeyID)
	text("admit.key.owner", o.Owner)
	if o.KeyStatus != KeyValid {
		text("admit.key.status", o.KeyStatus.String())
	}
	text("admit.plan", o.Plan)
	if o.Waited > 0 {
		attrs = append(attrs, slog.Float64("admit.wait.duration", o.Waited.Seconds()))
	}
	return attrs
}

// causeOf returns what an error says beside the answer.
func causeOf(err error) string {
	if e, ok := err.(*Error); ok && e != nil {
		err = e.cause // the rest is the answer
	}
	if err == nil {
		return ""
	}
	return fmt.Sprint(err) // a nil one in an interface would panic
}

// client returns the address of the client as the innermost ClientIP has found it.
func (e ending) client() string {
	addr := ClientIPFrom(e.r)
	if found := e.s.outcome.client.Load(); found != nil {
		addr = *found
	}
	if !addr.IsValid() {
		return ""
	}
	return addr.String()
}

// requestID returns the id of the request, also where RequestID is inside a mux.
func (e ending) requestID() string {
	if id := requestIDOf(e.r.Context()); id != "" {
		return id
	}
	return shortened(e.w.Header().Get("X-Request-Id"))
}
