package admit

import (
	"context"
	"sync"
	"sync/atomic"
	"time"
)

// KeyCacheConfig configures NewKeyCache. Only TTL is required.
type KeyCacheConfig struct {
	// TTL is how long a key is used without asking the store again. It bounds how late a change
	// is seen, unless something calls Forget. Required.
	TTL time.Duration
	// StaleFor is how long after TTL a key is still used while the store fails, or has not
	// answered in 50 ms. Zero means that such a request waits for the store, and gets 503 if
	// that fails.
	StaleFor time.Duration
	// NegativeTTL is how long a digest is taken as unknown without asking again. Default: one
	// second.
	NegativeTTL time.Duration
	// MaxKeys bounds the keys in memory, at about 200 bytes each besides the Key itself. The
	// key that has not been used for longest, or nearly so, is evicted. Default: 100,000.
	// Unknown digests have a space of their own, of fixed size.
	MaxKeys int
}

const (
	defaultNegativeTTL = time.Second
	defaultCachedKeys  = 100_000
	maxUnknownKeys     = 16_384
)

// KeyCache is a KeyStore that caches the keys of another. It caches which key a digest is,
// never whether the key is valid: Auth checks that in every request. It is safe for concurrent
// use.
//
// However many requests ask for one digest, the store is asked once. It is asked for at most 64
// digests at a time, 16 of which are reserved for keys that the cache has seen. A request that
// gives up neither ends the look-up nor waits for it. A look-up that takes longer than five
// seconds has failed.
//
// While the store fails or is late, a key past its TTL is used at once, for StaleFor, and
// looked up in the background. One line of slog.Default() says that this begins, and one that
// the store is back.
type KeyCache struct {
	store   KeyStore
	c       KeyCacheConfig
	shards  []cacheShard
	keys    atomic.Int64  // in all shards
	lookups atomic.Uint64 // in the store, so far
	slots   permits       // of look-ups in the store
	kept    permits       // more of them, for keys that the cache has seen
	hung    permits       // of look-ups past their time, which the store does not end
	health  storeHealth
	made    made
}

// NewKeyCache returns a cache in front of store. The error lists every problem of the
// configuration; the KeyCache that is returned with it finds no key, and returns the error.
func NewKeyCache(store KeyStore, c KeyCacheConfig) (*KeyCache, error) {
	var f faults
	if store == nil {
		f.add("NewKeyCache", "has no store; pass the store that has the keys")
	} else {
		f.value("NewKeyCache.store", store)
	}
	if c.TTL <= 0 {
		f.add("KeyCacheConfig.TTL", "is %v; set how long a key may be used without asking the store again, such as time.Minute", c.TTL)
	}
	if c.StaleFor < 0 {
		f.add("KeyCacheConfig.StaleFor", "is %v; it must be a time, or 0 for none", c.StaleFor)
	}
	if c.NegativeTTL < 0 {
		f.add("KeyCacheConfig.NegativeTTL", "is %v; it must be a time, or 0 for %v", c.NegativeTTL, defaultNegativeTTL)
	}
	if c.MaxKeys < 0 {
		f.add("KeyCacheConfig.MaxKeys", "is %d; it must be a number of keys, or 0 for %d", c.MaxKeys, defaultCachedKeys)
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

// LookupKey implements KeyStore. It fails as the store does, or with the error of ctx if that
// ends first.
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

// Forget drops a digest from the cache, so that the next look-up asks the store. A look-up that
// is under way does not bring it back.
func (c *KeyCache) Forget(d Digest) {
	if c.fault() != nil {
		return
	}
	sh := c.shardOf(d)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	if k := sh.known[d]; k != nil { // the entry stays: see Knows
		k.key = nil
		k.used.Store(false)
	}
	delete(sh.unknown, d)
	if f := sh.flights[d]; f != nil {
		f.outdated = true
		delete(sh.flights, d) // later requests ask again
	}
}

// Knows implements KeyKnower. It reports whether the cache has seen the key of d, even if it is
// past its TTL or forgotten, or has d as unknown, or whether the store of the cache knows d.
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
	hits  atomic.Uint64 // look-ups answered from memory
	known map[Digest]*cachedKey
	clock []*cachedKey // the same keys; the hand goes round them to find one to evict
	hand  int

	unknown   map[Digest]time.Time // until when
	forgetful []Digest             // the unknown digests in the order in which they came; a ring once it is full
	oldest    int

	flights map[Digest]*keyFlight
}

type cachedKey struct {
	digest Digest
	key    *Key        // nil once it is forgotten
	until  time.Time   // TTL
	retry  time.Time   // when the store may be asked again, after it has failed
	place  int         // in the clock
	used   atomic.Bool // since the hand passed
}

// shardOf returns the shard of d. A digest is as good as random, so its bits choose the shard.
func (c *KeyCache) shardOf(d Digest) *cacheShard { return &c.shards[int(d[0])%len(c.shards)] }

// keyAge says what the cache has of a digest.
type keyAge int

const (
	keyAbsent  keyAge = iota // nothing that may be used
	keyFresh                 // the key, within its TTL
	keyStale                 // the key, past its TTL and within StaleFor
	keyUnknown               // the store has no such key
)

// recall returns what the cache has of a digest.
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
	if !k.used.Load() { // so that the cores do not all write the cache line of a hot key
		k.used.Store(true)
	}
	if now.Before(k.until) {
		return k.key, keyFresh
	}
	return k.key, keyStale
}

// note keeps a key. If there is no room for one more, it replaces another key of the shard.
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
			return // the other shards use all the room
		}
	}
	k.place = old.place
	sh.known[k.digest], sh.clock[k.place] = k, k
}

// evict removes a key that has not been used since the hand passed, or returns nil.
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

// noteUnknown keeps an unknown digest, in place of the oldest if there is no room.
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
