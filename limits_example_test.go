package admit_test

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"time"

	"github.com/admit-go/admit"
)

func ExampleRateLimit() {
	hello := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "hello") })
	limit := admit.RateLimit(admit.PerSecond(1), admit.PerMinute(30))
	h := limit(hello) // and limit(more), which shares the buckets

	for range 2 {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest("GET", "/", nil))
		fmt.Println(w.Code, w.Header().Get("Retry-After"), w.Header().Get("RateLimit"))
		fmt.Print(w.Body)
	}
	// Output:
	// 200  "second";r=0;t=1, "minute";r=29;t=2
	// hello
	// 429 1 "second";r=0;t=1, "minute";r=29;t=2
	// {"result":"error","message":"The rate limit is reached. Try again later.","code":"rate_limited","retry_after":1}
}

// Each plan has limits of its own, and who has no key is counted by address.
func ExampleNewLimiter() {
	plans, err := admit.NewPlans(
		admit.Plan{Name: "free", Limits: []admit.Limit{admit.PerSecond(5), admit.PerMinute(100)}},
		admit.Plan{Name: "pro", Limits: []admit.Limit{admit.PerSecond(50), admit.PerMinute(5000)}},
	)
	if err != nil {
		panic(err)
	}
	limiter, err := admit.NewLimiter(admit.LimiterConfig{
		Limits: []admit.Limit{admit.PerMinute(10)},
		Plans:  plans,
		Skip:   func(r *http.Request) bool { return r.URL.Path == "/healthz" },
	})
	if err != nil {
		panic(err)
	}
	h := limiter.Wrap(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))

	stranger := httptest.NewRequest("GET", "/", nil)
	customer := stranger.WithContext(admit.WithKey(context.Background(), &admit.Key{ID: "42", Plan: "pro"}))
	for _, r := range []*http.Request{stranger, customer} {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		fmt.Println(w.Header().Get("RateLimit-Policy"))
	}
	// Output:
	// "minute";q=10;w=60
	// "second";q=50;w=1, "minute";q=5000;w=60
}

// Failed log-ins count, by address and account; what succeeds is given back.
func ExampleNewLimiter_failures() {
	limiter, err := admit.NewLimiter(admit.LimiterConfig{
		Limits:  []admit.Limit{{Name: "logins", Requests: 3, Per: time.Hour}},
		CountBy: func(r *http.Request) string { return admit.Caller(r) + " " + r.FormValue("account") },
		Refund:  func(status int) bool { return status != http.StatusUnauthorized },
	})
	if err != nil {
		panic(err)
	}
	h := limiter.Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.FormValue("password") != "right" {
			w.WriteHeader(http.StatusUnauthorized)
		}
	}))
	for _, password := range []string{"right", "right", "a", "right", "b", "c", "right"} {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest("POST", "/?account=ann&password="+password, nil))
		fmt.Print(w.Code, " ")
	}
	// Output:
	// 200 200 401 200 401 401 429
}

// What a caller has left can be looked at without taking any of it.
func ExampleMemoryStore() {
	store, err := admit.NewMemoryStore(admit.MemoryStoreConfig{MaxKeys: 100_000})
	if err != nil {
		panic(err)
	}
	limits := []admit.Limit{admit.PerDay(1000)}
	limiter, err := admit.NewLimiter(admit.LimiterConfig{Name: "api", Store: store, Limits: limits})
	if err != nil {
		panic(err)
	}
	h := limiter.Wrap(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	r := httptest.NewRequest("GET", "/", nil)
	h.ServeHTTP(httptest.NewRecorder(), r.WithContext(admit.WithKey(r.Context(), &admit.Key{ID: "42"})))

	d, err := store.Take(context.Background(), "key:api:42", 0, limits)
	fmt.Println(d.States[0].Remaining, err)
	// Output:
	// 999 <nil>
}

func ExampleNewInFlight() {
	inFlight, err := admit.NewInFlight(admit.InFlightConfig{
		Max:        1,
		PerAddress: 1,
		Queue:      100,
		Wait:       200 * time.Millisecond,
	})
	if err != nil {
		panic(err)
	}
	var h http.Handler
	h = inFlight.Wrap(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/" { // what else comes from this address meanwhile
			w := httptest.NewRecorder()
			h.ServeHTTP(w, httptest.NewRequest("GET", "/more", nil))
			fmt.Println(w.Code, w.Body)
		}
	}))
	h.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("GET", "/", nil))
	// Output:
	// 429 {"result":"error","message":"The server has too many requests at once. Try again.","code":"overloaded","retry_after":1}
}
