package admit_test

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/admit-go/admit"
)

func writeFile(t testing.TB, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "keys.json")
	require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
	return path
}

func TestKeyFile(t *testing.T) {
	t.Parallel()
	path := writeFile(t, `{"keys": [
		{"id": "k1", "owner": "ACME", "plan": "pro", "scopes": ["a", "b"], "digest": "`+admit.DigestOf("one").String()+`",
		 "not_before": "2026-01-02T03:04:05Z", "expires_at": "2030-01-02T03:04:05+01:00", "revoked_at": "2031-01-01T00:00:00Z", "meta": {"team": "x"}},
		{"id": "k2", "digest": "`+strings.ToUpper(admit.DigestOf("two").String())+`"}
	]}`)
	f, err := admit.OpenKeyFile(path)
	require.NoError(t, err)
	defer func() { assert.NoError(t, f.Close()) }()

	k, err := f.LookupKey(t.Context(), admit.DigestOf("one"))
	require.NoError(t, err)
	assert.Equal(t, "ACME", k.Owner)
	assert.Equal(t, "pro", k.Plan)
	assert.Equal(t, []string{"a", "b"}, k.Scopes)
	assert.Equal(t, map[string]string{"team": "x"}, k.Meta)
	assert.True(t, time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC).Equal(k.NotBefore))
	assert.True(t, time.Date(2030, 1, 2, 2, 4, 5, 0, time.UTC).Equal(k.ExpiresAt))
	assert.True(t, time.Date(2031, 1, 1, 0, 0, 0, 0, time.UTC).Equal(k.RevokedAt))
	k, err = f.LookupKey(t.Context(), admit.DigestOf("two"))
	require.NoError(t, err)
	assert.Equal(t, "k2", k.ID)
	_, err = f.LookupKey(t.Context(), admit.DigestOf("three"))
	assert.ErrorIs(t, err, admit.ErrKeyNotFound)

	empty, err := admit.OpenKeyFile(writeFile(t, `{"keys":[]}`))
	require.NoError(t, err)
	defer empty.Close()
	_, err = empty.LookupKey(t.Context(), admit.DigestOf("one"))
	assert.ErrorIs(t, err, admit.ErrKeyNotFound)
}

