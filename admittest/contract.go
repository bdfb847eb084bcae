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

// Contract is a service that is held to its contract: an http.Handler that fails the test
// on an answer of 400 or above that no row has, and knows which rows some answer has had. It
// is safe for concurrent use, over a server too, and says nothing after the end of the test.
type Contract struct {
	t    testing.TB
	api  *contract.API
	next http.Handler

	mu      sync.Mutex
	ended   bool           // the test is over
	reached map[row]bool   // rows that an answer has had
	told    map[row]bool   // answers without a row that the test has failed on
	reasons map[row]string // why Provoke has not reached a row
}

// row is what answers are told apart by.
type row struct {
	route  string // pattern; "": any request
	status int
	code   string
}

func rowOf(r published.Row) row { return row{r.Route, r.Status, r.Code} }

// String is how AllReached writes a row.
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

// NewContract holds a service to its contract, from its outermost handler: one test of five
// lines proves that every answer is in the contract, and that every row can happen.
//
//	keys := admit.KeyMap{}
//	handler, api, err := service.New(service.Config{Keys: keys})
//	c := admittest.NewContract(t, api, handler)
//	... requests to c for the errors of the service's own handlers
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

// note is told of every answer.
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
		c.t.Errorf("admittest: %s %s was answered %d %s, which the contract does not have for %s: %s",
			r.Method, r.URL.Path, at.status, at.code, quoteRoute(at.route), remedy(at))
	}
}

func quoteRoute(pattern string) string {
	if pattern == "" {
		return "any request, and no route of it matches"
	}
	return fmt.Sprintf("the route %q", pattern)
}

// remedy says what to do about an answer without a row.
func remedy(at row) string {
	switch {
	case at.code == "":
		return "admit has not written it, so put Mux or Intercept around who has, return an *admit.Error instead, or give its contract.Foreign to Handle, Declare or New"
	case at.route == "":
		return "give the error to New, or tell the contract of the route by Handle or Declare"
	default:
		return "give the error to its Handle or Declare, or to New"
	}
}

// AllReached fails the test for each row that no answer has had so far, be it to a request of
// Provoke or another one. The exceptions are rows that need not be reached, written as in
// that failure: "GET /v1/orders: 503 store_unavailable", or without the route for all routes.
// An exception for rows that do not exist, or have all been reached, fails too.
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
			reason = "make a request that is answered so, or call Provoke before"
		}
		c.t.Errorf("admittest: no answer had the row %s: %s", text, reason)
	}
	for _, e := range except {
		if !used[e] {
			c.t.Errorf("admittest: AllReached: the exception %q is no row that was not reached; leave it out", e)
		}
	}
}

// rows returns all rows, each once.
func (c *Contract) rows() []row {
	var all []row
	seen := make(map[row]bool)
	for _, route := range published.Routes(c.api) {
		for _, r := range route.Rows {
			if at := rowOf(r); !seen[at] {
				seen[at] = true
				all = append(all, at)
			}
		}
	}
	return all
}
