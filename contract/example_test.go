package contract_test

import (
	"fmt"
	"log"
	"net/http"

	"github.com/admit-go/admit"
	"github.com/admit-go/admit/contract"
)

// What a route answers is said where it is registered. The rows are those of the policies that
// run, and the errors that its handler has of its own.
func Example() {
	auth, err := admit.NewAuth(admit.AuthConfig{Store: admit.KeyMap{}})
	if err != nil {
		log.Fatal(err)
	}
	outer := admit.Policy{}
	api, err := contract.New(contract.Info{Title: "Shop", Version: "1.0"}, outer)
	if err != nil {
		log.Fatal(err)
	}

	soldOut := &admit.Error{Status: http.StatusConflict, Code: "sold_out", Message: "It is sold out."}
	buy := func(http.ResponseWriter, *http.Request) error { return soldOut }
	mux := http.NewServeMux()
	api.Handle(mux, "POST /v1/orders", admit.Policy{Auth: auth, MaxBody: 64 << 10}, admit.HandlerFunc(buy), soldOut)

	handler := api.Wrap(outer.Wrap(admit.Mux(mux))) // for http.Server
	_ = handler

	for _, row := range api.Answers() {
		if row.Route != "" {
			fmt.Println(row.Status, row.Code+":", row.When)
		}
	}
	// Output:
	// 400 bad_request: The request has more than one API key.
	// 400 bad_request: The body of the request is cut short or malformed.
	// 401 key_invalid: The API key is not known.
	// 401 key_invalid: The API key has expired.
	// 401 key_invalid: The API key is not valid yet.
	// 401 key_invalid: The API key has been revoked.
	// 401 key_missing: The request has no API key.
	// 403 address_not_allowed: The API key may not be used from this address.
	// 408 request_timeout: The body of the request did not arrive in time.
	// 409 sold_out: It is sold out.
	// 413 body_too_large: The body of the request is too large.
	// 500 internal: The service has failed.
	// 503 unavailable: The request took too long. Try again.
}
