package contract

import (
	"cmp"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/admit-go/admit/internal/published"
)

// model is what the page and the OpenAPI document are generated from.
type model struct {
	info     Info
	schemes  map[string]SecurityScheme // of all routes
	limits   []published.Limits        // of all Limiters, each once
	quotas   []published.Quotas        // of all plans that have any, each once
	plans    []published.Plan
	statuses []statusModel // sorted
	any      []Answer      // what any request may get
	routes   []routeModel  // sorted by path and method
}

// statusModel is a status with all its codes.
type statusModel struct {
	status int
	codes  []codeModel // sorted
}

// codeModel is one code of a status.
type codeModel struct {
	code   string
	rows   []Answer // one for each message; Route and Method are those of the first that has it
	routes []string // patterns of the routes that may answer with it; "": any request
}

// routeModel is a route with what it inherits from the outer Policy.
type routeModel struct {
	pattern            string
	method, host, path string   // of the pattern; method "": any
	methods            []string // that the route takes: that of the pattern, or those of the Policy; nil: any
	chain              published.Chain
	security           []string // names of schemes, any one of which is enough; nil: none is required
	answers            []Answer // of the route, and of any request; sorted by status and code
}

func (a *API) model() model {
	a.mu.Lock()
	defer a.mu.Unlock()
	m := model{info: a.info, schemes: make(map[string]SecurityScheme), any: a.outer.answers}
	m.inherit(a.outer.chain)
	for _, r := range a.sorted() {
		m.routes = append(m.routes, m.route(r, a.outer))
	}
	for _, row := range m.any {
		m.put(row)
	}
	for _, r := range a.sorted() {
		for _, row := range r.answers {
			m.put(row)
		}
	}
	return m
}

// inherit adds the limits, the quotas and the plans of a chain.
func (m *model) inherit(c published.Chain) {
	for _, l := range c.Limits {
		if !slices.ContainsFunc(m.limits, func(o published.Limits) bool {
			return o.Field == l.Field && o.Name == l.Name && o.Plan == l.Plan && o.Others == l.Others && slices.Equal(o.Limits, l.Limits)
		}) {
			m.limits = append(m.limits, l)
		}
	}
	m.inheritQuotas(c.Quotas)
	for _, p := range c.Plans {
		if !slices.ContainsFunc(m.plans, func(o published.Plan) bool { return o.Name == p.Name }) {
			m.plans = append(m.plans, p)
		}
	}
}

func (m *model) route(r, outer *route) routeModel {
	c := r.chain
	m.inherit(c)
	o := outer.chain
	switch {
	case !c.Identity && c.Sources == nil:
		c.Identity, c.Sources, c.Realm, c.Optional, c.Throttle = o.Identity, o.Sources, o.Realm, o.Optional, o.Throttle
	case c.Identity && o.Optional:
		c.Sources, c.Realm, c.Throttle = o.Sources, o.Realm, o.Throttle // a key, or a credential of the Identity
	}
	c.Scopes = union(o.Scopes, c.Scopes)
	c.Features = union(o.Features, c.Features)
	c.AtLeast = cmp.Or(c.AtLeast, o.AtLeast)
	c.Limits, c.Quotas = slices.Concat(o.Limits, c.Limits), slices.Concat(o.Quotas, c.Quotas)
	c.MaxBody = least(o.MaxBody, c.MaxBody)
	c.BodyWait = cmp.Or(c.BodyWait, o.BodyWait)
	c.FirstByte, c.Total = least(o.FirstByte, c.FirstByte), least(o.Total, c.Total)
	if c.Offers == nil {
		c.Offers = o.Offers
	}
	if c.Types == nil {
		c.Types, c.Encodings = o.Types, o.Encodings
	}
	if c.Methods == nil {
		c.Methods = o.Methods
	}
	rm := routeModel{pattern: r.pattern, method: r.method, host: r.host, path: r.path, chain: c}
	switch {
	case r.method == http.MethodGet:
		rm.methods = []string{http.MethodGet, http.MethodHead} // as a ServeMux has it
	case r.method != "":
		rm.methods = []string{r.method}
	default:
		rm.methods = c.Methods
	}
	rm.security = m.security(c)
	for _, row := range outer.answers {
		if rm.reaches(row) {
			rm.answers = append(rm.answers, row)
		}
	}
	rm.answers = append(rm.answers, r.answers...)
	slices.SortStableFunc(rm.answers, func(a, b Answer) int {
		return cmp.Or(cmp.Compare(a.Status, b.Status), cmp.Compare(a.Code, b.Code))
	})
	return rm
}

