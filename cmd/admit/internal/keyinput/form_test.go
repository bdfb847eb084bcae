package keyinput_test

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/admit-go/admit"
	"github.com/admit-go/admit/cmd/admit/internal/keyinput"
)

func TestLimits(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]admit.Limit{
		"minute=1000/60s":      {Name: "minute", Requests: 1000, Per: time.Minute},
		"minute=1000/60s:2000": {Name: "minute", Requests: 1000, Per: time.Minute, Burst: 2000},
		"day=50000/1d":         {Name: "day", Requests: 50000, Per: 24 * time.Hour},
		"a=b=1/1h30m":          {Name: "a=b", Requests: 1, Per: 90 * time.Minute},
		"fast=1/1500ms":        {Name: "fast", Requests: 1, Per: 1500 * time.Millisecond},
	} {
		limits, err := keyinput.ParseLimits([]string{text})
		require.NoError(t, err, text)
		assert.Equal(t, []admit.Limit{want}, limits, text)
	}
	for _, text := range []string{
		"", "=", "=1/1s", "minute", "minute=1000", "minute=1000/", "minute=/60s", "minute=1000/60", "minute=1000/60s:",
		"minute=-1/60s", "minute=+1/60s", "minute=1_000/60s", "minute=0/60s", "minute=1.5/60s", "minute=1/-1s", "minute=1/0s",
		"minute=1000/60s:-1", "minute=1000/60s:0", "minute=99999999999999999999/60s", "minute=1/60s:1:1", "minute=1/1.5d", "minute=1/99999999d",
	} {
		_, err := keyinput.ParseLimits([]string{text})
		require.ErrorContains(t, err, keyinput.LimitForm, "%q", text)
	}
	for texts, says := range map[string]string{
		"a=1/1s a=2/2s":     `Limits[1].Name is "a", which another limit has too`,
		"a=2000000000/1s":   "1 to 1000000000",
		"a=1/36500d:100000": "a hundred years",
		"ä=1/1s":            "printable ASCII",
	} {
		_, err := keyinput.ParseLimits(strings.Fields(texts))
		require.ErrorContains(t, err, says, "%q", texts)
	}
	assert.Equal(t, "minute=5/1m", keyinput.FormatLimit(admit.PerMinute(5)))
	assert.Equal(t, "1h0m0s=5/1h:7", keyinput.FormatLimit(admit.Limit{Requests: 5, Per: time.Hour, Burst: 7}))
	limits, err := keyinput.ParseLimits(nil)
	require.NoError(t, err)
	assert.Empty(t, limits)
}

func TestQuotas(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]admit.Quota{
		"20000/month":                      {Requests: 20_000, Every: admit.Month},
		"month=20000/month":                {Name: "month", Requests: 20_000, Every: admit.Month},
		"20000/month:soft":                 {Requests: 20_000, Every: admit.Month, Soft: true},
		"reports=500/day:soft":             {Name: "reports", Requests: 500, Every: admit.Day, Soft: true},
		"a=b=1/week":                       {Name: "a=b", Requests: 1, Every: admit.Week},
		"1/day=1/day":                      {Name: "1/day", Requests: 1, Every: admit.Day},
		"a,b=999999999999999/month":        {Name: "a,b", Requests: 999_999_999_999_999, Every: admit.Month},
		strings.Repeat("a", 64) + "=1/day": {Name: strings.Repeat("a", 64), Requests: 1, Every: admit.Day},
	} {
		quotas, err := keyinput.ParseQuotas([]string{text})
		require.NoError(t, err, text)
		assert.Equal(t, []admit.Quota{want}, quotas, text)
	}
	for _, text := range []string{
		"", "=", "=1/day", "month", "20000", "month=20000", "20000/", "/month", "a=/month", "20000/Month", "20000/months", "20000/30d", "1/year", "1/hour",
		"-1/day", "+1/day", "1_000/day", "1.5/day", "1e3/day", " 1/day", "1/day ", "1/day:", "1/day:Soft", "1/day:soft:soft", "1/day:2000", "1/day,soft",
		"99999999999999999999/day", "9223372036854775808/day", "none",
	} {
		_, err := keyinput.ParseQuotas([]string{text})
		require.ErrorContains(t, err, keyinput.QuotaForm, "%q", text)
	}
	for texts, says := range map[string]string{
		"1/day day=2/week":                 `Quotas[1].Name is "day", which another quota has too`,
		"0/day":                            "Quotas[0].Requests is 0",
		"1000000000000000/day":             "1 to 999999999999999",
		"ä=1/day":                          "printable ASCII",
		strings.Repeat("a", 65) + "=1/day": "1 to 64",
	} {
		_, err := keyinput.ParseQuotas(strings.Fields(texts))
		require.ErrorContains(t, err, says, "%q", texts)
		require.NotContains(t, err.Error(), "admit: ")
	}
	assert.Equal(t, "5/month", keyinput.FormatQuota(admit.Quota{Name: "month", Requests: 5, Every: admit.Month}))
	assert.Equal(t, "month=5/day:soft", keyinput.FormatQuota(admit.Quota{Name: "month", Requests: 5, Every: admit.Day, Soft: true}))
	quotas, err := keyinput.ParseQuotas(nil)
	require.NoError(t, err)
	assert.Empty(t, quotas)
}

