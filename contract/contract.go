// Package contract publishes the errors of an API, generated from the Policies of the running
// service: as a page for people, as an OpenAPI document, and as rows that a test checks the
// service against. Nothing is written down twice, so the contract cannot drift from the code.
//
//	api, err := contract.New(contract.Info{Title: "Market data", Version: "1.0"}, outer)
//	...
//	api.Handle(mux, "POST /v1/orders", orders, admit.HandlerFunc(createOrder), errSoldOut)
//	mux.Handle("GET /{$}", api.Page())
//	handler := api.Wrap(outer.Wrap(admit.Mux(mux)))
//
// A contract is about errors; what a handler sends on success is up to the service. The row
// of a response is found by its route, status and code.
package contract

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/admit-go/admit"
	"github.com/admit-go/admit/internal/published"
)

// Info describes the API. It has what the Policies do not know.
type Info struct {
	// Title is the name of the API. Required.
	Title string
	// Version is the version of the contract, such as 1.0. Required.
	Version string
	// Description is plain text in one or more paragraphs.
	Description string

	// Servers are the base URLs of the API, such as https://api.example.com. The curl lines
	// use the first. Default: http://localhost:8080.
	Servers []string

	// SecuritySchemes describe, by name, the credentials of requests that an Identity
	// authenticates. Required if a Policy has an Identity. A name must not be one that the
	// contract gives to the API keys of an Auth, such as bearer or header_x_api_key.
	SecuritySchemes map[string]SecurityScheme
}

// SecurityScheme is a Security Scheme Object of OpenAPI.
type SecurityScheme struct {
	Type             string `json:"type"` // apiKey, http, mutualTLS, oauth2 or openIdConnect
	Description      string `json:"description,omitempty"`
	Name             string `json:"name,omitempty"`             // of the header, for apiKey
	In               string `json:"in,omitempty"`               // header, query or cookie, for apiKey
	Scheme           string `json:"scheme,omitempty"`           // such as bearer, for http
	BearerFormat     string `json:"bearerFormat,omitempty"`     // such as JWT
	OpenIDConnectURL string `json:"openIdConnectUrl,omitempty"` // for openIdConnect
	Flows            any    `json:"flows,omitempty"`            // for oauth2
}

// Answer is a row of the contract: an error that a route may answer with.
type Answer struct {
	Route  string `json:"route"`            // its pattern; "" for what any request may get
	Method string `json:"method,omitempty"` // of the pattern; "" for any

	Status    int      `json:"status"`
	Code      string   `json:"code"` // "" for a response that admit does not write: see Foreign
	Message   string   `json:"message"`
	Headers   []string `json:"headers,omitempty"` // that it has, or may have, besides those of every error
	Retryable bool     `json:"retryable"`         // the same request may succeed later
	When      string   `json:"when"`              // the reason, as a sentence

	// Example is such a response as the service writes it.
	Example Example `json:"example,omitzero"`

	field string // of the Policy; "handler", "HandlerFunc", "mux", or "" for what every Policy has
	own   bool   // ErrorWriter.Encode writes its body
}

// Example is a response as it is sent. Its header names are spelled as in their
// specifications, such as WWW-Authenticate.
type Example struct {
	Header map[string][]string `json:"header"`
	Body   string              `json:"body"`
}

// API is the contract of a service. It is safe for concurrent use.
type API struct {
	info  Info
	outer *route // what any request may get

	mu      sync.Mutex
	routes  map[string]*route   // by pattern
	matcher *http.ServeMux      // finds the route of a request that did not pass a Handle; mu is not needed to read it
	pages   map[string]rendered // by media type; nil: to be rendered

	rendering sync.Mutex

	standIn atomic.Pointer[func(*http.Request) http.Handler] // see published.StandIn

	undeclared func(r *http.Request, status int, code string)
	logged     map[[3]any]bool
}

// New returns the contract of a service. The outer Policy is the one around the mux; Handle
// and Declare add the routes. The errs are errors that any route may answer with and that no
// Policy knows, such as those of an Identity. New reports every problem of its arguments at
// once.
func New(info Info, outer admit.Policy, errs ...*admit.Error) (*API, error) {
	if len(info.Servers) == 0 {
		info.Servers = []string{"http://localhost:8080"}
	}
	info.Servers, info.SecuritySchemes = slices.Clone(info.Servers), maps.Clone(info.SecuritySchemes)
	a := &API{info: info, routes: make(map[string]*route), matcher: http.NewServeMux(), logged: make(map[[3]any]bool)}
	outside, err := newRoute(a, "", outer, errs)
	if err := errors.Join(info.check(), err); err != nil {
		return nil, err
	}
	a.outer = outside
	for _, e := range published.Mux.([]*admit.Error) {
		outside.add("mux", e)
	}
	return a, nil
}

