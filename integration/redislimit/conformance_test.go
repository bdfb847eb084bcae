package redislimit_test

import (
	"context"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/admit-go/admit"
	"github.com/admit-go/admit/admittest"
	"github.com/admit-go/admit/integration/servers"
	"github.com/admit-go/admit/redislimit"
)

// evalWith is the function that New wants, for any client of go-redis.
func evalWith(client redis.Scripter) redislimit.Eval {
	script := redis.NewScript(redislimit.Script)
	return func(ctx context.Context, keys []string, args ...any) (any, error) {
		return script.Run(ctx, client, keys, args...).Result()
	}
}

func newClient(t testing.TB, addr string) *redis.Client {
	t.Helper()
	client := redis.NewClient(&redis.Options{Addr: addr, ContextTimeoutEnabled: true})
	t.Cleanup(func() { _ = client.Close() })
	return client
}

func newStore(t testing.TB, eval redislimit.Eval, c redislimit.Config) *redislimit.Store {
	t.Helper()
	s, err := redislimit.New(eval, c)
	require.NoError(t, err)
	return s
}

// patient is for tests of decisions: a machine that is busy is no outage.
var patient = redislimit.Config{Timeout: time.Minute}

// Two ways to have a clock: with a real server it cannot be moved, and with miniredis in
// a bubble everything happens at the times that the tests choose.
func TestConformsOnMiniredis(t *testing.T) {
	if raced {
		t.Skip("nothing of ours runs beside what runs with a real Redis")
	}
	t.Parallel()
	for name, c := range map[string]redislimit.Config{
		"that remembers refusals": {},
		"that asks each time":     {MaxRefusals: -1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			caller := outside(t)
			admittest.TestLimitStore(t, func(t *testing.T) admit.LimitStore {
				server := caller.newMiniredis()
				began := time.Now()
				return newStore(t, func(_ context.Context, keys []string, args ...any) (any, error) {
					return caller.do(func() (any, error) {
						server.SetTime(time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC).Add(caller.now.Sub(began)))
						return caller.eval(context.Background(), keys, args...)
					})
				}, c)
			}, admittest.LimitStoreOptions{Bubble: true, Precision: 2 * time.Microsecond, Slow: true})
		})
	}
}

func TestConformsOnRedis(t *testing.T) {
	t.Parallel()
	client := newClient(t, servers.StartRedis(t).Addr)
	t.Run("that remembers refusals", func(t *testing.T) { conforms(t, client, patient, 100*time.Millisecond) })
	c := patient
	c.MaxRefusals = -1
	t.Run("that asks each time", func(t *testing.T) { conforms(t, client, c, time.Millisecond) })
}

func TestConformsOnACluster(t *testing.T) {
	t.Parallel()
	client := redis.NewClusterClient(&redis.ClusterOptions{Addrs: servers.StartRedisCluster(t, 3)})
	t.Cleanup(func() { _ = client.Close() })
	c := patient
	c.MaxRefusals = -1
	conforms(t, client, c, time.Millisecond)

	var used atomic.Int32 // the masters are asked at the same time
	require.NoError(t, client.ForEachMaster(t.Context(), func(ctx context.Context, master *redis.Client) error {
		n, err := master.DBSize(ctx).Result()
		if n > 0 {
			used.Add(1)
		}
		return err
	}))
	require.Equal(t, int32(3), used.Load(), "callers are spread over all masters")
}

func conforms(t *testing.T, client redis.UniversalClient, c redislimit.Config, precision time.Duration) {
	admittest.TestLimitStore(t, func(t *testing.T) admit.LimitStore {
		s := newStore(t, evalWith(client), c)
		return prefixed{s, t.Name()}
	}, admittest.LimitStoreOptions{Precision: precision})
}

// prefixed gives each test keys of its own in one server.
type prefixed struct {
	admit.LimitStore
	prefix string
}

func (p prefixed) Take(ctx context.Context, key string, cost int, limits []admit.Limit) (admit.Decision, error) {
	return p.LimitStore.Take(ctx, p.prefix+key, cost, limits)
}

// outsider runs functions outside of a bubble, where connections work.
type outsider struct {
	t       *testing.T
	mu      sync.Mutex
	work    chan func()
	done    chan struct{}
	now     time.Time
	eval    redislimit.Eval
	outcome struct {
		reply any
		err   error
	}
}

func outside(t *testing.T) *outsider {
	o := &outsider{t: t, work: make(chan func()), done: make(chan struct{})}
	go func() {
		for f := range o.work {
			f()
			o.done <- struct{}{}
		}
	}()
	t.Cleanup(func() { close(o.work) })
	return o
}

func (o *outsider) do(f func() (any, error)) (any, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.now = time.Now()
	o.work <- func() { o.outcome.reply, o.outcome.err = f() }
	<-o.done
	return o.outcome.reply, o.outcome.err
}

func (o *outsider) newMiniredis() *miniredis.Miniredis {
	server, err := o.do(func() (any, error) {
		server := miniredis.RunT(o.t)
		server.SetTime(time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC))
		server.ClockTTL(true)
		o.eval = evalWith(newClient(o.t, server.Addr()))
		return server, nil
	})
	require.NoError(o.t, err)
	return server.(*miniredis.Miniredis)
}
