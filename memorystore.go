package admit

import (
	"bytes"
	"context"
	"hash/maphash"
	"math"
	"math/bits"
	"slices"
	"sync"
	"sync/atomic"
	"time"
	"unique"
)

// MemoryStoreConfig configures NewMemoryStore.
type MemoryStoreConfig struct {
	// MaxKeys is how many callers may have buckets of their own. Zero means 1,000,000. A quarter
	// of it is reserved for callers with a Key; these may use the rest too, while there is room.
	// When there is no room, new callers share 1,024 overflow buckets, and new callers with a Key
	// share another 1,024. A caller whose buckets are not full is never evicted for a new one.
	MaxKeys int
}

// MemoryStore is the LimitStore of one process. It has token buckets of golang.org/x/time/rate,
// at about 120 bytes for each caller and limit. A bucket is forgotten once it is full again. The
// requests that come later do this work; there is no goroutine, and nothing to close. Several
// Limiters with different names may share one MemoryStore. It is safe for concurrent use.
type MemoryStore struct {
	seeds   seeds
	epoch   time.Time
	now     func() time.Duration // since epoch
	most    [2]int64             // bounds of callers: of those without a Key, and of all
	callers [2]atomic.Int64      // of each class
	visit   atomic.Uint32        // the next shard to tidy
	bits    int                  // of a fingerprint, to choose a shard
	shards  []shard              // one half for each class
	made    made
}

const (
	defaultMaxKeys = 1_000_000
	maxShardBits   = 7    // for each class
	minShardKeys   = 32   // so that a small store is not spread thin
	overflowSize   = 1024 // for each class
	keyedShare     = 4    // callers with a Key have one part in so many

	// Every tidyEvery requests, or after tidyAfter, a shard tidies itself and one other shard.
	tidyEvery = 16
	tidyAfter = 100 * time.Millisecond

	// tidyForOne is how many other shards are tidied for a caller that finds no room.
	tidyForOne = 8

	// A shard is swept at most once in sweepEvery, and only if a bucket may be full. A step of the
	// sweep covers sweepSlots slots, and up to sweepMost while it finds much to forget.
	sweepEvery = time.Second
	sweepSlots = 32
	sweepMost  = 4 * sweepSlots
)

// NewMemoryStore returns an empty store. A negative MaxKeys is an error; Take of the MemoryStore
// returned with it always fails.
func NewMemoryStore(c MemoryStoreConfig) (*MemoryStore, error) {
	if c.MaxKeys < 0 {
		var f faults
		f.add("MemoryStoreConfig.MaxKeys", "is %d; it is a number of callers, or 0 for %d", c.MaxKeys, defaultMaxKeys)
		return &MemoryStore{made: made{err: f.err()}}, f.err()
	}
	if c.MaxKeys == 0 {
		c.MaxKeys = defaultMaxKeys
	}
	s := &MemoryStore{
		seeds: newSeeds(),
		epoch: time.Now(),
		most:  [2]int64{unkeyed: int64(c.MaxKeys - c.MaxKeys/keyedShare), keyed: int64(c.MaxKeys)},
		made:  made{ok: true},
		bits:  min(bits.Len(uint(c.MaxKeys)/minShardKeys), maxShardBits),
	}
	s.now = func() time.Duration { return time.Since(s.epoch) }
	s.shards = make([]shard, 2<<s.bits)
	for i := range s.shards {
		s.shards[i].class = class(i >> s.bits)
	}
	return s, nil
}

func (s *MemoryStore) fault() error {
	if s == nil {
		return (*made)(nil).fault("MemoryStore")
	}
	return s.made.fault("MemoryStore")
}

// Take implements LimitStore. It fails for limits that NewLimiter does not accept, and for a
// store that was not made by NewMemoryStore.
func (s *MemoryStore) Take(_ context.Context, key string, cost int, limits []Limit) (Decision, error) {
	if err := s.fault(); err != nil {
		return Decision{}, err
	}
	rules, err := newRules(limits)
	if err != nil {
		return Decision{}, err
	}
	var buf [128]byte
	k := append(buf[:0], key...)
	return s.take(make([]LimitState, 0, len(rules)), classOf(k), s.seeds.fingerprint(k), cost, rules), nil
}

// class separates callers with a Key from all others, so that a flood of addresses cannot fill
// the overflow buckets of customers.
type class int

const (
	unkeyed class = iota
	keyed
)

