package admit_test

import (
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"time"

	"github.com/admit-go/admit"
)

// The code is derived from the status. An Error can be a sentinel: errors.Is finds it, also
// after WithCause.
func ExampleNewError() {
	errSoldOut := admit.NewError(http.StatusConflict, "The article is sold out.")
	h := admit.HandlerFunc(func(http.ResponseWriter, *http.Request) error { return errSoldOut })

	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest("POST", "/orders", nil))
	fmt.Print(w.Code, " ", w.Body)
	// Output:
	// 409 {"result":"error","message":"The article is sold out.","code":"conflict"}
}

// An Error with a code of its own, a time to retry, and further members in the body.
func ExampleError() {
	errBusy := &admit.Error{
		Status:     http.StatusServiceUnavailable,
		Code:       "report_pending",
		Message:    "The report is not ready yet.",
		RetryAfter: 90 * time.Second,
		Meta:       map[string]any{"progress": 0.4},
	}
	h := admit.HandlerFunc(func(http.ResponseWriter, *http.Request) error { return errBusy })

	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest("GET", "/report", nil))
	fmt.Println(w.Code, "Retry-After:", w.Header().Get("Retry-After"))
	fmt.Print(w.Body)
	// Output:
	// 503 Retry-After: 90
	// {"result":"error","message":"The report is not ready yet.","code":"report_pending","retry_after":90,"progress":0.4}
}

// WriteError sends an error from any http.Handler, here from a middleware of the service. The
// cause is for the logs, and is never sent.
func ExampleWriteError() {
	weekdays := func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.Header.Get("Day") == "Sunday" {
				closed := admit.NewError(http.StatusForbidden, "The shop is closed on Sundays.")
				admit.WriteError(w, r, closed.WithCause(errors.New("no shift is planned")))
				return
			}
			next.ServeHTTP(w, r)
		})
	}
	h := weekdays(http.HandlerFunc(admit.NotFound))

	for _, accept := range []string{"application/json", "application/problem+json"} {
		r := httptest.NewRequest("GET", "/", nil)
		r.Header.Set("Day", "Sunday")
		r.Header.Set("Accept", accept)
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		fmt.Print(w.Code, " ", w.Body)
	}
	// Output:
	// 403 {"result":"error","message":"The shop is closed on Sundays.","code":"forbidden"}
	// 403 {"type":"about:blank","title":"Forbidden","status":403,"detail":"The shop is closed on Sundays.","code":"forbidden"}
}

// A handler returns its error instead of writing it.
func ExampleHandlerFunc() {
	h := admit.HandlerFunc(func(w http.ResponseWriter, r *http.Request) error {
		id := r.URL.Query().Get("id")
		if id != "7" {
			return admit.NewError(http.StatusNotFound, "There is no order "+id+".")
		}
		return admit.Success(w, r, http.StatusOK, map[string]string{"id": id})
	})
	for _, path := range []string{"/orders?id=7", "/orders?id=8"} {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest("GET", path, nil))
		fmt.Print(w.Code, " ", w.Body)
	}
	// Output:
	// 200 {"result":"success","data":{"id":"7"}}
	// 404 {"result":"error","message":"There is no order 8.","code":"not_found"}
}
