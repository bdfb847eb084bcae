package admit_test

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"mime"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/admit-go/admit"
	"github.com/admit-go/admit/internal/mediatype/mediatypetest"
	"github.com/admit-go/admit/internal/testkit"
)

func TestContentType(t *testing.T) {
	t.Parallel()
	typed := func(values ...string) http.Header { return http.Header{"Content-Type": values} }
	coded := func(codings ...string) http.Header {
		return http.Header{"Content-Type": {jsonType}, "Content-Encoding": codings}
	}
	for name, test := range map[string]struct {
		allow  string // space between
		header http.Header
		status int
	}{
		"exact":                {jsonType, typed("application/json"), 200},
		"exact, space":         {jsonType, typed("application/json \t"), 200},
		"exact, case":          {jsonType, typed("Application/JSON"), 200},
		"case of the allowed":  {"Application/JSON", typed("application/json"), 200},
		"allowed with a ;":     {"application/json;", typed("application/json"), 200},
		"second of two":        {"text/csv application/json", typed("application/json"), 200},
		"another":              {jsonType, typed("text/xml"), 415},
		"a longer one":         {jsonType, typed("application/json5"), 415},
		"a longer type":        {jsonType, typed("xapplication/json"), 415},
		"a suffix":             {jsonType, typed("application/vnd.x+json"), 415},
		"other parameters":     {jsonType, typed("application/json;v=1;profile=\"a;b, \\\"c\""), 200},
		"an empty parameter":   {jsonType, typed("application/json;; charset=utf-8;"), 200},
		"space around =":       {jsonType, typed("application/json; charset = utf-8"), 200},
		"sixteen parameters":   {jsonType, typed("application/json" + numbered(16)), 200},
		"seventeen parameters": {jsonType, typed("application/json" + numbered(17)), 415},

		"any subtype":                   {"image/*", typed("image/png"), 200},
		"any subtype, case":             {"Image/*", typed("iMAGE/png"), 200},
		"any subtype of another type":   {"image/*", typed("images/png"), 415},
		"any subtype, and more":         {"image/*", typed("image/svg+xml; charset=utf-8"), 200},
		"any with suffix":               {"application/*+json", typed("application/vnd.api+json"), 200},
		"any with suffix, case":         {"application/*+JSON", typed("Application/vnd.api+json"), 200},
		"any with suffix, the type":     {"application/*+json", typed("application/json"), 415},
		"any with suffix, nothing else": {"application/*+json", typed("application/+json"), 415},
		"any with suffix, another":      {"application/*+json", typed("application/vnd.api+xml"), 415},
		"any with suffix, other type":   {"application/*+json", typed("image/x+json"), 415},
		"any with suffix, in between":   {"application/*+json", typed("application/x+json+xml"), 415},

		"missing":               {jsonType, nil, 415},
		"empty":                 {jsonType, typed(""), 415},
		"two lines":             {jsonType, typed("application/json", "text/xml"), 400},
		"the same line twice":   {jsonType, typed("application/json", "application/json"), 400},
		"two in a line":         {jsonType, typed("application/json, application/json"), 415},
		"no slash":              {jsonType, typed("json"), 415},
		"no subtype":            {jsonType, typed("application/"), 415},
		"no type":               {jsonType, typed("/json"), 415},
		"space inside":          {jsonType, typed("application/ json"), 415},
		"more after it":         {jsonType, typed("application/json charset=utf-8"), 415},
		"parameter, no value":   {jsonType, typed("application/json; charset"), 415},
		"parameter, no name":    {jsonType, typed("application/json; =utf-8"), 415},
		"parameter, empty":      {jsonType, typed("application/json; charset="), 415},
		"quotes not closed":     {jsonType, typed(`application/json; charset="utf-8`), 415},
		"quotes and more":       {jsonType, typed(`application/json; charset="utf-8"x`), 415},
		"parameter twice":       {jsonType, typed("application/json; charset=utf-8; Charset=utf-8"), 415},
		"parameter twice, any":  {jsonType, typed("application/json; v=1; v=2"), 415},
		"parameter of mail":     {jsonType, typed("application/json; charset*=us-ascii'en'utf-16"), 415},
		"parameter of mail, 2":  {jsonType, typed("application/json; *0=utf-16"), 415},
		"wildcard":              {"image/*", typed("image/*"), 415},
		"wildcard, any":         {"image/*", typed("*/*"), 415},
		"wildcard, with suffix": {"application/*+json", typed("application/*+json"), 415},

		"UTF-8":                 {jsonType, typed("application/json; charset=utf-8"), 200},
		"UTF-8, no space":       {jsonType, typed("application/json;charset=utf-8"), 200},
		"UTF-8, upper case":     {jsonType, typed("application/json; charset=UTF-8"), 200},
		"UTF-8, mixed case":     {jsonType, typed("application/json;  Charset=Utf-8"), 200},
		"UTF-8, quoted":         {jsonType, typed(`application/json; charset="utf-8"`), 200},
		"UTF-8, escaped":        {jsonType, typed(`application/json; charset="u\tf-8"`), 200},
		"UTF-8, after another":  {jsonType, typed(`application/json; v="charset=utf-7"; charset=utf-8`), 200},
		"UTF-8 of a pattern":    {"text/*", typed("text/csv; charset=utf-8"), 200},
		"another charset":       {jsonType, typed("application/json; charset=iso-8859-1"), 415},
		"a longer charset":      {jsonType, typed("application/json; charset=utf-80"), 415},
		"another name of UTF-8": {jsonType, typed("application/json; charset=UTF8"), 200},
		"an empty charset":      {jsonType, typed(`application/json; charset=""`), 415},

		"identity":            {jsonType, coded("identity"), 200},
		"identity, case":      {jsonType, coded(" Identity ,"), 200},
		"no coding":           {jsonType, coded(""), 200},
		"gzip":                {jsonType, coded("gzip"), 415},
		"gzip, then identity": {jsonType, coded("identity, gzip"), 415},
		"gzip, another line":  {jsonType, coded("identity", "gzip"), 415},
	} {
		h := admit.ContentType(strings.Fields(test.allow)...)(ok)
		r := newRequest(http.MethodPut, "/", "{}")
		r.Header = test.header
		if test.status == http.StatusOK {
			w := httptest.NewRecorder()
			w.Code = 0 // until the handler says so
			h.ServeHTTP(w, r)
			assert.Equal(t, http.StatusOK, w.Code, name)
			assert.Empty(t, w.Header(), name)
			continue
		}
		e, header := refused(t, h, r, test.status)
		if test.status == http.StatusBadRequest {
			assert.Equal(t, "bad_request", e.Code, name)
			assert.NotContains(t, header, "Accept", name)
			continue
		}
		assert.Equal(t, "unsupported_media_type", e.Code, name)
		if _, refusedCoding := test.header["Content-Encoding"]; refusedCoding {
			assert.Equal(t, []string{"identity"}, header["Accept-Encoding"], name)
			assert.NotContains(t, header, "Accept", name)
		} else {
			assert.Equal(t, []string{strings.ReplaceAll(test.allow, " ", ", ")}, header["Accept"], name)
			assert.NotContains(t, header, "Accept-Encoding", name)
		}
	}
}

