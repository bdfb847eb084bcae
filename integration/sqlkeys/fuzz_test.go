package sqlkeys_test

import (
	"encoding/json"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/admit-go/admit"
)

// Whatever the columns networks, limits and quotas hold, a look-up fails, or the key has all of it.
func FuzzColumns(f *testing.F) {
	for _, seed := range [][3]string{
		{`["192.0.2.0/24", "2001:db8::/32"]`, `[{"name": "minute", "requests": 1000, "per": "60s", "burst": 5}]`, `[{"name": "month", "requests": 20000, "every": "month", "soft": true}]`},
		{`[]`, ` [ ]`, `[]`},
		{`[null]`, `[{}]`, `[{}]`},
		{`["::ffff:192.0.2.0/120"]`, `[{"requests": 1, "per": "1s", "x": 1}]`, `[{"requests": 1, "every": "year"}]`},
		{`["192.0.2.7/24"]`, `[{"REQUESTS": 1, "per": "1us"}]`, `[{"REQUESTS": 1, "Every": "day"}]`},
		{`null`, `{}`, `{}`},
	} {
		f.Add(seed[0], seed[1], seed[2])
	}
	db := openSQLite(f)
	s := db.store(f)
	d := insert(f, s, "a", admit.Key{})
	f.Fuzz(func(t *testing.T, networks, limits, quotas string) {
		if _, err := db.ExecContext(t.Context(), `UPDATE admit_keys SET networks = ?, limits = ?, quotas = ?`, networks, limits, quotas); err != nil {
			return // the table does not take it
		}
		k, err := s.LookupKey(t.Context(), d)
		if err != nil {
			require.Nil(t, k)
			require.NotErrorIs(t, err, admit.ErrKeyNotFound)
			return
		}
		for text, n := range map[string]int{networks: len(k.Networks), limits: len(k.Limits), quotas: len(k.Quotas)} {
			var all []any
			require.NoError(t, json.Unmarshal([]byte(text), &all))
			require.Len(t, all, n)
		}
		if len(k.Limits) > 0 {
			_, err := admit.CompleteLimits(k.Limits)
			require.NoError(t, err)
		}
		_, err = admit.CompleteQuotas(k.Quotas)
		require.NoError(t, err)
		r, err := s.Update(t.Context(), "a", func(k *admit.Key) error { k.Plan += "x"; k.Plan = k.Plan[:1]; return nil })
		require.NoError(t, err)
		require.Equal(t, k.Networks, r.Networks)
		require.Equal(t, k.Limits, r.Limits)
		require.Equal(t, k.Quotas, r.Quotas)
	})
}
