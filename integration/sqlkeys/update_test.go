package sqlkeys_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/admit-go/admit"
	"github.com/admit-go/admit/integration/servers"
	"github.com/admit-go/admit/sqlkeys"
)

func TestUpdate(t *testing.T) {
	everywhere(t, func(t *testing.T, db database) {
		s := db.store(t)
		ctx := t.Context()
		at := time.Date(2031, 2, 3, 4, 5, 6, 789_000, time.UTC)
		before := admit.Key{ID: "k1", Owner: "ACME", Scopes: []string{"a", "b"}, Meta: map[string]string{"hint": "x"}, RevokedAt: at.Add(48 * time.Hour)}
		insert(t, s, "token", before)
		version := func() (n int) {
			require.NoError(t, db.QueryRowContext(ctx, `SELECT version FROM admit_keys WHERE id = 'k1'`).Scan(&n))
			return n
		}

		r, err := s.Update(ctx, "k1", func(k *admit.Key) error {
			assert.Equal(t, before, *k)
			k.Owner, k.Plan, k.NotBefore, k.ExpiresAt = "Umbrella", "pro", at, at.Add(time.Hour+999*time.Nanosecond)
			k.Scopes[0] = "c"
			k.Meta["team"] = "y"
			return nil
		})
		require.NoError(t, err)
		want := admit.Key{
			ID: "k1", Owner: "Umbrella", Plan: "pro", Scopes: []string{"c", "b"}, Meta: map[string]string{"hint": "x", "team": "y"},
			NotBefore: at, ExpiresAt: at.Add(time.Hour), RevokedAt: before.RevokedAt,
		}
		assert.Equal(t, want, r.Key)
		assert.Equal(t, admit.DigestOf("token"), r.Digest)
		k, err := s.LookupKey(ctx, admit.DigestOf("token"))
		require.NoError(t, err)
		assert.Equal(t, &want, k)
		assert.Equal(t, 2, version())

		// What stays as it was is not written, and is no change for caches.
		for _, change := range []func(*admit.Key){
			func(*admit.Key) {},
			func(k *admit.Key) { k.ExpiresAt = k.ExpiresAt.Add(time.Nanosecond).In(time.FixedZone("x", 3600)) },
			func(k *admit.Key) { k.Limits, k.Quotas, k.Networks = []admit.Limit{}, []admit.Quota{}, nil },
		} {
			r, err = s.Update(ctx, "k1", func(k *admit.Key) error { change(k); return nil })
			require.NoError(t, err)
			assert.Equal(t, want, r.Key)
		}
		assert.Equal(t, 2, version())

		_, err = s.Update(ctx, "none", func(*admit.Key) error { t.Error("there is nothing to change"); return nil })
		assert.ErrorIs(t, err, admit.ErrKeyNotFound)

		// What cannot be meant.
		for name, test := range map[string]struct {
			change func(*admit.Key)
			wants  []string
		}{
			"id":           {func(k *admit.Key) { k.ID = "k2" }, []string{`"k2"`, "cannot be changed"}},
			"revoked":      {func(k *admit.Key) { k.RevokedAt = time.Now() }, []string{"RevokedAt", "use Revoke"}},
			"unrevoked":    {func(k *admit.Key) { k.RevokedAt = time.Time{} }, []string{"RevokedAt", "use Revoke"}},
			"times":        {func(k *admit.Key) { k.ExpiresAt = at.Add(-time.Second) }, []string{"ExpiresAt", "after NotBefore"}},
			"no time":      {func(k *admit.Key) { k.NotBefore = k.ExpiresAt }, []string{"ExpiresAt", "after NotBefore"}},
			"two scopes":   {func(k *admit.Key) { k.Scopes = append(k.Scopes, "orders:read orders:write") }, []string{`"orders:read orders:write"`}},
			"no scope":     {func(k *admit.Key) { k.Scopes = []string{""} }, []string{`"" is not a scope`}},
			"limits":       {func(k *admit.Key) { k.Limits = []admit.Limit{{}} }, []string{"Requests is 0"}},
			"limits twice": {func(k *admit.Key) { k.Limits = []admit.Limit{admit.PerDay(1), admit.PerDay(2)} }, []string{`"day"`}},
			"quotas":       {func(k *admit.Key) { k.Quotas = []admit.Quota{{Every: admit.Day}} }, []string{"Quotas[0].Requests is 0"}},
			"quotas twice": {func(k *admit.Key) { k.Quotas = slices.Concat(aMonth, aMonth) }, []string{`"sold"`}},
			"all of them": {
				func(k *admit.Key) { k.ID, k.Scopes, k.RevokedAt = "", []string{"ü"}, time.Time{} },
				[]string{"the id", `"ü"`, "RevokedAt"},
			},
		} {
			_, err := s.Update(ctx, "k1", func(k *admit.Key) error { test.change(k); return nil })
			require.Error(t, err, name)
			assert.ErrorContains(t, err, `the key "k1"`, name)
			for _, want := range test.wants {
				assert.ErrorContains(t, err, want, name)
			}
		}

		// An error of the caller, and a panic, leave the row and the pool as they were.
		db.SetMaxOpenConns(2)
		own := fmt.Errorf("not today: %w", sqlError("40001"))
		calls := 0
		_, err = s.Update(ctx, "k1", func(k *admit.Key) error { calls++; k.Owner = "x"; return own })
		assert.Same(t, own, err)
		assert.Equal(t, 1, calls)
		for range 3 {
			assert.PanicsWithValue(t, "oops", func() {
				_, _ = s.Update(ctx, "k1", func(k *admit.Key) error { k.Owner = "x"; panic("oops") })
			})
		}
		gone, cancel := context.WithCancel(ctx)
		_, err = s.Update(gone, "k1", func(k *admit.Key) error { k.Owner = "x"; cancel(); return nil })
		assert.ErrorIs(t, err, context.Canceled)
		r, err = s.Get(ctx, "k1")
		require.NoError(t, err)
		assert.Equal(t, want, r.Key)
		assert.Equal(t, 2, version())

		// What was in the row before may stay.
		insert(t, s, "odd", admit.Key{ID: "odd", Scopes: []string{"a b"}, NotBefore: at, ExpiresAt: at})
		r, err = s.Update(ctx, "odd", func(k *admit.Key) error { k.Plan = "pro"; return nil })
		require.NoError(t, err)
		assert.Equal(t, "pro", r.Plan)
	})
}

