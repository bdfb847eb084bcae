package admit_test

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"runtime"
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

// remote is a KeyStore as behind a network: it takes time, may fail, and counts.
type remote struct {
	mu    sync.Mutex
	keys  map[admit.Digest]*admit.Key
	takes time.Duration
	err   error
	asked atomic.Int64
}

func newRemote(tokens ...string) *remote {
	s := &remote{keys: map[admit.Digest]*admit.Key{}}
	for _, token := range tokens {
		s.keys[admit.DigestOf(token)] = &admit.Key{ID: token}
	}
	return s
}

func (s *remote) LookupKey(ctx context.Context, d admit.Digest) (*admit.Key, error) {
	s.asked.Add(1)
	s.mu.Lock()
	key, err, takes := s.keys[d], s.err, s.takes // as it is when the store is asked
	s.mu.Unlock()
	if takes > 0 {
		select {
		case <-time.After(takes):
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	if err == nil && key == nil {
		err = admit.ErrKeyNotFound
	}
	return key, err
}

// set changes the store between look-ups.
func (s *remote) set(change func(s *remote)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	change(s)
}

func (s *remote) down() { s.set(func(s *remote) { s.err = errDown }) }
func (s *remote) up()   { s.set(func(s *remote) { s.err = nil }) }

var errDown = errors.New("connection refused")

func newCache(t testing.TB, store admit.KeyStore, c admit.KeyCacheConfig) *admit.KeyCache {
	t.Helper()
	if c.TTL == 0 {
		c.TTL = time.Minute
	}
	cache, err := admit.NewKeyCache(store, c)
	require.NoError(t, err)
	return cache
}

// look returns the id that the store has for a token, or the error.
func look(t testing.TB, s admit.KeyStore, token string) string {
	t.Helper()
	switch k, err := s.LookupKey(t.Context(), admit.DigestOf(token)); {
	case err == nil:
		return k.ID
	case errors.Is(err, admit.ErrKeyNotFound):
		return "unknown"
	default:
		assert.ErrorIs(t, err, errDown)
		return "down"
	}
}

func TestNewKeyCacheFaults(t *testing.T) {
	t.Parallel()
	_, err := admit.NewKeyCache(nil, admit.KeyCacheConfig{TTL: -1, StaleFor: -1, NegativeTTL: -1, MaxKeys: -1})
	for _, want := range []string{"has no store", "TTL is -1ns", "StaleFor is -1ns", "NegativeTTL is -1ns", "MaxKeys is -1"} {
		assert.ErrorContains(t, err, want)
	}
	_, err = admit.NewKeyCache(newRemote(), admit.KeyCacheConfig{})
	assert.ErrorContains(t, err, "TTL is 0s", "how late a change may be seen has to be said")
}

func TestKeyCacheRemembers(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := newRemote("a")
		cache := newCache(t, store, admit.KeyCacheConfig{TTL: time.Minute, NegativeTTL: 10 * time.Second})
		for range 3 {
			assert.Equal(t, "a", look(t, cache, "a"))
			assert.Equal(t, "unknown", look(t, cache, "b"))
		}
		assert.EqualValues(t, 2, store.asked.Load())

		store.set(func(s *remote) {
			s.keys[admit.DigestOf("a")] = &admit.Key{ID: "a2"}
			s.keys[admit.DigestOf("b")] = &admit.Key{ID: "b"}
		})
		time.Sleep(10*time.Second - 1)
		assert.Equal(t, "unknown", look(t, cache, "b"))
		time.Sleep(time.Nanosecond)
		assert.Equal(t, "b", look(t, cache, "b"))
		time.Sleep(50*time.Second - 1)
		assert.Equal(t, "a", look(t, cache, "a"))
		time.Sleep(time.Nanosecond)
		assert.Equal(t, "a2", look(t, cache, "a"))
		assert.EqualValues(t, 4, store.asked.Load())

		store.set(func(s *remote) { clear(s.keys) })
		time.Sleep(time.Minute)
		assert.Equal(t, "unknown", look(t, cache, "a"), "the store has answered: that is no outage")
	})
}