func union(a, b []string) []string {
	all := slices.Clone(a)
	for _, s := range b {
		if !slices.Contains(all, s) {
			all = append(all, s)
		}
	}
	return all
}

// least returns the smaller of two bounds. Zero means no bound.
func least[T int64 | time.Duration](a, b T) T {
	if a == 0 || b != 0 && b < a {
		return b
	}
	return a
}

// security returns the names of the schemes that a request may use, and adds the schemes to
// the model.
func (m *model) security(c published.Chain) []string {
	var names []string
	for _, s := range c.Sources {
		name, scheme := schemeOf(s)
		m.schemes[name] = scheme
		names = append(names, name)
	}
	if c.Identity {
		for _, name := range slices.Sorted(maps.Keys(m.info.SecuritySchemes)) {
			m.schemes[name] = m.info.SecuritySchemes[name]
			names = append(names, name)
		}
	}
	return names
}

// schemeOf describes where a request has its key as OpenAPI does, and names that.
func schemeOf(s published.Source) (string, SecurityScheme) {
	id := strings.Map(func(r rune) rune {
		if r < 'a' || r > 'z' {
			return '_'
		}
		return r
	}, strings.ToLower(s.Name))
	switch {
	case s.In == "authorization" && strings.EqualFold(s.Name, "Bearer"):
		return "bearer", SecurityScheme{Type: "http", Scheme: "bearer", Description: "The API key as a bearer token: Authorization: Bearer KEY"}
	case s.In == "authorization":
		return "authorization_" + id, SecurityScheme{Type: "apiKey", In: "header", Name: "Authorization", Description: "The API key after its scheme: Authorization: " + s.Name + " KEY"}
	default:
		return s.In + "_" + id, SecurityScheme{Type: "apiKey", In: s.In, Name: s.Name, Description: "The API key alone, in the " + s.In + " " + s.Name + "."}
	}
}

// put adds a row under its status and code.
func (m *model) put(row Answer) {
	i, found := slices.BinarySearchFunc(m.statuses, row.Status, func(s statusModel, status int) int { return cmp.Compare(s.status, status) })
	if !found {
		m.statuses = slices.Insert(m.statuses, i, statusModel{status: row.Status})
	}
	s := &m.statuses[i]
	i, found = slices.BinarySearchFunc(s.codes, row.Code, func(c codeModel, code string) int { return cmp.Compare(c.code, code) })
	if !found {
		s.codes = slices.Insert(s.codes, i, codeModel{code: row.Code})
	}
	c := &s.codes[i]
	if !slices.Contains(c.routes, row.Route) {
		c.routes = append(c.routes, row.Route)
	}
	if !slices.ContainsFunc(c.rows, func(o Answer) bool { return o.Message == row.Message }) {
		c.rows = append(c.rows, row)
	}
}

// reaches reports whether a request for the route may get a row of any request. What a mux
// answers by itself is for requests without a route; of that, only the answer to a wrong
// method is worth listing.
func (r *routeModel) reaches(row Answer) bool {
	return row.field != "mux" || row.Status == http.StatusMethodNotAllowed && r.method != ""
}

// servers returns the base URLs of a host, which is "" for those of the API.
func (m *model) servers(host string) []string {
	var all []string
	for _, server := range m.info.Servers {
		u, err := url.Parse(server)
		if err != nil {
			continue // never: New has checked it
		}
		if host != "" {
			u.Host = host
		}
		all = union(all, []string{strings.TrimRight(u.String(), "/")})
	}
	return all
}
