package migrating_test

import (
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/labstack/echo/v4"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/admit-go/admit"
	"github.com/admit-go/admit/integration/guides/migrating"
)

func item(http.ResponseWriter, *http.Request) {}

func echoItem(c echo.Context) error { return c.NoContent(http.StatusOK) }

// send sends a request from an address; headers are names and values in turn.
func send(h http.Handler, from, path string, headers ...string) *httptest.ResponseRecorder {
	r, w := httptest.NewRequest("GET", path, nil), httptest.NewRecorder()
	r.RemoteAddr = from
	for i := 0; i < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	h.ServeHTTP(w, r)
	return w
}

// admitted sends requests of one client, and counts those that are let in.
func admitted(h http.Handler, n int) (count int) {
	for range n {
		if send(h, client, "/items/7", "Authorization", "Bearer secret").Code == http.StatusOK {
			count++
		}
	}
	return count
}

const client = "192.0.2.1:1234"

// built is a handler with goroutines that never end, so that it is made outside of a bubble.
func built(h http.Handler) func() http.Handler { return func() http.Handler { return h } }

// The table of the page. Each has a limit of 60 a minute; all of them are used at once.
func TestDifferences(t *testing.T) {
	t.Parallel()
	throttled, err := migrating.Throttled(item)
	require.NoError(t, err)
	for name, c := range map[string]struct {
		handler                 func() http.Handler
		afterTen                int // admitted ten seconds later
		forged, path, port      int // status with an X-Forwarded-For, for another path, from another port
		retryAfter, contentType string
		header                  string // one that it has
	}{
		"httprate":  {func() http.Handler { return migrating.Httprate(item) }, 0, 429, 429, 429, "60", "text/plain; charset=utf-8", "X-RateLimit-Limit"},
		"tollbooth": {built(migrating.Tollbooth(item)), 10, 200, 200, 429, "", "text/plain; charset=utf-8", "RateLimit-Limit"},
		"echo":      {built(migrating.Echo(echoItem)), 10, 200, 429, 429, "", "application/json", "Content-Type"},
		"ulule":     {built(migrating.Ulule(item)), 0, 429, 429, 429, "", "text/plain; charset=utf-8", "X-RateLimit-Limit"},
		"throttled": {built(throttled), 10, 429, 429, 429, "1", "text/plain; charset=utf-8", "X-RateLimit-Limit"},
		"by hand":   {built(migrating.ByHand("", item)), 10, 429, 429, 200, "", "text/plain; charset=utf-8", "Content-Type"},
		"admit":     {func() http.Handler { return migrating.Chi(item) }, 10, 429, 429, 429, "1", "application/json", "RateLimit-Policy"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := c.handler()
				assert.Equal(t, 60, admitted(h, 100))
				w := send(h, client, "/items/7", "Authorization", "Bearer secret")
				assert.Equal(t, 429, w.Code)
				assert.Equal(t, c.retryAfter, w.Header().Get("Retry-After"))
				assert.Equal(t, c.contentType, w.Header().Get("Content-Type"))
				assert.NotEmpty(t, w.Header().Get(c.header))
				assert.Equal(t, c.forged, send(h, client, "/items/7", "Authorization", "Bearer secret", "X-Forwarded-For", "198.51.100.7").Code, "forged")
				assert.Equal(t, c.path, send(h, client, "/items/8", "Authorization", "Bearer secret").Code, "path")
				assert.Equal(t, c.port, send(h, "192.0.2.1:9999", "/items/7", "Authorization", "Bearer secret").Code, "port")
				time.Sleep(10 * time.Second)
				assert.Equal(t, c.afterTen, admitted(h, 100))
			})
		})
	}
}

// Counted by path, behind a proxy of ours, with the headers of before.
func TestByPath(t *testing.T) {
	t.Parallel()
	h, err := migrating.ByPath(item, netip.MustParsePrefix("192.0.2.0/24"))
	require.NoError(t, err)
	for range 60 {
		send(h, client, "/items/7", "X-Forwarded-For", "198.51.100.7")
	}
	w := send(h, client, "/items/7", "X-Forwarded-For", "198.51.100.7")
	assert.Equal(t, 429, w.Code)
	assert.Equal(t, "60", w.Header().Get("X-RateLimit-Limit"))
	assert.Equal(t, "0", w.Header().Get("X-RateLimit-Remaining"))
	assert.Equal(t, "1", w.Header().Get("X-RateLimit-Reset"), "in seconds from now")
	assert.Equal(t, 200, send(h, client, "/items/8", "X-Forwarded-For", "198.51.100.7").Code)
	assert.Equal(t, 200, send(h, client, "/items/7", "X-Forwarded-For", "198.51.100.8").Code)
	assert.Equal(t, 200, send(h, "203.0.113.1:1234", "/items/7", "X-Forwarded-For", "198.51.100.7").Code, "not a proxy of ours")
}

