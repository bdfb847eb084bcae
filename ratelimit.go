package admit

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/admit-go/admit/internal/lists"
)

// StoreDown says what a Limiter or a Quotas does while its Store is down.
type StoreDown int

const (
	// LimitLocally decides in the memory of this process, by its share of the limits or quotas:
	// see Replicas.
	LimitLocally StoreDown = iota
	// AdmitAll admits every request, without headers.
	AdmitAll
	// RefuseAll rejects with 503, the code store_unavailable and Retry-After.
	RefuseAll
)

// String returns the name of the constant.
func (s StoreDown) String() string {
	switch s {
	case LimitLocally:
		return "LimitLocally"
	case AdmitAll:
		return "AdmitAll"
	case RefuseAll:
		return "RefuseAll"
	default:
		return "StoreDown(" + strconv.Itoa(int(s)) + ")"
	}
}

// LimiterConfig configures NewLimiter.
type LimiterConfig struct {
	// Name is the namespace of the Limiter in Store. Limiters with one Name in one Store share
	// their buckets. Required with Store. Permitted: 1 to 64 characters of A-Z a-z 0-9 . _ -
	Name string
	// Limits are the limits of every caller, unless LimitsFor, the caller's Key or Plans has
	// others. A request is admitted if all of them have room, and takes from all. Required.
	// Permitted: 1 to 16 limits, whose names differ.
	Limits []Limit
	// Plans has limits that replace Limits for callers whose Key has one of the plans. The
	// limits of a Key itself replace both. A Key with a plan that is not in Plans has Limits, and
	// is logged once, for the first 1,000 of these keys.
	Plans *Plans
	// Store keeps the buckets. Default: the memory of this Limiter. A request waits for Store at
	// most 400 ms. After a call that timed out, or failed after 100 ms or more, Store is not
	// asked until a probe, once a second, succeeds. What a late call takes stays taken.
	Store LimitStore
	// StoreDown says what to do while Store is down. One line is logged when the outage begins,
	// and one when it is over, with its duration and the number of decisions without Store.
	// Permitted: LimitLocally (the default), AdmitAll and RefuseAll; the last two need a Store.
	StoreDown StoreDown
	// Replicas is how many processes share Store. While Store is down, LimitLocally gives each
	// process its share, less what it admitted before: Requests in each Per*Replicas, and
	// Burst/Replicas, rounded down but at least 1. A cost that only the whole Burst holds gets
	// 503, as with RefuseAll. Zero means that each process applies the whole limits in an
	// outage, and the log warns of that. It needs a Store.
	Replicas int
	// Lease lets this process take requests ahead from Store, so that most requests need no call
	// to it. It needs Store and Replicas. The zero Lease asks Store for each request.
	Lease Lease

	// CountBy returns a string for the requests that share buckets, such as
	// r.Pattern + " " + Caller(r). That example needs a Limiter at the routes of a mux: around
	// the mux, Pattern is still empty. Requests with one string are one caller, with or without
	// a Key, even if it is "". Default: Caller.
	CountBy func(*http.Request) string
	// Cost returns what a request takes from the buckets. A request that costs 0 or less takes
	// nothing and is admitted. Default: 1.
	Cost func(*http.Request) int
	// LimitsFor returns limits for one request, such as those of a tenant, which replace all
	// others. If it returns none, the others hold. Lists that come again cost little. For limits
	// that NewLimiter does not accept, the request gets 500, and the log has the reason.
	LimitsFor func(*http.Request) []Limit
	// Skip exempts a request: it is admitted without a count and without headers.
	Skip func(*http.Request) bool
	// Refund reports whether to give back the cost of a request, by the status of its response.
	// It is called when the handler has returned, so that the headers have been sent without it.
	// The status is 500 for a panic before the response began, 499 if the client left before
	// that, and 101 for a hijacked connection. By default, nothing is given back.
	Refund func(status int) bool
	// DryRun admits every request. The Limiter still decides, sends headers and calls Observe.
	DryRun bool
	// LegacyHeaders adds X-RateLimit-Limit, X-RateLimit-Remaining and X-RateLimit-Reset (in
	// seconds from now), for the limit that is nearest to exhaustion.
	LegacyHeaders bool
	// Observe is called with each decision, for metrics, before the request is admitted or
	// rejected. It must be safe for concurrent use.
	Observe func(*http.Request, LimitEvent)
}

