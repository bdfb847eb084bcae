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
	// offerAfter is when the records of a minute are offered, from its end.
	offerAfter = 2 * time.Minute
	// offerAgain is when those are that nobody has acknowledged.
	offerAgain = 5 * time.Minute
	// forgetQuotas is when a period is forgotten, from its end, and forgetUsage when a minute of use
	// is that nobody has acknowledged: in memory it is gone at the next start anyway, and most who
	// keep it there bill nobody.
	forgetQuotas = 35 * 24 * time.Hour
	forgetUsage  = time.Hour
)

// MemoryQuotaStore is a QuotaStore in the memory of this process: for tests, and for a service
// that is one process and may forget at each start what was used. It keeps what Export has not
// sent for an hour or two. It is safe for concurrent use.
type MemoryQuotaStore struct {
	mu     sync.Mutex
	counts map[countID]*memoryCount
	usage  map[usageID]*memoryUsage // that has not been acknowledged
	sweep  time.Time                // when periods that are over are looked for next
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
	again  int // the records of one minute that came after one was offered
}

type memoryUsage struct {
	UsageRecord
	offered time.Time // when last
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

// Settle implements QuotaStore. It never fails.
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

// find returns what a claim is about. For one that only looks nothing is kept.
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

// forget lets go of what has been over for long, once an hour.
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

// Offer implements QuotaStore: minutes that have been over for two minutes, the first ones
// first, and again after five minutes.
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
