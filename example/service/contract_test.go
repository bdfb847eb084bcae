package service_test

import (
	"io"
	"log/slog"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"testing/iotest"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/admit-go/admit"
	"github.com/admit-go/admit/admittest"
	"github.com/admit-go/admit/example/service"
)

// Every answer of the example is in its contract, and every row of the contract can happen. In
// the bubble nobody waits for what is slow.
func TestContract(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		keys := admit.KeyMap{admit.DigestOf("trader"): {ID: "trader", Plan: "pro", Scopes: []string{"orders:write"}}}
		api, err := service.New(t.Context(), service.Config{Keys: keys, Logger: slog.New(slog.DiscardHandler)})
		require.NoError(t, err)
		c := admittest.NewContract(t, api.Contract, api)

		// What the handlers answer themselves.
		send := func(method, path string, body io.Reader) {
			r := httptest.NewRequest(method, path, body)
			r.Header.Set("X-API-Key", "trader")
			r.Header.Set("Content-Type", "application/json")
			c.ServeHTTP(httptest.NewRecorder(), r)
		}
		for range 2 { // the same order twice
			send("POST", "/v1/orders", strings.NewReader(`{"pair":"btc-usd","side":"buy","quantity":"1","client_id":"c1"}`))
		}
		send("GET", "/v1/slow?d=long", nil)
		send("GET", "/v1/upstream?as=refused", nil)
		send("GET", "/v1/upstream?as=slow", nil)
		send("GET", "/v1/upstream?as=slow", iotest.ErrReader(os.ErrDeadlineExceeded))

		c.Provoke(admittest.Credentials{Keys: keys, Patience: time.Minute})
		c.AllReached()
		admittest.Golden(t, "../CONTRACT.md", api.Contract.Markdown())
	})
}