// LimitEvent is one decision of a Limiter, for LimiterConfig.Observe. Its values are copies.
type LimitEvent struct {
	Limiter  string   // LimiterConfig.Name
	Cost     int      // what the request costs
	Decision Decision // if it does not allow the request, it was rejected, unless DryRun is set
	Err      error    // the error of a Store that is down
}

// Limiter is a middleware that limits how often each caller may send requests. All handlers that
// it wraps share its buckets. It is safe for concurrent use.
type Limiter struct {
	c      LimiterConfig
	base   *limitSet
	store  *guardedStore // nil: memory
	leases *leases       // of store; nil: none
	memory *MemoryStore  // also for LimitLocally; else nil
	made   made

	plans   map[string]*limitSet          // of the plans that have limits of their own
	lists   lists.Cache[Limit, *limitSet] // of keys, and of LimitsFor
	wraps   atomic.Int32                  // handlers that it is around
	unknown firsts                        // keys whose plan is not known

	refusals [64]atomic.Pointer[Error] // the last ones, by the seconds to wait
}

// RateLimit returns a middleware that limits how often each caller may send requests, in the
// memory of this process. A caller is a Key if the request has one, and otherwise a client
// address, IPv6 by /64. All handlers that one RateLimit wraps share its buckets.
//
// A request beyond a limit gets 429 with the code rate_limited and Retry-After; a lone caller
// that waits for that time is admitted. Responses have RateLimit-Policy and RateLimit
// (draft-ietf-httpapi-ratelimit-headers-11).
//
// RateLimit counts by Key only inside an Auth; outside of it, every request is counted by
// address. Two RateLimits in one chain need limits with different names, or clients see two
// members "second" and cannot tell them apart. It panics on limits that [LimiterConfig] does not
// permit.
func RateLimit(limits ...Limit) Middleware {
	l, err := NewLimiter(LimiterConfig{Limits: limits})
	must(renamed("LimiterConfig.Limits", "RateLimit", err))
	return l.Wrap
}

// NewLimiter returns a Limiter. The error has every problem of the configuration; the Limiter
// returned with it cannot serve.
func NewLimiter(c LimiterConfig) (*Limiter, error) {
	var f faults
	base, err := newLimitSet(c.Limits)
	f.within("LimiterConfig.Limits", err)
	if c.Store == nil && c.Replicas != 0 {
		f.add("LimiterConfig.Replicas", "is %d, but there is no Store to share; leave it out, or set Store", c.Replicas)
	}
	if c.Store == nil && c.StoreDown != LimitLocally {
		f.add("LimiterConfig.StoreDown", "is %v, but there is no Store that could be down; leave it out, or set Store", c.StoreDown)
	}
	if c.Store != nil {
		f.value("LimiterConfig.Store", c.Store)
		if c.Name == "" {
			f.add("LimiterConfig.Name", "is empty; a Store needs one, so that two services do not share buckets by accident")
		}
	}
	if c.Name != "" && !validLimiterName(c.Name) {
		f.add("LimiterConfig.Name", "is %q; it may have 1 to 64 of A-Z a-z 0-9 . _ -", c.Name)
	}
	if c.Plans != nil {
		f.value("LimiterConfig.Plans", c.Plans)
	}
	if c.Replicas < 0 {
		f.add("LimiterConfig.Replicas", "is %d; it is the number of processes that share the Store, or 0", c.Replicas)
	}
	if c.StoreDown < LimitLocally || c.StoreDown > RefuseAll {
		f.add("LimiterConfig.StoreDown", "is %v; it is LimitLocally, AdmitAll or RefuseAll", c.StoreDown)
	}
	c.Lease.check(&f, &c)
	if err := f.err(); err != nil {
		return &Limiter{made: made{err: err}}, err
	}

	l := &Limiter{c: c, base: base, made: made{ok: true}}
	if c.Plans != nil {
		l.plans = make(map[string]*limitSet)
		for _, plan := range c.Plans.plans {
			if len(plan.Limits) > 0 {
				l.plans[plan.Name], _ = newLimitSet(plan.Limits) // NewPlans has looked at them
			}
		}
	}
	if m, ok := c.Store.(*MemoryStore); ok {
		l.memory = m
	} else {
		if c.Store != nil {
			l.store = newGuardedStore(c.Store)
		}
		if c.Store == nil || c.StoreDown == LimitLocally {
			l.memory, _ = NewMemoryStore(MemoryStoreConfig{}) // never fails
		}
	}
	if l.store != nil && c.Lease != (Lease{}) {
		l.leases = newLeases(l.store, c.Lease.For)
	}
	if err := l.divide(); err != nil {
		return &Limiter{made: made{err: err}}, err
	}
	return l, nil
}

