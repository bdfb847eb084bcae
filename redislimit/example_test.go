package redislimit_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"time"

	"github.com/admit-go/admit"
	"github.com/admit-go/admit/redislimit"
)

// With go-redis, run is
//
//	client := redis.NewClient(&redis.Options{Addr: addr, ContextTimeoutEnabled: true, MaxRetries: -1, DialerRetries: 1})
//	script := redis.NewScript(redislimit.Script)
//	run := func(ctx context.Context, keys []string, args ...any) (any, error) {
//		return script.Run(ctx, client, keys, args...).Result()
//	}
//
// Other clients, Sentinel and Cluster are in integration/redislimit/example_test.go.
func Example() {
	newHandler := func(run redislimit.Eval, next http.Handler) (http.Handler, error) {
		store, err := redislimit.New(run, redislimit.Config{Direct: true})
		if err != nil {
			return nil, err
		}
		limiter, err := admit.NewLimiter(admit.LimiterConfig{
			Name:     "prices", // services in the same Redis with other names have their own buckets
			Limits:   []admit.Limit{admit.PerSecond(10), admit.PerHour(1000)},
			Store:    store,
			Replicas: 8, // the share of each while Redis is down
		})
		if err != nil {
			return nil, err
		}
		return limiter.Wrap(next), nil
	}
	_ = newHandler
}

// Two replicas share a limit of three requests an hour.
func ExampleNew() {
	var redis server // a fake, in the place of a Redis with its client
	newReplica := func() http.Handler {
		store, err := redislimit.New(redis.eval, redislimit.Config{})
		if err != nil {
			log.Fatal(err)
		}
		limiter, err := admit.NewLimiter(admit.LimiterConfig{
			Name: "prices", Limits: []admit.Limit{admit.PerHour(3)}, Store: store, Replicas: 2,
		})
		if err != nil {
			log.Fatal(err)
		}
		return limiter.Wrap(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	}
	replicas := []http.Handler{newReplica(), newReplica()}
	for i := range 4 {
		w := httptest.NewRecorder()
		replicas[i%2].ServeHTTP(w, httptest.NewRequest("GET", "/", nil))
		fmt.Println(w.Code)
	}
	// Output:
	// 200
	// 200
	// 200
	// 429
}

// With a lease, most requests need no call to Redis.
func ExampleNew_lease() {
	var redis server // a fake, in the place of a Redis with its client
	store, err := redislimit.New(redis.eval, redislimit.Config{})
	if err != nil {
		log.Fatal(err)
	}
	limiter, err := admit.NewLimiter(admit.LimiterConfig{
		Name:     "prices",
		Limits:   []admit.Limit{admit.PerMinute(5000)},
		Store:    store,
		Replicas: 8, // at most, also in a deployment
		Lease:    admit.Lease{Share: 0.25, For: time.Second},
	})
	if err != nil {
		log.Fatal(err)
	}
	h := limiter.Wrap(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	for range 1000 {
		h.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("GET", "/", nil))
	}
	if err := limiter.Close(context.Background()); err != nil { // after Server.Shutdown
		log.Print(err)
	}
	fmt.Println("fewer than one call for ten requests:", redis.calls.Load() < 100)
	// Output: fewer than one call for ten requests: true
}

// While Redis is down, each of two replicas admits half of the limit.
func ExampleNew_outage() {
	down := func(context.Context, []string, ...any) (any, error) {
		return nil, errors.New("dial tcp 10.0.0.7:6379: connection refused")
	}
	store, err := redislimit.New(down, redislimit.Config{})
	if err != nil {
		log.Fatal(err)
	}
	limiter, err := admit.NewLimiter(admit.LimiterConfig{
		Name:      "prices",
		Limits:    []admit.Limit{admit.PerHour(4)},
		Store:     store,
		StoreDown: admit.LimitLocally, // the default; the others are AdmitAll and RefuseAll
		Replicas:  2,
	})
	if err != nil {
		log.Fatal(err)
	}
	quiet := &admit.ErrorWriter{Logger: slog.New(slog.DiscardHandler)}
	h := quiet.Wrap(limiter.Wrap(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})))
	for range 3 {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest("GET", "/", nil))
		fmt.Println(w.Code)
	}
	// Output:
	// 200
	// 200
	// 429
}
