package browsers

import (
	"net/http"

	"github.com/rs/cors"

	"github.com/admit-go/admit"
)

var errCrossOrigin = &admit.Error{
	Status:  http.StatusForbidden,
	Code:    "cross_origin",
	Message: "Pages of other sites must not send this request.",
}

// newCookieAPI finds the key in a cookie.
func newCookieAPI(keys admit.KeyStore, app string) (http.Handler, error) {
	csrf := http.NewCrossOriginProtection()
	if err := csrf.AddTrustedOrigin(app); err != nil {
		return nil, err
	}
	csrf.SetDenyHandler(admit.HandlerFunc(func(http.ResponseWriter, *http.Request) error {
		return errCrossOrigin
	}))
	auth, err := admit.NewAuth(admit.AuthConfig{
		Store:   keys,
		Sources: []admit.KeySource{admit.FromCookie("__Host-session")},
	})
	if err != nil {
		return nil, err
	}
	orders := admit.Policy{Methods: []string{"POST"}, Auth: auth}
	mux := http.NewServeMux()
	mux.Handle("/orders", orders.Wrap(admit.HandlerFunc(createOrder)))
	mux.HandleFunc("POST /sign-in", signIn)

	api := admit.Policy{}.Wrap(csrf.Handler(admit.Mux(mux)))
	return cors.New(cors.Options{
		AllowedOrigins:   []string{app},
		AllowCredentials: true, // the browser may send the cookie
		AllowedHeaders:   []string{"Content-Type"},
		ExposedHeaders:   []string{"Retry-After", "RateLimit", "RateLimit-Policy", "X-Request-Id"},
	}).Handler(api), nil
}

// signIn hands the key to the browser, where no script can read it.
func signIn(w http.ResponseWriter, r *http.Request) {
	http.SetCookie(w, &http.Cookie{
		Name: "__Host-session", Value: tokenOf(r), Path: "/", MaxAge: 8 * 60 * 60,
		HttpOnly: true, Secure: true, SameSite: http.SameSiteLaxMode,
	})
}

// tokenOf stands for the way in which the service makes a key for a user.
func tokenOf(*http.Request) string { return "s3cret" }