const (
	keyPrefix  = "key:"
	addrPrefix = "addr:"
	byPrefix   = "by:" // LimiterConfig.CountBy
)

func classOf(key []byte) class {
	if bytes.HasPrefix(key, []byte(keyPrefix)) {
		return keyed
	}
	return unkeyed
}

// fingerprint stands for a key. It is two hashes with secret seeds, so that two keys of one store
// collide with a probability of 2^-128. It makes buckets small and quick to find for keys of any
// length, and keeps no key in memory.
type fingerprint [2]uint64

// seeds are the seeds of a set of fingerprints that can be compared.
type seeds [2]maphash.Seed

func newSeeds() seeds { return seeds{maphash.MakeSeed(), maphash.MakeSeed()} }

func (s *seeds) fingerprint(key []byte) fingerprint {
	return fingerprint{maphash.Bytes(s[0], key), maphash.Bytes(s[1], key)}
}

// take decides, and appends the states of the Decision to states.
func (s *MemoryStore) take(states []LimitState, c class, id fingerprint, cost int, rules []rule) Decision {
	sh := s.shardOf(c, id)

	sh.mu.Lock()
	d := sh.take(s, states, id, cost, rules)
	var other *shard
	if sh.takes++; sh.takes%tidyEvery == 0 || sh.now-sh.tidied >= tidyAfter {
		sh.tidied = sh.now
		sh.forget(s)
		other = s.next()
	}
	now := sh.now
	sh.mu.Unlock()

	if other != nil {
		other.tidy(s, now)
	}
	return d
}

// roomFor reports whether a caller has a bucket of its own, or would get one.
func (s *MemoryStore) roomFor(c class, id fingerprint, limit unique.Handle[Limit]) bool {
	sh := s.shardOf(c, id)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	sh.advance(s)
	sh.forgetAll(s)
	if _, known := sh.find(id, limit); known {
		return true
	}
	if !sh.reserve(s) {
		return false
	}
	s.callers[c].Add(-1)
	return true
}

func (s *MemoryStore) shardOf(c class, id fingerprint) *shard {
	return &s.shards[int(c)<<s.bits|int(id[0]>>(64-s.bits))]
}

// next returns each shard in turn.
func (s *MemoryStore) next() *shard {
	return &s.shards[s.visit.Add(1)%uint32(len(s.shards))]
}

// reserve makes room for one more caller of a class, if there is any.
func (s *MemoryStore) reserve(c class) bool {
	if s.callers[c].Load() >= s.most[c] {
		return false // the usual case in a flood
	}
	n := s.callers[c].Add(1)
	if c == keyed {
		n += s.callers[unkeyed].Load()
	}
	if n <= s.most[c] && (c == keyed || n+s.callers[keyed].Load() <= s.most[keyed]) {
		return true
	}
	s.callers[c].Add(-1)
	return false
}

// shard is a part of the buckets, under one lock.
//
// It has a hash table of its own and not a map: a map never gives memory back, and a sweep of it
// cannot go on where the last request stopped. The table grows and shrinks by linear hashing, one
// slot at a time, so that no single request pays for a rehash.
type shard struct {
	class  class
	mu     sync.Mutex
	now    time.Duration // the latest time seen: a clock that goes back makes no tokens
	fullBy time.Duration // from then on, every bucket is full
	oneBy  time.Duration // until then, no bucket is full

	table    []*bucket
	buckets  int       // in table
	callers  int64     // in table
	overflow []*bucket // nil until the store is full

	takes  uint32
	tidied time.Duration // when this shard last tidied others
	cursor int           // the slot where the sweep continues
	swept  time.Duration // when the sweep began
}

// holding is what a caller has of one rule.
type holding struct {
	bucket   *bucket // nil: full
	tokens   float64
	exceeded bool // by the cost
}

