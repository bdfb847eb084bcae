package limits_test

import (
	"context"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/admit-go/admit"
	"github.com/admit-go/admit/integration/guides/limits"
	"github.com/admit-go/admit/integration/internal/guide"
	"github.com/admit-go/admit/integration/servers"
)

var (
	keys = admit.KeyMap{
		admit.DigestOf("none"): {ID: "none"},
		admit.DigestOf("free"): {ID: "free", Plan: "free"},
		admit.DigestOf("pro"):  {ID: "pro", Plan: "pro"},
		admit.DigestOf("own"):  {ID: "own", Plan: "free", Limits: []admit.Limit{admit.PerMinute(7)}},
	}
	prices = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Query().Has("fail") {
			w.WriteHeader(http.StatusBadGateway)
		}
	})
)

// get sends a request with a key, or without one.
func get(t testing.TB, h http.Handler, path, key string) *http.Response {
	t.Helper()
	r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, path, nil)
	r.Header.Set("X-Request-Id", "7f3a")
	if key != "" {
		r.Header.Set("X-API-Key", key)
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w.Result()
}

// admitted is how many requests get 200 until one gets 429.
func admitted(t testing.TB, h http.Handler, path, key string) int {
	t.Helper()
	for n := 0; ; n++ {
		res := get(t, h, path, key)
		if res.StatusCode == http.StatusTooManyRequests {
			return n
		}
		require.Equal(t, http.StatusOK, res.StatusCode)
	}
}

func TestSmall(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h := limits.Small(keys, prices)
		for i := range 5 {
			res := get(t, h, "/prices", "free")
			assert.Equal(t, `"second";q=5;w=1, "minute";q=100;w=60`, res.Header.Get("RateLimit-Policy"))
			assert.Contains(t, res.Header.Get("RateLimit"), []string{`"second";r=4;t=1`, `"second";r=3;t=1`, `"second";r=2;t=1`, `"second";r=1;t=1`, `"second";r=0;t=1`}[i])
		}
		for _, example := range []string{`"second";q=5;w=1`, `"second";r=4;t=1`, `"second";r=0;t=1`} {
			assert.Contains(t, guide.Text(t, "limits"), "`"+example+"`")
		}
		guide.Shows(t, "limits", "http", guide.Dump(t, get(t, h, "/prices", "free")))
		assert.Equal(t, 200, get(t, h, "/prices", "pro").StatusCode) // another caller
		time.Sleep(time.Second)
		assert.Equal(t, 5, admitted(t, h, "/prices", "free"))
	})
}

func TestPlansAndAddresses(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h, err := limits.Service(keys, prices)
		require.NoError(t, err)
		for key, want := range map[string]int{"none": 1, "free": 5, "pro": 50, "own": 7} {
			assert.Equal(t, want, admitted(t, h, "/prices", key), key)
		}
		time.Sleep(time.Second)
		assert.Equal(t, []string{`"address";q=100;w=1`, `"second";q=50;w=1`}, get(t, h, "/prices", "pro").Header["Ratelimit-Policy"])
		for range 99 {
			require.Equal(t, 401, get(t, h, "/prices", "").StatusCode)
		}
		assert.Equal(t, 429, get(t, h, "/prices", "").StatusCode)
		assert.Equal(t, 429, get(t, h, "/prices", "pro").StatusCode) // the same address
	})
}

// The command sets limits of a key, which the service follows.
func TestLimitsOfAKey(t *testing.T) {
	t.Parallel()
	shell := guide.NewShell(t)
	shell.Run(t, "admit keys mint --keys keys.json --id acme-1")
	for _, block := range guide.Blocks(t, "limits", "sh") {
		shell.Run(t, block)
	}
	found, err := admit.ReadKeyFile(filepath.Join(shell.Dir, "keys.json"))
	require.NoError(t, err)
	for _, key := range found {
		assert.Equal(t, []admit.Limit{
			{Name: "second", Requests: 200, Per: time.Second}, {Name: "day", Requests: 1_000_000, Per: 24 * time.Hour},
		}, key.Limits)
	}
}

