package mediatype_test

import (
	"errors"
	"fmt"
	"mime"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/admit-go/admit/internal/mediatype"
	"github.com/admit-go/admit/internal/mediatype/mediatypetest"
)

func parse(t testing.TB, s string) mediatype.Type {
	t.Helper()
	parsed, err := mediatype.Parse(s)
	require.NoError(t, err, s)
	return parsed
}

func TestParse(t *testing.T) {
	t.Parallel()
	const (
		form  = "is not of the form type/subtype"
		rest  = "has something else after type/subtype than parameters"
		param = "has a parameter that is not of the form name=value"
		twice = "has a parameter twice"
		mail  = "has a parameter with a * in its name, which HTTP does not use"
		many  = "has more parameters than any type needs"
	)
	for text, want := range map[string]string{ // no error where it is empty
		"a/b": "", " a/b\t": "", "*/*": "", "a/*": "", "!#$%&'*+.^_`|~/-": "",
		"a/b;": "", "a/b;;c=d;": "", "a/b ; c = d ": "", `a/b;c="d;e,\"f"`: "", `a/b;c=""`: "", "a/b;c=d;e=f": "",
		"a/b" + params(16): "",

		"": form, " ": form, "a": form, "/b": form, "a/": form, "a/ b": form, "a /b": form, "a/;c=d": form, "\x80/b": form,
		"a/b c": rest, "a/b, c/d": rest, "a/b/c": rest, "a/b=c": rest,
		"a/b;c": param, "a/b;c=": param, "a/b;=d": param, "a/b;c=d e": param, `a/b;c="d`: param, `a/b;c="d"e`: param, `a/b;c="d\"`: param,
		"a/b;c=1;C=1": twice, "a/b;c=1;d=2;c=3": twice,
		"a/b;c*=d": mail, "a/b;*0=d": mail,
		"a/b" + params(17): many,
	} {
		parsed, err := mediatype.Parse(text)
		if want != "" {
			assert.EqualError(t, err, want, text)
			assert.Zero(t, parsed, text)
			continue
		}
		if assert.NoError(t, err, text) {
			assert.Equal(t, text, parsed.String())
		}
	}
}

// params is n parameters.
func params(n int) (s string) {
	for i := range n {
		s += fmt.Sprintf("; p%d=%d", i, i)
	}
	return s
}

func TestHasWildcard(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]bool{"a/b": false, "a/b;c=*": false, "*/*": true, "a/*": true, "*/b": true, "a/*+b": true} {
		assert.Equal(t, want, parse(t, text).HasWildcard(), text)
	}
}

func TestIsJSON(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]bool{
		"application/json": true, "Application/JSON ;charset=utf-8": true, "application/vnd.api+json": true, "image/x+JSON": true,
		"text/json": false, "application/json5": false, "application/+json": false, "+json/x": false, "application/*+json": false, "a/b;c=+json": false,
	} {
		assert.Equal(t, want, parse(t, text).IsJSON(), text)
	}
}

func TestParam(t *testing.T) {
	t.Parallel()
	m := parse(t, `a/b; First=1;; second = "two; third=3" ;fourth=4`)
	for name, want := range map[string]string{"first": "1", "FIRST": "1", "second": `"two; third=3"`, "fourth": "4"} {
		value, ok := m.Param(name)
		assert.True(t, ok, name)
		assert.Equal(t, want, value)
	}
	for _, name := range []string{"third", "fir", "first1", "", "a/b"} {
		value, ok := m.Param(name)
		assert.False(t, ok, name)
		assert.Empty(t, value)
	}
}

func TestSameValue(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		a, b string
		same bool
	}{
		{"utf-8", "utf-8", true},
		{"utf-8", "UTF-8", true},
		{"utf-8", `"utf-8"`, true},
		{"utf-8", `"u\tf-8"`, true},
		{`"\"\\"`, `"\"\\"`, true},
		{`"a\\"`, `"a\\b"`, false},
		{"utf-8", "utf-80", false},
		{"utf-8", "utf_8", false},
		{"_", `"?"`, false}, // 32 apart, as the two cases of a letter
		{`""`, `""`, true},
		{`""`, "a", false},
		{`"é"`, `"É"`, false}, // letters of ASCII alone
	} {
		assert.Equal(t, test.same, mediatype.SameValue(test.a, test.b), "%s %s", test.a, test.b)
		assert.Equal(t, test.same, mediatype.SameValue(test.b, test.a), "%s %s", test.b, test.a)
	}
}

func TestParseAllocatesNothing(t *testing.T) {
	for _, text := range []string{"a/b", `A/B; charset="u\tf-8"` + params(15), "a/b" + strings.Repeat(";c=d", 10_000), "a"} {
		assert.Zero(t, testing.AllocsPerRun(100, func() {
			if m, err := mediatype.Parse(text); err == nil {
				value, _ := m.Param("charset")
				_ = value != "" && mediatype.SameValue(value, "utf-8")
			}
		}), "%.20s", text)
	}
}

// What Parse takes is what the reference takes, and mime.ParseMediaType, which a handler
// may use, finds the same type in it.
func FuzzParse(f *testing.F) {
	for _, text := range []string{"", jsonType, "Text/CSV ; charset=\"Utf-8\"", "a/b;c=d;C=e", "application/x+json;;", "text/*", `text/a;b="\"`, "text/a;charset*=utf-16''x"} {
		f.Add(text, "charset")
	}
	r := mediatypetest.NewRandom(3)
	for range 50 {
		f.Add(r.ContentType(), "charset")
	}
	f.Fuzz(func(t *testing.T, text, name string) {
		m, err := mediatype.Parse(text)
		want, ok := mediatypetest.Parse(text)
		require.Equal(t, ok, err == nil, "the reference: %v", err)
		if err != nil {
			require.Zero(t, m)
			return
		}
		require.Equal(t, text, m.String())
		require.Equal(t, want.HasWildcard(), m.HasWildcard())

		value, has := m.Param(name)
		wantValue, wantHas := want.Param(mediatypetest.Lower(name))
		require.Equal(t, wantHas, has)
		if has {
			require.True(t, mediatype.SameValue(value, value))
			require.True(t, mediatype.SameValue(value, mediatype.Quote(wantValue)) || strings.ContainsFunc(wantValue, notQuoted),
				"%s is %q", value, wantValue)
		}

		if strings.ContainsFunc(text, func(r rune) bool { return r < ' ' && r != '\t' || r == 0x7f }) {
			return // no server of net/http lets a control character through
		}
		found, _, err := mime.ParseMediaType(text)
		if err != nil {
			require.True(t, errors.Is(err, mime.ErrInvalidMediaParameter), "%v", err)
		}
		again, ok := mediatypetest.Parse(found)
		require.True(t, ok, found)
		require.True(t, again.Matches(typeOf(text)), found)
	})
}

// notQuoted reports what Quote has question marks for.
func notQuoted(r rune) bool { return r < ' ' || r > '~' }

// typeOf is the type of a text that has one, in lower case.
func typeOf(text string) string {
	name, _, _ := strings.Cut(text, ";")
	return mediatypetest.Lower(strings.Trim(name, " \t"))
}
