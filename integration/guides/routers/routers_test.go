package routers

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/go-chi/chi/v5"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/admit-go/admit"
	"github.com/admit-go/admit/integration/internal/guide"
	"github.com/admit-go/admit/internal/testkit"
)

var keys = admit.KeyMap{
	admit.DigestOf("reader"): {ID: "k1"},
	admit.DigestOf("writer"): {ID: "k2", Scopes: []string{"items:write"}},
}

// Whatever the router, clients see the same.
func TestRouters(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		make  func(policies) http.Handler
		route string
	}{
		"ServeMux": {newServeMux, "/items/{id}"},
		"chi":      {newChi, "/items/{id}"},
		"gorilla":  {newGorilla, "/items/{id}"},
		"echo":     {newEcho, "/items/:id"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			outcomes := make(chan admit.Labels, 100)
			p, err := newPolicies(keys, func(r *http.Request, o admit.Outcome) { outcomes <- o.Labels(r) })
			require.NoError(t, err)
			h := test.make(p)
			for _, c := range []struct {
				method, path, key, body string
				status                  int
				want                    string
				route                   bool
			}{
				{"GET", "/items/7", "reader", "", 200, `"name":"lamp"`, true},
				{"GET", "/items/7", "guess", "", 401, "key_invalid", true},
				{"PUT", "/items/7", "reader", `{"name":"x"}`, 403, "scope_required", true},
				{"PUT", "/items/7", "writer", `{"name":"x"}`, 200, `"name":"x"`, true},
				{"PUT", "/items/7", "writer", `{"name":7}`, 422, `"path":"name"`, true},
				{"DELETE", "/items/7", "writer", "", 405, "method_not_allowed", false},
				{"GET", "/nowhere", "writer", "", 404, "not_found", false},
			} {
				r := httptest.NewRequest(c.method, c.path, strings.NewReader(c.body))
				r.Header.Set("X-API-Key", c.key)
				if c.body != "" {
					r.Header.Set("Content-Type", "application/json")
				}
				w := httptest.NewRecorder()
				h.ServeHTTP(w, r)
				assert.Equal(t, c.status, w.Code, "%s %s: %s", c.method, c.path, w.Body)
				assert.Contains(t, w.Body.String(), c.want)
				assert.Equal(t, "application/json", w.Header().Get("Content-Type"))
				if c.status == http.StatusMethodNotAllowed {
					allow := strings.Split(strings.Join(w.Header()["Allow"], ", "), ", ")
					assert.Subset(t, []string{"GET", "HEAD", "OPTIONS", "PUT"}, allow)
					assert.Subset(t, allow, []string{"GET", "PUT"})
				}
				labels := <-outcomes
				assert.Equal(t, c.status, labels.Status)
				if c.status != http.StatusMethodNotAllowed { // for which echo has one, and others do not
					assert.Equal(t, c.route, labels.Route == test.route, "%s %s: %q", c.method, c.path, labels.Route)
				}
			}

			s := testkit.Serve(t, testkit.HTTP1, h)
			guide.Run(t, "routers", s.URL, t.TempDir())
		})
	}
}

// The table of the page: what other methods than those of a route get, and the route in metrics.
func TestMethods(t *testing.T) {
	t.Parallel()
	ok := http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})
	inPattern := http.NewServeMux()
	inPattern.Handle("GET /items", ok)
	inPattern.Handle("POST /items", ok)
	const names, plain = " GET, HEAD, POST, OPTIONS.", " this method.\""
	for _, test := range []struct {
		mux          *http.ServeMux
		method, path string
		status       int
		want, route  string
	}{
		{newMethods(ok, ok, ok), "GET", "/items", 200, "", "/items"},
		{newMethods(ok, ok, ok), "DELETE", "/items", 405, names, "/items"},
		{newMethods(ok, ok, ok), "OPTIONS", "/items", 204, "", "/items"},
		{newMethods(ok, ok, ok), "FOO", "/items", 501, names, "/items"},
		{inPattern, "GET", "/items", 200, "", "/items"},
		{inPattern, "DELETE", "/items", 405, plain, ""},
		{inPattern, "OPTIONS", "/items", 405, plain, ""},
		{inPattern, "FOO", "/items", 405, plain, ""},
		{newMethods(ok, ok, ok), "HEAD", "/items/7", 200, "", "/items/{id}"},
		{newMethods(ok, ok, ok), "PUT", "/items/7", 200, "", "/items/{id}"},
		{newMethods(ok, ok, ok), "DELETE", "/items/7", 405, " GET, HEAD, PUT, OPTIONS.", "/items/{id}"},
		{newMethods(ok, ok, ok), "OPTIONS", "/items/7", 204, "", "/items/{id}"},
		{newMethods(ok, ok, ok), "FOO", "/items/7", 501, " GET, HEAD, PUT, OPTIONS.", "/items/{id}"},
	} {
		var route string
		h := admit.Policy{Observe: func(r *http.Request, o admit.Outcome) { route = o.Labels(r).Route }}.Wrap(admit.Mux(test.mux))
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest(test.method, test.path, nil))
		name := test.method + " " + test.path
		assert.Equal(t, test.status, w.Code, name)
		assert.Contains(t, w.Body.String(), test.want, name)
		assert.Equal(t, test.route, route, name)
		assert.Equal(t, test.status != 200, w.Header().Get("Allow") != "", name)
	}
}

// Chi uses its context again when it has returned. With the Timeout around it, that is when
// a handler that is late has returned too.
func TestTimeoutAroundChi(t *testing.T) {
	t.Parallel()
	goOn, late := make(chan bool), make(chan string, 1)
	r := chi.NewRouter()
	r.Get("/slow/{id}", func(_ http.ResponseWriter, r *http.Request) {
		<-r.Context().Done()
		<-goOn
		late <- chi.URLParam(r, "id")
	})
	r.Get("/fast/{id}", func(http.ResponseWriter, *http.Request) { close(goOn) })
	h := admit.Policy{Timeout: 10 * time.Millisecond}.Wrap(r)
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest("GET", "/slow/1", nil))
	assert.Equal(t, 503, w.Code)
	h.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("GET", "/fast/2", nil))
	assert.Equal(t, "1", <-late)
}
