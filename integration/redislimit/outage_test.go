package redislimit_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/admit-go/admit"
	"github.com/admit-go/admit/integration/servers"
	"github.com/admit-go/admit/redislimit"
)

// lossy loses the next answers: each arrives at its connection, which is cut then.
type lossy struct {
	net.Conn
	lose *atomic.Int32
}

func (c lossy) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if strings.HasPrefix(string(p[:n]), "*4\r\n") && c.lose.Add(-1) >= 0 { // what the script returns for one limit
		_ = c.Close()
		return 0, io.ErrUnexpectedEOF
	}
	return n, err
}

// A call whose answer is lost has counted, and is not sent again.
func TestLostAnswersCountOnce(t *testing.T) {
	t.Parallel()
	addr := servers.StartRedis(t).Addr
	var lose atomic.Int32
	o := options(addr, nil)
	o.Dialer = func(ctx context.Context, network, addr string) (net.Conn, error) {
		conn, err := new(net.Dialer).DialContext(ctx, network, addr)
		return lossy{conn, &lose}, err
	}
	client := redis.NewClient(o)
	t.Cleanup(func() { _ = client.Close() })
	s := newStore(t, evalWith(client), redislimit.Config{Timeout: 10 * time.Second, MaxRefusals: -1})
	l := admit.Limit{Name: "limit", Requests: 1, Per: 1000 * time.Hour, Burst: 100}
	require.Equal(t, 99, take(t, s, "caller", 1, l).States[0].Remaining)
	lose.Store(3)
	_, err := s.Take(t.Context(), "caller", 20, []admit.Limit{l})
	require.Error(t, err)
	lose.Store(0)
	assert.Equal(t, 79, take(t, s, "caller", 0, l).States[0].Remaining)
}

// A Redis that takes no writes for a second: few requests see it, and it is used again soon
// after it takes them.
func TestRedisThatTakesNoWrites(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(context.Context, *redis.Client, bool) error{
		"READONLY": func(ctx context.Context, c *redis.Client, broken bool) error {
			if broken {
				return c.ReplicaOf(ctx, "127.0.0.1", "1").Err()
			}
			return c.ReplicaOf(ctx, "NO", "ONE").Err()
		},
		"OOM": func(ctx context.Context, c *redis.Client, broken bool) error {
			if broken {
				return c.ConfigSet(ctx, "maxmemory", "1").Err()
			}
			return c.ConfigSet(ctx, "maxmemory", "0").Err()
		},
		"NOREPLICAS": func(ctx context.Context, c *redis.Client, broken bool) error {
			if broken {
				return c.ConfigSet(ctx, "min-replicas-to-write", "1").Err()
			}
			return c.ConfigSet(ctx, "min-replicas-to-write", "0").Err()
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			addr := servers.StartRedis(t).Addr
			client, other := redis.NewClient(options(addr, nil)), newClient(t, addr)
			t.Cleanup(func() { _ = client.Close() })
			var failed, seen atomic.Int64
			eval := evalWith(client)
			s := newStore(t, func(ctx context.Context, keys []string, args ...any) (any, error) {
				reply, err := eval(ctx, keys, args...)
				if err != nil && strings.Contains(err.Error(), name) {
					failed.Add(1)
				}
				return reply, err
			}, redislimit.Config{Direct: true, MaxRefusals: -1, Timeout: 5 * time.Second})
			l := admit.PerDay(1_000_000)
			ask := func(i int) error {
				_, err := s.Take(t.Context(), fmt.Sprint("caller ", i%10), 1, []admit.Limit{l})
				return err
			}
			require.NoError(t, ask(0))
			require.NoError(t, change(t.Context(), other, true))
			began := time.Now()
			for i := 0; time.Since(began) < 2500*time.Millisecond; i++ {
				if err := ask(i); err != nil && !strings.Contains(err.Error(), "not asked") {
					seen.Add(1)
				}
				time.Sleep(5 * time.Millisecond)
			}
			t.Logf("%d requests and %d calls have seen it", seen.Load(), failed.Load())
			assert.EqualValues(t, 5, seen.Load(), "those that trip the breaker")
			assert.LessOrEqual(t, failed.Load(), int64(5+3), "and a probe a second")
			require.NoError(t, change(t.Context(), other, false))
			mended := time.Now()
			for ask(0) != nil {
				require.Less(t, time.Since(mended), 10*time.Second)
				time.Sleep(5 * time.Millisecond)
			}
			t.Logf("used again after %v", time.Since(mended))
			assert.Less(t, time.Since(mended), 3*time.Second)
		})
	}
}

// A user with the rights that the README names can decide, give back and probe, and nothing
// else.
func TestUserWithFewRights(t *testing.T) {
	t.Parallel()
	server := servers.StartRedis(t)
	admin := newClient(t, server.Addr)
	rights := []any{"ACL", "SETUSER", "limits", "on", ">secret", "~admit:*", "+eval", "+evalsha", "+time", "+get", "+set", "+del", "+hello", "+client", "+ping"}
	require.NoError(t, admin.Do(t.Context(), rights...).Err())
	o := options(server.Addr, nil)
	o.Username, o.Password = "limits", "secret"
	client := redis.NewClient(o)
	t.Cleanup(func() { _ = client.Close() })
	var broken atomic.Bool
	eval := evalWith(client)
	s := newStore(t, func(ctx context.Context, keys []string, args ...any) (any, error) {
		if broken.Load() {
			return nil, io.ErrUnexpectedEOF
		}
		return eval(ctx, keys, args...)
	}, redislimit.Config{Timeout: 10 * time.Second, MaxRefusals: -1, ProbeEvery: 10 * time.Millisecond})
	l := admit.PerHour(10)
	for _, cost := range []int{1, 9, 1, 0, -3, 3, -100} {
		_, err := s.Take(t.Context(), "caller", cost, []admit.Limit{l, {Name: "fraction", Requests: 7, Per: time.Hour, Burst: 20}})
		require.NoError(t, err)
	}
	broken.Store(true)
	for range 6 {
		_, err := s.Take(t.Context(), "caller", 1, []admit.Limit{l})
		require.Error(t, err)
	}
	broken.Store(false)
	assert.Eventually(t, func() bool {
		_, err := s.Take(t.Context(), "caller", 1, []admit.Limit{l})
		return err == nil
	}, 10*time.Second, 5*time.Millisecond, "the probe may write too")
	require.Error(t, client.Get(t.Context(), "other").Err())
	require.ErrorContains(t, client.FlushAll(t.Context()).Err(), "NOPERM")
}
