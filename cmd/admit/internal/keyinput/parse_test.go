package keyinput_test

import (
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"path/filepath"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/admit-go/admit"
	"github.com/admit-go/admit/cmd/admit/internal/keyinput"
)

// secret is a token that no error may repeat, wherever it stands.
const secret = "S3cr3tS3cr3tS3cr3t"

func parse(text, format string) ([]keyinput.Row, error) {
	return keyinput.Parse(strings.NewReader(text), "in", format)
}

// wholeKey has all that can be imported.
func wholeKey() *admit.Key {
	return &admit.Key{
		ID: "acme-1", Owner: "ACME, Inc.", Plan: "pro", Scopes: []string{"orders:read", "orders:write"},
		Limits: []admit.Limit{
			{Name: "minute", Requests: 1000, Per: time.Minute, Burst: 2000},
			{Name: "day", Requests: 50000, Per: 24 * time.Hour},
		},
		Quotas: []admit.Quota{
			{Requests: 20_000, Every: admit.Month},
			{Name: "reports", Requests: 500, Every: admit.Day, Soft: true},
		},
		Networks:  []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24"), netip.MustParsePrefix("2001:db8::1/128")},
		NotBefore: time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC),
		ExpiresAt: time.Date(2031, 1, 1, 0, 0, 0, 0, time.UTC),
		RevokedAt: time.Date(2030, 6, 1, 0, 0, 0, 0, time.UTC),
		Meta:      map[string]string{"team": "x y", "contact": "a@example.com"},
	}
}

func TestParseWhole(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		line int
		text string
	}{
		"json": {1, `{"id":"acme-1","token":"` + secret + `","owner":"ACME, Inc.","plan":"pro","scopes":["orders:read","orders:write"],
			"limits":[{"name":"minute","requests":1000,"per":"60s","burst":2000},{"name":"day","requests":50000,"per":"24h0m0s"}],
			"quotas":[{"requests":20000,"every":"month"},{"name":"reports","requests":500,"every":"day","soft":true}],
			"networks":["192.0.2.0/24","2001:db8::1"],"not_before":"2030-01-01T01:00:00+01:00","expires_at":"2031-01-01T00:00:00Z",
			"revoked_at":"2030-06-01T00:00:00Z","meta":{"team":"x y","contact":"a@example.com"}}`},
		"csv": {2, "id,digest,owner,plan,scopes,limits,quotas,networks,not_before,expires_at,revoked_at,meta.team,meta.contact,meta.none\n" +
			"acme-1," + admit.DigestOf(secret).String() + `,"ACME, Inc.",pro,orders:read  orders:write,minute=1000/60s:2000 day=50000/1d,20000/month  reports=500/day:soft,` +
			"192.0.2.0/24 2001:db8::1,2030-01-01T01:00:00+01:00,2031-01-01T00:00:00Z,2030-06-01T00:00:00Z,x y,a@example.com,\n"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			text := test.text
			if name == "json" {
				text = strings.NewReplacer("\n", "", "\t", "").Replace(text)
			}
			for _, text := range []string{text, "\ufeff" + text, strings.ReplaceAll(text, "\n", "\r\n")} {
				rows, err := parse(text, "")
				require.NoError(t, err)
				assert.Equal(t, []keyinput.Row{{Line: test.line, Digest: admit.DigestOf(secret), Key: wholeKey()}}, rows)
			}
		})
	}
}

func TestParseLeast(t *testing.T) {
	t.Parallel()
	for _, text := range []string{
		"\n{\"token\":\"" + secret + "\", \"id\":null, \"digest\":\"\"}\n\n",
		"token\n" + secret + "\n",
		"token,id,digest,meta.a\n" + secret + ",,,\n",
		" token , owner\n" + secret + ",\n",
	} {
		rows, err := parse(text, "")
		require.NoError(t, err, text)
		require.Len(t, rows, 1)
		assert.Equal(t, admit.DigestOf(secret), rows[0].Digest)
		assert.True(t, rows[0].Unnamed)
		assert.Equal(t, 2, rows[0].Line)
		assert.Empty(t, rows[0].Key.ID)
		assert.Empty(t, rows[0].Key.Meta)
	}
	rows, err := parse("token,id\n", "")
	require.NoError(t, err)
	assert.Empty(t, rows)
}

