package admit_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/admit-go/admit"
	"github.com/admit-go/admit/admittest"
)

func TestMemoryQuotaStore(t *testing.T) {
	t.Parallel()
	newStore := func(*testing.T) admit.QuotaStore { return admit.NewMemoryQuotaStore() }
	t.Run("in a bubble", func(t *testing.T) {
		t.Parallel()
		admittest.TestQuotaStore(t, newStore, admittest.QuotaStoreOptions{Bubble: true})
	})
	t.Run("with a real clock", func(t *testing.T) {
		t.Parallel()
		admittest.TestQuotaStore(t, newStore, admittest.QuotaStoreOptions{})
	})
}

// What nobody will ask for any more is not kept.
func TestMemoryQuotaStoreForgets(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := admit.NewMemoryQuotaStore()
		settle := func(c admit.QuotaClaim) admit.QuotaBalance {
			c.Quota, c.Period, c.Ends, c.Limit = "month", "2026-01-01/P1M", time.Now().Add(time.Hour), 100
			balances, err := s.Settle(t.Context(), []admit.QuotaClaim{c})
			require.NoError(t, err)
			return balances[0]
		}
		settle(admit.QuotaClaim{Account: "old", Process: "p", Seq: 1})
		settle(admit.QuotaClaim{Account: "old", Process: "p", Seq: 2, Used: 5})
		time.Sleep(36 * 24 * time.Hour)
		assert.Equal(t, admit.QuotaBalance{Used: 0}, settle(admit.QuotaClaim{Account: "old"}))
		records, err := s.Offer(t.Context(), 10)
		require.NoError(t, err)
		assert.Empty(t, records)
	})
}
