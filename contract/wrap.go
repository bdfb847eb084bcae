package contract

import (
	"log/slog"
	"net/http"
	"strings"

	"github.com/admit-go/admit/internal/published"
)

// Wrap returns a handler that calls next and reports each response with a status of 400 or
// above that has no row in the contract. It calls the function of Undeclared each time. It
// logs each route, status and code once, to the Logger of the outer Policy's ErrorWriter or
// to slog.Default. It stands outermost.
func (a *API) Wrap(next http.Handler) http.Handler {
	if next == nil {
		panic("contract: Wrap: the handler is nil")
	}
	return published.Outcomes(next, func(r *http.Request, o published.Outcome) {
		if o.Status < 400 {
			return
		}
		if row, found := a.find(r, o); !found {
			a.tell(r, row)
		}
	})
}

// Undeclared sets the function that Wrap calls for a response that has no row, with the request
// that Wrap got. The code is "" if admit has not written the response. The function is called
// after the response has been written. It must be safe for concurrent use; Wrap does not
// recover its panics.
func (a *API) Undeclared(f func(r *http.Request, status int, code string)) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.undeclared = f
}

// maxLogged bounds the log lines that clients can cause by requests to undeclared routes.
const maxLogged = 1000

// tell reports a row that is missing.
func (a *API) tell(r *http.Request, missing Answer) {
	a.mu.Lock()
	f := a.undeclared
	what := [3]any{missing.Route, missing.Status, missing.Code}
	first := !a.logged[what] && len(a.logged) < maxLogged
	if first {
		a.logged[what] = true
	}
	a.mu.Unlock()
	if first {
		a.logger().LogAttrs(r.Context(), slog.LevelWarn, "contract: a response is not in the contract; pass its error to Handle, Declare or New",
			slog.String("route", missing.Route), slog.String("http.request.method", r.Method), slog.Int("http.response.status_code", missing.Status), slog.String("error.type", missing.Code))
	}
	if f != nil {
		f(r, missing.Status, missing.Code)
	}
}

func (a *API) logger() *slog.Logger {
	if e := a.outer.errors; e != nil && e.Logger != nil {
		return e.Logger
	}
	return slog.Default()
}

// find returns the row of a response: one of the route, or else one that any request may get.
// If there is none, it returns false and what the row would have. The rows of the mux count
// only where there is no route.
func (a *API) find(r *http.Request, o published.Outcome) (Answer, bool) {
	pattern := a.routeOf(r, o.Route)
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, at := range []*route{a.routes[pattern], a.outer} {
		if at == nil {
			continue
		}
		for _, row := range at.answers {
			if row.Status == o.Status && row.Code == o.Code && (row.field != "mux" || pattern == "" && mayEnd(o.Route)) {
				return row, true
			}
		}
	}
	return Answer{Route: pattern, Status: o.Status, Code: o.Code}, false
}

// routeOf returns the pattern of a request that is in the contract, or "". It is the one that
// Handle or a mux has noted, or else the one that a mux would find.
func (a *API) routeOf(r *http.Request, noted string) string {
	a.mu.Lock()
	known := a.routes[noted] != nil
	a.mu.Unlock()
	if known {
		return noted
	}
	if r.RequestURI == "*" {
		return "" // no resource: a mux rejects it, whatever its patterns
	}
	_, pattern := a.matcher.Handler(r) // not under the lock: the client decides how long the path is
	if noted != "" && wider(pattern, noted) {
		return "" // an undeclared route below a pattern for all paths
	}
	return pattern
}

// wider reports whether a pattern matches all paths below one, and other is for one of those
// paths. The other way round, other is where a mux is mounted.
func wider(pattern, other string) bool {
	_, _, path := splitPattern(pattern)
	_, _, below := splitPattern(other)
	base := path[:strings.LastIndexByte(path, '/')+1]
	return mayEnd(pattern) && path != below && strings.HasPrefix(below, base) && len(below) > len(base)
}

// mayEnd reports whether a mux may still answer by itself where this pattern has matched:
// either none has, or one for all paths below it, where another mux may be mounted.
func mayEnd(pattern string) bool {
	return pattern == "" || strings.HasSuffix(pattern, "/") || strings.HasSuffix(pattern, "...}")
}
