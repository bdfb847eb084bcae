package keyform_test

import (
	"net/netip"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/admit-go/admit/internal/keyform"
)

func TestPer(t *testing.T) {
	t.Parallel()
	for d, want := range map[time.Duration]string{
		time.Second: "1s", time.Minute: "1m", 90 * time.Second: "1m30s", time.Hour: "1h", 24 * time.Hour: "24h",
		time.Hour + time.Second: "1h0m1s", 100 * time.Minute: "1h40m", 1500 * time.Microsecond: "1.5ms", 0: "0s", 10 * time.Minute: "10m", 10 * time.Hour: "10h",
	} {
		assert.Equal(t, want, keyform.FormatPer(d))
		back, err := keyform.ParsePer(want)
		require.NoError(t, err)
		assert.Equal(t, d, back)
	}
	for _, s := range []string{"", "60", "1 minute", "1d", "9999999999h"} {
		_, err := keyform.ParsePer(s)
		assert.ErrorContains(t, err, "is not a duration such as", s)
	}
}

func TestNetwork(t *testing.T) {
	t.Parallel()
	for s, want := range map[string]string{ // "": it is taken
		"192.0.2.0/24":         "",
		"192.0.2.7/32":         "",
		"0.0.0.0/0":            "",
		"::/0":                 "",
		"2001:db8::/32":        "",
		"192.0.2.7/24":         "write 192.0.2.0/24 for the network or 192.0.2.7/32 for the address",
		"2001:db8::1/32":       "write 2001:db8::/32 for the network or 2001:db8::1/128 for the address",
		"::ffff:192.0.2.0/120": "write 192.0.2.0/24",
		"::ffff:192.0.2.7/120": "write 192.0.2.0/24",
		"::ffff:0.0.0.0/96":    "write 0.0.0.0/0",
		"::ffff:1.2.3.4/90":    "is an address within a network",
		"192.0.2.7":            "is not a network such as",
		"192.0.2.0/33":         "is not a network such as",
		"192.0.2.0/024":        "is not a network such as",
		"fe80::1%eth0/64":      "is not a network such as",
		"office":               "is not a network such as",
		"":                     "is not a network such as",
	} {
		_, err := keyform.ParseNetwork(s)
		if want == "" {
			assert.NoError(t, err, s)
		} else {
			assert.ErrorContains(t, err, want, s)
		}
	}
	assert.Error(t, keyform.CheckNetwork(netip.Prefix{}))
}

// What is taken is written as it was read, and matches the addresses of its family alone,
// as they come from a client: an IPv4 address is never in the form of IPv6.
func FuzzNetwork(f *testing.F) {
	for _, seed := range []string{"192.0.2.0/24", "::ffff:192.0.2.0/120", "::/0", "2001:db8::/32", "::ffff:0:0/90"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, s string) {
		n, err := keyform.ParseNetwork(s)
		if err != nil {
			return
		}
		require.True(t, n.IsValid())
		require.Equal(t, n.Masked(), n)
		require.True(t, n.Contains(n.Addr().Unmap()), "the first address is found")
		back, err := keyform.ParseNetwork(n.String())
		require.NoError(t, err)
		require.Equal(t, n, back)
	})
}

// What is read is written so that it is read again.
func FuzzPer(f *testing.F) {
	for _, seed := range []string{"60s", "24h", "1h0m0.5s", "-1m", "2562047h47m16.854775807s"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, s string) {
		d, err := keyform.ParsePer(s)
		if err != nil {
			return
		}
		back, err := keyform.ParsePer(keyform.FormatPer(d))
		require.NoError(t, err)
		require.Equal(t, d, back)
	})
}
