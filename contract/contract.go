// Package contract publishes what an API answers, as the policies of its running service
// have it: as a page for people, as an OpenAPI document, and as rows that a test holds the
// service to. Nothing is typed in twice, so that it cannot drift from what is true.
//
//	api, err := contract.New(contract.Info{Title: "Market data", Version: "1.0"}, outer)
//	...
//	api.Handle(mux, "POST /v1/orders", orders, admit.HandlerFunc(createOrder), errSoldOut)
//	mux.Handle("GET /{$}", api.Page())
//	handler := api.Wrap(outer.Wrap(admit.Mux(mux)))
//
// A contract is about errors: what a handler answers on success is the service's own. A row
// is found by the route, the status and the code of an answer.
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

// Info is what the policies do not know about the API.
type Info struct {
	Title       string // required
	Version     string // of the contract, required
	Description string // one or more paragraphs of text

	// Servers are the base URLs of the API, such as https://api.example.com: the first
	// stands in the curl lines. Nil: http://localhost:8080.
	Servers []string

	// SecuritySchemes describe by name how a request says who calls where a Policy has an
	// Identity. Required then. A name is not one that the contract gives to the keys of an
	// Auth, such as bearer or header_x_api_key.
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

// Answer is a row: an error that a route may answer with.
type Answer struct {
	Route  string `json:"route"`            // its pattern; "" for what any request may get
	Method string `json:"method,omitempty"` // of the pattern; "" for any

	Status    int      `json:"status"`
	Code      string   `json:"code"` // "" for an answer that admit does not write: see Foreign
	Message   string   `json:"message"`
	Headers   []string `json:"headers,omitempty"` // that it has, or may have, beside those of every error
	Retryable bool     `json:"retryable"`         // the same request may be let in later
	When      string   `json:"when"`

	// Example is such an answer as the service writes it.
	Example Example `json:"example,omitzero"`

	field string // of the Policy; "handler", "HandlerFunc", "mux", or "" for what every Policy has
	own   bool   // its body is that of ErrorWriter.Encode
}

// Example is an answer as it is sent. The names of its headers are written as their
// specifications do.
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
	matcher *http.ServeMux      // finds the route of a request that no Handle has seen; needs no mu to read
	pages   map[string]rendered // by media type; nil: to be written

	rendering sync.Mutex

	standIn atomic.Pointer[func(*http.Request) http.Handler] // see published.StandIn

	undeclared func(r *http.Request, status int, code string)
	logged     map[[3]any]bool
}

// New returns the contract of a service whose mux stands inside of outer, and whose routes
// are told by Handle and Declare. The errs are those that any route may answer with and no
// Policy knows of, such as those of an Identity. The error has every fault of the arguments.
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

// Handle registers the handler on the mux, inside the Policy, and tells the contract of the
// route. The errs are those that the handler itself answers with, and no Policy knows of: for
// one that uses Decode, Decodes()... is among them. The mux is one that sees the whole path: for
// a mux inside http.StripPrefix, register by itself what the Policy wraps, and Declare the
// pattern as clients see it. It panics with what Policy.Chain returns, and on a pattern that a
// ServeMux does not take.
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

// standing returns the handler, for which a test may let another stand in: what a chain
// answers for a handler that panics, or takes too long, can be seen without one.
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

// Declare tells the contract of a route that is registered elsewhere, such as on a router of
// others. The pattern is one of net/http, with the whole path as clients see it. It panics as
// Handle does.
func (a *API) Declare(pattern string, p admit.Policy, errs ...*admit.Error) {
	a.declare("Declare", pattern, p, errs, nil)
}

// declare takes the handler of Handle, or nil.
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

// Answers returns the rows, sorted by route, status and code: those of routes, and with the
// empty route those that any request may get. What is said of a route twice is one row.
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
		faults = append(faults, &admit.ConfigError{Field: "Info." + field, Reason: problem})
	}
	if strings.TrimSpace(info.Title) == "" {
		fault("Title", "is empty; name the API")
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

// check says what the scheme lacks (OpenAPI 3.1 §4.8.27), or "".
func (s SecurityScheme) check() string {
	places := []string{"header", "query", "cookie"}
	switch {
	case s.Type == "apiKey" && (s.Name == "" || !slices.Contains(places, s.In)):
		return "is an apiKey, and needs a Name, and an In of header, query or cookie"
	case s.Type == "http" && s.Scheme == "":
		return "is http, and needs a Scheme, such as bearer"
	case s.Type == "openIdConnect" && s.OpenIDConnectURL == "":
		return "is openIdConnect, and needs an OpenIDConnectURL"
	case s.Type == "oauth2" && s.Flows == nil:
		return "is oauth2, and needs Flows"
	case !slices.Contains([]string{"apiKey", "http", "openIdConnect", "oauth2", "mutualTLS"}, s.Type):
		return fmt.Sprintf("has the Type %q; it is apiKey, http, mutualTLS, oauth2 or openIdConnect", s.Type)
	}
	if _, err := json.Marshal(s.Flows); err != nil {
		return fmt.Sprintf("has Flows that are not JSON: %v", err)
	}
	return ""
}
