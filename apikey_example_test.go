package admit_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/netip"

	"github.com/admit-go/admit"
)

// A service mints a token for each customer, and stores only its digest.
func ExampleAPIKey() {
	token, digest, _ := admit.Mint("acme")
	keys := admit.KeyMap{digest: {ID: "k1", Owner: "ACME"}}
	h := admit.APIKey(keys)(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		key, _ := admit.KeyFrom(r.Context())
		fmt.Fprintln(w, "Hello,", key.Owner)
	}))

	for _, authorization := range []string{"Bearer " + token, "Bearer guess", ""} {
		r := httptest.NewRequest("GET", "/", nil)
		r.Header.Set("Authorization", authorization)
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		fmt.Print(w.Code, " ", w.Body)
	}
	// Output:
	// 200 Hello, ACME
	// 401 {"result":"error","message":"The API key is not valid.","code":"key_invalid"}
	// 401 {"result":"error","message":"An API key is required: Authorization: Bearer or the header X-Api-Key.","code":"key_missing"}
}

// The key comes in a header of the service's own. Requests without a key are let in, and
// requests with a bad one are not.
func ExampleNewAuth() {
	auth, err := admit.NewAuth(admit.AuthConfig{
		Store:    admit.KeyMap{admit.DigestOf("s3cret"): {ID: "k1", Owner: "ACME"}},
		Sources:  []admit.KeySource{admit.FromHeader("Shop-Key")},
		Optional: true,
	})
	if err != nil {
		panic(err)
	}
	h := auth.Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if key, found := admit.KeyFrom(r.Context()); found {
			fmt.Fprintln(w, "Hello,", key.Owner)
			return
		}
		fmt.Fprintln(w, "Hello, stranger")
	}))
	for _, headers := range []http.Header{{"Shop-Key": {"s3cret"}}, {"Shop-Key": {"guess"}}, {}} {
		r := httptest.NewRequest("GET", "/", nil)
		r.Header = headers
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		fmt.Print(w.Code, " ", w.Body)
	}
	// Output:
	// 200 Hello, ACME
	// 401 {"result":"error","message":"The API key is not valid.","code":"key_invalid"}
	// 200 Hello, stranger
}

// A token may also come outside a request, such as in the first message of a WebSocket.
func ExampleAuth_VerifyFrom() {
	auth, err := admit.NewAuth(admit.AuthConfig{Store: admit.KeyMap{
		admit.DigestOf("s3cret"): {ID: "k1", Owner: "ACME", Networks: []netip.Prefix{netip.MustParsePrefix("198.51.100.0/24")}},
	}})
	if err != nil {
		panic(err)
	}
	for _, from := range []string{"198.51.100.7", "203.0.113.9"} {
		key, err := auth.VerifyFrom(context.Background(), "s3cret", netip.MustParseAddr(from))
		var refused *admit.Error
		if errors.As(err, &refused) {
			fmt.Println(refused.Status, refused.Code)
			continue
		}
		fmt.Println("Hello,", key.Owner)
	}
	// Output:
	// Hello, ACME
	// 403 address_not_allowed
}
