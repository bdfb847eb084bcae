package mint_test

import (
	"hash/crc32"
	"math/big"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/admit-go/admit/internal/mint"
)

func newToken(t testing.TB, prefix string) string {
	t.Helper()
	token, err := mint.New(prefix)
	require.NoError(t, err)
	return token
}

func TestNew(t *testing.T) {
	t.Parallel()
	shape := regexp.MustCompile(`^acme_live_[0-9A-Za-z]{33}$`)
	seen := map[string]bool{}
	for range 1000 {
		token := newToken(t, "acme_live")
		require.Regexp(t, shape, token)
		// The checksum, computed in another way.
		n, ok := new(big.Int).SetString(swapCase(token[len(token)-6:]), 62)
		require.True(t, ok)
		require.Equal(t, int64(crc32.ChecksumIEEE([]byte(token[:len(token)-6]))), n.Int64())
		seen[token] = true
	}
	assert.Len(t, seen, 1000)
}

// swapCase turns digits of 0-9A-Za-z into those of 0-9a-zA-Z, which math/big has.
func swapCase(s string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r >= 'A' && r <= 'Z':
			return r - 'A' + 'a'
		case r >= 'a' && r <= 'z':
			return r - 'a' + 'A'
		}
		return r
	}, s)
}

func TestPrefixes(t *testing.T) {
	t.Parallel()
	for _, prefix := range []string{"a", "0", "_", "acme_live", strings.Repeat("_", 32)} {
		require.NoError(t, mint.CheckPrefix(prefix), "%q", prefix)
		token := newToken(t, prefix)
		assert.Len(t, token, len(prefix)+1+33)
		assert.Equal(t, prefix, mint.Prefix(token))
	}
	for _, prefix := range []string{"", "UP", "a-b", "é", "a b", "a\n", strings.Repeat("a", 33)} {
		require.ErrorContains(t, mint.CheckPrefix(prefix), "must have 1 to 32 characters of a-z, 0-9 and _", "%q", prefix)
		_, err := mint.New(prefix)
		assert.Error(t, err, "%q", prefix)
	}
	assert.Empty(t, mint.Prefix("none"))
}

// Each of the random digits takes each value: 160 bits, not fewer.
func TestNewIsUniform(t *testing.T) {
	t.Parallel()
	var counts [27]map[byte]int
	for i := range counts {
		counts[i] = map[byte]int{}
	}
	for range 5000 {
		token := newToken(t, "p")
		for i := range counts {
			counts[i][token[2+i]]++
		}
	}
	for i, c := range counts {
		if i == 0 { // 2^160 is 0.59 of 62^27
			assert.InDelta(t, 37, len(c), 1)
			continue
		}
		assert.Len(t, c, 62, "digit %d", i)
	}
}

// What is well formed has the shape of a token. What New makes is well formed, and is not
// with any one of its characters changed.
func FuzzWellFormed(f *testing.F) {
	for _, seed := range []string{"", "acme_", "acme_0", "acme__", "acme_" + strings.Repeat("0", 33), "é_", "acme_live_x"} {
		f.Add(seed, uint(3), byte('x'))
	}
	shape := regexp.MustCompile(`\A(?s:.*_)?[0-9A-Za-z]{33}\z`)
	f.Fuzz(func(t *testing.T, token string, i uint, c byte) {
		if mint.WellFormed(token) {
			require.Regexp(t, shape, token)
		}
		made := newToken(t, "acme")
		require.True(t, mint.WellFormed(made))
		b := []byte(made)
		if at := i % uint(len(b)); b[at] != c {
			b[at] = c
			require.False(t, mint.WellFormed(string(b)), "%s, then %s", made, b)
		}
	})
}
