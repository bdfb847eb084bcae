package admit

import (
	"context"
	"io"
	"net/http"
	"net/netip"
	"sync/atomic"
)

// Middleware is the one shape of every wrapper of this package. It is an alias,
// so that a wrapper is an alice.Constructor as it stands.
type Middleware = func(http.Handler) http.Handler

// state is what the wrappers share about one request. The first wrapper that has
// something to add allocates it as the context of the one copy of the request;
// the wrappers inside it fill slots of the same value.
//
// A slot is filled once and never changes. A wrapper that finds its slot taken is
// inside another of its kind, so it starts a state of its own, which shadows the
// outer value for what is inside it only. Filling is atomic: a wrapper outside may
// read while a handler inside still runs, as it does under http.TimeoutHandler.
type state struct {
	context.Context               // the request's own, outside this state
	outer           *state        // the state that this one shadows, if any
	source          io.ReadCloser // the body before any wrapper; that of the outer state, if any

	// copied is the newest copy of the request that a wrapper has made. Who has that one
	// in hand may replace its body: it is not the server's.
	copied atomic.Pointer[http.Request]

	body atomic.Pointer[body] // the newest body that a wrapper has put in place

	claimed atomic.Uint32 // slots that a wrapper is writing or has written
	filled  atomic.Uint32 // slots that may be read

	requestID string
	clientIP  netip.Addr
	errors    *ErrorWriter
	mediaType string
	seen      *Key // the key that a wrapper inside has found: for logs, never for a decision

	// What needs no allocation of its own because it lives here.
	identity identity
	writer   responseWriter
	place    place
	idHeader [1]string
	values   [1]string
}

type slot uint32

const (
	slotRequestID slot = 1 << iota
	slotClientIP
	slotErrors
	slotMediaType
	slotSeen
	slotIdentity
	slotWriter
	slotValues
	slotPlace
)

type stateKey struct{}

// Value implements context.Context.
func (s *state) Value(key any) any {
	if key == (stateKey{}) {
		return s
	}
	return s.Context.Value(key)
}

// stateOf returns the innermost state of ctx, or nil.
func stateOf(ctx context.Context) *state {
	if s, ok := ctx.(*state); ok {
		return s
	}
	s, _ := ctx.Value(stateKey{}).(*state)
	return s
}

// find returns the innermost state of ctx in which b is filled, or nil.
func find(ctx context.Context, b slot) *state {
	s := stateOf(ctx)
	for s != nil && !s.has(b) {
		s = s.outer
	}
	return s
}

// claim reports whether the caller may write what belongs to b, and then publish it.
func (s *state) claim(b slot) bool { return s.claimed.Or(uint32(b))&uint32(b) == 0 }

func (s *state) publish(b slot) { s.filled.Or(uint32(b)) }

// withdraw makes b unreadable again. It stays claimed.
func (s *state) withdraw(b slot) { s.filled.And(^uint32(b)) }

func (s *state) has(b slot) bool { return s.filled.Load()&uint32(b) != 0 }

// enter returns a state in which the caller may fill b, and the request that
// carries it: r itself where a wrapper outside has made the copy already.
func enter(r *http.Request, b slot) (*state, *http.Request) {
	ctx := r.Context()
	outer := stateOf(ctx)
	if outer != nil && outer.claim(b) {
		return outer, r
	}
	s := newState(r, outer)
	s.claimed.Store(uint32(b))
	inner := r.WithContext(s)
	s.copied.Store(inner)
	return s, inner
}

func newState(r *http.Request, outer *state) *state {
	s := &state{Context: r.Context(), outer: outer, source: r.Body}
	if outer != nil {
		s.source = outer.source
	}
	return s
}

// oneValue returns the values of a header that has one. The first needs no allocation
// where there is a state.
func (s *state) oneValue(value string) []string {
	if s == nil || !s.claim(slotValues) {
		return []string{value}
	}
	s.values[0] = value
	return s.values[:]
}

// identity is the context inside an Auth or WithKey. It shadows the key alone.
type identity struct {
	context.Context
	key  *Key
	auth *Auth // nil: WithKey
}

type identityKey struct{}

// Value implements context.Context.
func (i *identity) Value(key any) any {
	if key == (identityKey{}) {
		return i
	}
	return i.Context.Value(key)
}

// handBack gives the request as the caller of a wrapper knows it what handlers
// set in the copy: the pattern, for metrics outside, and the parsed form, whose
// temporary files the server removes.
func handBack(r, inner *http.Request) {
	if inner != r {
		r.Pattern = inner.Pattern
		r.MultipartForm = inner.MultipartForm
	}
}
