package admit_test

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"sync"
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
	// 200  "second";r=0;t=1, "minute";r=29;t=58
	// hello
	// 429 1 "second";r=0;t=1, "minute";r=29;t=58
	// {"result":"error","message":"The rate limit is reached. Try again later.","code":"rate_limited","retry_after":1,"limits":["second"]}
}

// Each plan has limits of its own. A caller without a key is counted by address.
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

// A tenant has limits of its own, independent of any key.
func ExampleNewLimiter_limitsFor() {
	sold := map[string][]admit.Limit{"acme": {admit.PerMinute(5000)}}
	limiter, err := admit.NewLimiter(admit.LimiterConfig{
		Limits:    []admit.Limit{admit.PerMinute(100)}, // for tenants without limits of their own
		LimitsFor: func(r *http.Request) []admit.Limit { return sold[r.PathValue("tenant")] },
		CountBy:   func(r *http.Request) string { return r.PathValue("tenant") },
	})
	if err != nil {
		panic(err)
	}
	mux := http.NewServeMux()
	mux.Handle("/{tenant}/orders", limiter.Wrap(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})))

	for _, path := range []string{"/acme/orders", "/other/orders"} {
		w := httptest.NewRecorder()
		mux.ServeHTTP(w, httptest.NewRequest("GET", path, nil))
		fmt.Println(path, w.Header().Get("RateLimit-Policy"))
	}
	// Output:
	// /acme/orders "minute";q=5000;w=60
	// /other/orders "minute";q=100;w=60
}

// Failed log-ins count, by address and account. The cost of other requests is given back.
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

// Several Limiters with different names share one store.
func ExampleMemoryStore() {
	store, err := admit.NewMemoryStore(admit.MemoryStoreConfig{MaxKeys: 100_000})
	if err != nil {
		panic(err)
	}
	reads, err := admit.NewLimiter(admit.LimiterConfig{Name: "reads", Store: store, Limits: []admit.Limit{admit.PerDay(1000)}})
	if err != nil {
		panic(err)
	}
	writes, err := admit.NewLimiter(admit.LimiterConfig{Name: "writes", Store: store, Limits: []admit.Limit{admit.PerDay(100)}})
	if err != nil {
		panic(err)
	}
	ok := http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})
	for _, h := range []http.Handler{reads.Wrap(ok), writes.Wrap(ok)} {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest("GET", "/", nil))
		fmt.Println(w.Header().Get("RateLimit-Policy"))
	}
	// Output:
	// "day";q=1000;w=86400
	// "day";q=100;w=86400
}

// A resource shows callers what they have left: a cost of 0 only looks. The messages of a
// WebSocket are counted in the same way, each with its own cost.
func ExampleLimiter_Take() {
	limiter, err := admit.NewLimiter(admit.LimiterConfig{Limits: []admit.Limit{admit.PerMinute(10), admit.PerDay(1000)}})
	if err != nil {
		panic(err)
	}
	usage := admit.HandlerFunc(func(w http.ResponseWriter, r *http.Request) error {
		d, err := limiter.Take(r, 0)
		if err != nil {
			return err
		}
		left := map[string]string{}
		for i, l := range d.Limits {
			left[l.Name] = fmt.Sprintf("%d of %d", d.States[i].Remaining, l.Requests)
		}
		return admit.Success(w, r, http.StatusOK, left)
	})
	r := httptest.NewRequest("GET", "/usage", nil)
	for range 2 {
		w := httptest.NewRecorder()
		usage.ServeHTTP(w, r)
		fmt.Print(w.Body)
		if d, err := limiter.Take(r, 4); err != nil || !d.Allowed { // a message that counts as four
			panic("refused")
		}
	}
	// Output:
	// {"result":"success","data":{"day":"1000 of 1000","minute":"10 of 10"}}
	// {"result":"success","data":{"day":"996 of 1000","minute":"6 of 10"}}
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
		if r.URL.Path == "/" { // another request comes from this address meanwhile
			w := httptest.NewRecorder()
			h.ServeHTTP(w, httptest.NewRequest("GET", "/more", nil))
			fmt.Println(w.Code, w.Body)
		}
	}))
	h.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("GET", "/", nil))
	// Output:
	// 429 {"result":"error","message":"The server has too many requests at once. Try again.","code":"overloaded","retry_after":1}
}

// A service can work on one request at a time, and gets more. Callers who pay go first, and a
// caller that has waited too long is told when to come back.
func ExampleNewShedder() {
	plans, err := admit.NewPlans(admit.Plan{Name: "free"}, admit.Plan{Name: "pro"})
	if err != nil {
		panic(err)
	}
	shedder, err := admit.NewShedder(admit.ShedderConfig{
		Max:      1, // in a real service: twice as many as it can work on at once
		Plans:    plans,
		Interval: 500 * time.Millisecond,
		Skip:     func(r *http.Request) bool { return r.URL.Path == "/healthz" },
	})
	if err != nil {
		panic(err)
	}
	h := shedder.Wrap(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		key, _ := admit.KeyFrom(r.Context())
		fmt.Println("works for", key.Plan)
		if key.Plan == "free" {
			time.Sleep(100 * time.Millisecond)
		} else {
			time.Sleep(time.Second) // longer than the third request may wait
		}
	}))

	var all sync.WaitGroup
	for _, plan := range []string{"free", "free", "pro"} {
		r := httptest.NewRequest("GET", "/", nil)
		r = r.WithContext(admit.WithKey(r.Context(), &admit.Key{ID: plan, Plan: plan}))
		w := httptest.NewRecorder()
		all.Go(func() {
			h.ServeHTTP(w, r)
			if w.Code != http.StatusOK {
				fmt.Println(w.Code, "for", plan)
			}
		})
		time.Sleep(10 * time.Millisecond) // the requests come one after the other
	}
	all.Wait()
	fmt.Printf("%+v\n", shedder.Stats())
	// Output:
	// works for free
	// works for pro
	// 429 for free
	// {Running:0 Waiting:0 Max:1 Admitted:2 Shed:1}
}

// A stream needs a place to begin, and none while it waits for news. Even a hundred streams do
// not keep other requests from being served.
func ExampleReleasePlace() {
	shedder, err := admit.NewShedder(admit.ShedderConfig{Max: 1})
	if err != nil {
		panic(err)
	}
	h := shedder.Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintln(w, "data: the state of things")
		_ = http.NewResponseController(w).Flush()
		fmt.Println("at work:", shedder.Stats().Running)
		admit.ReleasePlace(r)
		fmt.Println("as a stream:", shedder.Stats().Running)
		// From here on: wait for news and write them, until r.Context() is done.
	}))
	h.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("GET", "/stream", nil))
	// Output:
	// at work: 1
	// as a stream: 0
}
