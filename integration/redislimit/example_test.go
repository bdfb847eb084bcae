package redislimit_test

import (
	"context"
	"log"
	"net/http"
	"os"

	"github.com/redis/go-redis/v9"
	"github.com/redis/rueidis"
	"github.com/valkey-io/valkey-go"

	"github.com/admit-go/admit"
	"github.com/admit-go/admit/redislimit"
)

// With go-redis. Run sends the digest of the script, and the script itself to a server
// that does not know it yet.
func Example_goRedis() {
	client := redis.NewClient(&redis.Options{
		Addr:                  os.Getenv("REDIS_ADDR"),
		ContextTimeoutEnabled: true, // Direct below needs it
		MaxRetries:            -1,   // a call whose reply was lost may have counted, and must not count twice
		DialerRetries:         1,    // a Redis that refuses connections is an error at once
	})
	script := redis.NewScript(redislimit.Script)
	store, err := redislimit.New(func(ctx context.Context, keys []string, args ...any) (any, error) {
		return script.Run(ctx, client, keys, args...).Result()
	}, redislimit.Config{Direct: true})
	if err != nil {
		log.Fatal(err)
	}
	limiter, err := admit.NewLimiter(admit.LimiterConfig{
		Name:     "prices", // services in the same Redis with other names have their own buckets
		Limits:   []admit.Limit{admit.PerSecond(10), admit.PerHour(1000)},
		Store:    store,
		Replicas: 8, // the share of each while Redis is down
	})
	if err != nil {
		log.Fatal(err)
	}
	http.Handle("/", limiter.Wrap(http.NotFoundHandler()))
}

// A client of Sentinel is used like any other.
func Example_goRedisSentinel() {
	client := redis.NewFailoverClient(&redis.FailoverOptions{
		MasterName:            "limits",
		SentinelAddrs:         []string{"sentinel-1:26379", "sentinel-2:26379", "sentinel-3:26379"},
		ContextTimeoutEnabled: true,
		MaxRetries:            -1,
		DialerRetries:         1,
	})
	script := redis.NewScript(redislimit.Script)
	_, _ = redislimit.New(func(ctx context.Context, keys []string, args ...any) (any, error) {
		return script.Run(ctx, client, keys, args...).Result()
	}, redislimit.Config{Direct: true})
}

// In a cluster, all keys of a caller are on one master.
func Example_goRedisCluster() {
	client := redis.NewClusterClient(&redis.ClusterOptions{
		Addrs:                 []string{"redis-1:6379", "redis-2:6379", "redis-3:6379"},
		ContextTimeoutEnabled: true,
		DialerRetries:         1,
	})
	script := redis.NewScript(redislimit.Script)
	_, _ = redislimit.New(func(ctx context.Context, keys []string, args ...any) (any, error) {
		return script.Run(ctx, client, keys, args...).Result()
	}, redislimit.Config{Direct: true})
}

// evalRueidis works with every client of rueidis.
func evalRueidis(client rueidis.Client) redislimit.Eval {
	script := rueidis.NewLuaScript(redislimit.Script)
	return func(ctx context.Context, keys []string, args ...any) (any, error) {
		texts := make([]string, len(args))
		for i, arg := range args {
			texts[i] = arg.(string) // always
		}
		return script.Exec(ctx, client, keys, texts).ToAny()
	}
}

// With rueidis: its NewClient finds out by itself whether it talks to a cluster.
func Example_rueidis() {
	client, err := rueidis.NewClient(rueidis.ClientOption{
		InitAddress:  []string{"redis-1:6379", "redis-2:6379", "redis-3:6379"},
		DisableCache: true,
	})
	if err != nil {
		log.Fatal(err)
	}
	_, _ = redislimit.New(evalRueidis(client), redislimit.Config{Direct: true})
}

func Example_rueidisSentinel() {
	client, err := rueidis.NewClient(rueidis.ClientOption{
		InitAddress:  []string{"sentinel-1:26379", "sentinel-2:26379", "sentinel-3:26379"},
		Sentinel:     rueidis.SentinelOption{MasterSet: "limits"},
		DisableCache: true,
	})
	if err != nil {
		log.Fatal(err)
	}
	_, _ = redislimit.New(evalRueidis(client), redislimit.Config{Direct: true})
}

// evalValkey works with every client of valkey-go.
func evalValkey(client valkey.Client) redislimit.Eval {
	script := valkey.NewLuaScript(redislimit.Script)
	return func(ctx context.Context, keys []string, args ...any) (any, error) {
		texts := make([]string, len(args))
		for i, arg := range args {
			texts[i] = arg.(string) // always
		}
		return script.Exec(ctx, client, keys, texts).ToAny()
	}
}

// With valkey-go: its NewClient finds out by itself whether it talks to a cluster.
func Example_valkey() {
	client, err := valkey.NewClient(valkey.ClientOption{
		InitAddress:  []string{"valkey-1:6379", "valkey-2:6379", "valkey-3:6379"},
		DisableCache: true,
	})
	if err != nil {
		log.Fatal(err)
	}
	_, _ = redislimit.New(evalValkey(client), redislimit.Config{Direct: true})
}

func Example_valkeySentinel() {
	client, err := valkey.NewClient(valkey.ClientOption{
		InitAddress:  []string{"sentinel-1:26379", "sentinel-2:26379", "sentinel-3:26379"},
		Sentinel:     valkey.SentinelOption{MasterSet: "limits"},
		DisableCache: true,
	})
	if err != nil {
		log.Fatal(err)
	}
	_, _ = redislimit.New(evalValkey(client), redislimit.Config{Direct: true})
}
