package admit

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"
)

// KeyCacheConfig bounds what a KeyCache remembers, and for how long.
type KeyCacheConfig struct {
	// TTL is for how long a key is used without asking the store again, so it bounds how
	// late a change is seen unless something calls Forget. Required.
	TTL time.Duration
	// StaleFor is for how long after TTL a key is still used while the store fails. 0: not
	// at all, so that such a request is refused with 503.
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
	maxKeyFlights      = 1024            // look-ups in the store at a time
	keyFlightTime      = 5 * time.Second // for each; a store may have a shorter deadline of its own
)

// KeyCache is a KeyStore in front of another. It remembers who a key is, never whether
// it is valid: Auth looks at that in every request. However many callers ask for one
// digest, the store is asked once, and a caller that gives up neither ends that
// look-up nor waits for it. A look-up that takes longer than five seconds has failed.
// It is safe for concurrent use.
type KeyCache struct {
	store  KeyStore
	c      KeyCacheConfig
	shards []cacheShard
	slots  chan struct{} // of look-ups in the store
	keys   atomic.Int64  // in all shards
	made   made
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
	cache := &KeyCache{store: store, c: c, shards: make([]cacheShard, shards), slots: make(chan struct{}, maxKeyFlights), made: made{ok: true}}
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
	if key, fresh := sh.recall(d, time.Now()); key != nil {
		return key, nil
	} else if fresh {
		return nil, ErrKeyNotFound
	}
	var key *Key
	f, err := c.flight(ctx, sh, d)
	if err == nil {
		key, err = f.wait(ctx)
	}
	if err != nil && !errors.Is(err, ErrKeyNotFound) && ctx.Err() == nil {
		if stale := sh.stale(d, time.Now(), c.c.StaleFor); stale != nil {
			return stale, nil
		}
	}
	return key, err
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
	place  int         // in the clock
	used   atomic.Bool // since the hand came by
}

// keyFlight is one look-up in the store, for all who ask.
type keyFlight struct {
	done     chan struct{}
	deadline <-chan struct{}
	outdated bool // the digest was forgotten meanwhile; under the lock of the shard
	key      *Key
	err      error
}

// A digest is as good as random, so its bits choose the shard.
func (c *KeyCache) shardOf(d Digest) *cacheShard { return &c.shards[int(d[0])%len(c.shards)] }

// recall returns what needs no look-up: a key, or that it is freshly known that there
// is none.
func (sh *cacheShard) recall(d Digest, now time.Time) (key *Key, fresh bool) {
	sh.mu.RLock()
	defer sh.mu.RUnlock()
	if k := sh.known[d]; k != nil {
		if k.key == nil || !now.Before(k.until) {
			return nil, false
		}
		if !k.used.Load() { // so that a hot key's line is not written by every core
			k.used.Store(true)
		}
		return k.key, true
	}
	return nil, now.Before(sh.unknown[d])
}

func (sh *cacheShard) stale(d Digest, now time.Time, staleFor time.Duration) *Key {
	sh.mu.RLock()
	defer sh.mu.RUnlock()
	if k := sh.known[d]; k != nil && k.key != nil && now.Before(k.until.Add(staleFor)) {
		k.used.Store(true)
		return k.key
	}
	return nil
}

var errTooManyFlights = errors.New("admit: the key store does not keep up: too many look-ups are under way")

// flight joins the look-up of d, or starts one. Those that cannot start yet wait in
// line, and leave it when they give up: it bounds what a flood can have going on.
func (c *KeyCache) flight(ctx context.Context, sh *cacheShard, d Digest) (*keyFlight, error) {
	sh.mu.RLock()
	f := sh.flights[d]
	sh.mu.RUnlock()
	if f != nil {
		return f, nil
	}
	select {
	case c.slots <- struct{}{}:
	default:
		patience := time.NewTimer(keyFlightTime)
		defer patience.Stop()
		select {
		case c.slots <- struct{}{}:
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-patience.C:
			return nil, errTooManyFlights
		}
	}
	sh.mu.Lock()
	defer sh.mu.Unlock()
	if f := sh.flights[d]; f != nil {
		<-c.slots
		return f, nil
	}
	late, cancel := context.WithTimeout(context.WithoutCancel(ctx), keyFlightTime)
	f = &keyFlight{done: make(chan struct{}), deadline: late.Done()}
	sh.flights[d] = f
	go func() {
		defer cancel() // after done, so that no one takes it for the deadline
		c.fly(late, sh, d, f)
	}()
	return f, nil
}

// wait returns the answer, or the reason why there is none yet: the caller has given
// up, or the store lets the deadline pass.
func (f *keyFlight) wait(ctx context.Context) (*Key, error) {
	select {
	case <-f.done:
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-f.deadline:
		select {
		case <-f.done:
		default:
			return nil, fmt.Errorf("admit: the key store has not answered in %v: %w", keyFlightTime, context.DeadlineExceeded)
		}
	}
	return f.key, f.err
}

// fly asks the store, and notes the answer unless the digest was forgotten meanwhile.
// What the store says is as old as the question.
func (c *KeyCache) fly(ctx context.Context, sh *cacheShard, d Digest, f *keyFlight) {
	asked := time.Now()
	f.err = errors.New("admit: the key store did not return") // unless it does
	defer func() {
		if v := recover(); v != nil { // there is no handler above that could
			f.err = fmt.Errorf("admit: the key store panicked: %v\n%s", v, debug.Stack())
		}
		<-c.slots
		sh.mu.Lock()
		defer sh.mu.Unlock()
		defer close(f.done)
		if f.outdated {
			return
		}
		delete(sh.flights, d)
		switch {
		case f.err == nil:
			delete(sh.unknown, d)
			c.note(sh, &cachedKey{digest: d, key: f.key, until: asked.Add(c.c.TTL)})
		case errors.Is(f.err, ErrKeyNotFound):
			c.drop(sh, d)
			sh.noteUnknown(d, asked.Add(c.c.NegativeTTL))
		}
	}()
	f.key, f.err = c.store.LookupKey(ctx, d)
	if f.err == nil && f.key == nil {
		f.err = ErrKeyNotFound
	}
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
