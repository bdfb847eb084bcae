package admit_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"

	"github.com/admit-go/admit"
)

func ExampleNegotiate() {
	accept := []string{"text/html;q=0.5, application/json;q=0, */*;q=0.1"}
	fmt.Println(admit.Negotiate(accept, "application/json", "text/csv", "text/html"))
	fmt.Println(admit.Negotiate(accept, "application/json", "text/csv"))
	fmt.Println(admit.Negotiate(accept, "application/json"))
	// Output:
	// text/html true
	// text/csv true
	//  false
}

func ExampleAccept() {
	prices := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		offer := admit.MediaTypeFrom(r.Context())
		w.Header().Set("Content-Type", offer)
		if offer == "text/csv" {
			fmt.Fprintln(w, "btc-usd,60000.00")
			return
		}
		fmt.Fprintln(w, `{"btc-usd":"60000.00"}`)
	})
	h := admit.Accept("application/json", "text/csv")(prices)

	for _, accept := range []string{"*/*", "text/*", "image/png"} {
		r := httptest.NewRequest(http.MethodGet, "/", nil)
		r.Header.Set("Accept", accept)
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		fmt.Print(w.Code, " Vary: ", w.Header().Get("Vary"), "\n", w.Body)
	}
	// Output:
	// 200 Vary: Accept
	// {"btc-usd":"60000.00"}
	// 200 Vary: Accept
	// btc-usd,60000.00
	// 406 Vary: Accept
	// {"result":"error","message":"No accepted media type can be sent; the resource is available as application/json, text/csv.","code":"not_acceptable","offers":["application/json","text/csv"]}
}

// A client that accepts none of the offers gets JSON instead of 406.
func ExampleNewNegotiator() {
	n, err := admit.NewNegotiator(admit.NegotiatorConfig{
		Offers:   []string{"application/json", "text/csv"},
		Fallback: "application/json",
	})
	if err != nil {
		panic(err)
	}
	fmt.Println(n.Negotiate([]string{"text/csv"}))
	fmt.Println(n.Negotiate([]string{"image/png"}))
	// Output:
	// text/csv true
	// application/json true
}

func ExampleContentType() {
	created := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusCreated) })
	h := admit.ContentType("application/json", "application/*+json")(created)

	for _, contentType := range []string{"application/json; charset=utf-8", "application/vnd.api+json", "text/xml"} {
		r := httptest.NewRequest(http.MethodPost, "/", strings.NewReader("{}"))
		r.Header.Set("Content-Type", contentType)
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		fmt.Printf("%d %q\n", w.Code, w.Header().Get("Accept-Post"))
	}
	// Output:
	// 201 ""
	// 201 ""
	// 415 "application/json, application/*+json"
}

// A handler decodes gzip itself, and also takes an older charset.
func ExampleNewContentTypes() {
	c, err := admit.NewContentTypes(admit.ContentTypesConfig{
		Allow:     []string{"text/csv"},
		Charsets:  []string{"utf-8", "iso-8859-1"},
		Encodings: []string{"gzip"},
	})
	if err != nil {
		panic(err)
	}
	r := httptest.NewRequest(http.MethodPut, "/", strings.NewReader("..."))
	r.Header.Set("Content-Type", "text/csv; charset=iso-8859-1")
	r.Header.Set("Content-Encoding", "gzip")
	fmt.Println(c.Check(r))
	r.Header.Set("Content-Encoding", "br")
	fmt.Println(c.Check(r))
	// Output:
	// <nil>
	// admit: 415 unsupported_media_type: The resource does not accept this content coding; send one of: gzip, identity.
}
