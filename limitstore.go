package admit

import (
	"context"
	"time"
)

// guardedStore is a LimitStore with a guard. What a late call takes stays taken: the caller is
// charged once by the store, and once by the share of this process.
type guardedStore struct {
	storeGuard
	store   LimitStore
	bounded bool // the store bounds its own calls
}

func newGuardedStore(store LimitStore) *guardedStore {
	g := &guardedStore{store: store}
	g.begin()
	if s, ok := store.(interface{ MaxWait() time.Duration }); ok {
		g.bounded = s.MaxWait() <= storeWait
	}
	return g
}

// take is Take, for at most storeWait. It fails at once after a late call, until a probe
// succeeds.
func (g *guardedStore) take(ctx context.Context, key string, cost int, limits []Limit) (Decision, error) {
	return g.takeOr(ctx, key, cost, limits, nil)
}

// takeOr is take. It calls late if a cost was taken after the wait was over.
func (g *guardedStore) takeOr(ctx context.Context, key string, cost int, limits []Limit, late func()) (Decision, error) {
	if err := ctx.Err(); err != nil {
		return Decision{}, err // the client has left
	}
	if g.bounded {
		return g.store.Take(ctx, key, cost, limits)
	}
	return storeCall[Decision]{
		ask:   func(ctx context.Context) (Decision, error) { return g.store.Take(ctx, key, cost, limits) },
		probe: func(ctx context.Context) (Decision, error) { return g.store.Take(ctx, key, 0, limits) },
		late: func(d Decision) {
			if d.Allowed && cost > 0 {
				g.late.Add(1)
				if late != nil {
					late()
				}
			}
		},
	}.in(ctx, &g.storeGuard)
}
