package admit

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/justinas/alice"
)

// Policy is the whole of admission for a handler: a plain value, to be copied and
// changed for each route. What is zero is left out of the chain.
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
	Features    []string      // see Plans.Feature
	Limiter     *Limiter      // see NewLimiter
	Accept      []string      // see Accept
	ContentType []string      // see ContentType
	MaxBody     int64         // see MaxBody
	BodyTimeout BodyTimeout   // see BodyTimeout
	Timeout     time.Duration // see Timeout
}

// Chain returns the wrappers in their order, RequestID and Recover always among them.
// The error joins every fault of the Policy.
func (p Policy) Chain() (alice.Chain, error) {
	var chain []alice.Constructor
	var faults []error
	add := func(m Middleware) { chain = append(chain, m) }
	// try keeps the constructors' panics, which are meant for literals in code, from
	// hiding the faults after the first.
	try := func(field string, build func() Middleware) {
		defer func() {
			if v := recover(); v != nil {
				faults = append(faults, fmt.Errorf("admit: Policy.%s: %s", field, strings.TrimPrefix(fmt.Sprint(v), "admit: ")))
			}
		}()
		add(build())
	}

	add(RequestID)
	if p.ClientIP != nil {
		add(p.ClientIP)
	}
	if p.Errors != nil {
		add(p.Errors.Wrap)
	}
	add(Recover)
	if p.Maintenance != nil {
		add(p.Maintenance.Wrap)
	}
	if p.InFlight != nil {
		add(p.InFlight.Wrap)
	}
	if len(p.Methods) > 0 {
		try("Methods", func() Middleware { return Methods(p.Methods...) })
	}
	if p.Auth != nil {
		add(p.Auth.Wrap)
	}
	if len(p.Scopes) > 0 {
		try("Scopes", func() Middleware { return RequireScopes(p.Scopes...) })
	}
	if p.Auth != nil && p.Auth.optional && (len(p.Scopes) > 0 || p.AtLeast != "" || len(p.Features) > 0) {
		faults = append(faults, errors.New("admit: Policy.Auth is optional, but Scopes, AtLeast or Features need a key; give this Policy an Auth that is not"))
	}
	if p.Plans == nil && (p.AtLeast != "" || len(p.Features) > 0) {
		faults = append(faults, errors.New("admit: Policy.Plans is nil, but AtLeast or Features need it"))
	}
	if p.Plans != nil && p.AtLeast != "" {
		try("AtLeast", func() Middleware { return p.Plans.AtLeast(p.AtLeast) })
	}
	if p.Plans != nil && len(p.Features) > 0 {
		try("Features", func() Middleware { return p.Plans.Feature(p.Features...) })
	}
	if p.Limiter != nil {
		add(p.Limiter.Wrap)
	}
	if len(p.Accept) > 0 {
		try("Accept", func() Middleware { return Accept(p.Accept...) })
	}
	if len(p.ContentType) > 0 {
		try("ContentType", func() Middleware { return ContentType(p.ContentType...) })
	}
	if p.MaxBody != 0 {
		try("MaxBody", func() Middleware { return MaxBody(p.MaxBody) })
	}
	if p.BodyTimeout != (BodyTimeout{}) {
		if err := p.BodyTimeout.check(); err != nil {
			faults = append(faults, fmt.Errorf("admit: Policy: %w", err))
		}
		add(p.BodyTimeout.Wrap)
	}
	if p.Timeout != 0 {
		try("Timeout", func() Middleware { return Timeout(p.Timeout) })
	}
	if len(faults) > 0 {
		return alice.Chain{}, errors.Join(faults...)
	}
	return alice.New(chain...), nil
}

// Wrap puts the chain around next. It panics with the error of Chain.
func (p Policy) Wrap(next http.Handler) http.Handler {
	mustWrap("Policy.Wrap", next)
	chain, err := p.Chain()
	if err != nil {
		panic(err)
	}
	return chain.Then(next)
}
