package mediatype_test

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/admit-go/admit/internal/mediatype"
	"github.com/admit-go/admit/internal/mediatype/mediatypetest"
)

func TestParsePattern(t *testing.T) {
	t.Parallel()
	const (
		form     = "is not of the form type/subtype"
		params   = "has parameters; name the type alone"
		wildcard = `has a wildcard elsewhere than in "type/*" or "type/*+suffix"`
	)
	for text, want := range map[string]struct{ exact, err string }{
		jsonType:          {exact: jsonType},
		" Text/CSV ;":     {exact: "Text/CSV"},
		"text/*":          {},
		"a/*+json":        {},
		"json":            {err: form},
		"":                {err: form},
		"a/b; c=d":        {err: params},
		"a/*;c=d":         {err: params},
		"*/*":             {err: wildcard},
		"*/json":          {err: wildcard},
		"*/*+json":        {err: wildcard},
		"a/b*":            {err: wildcard},
		"a/*b":            {err: wildcard},
		"a/*+":            {err: wildcard},
		"a/*+*":           {err: wildcard},
		"a/**":            {err: wildcard},
		"a*/b":            {err: wildcard},
		"application/*-x": {err: wildcard},
	} {
		p, err := mediatype.ParsePattern(text)
		if want.err != "" {
			assert.EqualError(t, err, want.err, text)
			continue
		}
		require.NoError(t, err, text)
		exact, ok := p.Exact()
		assert.Equal(t, want.exact, exact, text)
		assert.Equal(t, want.exact != "", ok, text)
	}
}

func TestPatternMatches(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		pattern string
		matches bool
		types   []string
	}{
		{jsonType, true, []string{"application/json", "Application/JSON;v=1"}},
		{jsonType, false, []string{"application/json5", "xapplication/json", "application/x+json", "text/json"}},
		{"Text/*", true, []string{"text/csv", "TEXT/x", "text/a+b"}},
		{"Text/*", false, []string{"texts/csv", "image/csv"}},
		{"a/*+JSON", true, []string{"a/b+json", "A/b.c+Json", "a/b+c+json"}},
		{"a/*+JSON", false, []string{"a/json", "a/+json", "a/b+json+xml", "a/bjson", "b/b+json"}},
	} {
		p, err := mediatype.ParsePattern(test.pattern)
		require.NoError(t, err)
		for _, text := range test.types {
			assert.Equal(t, test.matches, p.Matches(parse(t, text)), "%s %s", test.pattern, text)
		}
	}
}

func FuzzPattern(f *testing.F) {
	for _, pattern := range []string{jsonType, "text/*", "application/*+json", "a/*+", "*/*", "a/b;c=d"} {
		for _, text := range []string{jsonType, "text/csv", "application/x+json", "application/+json", "a/+"} {
			f.Add(pattern, text)
		}
	}
	f.Fuzz(func(t *testing.T, pattern, text string) {
		p, err := mediatype.ParsePattern(pattern)
		if err != nil {
			return
		}
		written := parse(t, pattern)
		exact, ok := p.Exact()
		require.Equal(t, !written.HasWildcard(), ok)
		if ok {
			require.True(t, p.Matches(written))
			require.Equal(t, typeOf(pattern), mediatypetest.Lower(exact))
		}
		if m, err := mediatype.Parse(text); err == nil {
			want, _ := mediatypetest.Parse(text)
			require.Equal(t, want.Matches(typeOf(pattern)), p.Matches(m), "the reference")
		}
	})
}
