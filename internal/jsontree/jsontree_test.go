package jsontree_test

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/admit-go/admit/internal/jsontree"
)

func parse(t testing.TB, text string) *jsontree.Value {
	t.Helper()
	v, err := jsontree.Parse([]byte(text))
	require.NoError(t, err)
	return v
}

func TestNothingIsLost(t *testing.T) {
	t.Parallel()
	text := "\ufeff" + `{"z": 1.10, "a": [1e400, -0, 12345678901234567890, {}, []], "\u00e9": "<\u0041\/>", "": null, "t": true}`
	assert.Equal(t, `{
  "z": 1.10,
  "a": [
    1e400,
    -0,
    12345678901234567890,
    {},
    []
  ],
  "\u00e9": "<\u0041\/>",
  "": null,
  "t": true
}
`, string(parse(t, text).Write()))
}

func TestChange(t *testing.T) {
	t.Parallel()
	v := parse(t, `{"a": {"\u0062": "x"}, "c": ["x", 1]}`)
	text, ok := v.Get("a").Get("b").Text()
	assert.True(t, ok)
	assert.Equal(t, "x", text)
	assert.Nil(t, v.Get("a").Get("nothing").Get("at all"))
	mapped := v.Map(func(name, text string) string { return name + text })
	v.Get("a").Set("b", jsontree.Of(2))
	v.Set("d", jsontree.Object("left out", (*jsontree.Value)(nil), "list", []string{"<", "\n"}, "yes", true))
	assert.JSONEq(t, `{"a": {"b": 2}, "c": ["x", 1], "d": {"list": ["<", "\n"], "yes": true}}`, string(v.Write()))
	assert.JSONEq(t, `{"a": {"b": "bx"}, "c": ["cx", 1]}`, string(mapped.Write()))
	assert.Contains(t, string(v.Write()), `"<"`, "as it is, for people")
	assert.Panics(t, func() { jsontree.Of(1.5) })
}

func TestEqual(t *testing.T) {
	t.Parallel()
	for _, same := range [][2]string{
		{`{"a": 1, "b": ["x", null]}`, `{"b": ["\u0078", null], "a": 1}`}, {`"a"`, `"\u0061"`}, {`[]`, `[ ]`},
	} {
		assert.True(t, jsontree.Equal(parse(t, same[0]), parse(t, same[1])), "%s", same)
	}
	for _, other := range [][2]string{
		{`1`, `1.0`}, {`{"a": 1}`, `{"b": 1}`}, {`[1, 2]`, `[2, 1]`}, {`{}`, `[]`}, {`""`, `null`}, {`"1"`, `1`}, {`{"a": 1}`, `{"a": 1, "b": 1}`}, {`[[1]]`, `[[2]]`},
	} {
		assert.False(t, jsontree.Equal(parse(t, other[0]), parse(t, other[1])), "%s", other)
	}
	assert.True(t, jsontree.Equal(nil, nil))
	assert.False(t, jsontree.Equal(nil, parse(t, "1")))
}

func TestFaults(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"":                               "line 1, column 1: the text is empty",
		" \n ":                           "line 1, column 1: the text is empty",
		"{\n  \"a\": }":                  "line 2, column 8: ",
		"{} {}":                          "line 1, column 4: there is more after the end",
		"[\"\xff\"]":                     "line 1, column 3: the text is not UTF-8",
		"{\"a\": [{\"b\":1,\n\"b\":2}]}": `line 2, column 1: the member "b" is there twice in one object`,
		`{"":1,"":2}`:                    `the member "" is there twice`,
		strings.Repeat("[", 20_000):      "line 1, column 1000",
	} {
		_, err := jsontree.Parse([]byte(text))
		var fault *jsontree.Fault
		require.ErrorAs(t, err, &fault, "%.20s", text)
		assert.Contains(t, err.Error(), want)
	}
}

// What is as deep as can be does not become much longer than it is.
func TestDepth(t *testing.T) {
	t.Parallel()
	const depth = 10_000
	text := strings.Repeat("[", depth) + strings.Repeat("]", depth)
	written := parse(t, text).Write()
	assert.Less(t, len(written), 3*len(text))
	assert.Equal(t, written, parse(t, string(written)).Write())
}

func FuzzTree(f *testing.F) {
	for _, seed := range []string{`{"a":[1,"b\u0000",{}],"":null}`, "[", `{"a":1,"a":2}`, "\ufeff[1e5]", `"\ud800"`, "1 2", `[[],{"x":[{}]}]`} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		v, err := jsontree.Parse(text)
		if err != nil {
			if v != nil || json.Valid(text) && !strings.Contains(err.Error(), "UTF-8") && !strings.Contains(err.Error(), "twice") {
				t.Fatalf("%q: %v", text, err)
			}
			return
		}
		written := v.Write()
		var before, after bytes.Buffer
		if json.Compact(&before, bytes.TrimPrefix(text, []byte("\ufeff"))) != nil || json.Compact(&after, written) != nil || before.String() != after.String() {
			t.Fatalf("%q was written as %q", text, written)
		}
		again, err := jsontree.Parse(written)
		if err != nil || !jsontree.Equal(v, again) || !bytes.Equal(written, again.Write()) {
			t.Fatalf("%q was read as another: %v", written, err)
		}
	})
}
