package faq_test

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/justinas/alice"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/admit-go/admit"
	"github.com/admit-go/admit/integration/guides/faq"
)

var (
	ok     = http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})
	silent = &admit.ErrorWriter{Logger: slog.New(slog.DiscardHandler)}
)

func newAuth(t *testing.T, c admit.AuthConfig) *admit.Auth {
	t.Helper()
	if c.Store == nil {
		c.Store = admit.KeyMap{
			admit.DigestOf("a"): {ID: "a", Plan: "free"},
			admit.DigestOf("b"): {ID: "b", Plan: "free"},
			admit.DigestOf("c"): {ID: "c", Networks: []netip.Prefix{netip.MustParsePrefix("198.51.100.0/24")}},
		}
	}
	auth, err := admit.NewAuth(c)
	require.NoError(t, err)
	return auth
}

func newLimiter(t *testing.T, c admit.LimiterConfig) *admit.Limiter {
	t.Helper()
	limiter, err := admit.NewLimiter(c)
	require.NoError(t, err)
	return limiter
}

// get sends a GET with a key, if there is one; headers are names and values in turn.
func get(h http.Handler, path, key string, headers ...string) *httptest.ResponseRecorder {
	r, w := httptest.NewRequest("GET", path, nil), httptest.NewRecorder()
	if key != "" {
		r.Header.Set("Authorization", "Bearer "+key)
	}
	for i := 0; i < len(headers); i += 2 {
		r.Header[headers[i]] = []string{headers[i+1]}
	}
	h.ServeHTTP(w, r)
	return w
}

func code(w *httptest.ResponseRecorder) string {
	_, after, _ := strings.Cut(w.Body.String(), `"code":"`)
	found, _, _ := strings.Cut(after, `"`)
	return found
}

func TestStatusesOfKeys(t *testing.T) {
	t.Parallel()
	plans, err := admit.NewPlans(admit.Plan{Name: "free"}, admit.Plan{Name: "pro", Includes: "free"})
	require.NoError(t, err)
	p := admit.Policy{Auth: newAuth(t, admit.AuthConfig{})}
	paid, scoped := p, p
	paid.Plans, paid.AtLeast = plans, "pro"
	scoped.Scopes = []string{"orders:write"}
	assert.Equal(t, "key_missing", code(get(p.Wrap(ok), "/", "")))
	assert.Equal(t, 401, get(p.Wrap(ok), "/", "").Code)
	assert.Equal(t, "key_invalid", code(get(p.Wrap(ok), "/", "none")))
	assert.Equal(t, 402, get(paid.Wrap(ok), "/", "a").Code)
	assert.Equal(t, "scope_required", code(get(scoped.Wrap(ok), "/", "a")))
	assert.Equal(t, 403, get(p.Wrap(ok), "/", "c").Code)
	assert.Equal(t, "address_not_allowed", code(get(p.Wrap(ok), "/", "c")))
}

// A limit outside of the Auth counts two keys of one address together; inside, each by itself.
func TestLimitOutsideOfAuth(t *testing.T) {
	t.Parallel()
	auth := newAuth(t, admit.AuthConfig{})
	outside := alice.New(admit.RateLimit(admit.PerHour(1)), auth.Wrap).Then(ok)
	assert.Equal(t, 200, get(outside, "/", "a").Code)
	assert.Equal(t, 429, get(outside, "/", "b").Code)
	inside := alice.New(auth.Wrap, admit.RateLimit(admit.PerHour(1))).Then(ok)
	assert.Equal(t, 200, get(inside, "/", "a").Code)
	assert.Equal(t, 200, get(inside, "/", "b").Code)
	assert.Equal(t, 429, get(inside, "/", "b").Code)
}

// Behind a proxy, without ClientIP, all are one caller.
func TestLimitBehindAProxy(t *testing.T) {
	t.Parallel()
	limit := admit.RateLimit(admit.PerHour(1))
	assert.Equal(t, 200, get(limit(ok), "/", "", "X-Forwarded-For", "198.51.100.1").Code)
	assert.Equal(t, 429, get(limit(ok), "/", "", "X-Forwarded-For", "198.51.100.2").Code)
	limit = admit.RateLimit(admit.PerHour(1))
	h := alice.New(admit.ClientIP("X-Forwarded-For", netip.MustParsePrefix("192.0.2.0/24")), limit).Then(ok)
	assert.Equal(t, 200, get(h, "/", "", "X-Forwarded-For", "198.51.100.1").Code)
	assert.Equal(t, 200, get(h, "/", "", "X-Forwarded-For", "198.51.100.2").Code)
}