// numbered is n parameters.
func numbered(n int) (s string) {
	for i := range n {
		s += fmt.Sprintf("; p%d=%d", i, i)
	}
	return s
}

// A 415 says in the header of the method what is taken (RFC 5789 §2.2, RFC 9110
// §15.5.16); one for a coding says nothing about types.
func TestContentTypeHints(t *testing.T) {
	t.Parallel()
	h := admit.ContentType(jsonType, "text/*")(ok)
	hints := []string{"Accept", "Accept-Post", "Accept-Patch", "Accept-Query", "Accept-Encoding"}
	for method, want := range map[string][]string{
		http.MethodPost:   {"Accept", "Accept-Post"},
		http.MethodPatch:  {"Accept", "Accept-Patch"},
		http.MethodPut:    {"Accept"},
		http.MethodGet:    {"Accept"},
		http.MethodDelete: {"Accept"},
		"QUERY":           {"Accept", "Accept-Query"},
	} {
		for contentType, says := range map[string]string{
			"":                               "no Content-Type",
			"json":                           "malformed",
			"image/png":                      "does not accept this content type",
			"application/json; charset=ucs2": "charset",
		} {
			r := newRequest(method, "/", "{}")
			if contentType != "" {
				r.Header.Set("Content-Type", contentType)
			}
			status, want := http.StatusUnsupportedMediaType, want
			if method == "QUERY" && contentType == "" {
				status, want, says = http.StatusBadRequest, []string{"Accept-Query"}, "needs a Content-Type"
			}
			e, header := refused(t, h, r, status)
			assert.Contains(t, e.Message, says)
			for _, hint := range hints {
				if slices.Contains(want, hint) {
					assert.Equal(t, []string{"application/json, text/*"}, header[hint], "%s %s", method, hint)
				} else {
					assert.NotContains(t, header, hint, method)
				}
			}
		}
		_, header := refused(t, h, newRequest(method, "/", "{}", "Content-Type", jsonType, "Content-Encoding", "br"), http.StatusUnsupportedMediaType)
		for _, hint := range hints[:4] {
			assert.NotContains(t, header, hint, method)
		}
		assert.Equal(t, []string{"identity"}, header["Accept-Encoding"])
	}
}

