package admittest_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/admit-go/admit"
	"github.com/admit-go/admit/admittest"
	"github.com/admit-go/admit/contract"
)

// recorder is a test that keeps what it is told.
type recorder struct {
	testing.TB
	mu       sync.Mutex
	errors   []string
	logs     []string
	cleanups []func()
}

func (r *recorder) Helper() {}

func (r *recorder) Errorf(format string, args ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.errors = append(r.errors, fmt.Sprintf(format, args...))
}

func (r *recorder) Logf(format string, args ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.logs = append(r.logs, fmt.Sprintf(format, args...))
}

func (r *recorder) Cleanup(f func()) { r.cleanups = append(r.cleanups, f) }

// end ends the test.
func (r *recorder) end() {
	for _, f := range r.cleanups {
		f()
	}
}

// take returns what has failed since it was called last.
func (r *recorder) take() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	defer func() { r.errors = nil }()
	return r.errors
}

var errSoldOut = &admit.Error{Status: http.StatusConflict, Code: "sold_out", Message: "It is sold out."}

func newAPI(t testing.TB, outer admit.Policy, errs ...*admit.Error) *contract.API {
	t.Helper()
	api, err := contract.New(contract.Info{
		Title: "Test", Version: "1",
		SecuritySchemes: map[string]contract.SecurityScheme{"user": {Type: "apiKey", In: "header", Name: "X-User"}},
	}, outer, errs...)
	require.NoError(t, err)
	return api
}

func fails(e *admit.Error) http.Handler {
	return admit.HandlerFunc(func(http.ResponseWriter, *http.Request) error { return e })
}

func get(h http.Handler, path string) int {
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest("GET", path, nil))
	return w.Code
}

// Each answer that the contract does not have fails the test, once, and says what to do.
func TestContractCatches(t *testing.T) {
	t.Parallel()
	text := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { http.Error(w, "no", http.StatusInternalServerError) })
	mux := http.NewServeMux()
	api := newAPI(t, admit.Policy{})
	api.Handle(mux, "GET /declared", admit.Policy{}, fails(errSoldOut), errSoldOut)
	api.Handle(mux, "GET /forgotten/{id}", admit.Policy{}, fails(errSoldOut))
	api.Handle(mux, "GET /text", admit.Policy{}, text)
	mux.Handle("GET /unknown", fails(errSoldOut))
	for name, test := range map[string]struct {
		handler http.Handler
		path    string
		status  int
		want    string
	}{
		"its own row":            {admit.Mux(mux), "/declared", 409, ""},
		"the mux's own":          {admit.Mux(mux), "/none", 404, ""},
		"an error not given":     {admit.Mux(mux), "/forgotten/1", 409, `GET /forgotten/1 got 409 sold_out, which the contract does not have for the route "GET /forgotten/{id}": pass the error to the Handle`},
		"a 500 as text":          {admit.Mux(mux), "/text", 500, `GET /text got 500 , which the contract does not have for the route "GET /text": admit has not written it`},
		"a bare mux":             {mux, "/none", 404, "GET /none got 404 , which the contract does not have for any request"},
		"a route that it misses": {admit.Mux(mux), "/unknown", 409, "GET /unknown got 409 sold_out, which the contract does not have for any request, and no route matches: pass the error to New"},
	} {
		r := &recorder{TB: t}
		c := admittest.NewContract(r, api, test.handler)
		for range 2 {
			assert.Equal(t, test.status, get(c, test.path), name)
		}
		failures := r.take()
		if test.want == "" {
			assert.Empty(t, failures, name)
			continue
		}
		require.Len(t, failures, 1, name)
		assert.Contains(t, failures[0], test.want, name)
	}
}

// Over a server and by many at once it is told once, and nothing is told after the test.
func TestContractOverAServer(t *testing.T) {
	t.Parallel()
	mux := http.NewServeMux()
	api := newAPI(t, admit.Policy{})
	api.Handle(mux, "GET /a", admit.Policy{}, fails(errSoldOut))
	api.Handle(mux, "GET /b", admit.Policy{}, fails(errSoldOut))
	r := &recorder{TB: t}
	server := httptest.NewServer(admittest.NewContract(r, api, mux))
	defer server.Close()
	ask := func(path string) {
		response, err := server.Client().Get(server.URL + path)
		if assert.NoError(t, err) {
			assert.Equal(t, 409, response.StatusCode)
			assert.NoError(t, response.Body.Close())
		}
	}
	var all sync.WaitGroup
	for range 20 {
		all.Go(func() { ask("/a") })
	}
	all.Wait()
	assert.Len(t, r.take(), 1)
	r.end()
	ask("/b")
	assert.Empty(t, r.take())
}