// A key that is missing is 400 with echo's KeyAuth, and 401 with a challenge after.
func TestEcho(t *testing.T) {
	t.Parallel()
	before := migrating.Echo(echoItem)
	assert.Equal(t, 400, send(before, client, "/items/7").Code)
	assert.Equal(t, 401, send(before, client, "/items/7", "Authorization", "Bearer wrong").Code)

	owner := ""
	keys := admit.KeyMap{admit.DigestOf("secret"): {ID: "k1", Owner: "ACME"}}
	after := migrating.AroundEcho(keys, func(c echo.Context) error {
		key, _ := admit.KeyFrom(c.Request().Context())
		owner = key.Owner
		return c.NoContent(http.StatusOK)
	})
	w := send(after, client, "/items/7")
	assert.Equal(t, 401, w.Code)
	assert.Contains(t, w.Header().Get("WWW-Authenticate"), "Bearer")
	assert.Contains(t, w.Body.String(), `"code":"key_missing"`)
	assert.Equal(t, 401, send(after, client, "/items/7", "Authorization", "Bearer wrong").Code)
	assert.Equal(t, 200, send(after, client, "/items/7", "Authorization", "Bearer secret").Code)
	assert.Equal(t, "ACME", owner)
	assert.Equal(t, 200, send(after, client, "/items/7", "X-API-Key", "secret").Code)
}

// The key that clients have stays good.
func TestOneKey(t *testing.T) {
	t.Parallel()
	h := migrating.OneKey("secret", item)
	assert.Equal(t, 200, send(h, client, "/", "X-API-Key", "secret").Code)
	assert.Equal(t, 401, send(h, client, "/", "X-API-Key", "wrong").Code)
	assert.Equal(t, 401, send(migrating.ByHand("secret", item), client, "/", "X-API-Key", "wrong").Code)
}

func TestUsagePlan(t *testing.T) {
	t.Parallel()
	keys := admit.KeyMap{admit.DigestOf("secret"): {ID: "k1", Plan: "basic"}}
	p, err := migrating.UsagePlan(keys, admit.NewMemoryQuotaStore())
	require.NoError(t, err)
	h := p.Wrap(http.HandlerFunc(item))
	w := send(h, client, "/", "apikey", "secret")
	assert.Equal(t, 200, w.Code)
	policies := strings.Join(w.Header().Values("RateLimit-Policy"), ", ")
	assert.Regexp(t, `^"second";q=\d+;w=\d+, "month";q=10000;w=\d+$`, policies)
	t.Log(policies)
	count := 1
	for range 30 {
		if send(h, client, "/", "apikey", "secret").Code == 200 {
			count++
		}
	}
	assert.InDelta(t, 20, count, 2, "the burst, and what came back meanwhile")
}

func TestDryRun(t *testing.T) {
	t.Parallel()
	rejected := 0
	limiter, err := migrating.DryRun(func(r bool) {
		if r {
			rejected++
		}
	})
	require.NoError(t, err)
	h := limiter.Wrap(http.HandlerFunc(item))
	assert.Equal(t, 100, admitted(h, 100))
	assert.InDelta(t, 40, rejected, 1)
}

func TestOldBody(t *testing.T) {
	t.Parallel()
	errs := &admit.ErrorWriter{Encode: migrating.OldBody}
	w := send(admit.Policy{Errors: errs, Methods: []string{"POST"}}.Wrap(http.HandlerFunc(item)), client, "/")
	assert.Equal(t, 405, w.Code)
	assert.Equal(t, "text/plain; charset=utf-8", w.Header().Get("Content-Type"))
	assert.Equal(t, "POST, OPTIONS", w.Header().Get("Allow"))
	assert.Equal(t, "The resource does not support this method. It supports POST, OPTIONS.\n", w.Body.String())
}