func TestHeaderNamesHaveNoCase(t *testing.T) {
	t.Parallel()
	server := httptest.NewServer(admit.APIKey(admit.KeyMap{admit.DigestOf("a"): {ID: "a"}})(ok))
	defer server.Close()
	for _, name := range []string{"X-API-Key", "X-Api-Key", "x-api-key"} {
		r, err := http.NewRequestWithContext(t.Context(), "GET", server.URL, nil)
		require.NoError(t, err)
		r.Header[name] = []string{"a"}
		res, err := server.Client().Do(r)
		require.NoError(t, err)
		require.NoError(t, res.Body.Close())
		assert.Equal(t, 200, res.StatusCode, name)
	}
}

func TestOptional(t *testing.T) {
	t.Parallel()
	h := newAuth(t, admit.AuthConfig{Optional: true}).Wrap(ok)
	assert.Equal(t, 200, get(h, "/", "").Code)
	assert.Equal(t, 401, get(h, "/", "none").Code)
}

// Of 100 a minute, one comes back each 0.6 s, and 200 may be let in within the first minute.
func TestBuckets(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h := admit.RateLimit(admit.PerMinute(100))(ok)
		admitted := 0
		for began := time.Now(); time.Since(began) < time.Minute; time.Sleep(100 * time.Millisecond) {
			for get(h, "/", "").Code == 200 {
				admitted++
			}
			assert.Equal(t, "1", get(h, "/", "").Header().Get("Retry-After"))
		}
		assert.InDelta(t, 200, admitted, 1)
	})
	synctest.Test(t, func(t *testing.T) {
		h := admit.RateLimit(admit.Limit{Requests: 100, Per: time.Minute, Burst: 10})(ok)
		admitted := 0
		for began := time.Now(); time.Since(began) < time.Minute; time.Sleep(100 * time.Millisecond) {
			for get(h, "/", "").Code == 200 {
				admitted++
			}
		}
		assert.InDelta(t, 110, admitted, 1)
	})
}

func TestHealthy(t *testing.T) {
	t.Parallel()
	p := admit.Policy{Auth: newAuth(t, admit.AuthConfig{})}
	h, err := faq.Healthy(p, ok)
	require.NoError(t, err)
	assert.Equal(t, 200, get(h, "/healthz", "").Code)
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest("POST", "/orders", nil))
	assert.Equal(t, 401, w.Code)
}

func TestEncode(t *testing.T) {
	t.Parallel()
	p := admit.Policy{Errors: &admit.ErrorWriter{Encode: faq.Encode}, Auth: newAuth(t, admit.AuthConfig{})}
	w := get(p.Wrap(ok), "/", "")
	assert.Equal(t, 401, w.Code)
	assert.JSONEq(t, `{"result":"error","code":"key_missing","message":"Please sign up at https://example.com/signup to get a key."}`, w.Body.String())
	assert.NotEmpty(t, w.Header().Get("WWW-Authenticate"))
	assert.Contains(t, get(p.Wrap(ok), "/", "none").Body.String(), "The API key is not valid.")
}

func TestBothLimits(t *testing.T) {
	t.Parallel()
	p, err := faq.BothLimits(newAuth(t, admit.AuthConfig{}))
	require.NoError(t, err)
	w := get(p.Wrap(ok), "/", "a")
	assert.Equal(t, `"address";q=600;w=60, "second";q=10;w=1`, strings.Join(w.Header().Values("RateLimit-Policy"), ", "))
	assert.NotEmpty(t, get(p.Wrap(ok), "/", "").Header().Get("RateLimit"), "a stranger is counted by address")
}