func TestAllReached(t *testing.T) {
	t.Parallel()
	mux := http.NewServeMux()
	api := newAPI(t, admit.Policy{})
	api.Handle(mux, "/a", admit.Policy{}, fails(errSoldOut), errSoldOut, contract.Foreign(502, "Of others."))
	rows := []string{
		"any request: 400 bad_request", "any request: 404 not_found", "any request: 500 internal",
		"/a: 409 sold_out", "/a: 500 internal", "/a: 502 (written by others)", "/a: 503 unavailable",
	}
	r := &recorder{TB: t}
	c := admittest.NewContract(r, api, admit.Mux(mux))
	c.AllReached()
	failures := strings.Join(r.take(), "\n")
	for _, row := range rows {
		assert.Contains(t, failures, "no response had the row "+row+": make a request")
	}
	assert.Equal(t, len(rows)-1, strings.Count(failures, "\n"))

	get(c, "/a")
	get(c, "/none")
	c.AllReached("400 bad_request", "500 internal", "502 (written by others)", "/a: 503 unavailable")
	assert.Empty(t, r.take())
	c.AllReached("any request: 400 bad_request", "500 internal", "502 (written by others)", "/a: 409 sold_out")
	failures = strings.Join(r.take(), "\n")
	assert.Contains(t, failures, "row /a: 503 unavailable")
	assert.Contains(t, failures, `exception "/a: 409 sold_out" is not a row`)
	assert.Equal(t, 1, strings.Count(failures, "\n"))
}

// The rows of the mux are those that its patterns leave room for.
func TestAllReachedForPatterns(t *testing.T) {
	t.Parallel()
	for patterns, want := range map[string][2]bool{ // 404, 405
		"/a":            {true, false},
		"GET /a":        {true, true},
		"/":             {false, false},
		"GET /":         {false, true},
		"/{rest...}":    {false, false},
		"/{$}":          {true, false},
		"/a/{rest...}":  {true, false},
		"/{id}":         {true, false},
		"/, GET /a":     {false, false},
		"GET /, GET /a": {false, true},
	} {
		t.Run(patterns, func(t *testing.T) {
			t.Parallel()
			mux := http.NewServeMux()
			api := newAPI(t, admit.Policy{})
			for _, pattern := range strings.Split(patterns, ", ") {
				api.Handle(mux, pattern, admit.Policy{}, http.NotFoundHandler())
			}
			r := &recorder{TB: t}
			c := admittest.NewContract(r, api, admit.Policy{}.Wrap(admit.Mux(mux)))
			c.AllReached()
			failures := strings.Join(r.take(), "\n")
			assert.Equal(t, want[0], strings.Contains(failures, "any request: 404"), failures)
			assert.Equal(t, want[1], strings.Contains(failures, "any request: 405"), failures)

			c.Provoke(admittest.Credentials{})
			c.AllReached()
			assert.Empty(t, r.take())
		})
	}
}

// What only a handler can get is a row of its route, where that has one: a 408 of the outer
// Policy then happens only in the routes that have none of their own.
func TestAllReachedInsideAnotherBodyTimeout(t *testing.T) {
	t.Parallel()
	slow := admit.BodyTimeout{Grace: time.Second}
	for name, inner := range map[string][]admit.BodyTimeout{
		"all have one":  {slow, slow},
		"one has none":  {slow, {}},
		"there is none": {{}, {}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			mux := http.NewServeMux()
			outer := admit.Policy{BodyTimeout: slow}
			api := newAPI(t, outer)
			for i, timeout := range inner {
				api.Handle(mux, fmt.Sprintf("/%d", i), admit.Policy{BodyTimeout: timeout}, http.NotFoundHandler())
			}
			r := &recorder{TB: t}
			c := admittest.NewContract(r, api, outer.Wrap(admit.Mux(mux)))
			c.AllReached()
			none := slices.Contains(inner, admit.BodyTimeout{})
			assert.Equal(t, none, strings.Contains(strings.Join(r.take(), "\n"), "any request: 408"))

			c.Provoke(admittest.Credentials{})
			c.AllReached()
			assert.Empty(t, r.take())
		})
	}
}

func TestGolden(t *testing.T) {
	path := filepath.Join(t.TempDir(), "testdata", "new", "golden") // no folder yet
	golden := func(got string) string {
		r := &recorder{TB: t}
		admittest.Golden(r, path, []byte(got))
		return strings.Join(r.take(), "\n")
	}
	assert.Contains(t, golden("a"), "ADMIT_UPDATE=1", "there is none")
	_, err := os.Stat(path)
	require.ErrorIs(t, err, os.ErrNotExist)

	t.Setenv("ADMIT_UPDATE", "1")
	assert.Empty(t, golden("a\nb\n"))
	t.Setenv("ADMIT_UPDATE", "")
	assert.Empty(t, golden("a\nb\n"))
	assert.Contains(t, golden("a\nc\n"), "line 2 on")
	assert.Contains(t, golden("a\nc\n"), "file: \"b\"\n got: \"c\"")
	assert.Contains(t, golden("a\nb"), "file: \"\"\n got: end of the text")
	assert.Contains(t, golden("a\nb\nits end"), "file: \"\"\n got: \"its end\"")

	require.NoError(t, os.WriteFile(path, []byte("a\r\nb\r\n"), 0o600))
	assert.Empty(t, golden("a\nb\n"), "as git writes it on Windows")
	t.Setenv("ADMIT_UPDATE", "1")
	path = filepath.Join(path, "none")
	assert.NotEmpty(t, golden("a"), "it cannot be written")
}