// The age of an answer counts from the question: what has changed since then is not in it.
func TestKeyCacheCountsFromTheQuestion(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := newRemote("a")
		store.takes = 3 * time.Second
		cache := newCache(t, store, admit.KeyCacheConfig{TTL: 10 * time.Second})
		assert.Equal(t, "a", look(t, cache, "a"))
		time.Sleep(7*time.Second - 1)
		assert.Equal(t, "a", look(t, cache, "a"))
		assert.EqualValues(t, 1, store.asked.Load())
		time.Sleep(time.Nanosecond)
		assert.Equal(t, "a", look(t, cache, "a"))
		assert.EqualValues(t, 2, store.asked.Load())
	})
}

// A key is remembered; whether it is valid is found out each time.
func TestKeyCacheDoesNotDecide(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := newRemote()
		store.keys[admit.DigestOf("a")] = &admit.Key{ID: "a", ExpiresAt: time.Now().Add(time.Second)}
		h := admit.APIKey(newCache(t, store, admit.KeyCacheConfig{TTL: time.Hour}))(ok)
		allowed(t, h, get("/", "X-API-Key", "a"))
		time.Sleep(time.Second)
		e, _ := refused(t, h, get("/", "X-API-Key", "a"), 401)
		assert.Equal(t, "The API key has expired.", e.Message)
		assert.EqualValues(t, 1, store.asked.Load())
	})
}

func TestKeyCacheServesStaleInAnOutage(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := newRemote("a", "idle")
		cache := newCache(t, store, admit.KeyCacheConfig{TTL: time.Minute, StaleFor: time.Hour})
		assert.Equal(t, "a", look(t, cache, "a"))
		assert.Equal(t, "idle", look(t, cache, "idle"))
		assert.Equal(t, "unknown", look(t, cache, "new"))

		store.down()
		time.Sleep(time.Minute)
		assert.Equal(t, "a", look(t, cache, "a"))
		assert.Equal(t, "down", look(t, cache, "new"), "unknown is not served stale: it may be there by now")
		time.Sleep(time.Hour - 1)
		assert.Equal(t, "a", look(t, cache, "a"))
		time.Sleep(time.Nanosecond)
		assert.Equal(t, "down", look(t, cache, "a"), "not for longer than StaleFor, however much it is used")

		store.set(func(s *remote) { s.keys[admit.DigestOf("a")], s.err = &admit.Key{ID: "a2"}, nil })
		assert.Equal(t, "a2", look(t, cache, "a"), "recovery is seen at once")
		assert.Equal(t, "idle", look(t, cache, "idle"))

		store.down()
		time.Sleep(time.Minute)
		assert.Equal(t, "idle", look(t, cache, "idle"))
		store.set(func(s *remote) { clear(s.keys); s.err = nil })
		assert.Equal(t, "idle", look(t, cache, "idle"), "the store is not asked again at once")
		time.Sleep(time.Second)
		assert.Equal(t, "idle", look(t, cache, "idle"), "it is asked in the background")
		synctest.Wait()
		assert.Equal(t, "unknown", look(t, cache, "idle"))
		store.down()
		assert.Equal(t, "unknown", look(t, cache, "idle"), "once the store has said no, there is nothing to be stale")
	})
	synctest.Test(t, func(t *testing.T) {
		store := newRemote("a")
		cache := newCache(t, store, admit.KeyCacheConfig{TTL: time.Minute})
		assert.Equal(t, "a", look(t, cache, "a"))
		store.down()
		time.Sleep(time.Minute)
		assert.Equal(t, "down", look(t, cache, "a"), "not at all without StaleFor")
	})
}

