package admit

import (
	"context"
	"sync"
	"sync/atomic"
	"time"
)

// KeyCacheConfig bounds what a KeyCache remembers, and for how long.
type KeyCacheConfig struct {
	// TTL is for how long a key is used without asking the store again, so it bounds how
	// late a change is seen unless something calls Forget. Required.
	TTL time.Duration
	// StaleFor is for how long after TTL a key is still used while the store fails, or has
	// not answered in 50 ms. 0: not at all, so that such a request waits for the store, and
	// is refused with 503 if that fails.
	StaleFor time.Duration
	// NegativeTTL is for how long a digest stays unknown without asking again. 0: one
	// second.
	NegativeTTL time.Duration
	// MaxKeys bounds the keys in memory, at about 200 bytes each beside the Key itself; the
	// one that has not been used for longest, or nearly so, makes room. 0: 100,000.
	// Unknown digests have room of their own, which is fixed.
	MaxKeys int
}

const (
	defaultNegativeTTL = time.Second
	defaultCachedKeys  = 100_000
	maxUnknownKeys     = 16_384
)

// KeyCache is a KeyStore in front of another. It remembers who a key is, never whether
// it is valid: Auth looks at that in every request. However many callers ask for one
// digest, the store is asked once, and for at most 64 digests at a time, of which 16 are for
// keys that it has seen; a caller that gives up neither ends that look-up nor waits for it. A
// look-up that takes longer than five seconds has failed. While the store fails or is late, a
// key past its TTL is used at once, for StaleFor, and asked for in the background; a line of
// slog.Default() says so, and another that the store is back. It is safe for concurrent use.
type KeyCache struct {
	store   KeyStore
	c       KeyCacheConfig
	shards  []cacheShard
	keys    atomic.Int64  // in all shards
	lookups atomic.Uint64 // in the store, so far
	slots   permits       // of look-ups in the store
	kept    permits       // more of them, for keys that it has seen
	hung    permits       // of those that the store does not end
	health  storeHealth
	made    made
}

// NewKeyCache puts a cache in front of a store. The error has every fault of the
// configuration; the KeyCache that comes with it finds no key, and returns the error.
func NewKeyCache(store KeyStore, c KeyCacheConfig) (*KeyCache, error) {
	var f faults
	if store == nil {
		f.add("NewKeyCache", "has no store; give it the one that has the keys")
	} else {
		f.value("NewKeyCache.store", store)
	}
	if c.TTL <= 0 {
		f.add("KeyCacheConfig.TTL", "is %v; say for how long a change of a key may stay unseen, such as a minute", c.TTL)
	}
	if c.StaleFor < 0 {
		f.add("KeyCacheConfig.StaleFor", "is %v; it is a time, or 0 for none", c.StaleFor)
	}
	if c.NegativeTTL < 0 {
		f.add("KeyCacheConfig.NegativeTTL", "is %v; it is a time, or 0 for %v", c.NegativeTTL, defaultNegativeTTL)
	}
	if c.MaxKeys < 0 {
		f.add("KeyCacheConfig.MaxKeys", "is %d; it is a number of keys, or 0 for %d", c.MaxKeys, defaultCachedKeys)
	}
	f.time("KeyCacheConfig.TTL", c.TTL)
	f.time("KeyCacheConfig.StaleFor", c.StaleFor)
	f.time("KeyCacheConfig.NegativeTTL", c.NegativeTTL)
	if err := f.err(); err != nil {
		return &KeyCache{made: made{err: err}}, err
	}
	if c.NegativeTTL == 0 {
		c.NegativeTTL = defaultNegativeTTL
	}
	if c.MaxKeys == 0 {
		c.MaxKeys = defaultCachedKeys
	}
	shards := 1
	for shards < 64 && c.MaxKeys/shards >= 512 {
		shards *= 2
	}
	cache := &KeyCache{store: store, c: c, shards: make([]cacheShard, shards), made: made{ok: true}}
	cache.health.outage.Quiet = time.Second
	cache.slots, cache.kept, cache.hung = make(permits, maxKeyFlights-keptFlights), make(permits, keptFlights), make(permits, maxHungKeys)
	for i := range cache.shards {
		cache.shards[i] = cacheShard{
			known: map[Digest]*cachedKey{}, unknown: map[Digest]time.Time{}, flights: map[Digest]*keyFlight{},
			forgetful: make([]Digest, 0, maxUnknownKeys/shards),
		}
	}
	return cache, nil
}

func (c *KeyCache) fault() error {
	if c == nil {
		return (*made)(nil).fault("KeyCache")
	}
	return c.made.fault("KeyCache")
}

// LookupKey implements KeyStore. It fails as the store does, and with the error of ctx
// when that ends first.
func (c *KeyCache) LookupKey(ctx context.Context, d Digest) (*Key, error) {
	if err := c.fault(); err != nil {
		return nil, err
	}
	sh := c.shardOf(d)
	switch key, age := sh.recall(d, time.Now(), c.c.StaleFor); age {
	case keyFresh:
		sh.hits.Add(1)
		return key, nil
	case keyUnknown:
		sh.hits.Add(1)
		return nil, ErrKeyNotFound
	case keyStale:
		return c.refresh(ctx, sh, d)
	default:
		return c.ask(ctx, sh, d)
	}
}