// Accept-Query is a list of structured fields, where a type may have to be a string.
func TestAcceptQuery(t *testing.T) {
	t.Parallel()
	h := admit.ContentType("application/json;", " Text/* ", "application/*+json", "1d/a", "!/b")(ok)
	_, header := refused(t, h, newRequest("QUERY", "/", ""), 400)
	assert.Equal(t, []string{`application/json, Text/*, application/*+json, "1d/a", "!/b"`}, header["Accept-Query"])
	c, err := admit.NewContentTypes(admit.ContentTypesConfig{Allow: []string{jsonType}, AllowMissing: true})
	require.NoError(t, err)
	assert.NoError(t, c.Check(newRequest("QUERY", "/", "")))
	assert.NoError(t, c.Check(newRequest("QUERY", "/", "{}")))
}

func TestContentTypeIsForBodies(t *testing.T) {
	t.Parallel()
	h := admit.ContentType(jsonType)(ok)
	unread := func() io.Reader { return io.MultiReader(unreadable{}) } // of unknown length
	for name, test := range map[string]struct {
		method string
		change func(*http.Request)
		status int
	}{
		"GET without a body":              {"GET", func(*http.Request) {}, 200},
		"POST without a body":             {"POST", func(*http.Request) {}, 200},
		"POST, no Body at all":            {"POST", func(r *http.Request) { r.Body, r.ContentLength = nil, -1 }, 200},
		"POST, http.NoBody":               {"POST", func(r *http.Request) { r.Body, r.ContentLength = http.NoBody, -1 }, 200},
		"POST, a length of 0":             {"POST", func(r *http.Request) { r.Body, r.ContentLength = io.NopCloser(unread()), 0 }, 200},
		"two types and no body":           {"POST", func(r *http.Request) { r.Header["Content-Type"] = []string{"a/b", "c/d"} }, 200},
		"POST, a length":                  {"POST", func(r *http.Request) { r.Body, r.ContentLength = io.NopCloser(unread()), 5 }, 415},
		"POST, a length that is not told": {"POST", func(r *http.Request) { r.Body, r.ContentLength = io.NopCloser(unread()), -1 }, 415}, // no deadline can be set
		"QUERY without a body":            {"QUERY", func(*http.Request) {}, 400},
		"QUERY, a type and no body":       {"QUERY", func(r *http.Request) { r.Header.Set("Content-Type", jsonType) }, 200},
		"QUERY, another type, no body":    {"QUERY", func(r *http.Request) { r.Header.Set("Content-Type", "a/b") }, 415},
		"QUERY, two types":                {"QUERY", func(r *http.Request) { r.Header["Content-Type"] = []string{jsonType, jsonType} }, 400},
		"GET with a body":                 {"GET", func(r *http.Request) { r.Body, r.ContentLength = io.NopCloser(unread()), 5 }, 415},
		"DELETE with a body":              {"DELETE", func(r *http.Request) { r.Body, r.ContentLength = io.NopCloser(unread()), -1 }, 415},
	} {
		r := newRequest(test.method, "/", "")
		test.change(r)
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		assert.Equal(t, test.status, w.Code, name)
	}
}

// unreadable fails the test of a wrapper that looks into the body.
type unreadable struct{}

func (unreadable) Read([]byte) (int, error) { panic("the body was read") }