// Keys of one owner share a bucket for each limit that they have, and all of them those of LimitsFor. Keys without an
// owner, and addresses, each have their own.
func TestByOwner(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		auth, err := admit.NewAuth(admit.AuthConfig{Optional: true, Store: admit.KeyMap{
			admit.DigestOf("a"): {ID: "a", Owner: "ACME", Plan: "free"}, admit.DigestOf("b"): {ID: "b", Owner: "ACME", Plan: "free"},
			admit.DigestOf("p"): {ID: "p", Owner: "ACME", Plan: "pro"}, admit.DigestOf("l"): {ID: "l", Owner: "ACME", Plan: "free", Limits: []admit.Limit{admit.PerSecond(9)}},
			admit.DigestOf("big 1"): {ID: "big-1", Owner: "BIG", Plan: "pro"}, admit.DigestOf("big 2"): {ID: "big-2", Owner: "BIG", Plan: "free", Limits: []admit.Limit{admit.PerSecond(9)}},
			admit.DigestOf("c"): {ID: "c", Plan: "free"}, admit.DigestOf("d"): {ID: "d", Plan: "free"},
		}})
		require.NoError(t, err)
		plans, err := admit.NewPlans(
			admit.Plan{Name: "free", Limits: []admit.Limit{admit.PerSecond(5)}}, admit.Plan{Name: "pro", Limits: []admit.Limit{admit.PerSecond(50)}},
		)
		require.NoError(t, err)
		limiter, err := limits.ByOwner(plans, map[string][]admit.Limit{"BIG": {admit.PerSecond(200)}})
		require.NoError(t, err)
		h := auth.Wrap(limiter.Wrap(prices))
		assert.Equal(t, 200, get(t, h, "/", "a").StatusCode)
		assert.Equal(t, 4, admitted(t, h, "/", "b"))
		assert.Zero(t, admitted(t, h, "/", "a"))
		assert.Equal(t, 50, admitted(t, h, "/", "p"), "another limit")
		assert.Equal(t, 9, admitted(t, h, "/", "l"), "limits of the key are others than those of the plan")
		assert.Equal(t, 200, get(t, h, "/", "big 1").StatusCode)
		assert.Equal(t, 199, admitted(t, h, "/", "big 2"), "the limits of the customer hold for all of its keys")
		assert.Zero(t, admitted(t, h, "/", "big 1"))
		assert.Equal(t, 5, admitted(t, h, "/", "c"))
		assert.Equal(t, 5, admitted(t, h, "/", "d"))
		assert.Equal(t, 1, admitted(t, h, "/", ""), "by address")
	})
}

func TestWeighted(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		limiter, err := limits.Weighted()
		require.NoError(t, err)
		h := limiter.Wrap(prices)
		for range 20 {
			require.Equal(t, 502, get(t, h, "/search?fail", "").StatusCode)
		}
		assert.Equal(t, 10, admitted(t, h, "/search", ""))
		assert.Equal(t, 429, get(t, h, "/", "").StatusCode)
		time.Sleep(time.Minute)
		assert.Equal(t, 100, admitted(t, h, "/", ""))

		expensive, err := admit.NewLimiter(admit.LimiterConfig{Limits: []admit.Limit{admit.PerMinute(5)}, Cost: func(*http.Request) int { return 6 }})
		require.NoError(t, err)
		res := get(t, expensive.Wrap(prices), "/", "")
		assert.Equal(t, 429, res.StatusCode)
		assert.Empty(t, res.Header.Get("Retry-After"))
	})
}

func TestOnRedis(t *testing.T) {
	t.Parallel()
	server := servers.StartRedis(t)
	root := redis.NewClient(&redis.Options{Addr: server.Addr})
	t.Cleanup(func() { _ = root.Close() })
	var command []any
	for _, word := range strings.Fields(guide.Blocks(t, "limits", "text")[0]) {
		command = append(command, word)
	}
	require.NoError(t, root.Do(t.Context(), command...).Err())

	limiter, err := limits.OnRedis(&redis.Options{Addr: server.Addr, Username: "limits", Password: "secret"})
	require.NoError(t, err)
	h := limiter.Wrap(prices)
	require.Eventually(t, func() bool { // a first connection may take longer than a request waits
		without := limiter.Stats().WithoutStore
		return get(t, h, "/", "").StatusCode == 200 && limiter.Stats().WithoutStore == without
	}, 20*time.Second, 100*time.Millisecond)

	server.Stop()
	limiter, err = limits.OnRedis(&redis.Options{Addr: server.Addr})
	require.NoError(t, err)
	began := time.Now()
	n := admitted(t, limiter.Wrap(prices), "/", "")
	assert.GreaterOrEqual(t, n, 50/8)
	assert.LessOrEqual(t, float64(n), 50/8+50.0/8*time.Since(began).Seconds())
	assert.True(t, limiter.Stats().StoreDown)
}

// counting is a store that is a trip away.
type counting struct {
	*admit.MemoryStore
	trips atomic.Int64
}

func (s *counting) Take(ctx context.Context, key string, cost int, of []admit.Limit) (admit.Decision, error) {
	s.trips.Add(1)
	return s.MemoryStore.Take(ctx, key, cost, of)
}

func TestLease(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		memory, err := admit.NewMemoryStore(admit.MemoryStoreConfig{})
		require.NoError(t, err)
		store := &counting{MemoryStore: memory}
		limiter, err := limits.Leased(store)
		require.NoError(t, err)
		h := limiter.Wrap(prices)
		for range 200 {
			require.Equal(t, 200, get(t, h, "/", "").StatusCode)
			time.Sleep(2 * time.Millisecond)
		}
		assert.Less(t, store.trips.Load(), int64(100))
		assert.Positive(t, limiter.Stats().Leased)
		require.NoError(t, limiter.Close(t.Context()))
		assert.Zero(t, limiter.Stats().Leased)
	})
}