// A store that hangs, and does not even heed its context, is an outage too.
func TestKeyCacheStoreHangs(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		hang := make(chan struct{})
		defer close(hang)
		var hangs atomic.Bool
		cache := newCache(t, storeFunc(func(context.Context, admit.Digest) (*admit.Key, error) {
			if hangs.Load() {
				<-hang
			}
			return &admit.Key{ID: "a"}, nil
		}), admit.KeyCacheConfig{TTL: time.Minute, StaleFor: time.Hour})
		assert.Equal(t, "a", look(t, cache, "a"))
		hangs.Store(true)
		time.Sleep(time.Minute)
		begin := time.Now()
		assert.Equal(t, "a", look(t, cache, "a"))
		assert.Equal(t, 50*time.Millisecond, time.Since(begin))
		assert.Equal(t, "a", look(t, cache, "a"))
		assert.Equal(t, 50*time.Millisecond, time.Since(begin))
		_, err := cache.LookupKey(t.Context(), admit.DigestOf("b"))
		assert.ErrorIs(t, err, context.DeadlineExceeded)
		assert.NotErrorIs(t, err, admit.ErrKeyNotFound)
	})
}

func TestKeyCacheOneFlight(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := newRemote("a", "b")
		store.takes = time.Second
		cache := newCache(t, store, admit.KeyCacheConfig{})
		var all sync.WaitGroup
		for i := range 100 {
			all.Go(func() { assert.Equal(t, "a", look(t, cache, "a")) })
			if i < 10 {
				all.Go(func() { assert.Equal(t, "b", look(t, cache, "b")) })
			}
		}
		begin := time.Now()
		all.Wait()
		assert.Equal(t, time.Second, time.Since(begin))
		assert.EqualValues(t, 2, store.asked.Load())
	})
}

// A caller that gives up stops waiting; the look-up goes on for those who wait, and
// with the values of its context.
func TestKeyCacheCallerGivesUp(t *testing.T) {
	t.Parallel()
	type traceKey struct{}
	synctest.Test(t, func(t *testing.T) {
		store := newRemote("a")
		store.takes = time.Second
		var trace any
		cache := newCache(t, storeFunc(func(ctx context.Context, d admit.Digest) (*admit.Key, error) {
			trace = ctx.Value(traceKey{})
			_, bounded := ctx.Deadline()
			assert.True(t, bounded)
			return store.LookupKey(ctx, d)
		}), admit.KeyCacheConfig{})
		first, cancel := context.WithCancel(context.WithValue(t.Context(), traceKey{}, "trace 1"))
		begin := time.Now()
		var all sync.WaitGroup
		all.Go(func() {
			_, err := cache.LookupKey(first, admit.DigestOf("a"))
			assert.ErrorIs(t, err, context.Canceled)
			assert.Equal(t, 100*time.Millisecond, time.Since(begin), "it does not wait")
		})
		synctest.Wait()
		all.Go(func() {
			assert.Equal(t, "a", look(t, cache, "a"))
			assert.Equal(t, time.Second, time.Since(begin))
		})
		time.Sleep(100 * time.Millisecond)
		cancel()
		all.Wait()
		assert.Equal(t, "trace 1", trace)
		assert.EqualValues(t, 1, store.asked.Load())
		assert.Equal(t, "a", look(t, cache, "a"))
		assert.EqualValues(t, 1, store.asked.Load(), "what was found is kept")
	})
}

func TestKeyCacheForget(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := newRemote("a")
		cache := newCache(t, store, admit.KeyCacheConfig{TTL: time.Hour, NegativeTTL: time.Hour, StaleFor: time.Hour})
		assert.Equal(t, "a", look(t, cache, "a"))
		assert.Equal(t, "unknown", look(t, cache, "b"))
		store.set(func(s *remote) {
			s.keys[admit.DigestOf("a")] = &admit.Key{ID: "a2"}
			s.keys[admit.DigestOf("b")] = &admit.Key{ID: "b"}
		})
		cache.Forget(admit.DigestOf("a"))
		cache.Forget(admit.DigestOf("b"))
		cache.Forget(admit.DigestOf("never seen"))
		assert.Equal(t, "a2", look(t, cache, "a"))
		assert.Equal(t, "b", look(t, cache, "b"))
		assert.EqualValues(t, 4, store.asked.Load())

		cache.Forget(admit.DigestOf("a"))
		store.down()
		assert.Equal(t, "down", look(t, cache, "a"), "what is forgotten is not served stale")
	})
}

