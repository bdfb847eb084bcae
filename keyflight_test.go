package admit_test

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/admit-go/admit"
)

// manyKeys is a store with keys called k0, k1 and so on.
func manyKeys(n int) *remote {
	store := newRemote()
	for i := range n {
		token := "k" + strconv.Itoa(i)
		store.keys[admit.DigestOf(token)] = &admit.Key{ID: token}
	}
	return store
}

// A store that hangs costs those with a stale key nothing, however many they are: not even
// the first of each, once it is known.
func TestKeyCacheWaitsForNoStoreThatIsLate(t *testing.T) {
	t.Parallel()
	for _, keys := range []int{1, 5000} {
		for name, takes := range map[string]time.Duration{"late": time.Second, "hangs": time.Hour} {
			synctest.Test(t, func(t *testing.T) {
				store := manyKeys(keys)
				cache := newCache(t, store, admit.KeyCacheConfig{TTL: time.Minute, StaleFor: time.Hour})
				for i := range keys {
					require.Equal(t, "k"+strconv.Itoa(i), look(t, cache, "k"+strconv.Itoa(i)))
				}
				time.Sleep(time.Minute)
				store.set(func(s *remote) { s.takes = takes })
				var all sync.WaitGroup
				var mu sync.Mutex
				var waited []time.Duration
				for i := range 3000 { // 1,000 a second
					all.Go(func() {
						token, began := "k"+strconv.Itoa(i%keys), time.Now()
						assert.Equal(t, token, look(t, cache, token))
						mu.Lock()
						defer mu.Unlock()
						waited = append(waited, time.Since(began))
					})
					time.Sleep(time.Millisecond)
				}
				all.Wait()
				slices.Sort(waited)
				assert.LessOrEqual(t, waited[len(waited)-1], 50*time.Millisecond, name)
				assert.Zero(t, waited[len(waited)*95/100], "%s, %d keys: after the first, nobody waits", name, keys)
				time.Sleep(time.Hour) // what is under way ends
			})
		}
	}
}

// Strangers who take all places of look-ups hold up nobody who has been here before.
func TestKeyCacheWaitsForNoPlace(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := manyKeys(100)
		cache := newCache(t, store, admit.KeyCacheConfig{TTL: time.Minute, StaleFor: time.Hour})
		for i := range 100 {
			look(t, cache, "k"+strconv.Itoa(i))
		}
		time.Sleep(time.Minute)
		store.set(func(s *remote) { s.takes = 500 * time.Millisecond })
		var all sync.WaitGroup
		for i := range 8000 {
			all.Go(func() { _, _ = cache.LookupKey(t.Context(), admit.DigestOf("stranger "+strconv.Itoa(i))) })
		}
		synctest.Wait()
		for i := range 100 {
			began := time.Now()
			assert.Equal(t, "k"+strconv.Itoa(i), look(t, cache, "k"+strconv.Itoa(i)))
			if i == 0 { // which finds out that the store is late
				assert.Equal(t, 50*time.Millisecond, time.Since(began))
				continue
			}
			assert.Zero(t, time.Since(began))
		}
		all.Wait()
	})
}

// Those who wait in line for a place look again what is known by then.
func TestKeyCacheAsksOnceForThoseInLine(t *testing.T) {
	t.Parallel()
	for _, token := range []string{"good", "unknown"} {
		synctest.Test(t, func(t *testing.T) {
			store := newRemote("good")
			cache := newCache(t, store, admit.KeyCacheConfig{NegativeTTL: time.Minute})
			var all sync.WaitGroup
			store.takes = time.Second
			for i := range 48 {
				all.Go(func() { look(t, cache, strconv.Itoa(i)) })
			}
			synctest.Wait()
			for range 1000 {
				all.Go(func() { assert.Equal(t, token, look(t, cache, token)) })
			}
			all.Wait()
			assert.EqualValues(t, 48+1, store.asked.Load())
		})
	}
}

// A key that is revoked is not in use for longer because strangers wait in line for the store;
// nor do those whose keys have been seen wait behind them.
func TestKeyCacheAsksForKeysItHasSeenBesideAFlood(t *testing.T) {
	t.Parallel()
	for _, staleFor := range []time.Duration{0, time.Hour} {
		synctest.Test(t, func(t *testing.T) {
			store := manyKeys(17)
			cache := newCache(t, store, admit.KeyCacheConfig{TTL: time.Minute, StaleFor: staleFor})
			for i := range 17 {
				look(t, cache, "k"+strconv.Itoa(i))
			}
			store.set(func(s *remote) {
				s.takes = 500 * time.Millisecond
				delete(s.keys, admit.DigestOf("k16"))
			})
			time.Sleep(time.Minute)
			ctx, cancel := context.WithCancel(t.Context())
			var strangers, customers sync.WaitGroup
			for i := range 1000 {
				strangers.Go(func() {
					for j := 0; ctx.Err() == nil; j++ {
						_, _ = cache.LookupKey(ctx, admit.DigestOf(fmt.Sprint(i, " ", j)))
					}
				})
			}
			synctest.Wait()
			for range 3 {
				for i := range 17 {
					customers.Go(func() {
						if i == 16 { // a stranger by now, who may have to wait
							_, _ = cache.LookupKey(ctx, admit.DigestOf("k16"))
							return
						}
						began := time.Now()
						assert.Equal(t, "k"+strconv.Itoa(i), look(t, cache, "k"+strconv.Itoa(i)))
						assert.LessOrEqual(t, time.Since(began), time.Second, "17 look-ups, 16 at a time")
					})
				}
				customers.Wait()
				time.Sleep(time.Second)
			}
			_, err := cache.LookupKey(ctx, admit.DigestOf("k16"))
			assert.Error(t, err, "it has been asked for by now")
			cancel()
			strangers.Wait()
			time.Sleep(time.Second) // for the bubble: what is under way ends
		})
	}
}

