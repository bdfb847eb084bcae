// Package testing has the service that docs/testing.md tests.
package testing

import (
	"errors"
	"log/slog"
	"net/http"
	"time"

	"github.com/admit-go/admit"
	"github.com/admit-go/admit/contract"
)

var errSoldOut = &admit.Error{Status: http.StatusConflict, Code: "sold_out", Message: "The article is sold out."}

// NewShop returns a service and its contract. What a test replaces is an argument.
func NewShop(keys admit.KeyStore, logger *slog.Logger, limits ...admit.Limit) (http.Handler, *contract.API, error) {
	auth, err1 := admit.NewAuth(admit.AuthConfig{Store: keys})
	limiter, err2 := admit.NewLimiter(admit.LimiterConfig{Limits: limits})
	outer := admit.Policy{Errors: &admit.ErrorWriter{Logger: logger}}
	api, err3 := contract.New(contract.Info{Title: "Shop", Version: "1.0"}, outer)
	if err := errors.Join(err1, err2, err3); err != nil {
		return nil, nil, err
	}
	orders := admit.Policy{
		Methods:     []string{"POST"},
		Auth:        auth,
		Scopes:      []string{"orders:write"},
		Limiter:     limiter,
		ContentType: []string{"application/json"},
		MaxBody:     1 << 10,
		Timeout:     5 * time.Second,
	}
	mux := http.NewServeMux()
	mux.Handle("GET /{$}", api.Page())
	api.Handle(mux, "/orders", orders, admit.HandlerFunc(CreateOrder), append(contract.Decodes(), errSoldOut)...)
	return api.Wrap(outer.Wrap(admit.Mux(mux))), api, nil
}

// CreateOrder says who orders what.
func CreateOrder(w http.ResponseWriter, r *http.Request) error {
	order, err := admit.Decode[struct {
		Article string `json:"article"`
	}](r)
	if err != nil {
		return err
	}
	if order.Article == "tea" {
		return errSoldOut
	}
	key, _ := admit.KeyFrom(r.Context())
	return admit.Success(w, r, http.StatusCreated, key.Owner+" gets "+order.Article)
}