// take decides under the lock, for all of the rules or none.
func (sh *shard) take(s *MemoryStore, states []LimitState, id fingerprint, cost int, rules []rule) Decision {
	t := sh.advance(s)
	sh.forgetAll(s)

	var few [4]holding
	held := few[:0]
	own := false // whether the caller has a bucket of its own, for any of the rules
	for i := range rules {
		b, known := sh.find(id, rules[i].id)
		own = own || known
		held = append(held, holding{bucket: b})
	}
	fresh := !own && cost > 0 && sh.reserve(s)

	d := Decision{Allowed: true}
	for i := range held {
		ru, h := &rules[i], &held[i]
		if !own && sh.overflow != nil {
			h.bucket = sh.shared(id, ru.id)
		}
		h.tokens = float64(ru.Burst)
		if h.bucket != nil {
			h.tokens = h.bucket.tokens.TokensAt(t)
		}
		h.exceeded = cost > 0 && !ru.enough(h.tokens, cost)
		d.Allowed = d.Allowed && !h.exceeded
	}

	if !d.Allowed && fresh {
		s.callers[sh.class].Add(-1)
	} else if d.Allowed && cost != 0 {
		if fresh {
			sh.callers++
		}
		for i := range held {
			sh.spend(&held[i], &rules[i], id, cost, t, own, fresh)
		}
	}

	never := false
	for i := range held {
		ru, h := &rules[i], &held[i]
		st := LimitState{Remaining: ru.remaining(h.tokens), Exceeded: h.exceeded}
		if h.exceeded && cost <= ru.Burst {
			st.Reset = ru.wait(h.bucket, h.tokens, cost, t)
			d.RetryAfter = max(d.RetryAfter, st.Reset)
		} else {
			st.Reset = ru.refill(float64(ru.Burst) - h.tokens)
			never = never || h.exceeded
		}
		switch {
		case st.Remaining > 0:
		case h.exceeded && cost == 1:
			st.Next = st.Reset
		default:
			st.Next = ru.wait(h.bucket, h.tokens, 1, t)
		}
		if d.Allowed {
			sh.fullBy = max(sh.fullBy, sh.now+st.Reset+time.Millisecond) // more than any rounding
			if h.bucket != nil {
				sh.oneBy = min(sh.oneBy, sh.now+st.Reset)
			}
		}
		states = append(states, st)
	}
	if never {
		d.RetryAfter = -1
	}
	d.States = states
	return d
}

// spend takes a cost that is allowed. It makes a bucket if there is none. A fresh caller, which
// gets its first bucket of its own, takes over what is left in its overflow bucket: otherwise it
// would gain a burst.
func (sh *shard) spend(h *holding, ru *rule, id fingerprint, cost int, t time.Time, own, fresh bool) {
	switch {
	case fresh:
		h.tokens = float64(ru.remaining(h.tokens))
		h.bucket = newBucket(ru, id, int(h.tokens), t)
		sh.insert(h.bucket)
	case h.bucket != nil:
	case cost < 0:
		return // full already
	default:
		h.bucket = newBucket(ru, id, ru.Burst, t)
		if own {
			sh.insert(h.bucket)
		} else {
			sh.share(h.bucket)
		}
	}
	h.bucket.tokens.AllowN(t, cost)
	h.tokens = min(h.tokens-float64(cost), float64(ru.Burst))
}

// advance reads the clock.
func (sh *shard) advance(s *MemoryStore) time.Time {
	sh.now = max(sh.now, s.now())
	return s.epoch.Add(sh.now)
}

// tidy forgets some of the full buckets, unless sh is busy. It never waits for the lock, since
// the caller may hold the lock of another shard.
func (sh *shard) tidy(s *MemoryStore, now time.Duration) {
	if sh.mu.TryLock() {
		sh.now = max(sh.now, now)
		sh.forget(s)
		sh.mu.Unlock()
	}
}

// reserve makes room for a new caller, by forgetting full buckets if necessary.
func (sh *shard) reserve(s *MemoryStore) bool {
	if s.reserve(sh.class) {
		return true
	}
	sh.forget(s)
	for range tidyForOne {
		if s.reserve(sh.class) {
			return true
		}
		s.next().tidy(s, sh.now)
	}
	if sh.overflow == nil {
		sh.overflow = make([]*bucket, overflowSize>>s.bits)
	}
	return false
}

// find returns the bucket of id for a limit, or nil, and whether id has any bucket.
func (sh *shard) find(id fingerprint, limit unique.Handle[Limit]) (b *bucket, known bool) {
	if len(sh.table) == 0 {
		return nil, false
	}
	for b := sh.table[slotOf(id, len(sh.table))]; b != nil; b = b.next {
		if b.id == id {
			if b.limit == limit {
				return b, true
			}
			known = true
		}
	}
	return nil, known
}

// insert adds b, and splits the next slot in turn.
func (sh *shard) insert(b *bucket) {
	if sh.buckets++; sh.buckets > len(sh.table) {
		sh.table = append(sh.table, nil)
		if last := len(sh.table) - 1; last > 0 {
			sh.relink(sh.empty(splitFrom(last)))
		}
	}
	sh.link(b)
}

