package main_test

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// show returns a key as --json has it, without what every key has.
func show(t *testing.T, p place, id string) map[string]any {
	t.Helper()
	r := run(t, "keys", "show", id, "--json", "--keys", p.keys)
	require.Zero(t, r.code, r.stderr)
	var v map[string]any
	require.NoError(t, json.Unmarshal([]byte(r.stdout), &v))
	for _, name := range []string{"id", "digest", "created_at"} {
		delete(v, name)
	}
	if meta, ok := v["meta"].(map[string]any); ok {
		if delete(meta, "hint"); len(meta) == 0 {
			delete(v, "meta")
		}
	}
	return v
}

func TestUpdate(t *testing.T) {
	everywhere(t, func(t *testing.T, p place) {
		minted := run(t, "keys", "mint", "--keys", p.keys, "--id", "a", "--owner", "ACME", "--plan", "pro", "--scope", "x",
			"--meta", "team=red, green", "--meta", "note=a=b", "--not-before", "2020-01-01T00:00:00Z", "--expires", "2090-01-01T00:00:00Z")
		require.Zero(t, minted.code, minted.stderr)
		update := func(args ...string) result {
			t.Helper()
			r := run(t, append([]string{"keys", "update", "a", "--keys", p.keys}, args...)...)
			require.Zero(t, r.code, r.stderr)
			return r
		}
		want := map[string]any{
			"state": "valid", "owner": "ACME", "plan": "pro", "scopes": []any{"x"}, "meta": map[string]any{"team": "red, green", "note": "a=b"},
			"not_before": "2020-01-01T00:00:00Z", "expires_at": "2090-01-01T00:00:00Z",
		}
		require.Equal(t, want, show(t, p, "a"))

		r := update("--plan", "max")
		assert.Empty(t, r.stderr)
		assert.Regexp(t, `(?m)^id +a\nstate +valid\nowner +ACME\nplan +max$`, r.stdout)
		want["plan"] = "max"
		require.Equal(t, want, show(t, p, "a"), "nothing else")

		r = update("--scope", "y", "--scope", "z", "--meta", "team=", "--meta", "new=1", "--owner", "Other", "--json")
		assert.Equal(t, 1, strings.Count(r.stdout, "\n"))
		assert.Contains(t, r.stdout, `"scopes":["y","z"]`)
		want["scopes"], want["owner"], want["meta"] = []any{"y", "z"}, "Other", map[string]any{"note": "a=b", "new": "1"}
		require.Equal(t, want, show(t, p, "a"))

		update("--plan", "", "--owner", "", "--scope", "", "--not-before", "", "--expires", "never", "--meta", "note=", "--meta", "new=", "--meta", "none=")
		require.Equal(t, map[string]any{"state": "valid"}, show(t, p, "a"))

		assert.Equal(t, "a", verify(t, p.open(t), strings.TrimSpace(minted.stdout)), "the token stays")
		r = update("--not-before", "12h")
		assert.Equal(t, "the key a was valid and is now early\n", r.stderr)
	})
}

// A key that has ended does not come back to life unknowingly.
func TestUpdateOfAKeyThatHasEnded(t *testing.T) {
	everywhere(t, func(t *testing.T, p place) {
		for _, id := range []string{"expired", "revoked"} {
			require.Zero(t, run(t, "keys", "mint", "--keys", p.keys, "--id", id).code)
		}
		require.Zero(t, run(t, "keys", "revoke", "revoked", "--keys", p.keys).code)
		require.Zero(t, run(t, "keys", "rotate", "expired", "--overlap", time.Now().Add(-time.Hour).Format(time.RFC3339), "--keys", p.keys).code)

		r := run(t, "keys", "update", "expired", "--plan", "pro", "--keys", p.keys)
		require.Zero(t, r.code, r.stderr)
		assert.Empty(t, r.stderr)
		assert.Regexp(t, `(?m)^state +expired$`, r.stdout)
		r = run(t, "keys", "update", "expired", "--expires", "1h", "--keys", p.keys)
		require.Zero(t, r.code, r.stderr)
		assert.Equal(t, "the key expired was expired and is now valid\n", r.stderr)
		assert.Regexp(t, `(?m)^state +valid$`, r.stdout)

		r = run(t, "keys", "update", "revoked", "--expires", "1h", "--keys", p.keys)
		require.Zero(t, r.code, r.stderr)
		assert.Equal(t, "the key revoked stays revoked\n", r.stderr)
		assert.Equal(t, "revoked", show(t, p, "revoked")["state"])
	})
}

