package admit

import (
	"net/http"
	"slices"
	"time"

	"github.com/justinas/alice"
)

// Policy is the configuration of a whole chain: the middlewares that decide whether a request
// reaches a handler. The fields are in the order of the chain, from the outside to the handler;
// "The order of a chain" in the overview of the package has the reasons. The zero value of a
// field leaves its middleware out. [RequestID] and [Recover] are always in the chain.
//
// A Policy is a plain value: copy it for each route, and change the copy. Copies share the arrays
// of their slices, so give a copy a slice of its own, or clone the slice before appending to it.
//
// [Policy.Chain] and [Policy.Wrap] report every problem of a Policy. Prohibited are invalid
// values, and these combinations:
//   - Auth and Identity, Accept and Negotiator, ContentType and ContentTypes, or Timeout and
//     HandlerTimeout in one Policy
//   - one Limiter as both AddressLimiter and Limiter
//   - AtLeast or Features without Plans
//   - Plans that have Limits, and a Limiter without Plans
//   - an Auth that is Optional with Scopes, AtLeast or Features, or with Quotas that have no Skip
type Policy struct {
	// ClientIP finds the address of the client behind proxies: see the function ClientIP. It
	// rejects nothing. Nil means that the address is that of the connection, unless a ClientIP
	// outside has found another.
	ClientIP Middleware
	// Observe is called once for each request, when it has ended: see the function Observe.
	Observe func(*http.Request, Outcome)
	// Errors decides how errors are written and logged. Nil means the ErrorWriter outside, or
	// its zero value if there is none.
	Errors *ErrorWriter
	// Maintenance rejects every request with 503 and the code maintenance while it is on.
	Maintenance *Maintenance
	// InFlight is a concurrency limit for all callers together, before Auth. It rejects with 429
	// and the code overloaded.
	InFlight *InFlight
	// AddressLimiter is a rate limit before Auth, so that it counts every request by the address
	// of the client. It rejects with 429 and the code rate_limited.
	AddressLimiter *Limiter
	// Methods are the methods that the handler takes, such as "GET", which implies HEAD. Others
	// get 405, or 501 if they are not known to HTTP. OPTIONS gets 204 unless it is one of them.
	// Empty admits every method. See the function Methods.
	Methods []string
	// Auth checks API keys. It rejects with 401 and the code key_missing or key_invalid, with
	// 403 and address_not_allowed, with 429 and key_throttled, with 400 for two keys in one
	// request, and with 503 and store_unavailable while its Store is down. Nil admits requests
	// without a key, unless an Auth outside rejects them.
	Auth *Auth
	// Identity is a middleware that calls WithKey, such as one for JWTs or mTLS, instead of
	// Auth. A key outside of its Networks gets 403 with the code address_not_allowed.
	Identity Middleware
	// Scopes are the scopes that a key needs, all of them. Others get 403 with the code
	// scope_required. They need an Auth or an Identity, here or in a Policy outside. See
	// RequireScopes.
	Scopes []string
	// Plans is the set of plans for AtLeast and Features. By itself it rejects nothing.
	Plans *Plans
	// AtLeast is the name of the plan that a key needs; a plan that includes it does too. Others
	// get 402 with the code plan_required. It needs Plans and a key. See Plans.AtLeast.
	AtLeast string
	// Features are the features that the plan of a key needs, all of them. Others get 402 with
	// the code plan_required. They need Plans and a key. See Plans.Features.
	Features []string
	// Limiter is the rate limit of each caller. It rejects with 429 and the code rate_limited,
	// and may reject with 503 and store_unavailable while its Store is down.
	Limiter *Limiter
	// Quotas counts the requests that accounts have bought. It rejects with 429 and the code
	// quota_exceeded, and may reject with 503 and store_unavailable while its Store is down. A
	// request without a key gets 500.
	Quotas *Quotas
	// Accept are the media types that the handler can send, the preferred one first. A client
	// that accepts none gets 406. See the function Accept.
	Accept []string
	// Negotiator is used instead of Accept, for a fallback. See NewNegotiator.
	Negotiator *Negotiator
	// ContentType are the media types that the handler takes. Others get 415; a request with two
	// types, or a QUERY without one, gets 400. See the function ContentType.
	ContentType []string
	// ContentTypes is used instead of ContentType, for charsets and content codings. See
	// NewContentTypes.
	ContentTypes *ContentTypes
	// MaxBody is the largest body in bytes. A larger one gets 413. Zero means no bound, except
	// that of Decode and ParseForm. A negative number is prohibited. See the function MaxBody.
	MaxBody int64
	// Shedder does load shedding: it bounds how many requests are worked on at once, and rejects
	// with 429 and the code overloaded.
	Shedder *Shedder
	// BodyTimeout bounds how long a handler waits for the body. A body that is too slow gets
	// 408. The zero value means no bound.
	BodyTimeout BodyTimeout
	// WriteStall is how long a client may take nothing of a response before its connection is
	// cut. Zero means no bound; otherwise it is 1 ms or more. See the function WriteStall.
	WriteStall time.Duration
	// Timeout is how long a handler may take to begin its response. A late one gets 503 with the
	// code handler_timeout. Zero means no bound; otherwise it is 1 ms or more. See the function
	// Timeout.
	Timeout time.Duration
	// HandlerTimeout is used instead of Timeout, for a bound on the whole response. See
	// NewHandlerTimeout.
	HandlerTimeout *HandlerTimeout
}

