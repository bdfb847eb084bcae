package admit_test

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"hash/crc32"
	"math/big"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/admit-go/admit"
)

func TestMint(t *testing.T) {
	t.Parallel()
	shape := regexp.MustCompile(`^acme_live_[0-9A-Za-z]{33}$`)
	seen := map[string]bool{}
	for range 1000 {
		token, d, hint := admit.Mint("acme_live")
		require.Regexp(t, shape, token)
		require.Equal(t, admit.Digest(sha256.Sum256([]byte(token))), d)
		require.Equal(t, token[:14]+"...", hint)
		// The checksum, computed in another way.
		n, ok := new(big.Int).SetString(swapCase(token[len(token)-6:]), 62)
		require.True(t, ok)
		require.Equal(t, int64(crc32.ChecksumIEEE([]byte(token[:len(token)-6]))), n.Int64())
		seen[token] = true
	}
	assert.Len(t, seen, 1000)
	for _, prefix := range []string{"", "UP", "a-b", "é", strings.Repeat("a", 33), "a b"} {
		assert.Panics(t, func() { admit.Mint(prefix) }, "%q", prefix)
	}
	token, _, _ := admit.Mint(strings.Repeat("_", 32))
	assert.Len(t, token, 32+1+33)
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

// Each of the random digits takes each value: 160 bits, not fewer.
func TestMintIsUniform(t *testing.T) {
	t.Parallel()
	var counts [27]map[byte]int
	for i := range counts {
		counts[i] = map[byte]int{}
	}
	for range 5000 {
		token, _, _ := admit.Mint("p")
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

func TestDigest(t *testing.T) {
	t.Parallel()
	for _, n := range []int{0, 1, 127, 128, 129, 5000} {
		token := strings.Repeat("x", n)
		d := admit.DigestOf(token)
		assert.Equal(t, admit.Digest(sha256.Sum256([]byte(token))), d)
		assert.Equal(t, hex.EncodeToString(d[:]), d.String())
		back, err := admit.ParseDigest(d.String())
		require.NoError(t, err)
		assert.Equal(t, d, back)
	}
	good := admit.DigestOf("").String()
	for _, bad := range []string{"", "x", good[1:], good + "0", "g" + good[1:], " " + good[1:]} {
		_, err := admit.ParseDigest(bad)
		assert.Error(t, err, "%q", bad)
	}
}

func TestDigestAllocations(t *testing.T) {
	token, _, _ := admit.Mint("acme")
	allocs(t, 0, func() { admit.DigestOf(token) })
}

func TestKeyMap(t *testing.T) {
	t.Parallel()
	m := admit.KeyMap{admit.DigestOf("a"): {ID: "1"}, admit.DigestOf("nil"): nil}
	k, err := m.LookupKey(t.Context(), admit.DigestOf("a"))
	require.NoError(t, err)
	assert.Equal(t, "1", k.ID)
	for _, token := range []string{"b", "nil"} {
		_, err = m.LookupKey(context.Background(), admit.DigestOf(token))
		assert.ErrorIs(t, err, admit.ErrKeyNotFound)
	}
}

// A token that is refused for its shape was not made by Mint: change any one
// character and it is refused, or it is no token of the prefix any more.
func FuzzToken(f *testing.F) {
	for _, seed := range []string{"", "acme_", "acme_0", "acme__", "acme_" + strings.Repeat("0", 33), "é_", "acme_live_x"} {
		f.Add(seed, uint(3), byte('x'))
	}
	asked := false
	a, err := admit.NewAuth(admit.AuthConfig{
		MintedPrefixes: []string{"acme"},
		Store: storeFunc(func(context.Context, admit.Digest) (*admit.Key, error) {
			asked = true
			return &admit.Key{}, nil
		}),
	})
	require.NoError(f, err)
	looked := func(token string) bool {
		asked = false
		_, _ = a.Verify(context.Background(), token)
		return asked
	}
	shape := regexp.MustCompile(`\Aacme_[0-9A-Za-z]{33}\z`)
	f.Fuzz(func(t *testing.T, token string, i uint, c byte) {
		if looked(token) && len(token) <= 4096 && strings.HasPrefix(token, "acme_") && strings.Count(token, "_") == 1 {
			require.Regexp(t, shape, token)
		}
		minted, _, _ := admit.Mint("acme")
		require.True(t, looked(minted))
		b := []byte(minted)
		at := 5 + i%33
		if b[at] != c && c != '_' {
			b[at] = c
			require.False(t, looked(string(b)), "%s", fmt.Sprint(minted, string(b)))
		}
	})
}
