package admit_test

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"math"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/admit-go/admit"
	"github.com/admit-go/admit/contract"
	"github.com/admit-go/admit/internal/jsonfault"
	"github.com/admit-go/admit/internal/jsontree"
	"github.com/admit-go/admit/internal/keyform"
	"github.com/admit-go/admit/internal/mediatype"
	"github.com/admit-go/admit/internal/mint"
)

// costs are the parsers of the package and of internal/, each by its fuzz target, with the
// texts that are most work for them.
func costs(t *testing.T) map[string][]parsing {
	types, err := admit.NewContentTypes(admit.ContentTypesConfig{
		Allow: []string{"application/json", "text/*", "application/*+json"}, Encodings: []string{"gzip"},
	})
	require.NoError(t, err)
	offers := []mediatype.Type{}
	for _, text := range []string{"application/json", `text/html;level=1;a="b\"c"`, "text/html;charset=utf-8"} {
		offer, err := mediatype.Parse(text)
		require.NoError(t, err)
		offers = append(offers, offer)
	}
	auth := newAuth(t, admit.AuthConfig{
		Store:    admit.KeyMap{},
		Sources:  []admit.KeySource{admit.FromBearer(), admit.FromHeader("X-API-Key"), admit.FromQuery("key"), admit.FromCookie("key")},
		Optional: true,
	}).Wrap(ok)
	proxies := map[string]http.Handler{}
	for _, name := range []string{"Forwarded", "X-Forwarded-For"} {
		proxies[name] = admit.ClientIP(name, netip.MustParsePrefix("10.0.0.0/8"))(ok)
	}
	serve := func(h http.Handler, r *http.Request) { h.ServeHTTP(newDiscard(), r) }
	header := func(h http.Handler, name string) func(string) {
		return func(text string) {
			r := get("/")
			r.RemoteAddr = "10.0.0.1:1"
			r.Header[name] = []string{text}
			serve(h, r)
		}
	}
	body := func(h http.Handler, contentType string) func(string) {
		return func(text string) { serve(h, newRequest("POST", "/", text, "Content-Type", contentType)) }
	}
	form := admit.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) error { return admit.ParseForm(r, 1<<20) })
	file := filepath.Join(t.TempDir(), "keys.json")

	hops := []string{",", `"`, `\`, `\"`, `"\",`, ";", "for=10.0.0.1,", "10.0.0.1,", `for="10.0.0.1:_x";a="b,c",`, "for=10.0.0.1;", ":", "[", `for="[fd00::1]:1",`}
	ranges := []string{",", ";", `"`, `\`, "a/b,", "*/*,", "text/html;level=1,", "text/html;level=1;", "text/html;q=0.5;", `text/html;a="b\"c",`, `a/b;c=",`, "text/html;charset=utf-8;charset=utf-8;"}
	pairs := []string{"&", ";", "=", "%41", "%zz&", "key=a&", "a=b&", "key=a; ", "a=b; ", `key="`, " "}
	type valued struct {
		Name    string
		N       int `json:"n,string"`
		Numbers map[string][]int
		Times   []time.Time
		Any     any
		Fixed   [][2]int
		Below   []valued
	}
	explain := func(text string) {
		switch err := jsonfault.NewReader([]byte(text)).Decode(new(valued)); {
		case err == nil:
			jsonfault.Forgiven([]byte(text), reflect.TypeFor[valued]())
		case !errors.Is(err, jsonfault.ErrSyntax):
			jsonfault.Explain([]byte(text), reflect.TypeFor[valued]())
		}
	}
	values := []text{
		around(`{"Numbers":{"`, "k", `":["",1]}}`), around(`{"Numbers":{"kkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkk":[`, `"",`, `1]}}`), around(`{"Any":`, "[", ""), around(`{"Any":[`, strings.Repeat("[", 1000)+strings.Repeat("]", 1000)+",", "1e400]}"),
		{"half a name, half faults", func(n int) string {
			return `{"Numbers":{"` + strings.Repeat("k", n/2) + `":[` + strings.Repeat(`"",`, n/6) + `1]}}`
		}},
		around(`{"Any":[`, "1.5e300,", "1e400]}"), around(`{"Any":`, "1", "e400}"), around("{", `"n":"1",`, `"x":1}`), around(`{"x":1`, `,"n":"1"`, "}"),
		around("{", `"NAME":"",`, `"x":1}`), around("{", `"x":1,`, `"n":1}`), around(`{"Times":[`, `"2026-01-02T03:04:05Z",`, `""]}`), around(`{"Fixed":[`, "[1,2],", "[1,2,3]]}"),
		counted("{", `"%d":1,`, `"n":1}`), counted(`{"Numbers":{`, `"%d":[],`, `"a":1}}`), around(`{"Below":[`, `{"Below":[]},`, "1]}"), around(`{"name":"`, `\u0041`, `","x":1}`), around(`{"Below":[`, " ", "]}"), around(`{"name":"`, "a", ""),
	}
	keys := []text{
		around("", "\n", "{}"), around(`{"keys":[`, "[],", "]}"), around(`{"format":9,`, `"x":1,`, `"keys":[]}`),
		around(`{"keys":[`, `{"id":"a","digest":"`+strings.Repeat("0", 64)+`"},`, "{}]}"), around(`{"keys":[{"meta":{`, `"a":"b",`, `"c":1}}]}`),
		around(`{"keys":[{"limits":[`, `{"requests":1,"per":"1s"},`, `1]}]}`), around(`{"keys":[{"quotas":[`, `{"requests":1,"every":"day"},`, `1]}]}`),
		around(`{"keys":[{"networks":[`, `"192.0.2.0/24",`, `1]}]}`), around(`{"keys":[{"scopes":[`, `"a",`, `1]}]}`),
		around(`{"keys":[{"`, "a", `":1}]}`), around(`{"keys":`, "[", ""),
		counted(`{"keys":[`, `{"id":"%d","digest":"%064[1]x"},`+"\n", "{}]}"), counted(`{"keys":[{"id":"a","meta":{`, `"%d":"",`, `"":""}}]}`), counted(`{"format":9,`, `"%d":1,`, `"keys":[]}`),
	}
	api, err := contract.New(contract.Info{Title: "T", Version: "1"}, admit.Policy{})
	require.NoError(t, err)
	api.Declare("GET /v1/x/{id}", admit.Policy{Auth: newAuth(t, admit.AuthConfig{Store: admit.KeyMap{}})})
	const openapi = `{"openapi":"3.1.0",`
	documents := []text{
		around(openapi+`"x":`, "[", ""), around(openapi+`"x":[`, strings.Repeat("[", 100)+strings.Repeat("]", 100)+",", "1]}"), around(openapi+`"x":"`, `\u0041`, `"}`), around("", "openapi:", ""), around("", "\n", ""),
		counted(openapi+`"x":{`, `"%d":[],`, `"":1}}`), counted(openapi+`"paths":{`, `"/%d/{x}":{},`, `"/":{}}}`), counted(openapi+`"paths":{`, `"/v1/x/{%d}":{},`, `"/":{}}}`), around(openapi+`"paths":{"`, "{a}", `":{}}}`), around(openapi+`"paths":{"`, "{", `":{}}}`),
		counted(openapi+`"components":{"schemas":{"Error":1,`, `"Error%d":1,`, `"":1}}}`), counted(openapi+`"x":[`, `{"operationId":"getV1XId%d"},`, "1]}"),
		counted(openapi+`"servers":[`, `{"url":"/%d"},`, `{"url":"/v1"}]}`), around(openapi+`"servers":[{"url":"`, "{a}", `","variables":{"a":{"default":"b"}}}]}`), around(openapi+`"servers":[{"url":"{a}{a}{a}","variables":{"a":{"default":"`, "b", `"}}}]}`),
		counted(openapi+`"paths":{"/x/{a}":{"servers":[`, `{"url":"/v%d"},`, `{"url":"/v1"}]}}}`), counted(openapi+`"paths":{`, `"/%d":{"servers":[{"url":"/v1"}]},`, `"/":{}}}`),
		counted(openapi+`"paths":{"/v1/x/{a}":{"parameters":[`, `{"name":"%d"},`, `1]}}}`), counted(openapi+`"paths":{"/v1/x/{a}":{"get":{"responses":{`, `"%d":{},`, `"":1}}}}}`),
	}

	return map[string][]parsing{
		"FuzzContentType": {
			{append(of(";", ";a=b", `;a="`, `\`, "a", "/", `;a="\\`), counted("", ";a%d=b", "")), func(text string) { _ = types.Check(newRequest("POST", "/", "x", "Content-Type", "text/a"+text)) }},
			{of(",", "gzip,", "identity ,", "a", " "), func(text string) {
				_ = types.Check(newRequest("POST", "/", "x", "Content-Type", "text/a", "Content-Encoding", text))
			}},
		},
		"FuzzCredentials": {
			{of(append(pairs, "Bearer ", "a", ",", "_")...), header(auth, "Authorization")},
			{of(append(pairs, "a", "_")...), header(auth, "X-Api-Key")},
			{append(of(pairs...), counted("", "a%d=b; ", "")), header(auth, "Cookie")},
			{append(of(pairs...), counted("", "a%d=b&", "")), func(text string) {
				r := get("/")
				r.URL.RawQuery = text
				serve(auth, r)
			}},
		},
		"FuzzDecode": {{values, body(admit.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) error {
			_, err := admit.Decode[valued](r)
			return err
		}), jsonType)}},
		"FuzzErrorMessage": {{of("a", "\x00", "<", "\u2028", "\xff", `"`), func(text string) {
			serve(admit.HandlerFunc(func(http.ResponseWriter, *http.Request) error { return admit.NewError(400, text) }), get("/"))
		}}},
		"FuzzFailures":           nil, // it has no text
		"FuzzGate":               nil, // nor has it
		"FuzzIn":                 nil, // nor has the calendar
		"FuzzShares":             nil, // nor have shares
		"FuzzLeases":             nil, // nor leases
		"FuzzMemoryStoreIsExact": nil, // nor has it
		"FuzzForwardedGrammar":   nil, // those of FuzzForwarding
		"FuzzForwardedHost":      nil, // those of FuzzForwarding
		"FuzzMarkdown":           nil, // it writes, and the service alone chooses the text

		"FuzzExplain":    {{values, explain}},
		"FuzzForwarding": {{of(hops...), header(proxies["Forwarded"], "Forwarded")}, {of(hops...), header(proxies["X-Forwarded-For"], "X-Forwarded-For")}},
		"FuzzKeyFile": {{keys, func(text string) {
			require.NoError(t, os.WriteFile(file, []byte(text), 0o600))
			_, _ = admit.ReadKeyFile(file)
		}}},
		"FuzzMerge": {{documents, func(text string) { _, _ = api.Merge([]byte(text)) }}},
		"FuzzNegotiate": {{append(of(ranges...), counted("text/html", ";a%d=b", ""), counted("", "text/html;a=%d,", "")), func(text string) {
			mediatype.Negotiate([]string{text}, offers)
			mediatype.Prefers([]string{text}, offers[0], offers[1])
		}}},
		"FuzzNetwork": {{of("1", ":", ".", "1.", "/", "%"), func(text string) { _, _ = keyform.ParseNetwork(text) }}},
		"FuzzParse": {{append(of(";", ";a=b", `;a="`, `\`, "a", "/"), counted("", ";a%d=b", "")), func(text string) {
			if parsed, err := mediatype.Parse("a/b" + text); err == nil {
				parsed.Param("c")
			}
		}}},
		"FuzzParseForm": {
			{append(of(pairs...), counted("", "a%d=b&", "")), body(form, "application/x-www-form-urlencoded")},
			{[]text{
				around("", "--b\r\nContent-Disposition: form-data; name=a\r\n\r\n\r\n", "--b--\r\n"), around("", "--b\r\n", "--b--\r\n"),
				counted("", "--b\r\nContent-Disposition: form-data; name=%d\r\n\r\n\r\n", "--b--\r\n"), counted("--b\r\nContent-Disposition: form-data; name=a", "; a%d=b", "\r\n\r\n\r\n--b--\r\n"),
				around("", "\r\n--", ""), around("", "-", ""),
				around("--b\r\nContent-Disposition: form-data; name=a", "; a=b", "\r\n\r\n\r\n--b--\r\n"),
				around("--b\r\nContent-Disposition: form-data; name=a", `; filename*0="x"`, "\r\n\r\n\r\n--b--\r\n"), around("--b\r\nA: ", `\"`, "\r\n\r\n\r\n--b--\r\n"), around("--b\r\n", "A: b\r\n", "\r\n\r\n--b--\r\n"),
			}, body(form, "multipart/form-data; boundary=b")},
			{of(";", ";a=b", `;a="`, " ", "\\", "a"), func(text string) { body(form, "multipart/form-data; boundary=b"+text)("--b--\r\n") }},
		},
		"FuzzPattern":   {{of("a", "*", "+", ";"), func(text string) { _, _ = mediatype.ParsePattern("a/" + text) }}},
		"FuzzPer":       {{of("1", "1h", "1ns", ".", "-", "\u00b5"), func(text string) { _, _ = keyform.ParsePer(text) }}},
		"FuzzQuote":     {{of("a", `"`, `\`, "\x00"), func(text string) { _ = mediatype.Quote(text) }}},
		"FuzzRequestID": {{of("a", "-", " "), header(admit.RequestID(ok), "X-Request-Id")}},
		"FuzzTree": {{append(values, of("[", "[[]", " ", `"`, "\xff", "\ufeff")...), func(text string) {
			if v, err := jsontree.Parse([]byte(text)); err == nil {
				jsontree.Equal(v, v.Map(func(_, text string) string { return text }))
				v.Write()
			}
		}}},
		"FuzzWellFormed": {{of("a", "_", "-"), func(text string) { mint.WellFormed(text) }}},
	}
}

// parsing is a parser, and what is much work for it.
type parsing struct {
	texts []text
	parse func(string)
}

// text makes a text of about n bytes.
type text struct {
	name string
	of   func(n int) string
}

func around(before, repeated, after string) text {
	return text{before + repeated + "..." + after, func(n int) string { return before + strings.Repeat(repeated, n/len(repeated)) + after }}
}

// counted is around with a number in each of the repeated.
func counted(before, repeated, after string) text {
	return text{before + repeated + "..." + after, func(n int) string {
		b := []byte(before)
		for i := 0; len(b) < n; i++ {
			b = fmt.Appendf(b, repeated, i)
		}
		return string(b) + after
	}}
}

func of(repeated ...string) (texts []text) {
	for _, s := range repeated {
		texts = append(texts, around("", s, ""))
	}
	return texts
}

// A parser takes time and memory in proportion to its text: what is 64 times as long costs
// no more than eight times as much as 64 of the short ones, where a square would be 64
// times: the machine may do other work, for both as long. Less than 100 ns or 64 bytes for
// each byte is not looked at. The best of several runs counts.
func TestParsersAreLinear(t *testing.T) {
	if raceDetector {
		t.Skip("times are others with it")
	}
	for target, parsings := range costs(t) {
		for _, p := range parsings {
			for _, text := range p.texts {
				if growth := p.growth(text); growth != "" {
					t.Errorf("%s, %.60q: %s", target, text.name, growth)
				}
			}
		}
	}
}

// growth is what 64 texts cost, and one that is as long as all of them; "" if that is in
// proportion.
func (p parsing) growth(text text) string {
	const short, times, most = 4 << 10, 64, 8
	texts := [2]string{text.of(short), text.of(times * short)}
	took := [2]time.Duration{math.MaxInt32, math.MaxInt32}
	allocated := [2]uint64{math.MaxInt32, math.MaxInt32}
	p.parse(texts[0]) // makes what is kept
	for range 10 {
		for i, runs := range [2]int{times, 1} {
			d, n := cost(func() {
				for range runs {
					p.parse(texts[i])
				}
			})
			took[i], allocated[i] = min(took[i], d), min(allocated[i], n)
		}
		n := len(texts[1])
		if took[1] < max(most*took[0], time.Duration(100*n)) && allocated[1] < max(most*allocated[0], uint64(64*n)) {
			return ""
		}
	}
	return fmt.Sprintf("%v and %v, %d and %d bytes", took[0], took[1], allocated[0], allocated[1])
}

// cost is what a call of f takes, and allocates in bytes.
func cost(f func()) (time.Duration, uint64) {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	began := time.Now()
	f()
	took := time.Since(began)
	runtime.ReadMemStats(&after)
	return took, after.TotalAlloc - before.TotalAlloc
}

// What has a fuzz target is a parser: costs has its worst texts, or says why it has none.
func TestCostsAreOfAllParsers(t *testing.T) {
	t.Parallel()
	find := regexp.MustCompile(`(?m)^func (Fuzz\w+)\(`)
	var found []string
	look := func(path string) {
		source, err := os.ReadFile(path)
		require.NoError(t, err)
		for _, target := range find.FindAllStringSubmatch(string(source), -1) {
			found = append(found, target[1])
		}
	}
	here, err := filepath.Glob("*_test.go")
	require.NoError(t, err)
	for _, path := range here {
		look(path)
	}
	for _, dir := range []string{"internal", "contract"} {
		require.NoError(t, filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
			if err == nil && strings.HasSuffix(path, "_test.go") {
				look(path)
			}
			return err
		}))
	}
	assert.ElementsMatch(t, found, slices.Collect(maps.Keys(costs(t))))
}