func TestKeyFileFaults(t *testing.T) {
	t.Parallel()
	d1, d2 := admit.DigestOf("1").String(), admit.DigestOf("2").String()
	key := func(id, digest, more string) string {
		return fmt.Sprintf(`{"id": %q, "digest": %q%s}`, id, digest, more)
	}
	list := func(keys ...string) string { return "{\"keys\": [\n" + strings.Join(keys, ",\n") + "\n]}" }
	tests := map[string]struct {
		text  string
		wants []string // each begins with line:column
	}{
		"empty":                 {"", []string{"1:1: not well-formed JSON: the file is empty"}},
		"not JSON":              {"{\n  \"keys\": [}\n", []string{"2:12: not well-formed JSON"}},
		"cut":                   {"{\n  \"keys\": [", []string{"2:12: not well-formed JSON"}},
		"more after the end":    {"{\"keys\":[]}\n{}", []string{"2:1: not well-formed JSON: there is more"}},
		"a brace after the end": {"{\"keys\":[]}\n }", []string{"2:2: not well-formed JSON: there is more"}},
		"a list":                {"[]", []string{"1:1: must be an object"}},
		"no keys":               {"{}", []string{`1:1: the member "keys" is missing`}},
		"keys twice":            {"{\"keys\":[],\n\"keys\":[]}", []string{`2:1: "keys" is there twice`}},
		"keys is no list":       {"{\n\"keys\": {}}", []string{`2:9: "keys" must be an array`}},
		"unknown at the top":    {"{\"keys\":[],\n \"kesy\": 1}", []string{`2:2: the member "kesy" is not known here`}},
		"unknown member":        {list(key("a", d1, ",\n \"scope\": [\"x\"]")), []string{"3:2: scope is not known here"}},
		"wrong types": {list(key("a", d1, ", \"plan\": 1"), key("b", d2, ",\n\"scopes\": [\"x\", 2]")), []string{
			"2:", "plan must be a string", "4:17: scopes[1] must be a string",
		}},
		"bad time":          {list(key("a", d1, ",\n\"expires_at\": \"tomorrow\"")), []string{"3:15: expires_at is not valid"}},
		"times reversed":    {list(key("a", d1, `, "not_before": "2030-01-01T00:00:00Z", "expires_at": "2029-01-01T00:00:00Z"`)), []string{"2:1: ", "expires before it is valid"}},
		"valid for no time": {list(key("a", d1, `, "not_before": "2030-01-01T00:00:00Z", "expires_at": "2030-01-01T01:00:00+01:00"`)), []string{"2:1: ", "expires before it is valid"}},
		"no id":             {list(key("", d1, "")), []string{`2:1: a key needs an "id"`}},
		"no digest":         {list(`{"id":"a"}`), []string{`2:1: the key "a": "digest" must be`}},
		"a token":           {list(key("a", "acme_secret", "")), []string{`2:1: the key "a": "digest" must be`}},
		"not an object":     {list(`7`), []string{"2:1: must be an object"}},
		"double id":         {list(key("a", d1, ""), key("a", d2, "")), []string{`3:1: the id "a" is there twice, first in line 2`}},
		"double digest":     {list(key("a", d1, ""), key("b", d1, "")), []string{`3:1: the digest of the key "b" is there twice, first in line 2`}},
		"all of them":       {list(key("a", "x", ""), key("a", d2, ",\n\"nope\":1"), `{}`), []string{"2:1: ", "4:", "nope", `5:1: a key needs an "id"`}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			path := writeFile(t, test.text)
			_, err := admit.OpenKeyFile(path)
			require.Error(t, err)
			for _, want := range test.wants {
				if want[0] >= '1' && want[0] <= '9' {
					want = path + ":" + want
				}
				assert.ErrorContains(t, err, want)
			}
			assert.NotContains(t, err.Error(), "acme_secret", "a token put in by mistake is not shown")
		})
	}
	_, err := admit.OpenKeyFile(filepath.Join(t.TempDir(), "none.json"))
	assert.ErrorIs(t, err, os.ErrNotExist)
	for text, faults := range map[string]int{
		list(key("", d1, ""), key("", d2, "")):                       2, // and no id that is there twice
		list(key("a", "x", ""), key("b", "x", "")):                   2, // and no digest
		list(key("", d1, ""), key("", d2, "")) + "}":                 1, // of syntax: the rest may follow from it
		list(key("", d1, ""), `{"id":`):                              1,
		list(key("a", d1, `, "not_before": "2030-01-01T00:00:00Z"`)): 0,
		list(key("", d1, ""), `{"id": tru}`):                         1,
		`{"keys": `:                                                  1,
		`{"kesy": 1, "keys": [` + key("", d1, "") + `]}`:             2,
		`{"keys": {}, "kesy": 1}`:                                    2,
	} {
		_, err := admit.ReadKeyFile(writeFile(t, text))
		if faults == 0 {
			assert.NoError(t, err, text)
		} else if assert.Error(t, err, text) {
			assert.Equal(t, faults, strings.Count(err.Error(), "\n")+1, "%s\n%v", text, err)
		}
	}
	many, err := admit.OpenKeyFile(writeFile(t, list(strings.Split(strings.Repeat("{},", 100)+"{}", ",")...)))
	assert.Nil(t, many)
	assert.Equal(t, 20, strings.Count(err.Error(), "\n")+1, "at most 20 are listed")
}

