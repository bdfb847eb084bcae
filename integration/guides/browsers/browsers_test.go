package browsers

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/admit-go/admit"
	"github.com/admit-go/admit/integration/internal/guide"
	"github.com/admit-go/admit/internal/testkit"
)

const app = "https://app.example.com"

func keys() admit.KeyMap {
	return admit.KeyMap{admit.DigestOf("s3cret"): {ID: "k1", Owner: "ACME"}}
}

func TestPage(t *testing.T) {
	t.Parallel()
	h, err := newAPI(keys(), app)
	require.NoError(t, err)
	s := testkit.Serve(t, testkit.HTTP1, h)
	guide.Run(t, "browsers", s.URL, t.TempDir())
}

func request(method, path, origin string, headers ...string) *http.Request {
	r := httptest.NewRequest(method, path, strings.NewReader(""))
	r.Header.Set("Origin", origin)
	for i := 0; i < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	return r
}

// Every refusal has the headers with which a page may read it; an origin that is not
// allowed has none.
func TestErrorsCanBeRead(t *testing.T) {
	t.Parallel()
	h, err := newAPI(keys(), app)
	require.NoError(t, err)
	send := func(r *http.Request) *httptest.ResponseRecorder {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		return w
	}
	for status, r := range map[int]*http.Request{
		401: request("POST", "/orders", app, "X-API-Key", "guess"),
		404: request("GET", "/nowhere", app),
		405: request("GET", "/orders", app),
	} {
		w := send(r)
		assert.Equal(t, status, w.Code)
		assert.Equal(t, app, w.Header().Get("Access-Control-Allow-Origin"))
		assert.Equal(t, "Retry-After, Ratelimit, Ratelimit-Policy, X-Request-Id", w.Header().Get("Access-Control-Expose-Headers"))
	}
	for want := range 3 {
		w := send(request("POST", "/orders", app, "X-API-Key", "s3cret"))
		assert.Equal(t, app, w.Header().Get("Access-Control-Allow-Origin"))
		if want == 2 {
			assert.Equal(t, 429, w.Code)
			assert.NotEmpty(t, w.Header().Get("Retry-After"))
		}
	}
	w := send(request("PUT", "/orders", app)) // which withCORS does not allow
	assert.Equal(t, 405, w.Code)
	assert.Empty(t, w.Header().Get("Access-Control-Allow-Origin"))
	w = send(request("POST", "/orders", "https://evil.example", "X-API-Key", "guess"))
	assert.Empty(t, w.Header().Get("Access-Control-Allow-Origin"))
}

// What stands around CORS is told of a preflight too, which has no route.
func TestOrder(t *testing.T) {
	t.Parallel()
	h, err := newAPI(keys(), app)
	require.NoError(t, err)
	var told []string
	observe := func(_ *http.Request, o admit.Outcome) { told = append(told, fmt.Sprint(o.Status, " ", o.Route)) }
	h = admit.ObserveAs("metrics", observe)(h)
	h.ServeHTTP(httptest.NewRecorder(), request("OPTIONS", "/orders", app, "Access-Control-Request-Method", "POST"))
	h.ServeHTTP(httptest.NewRecorder(), request("POST", "/orders", app))
	assert.Equal(t, []string{"204 ", "401 /orders"}, told)
}

func TestCookies(t *testing.T) {
	t.Parallel()
	h, err := newCookieAPI(keys(), app)
	require.NoError(t, err)
	const evil, cookie = "https://evil.example", "__Host-session=s3cret"
	for name, test := range map[string]struct {
		r      *http.Request
		status int
		code   string
	}{
		"the app":                  {request("POST", "/orders", app, "Cookie", cookie, "Sec-Fetch-Site", "same-site"), 201, ""},
		"another site":             {request("POST", "/orders", evil, "Cookie", cookie, "Sec-Fetch-Site", "cross-site"), 403, "cross_origin"},
		"another site, old":        {request("POST", "/orders", evil, "Cookie", cookie), 403, "cross_origin"},
		"a sibling of the app":     {request("POST", "/orders", "https://blog.example.com", "Cookie", cookie, "Sec-Fetch-Site", "same-site"), 403, "cross_origin"},
		"a program, no browser":    {httptest.NewRequest("POST", "/orders", nil), 401, "key_missing"},
		"the app, signed out":      {request("POST", "/orders", app, "Sec-Fetch-Site", "same-site"), 401, "key_missing"},
		"the header has no effect": {request("POST", "/orders", app, "X-API-Key", "s3cret"), 401, "key_missing"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := httptest.NewRecorder()
			h.ServeHTTP(w, test.r)
			assert.Equal(t, test.status, w.Code, w.Body.String())
			assert.Contains(t, w.Body.String(), test.code)
			assert.NotEmpty(t, w.Header().Get("X-Request-Id"))
		})
	}
	w := httptest.NewRecorder()
	signIn(w, httptest.NewRequest("POST", "/sign-in", nil))
	assert.Equal(t, "__Host-session=s3cret; Path=/; Max-Age=28800; HttpOnly; Secure; SameSite=Lax", w.Header().Get("Set-Cookie"))
}