// divide computes the shares of processes, and what a Lease may take ahead.
func (l *Limiter) divide() error {
	var f faults
	f.within("LimiterConfig.Replicas", l.divideSet(l.base))
	for _, set := range l.plans {
		f.within("LimiterConfig.Replicas", l.divideSet(set))
	}
	return f.err()
}

func (l *Limiter) divideSet(set *limitSet) error {
	if l.leases != nil {
		set.lease = l.c.Lease.terms(set.limits, l.c.Replicas)
	}
	if l.store != nil && l.memory != nil {
		return set.divide(l.c.Replicas)
	}
	return nil
}

func (l *Limiter) fault() error {
	if l == nil {
		return (*made)(nil).fault("Limiter")
	}
	return l.made.fault("Limiter")
}

func validLimiterName(name string) bool {
	return len(name) <= 64 && validRequestID(name) // the same characters
}

// Wrap returns a handler that limits the requests to next. A request that is inside another Wrap
// of l is counted once.
func (l *Limiter) Wrap(next http.Handler) http.Handler {
	must(l.fault())
	l.wraps.Add(1)
	return wrap("Limiter.Wrap", next, l.handle)
}

func (l *Limiter) handle(in inside, w http.ResponseWriter, r *http.Request) {
	if around(r.Context(), l) || l.c.Skip != nil && l.c.Skip(r) {
		in.ServeHTTP(w, r)
		return
	}
	var a admission
	if err := l.admit(&a, in, w.Header(), r); err != nil {
		WriteError(w, r, err)
		return
	}
	// The note is for this Limiter inside itself, and for a Shedder inside. If it would cost a copy
	// of the request, and neither can be there, it is left out.
	byAddress := a.who.class == unkeyed && l.c.CountBy == nil
	var s *state
	if in.open != nil || l.wraps.Load() > 1 || !byAddress && shedding.Load() {
		counted, inw, inner := in.count(w, r, l)
		defer counted.leave(r, inner)
		s, w, r = counted, inw, inner
	}
	if a.taken && l.c.Refund != nil {
		l.serve(in, w, r, func(status int) {
			if l.c.Refund(status) || !byAddress && s.wasShed() {
				l.refund(r, &a)
			}
		})
		return
	}
	in.ServeHTTP(w, r)
	if a.taken && !byAddress && s.wasShed() {
		l.refund(r, &a)
	}
}

// admission is what a Limiter has let in.
type admission struct {
	who    caller
	set    *limitSet
	cost   int
	taken  bool  // the cost was taken: it is above 0, and the decision was not changed by DryRun
	outage error // of the store, which was then not part of the decision
}

