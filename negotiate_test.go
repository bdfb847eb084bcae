package admit_test

import (
	"context"
	"encoding/json"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/admit-go/admit"
	"github.com/admit-go/admit/internal/mediatype/mediatypetest"
)

const (
	jsonType = "application/json"
	csvType  = "text/csv"
	htmlType = "text/html"

	chrome = "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,image/apng,*/*;q=0.8,application/signed-exchange;v=b3;q=0.7"
	java   = "text/html, image/gif, image/jpeg, *; q=.2, */*; q=.2" // of java.net.HttpURLConnection
)

func accepts(lines ...string) []string { return lines }

// The rules are those of internal/mediatype; these are what Negotiate adds to them.
func TestNegotiate(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		accept []string
		offers []string
		answer string
	}{
		"no offer":                        {accepts("*/*"), nil, ""},
		"no offer, no header":             {nil, nil, ""},
		"no header":                       {nil, accepts(jsonType, csvType), jsonType},
		"none accepted":                   {accepts("image/png"), accepts(jsonType, csvType), ""},
		"as it was given":                 {accepts("text/csv"), accepts(jsonType, " Text/CSV ; header=present"), " Text/CSV ; header=present"},
		"a weight is a parameter":         {accepts("text/csv"), accepts("text/csv;q=0"), "text/csv;q=0"},
		"offers that are none":            {accepts("*/*"), accepts("json", "/json", "text json", "text/*", "*/*", "text/html;a", "a/b;c=1;C=2", csvType), csvType},
		"offers that are none, no header": {nil, accepts("json"), ""},
		"lines":                           {accepts("image/png", "text/csv;q=0.1"), accepts(jsonType, csvType), csvType},
		"Java":                            {accepts(java), accepts(jsonType, htmlType), htmlType},
	} {
		offer, ok := admit.Negotiate(test.accept, test.offers...)
		assert.Equal(t, test.answer, offer, name)
		assert.Equal(t, test.answer != "", ok, name)
	}
}

// A Negotiator decides about some headers at construction: no answer may change by that.
func TestNegotiateAgreesWithReference(t *testing.T) {
	t.Parallel()
	headers := 5_000
	if testing.Short() || raceDetector {
		headers = 1_000
	}
	seed := rand.Uint64() // -count=N looks at N times as many
	r := mediatypetest.NewRandom(seed)
	configured := 0
	for range headers {
		accept, offers := r.Accept(), r.Offers()
		if r.IntN(4) == 0 {
			accept = offers[:1]
		}
		want, wantOK := mediatypetest.Negotiate(accept, offers...)
		got, ok := admit.Negotiate(accept, offers...)
		require.Equal(t, want, got, "seed %d: Accept %q, offers %q", seed, accept, offers)
		require.Equal(t, wantOK, ok, "seed %d: Accept %q, offers %q", seed, accept, offers)
		if n, err := admit.NewNegotiator(admit.NegotiatorConfig{Offers: offers}); err == nil {
			got, ok = n.Negotiate(accept)
			require.Equal(t, want, got, "seed %d: configured, Accept %q, offers %q", seed, accept, offers)
			require.Equal(t, wantOK, ok)
			configured++
		}
	}
	assert.Greater(t, configured, headers/4, "too few of the offers can be configured")
}

func TestNegotiateManyOffers(t *testing.T) {
	t.Parallel()
	var offers []string
	for i := range 50 {
		offers = append(offers, "application/vnd.v"+strings.Repeat("i", i+1)+"+json")
	}
	n, err := admit.NewNegotiator(admit.NegotiatorConfig{Offers: offers})
	require.NoError(t, err)
	for i, offer := range offers {
		accept := accepts("*/*;q=0.1, " + offer + ";q=0.9")
		got, ok := admit.Negotiate(accept, offers...)
		assert.True(t, ok)
		assert.Equal(t, offer, got)
		got, _ = n.Negotiate(accept)
		assert.Equal(t, offer, got)
		got, _ = n.Negotiate(accepts(offer))
		assert.Equal(t, offer, got)
		got, _ = n.Negotiate(accepts(strings.Join(offers[i:], ", ")))
		assert.Equal(t, offer, got)
	}
	_, ok := n.Negotiate(accepts("text/html"))
	assert.False(t, ok)
	got, _ := n.Negotiate(nil)
	assert.Equal(t, offers[0], got)
}