// A look-up that has begun before Forget may have seen the key as it was. It does not
// bring it back, and those who come after Forget do not join it.
func TestKeyCacheForgetDuringAFlight(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(*remote){
		"changed": func(s *remote) { s.keys[admit.DigestOf("a")] = &admit.Key{ID: "after"} },
		"removed": func(s *remote) { clear(s.keys) },
		"minted":  func(s *remote) { s.keys[admit.DigestOf("new")] = &admit.Key{ID: "after"} },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				token, before, after := "a", "a", "after"
				switch name {
				case "removed":
					after = "unknown"
				case "minted":
					token, before = "new", "unknown"
				}
				store := newRemote("a")
				store.takes = time.Second
				cache := newCache(t, store, admit.KeyCacheConfig{TTL: time.Hour, NegativeTTL: time.Hour})
				var slow sync.WaitGroup
				slow.Go(func() { assert.Equal(t, before, look(t, cache, token)) })
				synctest.Wait()
				store.set(func(s *remote) { change(s); s.takes = 100 * time.Millisecond })
				cache.Forget(admit.DigestOf(token))
				begin := time.Now()
				assert.Equal(t, after, look(t, cache, token))
				assert.Equal(t, 100*time.Millisecond, time.Since(begin), "a look-up of its own")
				slow.Wait()
				assert.Equal(t, after, look(t, cache, token), "the slow one has put nothing back")
				assert.EqualValues(t, 2, store.asked.Load())
			})
		})
	}
}

// Real keys push each other out, the unused first, and never more than MaxKeys stay;
// made-up ones push out nothing but each other.
func TestKeyCacheIsBounded(t *testing.T) {
	t.Parallel()
	for _, n := range []int{1, 2, 100, 5000} {
		t.Run(strconv.Itoa(n), func(t *testing.T) {
			t.Parallel()
			store := newRemote()
			for i := range 2 * n {
				id := strconv.Itoa(i)
				store.keys[admit.DigestOf(id)] = &admit.Key{ID: id}
			}
			cache := newCache(t, store, admit.KeyCacheConfig{TTL: time.Hour, NegativeTTL: time.Hour, MaxKeys: n})
			first := func() (asked int64) {
				before := store.asked.Load()
				for i := range n {
					require.Equal(t, strconv.Itoa(i), look(t, cache, strconv.Itoa(i)))
				}
				return store.asked.Load() - before
			}
			assert.EqualValues(t, n, first())
			assert.EqualValues(t, 0, first(), "all have room")

			for i := range 20_000 {
				require.Equal(t, "unknown", look(t, cache, "guess "+strconv.Itoa(i)))
			}
			assert.EqualValues(t, 0, first(), "a flood of made-up keys takes no room from them")

			for i := n; i < 2*n; i++ {
				require.Equal(t, strconv.Itoa(i), look(t, cache, strconv.Itoa(i)))
			}
			var known int
			for i := range 2 * n {
				if cache.Knows(admit.DigestOf(strconv.Itoa(i))) {
					known++
				}
			}
			assert.Equal(t, n, known)
		})
	}
	t.Run("what is used stays", func(t *testing.T) {
		t.Parallel()
		store := newRemote("hot")
		for i := range 1000 {
			store.keys[admit.DigestOf(strconv.Itoa(i))] = &admit.Key{ID: strconv.Itoa(i)}
		}
		cache := newCache(t, store, admit.KeyCacheConfig{TTL: time.Hour, MaxKeys: 10})
		for i := range 1000 {
			look(t, cache, "hot")
			look(t, cache, strconv.Itoa(i))
		}
		assert.EqualValues(t, 1001, store.asked.Load(), "hot was asked for once")
	})
}

