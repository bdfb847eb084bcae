package monitoring_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/admit-go/admit"
	"github.com/admit-go/admit/admitprom"
	"github.com/admit-go/admit/example/service"
	"github.com/admit-go/admit/integration/servers"
	"github.com/admit-go/admit/redislimit"
)

// watched is the service of the example, with stores that can be taken down, and its metrics.
type watched struct {
	url     string
	metrics *httptest.Server
	client  *http.Client

	keysDown, quotasDown atomic.Bool
	redis                *servers.Proxy

	tokens map[string][]string // by what the keys are
	fresh  atomic.Int64        // how many of the keys of new accounts have been used
}

var errDown = errors.New("the store is down, as the test wants it")

type faultyKeys struct {
	admit.KeyStore
	down *atomic.Bool
}

func (s faultyKeys) LookupKey(ctx context.Context, d admit.Digest) (*admit.Key, error) {
	if s.down.Load() {
		return nil, errDown
	}
	return s.KeyStore.LookupKey(ctx, d)
}

type faultyQuotas struct {
	admit.QuotaStore
	down *atomic.Bool
}

func (s faultyQuotas) Settle(ctx context.Context, claims []admit.QuotaClaim) ([]admit.QuotaBalance, error) {
	if s.down.Load() {
		return nil, errDown
	}
	return s.QuotaStore.Settle(ctx, claims)
}

func startService(t *testing.T) *watched {
	t.Helper()
	logger := slog.New(slog.DiscardHandler)
	before := slog.Default()
	slog.SetDefault(logger) // a store that is down is told there
	t.Cleanup(func() { slog.SetDefault(before) })

	s := &watched{tokens: map[string][]string{}}
	keys, err := admit.NewKeyCache(faultyKeys{s.mint(), &s.keysDown}, admit.KeyCacheConfig{TTL: time.Second, StaleFor: time.Hour})
	require.NoError(t, err)
	s.redis = servers.StartProxy(t, servers.StartRedis(t).Addr)
	client := redis.NewClient(&redis.Options{Addr: s.redis.Addr, ContextTimeoutEnabled: true, MaxRetries: -1, PoolSize: 100, MinIdleConns: 50})
	t.Cleanup(func() { _ = client.Close() })
	script := redis.NewScript(redislimit.Script)
	limits, err := redislimit.New(func(ctx context.Context, keys []string, args ...any) (any, error) {
		return script.Run(ctx, client, keys, args...).Result()
	}, redislimit.Config{Timeout: 300 * time.Millisecond})
	require.NoError(t, err)

	registry := prometheus.NewPedanticRegistry()
	metrics, err := admitprom.New(admitprom.Config{Registerer: registry})
	require.NoError(t, err)
	api, err := service.New(t.Context(), service.Config{
		Keys: keys, Limits: limits, Replicas: 1, Logger: logger, Metrics: metrics,
		QuotaStore: faultyQuotas{admit.NewMemoryQuotaStore(), &s.quotasDown},
	})
	require.NoError(t, err)
	s.metrics = httptest.NewServer(promhttp.HandlerFor(registry, promhttp.HandlerOpts{EnableOpenMetrics: true}))
	t.Cleanup(s.metrics.Close)

	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	s.url = "http://" + listener.Addr().String()
	server := service.NewServer(api, logger)
	go func() { _ = server.Serve(listener) }()
	transport := &http.Transport{MaxIdleConnsPerHost: 500}
	s.client = &http.Client{Transport: transport, Timeout: 10 * time.Second}
	t.Cleanup(func() {
		transport.CloseIdleConnections()
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		assert.NoError(t, server.Shutdown(ctx))
		assert.NoError(t, api.Quotas.Close(ctx))
	})
	return s
}

// mint makes keys of all kinds, each of an account of its own.
func (s *watched) mint() admit.KeyMap {
	keys := admit.KeyMap{}
	add := func(kind string, n int, k admit.Key) {
		for i := range n {
			token, digest, _ := admit.Mint("demo_pro")
			k := k
			k.ID = fmt.Sprint(kind, i)
			k.Owner = k.ID
			keys[digest] = &k
			s.tokens[kind] = append(s.tokens[kind], token)
		}
	}
	past := time.Now().Add(-time.Hour)
	add("pro", 100, admit.Key{Plan: "pro", Scopes: []string{"orders:write"}})
	add("free", 100, admit.Key{Plan: "free"})
	add("busy", 1, admit.Key{Plan: "free"})
	add("revoked", 2, admit.Key{Plan: "pro", RevokedAt: past})
	add("expired", 2, admit.Key{Plan: "free", ExpiresAt: past})
	add("spent", 4, admit.Key{Plan: "pro", Quotas: []admit.Quota{{Requests: 10, Every: admit.Month}}})
	add("fresh", 10_000, admit.Key{Plan: "pro"})
	s.tokens["unknown"] = []string{"demo_pro_of_somebody_else"}
	s.tokens["none"] = []string{""}
	return keys
}

// token is one of a kind: of new accounts the next, which no quota store has been asked for.
func (s *watched) token(kind string) string {
	of := s.tokens[kind]
	if kind == "fresh" {
		return of[int(s.fresh.Add(1))%len(of)]
	}
	if kind == "spent" {
		return of[len(of)-1] // until somebody takes it away
	}
	return of[rand.IntN(len(of))]
}

// call sends a request and reads its answer, unless ctx ends first. What the answer is, the
// metrics say.
func (s *watched) call(ctx context.Context, kind, path string) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, s.url+path, nil)
	if err != nil {
		panic(err)
	}
	if token := s.token(kind); token != "" {
		r.Header.Set("X-API-Key", token)
	}
	res, err := s.client.Do(r)
	if err != nil {
		return
	}
	defer res.Body.Close()
	_, _ = io.Copy(io.Discard, res.Body)
}

// often calls f at a rate, in goroutines, until what it returns is called, which waits for
// all: nobody leaves because of it.
func often(t *testing.T, aSecond int, f func(context.Context)) (end func()) {
	stop := make(chan struct{})
	var running sync.WaitGroup
	running.Go(func() {
		tick := time.NewTicker(time.Second / time.Duration(aSecond))
		defer tick.Stop()
		for {
			select {
			case <-stop:
				return
			case <-tick.C:
				running.Go(func() { f(t.Context()) })
			}
		}
	})
	return func() {
		close(stop)
		running.Wait()
	}
}

// healthy is what comes on a good day: most of it is answered, and some is refused. Few
// requests need a store: those are not enough for AdmitErrors if it is down.
func (s *watched) healthy(ctx context.Context) {
	switch rand.IntN(40) {
	case 0, 1:
		s.call(ctx, "none", "/v1/prices/btc-usd") // 401
	case 2:
		s.call(ctx, "free", "/v1/history/btc-usd") // 402
	case 3, 4:
		s.call(ctx, "free", "/v1/prices/eth-usd")
	case 5, 6:
		s.call(ctx, "pro", "/v1/prices/doge-usd") // 404
	case 7, 8:
		s.call(ctx, "none", "/nowhere")
	case 9, 10:
		s.call(ctx, "pro", "/v1/slow?d=20ms")
	case 11:
		s.call(ctx, "fresh", "/v1/prices/btc-usd")
	case 12:
		s.call(ctx, "pro", "/v1/usage")
	default:
		s.call(ctx, "pro", "/v1/prices/btc-usd")
	}
}
