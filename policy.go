package admit

import (
	"net/http"
	"slices"
	"time"

	"github.com/justinas/alice"
)

// Policy is the whole of admission for a handler, in the order of the chain: see "The
// order of a chain" for why each stands where it stands. It is a plain value, to be copied
// and changed for each route. What is zero is left out. Copies share the arrays of their
// slices: give a copy a slice of its own, or clone one before appending to it.
type Policy struct {
	ClientIP       Middleware                   // see ClientIP
	Observe        func(*http.Request, Outcome) // see Observe
	Errors         *ErrorWriter                 // see ErrorWriter
	Maintenance    *Maintenance                 // see Maintenance
	InFlight       *InFlight                    // see NewInFlight
	AddressLimiter *Limiter                     // see NewLimiter; before Auth, so that it counts everybody by address
	Methods        []string                     // see Methods
	Auth           *Auth                        // see NewAuth
	Identity       Middleware                   // instead of Auth: a wrapper that calls WithKey, for a JWT or mTLS
	Scopes         []string                     // see RequireScopes; the Auth may be in a Policy outside
	Plans          *Plans                       // for AtLeast and Features
	AtLeast        string                       // see Plans.AtLeast
	Features       []string                     // see Plans.Features
	Limiter        *Limiter                     // see NewLimiter
	Quotas         *Quotas                      // see NewQuotas
	Accept         []string                     // see Accept
	Negotiator     *Negotiator                  // instead of Accept; see NewNegotiator
	ContentType    []string                     // see ContentType
	ContentTypes   *ContentTypes                // instead of ContentType; see NewContentTypes
	MaxBody        int64                        // bytes; see MaxBody
	Shedder        *Shedder                     // see NewShedder
	BodyTimeout    BodyTimeout                  // see BodyTimeout
	WriteStall     time.Duration                // see WriteStall
	Timeout        time.Duration                // see Timeout
	HandlerTimeout *HandlerTimeout              // instead of Timeout; see NewHandlerTimeout
}

// Chain returns the wrappers in their order, RequestID and Recover always among them. The
// error has every fault of the Policy, and of the values in it: see ConfigError.
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

// Answers returns every error that the chain may answer with, in the order of the chain and
// as the values of the Policy are now: those of a handler inside are not among them. It
// returns nil for a Policy that Chain refuses.
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

// Wrap puts the chain around next. It panics with the error of Chain. Around a mux, give it
// Mux(mux): a bare http.ServeMux answers 404 and 405 as text.
func (p Policy) Wrap(next http.Handler) http.Handler {
	if isNil(next) {
		panic("admit: Policy.Wrap: the handler is nil")
	}
	chain, err := p.Chain()
	must(err)
	return chain.Then(next)
}

// policyChain is a chain while it is made.
type policyChain struct {
	Policy
	wrappers []alice.Constructor
	answers  []func() []Answer
	faults   faults
}

// add puts a wrapper into the chain with what it answers, or notes what is wrong with its
// field.
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

// silent is for wrappers that refuse nothing.
func silent() []Answer { return nil }

// together notes fields that cannot be in one Policy, and fields that miss another.
func (c *policyChain) together() {
	either := func(one, other string, both bool) {
		if both {
			c.faults.add("Policy."+other, "is there beside %s, which says the same; leave out one of them", one)
		}
	}
	either("Accept", "Negotiator", len(c.Accept) > 0 && c.Negotiator != nil)
	either("ContentType", "ContentTypes", len(c.ContentType) > 0 && c.ContentTypes != nil)
	either("Timeout", "HandlerTimeout", c.Timeout != 0 && c.HandlerTimeout != nil)

	if c.Auth != nil && c.Identity != nil {
		c.faults.add("Policy.Identity", "is there beside Auth; for callers with one or the other, put an optional Auth into a Policy outside")
	}
	if c.Limiter != nil && c.Limiter == c.AddressLimiter {
		c.faults.add("Policy.Limiter", "is the AddressLimiter too, and counts a request once; make one for each")
	}
	needKey := len(c.Scopes) > 0 || c.AtLeast != "" || len(c.Features) > 0
	if c.Auth != nil && c.Auth.optional && needKey {
		c.faults.add("Policy.Auth", "is optional, but Scopes, AtLeast or Features need a key; give this Policy an Auth that is not")
	}
	if c.Auth != nil && c.Auth.optional && c.Quotas != nil && c.Quotas.made.ok && c.Quotas.c.Skip == nil {
		c.faults.add("Policy.Auth", "is optional, but Quotas need a key; exempt requests without one by QuotasConfig.Skip, or give this Policy an Auth that is not")
	}
	if c.Plans != nil && c.Limiter != nil && c.Limiter.made.ok && c.Limiter.c.Plans == nil && c.Plans.limited() {
		c.faults.add("Policy.Limiter", "has no Plans, so that the Limits of Policy.Plans would hold for nobody; set LimiterConfig.Plans")
	}
	if c.Plans == nil && (c.AtLeast != "" || len(c.Features) > 0) {
		c.faults.add("Policy.Plans", "is nil, but AtLeast or Features need it")
	}
}

// outside adds what asks nobody who is there.
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

// hints says what the methods take. What is wrong with the types is noted elsewhere.
func (c *policyChain) hints() []hint {
	if c.ContentTypes != nil {
		return c.ContentTypes.hints
	}
	types, _ := NewContentTypes(ContentTypesConfig{Allow: c.ContentType})
	return types.hints
}

// who adds what depends on the caller.
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

// what adds what depends on what is sent.
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

// answersOf leaves out what only a QUERY is answered, where that is not taken.
func (c *policyChain) answersOf(t *ContentTypes) func() []Answer {
	return func() []Answer { return t.answers(c.Methods) }
}

func (c *policyChain) timeoutAnswers() []Answer {
	return c.withBody([]Answer{answer(errHandlerTimeout, "The service did not answer in time.")})
}

// withBody adds what a body is answered, unless no method that is taken has one. A Timeout and
// a Shedder know that an error of reading it, which a handler returns, is the client's.
func (c *policyChain) withBody(all []Answer) []Answer {
	bodiless := func(method string) bool { return method == http.MethodGet || method == http.MethodHead }
	if len(c.Methods) > 0 && !slices.ContainsFunc(c.Methods, func(m string) bool { return !bodiless(m) }) {
		return all
	}
	return append(all, bodyAnswers()...)
}