func TestNegotiateAllocatesNothing(t *testing.T) {
	offers := []string{jsonType, csvType, "text/html;charset=utf-8"}
	n, err := admit.NewNegotiator(admit.NegotiatorConfig{Offers: offers})
	require.NoError(t, err)
	for name, accept := range map[string][]string{
		"absent":     nil,
		"one":        accepts(jsonType),
		"Chrome":     accepts(chrome),
		"upper case": accepts(strings.ToUpper(chrome)),
		"lines":      accepts(csvType, chrome, java),
		"escapes":    accepts(`text/html;charset="\u\t\f-8";q=0.3, text/html;charset="utf\-7"`),
		"refused":    accepts("image/png"),
		"malformed":  accepts(`a/b;c="`, "json, text/html;q=x"),
		"hostile":    accepts(strings.Repeat(`text/html;charset="\u";q=0.1;`, 2000), strings.Repeat("application/json,", 2000)),
	} {
		t.Run(name, func(t *testing.T) {
			allocs(t, 0, func() { n.Negotiate(accept) })
			allocs(t, 0, func() { admit.Negotiate(accept, offers...) })
		})
	}
}

// chosen answers with the media type that Accept chose.
var chosen = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
	_, _ = io.WriteString(w, admit.MediaTypeFrom(r.Context()))
})

func TestAcceptChooses(t *testing.T) {
	t.Parallel()
	h := admit.Accept(jsonType, csvType)(chosen)
	for accept, want := range map[string]string{"": jsonType, csvType: csvType, "text/*": csvType, chrome: jsonType} {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, get("/", "Accept", accept))
		assert.Equal(t, http.StatusOK, w.Code)
		assert.Equal(t, want, w.Body.String(), "for %q", accept)
		assert.Equal(t, []string{"Accept"}, w.Header()["Vary"])
	}
	assert.Empty(t, admit.MediaTypeFrom(context.Background()))
}

func TestAcceptRefuses(t *testing.T) {
	t.Parallel()
	h := admit.Accept(jsonType, csvType)(chosen)
	w := httptest.NewRecorder()
	h.ServeHTTP(w, get("/", "Accept", "image/png"))
	require.Equal(t, http.StatusNotAcceptable, w.Code)
	e := readEnvelope(t, w.Code, w.Header(), w.Body.Bytes())
	assert.Equal(t, "not_acceptable", e.Code)
	assert.Contains(t, e.Message, "application/json, text/csv")
	assert.Equal(t, []string{"Accept"}, w.Header()["Vary"])
	var body struct{ Offers []string }
	require.NoError(t, json.Unmarshal(w.Body.Bytes(), &body))
	assert.Equal(t, []string{jsonType, csvType}, body.Offers)

	w = httptest.NewRecorder()
	h.ServeHTTP(w, newRequest(http.MethodHead, "/", "", "Accept", "image/png"))
	assert.Equal(t, http.StatusNotAcceptable, w.Code)
	assert.Empty(t, w.Body.String())
	assert.Equal(t, []string{"Accept"}, w.Header()["Vary"])
}

func TestAcceptFallback(t *testing.T) {
	t.Parallel()
	n, err := admit.NewNegotiator(admit.NegotiatorConfig{Offers: []string{jsonType, csvType}, Fallback: csvType})
	require.NoError(t, err)
	for accept, want := range map[string]string{"": jsonType, "image/png": csvType, "text/csv;q=0": csvType, "*/*": jsonType} {
		w := httptest.NewRecorder()
		n.Wrap(chosen).ServeHTTP(w, get("/", "Accept", accept))
		assert.Equal(t, want, w.Body.String(), "for %q", accept)
		assert.Equal(t, []string{"Accept"}, w.Header()["Vary"])
	}
}

