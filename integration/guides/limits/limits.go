// Package limits is the code of the guide to rate limits.
package limits

import (
	"context"
	"net/http"
	"time"

	"github.com/justinas/alice"
	"github.com/redis/go-redis/v9"

	"github.com/admit-go/admit"
	"github.com/admit-go/admit/redislimit"
)

// Small limits one route in the memory of the process.
func Small(keys admit.KeyStore, prices http.Handler) http.Handler {
	limit := admit.RateLimit(admit.PerSecond(5), admit.PerMinute(100))
	mux := http.NewServeMux()
	mux.Handle("/prices", alice.New(admit.Methods("GET"), admit.APIKey(keys), limit).Then(prices))
	return alice.New(admit.RequestID, admit.Recover).Then(admit.Mux(mux))
}

// Service has limits for each plan, and others for addresses.
func Service(keys admit.KeyStore, prices http.Handler) (http.Handler, error) {
	auth, err := admit.NewAuth(admit.AuthConfig{Store: keys})
	if err != nil {
		return nil, err
	}
	plans, err := admit.NewPlans(
		admit.Plan{Name: "free", Limits: []admit.Limit{admit.PerSecond(5), admit.PerHour(1000)}},
		admit.Plan{Name: "pro", Limits: []admit.Limit{admit.PerSecond(50)}},
	)
	if err != nil {
		return nil, err
	}
	limiter, err := admit.NewLimiter(admit.LimiterConfig{
		Plans:  plans,
		Limits: []admit.Limit{admit.PerSecond(1)}, // for keys without a plan
	})
	if err != nil {
		return nil, err
	}
	addresses, err := admit.NewLimiter(admit.LimiterConfig{
		Limits: []admit.Limit{{Name: "address", Requests: 100, Per: time.Second}},
	})
	if err != nil {
		return nil, err
	}
	keyed := admit.Policy{Methods: []string{"GET"}, Auth: auth, Plans: plans, Limiter: limiter}
	mux := http.NewServeMux()
	mux.Handle("/prices", keyed.Wrap(prices))
	return admit.Policy{AddressLimiter: addresses}.Wrap(admit.Mux(mux)), nil
}

// ByOwner counts the keys of a customer together. Customers are the limits that some have, by owner.
func ByOwner(plans *admit.Plans, customers map[string][]admit.Limit) (*admit.Limiter, error) {
	return admit.NewLimiter(admit.LimiterConfig{
		Plans:  plans,
		Limits: []admit.Limit{admit.PerSecond(1)},
		CountBy: func(r *http.Request) string {
			if key, ok := admit.KeyFrom(r.Context()); ok && key.Owner != "" {
				return "owner:" + key.Owner
			}
			return admit.Caller(r) // the key, or else the address
		},
		LimitsFor: func(r *http.Request) []admit.Limit {
			if key, ok := admit.KeyFrom(r.Context()); ok {
				return customers[key.Owner] // for all keys of the owner
			}
			return nil
		},
	})
}

// Weighted charges by what a request costs the service.
func Weighted() (*admit.Limiter, error) {
	return admit.NewLimiter(admit.LimiterConfig{
		Limits: []admit.Limit{admit.PerMinute(100)},
		Cost: func(r *http.Request) int {
			if r.URL.Path == "/search" {
				return 10
			}
			return 1
		},
		Refund: func(status int) bool { return status >= 500 }, // failures of the service are free
	})
}

// OnRedis keeps limits in Redis, for all replicas of the service.
func OnRedis(options *redis.Options) (*admit.Limiter, error) {
	options.ContextTimeoutEnabled = true // for Direct below
	options.MaxRetries = -1              // a call that is sent again may count twice
	options.DialerRetries = 1            // a refused connection is an error at once
	client, script := redis.NewClient(options), redis.NewScript(redislimit.Script)
	store, err := redislimit.New(func(ctx context.Context, keys []string, args ...any) (any, error) {
		return script.Run(ctx, client, keys, args...).Result()
	}, redislimit.Config{Direct: true})
	if err != nil {
		return nil, err
	}
	return admit.NewLimiter(admit.LimiterConfig{
		Name:     "prices", // services with other names have buckets of their own
		Limits:   []admit.Limit{admit.PerSecond(50)},
		Store:    store,
		Replicas: 8, // each applies an eighth of the limits while Redis is down
	})
}

// Leased takes requests from a store in advance, so that most decisions need no trip to it.
func Leased(store admit.LimitStore) (*admit.Limiter, error) {
	return admit.NewLimiter(admit.LimiterConfig{
		Name:     "prices",
		Limits:   []admit.Limit{admit.PerSecond(1000)},
		Store:    store,
		Replicas: 8,
		Lease:    admit.Lease{Share: 0.25, For: time.Second},
	})
}