// Chain returns the middlewares in their order, with RequestID and Recover among them. The error
// has every problem of the Policy and of the values in it: see [ConfigError].
func (p Policy) Chain() (alice.Chain, error) {
	c := p.chain()
	if err := c.faults.err(); err != nil {
		return alice.Chain{}, err
	}
	return alice.New(c.wrappers...), nil
}

func (p Policy) chain() *policyChain {
	c := &policyChain{Policy: p}
	c.together()
	c.add("", RequestID, nil, silent)
	c.outside()
	c.who()
	c.what()
	return c
}

// Answers returns every error that the chain may respond with, in the order of the chain, as the
// values of the Policy are now. Errors of the handler inside are not among them. It returns nil
// for a Policy for which Chain returns an error.
func (p Policy) Answers() []Answer {
	c := p.chain()
	if c.faults.err() != nil {
		return nil
	}
	var all []Answer
	for _, of := range c.answers {
		all = append(all, of()...)
	}
	return all
}

// Wrap puts the chain around next. It panics with the error of Chain. To wrap a mux, pass
// Mux(mux): a bare http.ServeMux writes its 404 and 405 as text.
func (p Policy) Wrap(next http.Handler) http.Handler {
	if isNil(next) {
		panic("admit: Policy.Wrap: the handler is nil")
	}
	chain, err := p.Chain()
	must(err)
	return chain.Then(next)
}

// policyChain is a chain while it is being built.
type policyChain struct {
	Policy
	wrappers []alice.Constructor
	answers  []func() []Answer
	faults   faults
}

// add adds a middleware with what it answers to the chain, or notes what is wrong with its field.
func (c *policyChain) add(field string, m Middleware, err error, answers func() []Answer) {
	if err != nil {
		c.faults.within("Policy."+field, err)
		return
	}
	c.wrappers = append(c.wrappers, m)
	c.answers = append(c.answers, func() []Answer {
		all := answers()
		for i := range all {
			all[i].Field = field
		}
		return all
	})
}

// silent is for middlewares that reject nothing.
func silent() []Answer { return nil }

// together notes fields that cannot be in one Policy, and fields that need another one.
func (c *policyChain) together() {
	either := func(one, other string, both bool) {
		if both {
			c.faults.add("Policy."+other, "is set together with %s, which does the same; leave out one of them", one)
		}
	}
	either("Accept", "Negotiator", len(c.Accept) > 0 && c.Negotiator != nil)
	either("ContentType", "ContentTypes", len(c.ContentType) > 0 && c.ContentTypes != nil)
	either("Timeout", "HandlerTimeout", c.Timeout != 0 && c.HandlerTimeout != nil)

	if c.Auth != nil && c.Identity != nil {
		c.faults.add("Policy.Identity", "is set together with Auth; for callers with one or the other, put an optional Auth into a Policy outside")
	}
	if c.Limiter != nil && c.Limiter == c.AddressLimiter {
		c.faults.add("Policy.Limiter", "is also the AddressLimiter, but one Limiter counts a request only once; make two")
	}
	needKey := len(c.Scopes) > 0 || c.AtLeast != "" || len(c.Features) > 0
	if c.Auth != nil && c.Auth.optional && needKey {
		c.faults.add("Policy.Auth", "is optional, but Scopes, AtLeast or Features need a key; give this Policy an Auth that is not optional")
	}
	if c.Auth != nil && c.Auth.optional && c.Quotas != nil && c.Quotas.made.ok && c.Quotas.c.Skip == nil {
		c.faults.add("Policy.Auth", "is optional, but Quotas need a key; exempt requests without one by QuotasConfig.Skip, or give this Policy an Auth that is not optional")
	}
	if c.Plans != nil && c.Limiter != nil && c.Limiter.made.ok && c.Limiter.c.Plans == nil && c.Plans.limited() {
		c.faults.add("Policy.Limiter", "has no Plans, so that the Limits of Policy.Plans would not apply; set LimiterConfig.Plans")
	}
	if c.Plans == nil && (c.AtLeast != "" || len(c.Features) > 0) {
		c.faults.add("Policy.Plans", "is nil, but AtLeast or Features need it")
	}
}

// outside adds the middlewares that do not depend on who calls.
func (c *policyChain) outside() {
	if c.ClientIP != nil {
		c.add("ClientIP", c.ClientIP, nil, silent)
	}
	if c.Observe != nil {
		c.add("Observe", Observe(c.Observe), nil, silent)
	}
	if c.Errors != nil {
		c.add("Errors", c.Errors.Wrap, nil, silent)
	}
	c.add("", Recover, nil, recoverAnswers)
	if c.Maintenance != nil {
		c.add("Maintenance", c.Maintenance.Wrap, nil, maintenanceAnswers)
	}
	if c.InFlight != nil {
		c.add("InFlight", c.InFlight.Wrap, c.InFlight.fault(), c.InFlight.answers)
	}
	if c.AddressLimiter != nil {
		c.add("AddressLimiter", c.AddressLimiter.Wrap, c.AddressLimiter.fault(), c.AddressLimiter.answers)
	}
	if len(c.Methods) > 0 {
		m, err := newMethods(c.Methods, c.hints())
		c.add("Methods", m.wrap, err, m.answers)
	}
}

