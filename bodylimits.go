package admit

import (
	"log/slog"
	"net/http"
	"strings"
	"sync/atomic"
	"time"
)

// MaxBody limits the size of a request body in bytes. A larger Content-Length is rejected at
// once with 413. Without a Content-Length, the handler reads up to the limit and then gets an
// *http.MaxBytesError, which WriteError sends as 413. Inside it, Decode has no limit of its
// own. MaxBody panics if bytes is less than 1.
func MaxBody(bytes int64) Middleware {
	m, err := maxBody(bytes)
	must(err)
	return m
}

func maxBody(bytes int64) (Middleware, error) {
	if bytes < 1 {
		return nil, configFault("MaxBody", "is %d; it must be at least 1 byte: leave MaxBody out for no bound", bytes)
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

// Wrap bounds the time for the bodies of requests to next. It does nothing for a request
// without a body. It panics if t is invalid.
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
			errorWriterOf(r.Context()).log(r, slog.LevelWarn, "admit: BodyTimeout cannot interrupt a Read, so a client may stall: "+
				"a ResponseWriter outside it has no Unwrap method; add one (httptest.ResponseRecorder has none either: test slow clients with an httptest.Server)")
		}
		began := time.Now()
		closes := r.Close || strings.EqualFold(r.Header.Get("Expect"), "100-continue") // a late handler may change r later
		u := in.bound(w, r)
		defer u.leave()
		u.body.timeout = t
		u.state.root().timed.Store(true)
		// The server reads the rest before it responds, and before it closes after a panic. It must
		// not wait longer than a handler would, nor longer than its own ReadTimeout.
		defer func() {
			if server := serverOf(r); wakes && u.body.remains(closes || w.Header().Get("Connection") == "close") &&
				(server == nil || server.ReadTimeout == 0 || time.Until(began.Add(server.ReadTimeout)) > t.Grace) {
				u.state.root().rest.read.Store(int64(t.Grace))
				if u.body.readsLate() {
					closeAfterReply(w)
				}
			}
		}()
		in.ServeHTTP(u.w, u.inner)
	})
}

func hasBody(r *http.Request) bool {
	return r.Body != nil && r.Body != http.NoBody && r.ContentLength != 0
}

// bounded is a request with a body of this package, for one middleware.
type bounded struct {
	state    *state
	body     *body
	w        http.ResponseWriter
	r, inner *http.Request
	mine     bool // this middleware made the body, not one outside
}

// bound returns the request with a body whose bounds the caller may set. The middlewares of a
// chain share one body: the first replaces the body of the request, in the copy that belongs to
// the chain. The caller must defer leave.
func (in *inside) bound(w http.ResponseWriter, r *http.Request) bounded {
	if s := in.open; s != nil && s.body != nil {
		return bounded{s, s.body, w, r, r, false}
	}
	s, w, inner := in.fill(w, r, slotBody)
	s.body = &body{source: inner.Body, w: w, http1: r.ProtoMajor == 1, woken: &s.root().woken, alarm: &s.alarm}
	inner.Body = s.body
	return bounded{s, s.body, w, r, inner, true}
}

// leave ends the use of the connection by the body, if the caller made it.
func (u *bounded) leave() {
	if !u.mine {
		return
	}
	if !u.state.writer.hijacked {
		if u.body.busy() && canWake(u.body.w) {
			u.body.settle()
		}
		if u.body.spoiled() {
			closeAfterReply(u.state.writer.ResponseWriter)
		}
	}
	u.body.detach()
	if status := u.state.writer.status; u.body.refused() && (status == http.StatusRequestEntityTooLarge || status == http.StatusRequestTimeout) {
		noteReached(u.state, false)
	}
	u.state.leave(u.r, u.inner)
}

// unbounded warns once if clients may hold places in an InFlight for any length of time,
// because neither a BodyTimeout nor Server.ReadTimeout bounds how long a handler waits for a
// body. It can only tell after a request has been served, since a BodyTimeout may be anywhere
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
