// Package errors has the code of docs/errors.md.
package errors

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"

	"github.com/admit-go/admit"
)

type Order struct {
	Article  string   `json:"article"`
	Quantity Quantity `json:"quantity"`
}

// The errors of the service, as clients see them.
var (
	errSoldOut = &admit.Error{
		Status:  http.StatusConflict,
		Code:    "sold_out",
		Message: "The article is sold out.",
		Meta:    map[string]any{"restock_url": "https://shop.example.com/restock"},
	}
	errNoArticle = admit.NewError(http.StatusNotFound, "There is no such article.")
)

func createOrder(w http.ResponseWriter, r *http.Request) error {
	order, err := admit.Decode[Order](r)
	if err != nil {
		return err // 400, 413 or 422
	}
	if err := check(order); err != nil {
		return err
	}
	if err := place(order); err != nil {
		return fmt.Errorf("place %s: %w", order.Article, err)
	}
	return admit.Success(w, r, http.StatusCreated, order)
}

// toAdmit turns the errors of other packages into errors of the service.
func toAdmit(err error) *admit.Error {
	switch {
	case errors.Is(err, errEmpty):
		return errSoldOut
	case errors.Is(err, errUnknown):
		return errNoArticle
	}
	return nil // 500
}

func newShop(logger *slog.Logger, observe func(*http.Request, *admit.Error)) http.Handler {
	orders := admit.Policy{ContentType: []string{"application/json"}, MaxBody: 64 << 10}
	mux := http.NewServeMux()
	mux.Handle("POST /orders", orders.Wrap(admit.HandlerFunc(createOrder)))
	mux.Handle("GET /report", admit.Intercept(http.HandlerFunc(report)))

	return admit.Policy{
		Errors: &admit.ErrorWriter{Logger: logger, Map: toAdmit, Observe: observe},
	}.Wrap(admit.Mux(mux))
}

// check validates what the types do not say.
func check(o Order) error {
	if o.Article == "" {
		return &admit.Error{
			Status: http.StatusUnprocessableEntity,
			Fields: []admit.FieldError{{Path: "article", Code: "required", Message: "is required"}},
		}
	}
	return nil
}

// Quantity is from 1 to 100.
type Quantity int

var errQuantity = &admit.Error{Status: http.StatusUnprocessableEntity, Code: "out_of_range", Message: "must be 1 to 100"}

func (q *Quantity) UnmarshalJSON(text []byte) error {
	var n int
	if err := json.Unmarshal(text, &n); err != nil || n < 1 || n > 100 {
		return errQuantity
	}
	*q = Quantity(n)
	return nil
}

// report is a handler that writes its errors as text.
func report(w http.ResponseWriter, _ *http.Request) {
	http.Error(w, `pq: relation "sales" does not exist`, http.StatusInternalServerError)
}

// The errors of a package that does not know HTTP.
var (
	errEmpty   = errors.New("stock: empty")
	errUnknown = errors.New("stock: no such article")
)

func place(o Order) error {
	switch o.Article {
	case "lamp":
		return nil
	case "chair":
		return errEmpty
	case "table":
		return errors.New("dial tcp 10.0.0.7:5432: connection refused")
	}
	return errUnknown
}
