package sqlquota

import (
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/stretchr/testify/assert"
)

func TestEscape(t *testing.T) {
	t.Parallel()
	for s, want := range map[string]string{
		"": "", "ACME \u2603": "ACME \u2603", "a\x00b": `a\x00b`, "\xff": `\xFF`, `a\x00b`: `a\x5Cx00b`, "\ufffd": "\ufffd", "\xe2\x98": `\xE2\x98`,
	} {
		assert.Equal(t, want, escape(s))
		assert.Equal(t, s, unescape(want))
	}
	for _, s := range []string{`\`, `\x`, `\x0`, `\xZZ`, `\\x41`} {
		assert.NotPanics(t, func() { unescape(s) })
	}
}

func TestIDsAreApart(t *testing.T) {
	t.Parallel()
	assert.NotEqual(t, idOf("ab", "c", "d"), idOf("a", "bc", "d"))
	assert.NotEqual(t, idOf("a", "bc", "d"), idOf("a", "b", "cd"))
	assert.NotEqual(t, idOf("a\x01b", "", ""), idOf("a", "b", ""))
}

func FuzzEscape(f *testing.F) {
	for _, s := range []string{"", "a", "a\x00", `\x41`, "\xff\\", "\u2603"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		text := escape(s)
		assert.True(t, utf8.ValidString(text) && !strings.ContainsRune(text, 0), "%q", text)
		assert.Equal(t, s, unescape(text))
		unescape(s)
	})
}
