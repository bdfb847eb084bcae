// Package published is what package admit says of its values to the packages that publish a
// contract, and to nobody else: a user has no need of it, so that it is no part of the API.
// Package admit sets the functions, whose arguments and results have types of its own.
package published

import (
	"net/http"
	"slices"
	"strings"
	"time"
)

// Chain is what a Policy asks of a request and does to it, beside its answers.
type Chain struct {
	Methods   []string      // that are taken, HEAD among them; nil: any
	Offers    []string      // media types of answers; nil: not negotiated
	Types     []string      // media types of bodies; nil: any
	Encodings []string      // of bodies, beside none
	MaxBody   int64         // bytes; 0: not bounded
	FirstByte time.Duration // of an answer; 0: not bounded
	Total     time.Duration // of an answer; 0: not bounded

	Sources  []Source // where a key may stand; nil: none is asked for
	Realm    string
	Optional bool // a request may come without a key
	Identity bool // something else than a key says who calls
	Throttle Limit
	Outside  bool // keys are looked up in a store that may fail

	Scopes   []string
	AtLeast  string
	Features []string
	Plans    []Plan

	Limits      []Limits
	Quotas      []Quotas
	InFlight    InFlight
	Shedder     Shedder
	BodyWait    time.Duration // for a byte of a body; 0: not bounded
	Maintenance any           // *admit.Maintenance, or nil
	Errors      any           // *admit.ErrorWriter, or nil
}

// InFlight is how many requests may be there at once; all is 0 without a bound.
type InFlight struct {
	Max, PerAddress, Queue int
}

// Shedder is how many requests may be worked on at once, and how many may wait, for how long.
type Shedder struct {
	Max, Queue int
	Interval   time.Duration
}

// Source is where a key may stand in a request.
type Source struct {
	In   string // authorization, header, query or cookie
	Name string // authorization: the scheme
}

// Plan is what callers have bought.
type Plan struct {
	Name, Includes string
	Features       []string
	UpgradeURL     string
}

// Limits are those of one Limiter for the callers of one plan.
type Limits struct {
	Field  string // of the Policy
	Name   string // of the Limiter
	By     string // key, address, or "" for another way of counting
	Plan   string // "": callers without one, or whose plan has none
	Limits []Limit
	DryRun bool

	Policy    string // the header RateLimit-Policy
	Exhausted string // an example of the header RateLimit, where the first limit is used up

	Store  bool // it shares a store with others
	Legacy bool // it sends X-RateLimit headers too
}

// Limit is one of them, complete.
type Limit struct {
	Name     string
	Requests int
	Per      time.Duration
	Burst    int
}

// Quotas are those of the callers of one plan. Each plan has one, beginning with that of
// callers without a plan.
type Quotas struct {
	Plan     string // "": callers without one
	Quotas   []Quota
	Billing  bool   // periods begin on the billing day of the caller, else with the calendar
	Location string // by whose clocks periods begin

	Policy    string // an example of the header RateLimit-Policy; "": there are no quotas
	Exhausted string // an example of the header RateLimit, where a quota is used up; "": no quota refuses

	Store bool // what is used is in a store that others may share
}

// Quota is one of them, complete.
type Quota struct {
	Name     string
	Requests int64
	Every    string // day, week or month
	Soft     bool   // more is counted, and not refused
}

// Outcome is how a request has ended.
type Outcome struct {
	Route  string // the innermost pattern that has matched, or ""
	Status int
	Code   string // of the error that admit has written; "" for none, or that of somebody else
}

var (
	// Of describes an admit.Policy that Chain takes.
	Of func(policy any) Chain

	// Outcomes returns a handler that calls next, and then f if an answer has begun, with
	// the request as next got it.
	Outcomes func(next http.Handler, f func(*http.Request, Outcome)) http.Handler

	// SetRoute says which pattern a request has matched, to every Outcomes around.
	// It keeps the pointer, so that a request allocates nothing for it.
	SetRoute func(r *http.Request, pattern *string)

	// SwitchMaintenance lets an *admit.Maintenance refuse until a time, or for the zero time
	// until it is switched again, or for nil lets in; and returns what it did before.
	SwitchMaintenance func(maintenance any, until *time.Time) *time.Time

	// Decodes, Forms and Proxies are, as []*admit.Error, what Decode, ParseForm and
	// ProxyError answer, and Handlers what an admit.HandlerFunc does beside its own errors.
	// Mux is what an admit.Mux answers by itself: 400 to a request for "*", 404 and 405.
	Forms, Proxies, Handlers, Mux any
	Decodes                       func() any // since it decodes a sample

	// Routes are those of a *contract.API, which package contract sets; the first is for
	// any request, and has the empty pattern. Find returns the row of an answer, or one
	// that it would need.
	Routes func(api any) []Route
	Find   func(api any, r *http.Request, o Outcome) (Row, bool)

	// StandIn sets what serves requests in the place of the handlers of Handle, where f does
	// not return nil.
	StandIn func(api any, f func(*http.Request) http.Handler)
)

// Route is a route of a contract, with what it inherits from the outer Policy.
type Route struct {
	Pattern, Method, Host, Path string
	Methods                     []string // that are taken; nil: any
	Chain                       Chain
	Rows                        []Row // of its own
	Handled                     bool  // by Handle
}

// Row is what answers are told apart by.
type Row struct {
	Route  string // pattern; "": any request
	Status int
	Code   string
	Field  string // of the Policy; "handler", "HandlerFunc", "mux", or "" for what every Policy has
}

// HeaderNames are the names of the headers that an error has by itself, sorted.
func HeaderNames(h http.Header, retryAfter time.Duration) []string {
	var names []string
	for name := range h {
		names = append(names, HeaderName(name))
	}
	if retryAfter > 0 {
		names = append(names, "Retry-After")
	}
	slices.Sort(names)
	return names
}

// HeaderName writes the name of a header as its specification does, and not as http.Header.
func HeaderName(name string) string {
	switch name = http.CanonicalHeaderKey(name); name {
	case "Www-Authenticate":
		return "WWW-Authenticate"
	case "X-Request-Id":
		return "X-Request-ID"
	case "X-Api-Key":
		return "X-API-Key"
	case "Etag":
		return "ETag"
	}
	for _, prefix := range []string{"Ratelimit", "X-Ratelimit"} {
		if rest, ok := strings.CutPrefix(name, prefix); ok {
			return strings.Replace(prefix, "limit", "Limit", 1) + rest
		}
	}
	return name
}

// Retryable reports whether the same request may be answered otherwise a while later: the
// client was slow or too fast, or the trouble is the server's and passes (RFC 9110 §15.5.9,
// §15.6; RFC 6585 §4).
func Retryable(status int) bool {
	switch status {
	case http.StatusRequestTimeout, http.StatusTooManyRequests, http.StatusInternalServerError,
		http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		return true
	}
	return false
}

// Title returns the name of a status in RFC 9110, or of its class.
func Title(status int) string {
	switch status { // net/http has older names
	case http.StatusRequestEntityTooLarge:
		return "Content Too Large"
	case http.StatusUnprocessableEntity:
		return "Unprocessable Content"
	case http.StatusRequestedRangeNotSatisfiable:
		return "Range Not Satisfiable"
	case http.StatusRequestURITooLong:
		return "URI Too Long"
	}
	if text := http.StatusText(status); text != "" {
		return text
	}
	if status >= 500 {
		return "Server Error"
	}
	return "Client Error"
}
