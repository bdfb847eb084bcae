package admit

import (
	"context"
	"io"
	"maps"
	"net/http"
	"net/netip"
	"sync/atomic"
	"time"
)

// The rule of this package: a handler sees what is around it, and nothing else; and
// nothing touches a request or a writer after its ServeHTTP has returned.
//
// A state is what the wrappers of one chain say to what is inside of them. The first
// wrapper with something to say makes it, as the context of a copy of the request; the
// wrappers that stand directly inside fill further slots. As soon as a handler of others
// has the request, nobody fills anything any more: that handler may serve two others, one
// after the other or at once, and what the first leaves is not for the second. A wrapper
// inside such a handler makes a state of its own, with the other one as outer. The same
// goes for a wrapper that finds its slot taken by another of its kind, so that what
// stands between the two still sees the outer value.
//
// So a state has no lock: it is written by the goroutine of its chain before anybody
// else has it, and only read after that. Two members are an exception, and atomic: seen
// and rest, which those inside leave for those outside.
type state struct {
	context.Context        // the request's own, outside of this state
	outer           *state // the next state outside, if any
	filled          slot
	ownHeader       bool // the header of the request is a clone

	requestID string
	clientIP  netip.Addr
	errors    *ErrorWriter
	mediaType string
	identity  identity
	place     place
	body      *body
	counted   [2]any // the Limiters that have counted the request

	// source is the body as the outermost wrapper got it.
	source io.ReadCloser

	// seen is the key that a wrapper inside has found last: for logs, never for a decision.
	seen atomic.Pointer[Key]

	// rest is for the outermost state: what the server may still wait for when all
	// handlers have returned.
	rest struct{ read, write atomic.Int64 }

	// What needs no allocation of its own because it lives here.
	writer responseWriter
	values [4]string // of headers of the response
	used   int       // of values
	sentID [1]string // the request id, in the header of the request
}

type slot uint16

const (
	slotRequestID slot = 1 << iota
	slotClientIP
	slotErrors
	slotMediaType
	slotIdentity
	slotPlace
	slotBody
	slotCounted // the first Limiter
	slotCountedToo
	slotNoStore // a redirect is not to be stored
)

type (
	stateKey    struct{}
	identityKey struct{}
)

// Value implements context.Context.
func (s *state) Value(key any) any {
	switch key {
	case stateKey{}:
		return s
	case identityKey{}:
		if s.filled&slotIdentity != 0 {
			return &s.identity
		}
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
	for s != nil && s.filled&b == 0 {
		s = s.outer
	}
	return s
}

// root returns the outermost state.
func (s *state) root() *state {
	for s.outer != nil {
		s = s.outer
	}
	return s
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

// leave ends the use of the request that fill has returned for r.
func (s *state) leave(r, inner *http.Request) {
	if inner == r {
		return // who made the copy does it
	}
	handBack(r, inner)
	if s.outer == nil && !s.writer.hijacked {
		s.boundRest(r)
	}
}

// handBack gives the request as the caller of a wrapper knows it what handlers set in
// the copy: the pattern, for metrics outside, and the parsed form, whose temporary files
// the server removes. Handlers may share a request, so nothing is written that is so.
func handBack(r, inner *http.Request) {
	if r.Pattern != inner.Pattern {
		r.Pattern = inner.Pattern
	}
	if inner.MultipartForm != nil && r.MultipartForm != inner.MultipartForm {
		// With what belongs to it: it cannot be parsed again.
		r.MultipartForm, r.Form, r.PostForm = inner.MultipartForm, inner.Form, inner.PostForm
	}
}

// header returns the header of r, which carries s, for the chain to change.
func (s *state) header(r *http.Request) http.Header {
	if !s.ownHeader {
		s.ownHeader = true
		if r.Header = maps.Clone(r.Header); r.Header == nil {
			r.Header = make(http.Header)
		}
	}
	return r.Header
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

// note leaves a key for the logs in what is around it.
func note(ctx context.Context, key *Key) {
	for s := stateOf(ctx); s != nil; s = s.outer {
		s.seen.Store(key)
	}
}

// around reports whether a wrapper of the same Limiter or InFlight is around the caller:
// it counts a request once.
func around(ctx context.Context, what any) bool {
	for s := stateOf(ctx); s != nil; s = s.outer {
		if s.filled&slotPlace != 0 && s.place.of == what || s.counted[0] == what || s.counted[1] == what {
			return true
		}
	}
	return false
}

// begins is called by the writer of s before the response begins.
func (s *state) begins(status int) {
	h := s.writer.Header()
	if s.filled&slotRequestID != 0 && len(h["X-Request-Id"]) != 1 {
		// A proxy has added the upstream's, or taken away all that it did not set, as
		// httputil.ReverseProxy does after a 1xx.
		h["X-Request-Id"] = []string{s.requestID}
	}
	if s.filled&slotNoStore != 0 && status >= 300 && status <= 399 && h["Cache-Control"] == nil {
		h["Cache-Control"] = []string{"no-store"}
	}
	if s.body != nil && s.body.exceeded() {
		closeAfterReply(s.writer.ResponseWriter)
	}
}

// boundRest bounds what the server waits for when the outermost wrapper has returned:
// the rest of the body, which it reads, and what it has not sent. It takes the deadlines
// back itself before the next request.
func (s *state) boundRest(r *http.Request) {
	c := http.NewResponseController(s.writer.ResponseWriter)
	if d := s.rest.read.Load(); d > 0 {
		_ = c.SetReadDeadline(time.Now().Add(time.Duration(d)))
	}
	if d := s.rest.write.Load(); d > 0 {
		_ = c.SetWriteDeadline(time.Now().Add(time.Duration(d)))
	}
}