// Handle registers the handler on the mux, wrapped in the Policy, and adds the route to the
// contract. The errs are the errors of the handler itself; for a handler that calls
// admit.Decode they include Decodes()..., and likewise Forms and Proxies.
//
// The mux must see the whole path. For a mux inside http.StripPrefix, register the wrapped
// handler yourself, and Declare the pattern as clients see it. Handle panics if
// Policy.Chain returns an error, and on a pattern that a ServeMux does not accept.
func (a *API) Handle(mux interface{ Handle(string, http.Handler) }, pattern string, p admit.Policy, handler http.Handler, errs ...*admit.Error) {
	if mux == nil || handler == nil {
		panic(fmt.Sprintf("contract: Handle(%q): the mux or the handler is nil", pattern))
	}
	a.declare("Handle", pattern, p, errs, handler)
	noted := p.Wrap(a.standing(handler))
	mux.Handle(pattern, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		published.SetRoute(r, &pattern)
		noted.ServeHTTP(w, r)
	}))
}

// standing returns the handler, which a test may replace for a request. So a test sees what a
// chain answers for a handler that panics or takes too long without having one.
func (a *API) standing(handler http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if f := a.standIn.Load(); f != nil {
			if other := (*f)(r); other != nil {
				other.ServeHTTP(w, r)
				return
			}
		}
		handler.ServeHTTP(w, r)
	})
}

// Declare adds a route that is registered elsewhere, such as on a router other than
// http.ServeMux. The pattern is one of net/http, with the whole path as clients see it.
// Declare panics as Handle does.
func (a *API) Declare(pattern string, p admit.Policy, errs ...*admit.Error) {
	a.declare("Declare", pattern, p, errs, nil)
}

// declare adds a route, with the handler of Handle or nil.
func (a *API) declare(by, pattern string, p admit.Policy, errs []*admit.Error, handler http.Handler) {
	r, err := newRoute(a, pattern, p, errs)
	if err != nil {
		panic(fmt.Sprintf("contract: %s(%q): %v", by, pattern, err))
	}
	r.handled = handler != nil
	if _, ours := handler.(admit.HandlerFunc); ours {
		for _, e := range published.Handlers.([]*admit.Error) {
			r.add("HandlerFunc", e)
		}
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	defer func() {
		if v := recover(); v != nil {
			panic(fmt.Sprintf("contract: %s(%q): %v", by, pattern, v))
		}
	}()
	a.matcher.Handle(pattern, http.NotFoundHandler())
	a.routes[pattern] = r
	a.pages = nil
}

// Answers returns the rows of the contract, each once, sorted by route, status and code. Those
// that any request may get come first, with an empty Route.
func (a *API) Answers() []Answer {
	a.mu.Lock()
	defer a.mu.Unlock()
	all := slices.Clone(a.outer.answers)
	for _, r := range a.sorted() {
		all = append(all, r.answers...)
	}
	return all
}

// sorted returns the routes by path and method.
func (a *API) sorted() []*route {
	return slices.SortedFunc(maps.Values(a.routes), func(x, y *route) int {
		return cmp.Or(cmp.Compare(x.host, y.host), cmp.Compare(x.path, y.path), cmp.Compare(x.method, y.method))
	})
}

func (info Info) check() error {
	var faults []error
	fault := func(field, problem string) {
		faults = append(faults, &admit.ConfigError{Field: "contract.Info." + field, Reason: problem})
	}
	if strings.TrimSpace(info.Title) == "" {
		fault("Title", "is empty; give the name of the API")
	}
	if strings.TrimSpace(info.Version) == "" {
		fault("Version", "is empty; give the version of the contract, such as 1.0")
	}
	for i, server := range info.Servers {
		u, err := url.Parse(server)
		if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.RawQuery != "" || u.Fragment != "" || u.User != nil {
			fault(fmt.Sprintf("Servers[%d]", i), fmt.Sprintf("is %q; give an http or https URL, such as https://api.example.com", server))
		}
	}
	for _, name := range slices.Sorted(maps.Keys(info.SecuritySchemes)) {
		if reason := info.SecuritySchemes[name].check(); reason != "" {
			fault(fmt.Sprintf("SecuritySchemes[%q]", name), reason)
		}
	}
	return errors.Join(faults...)
}

// check returns what is missing or wrong in the scheme (OpenAPI 3.1 §4.8.27), or "".
func (s SecurityScheme) check() string {
	places := []string{"header", "query", "cookie"}
	switch {
	case s.Type == "apiKey" && (s.Name == "" || !slices.Contains(places, s.In)):
		return "is an apiKey and needs a Name, and an In of header, query or cookie"
	case s.Type == "http" && s.Scheme == "":
		return "is http and needs a Scheme, such as bearer"
	case s.Type == "openIdConnect" && s.OpenIDConnectURL == "":
		return "is openIdConnect and needs an OpenIDConnectURL"
	case s.Type == "oauth2" && s.Flows == nil:
		return "is oauth2 and needs Flows"
	case !slices.Contains([]string{"apiKey", "http", "openIdConnect", "oauth2", "mutualTLS"}, s.Type):
		return fmt.Sprintf("has the Type %q; use apiKey, http, mutualTLS, oauth2 or openIdConnect", s.Type)
	}
	if _, err := json.Marshal(s.Flows); err != nil {
		return fmt.Sprintf("has Flows that are not JSON: %v", err)
	}
	return ""
}
