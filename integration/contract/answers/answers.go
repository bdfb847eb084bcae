// Package answers holds the answers of a service against an OpenAPI document, by
// kin-openapi's router and validator.
package answers

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/getkin/kin-openapi/openapi3filter"
	"github.com/getkin/kin-openapi/routers"
	"github.com/getkin/kin-openapi/routers/gorillamux"
)

// Document is an OpenAPI document of a service.
type Document struct {
	doc    *openapi3.T
	router routers.Router
}

// Answer is what a service has sent.
type Answer struct {
	Status int
	Header http.Header
	Body   []byte
}

// Read reads a document. Its servers do not matter: requests are told apart by their paths.
func Read(text []byte) (*Document, error) {
	doc, err := openapi3.NewLoader().LoadFromData(text)
	if err != nil {
		return nil, err
	}
	if err := doc.Validate(context.Background()); err != nil {
		return nil, err
	}
	doc.Servers = nil
	// A schema of 3.1 is compiled for each answer, which takes a millisecond. Ours have
	// nothing that 3.0 does not have.
	doc.OpenAPI = "3.0.3"
	router, err := gorillamux.NewRouter(doc)
	if err != nil {
		return nil, err
	}
	return &Document{doc, router}, nil
}

// Operations returns the operations of the document as METHOD /path, sorted.
func (d *Document) Operations() (all []string) {
	for path, item := range d.doc.Paths.Map() {
		for method := range item.Operations() {
			all = append(all, method+" "+path)
		}
	}
	slices.Sort(all)
	return all
}

// Check returns an error unless the document has the answer to a request: the status, its
// headers, and of an error the body. Of a success the body is the service's own.
//
// A path that the document does not have is answered with 404, a method that a path does not
// take as one of its operations says, and HEAD as GET. The name of the operation that has
// the answer is returned too, as METHOD /path; "" for none.
func (d *Document) Check(r *http.Request, a Answer) (operation string, _ error) {
	route, params, err := d.route(r)
	switch {
	case errors.Is(err, routers.ErrPathNotFound):
		if a.Status != http.StatusNotFound {
			return "", fmt.Errorf("the document does not have the path %s, but the answer is %d", r.URL.Path, a.Status)
		}
		return "", nil
	case err != nil:
		return "", err
	case route == nil: // OPTIONS, to which Policy.Methods answers
		return "", nil
	}
	operation = route.Method + " " + route.Path
	input := &openapi3filter.ResponseValidationInput{
		RequestValidationInput: &openapi3filter.RequestValidationInput{Request: get(r), PathParams: params, Route: route},
		Status:                 a.Status,
		Header:                 a.Header,
		Body:                   io.NopCloser(bytes.NewReader(a.Body)),
		Options: &openapi3filter.Options{
			IncludeResponseStatus: true,
			ExcludeResponseBody:   a.Status < 400 || r.Method == http.MethodHead,
		},
	}
	if err := openapi3filter.ValidateResponse(r.Context(), input); err != nil {
		return operation, fmt.Errorf("%s %d is not as the document has it: %w", operation, a.Status, err)
	}
	return operation, d.headers(route, a)
}

// route returns the operation that a request is for. One for a method that the path does not
// have is any that says how that is answered.
func (d *Document) route(r *http.Request) (*routers.Route, map[string]string, error) {
	route, params, err := d.router.FindRoute(r)
	if !errors.Is(err, routers.ErrMethodNotAllowed) {
		return route, params, err
	}
	for _, method := range []string{http.MethodGet, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete} {
		other := r.Clone(r.Context())
		other.Method = method
		if route, params, err = d.router.FindRoute(other); err == nil {
			if r.Method == http.MethodOptions {
				return nil, nil, nil
			}
			return route, params, nil
		}
	}
	return nil, nil, err
}

// get is r with a method of which the validator looks at the answer.
func get(r *http.Request) *http.Request {
	r = r.Clone(r.Context())
	r.Method = http.MethodGet
	return r
}

// ofHTTP are headers that say nothing of the service.
var ofHTTP = []string{"Connection", "Content-Length", "Content-Type", "Date", "Transfer-Encoding"}

// headers returns an error if an answer of 400 or above has a header that the document does
// not have.
func (d *Document) headers(route *routers.Route, a Answer) error {
	if a.Status < 400 {
		return nil
	}
	known := slices.Clone(ofHTTP)
	for name := range route.Operation.Responses.Status(a.Status).Value.Headers {
		known = append(known, http.CanonicalHeaderKey(name))
	}
	for _, name := range slices.Sorted(maps.Keys(a.Header)) {
		if !slices.Contains(known, name) {
			return fmt.Errorf("%s %s %d has the header %s, which the document does not have; it has %s",
				route.Method, route.Path, a.Status, name, strings.Join(known, ", "))
		}
	}
	return nil
}
