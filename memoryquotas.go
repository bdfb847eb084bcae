package admit

import (
	"cmp"
	"context"
	"crypto/rand"
	"slices"
	"sync"
	"time"
)

const (
	// offerAfter is how long after the end of a minute its records are offered.
	offerAfter = 2 * time.Minute
	// offerAgain is how long after that they are offered again, if nobody has acknowledged them.
	offerAgain = 5 * time.Minute
	// forgetQuotas is how long after its end a period is forgotten. forgetUsage is the same for a
	// minute of usage that nobody has acknowledged: a restart loses it anyway, and most services
	// that keep it in memory bill nobody.
	forgetQuotas = 35 * 24 * time.Hour
	forgetUsage  = time.Hour
)

// MemoryQuotaStore is a QuotaStore in the memory of one process. It is for tests, and for a
// service that is a single process and may forget at each restart what was used. Usage that
// Export has not sent is kept for one to two hours. It is safe for concurrent use.
type MemoryQuotaStore struct {
	mu     sync.Mutex
	counts map[countID]*memoryCount
	usage  map[usageID]*memoryUsage // not acknowledged yet
	sweep  time.Time                // when to look next for periods that are over
}

type countID struct{ account, quota, period string }

type memoryCount struct {
	QuotaCount
	ends   time.Time
	shares map[string]*QuotaShare // by process
}

type usageID struct {
	countID
	minute int64
	again  int // numbers the records of one minute: an offered record never changes
}

type memoryUsage struct {
	UsageRecord
	offered time.Time // the last time; zero: never
}

// NewMemoryQuotaStore returns an empty store.
func NewMemoryQuotaStore() *MemoryQuotaStore {
	return &MemoryQuotaStore{counts: make(map[countID]*memoryCount), usage: make(map[usageID]*memoryUsage)}
}

func (s *MemoryQuotaStore) fault() error {
	if s == nil || s.counts == nil {
		return (*made)(nil).fault("MemoryQuotaStore")
	}
	return nil
}

// Settle implements QuotaStore. It fails only for a store that was not made by
// NewMemoryQuotaStore.
func (s *MemoryQuotaStore) Settle(_ context.Context, claims []QuotaClaim) ([]QuotaBalance, error) {
	if err := s.fault(); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	s.forget(now)
	balances := make([]QuotaBalance, len(claims))
	for i, c := range claims {
		id := countID{c.Account, c.Quota, c.Period}
		count, share := s.find(id, c)
		var added int64
		if balances[i], added = c.Settle(&count.QuotaCount, share); added > 0 {
			s.use(id, now, added)
		}
	}
	return balances, nil
}

// find returns the count and the share of a claim. For a claim that only looks, nothing is kept.
func (s *MemoryQuotaStore) find(id countID, c QuotaClaim) (*memoryCount, *QuotaShare) {
	count := s.counts[id]
	if count == nil {
		count = &memoryCount{ends: c.Ends, shares: make(map[string]*QuotaShare)}
		if c.Process != "" {
			s.counts[id] = count
		}
	}
	share := count.shares[c.Process]
	if share == nil {
		share = new(QuotaShare)
		if c.Process != "" {
			count.shares[c.Process] = share
		}
	}
	return count, share
}

func (s *MemoryQuotaStore) use(id countID, now time.Time, added int64) {
	minute := now.UTC().Truncate(time.Minute)
	at := usageID{countID: id, minute: minute.Unix()}
	for s.usage[at] != nil && !s.usage[at].offered.IsZero() {
		at.again++
	}
	if s.usage[at] == nil {
		s.usage[at] = &memoryUsage{UsageRecord: UsageRecord{
			ID: rand.Text(), Account: id.account, Quota: id.quota, Period: id.period, Minute: minute,
		}}
	}
	s.usage[at].Requests = plus(s.usage[at].Requests, added)
}

// forget deletes, once an hour, periods and usage that ended long ago.
func (s *MemoryQuotaStore) forget(now time.Time) {
	if now.Before(s.sweep) {
		return
	}
	s.sweep = now.Add(time.Hour)
	for id, count := range s.counts {
		if now.Sub(count.ends) > forgetQuotas {
			delete(s.counts, id)
		}
	}
	for at, u := range s.usage {
		if now.Sub(u.Minute) > forgetUsage {
			delete(s.usage, at)
		}
	}
}

// Offer implements QuotaStore. It returns the records of minutes that ended at least two minutes
// ago, the oldest first. Five minutes later it returns them again, unless they were acknowledged.
func (s *MemoryQuotaStore) Offer(_ context.Context, most int) ([]UsageRecord, error) {
	if err := s.fault(); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	var due []*memoryUsage
	for _, u := range s.usage {
		if now.Sub(u.Minute) >= time.Minute+offerAfter && now.Sub(u.offered) >= offerAgain {
			due = append(due, u)
		}
	}
	slices.SortFunc(due, func(a, b *memoryUsage) int { return cmp.Or(a.Minute.Compare(b.Minute), cmp.Compare(a.ID, b.ID)) })
	due = due[:min(len(due), max(most, 0))]
	records := make([]UsageRecord, len(due))
	for i, u := range due {
		u.offered = now
		records[i] = u.UsageRecord
	}
	return records, nil
}

// Acknowledge implements QuotaStore.
func (s *MemoryQuotaStore) Acknowledge(_ context.Context, ids []string) error {
	if err := s.fault(); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	known := make(map[string]bool, len(ids))
	for _, id := range ids {
		known[id] = true
	}
	for at, u := range s.usage {
		if known[u.ID] {
			delete(s.usage, at)
		}
	}
	return nil
}