// A time-out or an io.EOF of the service is not blamed on the client.
func TestErrorsOfTheService(t *testing.T) {
	t.Parallel()
	for want, err := range map[int]error{500: io.EOF, 503: context.DeadlineExceeded} {
		h := admit.Policy{Errors: silent}.Wrap(admit.HandlerFunc(func(http.ResponseWriter, *http.Request) error { return err }))
		assert.Equal(t, want, get(h, "/", "").Code, "%v", err)
	}
	h := admit.Policy{Errors: silent}.Wrap(admit.HandlerFunc(func(http.ResponseWriter, *http.Request) error { return os.ErrDeadlineExceeded }))
	assert.Equal(t, 500, get(h, "/", "").Code)
}

// A Policy that needs a key starts, since an Auth may be around it; without one, each request gets 500.
func TestNoAuth(t *testing.T) {
	t.Parallel()
	plans, err := admit.NewPlans(admit.Plan{Name: "free", Features: []string{"history"}, Quotas: []admit.Quota{{Requests: 10, Every: admit.Day}}})
	require.NoError(t, err)
	quotas, err := admit.NewQuotas(admit.QuotasConfig{Plans: plans, Store: admit.NewMemoryQuotaStore()})
	require.NoError(t, err)
	for name, p := range map[string]admit.Policy{
		"scopes": {Scopes: []string{"orders:read"}}, "plans": {Plans: plans, AtLeast: "free"},
		"features": {Plans: plans, Features: []string{"history"}}, "quotas": {Quotas: quotas},
	} {
		var log strings.Builder
		h := p.Wrap(ok)
		w := get(admit.Policy{Errors: &admit.ErrorWriter{Logger: slog.New(slog.NewTextHandler(&log, nil))}}.Wrap(h), "/", "a")
		assert.Equal(t, 500, w.Code, name)
		assert.Contains(t, log.String(), "found no key in the context", name)
		w = get(newAuth(t, admit.AuthConfig{}).Wrap(h), "/", "a")
		assert.Contains(t, []int{200, 403}, w.Code, name)
	}
}

// The 404 of a bare mux is text.
func TestMux(t *testing.T) {
	t.Parallel()
	mux := http.NewServeMux()
	assert.Equal(t, "404 page not found\n", get(admit.Policy{}.Wrap(mux), "/", "").Body.String())
	assert.Equal(t, "not_found", code(get(admit.Policy{}.Wrap(admit.Mux(mux)), "/", "")))
}

type brokenStore struct{}

func (brokenStore) Take(context.Context, string, int, []admit.Limit) (admit.Decision, error) {
	return admit.Decision{}, errors.New("no connection")
}

// Without its store a Limiter goes on by its part of the limit, unless StoreDown says otherwise.
func TestStoreDown(t *testing.T) {
	t.Parallel()
	for down, want := range map[admit.StoreDown][]int{
		admit.LimitLocally: {200, 200, 429}, admit.AdmitAll: {200, 200, 200}, admit.RefuseAll: {503, 503, 503},
	} {
		h := newLimiter(t, admit.LimiterConfig{
			Name: "api", Limits: []admit.Limit{admit.PerHour(8)}, Store: brokenStore{}, StoreDown: down, Replicas: 4,
		}).Wrap(ok)
		for i, status := range want {
			assert.Equal(t, status, get(h, "/", "").Code, "%v, request %d", down, i)
		}
	}
}

// A client that asks for problem+json gets it.
func TestProblem(t *testing.T) {
	t.Parallel()
	w := get(admit.Policy{}.Wrap(admit.Mux(http.NewServeMux())), "/", "", "Accept", "application/problem+json")
	assert.Equal(t, "application/problem+json", w.Header().Get("Content-Type"))
}

// The context of a handler ends with its Timeout; the handler itself goes on until it returns.
func TestTimeout(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ended := make(chan error, 1)
		h := admit.Policy{Timeout: time.Second}.Wrap(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			<-r.Context().Done()
			ended <- r.Context().Err()
		}))
		w := get(h, "/", "")
		assert.Equal(t, 503, w.Code)
		assert.Equal(t, "handler_timeout", code(w))
		assert.ErrorIs(t, <-ended, context.DeadlineExceeded)

		// One that has begun its response is not stopped.
		h = admit.Policy{Timeout: time.Second}.Wrap(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			_, _ = io.WriteString(w, "begun")
			time.Sleep(time.Hour)
			_, _ = io.WriteString(w, " and ended")
		}))
		assert.Equal(t, "begun and ended", get(h, "/", "").Body.String())
	})
}