func TestNetworks(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"192.0.2.0/24":         "192.0.2.0/24",
		"192.0.2.1":            "192.0.2.1/32",
		"2001:db8::/32":        "2001:db8::/32",
		"2001:DB8::1":          "2001:db8::1/128",
		"::ffff:192.0.2.1":     "192.0.2.1/32",
		"::ffff:192.0.2.0/120": "192.0.2.0/24",
		"0.0.0.0/0":            "0.0.0.0/0",
	} {
		n, err := keyinput.ParseNetwork(text)
		require.NoError(t, err, text)
		assert.Equal(t, want, n.String(), text)
	}
	for text, says := range map[string]string{
		"":                 "a network is",
		"host":             "a network is",
		"192.0.2.0/33":     "a network is",
		"192.0.2.0/-1":     "a network is",
		"192.0.2/24":       "a network is",
		" 192.0.2.1":       "a network is",
		"fe80::1%eth0":     "a network is",
		"fe80::%eth0/64":   "a network is",
		"192.0.2.1/24":     "write 192.0.2.0/24",
		"2001:db8::1/32":   "write 2001:db8::/32",
		"::ffff:0.0.0.0/8": "write a network of IPv4 addresses as IPv4",
	} {
		_, err := keyinput.ParseNetwork(text)
		require.ErrorContains(t, err, says, "%q", text)
	}
}

func TestScopes(t *testing.T) {
	t.Parallel()
	require.NoError(t, keyinput.CheckScopes([]string{"orders:read", "!"}))
	for _, scope := range []string{"", "a b", "orders:read orders:write", `a"`, `a\`, "ä", "a\n", "\x7f"} {
		require.Error(t, keyinput.CheckScopes([]string{"a", scope}), "%q", scope)
	}
}

func TestTexts(t *testing.T) {
	t.Parallel()
	require.NoError(t, keyinput.CheckTexts(&admit.Key{ID: "ä 1", Owner: "ACME\nInc.", Meta: map[string]string{"a": ""}}))
	for says, k := range map[string]*admit.Key{
		"the id is not valid UTF-8":         {ID: "\xff"},
		"the id has a NUL":                  {ID: "a\x00"},
		"the id has characters that cannot": {ID: "a\u202eb"},
		"the id is longer than 256 bytes":   {ID: strings.Repeat("a", 257)},
		"the owner has a NUL":               {Owner: "\x00"},
		"the owner is longer":               {Owner: strings.Repeat("a", 1025)},
		"the plan is not valid UTF-8":       {Plan: "\xff"},
		"a value in meta has a NUL":         {Meta: map[string]string{"a": "\x00"}},
		"a name in meta is not":             {Meta: map[string]string{"\xff": ""}},
		"a value in meta has no name":       {Meta: map[string]string{"": "a"}},
		"a value in meta is longer than 65": {Meta: map[string]string{"a": strings.Repeat("a", 64<<10+1)}},
	} {
		require.ErrorContains(t, keyinput.CheckTexts(k), says)
	}
}

func TestTimes(t *testing.T) {
	t.Parallel()
	now := time.Date(2030, 1, 2, 0, 0, 0, 0, time.UTC)
	late := time.Date(9999, 12, 31, 23, 59, 59, 0, time.FixedZone("", -3600)) // the year 10000 in UTC
	require.NoError(t, keyinput.CheckTimes(&admit.Key{}))
	require.NoError(t, keyinput.CheckTimes(&admit.Key{NotBefore: now, ExpiresAt: now.Add(1)}))
	require.Error(t, keyinput.CheckTimes(&admit.Key{NotBefore: now, ExpiresAt: now}))
	require.ErrorContains(t, keyinput.CheckTimes(&admit.Key{ExpiresAt: late}), "the years 1 to 9999")
}

// What FormatLimit writes is read again as a limit that does the same.
func FuzzLimits(f *testing.F) {
	for _, seed := range []string{"minute=1000/60s:2000", "a=b=1/1d", "x=1/1.5s", "a=1/1ns:1000", "=/", ":", "a=1/1s:1"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		limits, err := keyinput.ParseLimits([]string{text})
		if err != nil {
			return
		}
		again, err := keyinput.ParseLimits([]string{keyinput.FormatLimit(limits[0])})
		require.NoError(t, err)
		want, err := admit.CompleteLimits(limits)
		require.NoError(t, err)
		got, err := admit.CompleteLimits(again)
		require.NoError(t, err)
		require.Equal(t, want, got)
	})
}

// What FormatQuota writes is read again as a quota that does the same.
func FuzzQuotas(f *testing.F) {
	for _, seed := range []string{"month=20000/month:soft", "20000/month", "a=b=1/day", "0/week", "=/", ":", "day=1/week", "month=1/month:"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		quotas, err := keyinput.ParseQuotas([]string{text})
		if err != nil {
			return
		}
		again, err := keyinput.ParseQuotas([]string{keyinput.FormatQuota(quotas[0])})
		require.NoError(t, err)
		want, err := admit.CompleteQuotas(quotas)
		require.NoError(t, err)
		got, err := admit.CompleteQuotas(again)
		require.NoError(t, err)
		require.Equal(t, want, got)
	})
}

func FuzzNetworks(f *testing.F) {
	for _, seed := range []string{"192.0.2.0/24", "::ffff:192.0.2.1", "::ffff:192.0.2.0/120", "fe80::1%eth0", "::/0"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		n, err := keyinput.ParseNetwork(text)
		if err != nil {
			require.False(t, n.IsValid())
			return
		}
		require.True(t, n.IsValid())
		require.Equal(t, n.Masked(), n)
		require.False(t, n.Addr().Is4In6())
		again, err := keyinput.ParseNetwork(n.String())
		require.NoError(t, err)
		require.Equal(t, n, again)
	})
}
