package mediatype_test

import (
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/admit-go/admit/internal/mediatype"
)

// Each byte alone, against the list of RFC 9110 §5.6.2.
func TestIsToken(t *testing.T) {
	t.Parallel()
	const marks = "!#$%&'*+-.^_`|~"
	for c := range 256 {
		b := byte(c)
		want := '0' <= b && b <= '9' || 'a' <= b && b <= 'z' || 'A' <= b && b <= 'Z' || strings.IndexByte(marks, b) >= 0
		assert.Equal(t, want, mediatype.IsToken(string([]byte{b})), "%q", b)
		assert.Equal(t, want, mediatype.IsToken("a"+string([]byte{b})), "a%q", b)
	}
	assert.False(t, mediatype.IsToken(""))
}

func TestQuote(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"":               `""`,
		"a b":            `"a b"`,
		`the "best" \ ~`: `"the \"best\" \\ ~"`,
		"\r\n\t\x00\x7f": `"?????"`,
		"é":              `"??"`,
	} {
		assert.Equal(t, want, mediatype.Quote(text))
	}
}

func TestListContains(t *testing.T) {
	t.Parallel()
	lines := []string{"Accept, accept-encoding", "", " ,\tOrigin ,, *"}
	for _, name := range []string{"accept", "Accept-Encoding", "ORIGIN", "*"} {
		assert.True(t, mediatype.ListContains(lines, name), name)
	}
	for _, name := range []string{"Accept-", "encoding", "Cookie", "Accept, accept-encoding"} {
		assert.False(t, mediatype.ListContains(lines, name), name)
	}
	assert.False(t, mediatype.ListContains(nil, "a"))
}

func TestTokensAndListsAllocateNothing(t *testing.T) {
	lines := []string{"Accept, accept-encoding", "Origin"}
	assert.Zero(t, testing.AllocsPerRun(100, func() {
		mediatype.IsToken("Accept-Encoding")
		mediatype.ListContains(lines, "cookie")
	}))
}

// What is quoted is read back as one value of a parameter, the same but for the bytes
// that a quoted string cannot have.
func FuzzQuote(f *testing.F) {
	f.Add("")
	f.Add(`the "best" \ API`)
	f.Add("\xff\r\n; a=b")
	forbidden := regexp.MustCompile(`[^ -~]`)
	f.Fuzz(func(t *testing.T, text string) {
		quoted := mediatype.Quote(text)
		require.Regexp(t, `^"([ !#-\[\]-~]|\\["\\])*"$`, quoted)
		value, ok := parse(t, "a/b;c="+quoted+";d=e").Param("c")
		require.True(t, ok)
		require.Equal(t, quoted, value)
		if mediatype.IsToken(text) {
			require.True(t, mediatype.SameValue(text, quoted))
		}
		if !forbidden.MatchString(text) {
			require.Equal(t, text, strings.NewReplacer(`\"`, `"`, `\\`, `\`).Replace(quoted[1:len(quoted)-1]))
		}
	})
}