func TestParseFaults(t *testing.T) {
	t.Parallel()
	digest := admit.DigestOf(secret).String()
	object := func(members string) string { return `{"token":"` + secret + `",` + members + `}` }
	for says, texts := range map[string][]string{
		"in: the text is empty":        {"", "\ufeff", " \n\n"},
		"without an array around them": {"[" + object(`"id":"a"`) + "]", " [\n"},
		"in:1: not one JSON object":    {"{", "{\n}", object(`"id":"a"`) + object(`"id":"b"`), `{"id":}`, "{\"id\":\"\x01\"}"},
		"in:2: not a JSON object":      {object(`"id":"a"`) + "\n1", object(`"id":"a"`) + "\nnull", "{\"keys\":[\n1]}"},
		"neither a token nor a digest": {"{}", `{"token":""}`, "id,token\na,\n"},
		"both a token and a digest":    {object(`"digest":"` + digest + `"`), "token,digest\n" + secret + "," + digest},
		"is not the SHA-256":           {`{"digest":"abc"}`, "digest\nabc", "digest\n" + secret + secret},
		"characters other than visible ASCII": {
			`{"token":"` + secret + `\n"}`, `{"token":"` + secret + `é"}`, `{"token":"` + secret + ` "}`, "token\n" + secret + " a\n", "token\n" + secret + "\xff",
		},
		"longer than 4096 bytes":                        {"token\n" + strings.Repeat("a", 4097)},
		"shorter than 16 characters, so":                {"token\n123456789012345", `{"token":"123456789012345"}`},
		`in:1: column 31: "oner" is not a known member`: {object(`"oner":"a"`)},
		`"Owner" is not a known member`:                 {object(`"Owner":"a"`)},
		"one of its names is not a known member":        {`{"` + secret + `":{}}`, object(`"a` + "\u202e" + `":1`)},
		`the member "owner" is duplicated`:              {object(`"owner":"a","owner":"b"`)},
		`the member "x" is duplicated`:                  {object(`"meta":{"x":"a","x":"b"}`)},
		`the member "Per" is duplicated`:                {object(`"limits":[{"requests":1,"per":"1s","Per":"2s"}]`)},
		`"owner" must be a string`:                      {object(`"owner":1`), object(`"owner":["` + secret + `"]`)},
		`"meta" must be a string`:                       {object(`"meta":{"` + secret + `":1}`)},
		`"meta" must be an object`:                      {object(`"meta":[]`)},
		`"scopes" must be an array`:                     {object(`"scopes":"a b"`)},
		`"expires_at" is not valid`:                     {object(`"expires_at":"` + secret + `"`)},
		`"limits" has a member that is not known`:       {object(`"limits":[{"name":"a","requests":1,"per":"1s","x":1}]`)},
		`a limit is {"name"`:                            {object(`"limits":[{"name":"a","requests":1,"per":"1"}]`)},
		"Limits[0].Requests is 0":                       {object(`"limits":[{"name":"a","per":"1s"}]`)},
		"a limit is NAME=":                              {"token,limits\n" + secret + ",minute=1"},
		"Limits[1].Name is \"a\"":                       {"token,limits\n" + secret + ",a=1/1s a=2/2s"},
		`"quotas" has a member that is not known`:       {object(`"quotas":[{"requests":1,"every":"day","x":1}]`)},
		`"quotas" must be an integer`:                   {object(`"quotas":[{"requests":1.5,"every":"day"}]`)},
		`a quota is {"requests"`:                        {object(`"quotas":[{"requests":1,"every":"` + secret + `"}]`), object(`"quotas":[null]`)},
		"Quotas[0].Requests is 0":                       {object(`"quotas":[{"every":"day"}]`), "token,quotas\n" + secret + ",0/day"},
		"a quota is [NAME=]":                            {"token,quotas\n" + secret + ",20000", "token,quotas\n" + secret + "," + secret},
		"Quotas[1].Name is \"day\"":                     {"token,quotas\n" + secret + ",1/day day=2/week"},
		"a network is a CIDR block":                     {object(`"networks":["` + secret + `"]`), "token,networks\n" + secret + ",host"},
		"a scope has only printable ASCII":              {object(`"scopes":["a b"]`), "token,scopes\n" + secret + ",é"},
		"a scope is empty":                              {object(`"scopes":[null]`)},
		"would expire before it becomes valid":          {object(`"not_before":"2031-01-01T00:00:00Z","expires_at":"2030-01-01T00:00:00Z"`)},
		"the years 1 to 9999":                           {object(`"expires_at":"9999-12-31T23:59:59-01:00"`)},
		"the id has characters that cannot be printed":  {object(`"id":"a\u001b[2J"`)},
		"the owner has a NUL":                           {object(`"owner":"a\u0000"`)},
		"in:3: the id is a duplicate of line 2":         {"id,token\na," + secret + "\na,b" + secret},
		"in:2: the token or digest is a duplicate of line 1": {
			object(`"id":"a"`) + "\n" + `{"digest":"` + digest + `"}`,
			object(`"id":"a"`) + "\n" + `{"digest":"` + strings.ToUpper(digest) + `"}`,
		},
		"in:2: column 1: the key file is not well-formed JSON":                     {"{\"keys\": [\n", "{\"keys\": [\n}"},
		"in:3: column 19: the key file has format 3":                               {"{\"keys\":\n [{\"x\":1}],\n           \"a\":1, \"format\": 3}"},
		`in:1: column 13: "owner" is not a known`:                                  {`{"keys":[], "owner":1}`},
		`column 14: the member "keys" is duplicated`:                               {`{ "keys":[], "keys":[]}`},
		`in:1: column 2: "keys" must be an array`:                                  {`{"keys":{}}`},
		`in:1: column 2: "format" must be a number`:                                {`{"format":0}`, `{"format":"2"}`, `{"format":1.5}`},
		`in:3: column 3: "oner" is not a known member`:                             {"{\"keys\":[\n {\"digest\":\"" + digest + "\",\n  \"oner\":1}]}"},
		`in:2: column 3: "oner" is not a known member`:                             {"{\"keys\":[\n {\"oner\":1}]}"},
		`in:4: column 3: "owner" must be a string`:                                 {"{\"keys\":[\n {\"digest\":\"" + digest + "\",\n  \"owner\":\n  1}]}"},
		"in:3: the token or digest is a duplicate of line 2":                       {"{\"keys\":[\n{\"digest\":\"" + digest + "\"},\n{\"digest\":\"" + digest + "\"}]}"},
		"in:1: column 1 of the header, one of its names, is unknown":               {secret + ",token\n", "id;token;owner;plan;x\n"},
		`column 2 of the header, "Token", is unknown`:                              {"id,Token\n"},
		`column 1 of the header, "meta.", is unknown`:                              {"meta.,token\n"},
		`column 2 of the header, "token", is duplicated`:                           {"token,token\n"},
		"in: the text is in UTF-16; save it as UTF-8":                              {"\xff\xfei\x00d\x00", "\xfe\xff\x00{"},
		"is not valid UTF-8":                                                       {"token,owner\n" + secret + ",\xff", object(`"owner":"a` + "\xff" + `"`)},
		"in:2: the text is not valid UTF-8":                                        {"{\"keys\":\n[{\"digest\":\"" + digest + "\",\"owner\":\"é\xff\"}]}", object(`"id":"a"`) + "\n" + object(`"a`+"\xe9"+`":1`)},
		`in:1: the key file has no member "keys"`:                                  {`{"format":2}`},
		"in:2: the row does not have as many columns as the header":                {"id,token\na\n", "id,token\na,b,c\n"},
		`in:2: column "expires_at": not a time`:                                    {"token,expires_at\na," + secret},
		"in:2: not well-formed CSV, at line 2, column":                             {"id,token\na,b" + `"` + secret, "id,token\n\"a\" b,c"},
		"in:2: the line is longer than 1048576 bytes":                              {"id,token\n" + strings.Repeat("a", keyinput.MaxLine+1), object(`"id":"a"`) + "\n" + strings.Repeat("a", keyinput.MaxLine+1) + "\n"},
		"in:1: not one JSON object, from column 2 on; jq -c . writes one per line": {"{x"},
	} {
		for _, text := range texts {
			rows, err := parse(text, "")
			require.Error(t, err, "%.100q", text)
			assert.Contains(t, err.Error(), says, "%.100q", text)
			assert.NotContains(t, err.Error(), secret)
			assert.NotContains(t, err.Error(), digest)
			assert.Nil(t, rows)
		}
	}
}

