package redislimit_test

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"math"
	"net/http"
	"net/http/httptest"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/redis/rueidis"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/admit-go/admit"
	"github.com/admit-go/admit/integration/servers"
	"github.com/admit-go/admit/redislimit"
)

// replica is one process of a service: a client, a store, a limiter. It records what
// the store does, and how long that takes.
type replica struct {
	*redislimit.Store
	calls   atomic.Int64 // that have gone out
	handler http.Handler

	mu      sync.Mutex
	took    []time.Duration
	errors  int
	healthy time.Time // when the store has last decided
}

func (r *replica) Take(ctx context.Context, key string, cost int, limits []admit.Limit) (admit.Decision, error) {
	began := time.Now()
	d, err := r.Store.Take(ctx, key, cost, limits)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.took = append(r.took, time.Since(began))
	if err != nil {
		r.errors++
	} else {
		r.healthy = time.Now()
	}
	return d, err
}

// fleet is some replicas of every kind. One kind of client has the defaults of go-redis:
// it waits 3 s for an answer, tries three times, and does not look at the deadline of a
// context. The others are trusted to keep it.
func fleet(t *testing.T, addr string, n int, limits ...admit.Limit) []*replica {
	replicas := make([]*replica, n)
	for i := range replicas {
		r := &replica{}
		var eval redislimit.Eval
		switch i % 3 {
		case 0:
			client := redis.NewClient(&redis.Options{Addr: addr})
			t.Cleanup(func() { _ = client.Close() })
			eval = evalWith(client)
		case 1:
			eval = evalWith(newClient(t, addr))
		case 2:
			client, err := rueidis.NewClient(rueidis.ClientOption{InitAddress: []string{addr}, DisableCache: true})
			require.NoError(t, err)
			t.Cleanup(client.Close)
			eval = evalRueidis(client)
		}
		r.Store = newStore(t, func(ctx context.Context, keys []string, args ...any) (any, error) {
			r.calls.Add(1)
			return eval(ctx, keys, args...)
		}, redislimit.Config{Direct: i%3 != 0, MaxRefusals: -1}) // so that each request would ask
		limiter, err := admit.NewLimiter(admit.LimiterConfig{Name: "api", Limits: limits, Store: r, Replicas: n})
		require.NoError(t, err)
		quiet := &admit.ErrorWriter{Logger: slog.New(slog.NewTextHandler(io.Discard, nil))}
		r.handler = quiet.Wrap(limiter.Wrap(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})))
		replicas[i] = r
	}
	return replicas
}

// send sends requests to all replicas for some time, and counts the answers.
func send(t *testing.T, replicas []*replica, d time.Duration) map[int]int {
	var mu sync.Mutex
	answers := map[int]int{}
	var sending sync.WaitGroup
	until := time.Now().Add(d)
	for _, r := range replicas {
		sending.Go(func() {
			for time.Now().Before(until) {
				w := httptest.NewRecorder()
				r.handler.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/", nil))
				mu.Lock()
				answers[w.Code]++
				mu.Unlock()
				time.Sleep(4 * time.Millisecond)
			}
		})
	}
	sending.Wait()
	for code := range answers {
		assert.Contains(t, []int{http.StatusOK, http.StatusTooManyRequests}, code)
	}
	return answers
}

// reset forgets what was recorded, and returns it for all replicas.
func reset(replicas []*replica) (took []time.Duration, calls, failures int) {
	for _, r := range replicas {
		r.mu.Lock()
		took = append(took, r.took...)
		failures += r.errors
		r.took, r.errors = nil, 0
		r.mu.Unlock()
		calls += int(r.calls.Swap(0))
	}
	slices.Sort(took)
	return took, calls, failures
}