// A key that comes when all have room takes the place of one that has not been used.
func TestKeyCacheEvicts(t *testing.T) {
	t.Parallel()
	for name, use := range map[string]func(t *testing.T, cache *admit.KeyCache, store *remote){
		"a is used": func(t *testing.T, cache *admit.KeyCache, _ *remote) { look(t, cache, "a") },
		"a is asked for again": func(t *testing.T, cache *admit.KeyCache, _ *remote) {
			time.Sleep(time.Minute)
			look(t, cache, "a")
		},
		"a is used in an outage": func(t *testing.T, cache *admit.KeyCache, store *remote) {
			time.Sleep(time.Minute)
			store.down()
			look(t, cache, "a")
			store.up()
		},
		"b is forgotten": func(t *testing.T, cache *admit.KeyCache, _ *remote) {
			look(t, cache, "a")
			look(t, cache, "b")
			cache.Forget(admit.DigestOf("b"))
		},
	} {
		synctest.Test(t, func(t *testing.T) {
			store := newRemote("a", "b", "c")
			cache := newCache(t, store, admit.KeyCacheConfig{TTL: time.Minute, StaleFor: time.Hour, MaxKeys: 2})
			look(t, cache, "a")
			look(t, cache, "b")
			use(t, cache, store)
			look(t, cache, "c")
			asked := store.asked.Load()
			assert.Equal(t, "c", look(t, cache, "c"), name)
			assert.Equal(t, asked, store.asked.Load(), "%s: c is kept", name)
			assert.True(t, cache.Knows(admit.DigestOf("a")), name)
			assert.False(t, cache.Knows(admit.DigestOf("b")), name)
		})
	}
}

// Room is that of all shards: a shard that has no key cannot make any, until another
// gives up one.
func TestKeyCacheRoomIsShared(t *testing.T) {
	t.Parallel()
	const n = 1024 // two shards
	store := newRemote()
	digest := func(shard byte, i int) (d admit.Digest) {
		d[0] = shard
		binary.BigEndian.PutUint64(d[8:], uint64(i))
		return d
	}
	for shard := range 2 {
		for i := range n {
			store.keys[digest(byte(shard), i)] = &admit.Key{ID: "any"}
		}
	}
	cache := newCache(t, store, admit.KeyCacheConfig{MaxKeys: n})
	find := func(d admit.Digest) error {
		_, err := cache.LookupKey(t.Context(), d)
		return err
	}
	for i := range n {
		require.NoError(t, find(digest(0, i)))
	}
	for i := range 3 {
		require.NoError(t, find(digest(1, i)))
		assert.False(t, cache.Knows(digest(1, i)))
	}
	store.set(func(s *remote) { delete(s.keys, digest(0, 7)) })
	cache.Forget(digest(0, 7))
	require.ErrorIs(t, find(digest(0, 7)), admit.ErrKeyNotFound)
	require.NoError(t, find(digest(1, 0)))
	assert.True(t, cache.Knows(digest(1, 0)))
	require.NoError(t, find(digest(1, 1)))
	assert.False(t, cache.Knows(digest(1, 0)), "its place is taken")
	assert.True(t, cache.Knows(digest(1, 1)))
}

// Keys come, go from the store and come back: there are never more than MaxKeys, and
// the one that came last is one of them.
func TestKeyCacheWhenKeysGo(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const n, most = 8, 3
		store := newRemote()
		cache := newCache(t, store, admit.KeyCacheConfig{TTL: time.Minute, NegativeTTL: time.Second, MaxKeys: most})
		r := rand.New(rand.NewPCG(1, 2))
		for range 2000 {
			token := strconv.Itoa(r.IntN(n))
			d := admit.DigestOf(token)
			want := token
			store.set(func(s *remote) {
				s.keys[d] = &admit.Key{ID: token}
				if r.IntN(3) == 0 {
					delete(s.keys, d)
					want = "unknown"
				}
			})
			cache.Forget(d)
			time.Sleep(time.Second)
			require.Equal(t, want, look(t, cache, token))
			asked := store.asked.Load()
			require.Equal(t, want, look(t, cache, token))
			require.Equal(t, asked, store.asked.Load(), "it is kept")
			known := 0
			time.Sleep(time.Second) // what is known to be none is forgotten by now
			for i := range n {
				if cache.Knows(admit.DigestOf(strconv.Itoa(i))) {
					known++
				}
			}
			require.LessOrEqual(t, known, most)
		}
	})
}

