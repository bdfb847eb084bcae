package admit_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"

	"github.com/justinas/alice"

	"github.com/admit-go/admit"
)

// RequireScopes stands inside APIKey, which finds the key.
func ExampleRequireScopes() {
	keys := admit.KeyMap{
		admit.DigestOf("reader"): {ID: "k1", Scopes: []string{"orders:read"}},
		admit.DigestOf("writer"): {ID: "k2", Scopes: []string{"orders:read", "orders:write"}},
	}
	h := alice.New(admit.APIKey(keys), admit.RequireScopes("orders:write")).ThenFunc(func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprintln(w, "created")
	})
	for _, token := range []string{"writer", "reader"} {
		r := httptest.NewRequest("POST", "/orders", nil)
		r.Header.Set("X-API-Key", token)
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		fmt.Print(w.Code, " ", w.Body)
	}
	// Output:
	// 200 created
	// 403 {"result":"error","message":"The caller does not have the scope that this request needs: orders:write.","code":"scope_required"}
}
