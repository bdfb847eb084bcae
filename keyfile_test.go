package admit_test

import (
	"encoding/json"
	"fmt"
	"io"
	"log"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/admit-go/admit"
	"github.com/admit-go/admit/internal/testkit"
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
		"UTF-16":                {"\xff\xfe{\x00}\x00", []string{"1:1: the file is in UTF-16; save it as UTF-8"}},
		"UTF-16, big-endian":    {"\xfe\xff\x00{\x00}", []string{"1:1: the file is in UTF-16; save it as UTF-8"}},
		"UTF-16 without a mark": {"{\x00}\x00", []string{"1:1: the file is in UTF-16; save it as UTF-8"}},
		"UTF-16, neither":       {"\x00{\x00}", []string{"1:1: the file is in UTF-16; save it as UTF-8"}},
		"Latin-1":               {"{\"keys\": [\n  {\"id\": \"a\", \"owner\": \"M\xfcller\"}]}", []string{"2:26: the file is not in UTF-8 from here on; save it as UTF-8"}},
		"not JSON":              {"{\n  \"keys\": [}\n", []string{"2:12: not well-formed JSON"}},
		"cut":                   {"{\n  \"keys\": [", []string{"2:12: not well-formed JSON"}},
		"more after the end":    {"{\"keys\":[]}\n{}", []string{"2:1: not well-formed JSON: there is more"}},
		"a brace after the end": {"{\"keys\":[]}\n }", []string{"2:2: not well-formed JSON: there is more"}},
		"a list":                {"[]", []string{"1:1: must be an object"}},
		"no keys":               {"{}", []string{`1:1: the member "keys" is missing`}},
		"keys twice":            {"{\"keys\":[],\n\"keys\":[]}", []string{`2:1: "keys" is there twice`}},
		"keys is no list":       {"{\n\"keys\": {}}", []string{`2:9: "keys" must be an array`}},
		"unknown at the top":    {"{\"keys\":[],\n \"kesy\": 1}", []string{`2:2: "kesy" is not a known member`}},
		"unknown member":        {list(key("a", d1, ",\n \"scope\": [\"x\"]")), []string{"3:2: scope is not a known member"}},
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
		"id twice":          {list(`{"id": "a", "digest": "` + d1 + `",` + "\n" + `"id": "b"}`), []string{"3:1: id is there twice"}},
		"digest twice":      {list(key("a", d1, `, "digest": "`+d2+`"`)), []string{"2:91: digest is there twice"}},
		"end twice":         {list(key("a", d1, ",\n\"revoked_at\": \"2020-01-01T00:00:00Z\",\n\"revoked_at\": \"2090-01-01T00:00:00Z\"")), []string{"4:1: revoked_at is there twice"}},
		"in capitals":       {list(key("a", d1, `, "Digest": "`+d2+`"`)), []string{"2:91: Digest is there twice"}},
		"escaped":           {list(key("a", d1, `, "i\u0064": "b"`)), []string{"2:91: id is there twice"}},
		"meta twice":        {list(key("a", d1, ",\n\"meta\": {\"x\": \"1\", \"x\": \"2\"}")), []string{"3:20: meta.x is there twice"}},
		"meta wrong":        {list(key("a", d1, ",\n\"meta\": {\"x\": 1}")), []string{"3:15: meta.x must be a string"}},
		"limit twice":       {list(key("a", d1, ",\n\"limits\": [{\"requests\": 1, \"per\": \"1s\", \"requests\": 1000}]")), []string{"3:41: limits[0].requests is there twice"}},
		"limit unknown":     {list(key("a", d1, ",\n\"limits\": [{\"requests\": 1, \"per\": \"1s\", \"cost\": 1000}]")), []string{"3:41: limits[0].cost is not a known member"}},
		"limit wrong":       {list(key("a", d1, ",\n\"limits\": [{\"requests\": 1.5, \"per\": 60}]")), []string{"3:25: limits[0].requests must be an integer", "3:37: limits[0].per must be a string"}},
		"limit no period":   {list(key("a", d1, ",\n\"limits\": [{\"requests\": 1}]")), []string{`3:12: limits[0].per: "" is not a duration such as`}},
		"limit meaningless": {list(key("a", d1, ",\n\"limits\": [{\"requests\": 0, \"per\": \"1m\"}]")), []string{`3:11: limits[0].Requests is 0`}},
		"limits of a name":  {list(key("a", d1, ",\n\"limits\": [{\"requests\": 1, \"per\": \"1m\"}, {\"requests\": 2, \"per\": \"60s\"}]")), []string{"3:11: limits[1].Name is"}},
		"limits wrong":      {list(key("a", d1, ",\n\"limits\": {}"), key("b", d2, ",\n\"limits\": [1, null]")), []string{"3:11: limits must be an array", "5:12: limits[0] must be an object", "5:15: limits[1] must be an object"}},
		"quota twice":       {list(key("a", d1, ",\n\"quotas\": [{\"requests\": 1, \"every\": \"day\", \"requests\": 1000}]")), []string{"3:44: quotas[0].requests is there twice"}},
		"quota unknown":     {list(key("a", d1, ",\n\"quotas\": [{\"requests\": 1, \"every\": \"day\", \"hard\": true}]")), []string{"3:44: quotas[0].hard is not a known member"}},
		"quota wrong":       {list(key("a", d1, ",\n\"quotas\": [{\"requests\": 1e3, \"every\": 1, \"soft\": \"yes\"}]")), []string{"3:25: quotas[0].requests must be an integer", "3:39: quotas[0].every must be a string", "3:50: quotas[0].soft must be true or false"}},
		"quota no period":   {list(key("a", d1, ",\n\"quotas\": [{\"requests\": 1}, {\"requests\": 1, \"every\": \"year\"}]")), []string{`3:12: quotas[0].every: "" is not a period`, `3:29: quotas[1].every: "year" is not a period; use day, week or month`}},
		"quota meaningless": {list(key("a", d1, ",\n\"quotas\": [{\"requests\": 0, \"every\": \"day\"}]")), []string{`3:11: quotas[0].Requests is 0`}},
		"quotas of a name":  {list(key("a", d1, ",\n\"quotas\": [{\"requests\": 1, \"every\": \"day\"}, {\"name\": \"day\", \"requests\": 1, \"every\": \"week\"}]")), []string{"3:11: quotas[1].Name is"}},
		"quotas wrong":      {list(key("a", d1, ",\n\"quotas\": {}"), key("b", d2, ",\n\"quotas\": [1, null]")), []string{"3:11: quotas must be an array", "5:12: quotas[0] must be an object", "5:15: quotas[1] must be an object"}},
		"networks wrong":    {list(key("a", d1, ",\n\"networks\": \"192.0.2.0/24\""), key("b", d2, ",\n\"networks\": [1, null, \"office\"]")), []string{"3:13: networks must be an array", "5:14: networks[0] must be a string", `5:17: networks[1]: "" is not a network`, `5:23: networks[2]: "office" is not a network such as`}},
		"host bits":         {list(key("a", d1, ",\n\"networks\": [\"192.0.2.7/24\"]")), []string{"3:14: networks[0]: 192.0.2.7/24 is an address within a network; write 192.0.2.0/24 for the network or 192.0.2.7/32 for the address"}},
		"IPv4 in IPv6":      {list(key("a", d1, ",\n\"networks\": [\"::ffff:192.0.2.0/120\"]")), []string{"3:14: networks[0]: ", "write 192.0.2.0/24"}},
		"critical":          {list(key("a", d1, ",\n\"critical\": []")), []string{"3:1: critical is not a known member"}},
		"null":              {list(`null`), []string{"2:1: must be an object"}},
		"format 0":          {"{\"format\":\n0, \"keys\": []}", []string{"2:1: format must be 1 or more"}},
		"format -1":         {`{"keys": [], "format": -1}`, []string{"1:24: format must be 1 or more"}},
		"format null":       {`{"format": null, "keys": []}`, []string{"1:12: format must be 1 or more"}},
		"format a fraction": {`{"format": 1.5, "keys": []}`, []string{"1:12: format must be an integer"}},
		"format a float":    {`{"format": 2.0, "keys": []}`, []string{"1:12: format must be an integer"}},
		"format a string":   {`{"format": "2", "keys": []}`, []string{"1:12: format must be an integer"}},
		"format too large":  {`{"format": 99999999999999999999, "keys": []}`, []string{"1:12: format is out of range"}},
		"format twice":      {"{\"format\": 1,\n\"format\": 3, \"x\": 1, \"keys\": []}", []string{`2:1: "format" is there twice`}},
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

// A file of before format 2, which is written with what is new, and read back whole.
func TestKeyFileOfBefore(t *testing.T) {
	t.Parallel()
	one, two := admit.DigestOf("one"), admit.DigestOf("two")
	old := `{
  "keys": [
    {
      "id": "k1",
      "owner": "ACME",
      "plan": "pro",
      "scopes": [
        "a",
        "b"
      ],
      "digest": "` + one.String() + `",
      "not_before": "2026-01-02T03:04:05Z",
      "expires_at": "2030-01-02T03:04:05.000006Z",
      "revoked_at": "2031-01-01T00:00:00Z",
      "meta": {
        "hint": "acme_1..."
      }
    },
    {
      "id": "k2",
      "digest": "` + two.String() + `"
    }
  ]
}
`
	path := writeFile(t, old)
	keys, err := admit.ReadKeyFile(path)
	require.NoError(t, err)
	require.NoError(t, admit.WriteKeyFile(path, keys))
	text, err := os.ReadFile(path)
	require.NoError(t, err)
	assert.Equal(t, old, string(text), "nothing that older releases would not read, while nothing new is used")

	for _, k := range []*admit.Key{
		{ID: "k2", Networks: []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24"), netip.MustParsePrefix("2001:db8::/32")}},
		{ID: "k2", Limits: []admit.Limit{{Requests: 5, Per: time.Second, Burst: 9}, admit.PerDay(100)}},
		{ID: "k2", Quotas: []admit.Quota{{Requests: 500, Every: admit.Day}, {Name: "sold", Requests: 999_999_999_999_999, Every: admit.Month, Soft: true}}},
	} {
		keys[two] = k
		require.NoError(t, admit.WriteKeyFile(path, keys))
		text, err := os.ReadFile(path)
		require.NoError(t, err)
		assert.True(t, strings.HasPrefix(string(text), "{\n  \"format\": 2,\n  \"keys\": ["), "%s", text)
		assert.Equal(t, len(k.Networks) > 0, strings.Contains(string(text), "networks"))
		assert.Equal(t, len(k.Limits) > 0, strings.Contains(string(text), "limits"))
		assert.Equal(t, len(k.Quotas) > 0, strings.Contains(string(text), "quotas"))
		back, err := admit.ReadKeyFile(path)
		require.NoError(t, err)
		assert.Equal(t, keys, back)
		for want, of := range map[string]bool{`"per": "24h"`: len(k.Limits) > 0, `"every": "month"`: len(k.Quotas) > 0} {
			assert.Equal(t, of, strings.Contains(string(text), want))
		}
	}
	for _, k := range []*admit.Key{
		{ID: "k2", Networks: []netip.Prefix{{}}},
		{ID: "k2", Networks: []netip.Prefix{netip.MustParsePrefix("192.0.2.7/24")}},
		{ID: "k2", Limits: []admit.Limit{{}}},
		{ID: "k2", Quotas: []admit.Quota{{Requests: 1}}},
	} {
		assert.Error(t, admit.WriteKeyFile(path, admit.KeyMap{two: k}), "what cannot be read back is not written")
	}

	for _, format := range []string{"", `"format": 1,`, `"format": 2,`} {
		keys, err := admit.ReadKeyFile(writeFile(t, `{`+format+` "keys": [{"id": "a", "digest": "`+one.String()+`", "networks": ["192.0.2.0/24"], "limits": null, "quotas": null, "meta": null}]}`))
		require.NoError(t, err)
		assert.Equal(t, &admit.Key{ID: "a", Networks: []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}}, keys[one])
	}
	keys, err = admit.ReadKeyFile(writeFile(t, "\ufeff"+old))
	require.NoError(t, err)
	assert.Len(t, keys, 2, "a byte order mark is ignored")
	_, err = admit.ReadKeyFile(writeFile(t, "\ufeff{\"keys\": 1}"))
	assert.ErrorContains(t, err, ":1:10: ", "it counts for no position")
}

// A file of a later format is read, as far as it can be without letting in whom it keeps
// out; tools do not write it back. Not parallel: it has the default logger.
func TestKeyFileOfLater(t *testing.T) {
	var out testkit.Buffer
	defer func(l *slog.Logger, w io.Writer, flags int) {
		slog.SetDefault(l)
		log.SetOutput(w)
		log.SetFlags(flags)
	}(slog.Default(), log.Writer(), log.Flags())
	slog.SetDefault(slog.New(slog.NewTextHandler(&out, nil)))
	record := func(id, more string) string {
		return fmt.Sprintf(`{"id": %q, "digest": %q%s}`, id, admit.DigestOf(id), more)
	}
	keys := `"keys": [` + strings.Join([]string{
		record("plain", ""),
		record("more", `, "colour": "red", "colour": 1, "limits": [{"requests": 1, "per": "1s", "colour": "red"}], "quotas": [{"requests": 1, "every": "day", "colour": "red"}]`),
		record("met", `, "critical": ["networks", "id"], "networks": ["192.0.2.0/24"]`),
		record("none", `, "critical": []`),
		"\n" + record("hours", `, "hours": "9-17", "critical": ["networks", "hours"]`),
		record("nested", `, "critical": ["networks.zone"]`),
	}, ", ") + `]`
	for name, text := range map[string]string{
		"first": `{"format": 3, "made_by": {"a": [1]}, ` + keys + `}`,
		"last":  `{"made_by": {"a": [1]}, ` + keys + `, "format": 17}`,
	} {
		out.Reset()
		path := writeFile(t, text)
		f, err := admit.OpenKeyFile(path)
		require.NoError(t, err, name)
		for id, want := range map[string]bool{"plain": true, "more": true, "met": true, "none": true, "hours": false, "nested": false} {
			assert.Equal(t, want, knows(t, f, id), "%s: %s", name, id)
		}
		k, err := f.LookupKey(t.Context(), admit.DigestOf("more"))
		require.NoError(t, err)
		assert.Equal(t, []admit.Limit{{Requests: 1, Per: time.Second}}, k.Limits)
		assert.Equal(t, []admit.Quota{{Requests: 1, Every: admit.Day}}, k.Quotas)
		require.NoError(t, f.Close())
		lines := strings.Split(strings.TrimSpace(out.String()), "\n")
		require.Len(t, lines, 2, "one for each")
		assert.Contains(t, lines[0], "line=2 admit.key.id=hours member=hours")
		assert.Contains(t, lines[1], "admit.key.id=nested member=networks.zone")

		_, err = admit.ReadKeyFile(path)
		assert.ErrorContains(t, err, "of a newer release of admit")
		assert.ErrorContains(t, err, "use the newer release")
		assert.Regexp(t, `^admit: \S+:[12]:[1-9][0-9]*: [^\n]*$`, err.Error(), "and nothing else")
	}
	out.Reset()
	many := make([]string, 1000)
	for i := range many {
		many[i] = record(fmt.Sprint("k", i), `, "critical": ["hours"]`)
	}
	f, err := admit.OpenKeyFile(writeFile(t, `{"format": 3, "keys": [`+strings.Join(many, ",")+`]}`))
	require.NoError(t, err)
	require.NoError(t, f.Close())
	assert.Equal(t, 20, strings.Count(out.String(), "member=hours"))
	assert.Contains(t, out.String(), "keys=980")
	for text, want := range map[string]string{ // what is known is as it is in any format
		`{"format": 3, "keys": [` + record("a", `, "id": "b"`) + `]}`:                                    "id is there twice",
		`{"format": 3, "keys": [` + record("a", `, "critical": ["x"], "critical": []`) + `]}`:            "critical is there twice",
		`{"format": 3, "keys": [` + record("a", `, "critical": "x"`) + `]}`:                              "critical must be",
		`{"format": 3, "keys": [` + record("a", `, "critical": [1]`) + `]}`:                              "critical[0] must be a string",
		`{"format": 3, "keys": [` + record("a", `, "networks": ["x"]`) + `]}`:                            "is not a network",
		`{"format": 3, "keys": [` + record("a", `, "quotas": [{"requests": 1, "every": "hour"}]`) + `]}`: "is not a period",
		`{"format": 3}`:                          `"keys" is missing`,
		`{"format": 3, "keys": [], "format": 1}`: `"format" is there twice`,
	} {
		_, err := admit.OpenKeyFile(writeFile(t, text))
		assert.ErrorContains(t, err, want, text)
	}
}

// A file that is taken has what it says; one that is not names a line and a column.
func FuzzKeyFile(f *testing.F) {
	for _, seed := range []string{
		``, `{}`, `{"keys":[]}`, `{"keys":[{}]}`, `{"keys":[{"id":"a","digest":"00"}]}`, `{"keys":[[1,{"a":[]}]]}`, `{"keys":null,"keys":{"a":1}}`,
		`{"keys":[{"id":"a","digest":"` + strings.Repeat("0f", 32) + `","meta":{"a":1}}]}x`,
		`{"format":2,"keys":[{"id":"a","digest":"` + strings.Repeat("0f", 32) + `","networks":["192.0.2.0/24"],"limits":[{"name":"x","requests":1,"per":"60s","burst":2}],"quotas":[{"name":"x","requests":1,"every":"day","soft":true}]}]}`,
		`{"keys":[{"id":"a","digest":"` + strings.Repeat("0f", 32) + `","critical":["x"],"x":1}],"format":3}`,
		"\ufeff" + `{"keys":[{"id":"a","ID":"b"}],"format":1.5}`,
		"{\"keys\":[{\"id\":\"\xfc\",\"digest\":\"" + strings.Repeat("0f", 32) + "\"}]}",
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
		require.True(t, utf8.ValidString(text))
		var plain map[string]json.RawMessage
		require.NoError(t, json.Unmarshal([]byte(strings.TrimPrefix(text, "\ufeff")), &plain))
		var records []map[string]any
		require.NoError(t, json.Unmarshal(plain["keys"], &records))
		for _, record := range records {
			lower := map[string]any{}
			for name, value := range record {
				lower[strings.ToLower(name)] = value
			}
			digest, _ := lower["digest"].(string)
			id, _ := lower["id"].(string)
			d, err := admit.ParseDigest(digest)
			if lower["critical"] != nil && err != nil {
				continue // it is refused
			}
			require.NoError(t, err)
			found, err := file.LookupKey(t.Context(), d)
			if lower["critical"] != nil && err != nil {
				continue
			}
			require.NoError(t, err)
			require.Equal(t, id, found.ID)
			if networks, _ := lower["networks"].([]any); len(networks) > 0 {
				require.Len(t, found.Networks, len(networks))
			}
			if limits, _ := lower["limits"].([]any); len(limits) > 0 {
				require.Len(t, found.Limits, len(limits))
			}
			if quotas, _ := lower["quotas"].([]any); len(quotas) > 0 {
				require.Len(t, found.Quotas, len(quotas))
			}
		}
		// What a tool has read it writes, and reads back.
		keys, err := admit.ReadKeyFile(path)
		if err != nil {
			require.ErrorContains(t, err, "of a newer release")
			return
		}
		if err := admit.WriteKeyFile(path+"2", keys); err != nil {
			require.ErrorContains(t, err, "year", "which a time in JSON bounds")
			return
		}
		back, err := admit.ReadKeyFile(path + "2")
		require.NoError(t, err)
		require.Len(t, back, len(keys))
		for d, k := range keys {
			require.Equal(t, k.Networks, back[d].Networks)
			require.Equal(t, k.Limits, back[d].Limits)
			require.Equal(t, k.Quotas, back[d].Quotas)
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
