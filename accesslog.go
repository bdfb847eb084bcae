package admit

import (
	"fmt"
	"log/slog"
	"net/http"
)

// AccessLog writes one line to l for each request, when the request has ended. The level is
// LevelInfo whatever the status: ErrorWriter logs failures of the service as errors. Nil is
// slog.Default(). AccessLog may stand outermost of all, also around a mux.
//
// The attributes have the names of OpenTelemetry's HTTP conventions where those exist:
//
//	http.request.method              _OTHER for an unknown method
//	url.path                         without the query, which may hold a key
//	http.route                       the path of the pattern
//	http.response.status_code        see Outcome
//	http.response.body.size          bytes
//	http.server.request.duration     seconds
//	client.address                   as found by ClientIP, else the address of the peer
//	user_agent.original
//	error.type                       the code
//	error                            the cause of the error, which is never sent
//	request_id                       of RequestID
//	admit.key.id, admit.key.owner, admit.plan
//	admit.key.status                 early, expired or revoked, for a rejected key
//	admit.wait.duration              seconds spent waiting for a place
//
// Empty attributes are left out. Text from the client is cut after 512 bytes, and so is the
// error, which may contain such text. A line never has a token, unless an error of the service
// contains one. If a request passes several AccessLogs, only the outermost writes.
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

// attrs appends the attributes of the line.
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

// causeOf returns the text of an error without what is sent.
func causeOf(err error) string {
	if e, ok := err.(*Error); ok && e != nil {
		err = e.cause // the rest is sent
	}
	if err == nil {
		return ""
	}
	return fmt.Sprint(err) // which recovers if err is a nil pointer in an interface
}

// client returns the address of the client, as found by the innermost ClientIP.
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

// requestID returns the id of the request, even if RequestID is inside a mux.
func (e ending) requestID() string {
	if id := requestIDOf(e.r.Context()); id != "" {
		return id
	}
	return shortened(e.w.Header().Get("X-Request-Id"))
}
