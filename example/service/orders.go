package service

import (
	"net/http"
	"regexp"
	"strings"
	"sync"

	"github.com/admit-go/admit"
)

type order struct {
	Pair     string `json:"pair"`
	Side     string `json:"side"`
	Quantity string `json:"quantity"`
	ClientID string `json:"client_id"`
}

var (
	decimal  = regexp.MustCompile(`^[0-9]{1,12}(\.[0-9]{1,8})?$`)
	clientID = regexp.MustCompile(`^[A-Za-z0-9._-]{1,64}$`)
)

// check returns every problem of the order.
func (o order) check() error {
	var fields []admit.FieldError
	fault := func(path, message string) {
		fields = append(fields, admit.FieldError{Path: path, Code: "invalid", Message: message})
	}
	if _, known := quotes[o.Pair]; !known {
		fault("pair", "must be btc-usd or eth-usd")
	}
	if o.Side != "buy" && o.Side != "sell" {
		fault("side", "must be buy or sell")
	}
	if !decimal.MatchString(o.Quantity) || strings.Trim(o.Quantity, "0.") == "" {
		fault("quantity", "must be a positive decimal number, such as \"0.5\"")
	}
	if !clientID.MatchString(o.ClientID) {
		fault("client_id", "must be 1 to 64 of A-Z a-z 0-9 . _ -")
	}
	if len(fields) == 0 {
		return nil
	}
	e := *errInvalidOrder
	e.Fields = fields
	return &e
}

// maxOrders bounds the orders that the book remembers.
const maxOrders = 10_000

// orderBook remembers the last orders by caller and client_id.
type orderBook struct {
	mu    sync.Mutex
	known map[string]bool
	ring  [maxOrders]string
	next  int
}

var (
	errInvalidOrder = admit.NewError(http.StatusUnprocessableEntity, "The order is not valid.")
	errRepeated     = admit.NewError(http.StatusConflict, "There is an order with this client_id already.")
)

func (b *orderBook) create(w http.ResponseWriter, r *http.Request) error {
	o, err := admit.Decode[order](r)
	if err != nil {
		return err
	}
	if err := o.check(); err != nil {
		return err
	}
	key, _ := admit.KeyFrom(r.Context())
	if !b.add(key.ID + "/" + o.ClientID) {
		return errRepeated
	}
	return admit.Success(w, r, http.StatusCreated, o)
}

// add reports whether the id is new.
func (b *orderBook) add(id string) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.known[id] {
		return false
	}
	if b.known == nil {
		b.known = make(map[string]bool)
	}
	delete(b.known, b.ring[b.next])
	b.known[id], b.ring[b.next] = true, id
	b.next = (b.next + 1) % maxOrders
	return true
}
