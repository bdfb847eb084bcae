package admit_test

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/admit-go/admit"
)

func TestInFlightStats(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f, g := newInFlight(t, admit.InFlightConfig{Max: 2, Queue: 5, Wait: time.Minute}), newGate()
		assert.Equal(t, admit.InFlightStats{Max: 2}, f.Stats())
		for range 5 {
			send(f.Wrap(g), get("/"))
		}
		synctest.Wait()
		assert.Equal(t, admit.InFlightStats{Running: 2, Waiting: 3, Max: 2}, f.Stats())
		assert.Equal(t, map[string]int64{"admit.inflight.running": 2, "admit.inflight.waiting": 3, "admit.inflight.max": 2}, measured(t, f))
		close(g.out)
		synctest.Wait()
		assert.Equal(t, admit.InFlightStats{Max: 2}, f.Stats())
		assert.Equal(t, map[string]int64{"admit.inflight.running": 0, "admit.inflight.waiting": 0, "admit.inflight.max": 2}, measured(t, f))
	})
}

func TestKeyCacheStats(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var fails atomic.Bool
		known := admit.KeyMap{admit.DigestOf("a"): {ID: "1"}, admit.DigestOf("b"): {ID: "2"}}
		cache, err := admit.NewKeyCache(storeFunc(func(ctx context.Context, d admit.Digest) (*admit.Key, error) {
			if fails.Load() {
				return nil, errors.New("it is down")
			}
			return known.LookupKey(ctx, d)
		}), admit.KeyCacheConfig{TTL: time.Second, StaleFor: time.Hour, NegativeTTL: time.Minute})
		require.NoError(t, err)
		look := func(token string) { _, _ = cache.LookupKey(t.Context(), admit.DigestOf(token)) }
		for _, token := range []string{"a", "a", "a", "b", "none", "none"} {
			look(token)
		}
		assert.Equal(t, admit.KeyCacheStats{Keys: 2, Hits: 3, Lookups: 3}, cache.Stats())
		fails.Store(true)
		time.Sleep(2 * time.Second)
		look("a")
		look("a")
		synctest.Wait()
		assert.Equal(t, admit.KeyCacheStats{Keys: 2, Hits: 3, Lookups: 4, Stale: 2, StoreDown: true}, cache.Stats())
		assert.Equal(t, map[string]int64{
			"admit.keycache.keys": 2, "admit.keycache.hits": 3, "admit.keycache.lookups": 4, "admit.keycache.stale": 2, "admit.keycache.store.down": 1,
		}, measured(t, cache))
		fails.Store(false)
		time.Sleep(2 * time.Second)
		look("a") // for which nobody waits
		synctest.Wait()
		look("a")
		assert.Equal(t, admit.KeyCacheStats{Keys: 2, Hits: 4, Lookups: 5, Stale: 3}, cache.Stats())
	})
}

func TestLimiterStats(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		memory, err := admit.NewMemoryStore(admit.MemoryStoreConfig{})
		require.NoError(t, err)
		var fails atomic.Bool
		store := takeFunc(func(ctx context.Context, key string, cost int, limits []admit.Limit) (admit.Decision, error) {
			if fails.Load() {
				return admit.Decision{}, errors.New("it is down")
			}
			return memory.Take(ctx, key, cost, limits)
		})
		l := newLimiter(t, admit.LimiterConfig{Name: "api", Limits: []admit.Limit{admit.PerMinute(100)}, Store: store, Replicas: 2})
		h := (&admit.ErrorWriter{Logger: discardLogs}).Wrap(l.Wrap(ok))
		allowed(t, h, get("/"))
		assert.Equal(t, admit.LimiterStats{Callers: 1}, l.Stats(), "which is ready for an outage")
		fails.Store(true)
		allowed(t, h, get("/"))
		allowed(t, h, get("/"))
		assert.Equal(t, admit.LimiterStats{Callers: 1, StoreDown: true, WithoutStore: 2}, l.Stats())
		assert.Equal(t, map[string]int64{"admit.limiter.callers": 1, "admit.limiter.store.down": 1, "admit.limiter.store.missed": 2}, measured(t, l))
		fails.Store(false)
		allowed(t, h, get("/"))
		assert.Equal(t, admit.LimiterStats{Callers: 1, WithoutStore: 2}, l.Stats())

		assert.Equal(t, admit.MemoryStoreStats{Callers: 1}, memory.Stats())
		_, err = memory.Take(t.Context(), "key:api:k1", 1, []admit.Limit{admit.PerMinute(1)})
		require.NoError(t, err)
		assert.Equal(t, map[string]int64{"admit.memorystore.callers": 2}, measured(t, memory), "by address and by key")
		assert.Equal(t, admit.LimiterStats{}, newLimiter(t, admit.LimiterConfig{Limits: []admit.Limit{admit.PerMinute(1)}}).Stats())
	})
}

