package admit

import (
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/justinas/alice"
)

// Policy is the whole of admission for a handler: a plain value, to be copied and
// changed for each route. What is zero is left out of the chain. Copies share the arrays
// of their slices: give a copy a slice of its own, or clone one before appending to it.
type Policy struct {
	ClientIP    Middleware    // see ClientIP
	Errors      *ErrorWriter  // see ErrorWriter
	Maintenance *Maintenance  // see Maintenance
	InFlight    *InFlight     // see NewInFlight
	Methods     []string      // see Methods
	Auth        *Auth         // see NewAuth
	Scopes      []string      // see RequireScopes; the Auth may be in a Policy outside
	Plans       *Plans        // for AtLeast and Features
	AtLeast     string        // see Plans.AtLeast
	Features    []string      // see Plans.Features
	Limiter     *Limiter      // see NewLimiter
	Accept      []string      // see Accept
	ContentType []string      // see ContentType
	MaxBody     int64         // see MaxBody
	BodyTimeout BodyTimeout   // see BodyTimeout
	WriteStall  time.Duration // see WriteStall
	Timeout     time.Duration // see Timeout
}

// Chain returns the wrappers in their order, RequestID and Recover always among them.
// The error joins every fault of the Policy.
func (p Policy) Chain() (alice.Chain, error) {
	var chain []alice.Constructor
	var faults []error
	// add puts a wrapper into the chain, or notes what is wrong with its field.
	add := func(field string, m Middleware, err error) {
		if err != nil {
			faults = append(faults, fmt.Errorf("admit: Policy.%s: %w", field, err))
		} else {
			chain = append(chain, m)
		}
	}

	add("", RequestID, nil)
	if p.ClientIP != nil {
		add("ClientIP", p.ClientIP, nil)
	}
	if p.Errors != nil {
		add("Errors", p.Errors.Wrap, nil)
	}
	add("", Recover, nil)
	if p.Maintenance != nil {
		add("Maintenance", p.Maintenance.Wrap, nil)
	}
	if p.InFlight != nil {
		add("InFlight", p.InFlight.Wrap, nil)
	}
	if len(p.Methods) > 0 {
		m, err := newMethods(p.Methods)
		add("Methods", m.wrap, err)
	}
	if p.Auth != nil {
		add("Auth", p.Auth.Wrap, nil)
	}
	if len(p.Scopes) > 0 {
		s, err := newScopes(p.Scopes)
		add("Scopes", s.wrap, err)
	}
	if p.Auth != nil && p.Auth.optional && (len(p.Scopes) > 0 || p.AtLeast != "" || len(p.Features) > 0) {
		faults = append(faults, errors.New("admit: Policy.Auth is optional, but Scopes, AtLeast or Features need a key; give this Policy an Auth that is not"))
	}
	if p.Plans == nil && (p.AtLeast != "" || len(p.Features) > 0) {
		faults = append(faults, errors.New("admit: Policy.Plans is nil, but AtLeast or Features need it"))
	}
	if p.Plans != nil && p.AtLeast != "" {
		m, err := p.Plans.atLeast(p.AtLeast)
		add("AtLeast", m, err)
	}
	if p.Plans != nil && len(p.Features) > 0 {
		m, err := p.Plans.haveAll(p.Features)
		add("Featuress", m, err)
	}
	if p.Limiter != nil {
		add("Limiter", p.Limiter.Wrap, nil)
	}
	if len(p.Accept) > 0 {
		n, err := newNegotiator(NegotiatorConfig{Offers: p.Accept})
		add("Accept", n.Wrap, err)
	}
	if len(p.ContentType) > 0 {
		c, err := newContentTypes(ContentTypesConfig{Allow: p.ContentType})
		add("ContentType", c.Wrap, err)
	}
	if p.MaxBody != 0 {
		m, err := maxBody(p.MaxBody)
		add("MaxBody", m, err)
	}
	if p.BodyTimeout != (BodyTimeout{}) {
		add("BodyTimeout", p.BodyTimeout.Wrap, p.BodyTimeout.check())
	}
	if p.WriteStall != 0 {
		m, err := writeStall(p.WriteStall)
		add("WriteStall", m, err)
	}
	if p.Timeout != 0 {
		m, err := timeout(p.Timeout)
		add("Timeout", m, err)
	}
	if len(faults) > 0 {
		return alice.Chain{}, errors.Join(faults...)
	}
	return alice.New(chain...), nil
}

// Wrap puts the chain around next. It panics with the error of Chain.
func (p Policy) Wrap(next http.Handler) http.Handler {
	if next == nil {
		panic("admit: Policy.Wrap: the handler is nil")
	}
	chain, err := p.Chain()
	if err != nil {
		panic(err)
	}
	return chain.Then(next)
}