// hints returns the media types that the methods take. Errors in the types are reported
// elsewhere.
func (c *policyChain) hints() []hint {
	if c.ContentTypes != nil {
		return c.ContentTypes.hints
	}
	types, _ := NewContentTypes(ContentTypesConfig{Allow: c.ContentType})
	return types.hints
}

// who adds the middlewares that depend on the caller.
func (c *policyChain) who() {
	if c.Auth != nil {
		c.add("Auth", c.Auth.Wrap, c.Auth.fault(), c.Auth.answers)
	}
	if c.Identity != nil {
		c.add("Identity", c.Identity, nil, silent)
		c.add("Identity", admitIdentity, nil, identityAnswers)
	}
	if len(c.Scopes) > 0 {
		s, err := newScopes(c.Scopes)
		c.add("Scopes", s.wrap, err, s.answers)
	}
	if c.Plans != nil {
		switch err := c.Plans.fault(); {
		case err != nil:
			c.add("Plans", nil, err, silent)
		default:
			c.plans()
		}
	}
	if c.Limiter != nil {
		c.add("Limiter", c.Limiter.Wrap, c.Limiter.fault(), c.Limiter.answers)
	}
	if c.Quotas != nil {
		c.add("Quotas", c.Quotas.Wrap, c.Quotas.fault(), c.Quotas.answers)
	}
}

func (c *policyChain) plans() {
	if c.AtLeast != "" {
		n, err := c.Plans.atLeast(c.AtLeast)
		c.add("AtLeast", n.wrap, err, n.answers)
	}
	if len(c.Features) > 0 {
		n, err := c.Plans.haveAll(c.Features)
		c.add("Features", n.wrap, err, n.answers)
	}
}

// what adds the middlewares that depend on what is sent.
func (c *policyChain) what() {
	if len(c.Accept) > 0 {
		n, err := NewNegotiator(NegotiatorConfig{Offers: c.Accept})
		c.add("Accept", n.Wrap, renamed("NegotiatorConfig.Offers", "Accept", err), n.answers)
	}
	if c.Negotiator != nil {
		c.add("Negotiator", c.Negotiator.Wrap, c.Negotiator.fault(), c.Negotiator.answers)
	}
	if len(c.ContentType) > 0 {
		t, err := NewContentTypes(ContentTypesConfig{Allow: c.ContentType})
		c.add("ContentType", t.Wrap, renamed("ContentTypesConfig.Allow", "ContentType", err), c.answersOf(t))
	}
	if c.ContentTypes != nil {
		c.add("ContentTypes", c.ContentTypes.Wrap, c.ContentTypes.fault(), c.answersOf(c.ContentTypes))
	}
	if c.MaxBody != 0 {
		m, err := maxBody(c.MaxBody)
		c.add("MaxBody", m, err, maxBodyAnswers)
	}
	if c.Shedder != nil {
		c.add("Shedder", c.Shedder.Wrap, c.Shedder.fault(), func() []Answer { return c.withBody(c.Shedder.answers()) })
	}
	if c.BodyTimeout != (BodyTimeout{}) {
		c.add("BodyTimeout", c.BodyTimeout.Wrap, c.BodyTimeout.check(), bodyAnswers)
	}
	if c.WriteStall != 0 {
		m, err := writeStall(c.WriteStall)
		c.add("WriteStall", m, err, silent)
	}
	if c.Timeout != 0 {
		t, err := NewHandlerTimeout(HandlerTimeoutConfig{FirstByte: c.Timeout})
		c.add("Timeout", t.Wrap, renamed("HandlerTimeoutConfig.FirstByte", "Timeout", err), c.timeoutAnswers)
	}
	if c.HandlerTimeout != nil {
		c.add("HandlerTimeout", c.HandlerTimeout.Wrap, c.HandlerTimeout.fault(), c.timeoutAnswers)
	}
}

// answersOf leaves out the answers for a QUERY where that method is not taken.
func (c *policyChain) answersOf(t *ContentTypes) func() []Answer {
	return func() []Answer { return t.answers(c.Methods) }
}

func (c *policyChain) timeoutAnswers() []Answer {
	return c.withBody([]Answer{answer(errHandlerTimeout, "The service did not respond in time.")})
}

// withBody adds the answers about a body, unless no method that is taken has one. A Timeout and a
// Shedder recognize an error of reading the body, which a handler returns, as the client's.
func (c *policyChain) withBody(all []Answer) []Answer {
	bodiless := func(method string) bool { return method == http.MethodGet || method == http.MethodHead }
	if len(c.Methods) > 0 && !slices.ContainsFunc(c.Methods, func(m string) bool { return !bodiless(m) }) {
		return all
	}
	return append(all, bodyAnswers()...)
}
