package redislimit_test

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-redis/redis_rate/v10"
	"github.com/redis/go-redis/v9"
	"github.com/redis/rueidis"
	"github.com/stretchr/testify/require"
	"github.com/throttled/throttled/v2"
	goredisstore "github.com/throttled/throttled/v2/store/goredisstore.v9"
	"github.com/ulule/limiter/v3"
	ulule "github.com/ulule/limiter/v3/drivers/store/redis"

	"github.com/admit-go/admit"
	"github.com/admit-go/admit/integration/servers"
	"github.com/admit-go/admit/redislimit"
)

// bareScript is the least that decides one limit in one call: the cost of the client, of
// the trip and of Redis, below which nobody gets.
const bareScript = `local now = redis.call('TIME')
now = now[1] * 1000000 + now[2]
local at = tonumber(redis.call('GET', KEYS[1]) or now)
if at < now then at = now end
at = at + ARGV[1]
if at > now + ARGV[2] then return {0, now, at} end
redis.call('SET', KEYS[1], string.format('%.0f', at), 'PX', math.ceil((at - now) / 1000))
return {1, now, at}
`

// decider decides one request of a caller.
type decider = func(ctx context.Context, key string) (admitted bool, err error)

func floor(client redis.Scripter) decider {
	script := redis.NewScript(bareScript)
	return func(ctx context.Context, key string) (bool, error) {
		v, err := script.Run(ctx, client, []string{"bare:" + key}, "1", "1000000").Int64Slice()
		return err == nil && v[0] == 1, err
	}
}

func takes(s *redislimit.Store, limits []admit.Limit) decider {
	return func(ctx context.Context, key string) (bool, error) {
		d, err := s.Take(ctx, key, 1, limits)
		return d.Allowed, err
	}
}

func benchKeys() []string {
	keys := make([]string, 10_000)
	for i := range keys {
		keys[i] = "key:bench:caller-" + strconv.Itoa(i)
	}
	return keys
}

// BenchmarkOfFloor has the floor and admit, on go-redis, decide a few thousand requests each in
// turn, since machines drift: what is between them is seen in the ratio alone. Its median is of
// the throughput of the floor.
func BenchmarkOfFloor(b *testing.B) {
	client := newClient(b, servers.StartRedis(b).Addr)
	keys := benchKeys()
	store := newStore(b, evalWith(client), redislimit.Config{Timeout: time.Minute, Direct: true})
	contestants := [2]decider{floor(client), takes(store, []admit.Limit{admit.PerSecond(1_000_000)})}
	for _, goroutines := range []int{1, 16, 64} {
		b.Run(fmt.Sprintf("goroutines=%d", goroutines), func(b *testing.B) {
			decide := func(take decider, n int) time.Duration {
				began := time.Now()
				var next, wrong atomic.Int64
				var running sync.WaitGroup
				for range goroutines {
					running.Go(func() {
						for i := next.Add(1); i <= int64(n); i = next.Add(1) {
							if ok, err := take(b.Context(), keys[i*7919%int64(len(keys))]); err != nil || !ok {
								wrong.Add(1)
							}
						}
					})
				}
				running.Wait()
				require.Zero(b, wrong.Load())
				return time.Since(began)
			}
			decide(contestants[0], 100) // connections, scripts
			decide(contestants[1], 100)
			const turn = 2000
			var ratios []float64
			for b.Loop() {
				var took [2]time.Duration
				for i := range 2 {
					at := (i + len(ratios)) % 2
					took[at] = decide(contestants[at], turn)
				}
				ratios = append(ratios, took[0].Seconds()/took[1].Seconds())
			}
			slices.Sort(ratios)
			b.ReportMetric(ratios[len(ratios)/2], "of-floor")
			b.ReportMetric(0, "ns/op")
		})
	}
}

