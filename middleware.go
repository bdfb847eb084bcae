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
	next  http.Handler
}

// serveFunc is the work of a wrapper: it answers, or lets the request in.
type serveFunc func(in inside, w http.ResponseWriter, r *http.Request)

// wrap returns the wrapper called name around next. It panics on a nil handler, which
// keeps a chain that ends in nothing from being built.
func wrap(name string, next http.Handler, serve serveFunc) http.Handler {
	if next == nil {
		panic("admit: " + name + ": the handler is nil")
	}
	return &wrapper{serve, next}
}

// ServeHTTP begins a chain.
func (h *wrapper) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h.serve(inside{next: h.next}, w, r)
}

// inside is what a wrapper lets a request in to.
type inside struct {
	next http.Handler
	open *state // of the chain so far, which the request carries; nil: there is none to fill
}

// ServeHTTP lets the request in: to the next wrapper of the chain with the state, or to
// a handler of others, for which the state is closed.
func (in inside) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if h, ours := in.next.(*wrapper); ours {
		h.serve(inside{h.next, in.open}, w, r)
		return
	}
	in.next.ServeHTTP(w, r)
}
