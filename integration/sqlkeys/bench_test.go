package sqlkeys_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/admit-go/admit"
	"github.com/admit-go/admit/integration/servers"
	"github.com/admit-go/admit/sqlkeys"
)

const million = 1_000_000

// millionKeys is a store with a million keys, for the tokens "key 0" and so on.
func millionKeys(b *testing.B) *sqlkeys.Store {
	db := openDatabase(b, sqlkeys.PostgreSQL, "pgx", servers.PostgresDatabase(b))
	db.SetMaxOpenConns(16)
	db.SetMaxIdleConns(16)
	_, err := db.ExecContext(b.Context(), `INSERT INTO admit_keys (digest, id, owner, plan, scopes)
		SELECT sha256(convert_to('key ' || i, 'UTF8')), 'k-' || i, 'owner ' || i % 50000, 'pro', '["orders:read"]' FROM generate_series(0, $1 - 1) i`, million)
	require.NoError(b, err)
	_, err = db.ExecContext(b.Context(), `VACUUM ANALYZE admit_keys`)
	require.NoError(b, err)
	return db.store(b)
}

func lookups(b *testing.B, s admit.KeyStore, next func() int) {
	b.Helper()
	b.SetParallelism(8)
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if _, err := s.LookupKey(b.Context(), admit.DigestOf(fmt.Sprintf("key %d", next()))); err != nil {
				b.Error(err)
			}
		}
	})
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "lookups/s")
}

// Look-ups of random keys among a million in PostgreSQL: without a cache, with a cache
// that has not seen them yet, and with one that has.
func BenchmarkMillionKeys(b *testing.B) {
	store := millionKeys(b)
	random := func() int { return rand.IntN(million) }
	cache := func(b *testing.B) *admit.KeyCache {
		c, err := admit.NewKeyCache(store, admit.KeyCacheConfig{TTL: time.Hour, MaxKeys: million})
		require.NoError(b, err)
		return c
	}
	b.Run("no cache", func(b *testing.B) { lookups(b, store, random) })
	b.Run("cold cache", func(b *testing.B) {
		c := cache(b)
		var i atomic.Int64
		b.ResetTimer()
		lookups(b, c, func() int { return int(i.Add(1)*7919) % million }) // each once
	})
	b.Run("warm cache", func(b *testing.B) {
		const warm = 100_000
		c := cache(b)
		var all sync.WaitGroup
		for g := range 16 {
			all.Go(func() {
				for i := g; i < warm; i += 16 {
					_, err := c.LookupKey(b.Context(), admit.DigestOf(fmt.Sprintf("key %d", i)))
					require.NoError(b, err)
				}
			})
		}
		all.Wait()
		b.ResetTimer()
		lookups(b, c, func() int { return rand.IntN(warm) })
	})
}

// counted counts the look-ups that reach a store.
type counted struct {
	admit.KeyStore
	n atomic.Int64
}

func (c *counted) LookupKey(ctx context.Context, d admit.Digest) (*admit.Key, error) {
	c.n.Add(1)
	return c.KeyStore.LookupKey(ctx, d)
}

// A flood of 100,000 made-up keys, from one address and from as many as there are keys:
// how many reach the database, and what memory is held after it. Run it with
// -benchtime 1x.
func BenchmarkFlood(b *testing.B) {
	db := openDatabase(b, sqlkeys.PostgreSQL, "pgx", servers.PostgresDatabase(b))
	db.SetMaxOpenConns(16)
	db.SetMaxIdleConns(16)
	store := db.store(b)
	insert(b, store, "good", admit.Key{})
	const flood = 100_000
	for _, c := range []struct {
		name      string
		failures  admit.Limit
		addresses int
	}{
		{"no throttle", admit.Limit{}, 1},
		{"throttle, one address", admit.PerMinute(30), 1},
		{"throttle, 1,000 addresses", admit.PerMinute(30), 1000},
		{"throttle, an address for each", admit.PerMinute(30), flood},
	} {
		b.Run(c.name, func(b *testing.B) {
			for b.Loop() {
				before := heap()
				counter := &counted{KeyStore: store}
				cache, err := admit.NewKeyCache(counter, admit.KeyCacheConfig{TTL: time.Hour, NegativeTTL: time.Minute})
				require.NoError(b, err)
				auth, err := admit.NewAuth(admit.AuthConfig{Store: cache, Failures: c.failures})
				require.NoError(b, err)
				h := auth.Wrap(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
				try := func(i int, token string) int {
					r := httptest.NewRequestWithContext(b.Context(), http.MethodGet, "/", nil)
					r.RemoteAddr = fmt.Sprintf("10.%d.%d.%d:1", i>>16, i>>8&255, i&255)
					r.Header.Set("X-API-Key", token)
					w := httptest.NewRecorder()
					h.ServeHTTP(w, r)
					return w.Code
				}
				require.Equal(b, 200, try(0, "good"))
				counter.n.Store(0)
				var all sync.WaitGroup
				for g := range 16 {
					all.Go(func() {
						for i := g; i < flood; i += 16 {
							if code := try(i%c.addresses, fmt.Sprintf("guess %d", i)); code != 401 && code != 429 {
								b.Errorf("status %d", code)
							}
						}
					})
				}
				all.Wait()
				require.Equal(b, 200, try(0, "good"), "who has a key gets in through all of it")
				b.ReportMetric(float64(counter.n.Load()), "reached-the-database")
				b.ReportMetric(float64(heap()-before)/(1<<20), "MiB-held")
				runtime.KeepAlive(h)
			}
		})
	}
}

func heap() int64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}