// Unknown digests push each other out in the order in which they came.
func TestKeyCacheUnknownAreBounded(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const most = 16_384
		store := newRemote()
		cache := newCache(t, store, admit.KeyCacheConfig{NegativeTTL: time.Second, MaxKeys: 1})
		next := 0
		more := func(n int) {
			for range n {
				look(t, cache, strconv.Itoa(next))
				next++
			}
		}
		knows := func(i int) bool { return cache.Knows(admit.DigestOf(strconv.Itoa(i))) }
		more(1)
		time.Sleep(time.Second)
		assert.False(t, knows(0))
		look(t, cache, "0") // takes no second place
		look(t, cache, "0")
		assert.EqualValues(t, 2, store.asked.Load())
		more(most - 1)
		for i := range most {
			require.True(t, knows(i))
		}
		more(2)
		for i, want := range map[int]bool{0: false, 1: false, 2: true, most: true, most + 1: true} {
			assert.Equal(t, want, knows(i), i)
		}
		more(most)
		for i, want := range map[int]bool{2: false, most: false, most + 1: false, most + 2: true, next - 1: true} {
			assert.Equal(t, want, knows(i), i)
		}
	})
}

func TestKeyCacheWithoutABound(t *testing.T) {
	t.Parallel()
	cache := newCache(t, newRemote("a"), admit.KeyCacheConfig{MaxKeys: math.MaxInt})
	assert.Equal(t, "a", look(t, cache, "a"))
	assert.Equal(t, "unknown", look(t, cache, "b"))
	assert.True(t, cache.Knows(admit.DigestOf("b")))
}

// A caller that has given up gets the reason, and no stale key.
func TestKeyCacheServesNothingStaleToWhoHasGivenUp(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := newRemote("a")
		cache := newCache(t, store, admit.KeyCacheConfig{TTL: time.Minute, StaleFor: time.Hour})
		assert.Equal(t, "a", look(t, cache, "a"))
		time.Sleep(time.Minute)
		store.set(func(s *remote) { s.takes = time.Second })
		ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		defer cancel()
		k, err := cache.LookupKey(ctx, admit.DigestOf("a"))
		assert.ErrorIs(t, err, context.DeadlineExceeded)
		assert.Nil(t, k)
		time.Sleep(time.Second)
	})
}

// Forgetting, evicting and looking up in any order leave the cache whole.
func TestKeyCacheManyHands(t *testing.T) {
	t.Parallel()
	store := newRemote()
	const n = 200
	for i := range n {
		store.keys[admit.DigestOf(strconv.Itoa(i))] = &admit.Key{ID: strconv.Itoa(i)}
	}
	cache := newCache(t, store, admit.KeyCacheConfig{TTL: time.Millisecond, NegativeTTL: time.Millisecond, StaleFor: time.Hour, MaxKeys: 50})
	var all sync.WaitGroup
	for g := range 8 {
		all.Go(func() {
			for i := range 4000 {
				token := strconv.Itoa((i*7 + g*31) % (n + 20))
				switch {
				case i%11 == 0:
					cache.Forget(admit.DigestOf(token))
				case i%501 == 0 && g == 0:
					store.down()
				case i%503 == 0 && g == 0:
					store.up()
				default:
					k, err := cache.LookupKey(t.Context(), admit.DigestOf(token))
					if err == nil && k.ID != token {
						t.Errorf("%s for %s", k.ID, token)
					}
				}
			}
		})
	}
	all.Wait()
	store.up()
	for i := range n {
		cache.Forget(admit.DigestOf(strconv.Itoa(i)))
	}
	asked := store.asked.Load()
	for i := range 50 {
		require.Equal(t, strconv.Itoa(i), look(t, cache, strconv.Itoa(i)))
	}
	assert.EqualValues(t, 50, store.asked.Load()-asked)
}