func TestQuotasStats(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newQuotaService(t, monthly(100_000), ok)
		assert.Equal(t, admit.QuotasStats{}, s.Stats())
		for range 300 {
			assert.Equal(t, 200, s.get().Code)
		}
		synctest.Wait()
		st := s.Stats()
		assert.Equal(t, 1, st.Counters)
		b := s.balance(t)
		assert.EqualValues(t, 300, b.Used+st.Unreported)
		assert.Equal(t, b.Held-st.Unreported, st.Held)
		assert.Positive(t, st.Held)
		got := measured(t, s.Quotas)
		assert.Equal(t, st.Held, got["admit.quotas.held"])
		assert.NotEqual(t, st.Held, st.Unreported)
		assert.Equal(t, st.Unreported, got["admit.quotas.unreported"])
		require.NoError(t, s.Close(t.Context()))
		st = s.Stats()
		assert.Zero(t, st.Held+st.Unreported, "all has gone back")
	})
}

func TestShedderMeasures(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s, g := newShedder(t, admit.ShedderConfig{Max: 1, MaxQueue: 1}), newGate()
		for range 3 {
			send(s.Wrap(g), get("/"))
		}
		synctest.Wait()
		assert.Equal(t, map[string]int64{
			"admit.shedder.running": 1, "admit.shedder.waiting": 1, "admit.shedder.max": 1, "admit.shedder.admitted": 1, "admit.shedder.shed": 1,
		}, measured(t, s))
		close(g.out)
		synctest.Wait()
		assert.Equal(t, map[string]int64{
			"admit.shedder.running": 0, "admit.shedder.waiting": 0, "admit.shedder.max": 1, "admit.shedder.admitted": 2, "admit.shedder.shed": 1,
		}, measured(t, s))
	})
}

// measured checks what holds for every Measure, and returns the values by their names.
func measured(t *testing.T, part interface{ Measures() []admit.Measure }) map[string]int64 {
	t.Helper()
	values := make(map[string]int64)
	for _, m := range part.Measures() {
		assert.Regexp(t, `^admit(\.[a-z]+){2,3}$`, m.Name)
		assert.Regexp(t, `^(\{[a-z]+\})?$`, m.Unit, m.Name)
		assert.NotEmpty(t, m.Help, m.Name)
		assert.False(t, strings.HasSuffix(m.Help, "."), m.Help)
		grows := false
		for _, what := range []string{"admitted", "shed", "hits", "lookups", "stale", "missed"} {
			grows = grows || strings.HasSuffix(m.Name, "."+what)
		}
		assert.Equal(t, grows, m.Total, m.Name)
		_, twice := values[m.Name]
		assert.False(t, twice, m.Name)
		values[m.Name] = m.Value
	}
	return values
}

// What cannot serve says nothing, and does not panic: metrics are scraped from another
// goroutine.
func TestStatsOfWhatCannotServe(t *testing.T) {
	t.Parallel()
	inFlight, err := admit.NewInFlight(admit.InFlightConfig{})
	require.Error(t, err)
	shedder, err := admit.NewShedder(admit.ShedderConfig{})
	require.Error(t, err)
	cache, err := admit.NewKeyCache(nil, admit.KeyCacheConfig{})
	require.Error(t, err)
	limiter, err := admit.NewLimiter(admit.LimiterConfig{})
	require.Error(t, err)
	store, err := admit.NewMemoryStore(admit.MemoryStoreConfig{MaxKeys: -1})
	require.Error(t, err)
	quotas, err := admit.NewQuotas(admit.QuotasConfig{})
	require.Error(t, err)
	for _, part := range []interface{ Measures() []admit.Measure }{
		inFlight, shedder, cache, limiter, store, quotas,
		(*admit.InFlight)(nil), (*admit.Shedder)(nil), (*admit.KeyCache)(nil), (*admit.Limiter)(nil), (*admit.MemoryStore)(nil), (*admit.Quotas)(nil),
	} {
		for _, m := range part.Measures() {
			assert.Zero(t, m.Value, m.Name)
		}
	}
}