// empty takes the chain out of a slot.
func (sh *shard) empty(slot int) *bucket {
	chain := sh.table[slot]
	sh.table[slot] = nil
	return chain
}

// relink puts the buckets of a chain into their slots.
func (sh *shard) relink(chain *bucket) {
	for chain != nil {
		b := chain
		chain = b.next
		sh.link(b)
	}
}

func (sh *shard) link(b *bucket) {
	first := &sh.table[slotOf(b.id, len(sh.table))]
	b.next, *first = *first, b
}

// slotOf returns the slot of id in a table of n slots. It uses as many bits of id as n slots
// need, and one bit less if that slot does not exist yet.
func slotOf(id fingerprint, n int) int {
	top := 1 << bits.Len(uint(n-1))
	if slot := int(id[0] & uint64(top-1)); slot < n {
		return slot
	}
	return int(id[0] & uint64(top/2-1))
}

// splitFrom returns the slot from which a new last slot is split: its number without the highest
// bit.
func splitFrom(last int) int { return last &^ (1 << (bits.Len(uint(last)) - 1)) }

// shared returns the overflow bucket of id for a limit, or nil.
func (sh *shard) shared(id fingerprint, limit unique.Handle[Limit]) *bucket {
	b := *sh.overflowOf(id)
	for b != nil && b.limit != limit {
		b = b.next
	}
	return b
}

func (sh *shard) share(b *bucket) {
	first := sh.overflowOf(b.id)
	b.next, *first = *first, b
}

// overflowOf uses other bits of id than the choice of the shard does.
func (sh *shard) overflowOf(id fingerprint) **bucket {
	return &sh.overflow[id[1]%uint64(len(sh.overflow))]
}

// forgetAll drops all buckets at once when all of them are known to be full.
func (sh *shard) forgetAll(s *MemoryStore) {
	if sh.now >= sh.fullBy && (sh.table != nil || sh.overflow != nil) {
		s.callers[sh.class].Add(-sh.callers)
		sh.table, sh.overflow, sh.buckets, sh.callers, sh.cursor = nil, nil, 0, 0, 0
	}
}

// forget drops full buckets in the next slots, when a sweep is due.
func (sh *shard) forget(s *MemoryStore) {
	sh.forgetAll(s)
	if sh.cursor == 0 {
		if sh.now-sh.swept < sweepEvery || sh.now < sh.oneBy {
			return
		}
		sh.swept, sh.oneBy = sh.now, math.MaxInt64
	}
	t := s.epoch.Add(sh.now)
	before := sh.buckets
	for seen := 0; seen < sweepSlots || seen < sweepMost && before-sh.buckets > seen/2; seen++ {
		if sh.cursor >= len(sh.table) {
			sh.cursor = 0
			for i := range sh.overflow {
				sh.sweep(&sh.overflow[i], t)
			}
			return
		}
		buckets, callers := sh.sweep(&sh.table[sh.cursor], t)
		sh.buckets -= buckets
		sh.callers -= callers
		s.callers[sh.class].Add(-callers)
		sh.cursor++
		sh.shrink()
	}
}

// sweep unlinks the full buckets of a chain. It returns how many there were, and how many callers
// have no other bucket.
func (sh *shard) sweep(first **bucket, t time.Time) (buckets int, callers int64) {
	for at := first; *at != nil; {
		b := *at
		if left := b.fullIn(t); left > 0 {
			sh.oneBy = min(sh.oneBy, sh.now+left)
			at = &b.next
			continue
		}
		*at = b.next
		buckets++
		rest := *first
		for rest != nil && rest.id != b.id {
			rest = rest.next
		}
		if rest == nil {
			callers++
		}
	}
	return buckets, callers
}

// shrink merges the last slots into those from which they were split, while the table is more
// than twice as long as necessary.
func (sh *shard) shrink() {
	for len(sh.table) > 1 && len(sh.table) > 2*sh.buckets {
		last := len(sh.table) - 1
		chain := sh.empty(last)
		sh.table = sh.table[:last]
		if chain != nil {
			sh.oneBy = min(sh.oneBy, sh.now) // the sweep may have passed the slots that they move to
		}
		sh.relink(chain)
	}
	if cap(sh.table) > 2*len(sh.table) {
		sh.table = slices.Clone(sh.table)
	}
}
