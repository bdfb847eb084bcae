package mediatype_test

import (
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/admit-go/admit/internal/mediatype"
	"github.com/admit-go/admit/internal/mediatype/mediatypetest"
)

const (
	jsonType = "application/json"
	csvType  = "text/csv"
	htmlType = "text/html"

	chrome  = "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,image/apng,*/*;q=0.8,application/signed-exchange;v=b3;q=0.7"
	firefox = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"
	safari  = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"
	java    = "text/html, image/gif, image/jpeg, *; q=.2, */*; q=.2" // of java.net.HttpURLConnection
)

func accepts(lines ...string) []string { return lines }

// negotiate returns the offer that is preferred; those that are no media types are
// passed over.
func negotiate(accept []string, offers ...string) (string, bool) {
	var types []mediatype.Type
	for _, offer := range offers {
		if t, err := mediatype.Parse(offer); err == nil && !t.HasWildcard() {
			types = append(types, t)
		}
	}
	if i := mediatype.Negotiate(accept, types); i >= 0 {
		return types[i].String(), true
	}
	return "", false
}

// negotiations are decisions by section of RFC 9110. No answer: 406.
var negotiations = []struct {
	section string
	accept  []string
	offers  []string
	answer  string
}{
	{"12.5.1 absent", nil, accepts(jsonType, csvType), jsonType},
	{"12.5.1 empty", accepts(""), accepts(jsonType, csvType), jsonType},
	{"12.5.1 empty members", accepts(" , ,", ""), accepts(jsonType, csvType), jsonType},
	{"12.5.1 named", accepts(csvType), accepts(jsonType, csvType), csvType},
	{"12.5.1 none", accepts("image/png"), accepts(jsonType, csvType), ""},
	{"12.5.1 any", accepts("*/*"), accepts(jsonType, csvType), jsonType},
	{"12.5.1 any subtype", accepts("text/*"), accepts(jsonType, csvType, htmlType), csvType},
	{"12.5.1 any subtype is not any type", accepts("text/*"), accepts("textual/csv"), ""},
	{"12.5.1 a suffix is not a range", accepts("application/*+json"), accepts("application/vnd.x+json"), ""},

	{"12.5.1 audio", accepts("audio/*; q=0.2, audio/basic"), accepts("audio/mpeg", "audio/basic"), "audio/basic"},
	{"12.5.1 audio, the rest", accepts("audio/*; q=0.2, audio/basic"), accepts("audio/mpeg"), "audio/mpeg"},
	{"12.5.1 elaborate, best", accepts("text/plain; q=0.5, text/html, text/x-dvi; q=0.8, text/x-c"), accepts("text/plain", "text/x-dvi", "text/x-c", "text/html"), "text/x-c"},
	{"12.5.1 elaborate, next", accepts("text/plain; q=0.5, text/html, text/x-dvi; q=0.8, text/x-c"), accepts("text/plain", "text/x-dvi"), "text/x-dvi"},
	{"12.5.1 elaborate, last", accepts("text/plain; q=0.5, text/html, text/x-dvi; q=0.8, text/x-c"), accepts("text/plain"), "text/plain"},

	// The weight comes from the most specific range, not from the highest weight.
	{"12.5.1 specific before any", accepts("*/*, text/html;q=0.1"), accepts(htmlType, jsonType), jsonType},
	{"12.5.1 specific excludes", accepts("application/json;q=0, */*"), accepts(jsonType, csvType), csvType},
	{"12.5.1 specific excludes all", accepts("application/json;q=0, */*"), accepts(jsonType), ""},
	{"12.5.1 subtype excludes", accepts("text/*;q=0, */*;q=0.1"), accepts(csvType, htmlType, jsonType), jsonType},
	{"12.5.1 specific within an exclusion", accepts("text/*;q=0, text/csv;q=0.1"), accepts(htmlType, csvType), csvType},
	{"12.5.1 any excluded", accepts("*/*;q=0"), accepts(jsonType), ""},
	{"12.5.1 parameter before type", accepts("text/html;level=1;q=0.3, text/html;q=0.7"), accepts("text/html;level=1", jsonType, htmlType), htmlType},
	{"12.5.1 more parameters", accepts("text/html;a=1;q=0.1, text/html;a=1;b=2"), accepts("text/html;a=1", "text/html;b=2;a=1"), "text/html;b=2;a=1"},
	{"12.5.1 a parameter on a wildcard", accepts("*/*;a=1;q=0.9, text/*;q=0.5"), accepts("text/html;a=1", "image/png;a=1"), "image/png;a=1"},
	{"12.5.1 a parameter that the offer lacks", accepts("text/html;level=1"), accepts(htmlType), ""},
	{"12.5.1 a parameter of another value", accepts("text/html;level=1"), accepts("text/html;level=2"), ""},
	{"12.5.1 an offer with a parameter", accepts("text/html"), accepts("text/html;level=2"), "text/html;level=2"},
	{"12.5.1 equally specific", accepts("text/html;q=0.2, text/csv;q=0.5, text/html;q=0.8"), accepts(csvType, htmlType), htmlType},
	{"12.5.1 equally specific, one excludes", accepts("text/html;q=0.2, text/csv;q=0.1, text/html;q=0"), accepts(htmlType, csvType), csvType},
	{"12.5.1 tie", accepts("text/csv, application/json"), accepts(jsonType, csvType), jsonType},
	{"12.5.1 tie of specific and wide", accepts("text/csv, */*"), accepts(jsonType, csvType), jsonType},

	{"12.5.1 lines", accepts("text/csv;q=0.5", "application/json;q=0.4, text/html"), accepts(jsonType, csvType, htmlType), htmlType},
	{"12.5.1 case", accepts("TEXT/Csv;Q=0.5, application/JSON;q=0.4"), accepts(jsonType, csvType), csvType},
	{"12.5.1 case of the offer", accepts("text/csv"), accepts("Text/CSV"), "Text/CSV"},
	{"12.5.1 q before others", accepts("text/html;q=0.1;level=1, text/csv;q=0.2"), accepts("text/html;level=1", csvType), csvType},
	{"12.5.1 q before others is no parameter", accepts("text/html;q=0.1;level=1"), accepts(htmlType, csvType), ""},

	{"12.4.2 order", accepts("text/csv;q=0.001, application/json;q=0.002"), accepts(csvType, jsonType), jsonType},
	{"12.4.2 no fraction", accepts("text/csv;q=1., application/json;q=0."), accepts(jsonType, csvType), csvType},
	{"12.4.2 more digits", accepts("text/csv;q=0.12345, application/json;q=0.12344"), accepts(jsonType, csvType), csvType},
	{"12.4.2 so many digits", accepts("text/csv;q=0.00000000000000000001"), accepts(csvType), csvType},
	{"12.4.2 no zero before the point", accepts("text/csv;q=.5, application/json;q=.4"), accepts(jsonType, csvType), csvType},
	{"12.4.2 above 1", accepts("text/csv;q=5, application/json;q=1"), accepts(jsonType, csvType), jsonType},
	{"12.4.2 far above 1", accepts("text/csv;q=18446744073709551616.5, application/json;q=0.9"), accepts(jsonType, csvType), csvType},
	{"12.4.2 ten", accepts("text/csv;q=10, application/json;q=0.9"), accepts(jsonType, csvType), csvType},
	{"12.4.2 digits beyond the ninth", accepts("text/csv;q=0.1234567891, application/json;q=0.1"), accepts(jsonType, csvType), csvType},
	{"12.4.2 ten zeros", accepts("text/csv;q=0.0000000000"), accepts(csvType), ""},
	{"12.4.2 a point alone", accepts("text/csv;q=."), accepts(csvType), csvType},
	{"12.4.2 quoted", accepts(`text/csv;q="0.5", application/json;q=0.4`), accepts(jsonType, csvType), csvType},
	{"12.4.2 negative", accepts("application/json;q=-1, text/csv;q=0.1"), accepts(jsonType, csvType), csvType},
	{"12.4.2 not a number", accepts("application/json;q=high, text/csv;q=0.1"), accepts(jsonType, csvType), csvType},
	{"12.4.2 exponent", accepts("application/json;q=1e0, text/csv;q=0.1"), accepts(jsonType, csvType), csvType},
	{"12.4.2 nothing", accepts("application/json;q=, text/csv;q=0.1"), accepts(jsonType, csvType), csvType},
	{"12.4.2 a point", accepts("application/json;q=., text/csv;q=0.1"), accepts(jsonType, csvType), csvType},
	{"12.4.2 two weights", accepts("application/json;q=1;q=0.5, text/csv;q=0.1"), accepts(jsonType, csvType), csvType},

	{"5.6.1 empty members", accepts(",text/csv,, ,"), accepts(jsonType, csvType), csvType},
	{"5.6.3 space", accepts("\ttext/csv \t; q=0.5 ,\tapplication/json ;\tq=0.4 "), accepts(jsonType, csvType), csvType},
	{"5.6.3 bad space", accepts("text/csv; q = 0.5, application/json; q =0.4"), accepts(jsonType, csvType), csvType},
	{"5.6.6 empty parameters", accepts("text/csv;;q=0.5;, application/json; ;q=0.4"), accepts(jsonType, csvType), csvType},
	{"5.6.4 comma in quotes", accepts(`text/csv;a="b,application/json,c", text/html;q=0.1`), accepts(jsonType, htmlType), htmlType},
	{"5.6.4 semicolon in quotes", accepts(`text/csv;a="b;q=0", text/html;q=0.1`), accepts(htmlType, `text/csv;a="b;q=0"`), `text/csv;a="b;q=0"`},
	{"5.6.4 escaped quote", accepts(`text/csv;a="\",application/json,\"", text/html;q=0.1`), accepts(jsonType, htmlType), htmlType},
	{"5.6.4 never closed", accepts(`text/html;q=0.1, text/csv;a="b, application/json`), accepts(jsonType, htmlType), htmlType},
	{"5.6.4 never closed, next line", accepts(`text/csv;a="b\`, `application/json`), accepts(csvType, jsonType), jsonType},
	{"5.6.4 in the wrong place", accepts(`text/"csv, application/json", text/html;q=0.1`), accepts(jsonType, htmlType), htmlType},
	{"8.3.1 quoted is the same", accepts(`text/html;level="1"`), accepts("text/html;level=1"), "text/html;level=1"},
	{"8.3.1 quoted in the offer", accepts(`text/html;level=1`), accepts(`text/html;level="\1"`), `text/html;level="\1"`},
	{"8.3.1 case of a value", accepts(`text/html;Charset=UTF-8`), accepts(`text/html;charset="utf-8"`), `text/html;charset="utf-8"`},
	{"8.3.1 case of the last letter", accepts(`text/html;v=Z`), accepts(`text/html;v=z`), `text/html;v=z`},
	{"8.3.1 no letters, 32 apart as those of two cases", accepts(`text/html;v="?"`), accepts(`text/html;v=_`), ""},
	{"8.3.1 a longer value", accepts(`text/html;level="12"`), accepts(`text/html;level="1"`, `text/html;level=123`), ""},

	// A client that asks for UTF-8 takes JSON, which has no charset.
	{"charset not in the offer", accepts("application/json;charset=utf-8"), accepts(jsonType), jsonType},
	{"charset not in the offer, whichever", accepts("application/json;charset=latin1"), accepts(jsonType), jsonType},
	{"charset in the offer", accepts("text/csv;charset=latin1"), accepts("text/csv;charset=utf-8"), ""},
	{"charset ignored is not specific", accepts("text/csv;charset=utf-8;q=0.1, text/csv;q=0.9, text/html;q=0.5"), accepts(htmlType, csvType), csvType},
	{"charset and another", accepts("text/csv;charset=utf-8;header=present"), accepts(csvType), ""},

	{"malformed: */json", accepts("*/json, text/csv;q=0.1"), accepts(jsonType, csvType), csvType},
	{"malformed: no subtype", accepts("application, application/, /json, text/csv;q=0.1"), accepts(jsonType, csvType), csvType},
	{"malformed: no value", accepts("application/json;x, text/csv;q=0.1"), accepts(jsonType, csvType), csvType},
	{"malformed: two types", accepts("application/json text/html, text/csv;q=0.1"), accepts(jsonType, csvType), csvType},
	{"malformed: all of it", accepts("json", "*/json;q=1, text/csv;q=x"), accepts(jsonType, csvType), jsonType},
	{"malformed: no slash", accepts("json;level"), accepts(csvType), csvType},
	{"malformed: no type", accepts("/json"), accepts(csvType), csvType},
	{"malformed: nothing after the slash", accepts("application/"), accepts(csvType), csvType},
	{"malformed: a parameter alone", accepts("text/html;x"), accepts(htmlType), htmlType},
	{"malformed: two types alone", accepts("text/html text/csv"), accepts(htmlType), htmlType},
	{"malformed: what is left of a member is none", accepts("text/html xtext/csv, application/json;q=0.1"), accepts(csvType, jsonType), jsonType},
	{"malformed: a star is no prefix", accepts("text*, text/c*, te*/csv"), accepts(csvType), ""},

	{"legacy *", accepts("*"), accepts(jsonType), jsonType},
	{"legacy *, weighed", accepts("text/csv;q=0.2, *;q=0.1, image/png"), accepts(jsonType, csvType), csvType},
	{"legacy *, alone among others", accepts("image/png, * ;q=0.1"), accepts(jsonType), jsonType},
	{"legacy *, excluded", accepts("text/csv, * ; q=0"), accepts(jsonType, csvType), csvType},
	{"Java", accepts(java), accepts(jsonType, htmlType), htmlType},
	{"Java, no HTML", accepts(java), accepts(jsonType, csvType), jsonType},
	{"Chrome", accepts(chrome), accepts(jsonType, csvType, htmlType), htmlType},
	{"Chrome, no HTML", accepts(chrome), accepts(jsonType, csvType), jsonType},
	{"Chrome, XML", accepts(chrome), accepts(jsonType, "application/xml"), "application/xml"},
	{"Chrome, signed exchange", accepts(chrome), accepts("application/signed-exchange;v=b3", jsonType), jsonType},
	{"Chrome, image", accepts("image/avif,image/webp,image/apng,image/svg+xml,image/*,*/*;q=0.8"), accepts(jsonType, "image/jpeg"), "image/jpeg"},
	{"Firefox", accepts(firefox), accepts(jsonType, htmlType), htmlType},
	{"Safari", accepts(safari), accepts(jsonType, "application/xhtml+xml"), "application/xhtml+xml"},
	{"curl", accepts("*/*"), accepts(csvType, jsonType), csvType},
	{"axios", accepts("application/json, text/plain, */*"), accepts(htmlType, jsonType), htmlType},
	{"jQuery", accepts("application/json, text/javascript, */*; q=0.01"), accepts(htmlType, jsonType), jsonType},

	{"no offer", accepts("*/*"), nil, ""},
	{"no offer, no header", nil, nil, ""},
	{"offers that are none", accepts("*/*"), accepts("json", "/json", "text json", "text/*", "*/*", "text/html;a", "a/b;c=1;C=2", csvType), csvType},
	{"offers that are none, no header", nil, accepts("json"), ""},
}

func TestNegotiate(t *testing.T) {
	t.Parallel()
	for _, test := range negotiations {
		offer, ok := negotiate(test.accept, test.offers...)
		assert.Equal(t, test.answer, offer, "%s: %q for %q", test.section, test.offers, test.accept)
		assert.Equal(t, test.answer != "", ok, "%s: %q for %q", test.section, test.offers, test.accept)

		reference, _ := mediatypetest.Negotiate(test.accept, test.offers...)
		assert.Equal(t, test.answer, reference, "the reference, %s", test.section)
	}
}

// The weights of RFC 9110 §12.5.1, with erratum 7138: text/html;level=3 has 0.3, that
// of text/*. A type is compared with a probe whose weight is just above or below.
func TestWeightsOfTheRFC(t *testing.T) {
	t.Parallel()
	const accept = "text/*;q=0.3, text/plain;q=0.7, text/plain;format=flowed, text/plain;format=fixed;q=0.4, */*;q=0.5"
	for offer, weights := range map[string]struct{ below, above string }{
		"text/plain;format=flowed": {"0.999", ""},
		"text/plain":               {"0.699", "0.701"},
		"text/html":                {"0.299", "0.301"},
		"image/jpeg":               {"0.499", "0.501"},
		"text/plain;format=fixed":  {"0.399", "0.401"},
		"text/html;level=3":        {"0.299", "0.301"},
	} {
		got, _ := negotiate(accepts(accept+", a/probe;q="+weights.below), "a/probe", offer)
		assert.Equal(t, offer, got, "more than %s", weights.below)
		if weights.above != "" {
			got, _ = negotiate(accepts(accept+", a/probe;q="+weights.above), offer, "a/probe")
			assert.Equal(t, "a/probe", got, "%s is less than %s", offer, weights.above)
		}
	}
}

// A megabyte is what net/http lets through at most by default. Work that grows with
// its square would take hours here.
func TestNegotiateHostileHeaders(t *testing.T) {
	t.Parallel()
	const size = 1 << 20
	offers := []string{jsonType, csvType, `text/html;level="\1";v=2`}
	for name, accept := range map[string][]string{
		"ranges":           accepts(strings.Repeat("text/*;q=0.5,", size/13) + csvType),
		"lines":            append(slices.Repeat(accepts("text/*;q=0.5"), size/12), csvType),
		"parameters":       accepts("application/json" + strings.Repeat(";a=b", size/4) + ", text/csv;q=0.1"),
		"same parameter":   accepts("text/html" + strings.Repeat(`;level="1"`, size/10) + ";q=0, text/html;q=0, text/csv"),
		"empty members":    accepts(strings.Repeat(", ", size/2) + csvType),
		"empty parameters": accepts("text/csv" + strings.Repeat("; ", size/2)),
		"weights":          accepts(strings.Repeat("text/*;q=0.5;q=0.5,", size/19) + csvType),
		"a long weight":    accepts("application/json;q=0." + strings.Repeat("0", size) + "1, text/csv"),
		"a long name":      accepts(strings.Repeat("a", size) + "/" + strings.Repeat("b", size) + ", text/csv"),
		"a long value":     accepts(`text/html;level="` + strings.Repeat(`\1`, size/2) + `", text/csv`),
		"open quotes":      append(slices.Repeat(accepts(`a/b;c="`), size/7), csvType),
		"closed quotes":    accepts(strings.Repeat(`",",`, size/4) + csvType),
	} {
		got, ok := negotiate(accept, offers...)
		assert.True(t, ok, name)
		assert.Equal(t, csvType, got, name)
	}
}

// One pass over the header rates sixteen offers: fifty need more than one.
func TestNegotiateManyOffers(t *testing.T) {
	t.Parallel()
	var offers []string
	for i := range 50 {
		offers = append(offers, "application/vnd.v"+strings.Repeat("i", i+1)+"+json")
	}
	for i, offer := range offers {
		got, _ := negotiate(accepts("*/*;q=0.1, "+offer+";q=0.9"), offers...)
		assert.Equal(t, offer, got)
		got, _ = negotiate(accepts(strings.Join(offers[i:], ", ")), offers...)
		assert.Equal(t, offer, got)
	}
	_, ok := negotiate(accepts(htmlType), offers...)
	assert.False(t, ok)
	got, _ := negotiate(nil, offers...)
	assert.Equal(t, offers[0], got)
}

func TestPrefers(t *testing.T) {
	t.Parallel()
	problem, json := parse(t, "application/problem+json"), parse(t, jsonType)
	for accept, want := range map[string]bool{
		"":                             false,
		"*/*":                          false,
		"application/*":                false,
		"application/problem+json":     true,
		"Application/Problem+JSON;q=1": true,
		"application/problem+json, application/json":                              false,
		"application/problem+json, application/json;q=0.999999999":                true,
		"application/problem+json;q=0.999999999, application/json":                false,
		"application/problem+json;q=0.00000000001, application/json;q=0":          true,
		"application/problem+json;q=0, application/json;q=0":                      false,
		"application/problem+json;q=0, application/problem+json":                  false,
		"application/problem+json;q=0.1, */*":                                     true,
		`text/html;a=", application/problem+json"`:                                false,
		"application/problem+json;q=0.2, application/json;v=1, application/*;q=1": true,
	} {
		assert.Equal(t, want, mediatype.Prefers(accepts(accept), problem, json), accept)
	}
	assert.True(t, mediatype.Prefers(accepts("application/json;q=0.1", "application/problem+json;q=0.2"), problem, json), "two lines")
}

func TestAcceptAllocatesNothing(t *testing.T) {
	offers := []mediatype.Type{parse(t, jsonType), parse(t, csvType), parse(t, "text/html;charset=utf-8")}
	for _, accept := range [][]string{
		nil, accepts(chrome), accepts(csvType, chrome, java), accepts(`a/b;c="`, "json, text/html;q=x"),
		accepts(`text/html;charset="\u\t\f-8";q=0.3, text/html;charset="utf\-7"`),
	} {
		assert.Zero(t, testing.AllocsPerRun(100, func() { mediatype.Negotiate(accept, offers) }), "Negotiate %q", accept)
		assert.Zero(t, testing.AllocsPerRun(100, func() { mediatype.Prefers(accept, offers[0], offers[1]) }), "Prefers %q", accept)
	}
}

func TestNegotiateAgreesWithReference(t *testing.T) {
	t.Parallel()
	headers := 10_000
	if testing.Short() {
		headers = 2_000
	}
	seed := rand.Uint64() // -count=N looks at N times as many
	r := mediatypetest.NewRandom(seed)
	chosen := 0
	for range headers {
		accept, offers := r.Accept(), r.Offers()
		want, wantOK := mediatypetest.Negotiate(accept, offers...)
		got, ok := negotiate(accept, offers...)
		require.Equal(t, want, got, "seed %d: Accept %q, offers %q", seed, accept, offers)
		require.Equal(t, wantOK, ok, "seed %d: Accept %q, offers %q", seed, accept, offers)
		if ok {
			chosen++
		}
	}
	assert.Greater(t, chosen, headers/4, "too few of the headers accept anything")
	assert.Less(t, chosen, headers*19/20, "too few of the headers refuse")
}

func FuzzNegotiate(f *testing.F) {
	for _, example := range negotiations {
		f.Add(strings.Join(example.accept, "\n"), strings.Join(example.offers, "\n"), uint64(0))
	}
	r := mediatypetest.NewRandom(1)
	for range 50 {
		f.Add(strings.Join(r.Accept(), "\n"), strings.Join(r.Offers(), "\n"), r.Uint64())
	}
	f.Fuzz(func(t *testing.T, header, offered string, seed uint64) {
		accept, offers := strings.Split(header, "\n"), strings.Split(offered, "\n")
		r := mediatypetest.NewRandom(seed)
		got, ok := negotiate(accept, offers...)

		want, wantOK := mediatypetest.Negotiate(accept, offers...)
		require.Equal(t, want, got, "the reference")
		require.Equal(t, wantOK, ok, "the reference")
		if ok {
			require.Contains(t, offers, got)
		}
		same := func(accept []string, why string) {
			t.Helper()
			again, againOK := negotiate(accept, offers...)
			require.Equal(t, got, again, "%s: %q", why, accept)
			require.Equal(t, ok, againOK, "%s: %q", why, accept)
		}
		var members []string
		for _, line := range accept {
			members = append(members, mediatypetest.Split(line, ',')...)
		}
		same(members, "a line for each member")
		r.Shuffle(len(members), func(i, j int) { members[i], members[j] = members[j], members[i] })
		same(members, "another order")

		if joined := strings.Join(accept, ","); !strings.Contains(joined, `"`) {
			same([]string{joined}, "one line")
			same([]string{mediatypetest.Lower(joined)}, "lower case")
			same([]string{mediatypetest.Upper(joined)}, "upper case")
			same([]string{" " + strings.NewReplacer(",", " ,\t", ";", "\t; ").Replace(joined) + " "}, "space")
			same([]string{strings.NewReplacer(",", ",,", ";", ";;").Replace(joined)}, "empty members and parameters")
		}
		if chosen, _ := mediatypetest.Parse(got); ok {
			if _, weighted := chosen.Param("q"); weighted {
				return
			}
			excluded := append(slices.Clone(accept), got+";q=0")
			again, againOK := negotiate(excluded, offers...)
			require.False(t, againOK && again == got, "%q was excluded", got)
		}
	})
}