func TestOutage(t *testing.T) {
	t.Parallel()
	const n, outage = 8, 1500 * time.Millisecond
	l := admit.Limit{Name: "second", Requests: 80, Per: time.Second}
	for _, test := range []struct {
		name  string
		begin func(*servers.Redis, *servers.Proxy) error
		end   func(*servers.Redis, *servers.Proxy) error
	}{
		{name: "connections are cut", begin: weather(servers.Weather{Cut: true}), end: weather(servers.Weather{})},
		{name: "nothing comes through", begin: weather(servers.Weather{Hole: true}), end: weather(servers.Weather{})},
		{name: "answers are late", begin: weather(servers.Weather{Delay: 100 * time.Millisecond}), end: weather(servers.Weather{})},
		{
			name:  "killed, and started empty",
			begin: func(r *servers.Redis, _ *servers.Proxy) error { r.Stop(); return nil },
			end:   func(r *servers.Redis, _ *servers.Proxy) error { return r.Start() },
		},
		{
			name:  "hung",
			begin: func(r *servers.Redis, _ *servers.Proxy) error { return r.Hang() },
			end:   func(r *servers.Redis, _ *servers.Proxy) error { return r.Resume() },
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			server := servers.StartRedis(t)
			proxy := servers.StartProxy(t, server.Addr)
			replicas := fleet(t, proxy.Addr, n, l)
			began := time.Now()
			admitted := send(t, replicas, time.Second/2)[http.StatusOK]
			took, _, failures := reset(replicas)
			t.Logf("healthy: %d asked, %d failed, p50 %v, p99 %v", len(took), failures, took[len(took)/2], took[len(took)*99/100])

			require.NoError(t, test.begin(server, proxy))
			failing := time.Now()
			admitted += send(t, replicas, outage)[http.StatusOK]
			took, calls, failures := reset(replicas)
			t.Logf("outage: %d asked, %d failed, %d calls, p50 %v, p99 %v, most %v",
				len(took), failures, calls, took[len(took)/2], took[len(took)*99/100], took[len(took)-1])
			assert.Greater(t, failures, len(took)*9/10)
			assert.LessOrEqual(t, calls, n*(5+3*(5+1+int(time.Since(failing).Seconds()))), "five that trip the breaker, and probes of three tries: one for each that was late, and one a second")
			slow := len(took) - lower(took, 25*time.Millisecond)
			t.Logf("%d requests have waited for longer than 25ms", slow)

			require.NoError(t, test.end(server, proxy))
			repaired := time.Now()
			slowest := time.Duration(0)
			for _, r := range replicas {
				for !r.healthy.After(repaired) {
					require.Less(t, time.Since(repaired), 20*time.Second, "it is asked again")
					admitted += send(t, []*replica{r}, 20*time.Millisecond)[http.StatusOK]
				}
				slowest = max(slowest, r.healthy.Sub(repaired))
			}
			t.Logf("recovery of the last replica after %v", slowest)
			admitted += send(t, replicas, time.Second/2)[http.StatusOK]

			// The shares begin full, and what Redis has is full again afterwards: each change
			// is worth a burst.
			bound := 3*l.Requests + int(math.Ceil(time.Since(began).Seconds()*float64(l.Requests)))
			t.Logf("%d admitted of %d that may be", admitted, bound)
			assert.LessOrEqual(t, admitted, bound)
			assert.Greater(t, admitted, bound/2, "the service goes on")
		})
	}
}

func weather(w servers.Weather) func(*servers.Redis, *servers.Proxy) error {
	return func(_ *servers.Redis, p *servers.Proxy) error { p.Set(w); return nil }
}

// lower is how many of the sorted times are below d.
func lower(sorted []time.Duration, d time.Duration) int {
	n, _ := slices.BinarySearch(sorted, d)
	return n
}

// A Redis that is slow, but fast enough, is no outage.
func TestSlowRedis(t *testing.T) {
	t.Parallel()
	proxy := servers.StartProxy(t, servers.StartRedis(t).Addr)
	c := redislimit.Config{Timeout: 10 * time.Second}
	s := newStore(t, evalWith(newClient(t, proxy.Addr)), c)
	proxy.Set(servers.Weather{Delay: 20 * time.Millisecond})
	for i := range 20 {
		assert.True(t, take(t, s, fmt.Sprint("caller ", i), 1, admit.PerHour(1)).Allowed)
	}
}

// With the options of the example, a Redis that is gone is an error at once: go-redis itself
// would try to connect five times, 100 ms apart.
func TestRefusedConnectionIsAnErrorAtOnce(t *testing.T) {
	t.Parallel()
	server := servers.StartRedis(t)
	client := redis.NewClient(&redis.Options{Addr: server.Addr, ContextTimeoutEnabled: true, MaxRetries: -1, DialerRetries: 1})
	t.Cleanup(func() { _ = client.Close() })
	s := newStore(t, evalWith(client), redislimit.Config{Timeout: time.Minute, Direct: true})
	take(t, s, "caller", 1, admit.PerSecond(10))
	server.Stop()
	began := time.Now()
	for range 2 { // one finds the connection closed
		_, err := s.Take(t.Context(), "caller", 1, []admit.Limit{admit.PerSecond(10)})
		require.Error(t, err)
	}
	assert.Less(t, time.Since(began), 400*time.Millisecond)
}