func TestNewContentTypes(t *testing.T) {
	t.Parallel()
	c, err := admit.NewContentTypes(admit.ContentTypesConfig{
		Allow:        []string{"text/csv", "application/*+json"},
		Charsets:     []string{"UTF-8", "iso-8859-1"},
		Encodings:    []string{"gzip", "zstd"},
		AllowMissing: true,
	})
	require.NoError(t, err)
	for name, test := range map[string]struct {
		header  http.Header
		refusal string
	}{
		"missing":               {nil, ""},
		"no charset":            {http.Header{"Content-Type": {"text/csv"}}, ""},
		"first charset":         {http.Header{"Content-Type": {"text/csv; charset=utf-8"}}, ""},
		"second charset":        {http.Header{"Content-Type": {"text/csv; charset=ISO-8859-1"}}, ""},
		"second charset quoted": {http.Header{"Content-Type": {`text/csv; charset="ISO-8859-1"`}}, ""},
		"another charset":       {http.Header{"Content-Type": {"text/csv; charset=utf-16"}}, "send UTF-8 or iso-8859-1"},
		"coding":                {http.Header{"Content-Encoding": {"GZIP"}}, ""},
		"codings":               {http.Header{"Content-Encoding": {"gzip, identity", "zstd"}}, ""},
		"another coding":        {http.Header{"Content-Encoding": {"gzip, br"}}, "send one of: gzip, zstd, identity"},
		"empty":                 {http.Header{"Content-Type": {""}}, "malformed"},
		"two":                   {http.Header{"Content-Type": {"text/csv", "text/csv"}}, "more than one"},
		"another type":          {http.Header{"Content-Type": {"text/html"}}, "send one of: text/csv, application/*+json"},
	} {
		r := newRequest(http.MethodPost, "/", "{}")
		r.Header = test.header
		err := c.Check(r)
		if test.refusal == "" {
			assert.NoError(t, err, name)
			continue
		}
		var e *admit.Error
		if assert.ErrorAs(t, err, &e, name) {
			assert.Contains(t, e.Message, test.refusal, name)
		}
		w := httptest.NewRecorder()
		c.Wrap(ok).ServeHTTP(w, r)
		assert.Equal(t, e.Status, w.Code, name)
	}
	_, header := refused(t, c.Wrap(ok), newRequest(http.MethodPost, "/", "{}", "Content-Encoding", "br"), http.StatusUnsupportedMediaType)
	assert.Equal(t, []string{"gzip, zstd, identity"}, header["Accept-Encoding"])
}

func TestContentTypePanics(t *testing.T) {
	t.Parallel()
	for message, allow := range map[string][]string{
		`admit: ContentType has no type; name what the handler accepts, such as "application/json"`:             nil,
		`admit: ContentType[0] is "json", which is not of the form type/subtype`:                                {"json"},
		`admit: ContentType[0] is "a/b; charset=utf-8", which has parameters; name the type alone`:              {"a/b; charset=utf-8"},
		`admit: ContentType[1] is "A/B", which is given twice`:                                                  {"a/b", "A/B"},
		`admit: ContentType[0] is "*/*", which has a wildcard elsewhere than in "type/*" or "type/*+suffix"`:    {"*/*"},
		`admit: ContentType[0] is "a/b*", which has a wildcard elsewhere than in "type/*" or "type/*+suffix"`:   {"a/b*"},
		`admit: ContentType[0] is "a/*b", which has a wildcard elsewhere than in "type/*" or "type/*+suffix"`:   {"a/*b"},
		`admit: ContentType[0] is "a/*bc", which has a wildcard elsewhere than in "type/*" or "type/*+suffix"`:  {"a/*bc"},
		`admit: ContentType[0] is "a/*+", which has a wildcard elsewhere than in "type/*" or "type/*+suffix"`:   {"a/*+"},
		`admit: ContentType[0] is "a/*+*", which has a wildcard elsewhere than in "type/*" or "type/*+suffix"`:  {"a/*+*"},
		`admit: ContentType[0] is "*/json", which has a wildcard elsewhere than in "type/*" or "type/*+suffix"`: {"*/json"},
		`admit: ContentType: the handler is nil`:                                                                {"a/b"},
	} {
		assert.Equal(t, message, panicOf(func() { admit.ContentType(allow...)(nil) }))
	}
}

