package admit_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"

	"github.com/admit-go/admit"
)

// The id of the client is kept if it is a usable one. Handlers get it for their own logs, and
// errors have it as request_id.
func ExampleRequestID() {
	h := admit.RequestID(admit.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) error {
		fmt.Println("works for", admit.RequestIDFrom(r.Context()))
		return admit.NewError(http.StatusNotFound, "")
	}))
	r := httptest.NewRequest("GET", "/", nil)
	r.Header.Set("X-Request-Id", "order-7")
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	fmt.Println(w.Code, "X-Request-Id:", w.Header().Get("X-Request-Id"))
	fmt.Print(w.Body)
	// Output:
	// works for order-7
	// 404 X-Request-Id: order-7
	// {"result":"error","message":"There is no such resource.","code":"not_found","request_id":"order-7"}
}
