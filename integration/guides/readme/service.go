package main

import (
	"errors"
	"log/slog"
	"net/http"
	"time"

	"github.com/admit-go/admit"
)

func newService(keys admit.KeyStore, logger *slog.Logger) (http.Handler, error) {
	auth, err := admit.NewAuth(admit.AuthConfig{Store: keys})
	if err != nil {
		return nil, err
	}
	plans, err := admit.NewPlans(
		admit.Plan{Name: "free", Limits: []admit.Limit{admit.PerSecond(5)}},
		admit.Plan{Name: "pro", Limits: []admit.Limit{admit.PerSecond(50)}, UpgradeURL: "https://example.com/pro"},
	)
	if err != nil {
		return nil, err
	}
	limiter, err := admit.NewLimiter(admit.LimiterConfig{Plans: plans, Limits: []admit.Limit{admit.PerSecond(1)}})
	if err != nil {
		return nil, err
	}
	shedder, err := admit.NewShedder(admit.ShedderConfig{Max: 64, Plans: plans})
	if err != nil {
		return nil, err
	}

	keyed := admit.Policy{Auth: auth, Plans: plans, Limiter: limiter, Shedder: shedder, Timeout: 10 * time.Second}

	prices := keyed // each route gets a copy, changed
	prices.Methods = []string{"GET"}

	orders := keyed
	orders.Methods = []string{"POST"}
	orders.Scopes = []string{"orders:write"}
	orders.ContentType = []string{"application/json"}
	orders.MaxBody = 64 << 10

	mux := http.NewServeMux()
	mux.Handle("/v1/prices/{pair}", prices.Wrap(admit.HandlerFunc(price)))
	mux.Handle("/v1/orders", orders.Wrap(admit.HandlerFunc(createOrder)))

	outer := admit.Policy{
		Errors:      &admit.ErrorWriter{Logger: logger},
		BodyTimeout: admit.BodyTimeout{Grace: 5 * time.Second, Max: 30 * time.Second, MinRate: 1 << 10}, // bounds every body
		WriteStall:  10 * time.Second,
	}
	return admit.AccessLog(logger)(outer.Wrap(admit.Mux(mux))), nil
}

var errSoldOut = admit.NewError(http.StatusConflict, "The article is sold out.")

func createOrder(w http.ResponseWriter, r *http.Request) error {
	order, err := admit.Decode[Order](r)
	if err != nil {
		return err // 400, 413, or 422 with the path of each field that is wrong
	}
	if err := place(order); err != nil {
		return errSoldOut.WithCause(err) // 409; the cause is logged and never sent
	}
	return admit.Success(w, r, http.StatusCreated, order)
}

func price(w http.ResponseWriter, r *http.Request) error {
	return admit.Success(w, r, http.StatusOK, map[string]string{"pair": r.PathValue("pair"), "price": "97000.00"})
}

// Order is what a client sends.
type Order struct {
	Pair     string `json:"pair"`
	Quantity int    `json:"quantity"`
}

// place sells what there is.
func place(o Order) error {
	if o.Quantity > 10 {
		return errors.New("only 10 are left in warehouse 7")
	}
	return nil
}
