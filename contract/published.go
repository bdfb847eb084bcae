package contract

import (
	"net/http"
	"slices"

	"github.com/admit-go/admit/internal/published"
)

// These functions are for package admittest, which sees more than the API exports.
func init() {
	published.Routes = func(api any) []published.Route { return api.(*API).published() }
	published.Find = func(api any, r *http.Request, o published.Outcome) (published.Row, bool) {
		row, found := api.(*API).find(r, o)
		return row.published(), found
	}
	published.StandIn = func(api any, f func(*http.Request) http.Handler) { api.(*API).standIn.Store(&f) }
}

func (a *API) published() []published.Route {
	a.mu.Lock()
	defer a.mu.Unlock()
	all := []published.Route{{Methods: a.outer.chain.Methods, Chain: a.outer.chain, Rows: a.outer.published()}}
	m := model{info: a.info, schemes: make(map[string]SecurityScheme)}
	for _, r := range a.sorted() {
		rm := m.route(r, a.outer)
		all = append(all, published.Route{
			Pattern: r.pattern, Method: r.method, Host: r.host, Path: r.path,
			Methods: rm.methods, Chain: rm.chain, Rows: r.published(), Handled: r.handled,
		})
	}
	return all
}

// published returns the rows without their messages: one for each status, code and field of
// the Policy.
func (r *route) published() []published.Row {
	var rows []published.Row
	for _, answer := range r.answers {
		if row := answer.published(); !slices.Contains(rows, row) {
			rows = append(rows, row)
		}
	}
	return rows
}

func (row Answer) published() published.Row {
	return published.Row{Route: row.Route, Status: row.Status, Code: row.Code, Field: row.field}
}
