package admit

import (
	"context"
	"fmt"
	"time"
)

// SetClock makes s tell the time by now, since it was made.
func (s *MemoryStore) SetClock(now func() time.Duration) { s.now = now }

// Len returns the number of callers that have buckets of their own.
func (s *MemoryStore) Len() int { return int(s.callers[keyed].Load() + s.callers[unkeyed].Load()) }

// Check looks for what never may be: a bucket in a slot where nobody finds it, or that nobody
// will forget, a count that is wrong, a table that is much longer than need be.
func (s *MemoryStore) Check() error {
	var all int64
	for i := range s.shards {
		sh := &s.shards[i]
		sh.mu.Lock()
		buckets := 0
		callers := map[fingerprint]bool{}
		for slot, b := range sh.table {
			for ; b != nil; b = b.next {
				buckets++
				callers[b.id] = true
				if at := slotOf(b.id, len(sh.table)); at != slot {
					return fmt.Errorf("shard %d: a bucket of slot %d is in slot %d of %d", i, at, slot, len(sh.table))
				}
				if found, known := sh.find(b.id, b.limit); found != b || !known {
					return fmt.Errorf("shard %d: a bucket is not found, or there twice", i)
				}
				if full := sh.now + b.fullIn(s.epoch.Add(sh.now)); sh.cursor == 0 && full < sh.oneBy-time.Microsecond {
					return fmt.Errorf("shard %d: a bucket is full after %v, and nobody looks before %v", i, full, sh.oneBy)
				}
			}
		}
		if buckets != sh.buckets || int64(len(callers)) != sh.callers {
			return fmt.Errorf("shard %d: %d buckets of %d callers, not %d of %d", i, buckets, len(callers), sh.buckets, sh.callers)
		}
		if buckets > len(sh.table) {
			return fmt.Errorf("shard %d: %d buckets in %d slots", i, buckets, len(sh.table))
		}
		all += sh.callers
		sh.mu.Unlock()
	}
	if all != int64(s.Len()) {
		return fmt.Errorf("%d callers, not %d", all, s.Len())
	}
	return nil
}

// Buckets counts the buckets in memory, and the slots for them.
func (s *MemoryStore) Buckets() (own, shared, slots int) {
	for i := range s.shards {
		sh := &s.shards[i]
		sh.mu.Lock()
		own += sh.buckets
		slots += cap(sh.table)
		for _, b := range sh.overflow {
			for ; b != nil; b = b.next {
				shared++
			}
		}
		sh.mu.Unlock()
	}
	return own, shared, slots
}

// HoldPlaces is what Timeout does, until release.
func HoldPlaces(ctx context.Context) (release func()) {
	held := holdPlaces(ctx, nil)
	return func() {
		for _, p := range held {
			p.release()
		}
	}
}

// LendPlaces is what an answer does while it waits for its client, until reclaim.
func LendPlaces(ctx context.Context) (reclaim func()) {
	lent := lendPlaces(ctx, nil)
	return func() {
		for _, p := range lent {
			p.reclaim()
		}
	}
}

// InUse is how many requests are in flight, how many wait, and of how many addresses.
func (f *InFlight) InUse() (running, waiting, addresses int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.running, f.queue.Len(), len(f.shares)
}

// SameHashes makes s place keys as other does.
func (s *MemoryStore) SameHashes(other *MemoryStore) { s.seeds = other.seeds }

// InUse is how many requests run, how many wait, and of how many callers.
func (s *Shedder) InUse() (running, waiting, callers int) {
	stats := s.gate.Stats()
	return stats.Running, stats.Waiting, s.gate.Callers()
}

// WithoutShedders lets Limiters count as where no Shedder is, until again.
func WithoutShedders() (again func()) {
	were := shedding.Swap(false)
	return func() { shedding.Store(were) }
}

// WaitsForLeases reports whether a Limiter has a timer.
func WaitsForLeases(l *Limiter) bool {
	if l.leases == nil {
		return false
	}
	l.leases.mu.Lock()
	defer l.leases.mu.Unlock()
	return l.leases.timer != nil
}
