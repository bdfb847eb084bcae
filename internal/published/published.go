// Package published is what package admit tells the packages that publish a contract about its
// values. It is not part of the API, since users do not need it. Package admit sets the
// functions, whose arguments and results have types of package admit.
package published

import (
	"net/http"
	"slices"
	"strings"
	"time"
)

// Chain is what a Policy requires of a request and does to it, except its error responses.
type Chain struct {
	Methods   []string      // that it takes, with HEAD; nil: any
	Offers    []string      // media types of responses; nil: not negotiated
	Types     []string      // media types of request bodies; nil: any
	Encodings []string      // content codings of request bodies, besides none
	MaxBody   int64         // in bytes; 0: no bound
	FirstByte time.Duration // until the first byte of a response; 0: no bound
	Total     time.Duration // until the end of a response; 0: no bound

	Sources  []Source // where a request may have a key; nil: no key is required
	Realm    string
	Optional bool // a request may come without a key
	Identity bool // something other than a key identifies the caller
	Throttle Limit
	Outside  bool // keys are in a store that may fail

	Scopes   []string
	AtLeast  string
	Features []string
	Plans    []Plan

	Limits      []Limits
	Quotas      []Quotas
	InFlight    InFlight
	Shedder     Shedder
	BodyWait    time.Duration // for a byte of a request body; 0: no bound
	Maintenance any           // *admit.Maintenance, or nil
	Errors      any           // *admit.ErrorWriter, or nil
}

// InFlight is a concurrency limit; all fields are 0 if there is none.
type InFlight struct {
	Max, PerAddress, Queue int
}

// Shedder is how many requests may run at once, and how many may wait for how long.
type Shedder struct {
	Max, Queue int
	Interval   time.Duration
}

// Source is where a request may have a key.
type Source struct {
	In   string // authorization, header, query or cookie
	Name string // authorization: the scheme
}

// Plan is a plan of callers.
type Plan struct {
	Name, Includes string
	Features       []string
	UpgradeURL     string
}

// Limits are the limits of one Limiter for the callers of one plan.
type Limits struct {
	Field  string // of the Policy
	Name   string // of the Limiter
	By     string // key, address, or "" for another way of counting
	Plan   string // "": callers without a plan, or whose plan has no limits
	Others bool   // the Limiter has limits of plans beside those of Plan ""
	Limits []Limit
	DryRun bool

	Policy    string // the header RateLimit-Policy
	Exhausted string // an example of the header RateLimit with the first limit used up

	Store  bool // the limits are in a store that other processes may share
	Legacy bool // it sends X-RateLimit headers too
}

// Limit is one limit, complete.
type Limit struct {
	Name     string
	Requests int
	Per      time.Duration
	Burst    int
}

// Quotas are the quotas of the callers of one plan. There is one for callers without a plan,
// which comes first, and one for each plan.
type Quotas struct {
	Plan     string // "": callers without a plan
	Quotas   []Quota
	Billing  bool   // periods begin on the billing day of the caller, otherwise with the calendar
	Location string // the time zone in which periods begin

	Policy    string // an example of the header RateLimit-Policy; "": there are no quotas
	Exhausted string // an example of the header RateLimit with a quota used up; "": no quota rejects

	Store bool // usage is in a store that other processes may share
}

// Quota is one quota, complete.
type Quota struct {
	Name     string
	Requests int64
	Every    string // day, week or month
	Soft     bool   // more requests are counted, not rejected
}

// Outcome is how a request has ended.
type Outcome struct {
	Route  string // the innermost pattern that has matched, or ""
	Status int
	Code   string // of the error that admit has written; "" if it has not written one
}

var (
	// Of describes an admit.Policy that Chain takes.
	Of func(policy any) Chain

	// Outcomes returns a handler that calls next, and then f if a response has begun, with the
	// request that next got.
	Outcomes func(next http.Handler, f func(*http.Request, Outcome)) http.Handler

	// SetRoute tells every Outcomes around which pattern a request has matched. It keeps the
	// pointer, so that it allocates nothing.
	SetRoute func(r *http.Request, pattern *string)

	// SwitchMaintenance makes an *admit.Maintenance reject requests until a time. Until the zero
	// time, it rejects them until it is switched again; nil admits them. It returns the value
	// before.
	SwitchMaintenance func(maintenance any, until *time.Time) *time.Time

	// Decodes, Forms and Proxies are the errors of Decode, ParseForm and ProxyError, as
	// []*admit.Error. Handlers are those of an admit.HandlerFunc besides its own. Mux are those
	// of an admit.Mux itself: 400 for a request for "*", 404 and 405.
	Forms, Proxies, Handlers, Mux any
	Decodes                       func() any // a function, since it decodes a sample

	// Routes returns the routes of a *contract.API, and Find the row of a response, or the one
	// that is missing. Package contract sets both. The first route has the empty pattern, and is
	// for any request.
	Routes func(api any) []Route
	Find   func(api any, r *http.Request, o Outcome) (Row, bool)

	// StandIn sets a function that may return a handler to replace that of Handle for a request,
	// or nil.
	StandIn func(api any, f func(*http.Request) http.Handler)
)

// Route is a route of a contract, with what it inherits from the outer Policy.
type Route struct {
	Pattern, Method, Host, Path string
	Methods                     []string // that it takes; nil: any
	Chain                       Chain
	Rows                        []Row // its own, without those of the outer Policy
	Handled                     bool  // registered by Handle
}

// Row identifies a row of a contract.
type Row struct {
	Route  string // pattern; "": any request
	Status int
	Code   string
	Field  string // of the Policy; "handler", "HandlerFunc", "mux", or "" for what every Policy has
}

// HeaderNames returns the names of the headers that an error has itself, sorted.
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

// HeaderName returns the name of a header as its specification writes it, instead of the form of
// http.Header.
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

// Retryable reports whether the same request may succeed later: the client was too slow or too
// fast, or the server has a temporary problem (RFC 9110 §15.5.9, §15.6; RFC 6585 §4).
func Retryable(status int) bool {
	switch status {
	case http.StatusRequestTimeout, http.StatusTooManyRequests, http.StatusInternalServerError,
		http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		return true
	}
	return false
}

// Title returns the name of a status in RFC 9110, or that of its class.
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