// admit decides about a request and fills a. It tells the client by headers, and Observe. The
// error is for a request that is rejected. It is a function of its own so that its stack frame is
// gone before the handler is called.
func (l *Limiter) admit(a *admission, in inside, h http.Header, r *http.Request) error {
	set, unusable := l.limitsOf(r)
	if unusable != nil {
		return unusable
	}
	a.who, a.set, a.cost = l.caller(r), set, l.costOf(r)
	var few [4]LimitState
	d, outage := l.decide(r, few[:0], a.who, set, a.cost)
	if gone := r.Context().Err(); outage != nil && gone != nil {
		return gone // this is no outage
	}
	rules := set.rules
	if outage != nil {
		rules = set.shares
	}
	set.writeHeaders(in, h, d, rules, a.cost, l.c.LegacyHeaders)
	l.tell(r, a.cost, set, d, outage)
	if !d.Allowed && !l.c.DryRun {
		return l.refusal(set, d, outage)
	}
	a.taken, a.outage = d.Allowed && a.cost > 0, outage
	return nil
}

// Take decides without a response. It is for the messages of a WebSocket, or for a resource that
// shows a caller what is left. It counts by the same rules as Wrap, whether or not Wrap has
// counted the request. A negative cost gives back, and 0 only looks. Take calls Observe, but
// neither Skip nor Cost, and writes no header.
//
// A refusal is not an error: see Decision.Allowed, which is always true with DryRun. The error is
// that of the context of r, or an *Error: 503 if the Store is down and StoreDown has no other
// decision, 403 for a key that may not be used from this address, and 500 for a Key without an ID
// or with limits that are not valid.
func (l *Limiter) Take(r *http.Request, cost int) (Decision, error) {
	if err := l.fault(); err != nil {
		return Decision{}, errInternal.WithCause(err)
	}
	set, err := l.limitsOf(r)
	if err != nil {
		return Decision{}, err
	}
	d, outage := l.decide(r, make([]LimitState, 0, len(set.limits)), l.caller(r), set, cost)
	if gone := r.Context().Err(); outage != nil && gone != nil {
		return Decision{}, gone
	}
	l.tell(r, cost, set, d, outage)
	if outage != nil && !d.Allowed && len(d.States) == 0 {
		return Decision{}, l.refusal(set, d, outage)
	}
	d.Limits = slices.Clone(set.limits)
	d.Allowed = d.Allowed || l.c.DryRun
	return d, nil
}

// tell reports a decision to the log and to Observe.
func (l *Limiter) tell(r *http.Request, cost int, set *limitSet, d Decision, outage error) {
	if outage != nil {
		l.logOutage(r, outage)
	}
	if l.c.Observe != nil {
		// A copy: with d itself, the states of each request would escape to the heap.
		copied := Decision{d.Allowed, d.RetryAfter, slices.Clone(d.States), slices.Clone(set.limits)}
		l.c.Observe(r, LimitEvent{l.c.Name, cost, copied, outage})
	}
}

// decide asks the store. If that fails, it does what StoreDown says, and returns the error too.
func (l *Limiter) decide(r *http.Request, states []LimitState, who caller, set *limitSet, cost int) (Decision, error) {
	if l.store == nil {
		return l.memory.take(states, who.class, who.id, cost, set.rules), nil
	}
	d, asked, err := l.ask(r.Context(), states, who, set, cost)
	switch {
	case err == nil:
		if asked {
			l.store.worked(r, slog.String("limiter", l.c.Name))
		}
		if d.Allowed && l.memory != nil {
			// The cost is taken from the share of this process too, so that callers gain nothing
			// from a Store that fails now and then.
			var unused [4]LimitState
			l.memory.take(unused[:0], who.class, who.id, cost, set.shares)
		}
		return d, nil
	case r.Context().Err() != nil || l.c.StoreDown == RefuseAll:
		return Decision{}, err
	case l.c.StoreDown == AdmitAll:
		return Decision{Allowed: true}, err
	}
	local := l.memory.take(states, who.class, who.id, cost, set.shares)
	if local.RetryAfter < 0 && set.holds(cost) {
		return Decision{}, err // the whole Burst holds the cost, but the share does not
	}
	return local, err
}

