package contract_test

import (
	"encoding/json"
	"fmt"
	"log"
	"net/http"
	"net/http/httptest"
	"strings"

	"github.com/admit-go/admit"
	"github.com/admit-go/admit/contract"
)

// The rows of a route come from the Policy that it runs in, and from the errors of its handler
// that Handle gets.
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
	// 403 address_not_allowed: The credential may not be used from this address.
	// 408 request_timeout: The body of the request did not arrive in time.
	// 409 sold_out: It is sold out.
	// 413 body_too_large: The body of the request is too large.
	// 500 internal: The service has failed.
	// 503 unavailable: The request took too long. Try again.
}

// New reports every problem of its arguments at once.
func ExampleNew() {
	_, err := contract.New(contract.Info{Servers: []string{"api.example.com"}}, admit.Policy{})
	fmt.Println(err)
	// Output:
	// admit: contract.Info.Title is empty; give the name of the API
	// admit: contract.Info.Version is empty; give the version of the contract, such as 1.0
	// admit: contract.Info.Servers[0] is "api.example.com"; give an http or https URL, such as https://api.example.com
}

// Handle takes the place of mux.Handle and Policy.Wrap.
func ExampleAPI_Handle() {
	outer := admit.Policy{}
	api, err := contract.New(contract.Info{Title: "Shop", Version: "1.0"}, outer)
	if err != nil {
		log.Fatal(err)
	}
	soldOut := admit.NewError(http.StatusConflict, "It is sold out.")
	buy := func(http.ResponseWriter, *http.Request) error { return soldOut }
	mux := http.NewServeMux()
	api.Handle(mux, "POST /v1/orders", admit.Policy{MaxBody: 64 << 10}, admit.HandlerFunc(buy), soldOut)

	w := httptest.NewRecorder()
	outer.Wrap(admit.Mux(mux)).ServeHTTP(w, httptest.NewRequest("POST", "/v1/orders", nil))
	fmt.Println(w.Code)
	// Output: 409
}

// A client that accepts anything, such as curl, gets the page as Markdown.
func ExampleAPI_Page() {
	api, err := contract.New(contract.Info{Title: "Shop", Version: "1.0"}, admit.Policy{})
	if err != nil {
		log.Fatal(err)
	}
	w := httptest.NewRecorder()
	api.Page().ServeHTTP(w, httptest.NewRequest("GET", "/", nil))
	title, _, _ := strings.Cut(w.Body.String(), "\n")
	fmt.Println(w.Header().Get("Content-Type"))
	fmt.Println(title)
	// Output:
	// text/markdown; charset=utf-8
	// # Shop 1.0
}

func ExampleAPI_OpenAPI() {
	api, err := contract.New(contract.Info{Title: "Shop", Version: "1.0"}, admit.Policy{})
	if err != nil {
		log.Fatal(err)
	}
	api.Declare("GET /v1/articles/{id}", admit.Policy{Accept: []string{"application/json"}})

	text, err := api.OpenAPI(contract.OpenAPI32)
	if err != nil {
		log.Fatal(err)
	}
	var document struct {
		OpenAPI string
		Paths   map[string]any
	}
	if err := json.Unmarshal(text, &document); err != nil {
		log.Fatal(err)
	}
	for path := range document.Paths {
		fmt.Println(document.OpenAPI, path)
	}
	// Output: 3.2.0 /v1/articles/{id}
}
