package contract

import (
	"bytes"
	"cmp"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"slices"
	"strings"

	"github.com/admit-go/admit"
	"github.com/admit-go/admit/internal/published"
)

// route is a pattern with what its Policy requires and answers.
type route struct {
	pattern            string // "" for the outer Policy
	method, host, path string // of the pattern
	chain              published.Chain
	errors             *admit.ErrorWriter // its own, or that of the outer Policy
	answers            []Answer           // sorted
	handled            bool               // registered by Handle
}

func newRoute(a *API, pattern string, p admit.Policy, errs []*admit.Error) (*route, error) {
	if _, err := p.Chain(); err != nil {
		return nil, err
	}
	r := &route{pattern: pattern, chain: published.Of(p), errors: p.Errors}
	if p.Errors == nil && a.outer != nil {
		r.errors = a.outer.errors
	}
	if r.chain.Identity && len(a.info.SecuritySchemes) == 0 {
		return nil, &admit.ConfigError{Field: "contract.Info.SecuritySchemes", Reason: "is empty, but a Policy has an Identity; describe what its requests carry, such as a JWT"}
	}
	for _, s := range r.chain.Sources {
		name, _ := schemeOf(s)
		if _, taken := a.info.SecuritySchemes[name]; taken {
			return nil, &admit.ConfigError{Field: fmt.Sprintf("contract.Info.SecuritySchemes[%q]", name), Reason: "has the name that the contract gives to API keys of an Auth; give it another one"}
		}
	}
	r.method, r.host, r.path = splitPattern(pattern)
	as := p
	if len(p.Methods) == 0 && r.method != "" {
		as.Methods = []string{r.method} // since the mux lets no other through
	}
	for _, e := range as.Answers() {
		if e.Field == "Methods" && r.method != "" && slices.Contains(published.Of(as).Methods, r.method) {
			continue // the mux rejects all others
		}
		r.put(Answer{Status: e.Status, Code: e.Code, Message: e.Message, Headers: e.Headers, Retryable: e.Retryable, When: e.When, field: e.Field}, e.Error)
	}
	for i, e := range errs {
		if e == nil {
			return nil, &admit.ConfigError{Field: fmt.Sprintf("errs[%d]", i), Reason: "is nil; give an *admit.Error that the handler answers with"}
		}
		r.add("handler", e)
	}
	return r, nil
}

// splitPattern splits a pattern of net/http, which declare has found well-formed.
func splitPattern(pattern string) (method, host, path string) {
	rest := strings.TrimSpace(pattern)
	if before, after, found := strings.Cut(rest, " "); found {
		method, rest = before, strings.TrimLeft(after, " \t")
	}
	if i := strings.IndexByte(rest, '/'); i >= 0 {
		host, rest = rest[:i], rest[i:]
	}
	return method, host, rest
}

// Foreign describes a response with a status of 400 or above that admit does not write, such
// as that of an upstream behind a proxy, or of a handler that calls http.Error. Its row has no
// code, no message and no example; the sentence when says why it is sent. The result is an
// argument for Handle, Declare and New; never send it. Foreign panics on any other status.
func Foreign(status int, when string) *admit.Error {
	e := admit.NewError(status, when)
	e.Code = foreign
	return e
}

// foreign is a code that no error of a service can have.
const foreign = "(foreign)"

// add adds a row for an error of the service itself.
func (r *route) add(field string, e *admit.Error) {
	if e.Code == foreign {
		r.put(Answer{Status: e.Status, Retryable: published.Retryable(e.Status), When: e.Message, field: field}, nil)
		return
	}
	var sent *admit.Error
	write(r.errors, e, func(complete *admit.Error) { sent = complete })
	r.put(Answer{
		Status: sent.Status, Code: sent.Code, Message: sent.Message, Headers: published.HeaderNames(sent.Header, sent.RetryAfter),
		Retryable: published.Retryable(sent.Status), When: sent.Message, field: field,
	}, e)
}