func TestNewContentTypesJoinsFaults(t *testing.T) {
	t.Parallel()
	_, err := admit.NewContentTypes(admit.ContentTypesConfig{
		Allow:     []string{"json", jsonType, "*/*", "json"},
		Charsets:  []string{"utf 8", "*"},
		Encodings: []string{"", "identity", "*"},
	})
	require.EqualError(t, err, `admit: ContentTypesConfig.Allow[0] is "json", which is not of the form type/subtype
admit: ContentTypesConfig.Allow[2] is "*/*", which has a wildcard elsewhere than in "type/*" or "type/*+suffix"
admit: ContentTypesConfig.Allow[3] is "json", which is not of the form type/subtype
admit: ContentTypesConfig.Charsets[0] is "utf 8", which is not the name of a charset, such as utf-8
admit: ContentTypesConfig.Charsets[1] is "*", which is not the name of a charset, such as utf-8
admit: ContentTypesConfig.Encodings[0] is "", which is not the name of a content coding, such as gzip
admit: ContentTypesConfig.Encodings[1] is "identity", which is not the name of a content coding, such as gzip
admit: ContentTypesConfig.Encodings[2] is "*", which is not the name of a content coding, such as gzip`)
}

func TestContentTypesCopiesItsConfig(t *testing.T) {
	t.Parallel()
	config := admit.ContentTypesConfig{Allow: []string{jsonType}, Charsets: []string{"utf-8"}, Encodings: []string{"gzip"}}
	c, err := admit.NewContentTypes(config)
	require.NoError(t, err)
	config.Allow[0], config.Charsets[0], config.Encodings[0] = csvType, "utf-16", "br"
	r := newRequest(http.MethodPost, "/", "{}", "Content-Type", jsonType+";  charset=utf-8", "Content-Encoding", "gzip")
	assert.NoError(t, c.Check(r))
}

func TestContentTypeAllocatesNothing(t *testing.T) {
	c, err := admit.NewContentTypes(admit.ContentTypesConfig{Allow: []string{jsonType, "text/*"}, Encodings: []string{"gzip"}})
	require.NoError(t, err)
	h, w := c.Wrap(ok), newDiscard()
	for name, test := range map[string]struct {
		value string
		taken bool
	}{
		"bare":       {jsonType, true},
		"charset":    {"application/json; charset=utf-8", true},
		"odd":        {`Application/JSON;  Charset="UTF\-8"; v=1`, true},
		"pattern":    {"text/csv; charset=utf-8", true},
		"another":    {"image/png", false},
		"malformed":  {"json", false},
		"parameters": {"text/csv" + strings.Repeat(";c=d", 10000), false},
	} {
		r := newRequest(http.MethodPost, "/", "{}", "Content-Type", test.value, "Content-Encoding", "identity, GZIP")
		t.Run(name, func(t *testing.T) {
			require.Equal(t, test.taken, c.Check(r) == nil)
			allocs(t, 0, func() { _ = c.Check(r) })
			if test.taken {
				allocs(t, 0, func() { h.ServeHTTP(w, r) })
			}
		})
	}
}

// refContentType is the decision about a type and charset again, without a body.
func refContentType(value string, allow ...string) bool {
	m, ok := mediatypetest.Parse(value)
	if !ok || m.HasWildcard() {
		return false
	}
	if charset, has := m.Param("charset"); has && charset != "utf-8" && charset != "utf8" {
		return false
	}
	return slices.ContainsFunc(allow, m.Matches)
}

func TestContentTypeAgreesWithReference(t *testing.T) {
	t.Parallel()
	values := 20_000
	if testing.Short() || raceDetector {
		values = 2_000
	}
	allow := []string{jsonType, "application/*+json", "text/*"}
	c, err := admit.NewContentTypes(admit.ContentTypesConfig{Allow: allow})
	require.NoError(t, err)
	seed := rand.Uint64()
	r := mediatypetest.NewRandom(seed)
	request := newRequest(http.MethodPost, "/", "{}")
	taken := 0
	for range values {
		value := r.ContentType()
		request.Header.Set("Content-Type", value)
		got := c.Check(request) == nil
		require.Equal(t, refContentType(value, allow...), got, "seed %d: %q", seed, value)
		if got {
			taken++
		}
	}
	assert.Greater(t, taken, values/10)
	assert.Less(t, taken, values*9/10)
}

