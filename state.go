package admit

import (
	"context"
	"io"
	"maps"
	"net/http"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/admit-go/admit/internal/alarm"
)

// The rule of this package: a handler sees what is around it, and nothing else; and nothing
// touches a request or a writer after its ServeHTTP has returned.
//
// A state is what the middlewares of one chain tell what is inside of them. The first middleware that
// has something to tell makes the state, as the context of a copy of the request. The middlewares
// that stand directly inside fill further slots. As soon as a handler of others has the request,
// nothing is filled any more: that handler may serve two others, one after the other or at once,
// and what the first leaves is not for the second. A middleware inside such a handler makes a state
// of its own, with the first as outer. So does a middleware that finds its slot filled by another of
// its kind, so that what stands between the two still sees the outer value.
//
// So a state needs no lock: the goroutine of its chain writes it before any other code has it,
// and after that it is only read. Seven fields are exceptions, and atomic: seen, shed, timed,
// woken, reached, rest and outcome. What is inside sets them for what is outside.
type state struct {
	context.Context        // the request's own, outside of this state
	outer           *state // the next state outside, if any
	filled          slot
	ownHeader       bool // the header of the request has been cloned

	requestID string
	clientIP  netip.Addr
	errors    *ErrorWriter
	mediaType string
	identity  identity
	place     place // in an InFlight
	work      place // in a Shedder
	body      *body
	ahead     *ahead // what InFlight has read of the body
	counted   [2]any // the Limiters that have counted the request
	metered   any    // the Quotas that count the request
	outcome   outcome

	// source is the body as the outermost middleware got it.
	source io.ReadCloser

	// seen is the last key that a middleware inside has found: for logs, never for a decision.
	seen atomic.Pointer[Key]

	// shed says that a Shedder inside has rejected the request. In the outermost state, timed says
	// that the body has a BodyTimeout, and woken that a Read of it was woken, which the server
	// takes for a client that has left.
	shed, timed, woken atomic.Bool

	// reached says whether the request got through the middlewares inside to a handler, and its body
	// was not rejected. It is for Quotas.
	reached atomic.Bool

	// rest is for the outermost state: how long the server may still read and write when all
	// handlers have returned.
	rest struct{ read, write atomic.Int64 }

	alarm alarm.Alarm // for the times of the chain

	// These need no allocations of their own because they are here.
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
	slotWork
	slotBody
	slotCounted // the first Limiter
	slotCountedToo
	slotNoStore // a redirect must not be stored
	slotOutcome
	slotMetered
)

// identity is the key of the caller, as a middleware has found it.
type identity struct {
	key    *Key
	by     any  // the Auth that has found it; nil: WithKey
	bearer bool // whether it may have come as a Bearer token
}

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

// leave ends the use of the request that fill has returned for r.
func (s *state) leave(r, inner *http.Request) {
	if inner == r {
		return // the middleware that made the copy does it
	}
	handBack(r, inner)
	if s.writer.hijacked {
		return
	}
	if s.writer.status == 0 {
		s.begins(http.StatusOK) // nothing was written: the server will send 200
	}
	if s.outer == nil {
		s.boundRest()
	}
}

// handBack copies what handlers set in the copy of the request to the request of the caller: the
// pattern, for metrics outside, and the parsed form, whose temporary files the outermost middleware
// removes. Handlers may share a request, so nothing is written that is the same already.
func handBack(r, inner *http.Request) {
	if r.Pattern != inner.Pattern {
		r.Pattern = inner.Pattern
	}
	if inner.MultipartForm != nil && r.MultipartForm != inner.MultipartForm {
		// All three together, since the form cannot be parsed again.
		r.MultipartForm, r.Form, r.PostForm = inner.MultipartForm, inner.Form, inner.PostForm
	}
}

// outcome is what middlewares and handlers inside tell observers about the end of a request.
type outcome struct {
	kinds   uint64                 // of the observers, a bit for each
	route   atomic.Pointer[string] // from SetRoute
	matched atomic.Pointer[string] // the pattern of the request when it came to a handler of ours
	failure atomic.Pointer[failure]
	client  atomic.Pointer[netip.Addr]
	waited  atomic.Int64
}

// failure is an error that ends a request.
type failure struct {
	err  error
	e    *Error // the Error for it; nil: there is none
	sent bool
}

// eachObserved calls f with the outcome of every state that an observer has filled.
func eachObserved(ctx context.Context, f func(*outcome)) {
	for s := find(ctx, slotOutcome); s != nil; s = s.outer {
		if s.filled&slotOutcome != 0 {
			f(&s.outcome)
		}
	}
}

