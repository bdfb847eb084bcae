package admit

import (
	"log/slog"
	"net/http"
	"sync/atomic"
	"time"
)

// MaxBody bounds the body of a request in bytes. A Content-Length above is refused at
// once with 413; without one, the handler reads up to the bound and then gets an
// *http.MaxBytesError, which WriteError sends as 413. It panics if bytes is less than
// 1. Decode has no bound of its own inside it.
func MaxBody(bytes int64) Middleware {
	m, err := maxBody(bytes)
	must(err)
	return m
}

func maxBody(bytes int64) (Middleware, error) {
	if bytes < 1 {
		return nil, configFault("MaxBody", "is %d; it is at least 1 byte: leave it out for no bound", bytes)
	}
	return func(next http.Handler) http.Handler {
		return wrap("MaxBody", next, func(in inside, w http.ResponseWriter, r *http.Request) {
			if r.ContentLength > bytes {
				WriteError(w, r, errBodyTooLarge)
				return
			}
			if !hasBody(r) {
				in.ServeHTTP(w, r)
				return
			}
			u := in.bound(w, r)
			defer u.leave()
			u.body.limitTo(bytes)
			in.ServeHTTP(u.w, u.inner)
		})
	}, nil
}

// Wrap bounds the time for the bodies of requests to next. It panics if t is not valid.
// Nothing is set on a request without a body.
func (t BodyTimeout) Wrap(next http.Handler) http.Handler {
	must(t.check())
	var warned atomic.Bool
	return wrap("BodyTimeout.Wrap", next, func(in inside, w http.ResponseWriter, r *http.Request) {
		if !hasBody(r) {
			in.ServeHTTP(w, r)
			return
		}
		wakes := canWake(w)
		if !wakes && warned.CompareAndSwap(false, true) {
			errorWriterOf(r.Context()).log(r, slog.LevelWarn, "admit: BodyTimeout cannot end a Read that waits: a ResponseWriter outside of it has no Unwrap")
		}
		began := time.Now()
		u := in.bound(w, r)
		defer u.leave()
		u.body.timeout = t
		u.state.root().timed.Store(true)
		// The server will read on before it answers, and before it closes after a panic, and shall
		// not wait for longer than a handler would; but not for longer than its own ReadTimeout
		// says either.
		defer func() {
			if server := serverOf(r); wakes && u.body.drains() &&
				(server == nil || server.ReadTimeout == 0 || time.Until(began.Add(server.ReadTimeout)) > t.Grace) {
				u.state.root().rest.read.Store(int64(t.Grace))
			}
		}()
		in.ServeHTTP(u.w, u.inner)
	})
}

func hasBody(r *http.Request) bool {
	return r.Body != nil && r.Body != http.NoBody && r.ContentLength != 0
}

// bounded is a request whose body is one of ours, for one wrapper.
type bounded struct {
	state    *state
	body     *body
	w        http.ResponseWriter
	r, inner *http.Request
	mine     bool // the body is that of this wrapper, not of one outside
}

// bound returns the request with a body that has bounds, for the caller to set. The
// wrappers of a chain share one: the first replaces the body, in the copy of the request
// that is the chain's. Who calls it defers leave.
func (in *inside) bound(w http.ResponseWriter, r *http.Request) bounded {
	if s := in.open; s != nil && s.body != nil {
		return bounded{s, s.body, w, r, r, false}
	}
	s, w, inner := in.fill(w, r, slotBody)
	s.body = &body{source: inner.Body, w: w, http1: r.ProtoMajor == 1, woken: &s.root().woken, alarm: &s.alarm}
	inner.Body = s.body
	return bounded{s, s.body, w, r, inner, true}
}

// leave ends the use of the connection by the body, where it is the caller's.
func (u *bounded) leave() {
	if !u.mine {
		return
	}
	if u.body.spoiled() && !u.state.writer.hijacked {
		closeAfterReply(u.state.writer.ResponseWriter)
	}
	u.body.detach()
	if status := u.state.writer.status; u.body.refused() && (status == http.StatusRequestEntityTooLarge || status == http.StatusRequestTimeout) {
		noteReached(u.state, false)
	}
	u.state.leave(u.r, u.inner)
}

// unbounded warns, once, of places in an InFlight that clients may hold for as long as they
// like: neither a BodyTimeout nor Server.ReadTimeout bounds how long a handler may have to
// wait for a body. This is known when a request has been served: either may be anywhere
// around the handler.
type unbounded struct{ warned atomic.Bool }

// look is called when r, which had a place, has been served.
func (u *unbounded) look(s *state, r *http.Request) {
	if !hasBody(r) || u.warned.Load() || s.writer.status >= 400 || s.root().timed.Load() {
		return
	}
	server := serverOf(r)
	if server == nil || server.ReadTimeout > 0 || u.warned.Swap(true) {
		return
	}
	errorWriterOf(r.Context()).log(r, slog.LevelWarn, "admit: a request with a body had a place in an InFlight, and nothing bounds how long a client may "+
		"take to send one; set BodyTimeout in the Policy, or Server.ReadTimeout")
}
