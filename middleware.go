package admit

import "net/http"

// Middleware is the type of every middleware of this package. It is an alias, so that a
// Middleware is an alice.Constructor too.
type Middleware = func(http.Handler) http.Handler

// wrapper is the handler that every middleware of this package returns.
//
// Middlewares that stand directly inside one another are a chain: a request passes all of them
// before any other code sees it. They share one copy of the request and one state, which each
// hands on to the next. See state.go for what that means.
type wrapper struct {
	serve serveFunc
	next  *wrapper // of the chain; nil for the last one, which calls a handler of others
}

// serveFunc is the work of a middleware: it responds, or lets the request in.
type serveFunc func(in inside, w http.ResponseWriter, r *http.Request)

// wrap returns the wrapper called name around next. It panics on a nil handler, so that a chain
// without a handler cannot be built.
func wrap(name string, next http.Handler, serve serveFunc) http.Handler {
	if isNil(next) {
		panic("admit: " + name + ": the handler is nil")
	}
	inner, ours := next.(*wrapper)
	if !ours {
		inner = &wrapper{serve: func(_ inside, w http.ResponseWriter, r *http.Request) {
			noteReached(r.Context(), true)
			next.ServeHTTP(w, r)
		}}
	}
	return &wrapper{serve, inner}
}

// ServeHTTP begins a chain.
func (h *wrapper) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if stateOf(r.Context()) != nil {
		noteReached(r.Context(), false) // not yet: this chain may still reject it
		noteRoute(r)
		h.serve(inside{next: h.next}, w, r)
		return
	}
	// The files of a form are removed with the request. The server does not remove them if the
	// connection is hijacked or cut by a panic, if a copy of its request has them, or, with Go
	// 1.27, over HTTP/2.
	defer func() {
		if r.MultipartForm != nil {
			_ = r.MultipartForm.RemoveAll()
		}
	}()
	h.serve(inside{next: h.next}, w, r)
}

// inside is the inside of a middleware, to which it admits requests.
type inside struct {
	next *wrapper
	open *state // of the chain so far, which the request carries; nil: there is none yet
}

// ServeHTTP lets the request in: to the next middleware of the chain with the state, or to a handler
// of others, which does not get it. It is small enough to be inlined: a request passes a dozen
// middlewares, and each frame makes the stack grow.
func (in inside) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	in.next.serve(inside{in.next.next, in.open}, w, r)
}

// fill returns a state in which the caller may fill b, and the writer and the request to go on
// with. These are w and r themselves if the chain has such a state already. The caller must defer
// leave.
func (in *inside) fill(w http.ResponseWriter, r *http.Request, b slot) (*state, http.ResponseWriter, *http.Request) {
	s := in.open
	if s == nil || s.filled&b != 0 {
		s = &state{Context: r.Context(), outer: stateOf(r.Context()), source: r.Body}
		if s.outer != nil {
			s.source = s.outer.source
		}
		s.writer.ResponseWriter, s.writer.state = w, s
		w, r = s.writer.expose(), r.WithContext(s)
		in.open = s
	}
	s.filled |= b
	return s, w, r
}

// one returns a header of the response with one value. Each response has a slice of its own,
// since others may change it in place. The first few need no allocation.
func (in *inside) one(value string) []string {
	s := in.open
	if s == nil || s.used == len(s.values) {
		return []string{value}
	}
	i := s.used
	s.values[i] = value
	s.used++
	return s.values[i : i+1 : i+1]
}

// count notes that the Limiter l has counted the request. It is used in the same way as fill.
func (in *inside) count(w http.ResponseWriter, r *http.Request, l any) (*state, http.ResponseWriter, *http.Request) {
	b, i := slotCounted, 0
	if in.open != nil && in.open.filled&slotCounted != 0 {
		b, i = slotCountedToo, 1
	}
	s, w, r := in.fill(w, r, b)
	s.counted[i] = l
	return s, w, r
}
