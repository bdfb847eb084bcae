package contract

import (
	"log/slog"
	"net/http"
	"strings"

	"github.com/admit-go/admit/internal/published"
)

// Wrap returns a handler that answers as next does, and tells of every answer of 400 and
// above that no row has: to the function of Undeclared, and once for each route, status and
// code to the Logger of the outer Policy's ErrorWriter, or slog.Default. It stands outermost.
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

// Undeclared sets the function that Wrap tells of an answer that no row has, with the
// request as Wrap got it; the code is "" where admit has not written the answer. It is called
// when the answer has been given, by any number of goroutines; a panic of it passes on.
func (a *API) Undeclared(f func(r *http.Request, status int, code string)) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.undeclared = f
}

// maxLogged bounds the lines that a client can cause by routes that nobody has declared.
const maxLogged = 1000

// tell is told of the row that is missing.
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
		a.logger().LogAttrs(r.Context(), slog.LevelWarn, "contract: an answer is not in the contract; give its error to Handle, Declare or New",
			slog.String("route", missing.Route), slog.String("method", r.Method), slog.Int("status", missing.Status), slog.String("code", missing.Code))
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

// find returns the row of an answer: one of the route, else one that any request may get, else
// false, with what such a row would have. What the mux answers by itself it does where there
// is no route.
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

// routeOf returns the pattern of a request as the contract has it, or "": as Handle or a mux
// has found it, else as a mux would.
func (a *API) routeOf(r *http.Request, noted string) string {
	a.mu.Lock()
	known := a.routes[noted] != nil
	a.mu.Unlock()
	if known {
		return noted
	}
	if r.RequestURI == "*" {
		return "" // no resource, and a mux refuses it, whatever its patterns
	}
	_, pattern := a.matcher.Handler(r) // not under the lock: a client decides how long the path is
	if noted != "" && wider(pattern, noted) {
		return "" // a route that nobody has declared, below one for all that is no route
	}
	return pattern
}

// wider reports whether a pattern is for all paths below one, and other is one of those: the
// other way round it is where a mux is mounted.
func wider(pattern, other string) bool {
	_, _, path := splitPattern(pattern)
	_, _, below := splitPattern(other)
	base := path[:strings.LastIndexByte(path, '/')+1]
	return mayEnd(pattern) && path != below && strings.HasPrefix(below, base) && len(below) > len(base)
}

// mayEnd reports whether a mux may still answer by itself where this pattern has matched: no
// one has, or one for all paths below it, where another mux may be mounted.
func mayEnd(pattern string) bool {
	return pattern == "" || strings.HasSuffix(pattern, "/") || strings.HasSuffix(pattern, "...}")
}
