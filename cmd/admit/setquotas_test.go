package main_test

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// All keys that count for an account get the quotas, and no other key does.
func TestSetQuotas(t *testing.T) {
	everywhere(t, func(t *testing.T, p place) {
		ok := func(args ...string) result {
			t.Helper()
			r := run(t, append(args, "--keys", p.keys)...)
			require.Zero(t, r.code, r.stderr)
			return r
		}
		for id, more := range map[string][]string{
			"plain":   {"--quota", "month=10000/month", "--plan", "pro", "--limit", "minute=5/60s"},
			"early":   {"--not-before", "1d"},
			"revoked": {"--quota", "1/day"},
			"expired": {},
		} {
			ok(append([]string{"keys", "mint", "--id", id, "--owner", "ACME"}, more...)...)
		}
		ok("keys", "mint", "--id", "ACME")                     // the account of its own ID
		ok("keys", "mint", "--id", "other", "--owner", "Acme") // no case is folded
		ok("keys", "mint", "--id", "owned", "--owner", "other")
		ok("keys", "revoke", "revoked")
		ok("keys", "rotate", "expired", "--id", "next", "--overlap", time.Now().Add(-time.Hour).Format(time.RFC3339))
		quotas := func(id string) any { return show(t, p, id)["quotas"] }
		lines := func(text string) []string { return strings.Split(strings.TrimSpace(text), "\n") }

		r := ok("quotas", "set", "ACME", "--quota", "20000/month", "--quota", "reports=500/day:soft")
		assert.Empty(t, r.stderr)
		assert.ElementsMatch(t, []string{
			"the key plain of ACME had 10000/month and now has 20000/month reports=500/day:soft",
			"the key early of ACME had no quotas of its own and now has 20000/month reports=500/day:soft",
			"the key next of ACME had no quotas of its own and now has 20000/month reports=500/day:soft",
			"the key ACME had no quotas of its own and now has 20000/month reports=500/day:soft",
		}, lines(r.stdout))
		want := []any{map[string]any{"requests": 20000.0, "every": "month"}, map[string]any{"name": "reports", "requests": 500.0, "every": "day", "soft": true}}
		for _, id := range []string{"plain", "early", "next", "ACME"} {
			assert.Equal(t, want, quotas(id), id)
		}
		for _, id := range []string{"expired", "other", "owned"} {
			assert.Nil(t, quotas(id), id)
		}
		assert.Equal(t, []any{map[string]any{"requests": 1.0, "every": "day"}}, quotas("revoked"))
		plain := show(t, p, "plain")
		assert.Equal(t, "pro", plain["plan"], "nothing else changes")
		assert.Len(t, plain["limits"], 1)

		// Once more, with the name that was left out; one key has others meanwhile.
		ok("keys", "update", "next", "--quota", "1/week")
		r = ok("quotas", "set", "ACME", "--json", "--quota", "month=20000/month", "--quota", "reports=500/day:soft")
		require.Len(t, lines(r.stdout), 1, "what has changed")
		assert.Contains(t, r.stdout, `{"id":"next",`)
		assert.Contains(t, r.stdout, `"quotas":[{"name":"month","requests":20000,"every":"month"},`)
		assert.Equal(t, 3, strings.Count(r.stderr, " already has 20000/month reports=500/day:soft\n"), r.stderr)

		r = ok("quotas", "set", "ACME", "--quota", "none")
		assert.Contains(t, r.stdout, "the key plain of ACME had 20000/month reports=500/day:soft and now has no quotas of its own\n")
		for _, id := range []string{"plain", "early", "next", "ACME"} {
			assert.Nil(t, quotas(id), id)
		}

		for name, test := range map[string]struct {
			args []string
			code int
			says string
		}{
			"no account":           {[]string{"--quota", "1/day"}, 2, "give exactly one ACCOUNT"},
			"an empty one":         {[]string{"", "--quota", "1/day"}, 2, "the account is empty"},
			"two":                  {[]string{"ACME", "other", "--quota", "1/day"}, 2, "give exactly one ACCOUNT"},
			"nothing to set":       {[]string{"ACME"}, 2, "give --quota REQUESTS/PERIOD or --quota none"},
			"an empty quota":       {[]string{"ACME", "--quota", ""}, 2, "use --quota none"},
			"no quota":             {[]string{"ACME", "--quota", "20000/month,soft"}, 2, "a quota is [NAME=]REQUESTS/PERIOD[:soft]"},
			"two of one name":      {[]string{"ACME", "--quota", "1/day", "--quota", "day=2/month"}, 2, `Quotas[1].Name is "day"`},
			"nobody's":             {[]string{"nobody", "--quota", "1/day"}, 3, "the account nobody has no live keys"},
			"the id of an owner's": {[]string{"plain", "--quota", "1/day"}, 3, "the owner of keys, or the ID of a key without an owner"},
		} {
			r := run(t, append([]string{"quotas", "set", "--keys", p.keys}, test.args...)...)
			assert.Equal(t, test.code, r.code, "%s: %s", name, r.stderr)
			assert.Contains(t, r.stderr, test.says, name)
			assert.Empty(t, r.stdout, name)
		}
	})
}