// Forget drops what is known of a digest, so that the next look-up asks the store. A
// look-up that is under way does not bring it back.
func (c *KeyCache) Forget(d Digest) {
	if c.fault() != nil {
		return
	}
	sh := c.shardOf(d)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	if k := sh.known[d]; k != nil { // its place stays: see Knows
		k.key = nil
		k.used.Store(false)
	}
	delete(sh.unknown, d)
	if f := sh.flights[d]; f != nil {
		f.outdated = true
		delete(sh.flights, d) // who comes now has to ask again
	}
}

// Knows implements KeyKnower. It reports whether d is a key that the cache has seen, even if
// past its TTL or forgotten, or one that it knows to be none, or what its store knows.
func (c *KeyCache) Knows(d Digest) bool {
	if c.fault() != nil {
		return false
	}
	if knower, ok := c.store.(KeyKnower); ok && knower.Knows(d) {
		return true
	}
	sh := c.shardOf(d)
	sh.mu.RLock()
	defer sh.mu.RUnlock()
	return sh.known[d] != nil || time.Now().Before(sh.unknown[d])
}

// cacheShard is a part of the cache with a lock of its own.
type cacheShard struct {
	mu    sync.RWMutex
	hits  atomic.Uint64 // look-ups that it has answered by itself
	known map[Digest]*cachedKey
	clock []*cachedKey // the same keys; the hand goes round them to find one to evict
	hand  int

	unknown   map[Digest]time.Time // until when
	forgetful []Digest             // the order in which unknown ones came; a ring once it is full
	oldest    int

	flights map[Digest]*keyFlight
}

type cachedKey struct {
	digest Digest
	key    *Key        // nil once it is forgotten
	until  time.Time   // TTL
	retry  time.Time   // when the store may be asked again, after it has failed
	place  int         // in the clock
	used   atomic.Bool // since the hand came by
}

// A digest is as good as random, so its bits choose the shard.
func (c *KeyCache) shardOf(d Digest) *cacheShard { return &c.shards[int(d[0])%len(c.shards)] }

// keyAge is what the cache has of a digest.
type keyAge int

const (
	keyAbsent  keyAge = iota // nothing that may be used
	keyFresh                 // the key, within its TTL
	keyStale                 // the key, past it and within StaleFor
	keyUnknown               // that the store has none
)

// recall returns what needs no look-up, and what serves if one fails.
func (sh *cacheShard) recall(d Digest, now time.Time, staleFor time.Duration) (*Key, keyAge) {
	sh.mu.RLock()
	defer sh.mu.RUnlock()
	return sh.at(d, now, staleFor)
}

// at is recall under the lock.
func (sh *cacheShard) at(d Digest, now time.Time, staleFor time.Duration) (*Key, keyAge) {
	k := sh.known[d]
	switch {
	case k == nil && now.Before(sh.unknown[d]):
		return nil, keyUnknown
	case k == nil || k.key == nil || !now.Before(k.until.Add(staleFor)):
		return nil, keyAbsent
	}
	if !k.used.Load() { // so that a hot key's line is not written by every core
		k.used.Store(true)
	}
	if now.Before(k.until) {
		return k.key, keyFresh
	}
	return k.key, keyStale
}

// note keeps a key. If there is no room for one more, it takes the place of another of
// the shard.
func (c *KeyCache) note(sh *cacheShard, k *cachedKey) {
	old := sh.known[k.digest]
	switch {
	case old != nil:
		k.used.Store(true)
	case c.keys.Add(1) <= int64(c.c.MaxKeys):
		k.place = len(sh.clock)
		sh.known[k.digest] = k
		sh.clock = append(sh.clock, k)
		return
	default:
		c.keys.Add(-1)
		if old = sh.evict(); old == nil {
			return // other shards have all the room
		}
	}
	k.place = old.place
	sh.known[k.digest], sh.clock[k.place] = k, k
}

// evict finds a key that has not been used since the hand came by.
func (sh *cacheShard) evict() *cachedKey {
	for len(sh.clock) > 0 {
		sh.hand %= len(sh.clock)
		k := sh.clock[sh.hand]
		sh.hand++
		if !k.used.Swap(false) {
			delete(sh.known, k.digest)
			return k
		}
	}
	return nil
}

func (c *KeyCache) drop(sh *cacheShard, d Digest) {
	k := sh.known[d]
	if k == nil {
		return
	}
	last := len(sh.clock) - 1
	sh.clock[k.place] = sh.clock[last]
	sh.clock[k.place].place = k.place
	sh.clock[last] = nil
	sh.clock = sh.clock[:last]
	delete(sh.known, d)
	c.keys.Add(-1)
}

// noteUnknown keeps an unknown digest in place of the one that came first.
func (sh *cacheShard) noteUnknown(d Digest, until time.Time) {
	if _, there := sh.unknown[d]; there {
		sh.unknown[d] = until
		return
	}
	if len(sh.forgetful) < cap(sh.forgetful) {
		sh.forgetful = append(sh.forgetful, d)
	} else {
		delete(sh.unknown, sh.forgetful[sh.oldest])
		sh.forgetful[sh.oldest] = d
		sh.oldest = (sh.oldest + 1) % len(sh.forgetful)
	}
	sh.unknown[d] = until
}