// sqlError is an error as drivers of PostgreSQL have them.
type sqlError string

func (e sqlError) Error() string    { return "SQLSTATE " + string(e) }
func (e sqlError) SQLState() string { return string(e) }

// Nobody comes between what is read and what is written.
func TestUpdateConcurrently(t *testing.T) {
	everywhere(t, func(t *testing.T, db database) {
		s := db.store(t)
		insert(t, s, "token", admit.Key{ID: "k1", Meta: map[string]string{}})
		const writers, each = 4, 10
		var all sync.WaitGroup
		for i := range writers {
			all.Go(func() {
				for j := range each {
					_, err := s.Update(t.Context(), "k1", func(k *admit.Key) error {
						if k.Meta == nil {
							k.Meta = map[string]string{}
						}
						k.Meta[fmt.Sprint(i, j)] = "x"
						return nil
					})
					assert.NoError(t, err)
				}
			})
		}
		all.Wait()
		r, err := s.Get(t.Context(), "k1")
		require.NoError(t, err)
		assert.Len(t, r.Meta, writers*each)
	})
}

// Where transactions fail because another was first, they are made anew.
func TestIsolationLevels(t *testing.T) {
	t.Parallel()
	for _, level := range []string{"repeatable%20read", "serializable"} {
		t.Run(level, func(t *testing.T) {
			t.Parallel()
			url := servers.PostgresDatabase(t)
			separator := "?"
			if strings.Contains(url, "?") {
				separator = "&"
			}
			db := openDatabase(t, sqlkeys.PostgreSQL, "pgx", url+separator+"default_transaction_isolation="+level)
			s := db.store(t)
			var got string
			require.NoError(t, db.QueryRowContext(t.Context(), `SHOW transaction_isolation`).Scan(&got))
			require.Contains(t, level, got[:8])
			for i := range 10 {
				id := fmt.Sprint("k", i)
				insert(t, s, id, admit.Key{ID: id})
				var all sync.WaitGroup
				for j := range 4 {
					all.Go(func() {
						_, err := s.Update(t.Context(), id, func(k *admit.Key) error { k.Scopes = append(k.Scopes, fmt.Sprint(j)); return nil })
						assert.NoError(t, err)
					})
				}
				all.Wait()
				for j := range 4 {
					all.Go(func() {
						err := s.Rotate(t.Context(), id, time.Now().Add(time.Hour), admit.DigestOf(fmt.Sprint("next", i, j)), &admit.Key{ID: fmt.Sprint("next", i, j)})
						assert.NoError(t, err)
					})
				}
				all.Wait()
				for range 4 {
					all.Go(func() {
						_, err := s.Revoke(t.Context(), id, time.Time{})
						assert.NoError(t, err)
					})
				}
				all.Wait()
				r, err := s.Get(t.Context(), id)
				require.NoError(t, err)
				assert.Len(t, r.Scopes, 4)
				assert.NotZero(t, r.RevokedAt)
			}
		})
	}
}

// A change is followed by caches like a revocation.
func TestUpdateTravels(t *testing.T) {
	everywhere(t, func(t *testing.T, db database) {
		admin, service := db.store(t), db.store(t)
		insert(t, admin, "key", admit.Key{Plan: "free"})
		cache, err := admit.NewKeyCache(service, admit.KeyCacheConfig{TTL: time.Hour})
		require.NoError(t, err)
		ctx, stop := context.WithCancel(t.Context())
		var w sync.WaitGroup
		w.Go(func() { service.Watch(ctx, cache.Forget) })
		t.Cleanup(func() { stop(); w.Wait() })
		plan := func() string {
			k, err := cache.LookupKey(t.Context(), admit.DigestOf("key"))
			if !assert.NoError(t, err) {
				return ""
			}
			return k.Plan
		}
		assert.Equal(t, "free", plan())
		_, err = admin.Update(t.Context(), "key", func(k *admit.Key) error { k.Plan = "pro"; return nil })
		require.NoError(t, err)
		require.Eventually(t, func() bool { return plan() == "pro" }, soon, 10*time.Millisecond)
	})
}
