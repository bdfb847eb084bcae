package admittest_test

import (
	"context"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/admit-go/admit"
	"github.com/admit-go/admit/admittest"
)

// quotaStore keeps what a MemoryQuotaStore does, but for one thing.
type quotaStore struct {
	*admit.MemoryQuotaStore
	claim       func(*admit.QuotaClaim)
	offered     func(before, now []admit.UsageRecord) []admit.UsageRecord
	acknowledge func([]string) []string
	before      []admit.UsageRecord
}

func (s *quotaStore) Settle(ctx context.Context, claims []admit.QuotaClaim) ([]admit.QuotaBalance, error) {
	claims = slices.Clone(claims)
	for i := range claims {
		if s.claim != nil {
			s.claim(&claims[i])
		}
	}
	return s.MemoryQuotaStore.Settle(ctx, claims)
}

func (s *quotaStore) Offer(ctx context.Context, most int) ([]admit.UsageRecord, error) {
	records, err := s.MemoryQuotaStore.Offer(ctx, most)
	if s.offered != nil && len(records) > 0 {
		s.before, records = records, s.offered(s.before, records)
	}
	return records, err
}

func (s *quotaStore) Acknowledge(ctx context.Context, ids []string) error {
	if s.acknowledge != nil {
		ids = s.acknowledge(ids)
	}
	return s.MemoryQuotaStore.Acknowledge(ctx, ids)
}

const (
	inRandom     = "random_claims_agree_with_an_exact_model"
	inConcurrent = "goroutines_spend_no_more_than_the_limit,_and_each_use_is_counted_once"
	inOffers     = "minutes_are_offered_when_they_are_over,_until_they_are_acknowledged"
)

var calls atomic.Int64

var wrongQuotaStores = map[string]struct {
	store  quotaStore
	within string // the subtest that must fail
	says   string
}{
	"no Seq":              {quotaStore{claim: func(c *admit.QuotaClaim) { c.Seq = calls.Add(1) }}, inRandom, "has the balance"},
	"a use is lost":       {quotaStore{claim: func(c *admit.QuotaClaim) { c.Used -= c.Used / 20 }}, inRandom, "has the balance"},
	"one too many":        {quotaStore{claim: func(c *admit.QuotaClaim) { c.Limit++ }}, inRandom, "has the balance"},
	"one more":            {quotaStore{claim: func(c *admit.QuotaClaim) { c.Limit++ }}, inConcurrent, "of 10000"},
	"no Floor":            {quotaStore{claim: func(c *admit.QuotaClaim) { c.Floor = 0 }}, inRandom, "has the balance"},
	"nothing is fresh":    {quotaStore{claim: func(c *admit.QuotaClaim) { c.Fresh = false }}, inRandom, "has the balance"},
	"told for ever":       {quotaStore{claim: func(c *admit.QuotaClaim) { c.Heard = 0 }}, inConcurrent, "notices of each threshold"},
	"told, but not heard": {quotaStore{claim: func(c *admit.QuotaClaim) { c.Heard = c.Seq }}, inRandom, "has the balance"},
	"who looks claims":    {quotaStore{claim: func(c *admit.QuotaClaim) { c.Process += "somebody" }}, "a_claim_that_only_looks_leaves_nothing", "has the balance"},
	"C strings": {quotaStore{claim: func(c *admit.QuotaClaim) {
		c.Account, _, _ = strings.Cut(c.Account, "\x00")
	}}, "accounts_of_any_bytes_and_lengths_are_separate", "has the balance"},
	"offered twice": {quotaStore{offered: func(before, now []admit.UsageRecord) []admit.UsageRecord {
		return slices.Concat(before, now)
	}}, inOffers, "Offer(1) returned 2 records"},
	"offered with more": {quotaStore{offered: func(before, now []admit.UsageRecord) []admit.UsageRecord {
		now = slices.Clone(now)
		now[0].Requests += int64(len(before))
		return now
	}}, inOffers, "the records have"},
	"offered with another id": {quotaStore{offered: func(before, now []admit.UsageRecord) []admit.UsageRecord {
		now = slices.Clone(now)
		now[0].ID += strings.Repeat("x", len(before))
		return now
	}}, inOffers, "are offered again"},
	"not acknowledged": {quotaStore{acknowledge: func([]string) []string { return nil }}, inOffers, "are offered again"},
}

// TestWrongQuotaStore does nothing but where TestWrongQuotaStoresAreFound runs it.
func TestWrongQuotaStore(t *testing.T) {
	test, given := wrongQuotaStores[os.Getenv(runAs)]
	if !given {
		t.Skip("it fails, as it should, where TestWrongQuotaStoresAreFound runs it")
	}
	admittest.TestQuotaStore(t, func(*testing.T) admit.QuotaStore {
		store := test.store
		store.MemoryQuotaStore = admit.NewMemoryQuotaStore()
		return &store
	}, admittest.QuotaStoreOptions{Bubble: true})
}

func TestWrongQuotaStoresAreFound(t *testing.T) {
	t.Parallel()
	for name, test := range wrongQuotaStores {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			isFound(t, "TestWrongQuotaStore", test.within, test.says, runAs+"="+name)
		})
	}
}