func TestAcceptMergesVary(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct{ outside, want []string }{
		"nothing":        {nil, []string{"Accept"}},
		"empty":          {[]string{}, []string{"Accept"}},
		"another":        {[]string{"Origin"}, []string{"Origin", "Accept"}},
		"there":          {[]string{"accept"}, []string{"accept"}},
		"among others":   {[]string{"Origin, ACCEPT", "Cookie"}, []string{"Origin, ACCEPT", "Cookie"}},
		"a longer name":  {[]string{"Accept-Language"}, []string{"Accept-Language", "Accept"}},
		"star":           {[]string{"*"}, []string{"*"}},
		"a star of many": {[]string{"Origin, *"}, []string{"Origin, *"}},
	} {
		for _, accept := range []string{jsonType, "image/png"} {
			w := httptest.NewRecorder()
			if test.outside != nil {
				w.Header()["Vary"] = test.outside
			}
			admit.Accept(jsonType)(chosen).ServeHTTP(w, get("/", "Accept", accept))
			assert.Equal(t, test.want, w.Header()["Vary"], "%s, Accept: %s", name, accept)
		}
	}
}

// A handler that adds to Vary must not add to that of other responses.
func TestVaryIsNotShared(t *testing.T) {
	t.Parallel()
	adding := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.Header().Add("Vary", "Cookie") })
	h := admit.Accept(jsonType)(adding)
	for range 3 {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, get("/"))
		assert.Equal(t, []string{"Accept", "Cookie"}, w.Header()["Vary"])
	}
}

func TestAcceptInsideAccept(t *testing.T) {
	t.Parallel()
	var outside string
	inner := admit.Accept(csvType)(chosen)
	between := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		inner.ServeHTTP(w, r)
		outside = admit.MediaTypeFrom(r.Context())
	})
	w := httptest.NewRecorder()
	admit.Accept(jsonType, csvType)(between).ServeHTTP(w, get("/", "Accept", "*/*"))
	assert.Equal(t, csvType, w.Body.String())
	assert.Equal(t, jsonType, outside)
	assert.Equal(t, []string{"Accept"}, w.Header()["Vary"])
}

func TestAcceptAllocations(t *testing.T) {
	h := admit.RequestID(admit.Accept(jsonType, csvType)(ok))
	alone := admit.RequestID(ok)
	r, w := get("/", "Accept", chrome), newDiscard()
	base := testing.AllocsPerRun(200, func() { clear(w.h); alone.ServeHTTP(w, r) })
	allocs(t, base, func() { clear(w.h); h.ServeHTTP(w, r) })
}

func TestAcceptPanics(t *testing.T) {
	t.Parallel()
	for message, offers := range map[string][]string{
		`admit: Accept has no offer; name what the handler can send, such as "application/json"`:                                             nil,
		`admit: Accept[0] is "json", which is not of the form type/subtype`:                                                                  {"json"},
		`admit: Accept[0] is "", which is not of the form type/subtype`:                                                                      {""},
		`admit: Accept[0] is "text/*", which is a range; name each type that the handler can send`:                                           {"text/*"},
		`admit: Accept[0] is "a/b;q=0.5", which has a weight; the order of the offers is their preference`:                                   {"a/b;q=0.5"},
		`admit: Accept[1] is "A/b", which is given twice`:                                                                                    {"a/b", "A/b"},
		`admit: Accept[0] is " a/b", which has space around it`:                                                                              {" a/b"},
		`admit: Accept[0] is "a/b;c", which has a parameter that is not of the form name=value`:                                              {"a/b;c"},
		`admit: Accept[0] is "a/b;c=1;C=1", which has a parameter twice`:                                                                     {"a/b;c=1;C=1"},
		`admit: Accept[0] is "a/b, c/d", which has something else after type/subtype than parameters`:                                        {"a/b, c/d"},
		"admit: Accept[0] is \"x\", which is not of the form type/subtype\nadmit: Accept[1] is \"y\", which is not of the form type/subtype": {"x", "y"},
		`admit: Accept: the handler is nil`:                                                                                                  {"a/b"},
	} {
		assert.Equal(t, message, panicOf(func() { admit.Accept(offers...)(nil) }))
	}
}

