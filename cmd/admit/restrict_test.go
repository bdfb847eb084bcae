package main_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/admit-go/admit"
)

// Networks, limits and quotas get into the store by every way, and out of it.
func TestNetworksLimitsAndQuotas(t *testing.T) {
	everywhere(t, func(t *testing.T, p place) {
		ok := func(r result) string {
			t.Helper()
			require.Zero(t, r.code, r.stderr)
			return r.stdout
		}
		limits := []any{
			map[string]any{"name": "minute", "requests": 1000.0, "per": "1m", "burst": 2000.0},
			map[string]any{"name": "day", "requests": 50000.0, "per": "24h"},
		}
		quotas := []any{
			map[string]any{"requests": 20000.0, "every": "month"},
			map[string]any{"name": "reports", "requests": 500.0, "every": "day", "soft": true},
		}
		want := map[string]any{"state": "valid", "networks": []any{"192.0.2.0/24", "2001:db8::1/128"}, "limits": limits, "quotas": quotas}

		token := ok(run(t, "keys", "mint", "--id", "minted", "--keys", p.keys, "--network", "192.0.2.0/24", "--network", "2001:db8::1",
			"--limit", "minute=1000/60s:2000", "--limit", "day=50000/1d", "--quota", "20000/month", "--quota", "reports=500/day:soft"))
		assert.Equal(t, want, show(t, p, "minted"))
		k, err := p.open(t).LookupKey(t.Context(), admit.DigestOf(strings.TrimSpace(token)))
		require.NoError(t, err)
		assert.Len(t, k.Networks, 2)
		assert.Len(t, k.Limits, 2)
		assert.Len(t, k.Quotas, 2)

		ok(run(t, "keys", "mint", "--id", "updated", "--keys", p.keys))
		ok(run(t, "keys", "update", "updated", "--keys", p.keys, "--network", "192.0.2.0/24", "--network", "2001:db8::1",
			"--limit", "minute=1000/60s:2000", "--limit", "day=50000/1d", "--quota", "20000/month", "--quota", "reports=500/day:soft"))
		assert.Equal(t, want, show(t, p, "updated"))

		ok(feed(t, "id,token,networks,limits,quotas\ncsv,"+firstToken+",192.0.2.0/24 2001:db8::1,minute=1000/60s:2000 day=50000/1d,20000/month reports=500/day:soft\n", "keys", "import", "--keys", p.keys))
		assert.Equal(t, want, show(t, p, "csv"))
		ok(feed(t, `{"id":"json","token":"`+secondToken+`","networks":["192.0.2.0/24","2001:db8::1"],`+
			`"limits":[{"name":"minute","requests":1000,"per":"60s","burst":2000},{"name":"day","requests":50000,"per":"24h"}],`+
			`"quotas":[{"requests":20000,"every":"month"},{"name":"reports","requests":500,"every":"day","soft":true}]}`, "keys", "import", "--keys", p.keys))
		assert.Equal(t, want, show(t, p, "json"))

		ok(run(t, "keys", "rotate", "minted", "--id", "rotated", "--keys", p.keys))
		assert.Equal(t, want, show(t, p, "rotated"))

		assert.Regexp(t, `(?m)^csv .* minute=1000/1m:2000 day=50000/24h +20000/month reports=500/day:soft +192\.0\.2\.0/24 2001:db8::1/128$`, ok(run(t, "keys", "list", "--keys", p.keys)))
		shown := ok(run(t, "keys", "show", "csv", "--keys", p.keys))
		assert.Regexp(t, `(?m)^limits +minute=1000/1m:2000 day=50000/24h\nquotas +20000/month reports=500/day:soft\nnetworks +192\.0\.2\.0/24 2001:db8::1/128$`, shown)

		ok(run(t, "keys", "update", "updated", "--plan", "pro", "--keys", p.keys))
		want["plan"] = "pro"
		assert.Equal(t, want, show(t, p, "updated"), "they stay")
		ok(run(t, "keys", "update", "updated", "--quota", "week=7/week", "--keys", p.keys))
		want["quotas"] = []any{map[string]any{"name": "week", "requests": 7.0, "every": "week"}}
		assert.Equal(t, want, show(t, p, "updated"), "all of them")
		ok(run(t, "keys", "update", "updated", "--limit", "", "--quota", "none", "--network", "10.1.2.3", "--keys", p.keys))
		assert.Equal(t, map[string]any{"state": "valid", "plan": "pro", "networks": []any{"10.1.2.3/32"}}, show(t, p, "updated"))
		ok(run(t, "keys", "update", "updated", "--network", "", "--keys", p.keys))
		assert.Equal(t, map[string]any{"state": "valid", "plan": "pro"}, show(t, p, "updated"))

		assert.Equal(t, 2, run(t, "keys", "mint", "--network", "", "--keys", p.keys).code, "a variable that is not set is not: from everywhere")
		assert.Equal(t, 2, run(t, "keys", "mint", "--quota", "", "--keys", p.keys).code, "nor is it: as much as the plan has")
	})
}