// put inserts a row in its place, unless there is one like it. The error is nil for a response
// that admit does not write.
func (r *route) put(row Answer, e *admit.Error) {
	row.Route, row.Method = r.pattern, r.method
	for _, other := range r.answers {
		if other.Status == row.Status && other.Code == row.Code && other.Message == row.Message {
			return
		}
	}
	if e != nil {
		row.Example = write(r.errors, e, nil)
		row.own = r.errors != nil && r.errors.Encode != nil
	}
	for _, l := range r.chain.Limits {
		if l.Field == row.field && slices.Contains(row.Headers, "RateLimit") && row.Example.Header["RateLimit"] == nil {
			row.Example.Header["RateLimit"], row.Example.Header["RateLimit-Policy"] = []string{l.Exhausted}, []string{l.Policy}
		}
	}
	for _, q := range r.chain.Quotas {
		if row.field == "Quotas" && q.Exhausted != "" && slices.Contains(row.Headers, "RateLimit") && row.Example.Header["RateLimit"] == nil {
			row.Example.Header["RateLimit"], row.Example.Header["RateLimit-Policy"] = []string{q.Exhausted}, []string{q.Policy}
		}
	}
	i, _ := slices.BinarySearchFunc(r.answers, row, func(a, b Answer) int {
		return cmp.Or(cmp.Compare(a.Status, b.Status), cmp.Compare(a.Code, b.Code), -1) // after its equals
	})
	r.answers = slices.Insert(r.answers, i, row)
}

// exampleID is the id of a request in examples.
const exampleID = "5f8a7c1e4b2d4f7a"

// write returns e as a service with this ErrorWriter sends it. It calls observe, unless that
// is nil, with the error as it is sent.
func write(errors *admit.ErrorWriter, e *admit.Error, observe func(*admit.Error)) Example {
	var own admit.ErrorWriter
	if errors != nil {
		own = *errors
	}
	own.Logger = slog.New(slog.DiscardHandler) // nothing has failed
	own.Observe = func(_ *http.Request, e *admit.Error) {
		if observe != nil {
			observe(e)
		}
	}
	h := admit.Policy{Errors: &own}.Wrap(admit.HandlerFunc(func(http.ResponseWriter, *http.Request) error { return e }))
	r, err := http.NewRequest(http.MethodGet, "http://localhost/", nil)
	if err != nil {
		panic(err) // never
	}
	r.Body = io.NopCloser(bytes.NewReader(nil))
	r.Header.Set("X-Request-Id", exampleID)
	w := recorder{header: make(http.Header)}
	h.ServeHTTP(&w, r)
	header := make(map[string][]string, len(w.header))
	for name, values := range w.header {
		if name != "Content-Length" {
			header[published.HeaderName(name)] = values
		}
	}
	return Example{Header: header, Body: w.body.String()}
}

// recorder keeps a response.
type recorder struct {
	header http.Header
	body   bytes.Buffer
}

func (w *recorder) Header() http.Header         { return w.header }
func (w *recorder) WriteHeader(int)             {}
func (w *recorder) Write(p []byte) (int, error) { return w.body.Write(p) }

// Decodes returns the errors of a handler that calls admit.Decode, as arguments for Handle.
func Decodes() []*admit.Error { return published.Decodes().([]*admit.Error) }

// Forms returns the errors of a handler that calls admit.ParseForm, as arguments for Handle.
func Forms() []*admit.Error { return slices.Clone(published.Forms.([]*admit.Error)) }

// Proxies returns the errors of a reverse proxy whose ErrorHandler is admit.ProxyError, as
// arguments for Handle. They do not include the responses of the upstream itself (see
// Foreign), nor 413, which comes with the MaxBody of the Policy.
func Proxies() []*admit.Error { return slices.Clone(published.Proxies.([]*admit.Error)) }
