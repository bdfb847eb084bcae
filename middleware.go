package admit

import "net/http"

// Middleware is the one shape of every wrapper of this package. It is an alias,
// so that a wrapper is an alice.Constructor as it stands.
type Middleware = func(http.Handler) http.Handler

// wrapper is the handler that every wrapper of this package returns.
//
// Wrappers that stand directly inside one another are a chain: a request passes all of
// them before anybody else sees it. They share one copy of the request and one state,
// which each hands on to the next: see state.go for what that means.
type wrapper struct {
	serve serveFunc
	next  *wrapper // of the chain; one that calls a handler of others has none
}

// serveFunc is the work of a wrapper: it answers, or lets the request in.
type serveFunc func(in inside, w http.ResponseWriter, r *http.Request)

// wrap returns the wrapper called name around next. It panics on a nil handler, which
// keeps a chain that ends in nothing from being built.
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
		noteReached(r.Context(), false) // what is before has let it through, and we may not
		noteRoute(r)
		h.serve(inside{next: h.next}, w, r)
		return
	}
	// The files of a form go with the request. The server leaves those of a connection that
	// is cut by a panic or hijacked, of a copy of its request, and of all requests over HTTP/2
	// with Go 1.27.
	defer func() {
		if r.MultipartForm != nil {
			_ = r.MultipartForm.RemoveAll()
		}
	}()
	h.serve(inside{next: h.next}, w, r)
}

// inside is what a wrapper lets a request in to.
type inside struct {
	next *wrapper
	open *state // of the chain so far, which the request carries; nil: there is none to fill
}

// ServeHTTP lets the request in: to the next wrapper of the chain with the state, or to
// a handler of others, which does not get it. It is small, so that the compiler puts it in the
// place of each call: a request passes a dozen wrappers, and each frame is one more of a stack
// that has to grow.
func (in inside) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	in.next.serve(inside{in.next.next, in.open}, w, r)
}

// fill returns a state in which the caller may fill b, and the writer and the request to
// go on with: those that it got, where the chain has such a state. Who calls it defers
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

// one returns the values of a header of the response that has one. Each response has its
// own: others may change them in place. Some need no allocation.
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

// count leaves a note that the Limiter l has counted the request. It is used as fill is.
func (in *inside) count(w http.ResponseWriter, r *http.Request, l any) (*state, http.ResponseWriter, *http.Request) {
	b, i := slotCounted, 0
	if in.open != nil && in.open.filled&slotCounted != 0 {
		b, i = slotCountedToo, 1
	}
	s, w, r := in.fill(w, r, b)
	s.counted[i] = l
	return s, w, r
}
