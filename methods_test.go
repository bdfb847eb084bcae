package admit_test

import (
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/admit-go/admit"
)

func TestMethods(t *testing.T) {
	t.Parallel()
	tests := []struct {
		allow  string // separated by spaces
		method string
		status int
		header string // Allow
	}{
		{"GET", "GET", 200, ""},
		{"GET", "HEAD", 200, ""},
		{"GET", "OPTIONS", 204, "GET, HEAD, OPTIONS"},
		{"GET", "POST", 405, "GET, HEAD, OPTIONS"},
		{"GET", "get", 501, "GET, HEAD, OPTIONS"},
		{"GET", "Get", 501, "GET, HEAD, OPTIONS"},
		{"GET", "BREW", 501, "GET, HEAD, OPTIONS"},
		{"GET", "PROPFIND", 405, "GET, HEAD, OPTIONS"},
		{"GET", "QUERY", 405, "GET, HEAD, OPTIONS"},
		{"GET", "TRACE", 405, "GET, HEAD, OPTIONS"},
		{"POST", "HEAD", 405, "POST, OPTIONS"},
		{"POST GET", "HEAD", 200, ""},
		{"POST GET", "DELETE", 405, "POST, GET, HEAD, OPTIONS"},
		{"HEAD GET", "PUT", 405, "HEAD, GET, OPTIONS"},
		{"GET OPTIONS", "OPTIONS", 200, ""},
		{"GET OPTIONS", "PUT", 405, "GET, HEAD, OPTIONS"},
		{"PURGE", "PURGE", 200, ""},
		{"PURGE", "GET", 405, "PURGE, OPTIONS"},
	}
	codes := map[int]string{405: "method_not_allowed", 501: "not_implemented"}
	for _, test := range tests {
		t.Run(test.allow+" "+test.method, func(t *testing.T) {
			t.Parallel()
			w := httptest.NewRecorder()
			admit.Methods(strings.Fields(test.allow)...)(ok).ServeHTTP(w, newRequest(test.method, "/", ""))
			assert.Equal(t, test.status, w.Code)
			assert.Equal(t, test.header, w.Header().Get("Allow"))
			if code, refused := codes[test.status]; refused && test.method != "HEAD" {
				assert.Equal(t, code, readEnvelope(t, w.Code, w.Header(), w.Body.Bytes()).Code)
			}
		})
	}
}

// In a Policy the answer to OPTIONS says what POST, PATCH and QUERY take, if they are taken.
func TestMethodsSayWhatIsTaken(t *testing.T) {
	t.Parallel()
	custom, err := admit.NewContentTypes(admit.ContentTypesConfig{Allow: []string{jsonType, "text/*"}})
	require.NoError(t, err)
	hints := []string{"Accept-Post", "Accept-Patch", "Accept-Query"}
	for _, test := range []struct {
		policy admit.Policy
		want   []string
	}{
		{admit.Policy{Methods: []string{"GET", "POST", "PUT"}, ContentType: []string{jsonType, "text/*"}}, []string{"Accept-Post"}},
		{admit.Policy{Methods: []string{"PATCH", "QUERY"}, ContentType: []string{jsonType, "text/*"}}, []string{"Accept-Patch", "Accept-Query"}},
		{admit.Policy{Methods: []string{"QUERY"}, ContentTypes: custom}, []string{"Accept-Query"}},
		{admit.Policy{Methods: []string{"GET", "DELETE"}, ContentTypes: custom}, nil},
		{admit.Policy{Methods: []string{"POST", "QUERY"}}, nil},
		{admit.Policy{Methods: []string{"OPTIONS", "QUERY"}, ContentTypes: custom}, nil}, // the handler answers
	} {
		h := test.policy.Wrap(ok)
		for range 2 { // the second is as the first, whatever was done to that
			w := httptest.NewRecorder()
			h.ServeHTTP(w, newRequest("OPTIONS", "/", ""))
			for _, hint := range hints {
				if slices.Contains(test.want, hint) {
					require.Equal(t, []string{"application/json, text/*"}, w.Header()[hint], "%v", test.policy.Methods)
					w.Header()[hint][0] = "mutated"
				} else {
					require.NotContains(t, w.Header(), hint, "%v", test.policy.Methods)
				}
			}
		}
	}
	_, err = admit.Policy{Methods: []string{"QUERY"}, ContentTypes: new(admit.ContentTypes)}.Chain()
	assert.ErrorContains(t, err, "Policy.ContentTypes")
	_, err = admit.Policy{Methods: []string{"QUERY"}, ContentType: []string{"json"}}.Chain()
	assert.ErrorContains(t, err, "Policy.ContentType")
}

func TestMethodsAnswersCannotBeMutated(t *testing.T) {
	t.Parallel()
	h := admit.Methods("GET")(ok)
	for _, method := range []string{"OPTIONS", "POST"} {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, newRequest(method, "/", ""))
		w.Header()["Allow"][0] = "mutated"
		w = httptest.NewRecorder()
		h.ServeHTTP(w, newRequest(method, "/", ""))
		assert.Equal(t, "GET, HEAD, OPTIONS", w.Header().Get("Allow"))
	}
}

func TestMethodsDoesNotBuild(t *testing.T) {
	t.Parallel()
	for _, allow := range [][]string{nil, {""}, {"get"}, {"GET", "GET"}, {"GET,POST"}, {"GET "}, {"GÉT"}, {"A\x7f"}, {"A\x1f"}, {`A"`}, {"POST", ""}} {
		assert.Panics(t, func() { admit.Methods(allow...) }, "%q", allow)
	}
	assert.NotPanics(t, func() { admit.Methods("purge", "PURGE") }, "they are not registered")
	assert.NotPanics(t, func() { admit.Methods("!#$%&'*+-.^_`|~") })
	assert.Equal(t, `admit: Methods[0] is "Get"; methods are case-sensitive: write "GET"`, panicOf(func() { admit.Methods("Get") }))
}

func TestMethodsAllocations(t *testing.T) {
	h, w, r := admit.Methods("GET", "POST", "PUT")(ok), newDiscard(), newRequest("PUT", "/", "")
	allocs(t, 0, func() { h.ServeHTTP(w, r) })
}

func BenchmarkMethods(b *testing.B) {
	h := admit.Methods("GET", "POST")(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	w, r := newDiscard(), newRequest("POST", "/", "")
	b.ReportAllocs()
	for b.Loop() {
		h.ServeHTTP(w, r)
	}
}
