package admit_test

import (
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"time"

	"github.com/justinas/alice"

	"github.com/admit-go/admit"
)

// One Policy is around the mux, and one around each handler. A Policy is a plain value: each
// route changes a copy of a common one. Chain returns an error for a Policy that is not valid;
// Wrap panics with the same error.
func ExamplePolicy() {
	keys := admit.KeyMap{
		admit.DigestOf("reader"): {ID: "k1", Plan: "free", Scopes: []string{"orders:read"}},
		admit.DigestOf("trader"): {ID: "k2", Plan: "free", Scopes: []string{"orders:read", "orders:write"}},
	}
	plans, err := admit.NewPlans(admit.Plan{Name: "free", Limits: []admit.Limit{admit.PerSecond(5), admit.PerDay(1000)}})
	if err != nil {
		panic(err)
	}
	auth, err := admit.NewAuth(admit.AuthConfig{Store: keys, Realm: "orders"})
	if err != nil {
		panic(err)
	}
	limiter, err := admit.NewLimiter(admit.LimiterConfig{Plans: plans, Limits: []admit.Limit{admit.PerSecond(1)}})
	if err != nil {
		panic(err)
	}

	keyed := admit.Policy{Auth: auth, Plans: plans, Limiter: limiter, Timeout: 10 * time.Second}
	read := keyed
	read.Methods = []string{"GET"}
	read.Scopes = []string{"orders:read"}
	write := keyed
	write.Methods = []string{"POST"}
	write.Scopes = []string{"orders:write"}
	write.ContentType = []string{"application/json"}
	write.MaxBody = 64 << 10
	write.BodyTimeout = admit.BodyTimeout{Grace: 5 * time.Second, Max: 30 * time.Second, MinRate: 1 << 10}

	reads, err := read.Chain()
	if err != nil {
		panic(err)
	}
	writes, err := write.Chain()
	if err != nil {
		panic(err)
	}
	mux := http.NewServeMux()
	mux.Handle("/orders/latest", reads.Then(admit.HandlerFunc(func(w http.ResponseWriter, r *http.Request) error {
		return admit.Success(w, r, http.StatusOK, "an order")
	})))
	mux.Handle("/orders", writes.Then(admit.HandlerFunc(func(w http.ResponseWriter, r *http.Request) error {
		order, err := admit.Decode[map[string]string](r)
		if err != nil {
			return err
		}
		return admit.Success(w, r, http.StatusCreated, order)
	})))
	outer, err := admit.Policy{
		Errors:     &admit.ErrorWriter{Logger: slog.New(slog.DiscardHandler)}, // use the logger of the service
		WriteStall: 10 * time.Second,
	}.Chain()
	if err != nil {
		panic(err)
	}
	h := outer.Then(admit.Mux(mux))

	show(h, "GET", "/orders/latest", "X-API-Key", "reader", "X-Request-Id", "r1")
	showBody(h, "POST", "/orders", `{"pair":"btc-usd"}`, "X-API-Key", "reader", "Content-Type", "application/json", "X-Request-Id", "r2")
	showBody(h, "POST", "/orders", `{"pair":"btc-usd"}`, "X-API-Key", "trader", "Content-Type", "application/json", "X-Request-Id", "r3")
	// Output:
	// 200 {"result":"success","data":"an order"}
	// 403 {"result":"error","message":"The caller does not have the scope that this request needs: orders:write.","code":"scope_required","request_id":"r2"}
	// 201 {"result":"success","data":{"pair":"btc-usd"}}
}

// This is what a chain in the wrong order does. A Policy always has the right one.
func ExamplePolicy_order() {
	keys := admit.KeyMap{
		admit.DigestOf("a"): {ID: "customer-a", Scopes: []string{"read"}},
		admit.DigestOf("b"): {ID: "customer-b", Scopes: []string{"read"}},
	}
	ok := admit.HandlerFunc(func(w http.ResponseWriter, r *http.Request) error {
		return admit.Success(w, r, http.StatusOK, nil)
	})

	// Outside of Auth, requests have no key yet: customers behind one address share a bucket.
	h := alice.New(admit.RateLimit(admit.PerHour(1)), admit.APIKey(keys)).Then(ok)
	show(h, "GET", "/", "X-API-Key", "a")
	show(h, "GET", "/", "X-API-Key", "b")

	// Inside Auth, each customer has its own bucket.
	h = alice.New(admit.APIKey(keys), admit.RateLimit(admit.PerHour(1))).Then(ok)
	show(h, "GET", "/", "X-API-Key", "a")
	show(h, "GET", "/", "X-API-Key", "b")

	// RequireScopes outside of Auth finds no key. It rejects every request, and the log has the
	// reason.
	quiet := &admit.ErrorWriter{Logger: slog.New(slog.DiscardHandler)}
	h = alice.New(quiet.Wrap, admit.RequireScopes("read"), admit.APIKey(keys)).Then(ok)
	show(h, "GET", "/", "X-API-Key", "a")
	// Output:
	// 200 {"result":"success"}
	// 429 {"result":"error","message":"The rate limit is reached. Try again later.","code":"rate_limited","retry_after":3600,"limits":["hour"]}
	// 200 {"result":"success"}
	// 200 {"result":"success"}
	// 500 {"result":"error","message":"Something went wrong on our side.","code":"internal"}
}

// An access log stands inside RequestID and ClientIP, and outside of the rest. After next has
// returned, it finds the key, even one that was rejected.
func ExampleSeenKeyFrom() {
	auth, err := admit.NewAuth(admit.AuthConfig{Store: admit.KeyMap{
		admit.DigestOf("s3cret"): {ID: "k1", Owner: "ACME", Networks: []netip.Prefix{netip.MustParsePrefix("198.51.100.0/24")}},
	}})
	if err != nil {
		panic(err)
	}
	clientIP := admit.ClientIP("X-Forwarded-For", netip.MustParsePrefix("10.0.0.0/8"))
	log := func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			next.ServeHTTP(w, r)
			who := "nobody"
			if key, seen := admit.SeenKeyFrom(r.Context()); seen {
				who = key.ID
			}
			fmt.Println(r.Method, r.URL.Path, admit.ClientIPFrom(r), who)
		})
	}
	policy, err := admit.Policy{Auth: auth}.Chain()
	if err != nil {
		panic(err)
	}
	h := alice.New(admit.RequestID, clientIP, log).Extend(policy).Then(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))

	for _, from := range []string{"198.51.100.7", "203.0.113.9"} { // inside and outside of the key's networks
		r := httptest.NewRequest("GET", "/orders", nil)
		r.RemoteAddr = "10.0.0.1:1234" // the load balancer
		r.Header.Set("X-Forwarded-For", from)
		r.Header.Set("X-API-Key", "s3cret")
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		fmt.Println(w.Code)
	}
	// Output:
	// GET /orders 198.51.100.7 k1
	// 200
	// GET /orders 203.0.113.9 k1
	// 403
}