// noteFailure notes the error that ends the request, unless its handler is late: then the Timeout
// has responded.
func noteFailure(ctx context.Context, err error, e *Error, sent bool) {
	if find(ctx, slotOutcome) == nil || late(ctx) {
		return
	}
	failed := &failure{err, e, sent}
	eachObserved(ctx, func(o *outcome) { o.failure.Store(failed) })
}

// noteWaited adds the time since the request began to wait for a place.
func noteWaited(ctx context.Context, since time.Time) {
	waited := int64(time.Since(since))
	eachObserved(ctx, func(o *outcome) { o.waited.Add(waited) })
}

// patterns has a copy of each pattern, so that a request need not allocate one. It is bounded,
// since a careless router may make up any number of patterns.
var patterns struct {
	sync.Map // of string to *string
	n        atomic.Int64
}

const maxPatterns = 10_000

// noteRoute notes the pattern of r: r may be a copy of the request that observers have, and its
// handler may never return to them.
func noteRoute(r *http.Request) {
	if r.Pattern == "" || find(r.Context(), slotOutcome) == nil {
		return
	}
	kept, known := patterns.Load(r.Pattern)
	if !known {
		pattern := r.Pattern
		kept = &pattern
		if patterns.n.Add(1) <= maxPatterns {
			kept, _ = patterns.LoadOrStore(pattern, kept)
		}
	}
	eachObserved(r.Context(), func(o *outcome) { o.matched.Store(kept.(*string)) })
}

// noteClient notes the address of the client. It must not be changed any more.
func noteClient(ctx context.Context, client *netip.Addr) {
	eachObserved(ctx, func(o *outcome) { o.client.Store(client) })
}

// header returns the header of r, which carries s, as a clone that the chain may change.
func (s *state) header(r *http.Request) http.Header {
	if !s.ownHeader {
		s.ownHeader = true
		if r.Header = maps.Clone(r.Header); r.Header == nil {
			r.Header = make(http.Header)
		}
	}
	return r.Header
}

// note leaves a key for the logs in every state around.
func note(ctx context.Context, key *Key) {
	for s := stateOf(ctx); s != nil; s = s.outer {
		s.seen.Store(key)
	}
}

// requestIDOf returns the id of the request of ctx, or "".
func requestIDOf(ctx context.Context) string {
	if s := find(ctx, slotRequestID); s != nil {
		return s.requestID
	}
	return ""
}

// identityOf returns what Auth or WithKey around the caller has found, or nil. Decisions are made
// by this.
func identityOf(ctx context.Context) *identity {
	if id, _ := ctx.Value(identityKey{}).(*identity); id != nil && id.key != nil {
		return id
	}
	return nil
}

// bodyOf returns the innermost of our bodies that the request of ctx has, or nil, even if a
// handler has put another body around it.
func bodyOf(ctx context.Context) *body {
	if s := find(ctx, slotBody); s != nil {
		return s.body
	}
	return nil
}

// bodyLimit returns the smallest bound of the bodies that the request of ctx has.
func bodyLimit(ctx context.Context) (limit int64, limited bool) {
	for s := find(ctx, slotBody); s != nil; s = s.outer {
		if b := s.body; b != nil && b.limited && (!limited || b.limit < limit) {
			limit, limited = b.limit, true
		}
	}
	return limit, limited
}

// tooSlow reports whether the body of the request of ctx did not come in time.
func tooSlow(ctx context.Context) bool {
	b := bodyOf(ctx)
	return b != nil && b.failedWith(errBodyTooSlow)
}

// wokeBody reports whether a Read of the body of ctx was woken, even by a middleware further inside.
func wokeBody(ctx context.Context) bool {
	s := stateOf(ctx)
	return s != nil && s.root().woken.Load()
}

// bodyBroke reports whether err is the error of a Read of the body of ctx: it was cut off, or it
// is malformed. It does not know of bodies that others have put in its place.
func bodyBroke(ctx context.Context, err error) bool {
	return anyBody(ctx, func(b *body) bool { return b.brokeWith(err) })
}

// bodyBusy reports whether another goroutine is reading one of our bodies, and bodySpoiled whether
// the connection cannot carry another request.
func bodyBusy(ctx context.Context) bool    { return anyBody(ctx, (*body).busy) }
func bodySpoiled(ctx context.Context) bool { return anyBody(ctx, (*body).spoiled) }

