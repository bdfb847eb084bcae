package admit_test

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
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
		seen[token] = true
	}
	assert.Len(t, seen, 1000)
	for _, prefix := range []string{"", "UP", "a-b", "é", strings.Repeat("a", 33), "a b"} {
		assert.Panics(t, func() { admit.Mint(prefix) }, "%q", prefix)
	}
	token, _, _ := admit.Mint(strings.Repeat("_", 32))
	assert.Len(t, token, 32+1+33)
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
