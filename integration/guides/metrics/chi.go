package metrics

import (
	"net/http"

	"github.com/go-chi/chi/v5"

	"github.com/admit-go/admit"
)

// Routes is a middleware of chi that tells admit which route a request has.
func Routes(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer func() { admit.SetRoute(r, chi.RouteContext(r.Context()).RoutePattern()) }()
		next.ServeHTTP(w, r)
	})
}