func TestWriteKeyFile(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "keys.json")
	keys := admit.KeyMap{
		admit.DigestOf("b"): {ID: "b", Plan: "pro", Scopes: []string{"x"}, ExpiresAt: time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)},
		admit.DigestOf("a"): {ID: "a", Owner: "ACME", Meta: map[string]string{"hint": "a..."}},
	}
	require.NoError(t, admit.WriteKeyFile(path, keys))
	info, err := os.Stat(path)
	require.NoError(t, err)
	assert.Equal(t, os.FileMode(0o600), info.Mode())
	text, err := os.ReadFile(path)
	require.NoError(t, err)
	assert.Less(t, strings.Index(string(text), `"a"`), strings.Index(string(text), `"b"`), "ordered by id")
	assert.True(t, strings.HasSuffix(string(text), "}\n"))

	back, err := admit.ReadKeyFile(path)
	require.NoError(t, err)
	assert.Equal(t, keys, back)
	_, err = admit.ReadKeyFile(filepath.Join(t.TempDir(), "none"))
	assert.ErrorIs(t, err, os.ErrNotExist)
	f, err := admit.OpenKeyFile(path)
	require.NoError(t, err)
	defer f.Close()
	for d, want := range keys {
		got, err := f.LookupKey(t.Context(), d)
		require.NoError(t, err)
		assert.Equal(t, want, got)
	}

	double := admit.KeyMap{admit.DigestOf("1"): {ID: "same"}, admit.DigestOf("2"): {ID: "same"}}
	assert.ErrorContains(t, admit.WriteKeyFile(path, double), "twice", "what cannot be read back is not written")
	after, err := os.ReadFile(path)
	require.NoError(t, err)
	assert.Equal(t, text, after)
	assert.Error(t, admit.WriteKeyFile(filepath.Join(t.TempDir(), "none", "keys.json"), keys))
	assert.Error(t, admit.WriteKeyFile(filepath.Dir(path), keys), "that is a directory")
	left, err := filepath.Glob(filepath.Join(filepath.Dir(filepath.Dir(path)), ".*"))
	require.NoError(t, err)
	assert.Empty(t, left)
	left, err = filepath.Glob(filepath.Join(filepath.Dir(path), ".*"))
	require.NoError(t, err)
	assert.Empty(t, left)
}

// A file that is taken has what it says; one that is not names a line and a column.
func FuzzKeyFile(f *testing.F) {
	for _, seed := range []string{
		``, `{}`, `{"keys":[]}`, `{"keys":[{}]}`, `{"keys":[{"id":"a","digest":"00"}]}`, `{"keys":[[1,{"a":[]}]]}`, `{"keys":null,"keys":{"a":1}}`,
		`{"keys":[{"id":"a","digest":"` + strings.Repeat("0f", 32) + `","meta":{"a":1}}]}x`,
	} {
		f.Add(seed)
	}
	dir := f.TempDir()
	f.Fuzz(func(t *testing.T, text string) {
		path := filepath.Join(dir, "k")
		require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
		file, err := admit.OpenKeyFile(path)
		if err != nil {
			require.Nil(t, file)
			require.Regexp(t, `^admit: \S+/k:[1-9][0-9]*:[1-9][0-9]*: `, err.Error())
			return
		}
		defer file.Close()
		var plain struct{ Keys []struct{ ID, Digest string } }
		require.NoError(t, json.Unmarshal([]byte(text), &plain))
		for _, k := range plain.Keys {
			d, err := admit.ParseDigest(k.Digest)
			require.NoError(t, err)
			found, err := file.LookupKey(t.Context(), d)
			require.NoError(t, err)
			require.Equal(t, k.ID, found.ID)
		}
	})
}

func BenchmarkReadKeyFile100000(b *testing.B) {
	keys := admit.KeyMap{}
	for i := range 100_000 {
		id := fmt.Sprintf("key-%06d", i)
		keys[admit.DigestOf(id)] = &admit.Key{ID: id, Owner: "ACME", Plan: "pro", Scopes: []string{"orders:read", "orders:write"}, ExpiresAt: time.Now().Add(time.Hour)}
	}
	path := filepath.Join(b.TempDir(), "keys.json")
	require.NoError(b, admit.WriteKeyFile(path, keys))
	for b.Loop() {
		_, err := admit.ReadKeyFile(path)
		require.NoError(b, err)
	}
}
