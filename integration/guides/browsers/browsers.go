// Package browsers has the code of docs/browsers.md.
package browsers

import (
	"net/http"

	"github.com/rs/cors"

	"github.com/admit-go/admit"
)

// withCORS lets pages of one origin, such as https://app.example.com, call api.
func withCORS(api http.Handler, app string) http.Handler {
	return cors.New(cors.Options{
		AllowedOrigins: []string{app},
		AllowedMethods: []string{"GET", "POST", "DELETE"},
		AllowedHeaders: []string{"Content-Type", "X-API-Key"},
		ExposedHeaders: []string{"Retry-After", "RateLimit", "RateLimit-Policy", "X-Request-Id"},
		MaxAge:         600, // seconds that a browser remembers a preflight
	}).Handler(api)
}

func newAPI(keys admit.KeyStore, app string) (http.Handler, error) {
	auth, err := admit.NewAuth(admit.AuthConfig{Store: keys})
	if err != nil {
		return nil, err
	}
	limiter, err := admit.NewLimiter(admit.LimiterConfig{Limits: []admit.Limit{admit.PerMinute(2)}})
	if err != nil {
		return nil, err
	}

	orders := admit.Policy{Methods: []string{"POST"}, Auth: auth, Limiter: limiter}
	mux := http.NewServeMux()
	mux.Handle("/orders", orders.Wrap(admit.HandlerFunc(createOrder)))

	api := admit.Policy{}.Wrap(admit.Mux(mux))
	return withCORS(api, app), nil
}

func createOrder(w http.ResponseWriter, r *http.Request) error {
	return admit.Success(w, r, http.StatusCreated, nil)
}