// All faults are found at once, up to a bound.
func TestParseManyFaults(t *testing.T) {
	t.Parallel()
	count := func(err error) int { return strings.Count(err.Error(), "\n") + 1 }
	_, err := parse("id,token,networks\na,short,host\nb,"+secret+",\nc,"+secret+"\xff,x y\n", "")
	require.Equal(t, 5, count(err), "%v", err)
	for _, line := range []string{"in:2: the token is shorter", "in:2: a network is", "in:4: the token cannot be sent", "in:4: a network is"} {
		require.ErrorContains(t, err, line)
	}
	_, err = parse("token\n"+strings.Repeat("a\n", 100), "")
	require.Equal(t, keyinput.MaxFaults, count(err))
	_, err = parse(strings.Repeat("{}\n", 100), "")
	require.Equal(t, keyinput.MaxFaults, count(err))
	_, err = parse("token,owner\n"+strings.Repeat("a\n", 100), "")
	require.Equal(t, keyinput.MaxFaults, count(err))
}

// A format that is named is not found out by the first byte.
func TestParseFormat(t *testing.T) {
	t.Parallel()
	_, err := parse(`{"token":"`+secret+`"}`, "csv")
	require.ErrorContains(t, err, "in:1: not well-formed CSV")
	_, err = parse("token\n"+secret, "json")
	require.ErrorContains(t, err, "in:1: not one JSON object")
}