// BenchmarkDecisions has all callers admitted, of 10,000 keys, with so many goroutines
// at a time; "floor" is bareScript. Its server is on the same machine, so that only the ratios mean something.
func BenchmarkDecisions(b *testing.B) {
	addr := servers.StartRedis(b).Addr
	client := newClient(b, addr)
	pipelined, err := rueidis.NewClient(rueidis.ClientOption{InitAddress: []string{addr}, DisableCache: true})
	require.NoError(b, err)
	b.Cleanup(pipelined.Close)

	keys := benchKeys()
	const n = 1_000_000 // a second
	one := []admit.Limit{admit.PerSecond(n)}
	four := []admit.Limit{admit.PerSecond(n), admit.PerMinute(n), admit.PerHour(n), admit.PerDay(n)}
	admitWith := func(eval redislimit.Eval, direct bool, limits []admit.Limit) decider {
		return takes(newStore(b, eval, redislimit.Config{Timeout: time.Minute, Direct: direct}), limits)
	}
	bareRueidis := rueidis.NewLuaScript(bareScript)
	rate := redis_rate.NewLimiter(client)
	store, err := ulule.NewStore(client)
	require.NoError(b, err)
	fixed := limiter.New(store, limiter.Rate{Period: time.Second, Limit: n})
	casStore, err := goredisstore.NewCtx(client, "throttled:")
	require.NoError(b, err)
	cas, err := throttled.NewGCRARateLimiterCtx(casStore, throttled.RateQuota{MaxRate: throttled.PerSec(n), MaxBurst: n})
	require.NoError(b, err)

	for _, goroutines := range []int{1, 16, 64} {
		for _, test := range []struct {
			name string
			take decider
		}{
			{"client=go-redis/lib=floor", floor(client)},
			{"client=go-redis/lib=admit", admitWith(evalWith(client), true, one)},
			{"client=go-redis/lib=admit.guarded", admitWith(evalWith(client), false, one)},
			{"client=go-redis/lib=admit.four-limits", admitWith(evalWith(client), true, four)},
			{"client=rueidis/lib=floor", func(ctx context.Context, key string) (bool, error) {
				v, err := bareRueidis.Exec(ctx, pipelined, []string{"bare:" + key}, []string{"1", "1000000"}).AsIntSlice()
				return err == nil && v[0] == 1, err
			}},
			{"client=rueidis/lib=admit", admitWith(evalRueidis(pipelined), true, one)},
			{"client=rueidis/lib=admit.guarded", admitWith(evalRueidis(pipelined), false, one)},
			{"client=go-redis/lib=redis_rate", func(ctx context.Context, key string) (bool, error) {
				r, err := rate.Allow(ctx, key, redis_rate.PerSecond(n))
				return err == nil && r.Allowed == 1, err
			}},
			{"client=go-redis/lib=ulule", func(ctx context.Context, key string) (bool, error) {
				c, err := fixed.Get(ctx, key)
				return !c.Reached, err
			}},
			{"client=go-redis/lib=throttled", func(ctx context.Context, key string) (bool, error) {
				limited, _, err := cas.RateLimitCtx(ctx, key, 1)
				return !limited, err
			}},
		} {
			b.Run(fmt.Sprintf("goroutines=%d/%s", goroutines, test.name), func(b *testing.B) {
				for i := range 100 { // connections, scripts
					_, err := test.take(b.Context(), keys[i])
					require.NoError(b, err)
				}
				b.ReportAllocs()
				var next, refused atomic.Int64
				times := make([][]time.Duration, goroutines)
				var running sync.WaitGroup
				b.ResetTimer()
				for g := range goroutines {
					running.Go(func() {
						for i := next.Add(1); i <= int64(b.N); i = next.Add(1) {
							began := time.Now()
							if ok, err := test.take(b.Context(), keys[i*7919%int64(len(keys))]); err != nil || !ok {
								refused.Add(1)
							}
							times[g] = append(times[g], time.Since(began))
						}
					})
				}
				running.Wait()
				b.StopTimer()
				b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "decisions/s")
				all := slices.Concat(times...)
				slices.Sort(all)
				b.ReportMetric(float64(all[len(all)*99/100].Microseconds()), "p99-µs")
				require.Zero(b, refused.Load())
			})
		}
	}
}

// BenchmarkKnownRefusal is what a caller costs that comes again too early.
func BenchmarkKnownRefusal(b *testing.B) {
	client := newClient(b, servers.StartRedis(b).Addr)
	s := newStore(b, evalWith(client), patient)
	limits := []admit.Limit{admit.PerSecond(1_000_000), {Name: "day", Requests: 1, Per: 24 * time.Hour}}
	take(b, s, "caller", 1, limits...)
	b.ReportAllocs()
	for b.Loop() {
		if d, err := s.Take(b.Context(), "caller", 1, limits); err != nil || d.Allowed {
			b.Fatal(d, err)
		}
	}
}