// ask asks the store, unless a lease can decide.
func (l *Limiter) ask(ctx context.Context, states []LimitState, who caller, set *limitSet, cost int) (d Decision, asked bool, err error) {
	if l.leases != nil {
		return l.leases.take(ctx, states, who, set, cost)
	}
	d, err = l.store.take(ctx, who.key, cost, slices.Clone(set.limits))
	return d, true, err
}

// refusal returns the error for a decision that does not allow the request.
func (l *Limiter) refusal(set *limitSet, d Decision, outage error) error {
	switch {
	case outage != nil && len(d.States) == 0:
		return errStoreUnavailable.WithCause(fmt.Errorf("take from the limit store: %w", outage))
	case d.RetryAfter < 0:
		e := *errCostsTooMuch
		e.limits = set.reached(d.States)
		return &e
	}
	seconds := max(ceilSeconds(d.RetryAfter), 1)
	wait := time.Duration(seconds) * time.Second
	last := &l.refusals[seconds%int64(len(l.refusals))]
	if e := last.Load(); e != nil && e.RetryAfter == wait && set.areReached(d.States, e.limits) {
		return e
	}
	e := &Error{
		Status:     http.StatusTooManyRequests,
		Code:       "rate_limited",
		Message:    "The rate limit is reached. Try again later.",
		RetryAfter: wait,
		limits:     set.reached(d.States),
	}
	last.Store(e)
	return e
}

// serve lets a request in, and calls done with the status of the response.
func (l *Limiter) serve(in inside, w http.ResponseWriter, r *http.Request, done func(status int)) {
	w = track(w)
	t := tracker(w)
	if t.client == nil { // otherwise an observer has set it; the context here may end with a handler
		t.client = r.Context()
	}
	returned := false
	defer func() { done(t.ended(returned)) }()
	in.ServeHTTP(w, r)
	returned = true
}

// refund gives the cost back to where it was taken. The client may have left.
func (l *Limiter) refund(r *http.Request, a *admission) {
	if l.store == nil {
		l.memory.take(nil, a.who.class, a.who.id, -a.cost, a.set.rules)
		return
	}
	if l.memory != nil {
		l.memory.take(nil, a.who.class, a.who.id, -a.cost, a.set.shares)
	}
	if a.outage != nil {
		return
	}
	if _, _, err := l.ask(context.WithoutCancel(r.Context()), nil, a.who, a.set, -a.cost); err != nil {
		l.logOutage(r, err)
	}
}

func (l *Limiter) logOutage(r *http.Request, err error) {
	attrs := []slog.Attr{slog.String("limiter", l.c.Name)}
	if l.memory != nil && l.c.Replicas == 0 {
		attrs = append(attrs, slog.String("warning", "LimiterConfig.Replicas is not set, so each process admits as much as all should admit together"))
	}
	l.store.failed(r, err, attrs...)
}

func (l *Limiter) costOf(r *http.Request) int {
	if l.c.Cost == nil {
		return 1
	}
	return max(l.c.Cost(r), 0)
}

