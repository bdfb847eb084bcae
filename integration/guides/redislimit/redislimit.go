// Package redislimit is the code in the README of the package of the same name.
package redislimit

import (
	"context"

	"github.com/redis/go-redis/v9"

	"github.com/admit-go/admit"
	"github.com/admit-go/admit/redislimit"
)

// NewLimiter limits callers by their buckets in the Redis at addr.
func NewLimiter(addr string) (*admit.Limiter, error) {
	client := redis.NewClient(&redis.Options{Addr: addr, ContextTimeoutEnabled: true, MaxRetries: -1, DialerRetries: 1})
	script := redis.NewScript(redislimit.Script)
	store, err := redislimit.New(func(ctx context.Context, keys []string, args ...any) (any, error) {
		return script.Run(ctx, client, keys, args...).Result()
	}, redislimit.Config{Direct: true})
	if err != nil {
		return nil, err
	}
	return admit.NewLimiter(admit.LimiterConfig{
		Name:     "prices", // services in the same Redis with other names have buckets of their own
		Limits:   []admit.Limit{admit.PerSecond(10), admit.PerHour(1000)},
		Store:    store,
		Replicas: 8, // the share of each while Redis is down
	})
}
