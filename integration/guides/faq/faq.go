// Package faq has the code of docs/faq.md.
package faq

import (
	"encoding/json"
	"errors"
	"net/http"
	"time"

	"github.com/admit-go/admit"
)

// Healthy serves a health check that takes no place and needs no key.
func Healthy(orders admit.Policy, createOrder http.Handler) (http.Handler, error) {
	inFlight, err := admit.NewInFlight(admit.InFlightConfig{
		Max:  2000,
		Skip: func(r *http.Request) bool { return r.URL.Path == "/healthz" },
	})
	if err != nil {
		return nil, err
	}
	mux := http.NewServeMux()
	mux.HandleFunc("/healthz", func(http.ResponseWriter, *http.Request) {}) // no Policy of its own
	mux.Handle("/orders", orders.Wrap(createOrder))
	return admit.Policy{InFlight: inFlight}.Wrap(admit.Mux(mux)), nil
}

// Messages are texts of the service for codes of admit.
var Messages = map[string]string{
	"key_missing":  "Please sign up at https://example.com/signup to get a key.",
	"rate_limited": "Slow down, please.",
}

// Encode writes the envelope with the texts of the service.
func Encode(_ *http.Request, e *admit.Error) (contentType string, body []byte) {
	message := e.Message
	if text, ok := Messages[e.Code]; ok {
		message = text
	}
	body, _ = json.Marshal(map[string]string{"result": "error", "code": e.Code, "message": message}) // strings cannot fail
	return "application/json", body
}

// BothLimits are for strangers by address, and for callers by key.
func BothLimits(auth *admit.Auth) (admit.Policy, error) {
	strangers, err1 := admit.NewLimiter(admit.LimiterConfig{Limits: []admit.Limit{{Name: "address", Requests: 600, Per: time.Minute}}})
	callers, err2 := admit.NewLimiter(admit.LimiterConfig{Limits: []admit.Limit{admit.PerSecond(10)}})
	return admit.Policy{AddressLimiter: strangers, Auth: auth, Limiter: callers}, errors.Join(err1, err2)
}