// What is let in is what the handler sees: mime.ParseMediaType, which it may use,
// finds the same type, and no charset but UTF-8.
func FuzzContentType(f *testing.F) {
	for _, value := range []string{"", jsonType, "Text/CSV ; charset=\"Utf-8\"", "a/b;c=d;C=e", "application/x+json;;", "text/*", `text/a;b="\"`, "text/a;charset*=utf-16''x", "text/a;charset*0=u;charset*1=tf-16"} {
		f.Add(value)
	}
	r := mediatypetest.NewRandom(3)
	for range 50 {
		f.Add(r.ContentType())
	}
	allow := []string{jsonType, "application/*+json", "text/*"}
	c, err := admit.NewContentTypes(admit.ContentTypesConfig{Allow: allow})
	require.NoError(f, err)
	f.Fuzz(func(t *testing.T, value string) {
		check := func(value string) error {
			r := newRequest(http.MethodPost, "/", "{}")
			r.Header["Content-Type"] = []string{value}
			return c.Check(r)
		}
		got := check(value)
		require.Equal(t, refContentType(value, allow...), got == nil, "the reference")
		if !strings.Contains(value, `"`) {
			require.Equal(t, got, check(mediatypetest.Upper(value)), "upper case")
			require.Equal(t, got, check(" "+strings.ReplaceAll(value, ";", "\t; ")+" "), "space")
		}
		if got != nil || strings.ContainsFunc(value, func(r rune) bool { return r < ' ' && r != '\t' || r == 0x7f }) {
			return // no server of net/http lets a control character through
		}
		mediaType, params, err := mime.ParseMediaType(value)
		if err != nil {
			require.True(t, errors.Is(err, mime.ErrInvalidMediaParameter), "%v", err)
			require.NotEmpty(t, mediaType)
		}
		require.True(t, refContentType(mediaType, allow...), mediaType)
		if charset, ok := params["charset"]; ok {
			require.Contains(t, []string{"utf-8", "utf8"}, mediatypetest.Lower(strings.ReplaceAll(charset, `\`, "")))
		}
	})
}

// Over a socket, because a client may send what net/http's own would not.
func TestContentTypeOverTheWire(t *testing.T) {
	t.Parallel()
	echo := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _, _ = io.Copy(w, r.Body) })
	server := serve(t, "HTTP/1.1", admit.ContentType(jsonType)(echo))
	for name, test := range map[string]struct {
		request string
		status  int
		body    string
	}{
		"length":          {"POST / HTTP/1.1\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}", 200, "{}"},
		"chunked":         {"POST / HTTP/1.1\r\nContent-Type: application/json; charset=utf-8\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n", 200, "{}"},
		"nothing":         {"POST / HTTP/1.1\r\n\r\n", 200, ""},
		"a length of 0":   {"POST / HTTP/1.1\r\nContent-Length: 0\r\n\r\n", 200, ""},
		"two lines":       {"POST / HTTP/1.1\r\nContent-Type: application/json\r\nContent-Type: text/xml\r\nContent-Length: 2\r\n\r\n{}", 400, "more than one"},
		"missing":         {"POST / HTTP/1.1\r\nContent-Length: 2\r\n\r\n{}", 415, "no Content-Type"},
		"chunked, none":   {"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 200, ""},
		"GET, none":       {"GET / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 200, ""},
		"DELETE, none":    {"DELETE / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 200, ""},
		"trailer, none":   {"PUT / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nTrailer: X\r\n\r\n0\r\nX: y\r\n\r\n", 200, ""},
		"chunked, a byte": {"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n \r\n0\r\n\r\n", 415, "no Content-Type"},
		"chunked, wrong":  {"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n", 400, "could not be read"},
		"typed, none":     {"POST / HTTP/1.1\r\nContent-Type: a/b\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 415, "application/json"},
		"expected":        {"POST / HTTP/1.1\r\nExpect: 100-continue\r\nTransfer-Encoding: chunked\r\n\r\n", 415, "no Content-Type"},
		"QUERY, none":     {"QUERY / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400, "Content-Type"},
		"empty":           {"PUT / HTTP/1.1\r\nContent-Type:\r\nContent-Length: 2\r\n\r\n{}", 415, "malformed"},
		"another":         {"PATCH / HTTP/1.1\r\nContent-Type: text/xml\r\nContent-Length: 2\r\n\r\n{}", 415, "application/json"},
		"GET with a body": {"GET / HTTP/1.1\r\nContent-Type: text/xml\r\nContent-Length: 2\r\n\r\n{}", 415, "application/json"},
		"gzip":            {"POST / HTTP/1.1\r\nContent-Type: application/json\r\nContent-Encoding: gzip\r\nContent-Length: 2\r\n\r\n{}", 415, "identity"},
	} {
		conn := testkit.Dial(t, server)
		request := strings.Replace(test.request, "\r\n", "\r\nHost: example.com\r\nConnection: close\r\n", 1)
		_, err := io.WriteString(conn, request)
		require.NoError(t, err)
		response, err := http.ReadResponse(bufio.NewReader(conn), nil)
		require.NoError(t, err, name)
		body, err := io.ReadAll(response.Body)
		require.NoError(t, err, name)
		require.NoError(t, conn.Close())
		assert.Equal(t, test.status, response.StatusCode, name)
		assert.Contains(t, string(body), test.body, name)
		if test.status == http.StatusUnsupportedMediaType {
			readEnvelope(t, response.StatusCode, response.Header, body)
		}
	}
}

// An empty DATA frame ends a body that is none; and a client that sends nothing is
// refused after a while, whatever bounds the body further inside.
func TestContentTypeLooksForTheFirstByte(t *testing.T) {
	t.Parallel()
	called := make(chan string, 1)
	h := wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		called <- fmt.Sprint(string(body), err)
	}), admit.MaxBody(10), admit.ContentType(jsonType), admit.BodyTimeout{Grace: time.Hour}.Wrap)
	t.Run("HTTP/2", func(t *testing.T) {
		server := serve(t, testkit.HTTP2, h)
		send := func(method string, body io.Reader, headers ...string) *http.Response {
			r, err := http.NewRequestWithContext(t.Context(), method, server.URL, io.MultiReader(body))
			require.NoError(t, err)
			if closer, ok := body.(io.ReadCloser); ok {
				r.Body = closer
			}
			if r.ContentLength = -1; len(headers) > 0 {
				r.Header.Set(headers[0], headers[1])
			}
			response, err := server.Client().Do(r)
			require.NoError(t, err)
			require.NoError(t, response.Body.Close())
			return response
		}
		for _, method := range []string{"GET", "DELETE", "POST"} {
			assert.Equal(t, 200, send(method, strings.NewReader("")).StatusCode, method)
			assert.Equal(t, "<nil>", <-called)
			assert.Equal(t, 415, send(method, strings.NewReader("x")).StatusCode, method)
			assert.Equal(t, 200, send(method, strings.NewReader("xy"), "Content-Type", jsonType).StatusCode, method)
			assert.Equal(t, "xy<nil>", <-called)
		}
		assert.Equal(t, 415, send("POST", newSlowBody("")).StatusCode)
	})
	t.Run("HTTP/1.1", func(t *testing.T) {
		server := serve(t, testkit.HTTP1, h)
		conn := dial(t, server)
		const head = " / HTTP/1.1\r\nHost: example.com\r\nTransfer-Encoding: chunked\r\n"
		in := bufio.NewReader(conn)
		for range 2 { // the connection is kept
			_, err := io.WriteString(conn, "POST"+head+"\r\n0\r\n\r\nPUT"+head+"Content-Type: application/json\r\n\r\n2\r\nxy\r\n0\r\n\r\n")
			require.NoError(t, err)
			for _, want := range []string{"<nil>", "xy<nil>"} {
				response, err := http.ReadResponse(in, nil)
				require.NoError(t, err)
				assert.Equal(t, 200, response.StatusCode)
				assert.Equal(t, want, <-called)
			}
		}
		began := time.Now()
		_, err := io.WriteString(conn, "POST"+head+"\r\n")
		require.NoError(t, err)
		response, err := http.ReadResponse(in, nil)
		require.NoError(t, err)
		assert.Equal(t, 415, response.StatusCode)
		assert.True(t, response.Close)
		assert.Less(t, time.Since(began), 10*time.Second)
	})
}