// What a flood can have going on is bounded, and its callers leave when they give up.
func TestKeyCacheFlightsAreBounded(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := newRemote("good")
		cache := newCache(t, store, admit.KeyCacheConfig{TTL: time.Minute, StaleFor: time.Hour})
		assert.Equal(t, "good", look(t, cache, "good"))
		time.Sleep(time.Minute)
		store.set(func(s *remote) { s.takes = 4 * time.Second })
		ctx, cancel := context.WithCancel(t.Context())
		var all sync.WaitGroup
		for i := range 5000 {
			all.Go(func() {
				_, err := cache.LookupKey(ctx, admit.DigestOf(strconv.Itoa(i)))
				assert.ErrorIs(t, err, context.Canceled)
			})
		}
		synctest.Wait()
		assert.EqualValues(t, 1+48, store.asked.Load())
		cancel()
		all.Wait()
		assert.EqualValues(t, 1+48, store.asked.Load(), "those in line have left it")
		store.set(func(s *remote) { s.takes = 0 })
		assert.Equal(t, "good", look(t, cache, "good"))
		time.Sleep(time.Minute) // for the bubble: what is under way ends
	})
}

// A panic of the store is the failure of one look-up, not the end of the process.
func TestKeyCacheStorePanics(t *testing.T) {
	t.Parallel()
	for name, fail := range map[string]func(){"panic": func() { panic("boom") }, "Goexit": runtime.Goexit} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			calls := 0
			cache := newCache(t, storeFunc(func(context.Context, admit.Digest) (*admit.Key, error) {
				if calls++; calls == 1 {
					fail()
				}
				return nil, nil
			}), admit.KeyCacheConfig{})
			_, err := cache.LookupKey(t.Context(), admit.DigestOf("a"))
			require.Error(t, err)
			assert.NotErrorIs(t, err, admit.ErrKeyNotFound)
			if name == "panic" {
				assert.ErrorContains(t, err, "boom")
				assert.ErrorContains(t, err, "keycache_test.go", "the stack is there for the log")
			}
			_, err = cache.LookupKey(t.Context(), admit.DigestOf("a"))
			assert.ErrorIs(t, err, admit.ErrKeyNotFound, "no key and no error is no key")
		})
	}
}

func TestKeyCacheAllocations(t *testing.T) {
	ctx := t.Context()
	cache := newCache(t, newRemote("a"), admit.KeyCacheConfig{TTL: time.Hour, NegativeTTL: time.Hour})
	for _, token := range []string{"a", "unknown"} {
		d := admit.DigestOf(token)
		_, _ = cache.LookupKey(ctx, d)
		allocs(t, 0, func() { _, _ = cache.LookupKey(ctx, d) })
	}
}

// A million made-up keys hold no more than ten thousand do.
func TestKeyCacheMemory(t *testing.T) {
	if raceDetector {
		t.Skip("heap figures are of normal builds")
	}
	cache := newCache(t, storeFunc(func(context.Context, admit.Digest) (*admit.Key, error) {
		return nil, admit.ErrKeyNotFound
	}), admit.KeyCacheConfig{TTL: time.Hour, NegativeTTL: time.Hour})
	begin := heap()
	for i := range 200_000 {
		var d admit.Digest
		d[0] = byte(i)
		binary.BigEndian.PutUint64(d[8:], uint64(i))
		_, _ = cache.LookupKey(t.Context(), d)
	}
	held := heap() - begin
	runtime.KeepAlive(cache)
	assert.Less(t, held, 8<<20)
	t.Logf("%d KiB are held after 200,000 unknown keys", held>>10)
}

func BenchmarkKeyCacheHit(b *testing.B) {
	store := newRemote()
	var digests []admit.Digest
	for i := range 100_000 {
		id := fmt.Sprintf("key %d", i)
		digests = append(digests, admit.DigestOf(id))
		store.keys[digests[i]] = &admit.Key{ID: id}
	}
	cache := newCache(b, store, admit.KeyCacheConfig{TTL: time.Hour})
	for _, d := range digests {
		_, err := cache.LookupKey(b.Context(), d)
		require.NoError(b, err)
	}
	for _, n := range []int{1, len(digests)} {
		b.Run(strings.TrimSpace(fmt.Sprintf("keys=%d", n)), func(b *testing.B) {
			ctx := b.Context()
			b.ReportAllocs()
			b.RunParallel(func(pb *testing.PB) {
				for i := 0; pb.Next(); i++ {
					if _, err := cache.LookupKey(ctx, digests[i%n]); err != nil {
						b.Error(err)
					}
				}
			})
		})
	}
}