func TestNewNegotiatorJoinsFaults(t *testing.T) {
	t.Parallel()
	_, err := admit.NewNegotiator(admit.NegotiatorConfig{Offers: []string{"json", csvType, "text/*"}, Fallback: htmlType})
	require.EqualError(t, err, `admit: NegotiatorConfig.Offers[0] is "json", which is not of the form type/subtype
admit: NegotiatorConfig.Offers[2] is "text/*", which is a range; name each type that the handler can send
admit: NegotiatorConfig.Fallback is "text/html", which is not one of the Offers`)
	_, err = admit.NewNegotiator(admit.NegotiatorConfig{})
	assert.Error(t, err)
}

func TestNegotiatorCopiesItsConfig(t *testing.T) {
	t.Parallel()
	offers := []string{jsonType, csvType}
	n, err := admit.NewNegotiator(admit.NegotiatorConfig{Offers: offers})
	require.NoError(t, err)
	offers[0] = htmlType
	got, _ := n.Negotiate(nil)
	assert.Equal(t, jsonType, got)
	w := httptest.NewRecorder()
	n.Wrap(chosen).ServeHTTP(w, get("/", "Accept", htmlType))
	assert.Equal(t, http.StatusNotAcceptable, w.Code)
	assert.NotContains(t, w.Body.String(), htmlType)
}

// An error is problem+json for a client that names it with a higher weight than
// JSON, or does not name JSON (RFC 9457 §3).
func TestErrorsAreProblemsWhenPreferred(t *testing.T) {
	t.Parallel()
	const problem = "application/problem+json"
	h := fails(admit.NewError(http.StatusConflict, ""))
	for accept, want := range map[string]string{
		"":                                       jsonType,
		"*/*":                                    jsonType,
		"application/*":                          jsonType,
		"text/html, application/xhtml+xml":       jsonType,
		problem:                                  problem,
		"Application/Problem+JSON":               problem,
		problem + ", application/json":           jsonType,
		problem + ", application/json;q=0.9":     problem,
		problem + ", */*":                        problem,
		"+, " + problem:                          problem,
		problem + ";q=0.1, application/*":        problem,
		problem + ";q=0.5, application/json":     jsonType,
		problem + ";q=0":                         jsonType,
		problem + ";q=0.1, application/json;q=0": problem,
		`text/html;a=", ` + problem + `"`:        jsonType,
		"application/not-problem+json":           jsonType,
	} {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, get("/", "Accept", accept))
		assert.Equal(t, want, w.Header().Get("Content-Type"), "for %q", accept)
	}
}

func TestAcceptOverTheWire(t *testing.T) {
	t.Parallel()
	server := serve(t, "HTTP/1.1", admit.Accept(jsonType, csvType)(chosen))
	for _, test := range []struct {
		method string
		accept []string
		status int
		body   string
	}{
		{http.MethodGet, nil, http.StatusOK, jsonType},
		{http.MethodGet, accepts(chrome), http.StatusOK, jsonType},
		{http.MethodGet, accepts("text/csv;q=0.5", "application/json;q=0.4"), http.StatusOK, csvType},
		{http.MethodGet, accepts("image/png", "text/html"), http.StatusNotAcceptable, `"offers":["application/json","text/csv"]`},
		{http.MethodHead, accepts("image/png"), http.StatusNotAcceptable, ""},
	} {
		r, err := http.NewRequest(test.method, server.URL, nil)
		require.NoError(t, err)
		r.Header["Accept"] = test.accept
		response, err := server.Client().Do(r)
		require.NoError(t, err)
		body, err := io.ReadAll(response.Body)
		require.NoError(t, err)
		require.NoError(t, response.Body.Close())
		assert.Equal(t, test.status, response.StatusCode, "for %q", test.accept)
		assert.Contains(t, string(body), test.body)
		assert.Equal(t, []string{"Accept"}, response.Header["Vary"])
	}
}
