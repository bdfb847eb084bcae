// Package routers has the code of docs/routers.md.
package routers

import (
	"errors"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/go-chi/chi/v5"
	"github.com/gorilla/mux"
	"github.com/labstack/echo/v4"

	"github.com/admit-go/admit"
)

// policies are one for the router, and one for each kind of route.
type policies struct {
	outer, reads, writes admit.Policy
}

func newPolicies(keys admit.KeyStore, observe func(*http.Request, admit.Outcome)) (policies, error) {
	auth, err := admit.NewAuth(admit.AuthConfig{Store: keys})
	if err != nil {
		return policies{}, err
	}
	limiter, err := admit.NewLimiter(admit.LimiterConfig{Limits: []admit.Limit{admit.PerMinute(100)}})
	if err != nil {
		return policies{}, err
	}
	outer := admit.Policy{
		Observe: observe,
		Timeout: 10 * time.Second,
	}
	reads := admit.Policy{Auth: auth, Limiter: limiter}
	writes := reads
	writes.Scopes = []string{"items:write"}
	writes.ContentType = []string{"application/json"}
	writes.MaxBody = 64 << 10
	return policies{outer, reads, writes}, nil
}

func newServeMux(p policies) http.Handler {
	m := http.NewServeMux()
	m.Handle("GET /items/{id}", p.reads.Wrap(admit.HandlerFunc(getItem)))
	m.Handle("PUT /items/{id}", p.writes.Wrap(admit.HandlerFunc(putItem)))
	return p.outer.Wrap(admit.Mux(m))
}

// newMethods has one handler for a path, and two for another.
func newMethods(items, getItem, putItem http.Handler) *http.ServeMux {
	m := http.NewServeMux()
	m.Handle("/items", admit.Policy{Methods: []string{"GET", "POST"}}.Wrap(items))
	m.Handle("GET /items/{id}", getItem)
	m.Handle("PUT /items/{id}", putItem)
	m.Handle("/items/{id}", admit.Policy{Methods: []string{"GET", "PUT"}}.Wrap(http.HandlerFunc(admit.NotFound))) // for all other methods
	return m
}

func newChi(p policies) http.Handler {
	r := chi.NewRouter()
	r.Use(chiRoute)
	r.With(p.reads.Wrap).Method("GET", "/items/{id}", admit.HandlerFunc(getItem))
	r.With(p.writes.Wrap).Method("PUT", "/items/{id}", admit.HandlerFunc(putItem))
	return p.outer.Wrap(admit.Intercept(r)) // which puts chi's 404 and 405 into the envelope
}

// chiRoute tells admit which pattern has matched. Chi knows it when its handler has returned.
func chiRoute(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer func() { admit.SetRoute(r, chi.RouteContext(r.Context()).RoutePattern()) }()
		next.ServeHTTP(w, r)
	})
}

func newGorilla(p policies) http.Handler {
	r := mux.NewRouter()
	r.Use(gorillaRoute)
	r.Handle("/items/{id}", p.reads.Wrap(admit.HandlerFunc(getItem))).Methods("GET")
	r.Handle("/items/{id}", p.writes.Wrap(admit.HandlerFunc(putItem))).Methods("PUT")
	r.NotFoundHandler = http.HandlerFunc(admit.NotFound)
	r.MethodNotAllowedHandler = gorillaAllow(r)
	return p.outer.Wrap(r)
}

func gorillaRoute(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if pattern, err := mux.CurrentRoute(r).GetPathTemplate(); err == nil {
			admit.SetRoute(r, pattern)
		}
		next.ServeHTTP(w, r)
	})
}

// gorillaAllow sets Allow, which a 405 must have, from the routes of the router.
func gorillaAllow(router *mux.Router) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var allow []string
		_ = router.Walk(func(route *mux.Route, _ *mux.Router, _ []*mux.Route) error {
			var m mux.RouteMatch
			if !route.Match(r, &m) && m.MatchErr == mux.ErrMethodMismatch {
				methods, _ := route.GetMethods()
				allow = append(allow, methods...)
			}
			return nil
		})
		slices.Sort(allow)
		w.Header().Set("Allow", strings.Join(slices.Compact(allow), ", "))
		admit.MethodNotAllowed(w, r)
	})
}

func newEcho(p policies) http.Handler {
	e := echo.New()
	e.HTTPErrorHandler = echoError
	e.Use(echoRoute)
	e.GET("/items/:id", echo.WrapHandler(admit.HandlerFunc(getItem)), with(p.reads)...)
	e.PUT("/items/:id", func(c echo.Context) error {
		return putItem(c.Response(), c.Request())
	}, with(p.writes)...)
	return p.outer.Wrap(e)
}

func echoRoute(next echo.HandlerFunc) echo.HandlerFunc {
	return func(c echo.Context) error {
		admit.SetRoute(c.Request(), c.Path())
		return next(c)
	}
}

// echoError writes the errors of handlers, and those of echo itself, into the envelope.
func echoError(err error, c echo.Context) {
	var e *echo.HTTPError
	if errors.As(err, &e) && e.Code >= 400 && e.Code <= 599 {
		err = admit.NewError(e.Code, "").WithCause(err)
	}
	admit.WriteError(c.Response(), c.Request(), err)
}

// with is a Policy as middlewares of a route. The second writes the error of the handler while
// the Policy is still around it.
func with(p admit.Policy) []echo.MiddlewareFunc {
	return []echo.MiddlewareFunc{echo.WrapMiddleware(p.Wrap), func(next echo.HandlerFunc) echo.HandlerFunc {
		return func(c echo.Context) error {
			if err := next(c); err != nil {
				c.Error(err)
			}
			return nil
		}
	}}
}

type item struct {
	Name string `json:"name"`
}

func getItem(w http.ResponseWriter, r *http.Request) error {
	return admit.Success(w, r, http.StatusOK, item{"lamp"})
}

func putItem(w http.ResponseWriter, r *http.Request) error {
	i, err := admit.Decode[item](r)
	if err != nil {
		return err
	}
	return admit.Success(w, r, http.StatusOK, i)
}