// A key that the store has and cannot read is no outage: it is never stale, nor in an
// outage that comes later.
func TestKeyCacheForgetsAKeyThatCannotBeUsed(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := newRemote("a")
		cache := newCache(t, store, admit.KeyCacheConfig{TTL: time.Minute, StaleFor: time.Hour})
		require.Equal(t, "a", look(t, cache, "a"))
		time.Sleep(time.Minute)
		fault := &admit.ConfigError{Field: `keys["a"].networks`, Reason: "cannot be read"}
		store.set(func(s *remote) { s.err = fmt.Errorf("look up: %w", fault) })
		for range 2 {
			_, err := cache.LookupKey(t.Context(), admit.DigestOf("a"))
			assert.ErrorIs(t, err, fault)
		}
		store.down()
		assert.Equal(t, "down", look(t, cache, "a"))
		store.up()
		assert.Equal(t, "a", look(t, cache, "a"))
	})
}

// A look-up that never ends, whatever becomes of its context, is one that has failed.
func TestKeyCacheAsksAgainAfterALookUpThatNeverEnds(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		never := make(chan struct{})
		var asked atomic.Int64
		cache := newCache(t, storeFunc(func(_ context.Context, d admit.Digest) (*admit.Key, error) {
			if asked.Add(1) <= 200 { // more than there are places
				<-never
				return &admit.Key{ID: "old"}, nil
			}
			return &admit.Key{ID: "new"}, nil
		}), admit.KeyCacheConfig{})
		for i := range 100 {
			var both sync.WaitGroup
			for _, token := range []string{"a", "b" + strconv.Itoa(i)} {
				both.Go(func() {
					_, err := cache.LookupKey(t.Context(), admit.DigestOf(token))
					assert.ErrorIs(t, err, context.DeadlineExceeded)
				})
			}
			both.Wait()
		}
		assert.Equal(t, "new", look(t, cache, "a"))
		close(never)
		synctest.Wait()
		assert.Equal(t, "new", look(t, cache, "a"), "an old answer does not replace a newer one")
	})
}

// A store that ends none of its look-ups is asked for no more than a bounded number.
func TestKeyCacheBoundsLookUpsThatNeverEnd(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		never := make(chan struct{})
		var asked atomic.Int64
		cache := newCache(t, storeFunc(func(context.Context, admit.Digest) (*admit.Key, error) {
			asked.Add(1)
			<-never
			return nil, admit.ErrKeyNotFound
		}), admit.KeyCacheConfig{})
		var all sync.WaitGroup
		for range 30 {
			for i := range 100 {
				all.Go(func() { _, _ = cache.LookupKey(t.Context(), admit.DigestOf(strconv.Itoa(i))) })
			}
			time.Sleep(5 * time.Second)
		}
		all.Wait()
		assert.EqualValues(t, 1024+48, asked.Load())
		close(never)
		synctest.Wait()
		assert.Equal(t, "unknown", look(t, cache, "x"), "and serves again when they have ended")
	})
}

// One line says that the store fails and one that it is back, however the two alternate.
func TestKeyCacheLogsAnOutage(t *testing.T) {
	logger, logs := logged()
	before := slog.Default()
	slog.SetDefault(logger)
	defer slog.SetDefault(before)
	synctest.Test(t, func(t *testing.T) {
		store := newRemote("a", "b")
		cache := newCache(t, store, admit.KeyCacheConfig{TTL: time.Minute, StaleFor: time.Hour})
		look(t, cache, "a")
		time.Sleep(time.Minute)
		for i := range 40 {
			if store.up(); i%4 != 3 {
				store.down()
			}
			look(t, cache, "a")
			look(t, cache, "new "+strconv.Itoa(i))
			time.Sleep(250 * time.Millisecond)
		}
		store.up()
		time.Sleep(time.Second)
		look(t, cache, "b")
		look(t, cache, "newer")
	})
	assert.Equal(t, 1, strings.Count(logs.String(), `level=WARN msg="admit: the key store fails or is late; keys past their TTL are used until StaleFor is over; keys that are not cached get 503"`), logs)
	assert.Equal(t, 1, strings.Count(logs.String(), `level=INFO msg="admit: the key store answers again"`), logs)
	assert.Contains(t, logs.String(), "away=11s")
	assert.Regexp(t, `stale_answers=\d\d`, logs.String())
}
