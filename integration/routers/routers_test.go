// Package routers shows admit around the routers that people use.
package routers_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"

	"github.com/go-chi/chi/v5"
	"github.com/gorilla/mux"
	"github.com/justinas/alice"
	"github.com/rs/cors"

	"github.com/admit-go/admit"
)

func show(h http.Handler, method, path string, headers ...string) *httptest.ResponseRecorder {
	w, r := httptest.NewRecorder(), httptest.NewRequest(method, path, nil)
	for i := 0; i < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	h.ServeHTTP(w, r)
	allow := w.Header()["Allow"]
	slices.Sort(allow) // chi has them in any order
	fmt.Println(strings.TrimSpace(fmt.Sprint(w.Code, " ", allow, " ", w.Body)))
	return w
}

func item(w http.ResponseWriter, _ *http.Request) { _, _ = fmt.Fprint(w, "an item") }

// Chi's own 405 says Allow and has no body, so that Intercept is all it needs; 404 is
// the same.
func Example_chi() {
	r := chi.NewRouter()
	r.Get("/items/{id}", item)
	r.Put("/items/{id}", item)
	h := alice.New(admit.Recover, admit.Intercept).Then(r)

	show(h, "GET", "/items/7")
	show(h, "GET", "/nowhere")
	show(h, "DELETE", "/items/7")
	// Output:
	// 200 [] an item
	// 404 [] {"result":"error","message":"There is no such resource.","code":"not_found"}
	// 405 [GET PUT] {"result":"error","message":"The resource does not take this method.","code":"method_not_allowed"}
}

// With handlers of its own instead, so that texts of the service's handlers pass. Chi
// then leaves Allow to them.
func Example_chiHandlers() {
	r := chi.NewRouter()
	r.Get("/items/{id}", item)
	r.NotFound(admit.NotFound)
	r.MethodNotAllowed(func(w http.ResponseWriter, q *http.Request) {
		for _, method := range []string{"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"} {
			if r.Match(chi.NewRouteContext(), method, q.URL.Path) {
				w.Header().Add("Allow", method)
			}
		}
		admit.MethodNotAllowed(w, q)
	})

	show(r, "GET", "/nowhere")
	show(r, "DELETE", "/items/7")
	// Output:
	// 404 [] {"result":"error","message":"There is no such resource.","code":"not_found"}
	// 405 [GET] {"result":"error","message":"The resource does not take this method.","code":"method_not_allowed"}
}

// Gorilla says no Allow by itself; its routes tell what it would be.
func Example_gorilla() {
	r := mux.NewRouter()
	r.HandleFunc("/items/{id}", item).Methods("GET", "PUT")
	r.NotFoundHandler = http.HandlerFunc(admit.NotFound)
	r.MethodNotAllowedHandler = http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		var allow []string
		_ = r.Walk(func(route *mux.Route, _ *mux.Router, _ []*mux.Route) error {
			var m mux.RouteMatch
			if !route.Match(q, &m) && m.MatchErr == mux.ErrMethodMismatch {
				methods, _ := route.GetMethods()
				allow = append(allow, methods...)
			}
			return nil
		})
		slices.Sort(allow)
		w.Header().Set("Allow", strings.Join(slices.Compact(allow), ", "))
		admit.MethodNotAllowed(w, q)
	})
	h := alice.New(admit.Recover).Then(r)

	show(h, "GET", "/items/7")
	show(h, "GET", "/nowhere")
	show(h, "DELETE", "/items/7")
	// Output:
	// 200 [] an item
	// 404 [] {"result":"error","message":"There is no such resource.","code":"not_found"}
	// 405 [GET, PUT] {"result":"error","message":"The resource does not take this method.","code":"method_not_allowed"}
}

// CORS stands outside: a browser's preflight has no key, and an error without CORS
// headers cannot be read by the page.
func Example_cors() {
	keys := admit.KeyMap{admit.DigestOf("s3cret"): {ID: "k1"}}
	h := alice.New(
		cors.New(cors.Options{
			AllowedOrigins: []string{"https://app.example.com"},
			AllowedHeaders: []string{"X-API-Key"},
			ExposedHeaders: []string{"X-Request-Id", "Retry-After"},
		}).Handler,
		admit.RequestID, admit.Recover, admit.APIKey(keys),
	).Then(http.HandlerFunc(item))

	w := show(h, "OPTIONS", "/items/7", "Origin", "https://app.example.com", "Access-Control-Request-Method", "GET", "Access-Control-Request-Headers", "x-api-key")
	fmt.Println(w.Header().Get("Access-Control-Allow-Headers"))
	w = show(h, "GET", "/items/7", "Origin", "https://app.example.com", "X-API-Key", "wrong", "X-Request-Id", "r1")
	fmt.Println(w.Header().Get("Access-Control-Allow-Origin"))
	// Output:
	// 204 []
	// x-api-key
	// 401 [] {"result":"error","message":"The API key is not valid.","code":"key_invalid","request_id":"r1"}
	// https://app.example.com
}
