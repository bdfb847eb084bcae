package admit_test

import (
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"time"

	"github.com/admit-go/admit"
)

// An access log stands outermost. It has the reason why a key was rejected, and never its token.
func ExampleAccessLog() {
	logger := slog.New(slog.NewTextHandler(os.Stdout, &slog.HandlerOptions{ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
		switch a.Key { // what differs from run to run
		case slog.TimeKey, "http.server.request.duration", "request_id":
			return slog.Attr{}
		}
		return a
	}}))
	auth, err := admit.NewAuth(admit.AuthConfig{Store: admit.KeyMap{
		admit.DigestOf("good-token"): {ID: "key-1", Owner: "acme", Plan: "pro"},
		admit.DigestOf("old-token"):  {ID: "key-0", Owner: "acme", RevokedAt: time.Unix(1, 0)},
	}})
	if err != nil {
		panic(err)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /prices/{pair}", func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, "1") })
	h := admit.AccessLog(logger)(admit.Policy{Auth: auth}.Wrap(admit.Mux(mux)))

	for _, token := range []string{"good-token", "old-token"} {
		r := httptest.NewRequest("GET", "/prices/btc-usd", nil)
		r.Header.Set("X-API-Key", token)
		h.ServeHTTP(httptest.NewRecorder(), r)
	}
	// Output:
	// level=INFO msg=request http.request.method=GET url.path=/prices/btc-usd http.route=/prices/{pair} http.response.status_code=200 http.response.body.size=1 client.address=192.0.2.1 admit.key.id=key-1 admit.key.owner=acme admit.plan=pro
	// level=INFO msg=request http.request.method=GET url.path=/prices/btc-usd http.response.status_code=401 http.response.body.size=130 client.address=192.0.2.1 error.type=key_invalid admit.key.id=key-0 admit.key.owner=acme admit.key.status=revoked
}

// This is how to make metrics for a system without a package of its own: count by the Labels,
// whose values a client cannot invent.
func ExampleObserve() {
	requests := make(map[admit.Labels]int) // in a service, under a lock
	observe := admit.Observe(func(r *http.Request, o admit.Outcome) {
		requests[o.Labels(r)]++
		if o.Err != nil {
			fmt.Println(o.Code, "because of:", o.Err)
		}
	})
	quiet := &admit.ErrorWriter{Logger: slog.New(slog.DiscardHandler)}
	h := observe(quiet.Wrap(admit.HandlerFunc(func(w http.ResponseWriter, r *http.Request) error {
		if r.Method == "BREW" {
			return errors.New("out of water")
		}
		return admit.Success(w, r, http.StatusOK, "coffee")
	})))
	for _, method := range []string{"GET", "GET", "BREW"} {
		h.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest(method, "/", nil))
	}
	fmt.Println(requests[admit.Labels{Method: "GET", Scheme: "http", Status: 200}])
	fmt.Println(requests[admit.Labels{Method: "_OTHER", Scheme: "http", Status: 500, Code: "internal"}])
	// Output:
	// internal because of: out of water
	// 2
	// 1
}

// If a router keeps its pattern to itself, a middleware of the router calls SetRoute.
func ExampleSetRoute() {
	observe := admit.Observe(func(_ *http.Request, o admit.Outcome) { fmt.Println(o.Route, o.Status) })
	matched := func(w http.ResponseWriter, r *http.Request) {
		admit.SetRoute(r, "/users/:id") // gin: c.FullPath(), echo: c.Path(); chi, in a defer: RouteContext(ctx).RoutePattern()
	}
	observe(http.HandlerFunc(matched)).ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("GET", "/users/7", nil))
	// Output: /users/:id 200
}