func anyBody(ctx context.Context, is func(*body) bool) bool {
	for s := find(ctx, slotBody); s != nil; s = s.outer {
		if s.body != nil && is(s.body) {
			return true
		}
	}
	return false
}

// sourceOf returns the body as it was outside of the middlewares of this package.
func sourceOf(r *http.Request) io.Reader {
	if s := stateOf(r.Context()); s != nil && s.source != nil {
		return s.source
	}
	return r.Body
}

// noteShed tells the middlewares outside that a Shedder rejects the request.
func noteShed(ctx context.Context) {
	for s := stateOf(ctx); s != nil; s = s.outer {
		s.shed.Store(true)
	}
}

// wasShed reports whether the response is the refusal of a Shedder.
func (s *state) wasShed() bool {
	return s != nil && s.shed.Load() && s.writer.status == http.StatusTooManyRequests
}

// metering says that there are Quotas, which need to know whether a handler was reached.
var metering atomic.Bool

// noteReached tells the Quotas outside whether the request has got through the middlewares inside.
func noteReached(ctx context.Context, reached bool) {
	if !metering.Load() {
		return
	}
	for s := find(ctx, slotMetered); s != nil; s = s.outer {
		if s.filled&slotMetered != 0 {
			s.reached.Store(reached)
		}
	}
}

// eachPlace calls f with every place that the request of ctx has, from the innermost InFlight or
// Shedder outwards.
func eachPlace(ctx context.Context, f func(*place)) {
	for s := find(ctx, slotPlace|slotWork); s != nil; s = s.outer {
		if s.filled&slotWork != 0 {
			f(&s.work)
		}
		if s.filled&slotPlace != 0 {
			f(&s.place)
		}
	}
}

// holdPlaces holds every place that the request of ctx has, and appends it to held. Each must be
// released.
func holdPlaces(ctx context.Context, held []*place) []*place {
	eachPlace(ctx, func(p *place) {
		if p.hold() {
			held = append(held, p)
		}
	})
	return held
}

// lendPlaces is for a request that has its response, and only waits for its client. It lends the
// places, and appends them to lent. Each must be reclaimed, since the handler may go on. A place
// in which a late handler still works is not lent.
func lendPlaces(ctx context.Context, lent []*place) []*place {
	eachPlace(ctx, func(p *place) {
		waiting := int32(1)
		runsOf(ctx, func(run *timedRun) {
			if slices.Contains(run.held, p) {
				waiting++
			}
		})
		if p.lend(waiting) {
			lent = append(lent, p)
		}
	})
	return lent
}

// around reports whether the same Limiter, Quotas, InFlight or Shedder is already around the
// request, which it counts once. For an InFlight or a Shedder, the request must still have its
// place: a stream without a place, or work that goes on after its request, takes one for requests
// that it sends through again.
func around(ctx context.Context, what any) bool {
	for s := stateOf(ctx); s != nil; s = s.outer {
		if s.place.isOf(what) || s.work.isOf(what) || s.counted[0] == what || s.counted[1] == what || s.metered == what {
			return true
		}
	}
	return false
}

// begins is called before the response begins, by the writer of s or by leave.
func (s *state) begins(status int) {
	h := s.writer.Header()
	if s.filled&slotRequestID != 0 && len(h["X-Request-Id"]) != 1 {
		// A proxy has added the ID of the upstream, or removed all headers that it did not set
		// itself, as httputil.ReverseProxy does after a 1xx.
		h["X-Request-Id"] = []string{s.requestID}
	}
	if s.filled&slotNoStore != 0 && status >= 300 && status <= 399 && h["Cache-Control"] == nil {
		h["Cache-Control"] = []string{"no-store"}
	}
	if s.body != nil && s.body.spoiled() {
		closeAfterReply(s.writer.ResponseWriter)
	}
}

// restOfBody returns how long to wait for the rest of the body once the handler has returned.
func (s *state) restOfBody() time.Duration {
	if d := s.root().rest.read.Load(); d > 0 {
		return time.Duration(d)
	}
	return aheadRest
}

// boundRest bounds what the server waits for when the outermost middleware has returned: the rest of
// the body, which it reads, and what it has not sent. The server resets the deadlines itself
// before the next request.
func (s *state) boundRest() {
	c := http.NewResponseController(s.writer.ResponseWriter)
	if d := s.rest.read.Load(); d > 0 {
		_ = c.SetReadDeadline(time.Now().Add(time.Duration(d)))
	}
	if d := s.rest.write.Load(); d > 0 {
		_ = c.SetWriteDeadline(time.Now().Add(time.Duration(d)))
	}
}
