package admittest

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/admit-go/admit/contract"
	"github.com/admit-go/admit/internal/published"
)

// Contract tests that a service keeps its contract. It is an http.Handler that calls the
// service. It fails the test on a response with a status of 400 or above that has no row in the
// contract, and records the rows of all others. It is safe for concurrent use, also in a server,
// and reports nothing after the end of the test.
type Contract struct {
	t    testing.TB
	api  *contract.API
	next http.Handler

	mu      sync.Mutex
	ended   bool           // the test is over
	reached map[row]bool   // rows that a response has had
	told    map[row]bool   // missing rows that have been reported
	reasons map[row]string // why Provoke has not reached a row
}

// row identifies a row of the contract.
type row struct {
	route  string // pattern; "": any request
	status int
	code   string
}

func rowOf(r published.Row) row { return row{r.Route, r.Status, r.Code} }

// String returns the row as AllReached writes it.
func (r row) String() string {
	route, code := r.route, r.code
	if route == "" {
		route = "any request"
	}
	if code == "" {
		code = "(written by others)"
	}
	return fmt.Sprintf("%s: %d %s", route, r.status, code)
}

// NewContract returns a Contract for a service, given its outermost handler. A test of five
// lines then proves that every error response is in the contract, and that every row can
// happen:
//
//	keys := admit.KeyMap{}
//	handler, api, err := service.New(service.Config{Keys: keys})
//	c := admittest.NewContract(t, api, handler)
//	... requests to c for the errors of the handlers
//	c.Provoke(admittest.Credentials{Keys: keys})
//	c.AllReached()
func NewContract(t testing.TB, api *contract.API, handler http.Handler) *Contract {
	t.Helper()
	if api == nil || handler == nil {
		t.Fatal("admittest: NewContract: the API or the handler is nil")
	}
	c := &Contract{t: t, api: api, reached: make(map[row]bool), told: make(map[row]bool), reasons: make(map[row]string)}
	c.next = published.Outcomes(handler, c.note)
	published.StandIn(api, standIn)
	t.Cleanup(func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.ended = true
	})
	return c
}

// ServeHTTP implements http.Handler.
func (c *Contract) ServeHTTP(w http.ResponseWriter, r *http.Request) { c.next.ServeHTTP(w, r) }

// note is called for every response.
func (c *Contract) note(r *http.Request, o published.Outcome) {
	if q := exchangeOf(r.Context()); q != nil {
		q.status, q.code = o.Status, o.Code
	}
	if o.Status < 400 {
		return
	}
	found, declared := published.Find(c.api, r, o)
	at := rowOf(found)
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case declared:
		c.reached[at] = true
	case !c.told[at] && !c.ended:
		c.told[at] = true
		c.t.Errorf("admittest: %s %s got %d %s, which the contract does not have for %s: %s",
			r.Method, r.URL.Path, at.status, at.code, quoteRoute(at.route), remedy(at))
	}
}

func quoteRoute(pattern string) string {
	if pattern == "" {
		return "any request, and no route matches"
	}
	return fmt.Sprintf("the route %q", pattern)
}

// remedy returns what to do about a response without a row.
func remedy(at row) string {
	switch {
	case at.code == "":
		return "admit has not written it, so wrap the handler that has in Mux or Intercept, return an *admit.Error instead, or pass a contract.Foreign to Handle, Declare or New"
	case at.route == "":
		return "pass the error to New, or add the route to the contract with Handle or Declare"
	default:
		return "pass the error to the Handle or Declare of the route, or to New"
	}
}

// AllReached fails the test for each row that no response has had so far, whether to a request
// of Provoke or to another. The exceptions are rows that need not be reached, written as in
// that failure: "GET /v1/orders: 503 store_unavailable", or without the route for all routes.
// An exception for rows that do not exist, or that have all been reached, is a failure too.
func (c *Contract) AllReached(except ...string) {
	c.t.Helper()
	c.mu.Lock()
	defer c.mu.Unlock()
	used := make(map[string]bool)
	for _, at := range c.rows() {
		if c.reached[at] {
			continue
		}
		text := at.String()
		_, answer, _ := strings.Cut(text, ": ")
		if i := slices.IndexFunc(except, func(e string) bool { return e == text || e == answer }); i >= 0 {
			used[except[i]] = true
			continue
		}
		reason := c.reasons[at]
		if reason == "" {
			reason = "make a request that gets it, or call Provoke before"
		}
		c.t.Errorf("admittest: no response had the row %s: %s", text, reason)
	}
	for _, e := range except {
		if !used[e] {
			c.t.Errorf("admittest: AllReached: the exception %q is not a row, or has been reached; remove it", e)
		}
	}
}

// rows returns all rows that can happen, each once.
func (c *Contract) rows() []row {
	var all []row
	seen := make(map[row]bool)
	routes := published.Routes(c.api)
	for _, route := range routes {
		for _, r := range route.Rows {
			if at := rowOf(r); !seen[at] && !never(r, routes) {
				seen[at] = true
				all = append(all, at)
			}
		}
	}
	return all
}

// never reports whether the routes, of which the first is the outer Policy, leave no room for a
// row of any request: the mux answers with 404 only if no pattern matches every path, and with
// 405 only if a pattern has a method, and none without one matches every path; and what only a
// handler can get, such as a 408, is a row of its route, if that has one.
func never(r published.Row, routes []published.Route) bool {
	routes = routes[1:]
	switch {
	case r.Route != "":
		return false
	case r.Field != "mux":
		return needsHandler(r) && len(routes) > 0 && !slices.ContainsFunc(routes, func(route published.Route) bool {
			return !slices.ContainsFunc(route.Rows, func(own published.Row) bool { return own.Status == r.Status && own.Code == r.Code })
		})
	case r.Status == http.StatusNotFound:
		return slices.ContainsFunc(routes, matchesAll)
	case r.Status == http.StatusMethodNotAllowed:
		return !slices.ContainsFunc(routes, func(route published.Route) bool { return route.Method != "" }) ||
			slices.ContainsFunc(routes, func(route published.Route) bool { return route.Method == "" && matchesAll(route) })
	}
	return false
}

// matchesAll reports whether a pattern matches every path: "/", or "/{rest...}".
func matchesAll(r published.Route) bool {
	wildcard := strings.HasPrefix(r.Path, "/{") && strings.HasSuffix(r.Path, "...}") && strings.Count(r.Path, "/") == 1
	return r.Host == "" && (r.Path == "/" || wildcard)
}
