package admit_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"

	"github.com/admit-go/admit"
)

// GET implies HEAD, and OPTIONS is answered without the handler.
func ExampleMethods() {
	h := admit.Methods("GET")(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "an order") }))

	for _, method := range []string{"GET", "OPTIONS", "DELETE", "BREW"} {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest(method, "/orders/7", nil))
		fmt.Printf("%s: %d, Allow: %q\n", method, w.Code, w.Header().Get("Allow"))
	}
	// Output:
	// GET: 200, Allow: ""
	// OPTIONS: 204, Allow: "GET, HEAD, OPTIONS"
	// DELETE: 405, Allow: "GET, HEAD, OPTIONS"
	// BREW: 501, Allow: "GET, HEAD, OPTIONS"
}
