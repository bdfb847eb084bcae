package testing_test

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/admit-go/admit"
	"github.com/admit-go/admit/admittest"
)

// ownStore and ownQuotas stand for stores of a service.
type (
	ownStore  struct{ memory *admit.MemoryStore }
	ownQuotas struct{ admit.QuotaStore }
)

func (s ownStore) Take(ctx context.Context, key string, cost int, limits []admit.Limit) (admit.Decision, error) {
	return s.memory.Take(ctx, key, cost, limits)
}

func newStore() (ownStore, error) {
	memory, err := admit.NewMemoryStore(admit.MemoryStoreConfig{})
	return ownStore{memory}, err
}

func newQuotas() ownQuotas { return ownQuotas{admit.NewMemoryQuotaStore()} }

func TestStore(t *testing.T) {
	t.Parallel()
	admittest.TestLimitStore(t, func(t *testing.T) admit.LimitStore {
		store, err := newStore() // an empty one
		require.NoError(t, err)
		return store
	}, admittest.LimitStoreOptions{Bubble: true})
}

func TestQuotas(t *testing.T) {
	t.Parallel()
	admittest.TestQuotaStore(t, func(*testing.T) admit.QuotaStore {
		return newQuotas()
	}, admittest.QuotaStoreOptions{Bubble: true})
}