func TestUpdateRefuses(t *testing.T) {
	everywhere(t, func(t *testing.T, p place) {
		require.Zero(t, run(t, "keys", "mint", "--keys", p.keys, "--id", "a", "--not-before", "2080-01-01T00:00:00Z").code)
		before := show(t, p, "a")
		t.Run("commands", func(t *testing.T) {
			for name, test := range map[string]struct {
				args []string
				code int
				says string
			}{
				"no flag":             {[]string{"a"}, 2, "there is nothing to change"},
				"only flags of all":   {[]string{"a", "--json"}, 2, "there is nothing to change"},
				"no id":               {[]string{"--plan", "x"}, 2, "give exactly one ID"},
				"no such id":          {[]string{"none", "--plan", "x"}, 3, "admit: there is no key none\n"},
				"empty expiry":        {[]string{"a", "--expires", ""}, 2, "--expires never"},
				"expiry that is past": {[]string{"a", "--expires", "0s"}, 2, "admit keys revoke"},
				"expiry before it":    {[]string{"a", "--expires", "1h"}, 2, "would expire before it becomes valid"},
				"two scopes in one":   {[]string{"a", "--scope", "orders:read orders:write"}, 2, `--scope "orders:read orders:write"`},
				"empty among scopes":  {[]string{"a", "--scope", "x", "--scope", ""}, 2, "a scope is empty"},
				"limit":               {[]string{"a", "--limit", "minute=1000"}, 2, "NAME=REQUESTS/PERIOD[:BURST], such as minute=1000/60s"},
				"limits of one name":  {[]string{"a", "--limit", "a=1/1s", "--limit", "a=2/2s"}, 2, `Limits[1].Name is "a", which another limit has too`},
				"quota":               {[]string{"a", "--quota", "20000"}, 2, `--quota "20000": a quota is [NAME=]REQUESTS/PERIOD[:soft], such as 20000/month`},
				"quotas of one name":  {[]string{"a", "--quota", "1/day", "--quota", "day=2/week"}, 2, `Quotas[1].Name is "day", which another quota has too`},
				"empty quota":         {[]string{"a", "--quota", ""}, 2, "--quota none"},
				"none among quotas":   {[]string{"a", "--quota", "1/day", "--quota", "none"}, 2, "a quota is"},
				"network":             {[]string{"a", "--network", "10.0.0.0/33"}, 2, `--network "10.0.0.0/33": a network is a CIDR block`},
				"empty among those":   {[]string{"a", "--network", "10.0.0.0/8", "--network", ""}, 2, `--network "": a network is a CIDR block`},
				"meta":                {[]string{"a", "--meta", "x"}, 2, `--meta "x" is not NAME=VALUE`},
				"meta without a name": {[]string{"a", "--meta", "=x"}, 2, `--meta "=x" is not NAME=VALUE`},
				"meta twice":          {[]string{"a", "--meta", "x=1", "--meta", "x=2"}, 2, `--meta "x" is given twice`},
				"meta of the hint":    {[]string{"a", "--meta", "hint=x"}, 2, "--meta hint"},
				"owner":               {[]string{"a", "--owner", "\xff"}, 2, "the owner is not valid UTF-8"},
			} {
				t.Run(name, func(t *testing.T) {
					t.Parallel()
					r := run(t, append([]string{"keys", "update", "--keys", p.keys}, test.args...)...)
					assert.Equal(t, test.code, r.code, r.stderr)
					assert.Contains(t, r.stderr, test.says)
					assert.Empty(t, r.stdout)
				})
			}
		})
		assert.Equal(t, before, show(t, p, "a"))
	})
}

// A key that is not valid yet is rotated to one that is valid from the same time on.
func TestRotateEarly(t *testing.T) {
	everywhere(t, func(t *testing.T, p place) {
		const begins = "2080-01-01T00:00:00Z"
		for _, id := range []string{"a", "b", "c"} {
			require.Zero(t, run(t, "keys", "mint", "--keys", p.keys, "--id", id, "--not-before", begins).code)
		}
		r := run(t, "keys", "rotate", "a", "--id", "a2", "--overlap", "1d", "--keys", p.keys)
		require.Zero(t, r.code, r.stderr)
		assert.Contains(t, r.stderr, "a is valid until 2080-01-02T00:00:00Z\n")
		assert.Equal(t, map[string]any{"state": "early", "not_before": begins, "expires_at": "2080-01-02T00:00:00Z"}, show(t, p, "a"))
		assert.Equal(t, map[string]any{"state": "early", "not_before": begins}, show(t, p, "a2"))

		for id, overlap := range map[string]string{"b": "0s", "c": "2070-01-01T00:00:00Z"} {
			r = run(t, "keys", "rotate", id, "--id", id+"2", "--overlap", overlap, "--keys", p.keys)
			require.Zero(t, r.code, r.stderr)
			assert.Contains(t, r.stderr, id+" is revoked, since it would have expired before it became valid\n")
			assert.Equal(t, "revoked", show(t, p, id)["state"])
			assert.Equal(t, map[string]any{"state": "early", "not_before": begins}, show(t, p, id+"2"))
		}
	})
}
