package testing_test

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/admit-go/admit"
	"github.com/admit-go/admit/admittest"
	shop "github.com/admit-go/admit/integration/guides/testing"
)

var quiet = slog.New(slog.DiscardHandler)

// newShop returns a service of this test alone, and a token for it.
func newShop(t *testing.T, limits ...admit.Limit) (handler http.Handler, token string) {
	t.Helper()
	token, digest, _ := admit.Mint("test")
	keys := admit.KeyMap{digest: {ID: "k1", Owner: "ACME", Scopes: []string{"orders:write"}}}
	handler, _, err := shop.NewShop(keys, quiet, limits...)
	require.NoError(t, err)
	return handler, token
}

func order(h http.Handler, token, body string) *httptest.ResponseRecorder {
	r := httptest.NewRequest("POST", "/orders", strings.NewReader(body))
	r.Header.Set("X-API-Key", token)
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("X-Request-Id", "r1") // or each error has another request_id
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

func TestOrders(t *testing.T) {
	t.Parallel()
	h, token := newShop(t, admit.PerSecond(1000))

	w := order(h, token, `{"article":"coffee"}`)
	assert.Equal(t, 201, w.Code)
	assert.JSONEq(t, `{"result":"success","data":"ACME gets coffee"}`, w.Body.String())

	w = order(h, "unknown", `{"article":"coffee"}`)
	assert.Equal(t, 401, w.Code)
	assert.JSONEq(t, `{"result":"error","message":"The API key is not valid.","code":"key_invalid","request_id":"r1"}`, w.Body.String())
}

func TestCreateOrder(t *testing.T) {
	t.Parallel()
	r := httptest.NewRequest("POST", "/orders", strings.NewReader(`{"article":"coffee"}`))
	r = r.WithContext(admit.WithKey(r.Context(), &admit.Key{ID: "k1", Owner: "ACME"}))
	w := httptest.NewRecorder()
	require.NoError(t, shop.CreateOrder(w, r))
	assert.JSONEq(t, `{"result":"success","data":"ACME gets coffee"}`, w.Body.String())
}

func TestCreateOrderSoldOut(t *testing.T) {
	t.Parallel()
	r := httptest.NewRequest("POST", "/orders", strings.NewReader(`{"article":"tea"}`))
	err := shop.CreateOrder(httptest.NewRecorder(), r)
	var e *admit.Error
	require.ErrorAs(t, err, &e)
	assert.Equal(t, "sold_out", e.Code)
}

func TestLimit(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h, token := newShop(t, admit.PerMinute(2))
		assert.Equal(t, 201, order(h, token, `{"article":"coffee"}`).Code)
		assert.Equal(t, 201, order(h, token, `{"article":"coffee"}`).Code)
		w := order(h, token, `{"article":"coffee"}`)
		assert.Equal(t, 429, w.Code)
		assert.Equal(t, "30", w.Header().Get("Retry-After"))

		time.Sleep(30 * time.Second) // takes no time in the bubble
		assert.Equal(t, 201, order(h, token, `{"article":"coffee"}`).Code)
	})
}

func TestOverASocket(t *testing.T) {
	t.Parallel()
	h, token := newShop(t, admit.PerSecond(1000))
	server := httptest.NewServer(h)
	defer server.Close()
	r, err := http.NewRequestWithContext(t.Context(), "POST", server.URL+"/orders", strings.NewReader(`{"article":"coffee"}`))
	require.NoError(t, err)
	r.Header.Set("Authorization", "Bearer "+token)
	r.Header.Set("Content-Type", "application/json")
	res, err := server.Client().Do(r)
	require.NoError(t, err)
	require.NoError(t, res.Body.Close())
	assert.Equal(t, 201, res.StatusCode)
}

// lookUp is a KeyStore that a test writes in a line.
type lookUp func(context.Context, admit.Digest) (*admit.Key, error)

func (f lookUp) LookupKey(ctx context.Context, d admit.Digest) (*admit.Key, error) { return f(ctx, d) }

func TestDatabaseDown(t *testing.T) {
	t.Parallel()
	down := lookUp(func(context.Context, admit.Digest) (*admit.Key, error) { return nil, errors.New("no connection") })
	h, _, err := shop.NewShop(down, quiet, admit.PerSecond(1000))
	require.NoError(t, err)
	w := order(h, "any", `{"article":"coffee"}`)
	assert.Equal(t, 503, w.Code)
	assert.Contains(t, w.Body.String(), `"code":"store_unavailable"`)
}

func TestPolicy(t *testing.T) {
	t.Parallel()
	_, err := admit.Policy{Methods: []string{"post"}, MaxBody: -1}.Chain()
	var e *admit.ConfigError
	require.ErrorAs(t, err, &e)
	assert.Equal(t, "Policy.Methods[0]", e.Field)
	assert.ErrorContains(t, err, "Policy.MaxBody")
}

func TestShopStarts(t *testing.T) {
	t.Parallel()
	_, _, err := shop.NewShop(admit.KeyMap{}, quiet, admit.PerSecond(5), admit.PerMinute(100))
	assert.NoError(t, err)
	_, _, err = shop.NewShop(nil, quiet, admit.PerSecond(0))
	assert.ErrorContains(t, err, "AuthConfig.Store")
	assert.ErrorContains(t, err, "LimiterConfig.Limits[0].Requests")
}

func TestContract(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) { // nobody waits for timeouts
		token, digest, _ := admit.Mint("test")
		keys := admit.KeyMap{digest: {ID: "k1", Owner: "ACME", Scopes: []string{"orders:write"}}}
		handler, api, err := shop.NewShop(keys, quiet, admit.PerSecond(5))
		require.NoError(t, err)
		c := admittest.NewContract(t, api, handler) // fails on an error that the contract lacks

		order(c, token, `{"article":"tea"}`)         // errors of your own handlers
		c.Provoke(admittest.Credentials{Keys: keys}) // those of admit: 401, 403, 413, 429, ...
		c.AllReached()                               // fails on an error that cannot happen
		admittest.Golden(t, "testdata/CONTRACT.md", api.Markdown())
	})
}

// The contract of a service whose store is not a KeyMap. Its keys are in memory, as those of a store
// that this test alone has.
func TestContractWithAStore(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var keys sync.Map // *admit.Key by admit.Digest
		store := lookUp(func(_ context.Context, d admit.Digest) (*admit.Key, error) {
			key, ok := keys.Load(d)
			if !ok {
				return nil, admit.ErrKeyNotFound
			}
			return key.(*admit.Key), nil
		})
		handler, api, err := shop.NewShop(store, quiet, admit.PerSecond(5))
		require.NoError(t, err)
		c := admittest.NewContract(t, api, handler)
		c.Provoke(admittest.Credentials{
			Sign: func(r *http.Request, key *admit.Key) {
				token, digest, _ := admit.Mint("test")
				keys.Store(digest, key) // or the Insert of your store
				r.Header.Set("X-API-Key", token)
			},
			OtherStores: true, // no other process uses this store
		})
		c.AllReached("409 sold_out", "503 store_unavailable")
	})
}

// What a handler test without a key gets.
func TestWithoutKey(t *testing.T) {
	t.Parallel()
	h := admit.Policy{Errors: &admit.ErrorWriter{Logger: quiet}, Scopes: []string{"orders:write"}}.Wrap(http.NotFoundHandler())
	assert.Equal(t, 500, order(h, "", "").Code)
}