// limitsOf returns the limits of the caller: those of LimitsFor or of its key, if there are any,
// or else those of its plan, or else Limits. The error is for a request whose key or limits
// cannot be used.
func (l *Limiter) limitsOf(r *http.Request) (*limitSet, *Error) {
	id, err := identified(r)
	if err != nil {
		return nil, err
	}
	if l.c.LimitsFor != nil {
		if limits := l.c.LimitsFor(r); len(limits) > 0 {
			set, err := l.lists.Get(limits, l.newLimits)
			return set, unusable(nil, err)
		}
	}
	if id == nil {
		return l.base, nil
	}
	if len(id.key.Limits) > 0 {
		set, err := l.lists.Get(id.key.Limits, l.newLimits)
		return set, unusable(id.key, err)
	}
	if set := l.plans[id.key.Plan]; set != nil {
		return set, nil
	}
	if l.c.Plans != nil && id.key.Plan != "" && !l.c.Plans.knows(id.key.Plan) && l.unknown.first(id.key.ID+" "+id.key.Plan) {
		errorWriterOf(r.Context()).log(r, slog.LevelWarn, "admit: a key has a plan that is not known here, and gets LimiterConfig.Limits",
			slog.String("limiter", l.c.Name), slog.String("admit.key.id", id.key.ID), slog.String("admit.plan", id.key.Plan))
	}
	return l.base, nil
}

// unusable returns the error for limits of a key, or of LimitsFor, that are not valid.
func unusable(key *Key, err error) *Error {
	if err == nil {
		return nil
	}
	of := "LimiterConfig.LimitsFor"
	if key != nil {
		of = "the key " + key.ID
	}
	return errInternal.WithCause(fmt.Errorf("admit: the limits of %s cannot be used: %w", of, err))
}

// firsts recognizes what comes for the first time. It remembers maxFirsts; anything after that is
// never the first.
type firsts struct {
	mu   sync.Mutex
	seen map[string]bool
}

const maxFirsts = 1000

func (f *firsts) first(what string) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.seen[what] || len(f.seen) >= maxFirsts {
		return false
	}
	if f.seen == nil {
		f.seen = make(map[string]bool)
	}
	f.seen[what] = true
	return true
}

// newLimits prepares limits as NewLimiter does for plans.
func (l *Limiter) newLimits(limits []Limit) (*limitSet, error) {
	set, err := newLimitSet(limits)
	if err == nil {
		err = l.divideSet(set)
	}
	return set, err
}

// caller is the caller that a Limiter counts.
type caller struct {
	class class
	id    fingerprint // in memory
	key   string      // in store
}

func (l *Limiter) caller(r *http.Request) caller {
	var buf [128]byte
	b := appendCaller(buf[:0], r, l.c.Name, l.c.CountBy)
	who := caller{class: classOf(b)}
	switch {
	case l.memory != nil:
		who.id = l.memory.seeds.fingerprint(b)
	case l.leases != nil:
		who.id = l.leases.seeds.fingerprint(b)
	}
	switch {
	case l.leases != nil:
		who.key = l.leases.key(who.id, b)
	case l.store != nil:
		who.key = string(b)
	}
	return who
}

var errCostsTooMuch = &Error{
	Status:  http.StatusTooManyRequests,
	Code:    "rate_limited",
	Message: "The request costs more than the rate limit ever allows.",
}

func (l *Limiter) answers() []Answer {
	if l.c.DryRun {
		return nil
	}
	headers := []string{"RateLimit", "RateLimit-Policy"}
	if l.c.LegacyHeaders {
		headers = append(headers, "X-RateLimit-Limit", "X-RateLimit-Remaining", "X-RateLimit-Reset")
	}
	first := l.base.rules[0]
	example := Decision{RetryAfter: first.Per / time.Duration(first.Requests), States: []LimitState{{Exceeded: true}}}
	all := []Answer{answer(errorOf(l.refusal(l.base, example, nil)), "The caller has used up a rate limit, and is admitted again after Retry-After.", headers...)}
	if l.c.Cost != nil {
		never := answer(errCostsTooMuch, "The request costs more than a rate limit of the caller ever allows.", headers...)
		never.Retryable = false
		all = append(all, never)
	}
	if l.store != nil && (l.c.StoreDown == RefuseAll || l.c.StoreDown == LimitLocally && l.c.Replicas > 1 && l.c.Cost != nil) {
		all = append(all, answer(errStoreUnavailable, "The service could not check its rate limits."))
	}
	return all
}