// A text that breaks off is no shorter text.
func TestParseBrokenInput(t *testing.T) {
	t.Parallel()
	broken := errors.New("the disk is gone")
	for _, text := range []string{"", "token\n" + secret + "\n", `{"token":"` + secret + `"}` + "\n"} {
		rows, err := keyinput.Parse(io.MultiReader(strings.NewReader(text), iotest.ErrReader(broken)), "in", "")
		require.ErrorIs(t, err, broken, "%q", text)
		require.Nil(t, rows)
	}
}

// A line may be as long as the bound.
func TestParseLongLine(t *testing.T) {
	t.Parallel()
	line := `{"token":"` + secret + `"}`
	line += strings.Repeat(" ", keyinput.MaxLine-len(line))
	rows, err := parse(line+"\n"+line, "")
	require.ErrorContains(t, err, "duplicate")
	require.Nil(t, rows)
	_, err = parse(line+" \n", "")
	require.ErrorContains(t, err, "in:1: the line is longer than 1048576 bytes")
}

// A key file may be one long line. Each byte is looked at a few times, however many keys there are.
func TestParseLongKeyFile(t *testing.T) {
	t.Parallel()
	var text strings.Builder
	text.WriteString(`{"keys":[`)
	for i := range 40_000 {
		fmt.Fprintf(&text, `{"id":"k%d","digest":"%s"},`, i, admit.DigestOf(fmt.Sprint(i)))
	}
	began := time.Now()
	rows, err := parse(text.String()+`{"id":"last","digest":"`+admit.DigestOf(secret).String()+`"}]}`, "")
	require.NoError(t, err)
	require.Len(t, rows, 40_001)
	assert.Less(t, time.Since(began), 10*time.Second)
	_, err = parse(text.String()+`{"id":1}]}`, "")
	require.ErrorContains(t, err, fmt.Sprintf("in:1: column %d: ", text.Len()+len(`{"id":`)+1))
}

// hold checks what must be true of whatever is parsed.
func hold(t *testing.T, text, format string) []keyinput.Row {
	rows, err := keyinput.Parse(strings.NewReader(text), "in", format)
	if err != nil {
		require.Nil(t, rows)
		require.NotContains(t, err.Error(), secret)
		require.LessOrEqual(t, strings.Count(err.Error(), "\nin:"), keyinput.MaxFaults-1)
		require.False(t, strings.ContainsFunc(strings.ReplaceAll(err.Error(), "\n", ""), keyinput.Unprintable), "%q", err)
		return nil
	}
	keys := admit.KeyMap{}
	for i, row := range rows {
		require.Equal(t, row.Unnamed, row.Key.ID == "")
		if row.Unnamed {
			row.Key.ID = fmt.Sprintf("unnamed \x01 %d", i)
		}
		keys[row.Digest] = row.Key
	}
	require.Len(t, keys, len(rows))
	// A key file takes them all.
	path := filepath.Join(t.TempDir(), "keys.json")
	require.NoError(t, admit.WriteKeyFile(path, keys))
	read, err := admit.ReadKeyFile(path)
	require.NoError(t, err)
	require.Len(t, read, len(rows))
	return rows
}

func FuzzJSONLines(f *testing.F) {
	for _, seed := range []string{
		`{"id":"a","token":"` + secret + `","meta":{"a":"b"},"scopes":["x"],"expires_at":"2030-01-01T00:00:00Z"}` + "\n{}",
		`{"token":"` + secret + `","limits":[{"name":"minute","requests":1,"per":"60s"}],"quotas":[{"requests":1,"every":"day","soft":true}],"networks":["10.0.0.0/8"]}`,
		`{"` + secret + `":1}`, "[", "null", "{\"id\":\"\xff\"}", `{"expires_at":"0000-01-01T00:00:00+23:59","token":"` + secret + `"}`,
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) { hold(t, text, "json") })
}

// Rows of CSV are also as many as encoding/csv finds.
func FuzzCSV(f *testing.F) {
	for _, seed := range []string{
		"id,token,meta.a,scopes,limits,quotas,networks,expires_at\na," + secret + ",b,x y,minute=1/60s,1/day:soft,10.0.0.0/8,2030-01-01T00:00:00Z\n",
		secret + "\n", "token,owner\n\"" + secret + "\",\"a\nb\"\n", "id;token", "token\r\n" + secret + "\r\n", "token,token",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		rows := hold(t, text, "csv")
		if rows == nil {
			return
		}
		in := csv.NewReader(strings.NewReader(strings.TrimPrefix(text, "\ufeff")))
		in.TrimLeadingSpace = true
		all, err := in.ReadAll()
		require.NoError(t, err)
		require.Len(t, rows, len(all)-1)
	})
}
