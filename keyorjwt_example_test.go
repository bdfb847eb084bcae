package admit_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"time"

	"github.com/admit-go/admit"
)

// unlessKeyed applies identity only to requests that have no Key yet.
func unlessKeyed(identity admit.Middleware) admit.Middleware {
	return func(next http.Handler) http.Handler {
		other := identity(next)
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if _, found := admit.KeyFrom(r.Context()); found {
				next.ServeHTTP(w, r)
				return
			}
			other.ServeHTTP(w, r)
		})
	}
}

// In one service, customers send an API key and users send a JWT. The Auth outside is Optional,
// so that a request without an API key passes, and it only looks at X-API-Key, so that
// Authorization is left to the JWT. A bad API key is still rejected. Inside the second
// middleware every request has a Key. The functions identify and verifyHS256 are those of the
// example of WithKey with a JWT.
func ExampleNewAuth_keyOrJWT() {
	auth, err := admit.NewAuth(admit.AuthConfig{
		Store:    admit.KeyMap{admit.DigestOf("s3cret"): {ID: "k1", Owner: "ACME", Scopes: []string{"orders:read"}}},
		Sources:  []admit.KeySource{admit.FromHeader("X-API-Key")},
		Optional: true,
	})
	if err != nil {
		panic(err)
	}
	secret := []byte("at least 32 bytes, from the vault")
	keyOrJWT := unlessKeyed(identify(verifyHS256(secret)))

	outer := admit.Policy{Auth: auth}
	orders := admit.Policy{Methods: []string{"GET"}, Identity: keyOrJWT, Scopes: []string{"orders:read"}}
	h := outer.Wrap(orders.Wrap(admit.HandlerFunc(func(w http.ResponseWriter, r *http.Request) error {
		key, _ := admit.KeyFrom(r.Context())
		return admit.Success(w, r, http.StatusOK, "Hello, "+key.Owner)
	})))

	token := sign(secret, claims{"ann", "orders:read", time.Now().Add(time.Hour).Unix()})
	for _, credential := range [][2]string{
		{"X-API-Key", "s3cret"},
		{"X-API-Key", "guess"},
		{"Authorization", "Bearer " + token},
		{"Authorization", "Bearer guess"},
		{"Cookie", "none=at all"},
	} {
		r := httptest.NewRequest("GET", "/orders", nil)
		r.Header.Set("X-Request-Id", "r1")
		r.Header.Set(credential[0], credential[1])
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		fmt.Println(w.Code, strings.TrimSpace(w.Body.String()))
	}
	// Output:
	// 200 {"result":"success","data":"Hello, ACME"}
	// 401 {"result":"error","message":"The API key is not valid.","code":"key_invalid","request_id":"r1"}
	// 200 {"result":"success","data":"Hello, user:ann"}
	// 401 {"result":"error","message":"The token is not valid.","code":"token_invalid","request_id":"r1"}
	// 401 {"result":"error","message":"A token is required: Authorization: Bearer TOKEN.","code":"token_missing","request_id":"r1"}
}
