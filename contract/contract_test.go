package contract_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/admit-go/admit"
	"github.com/admit-go/admit/contract"
)

var info = contract.Info{Title: "Market data", Version: "1.0"}

var errSoldOut = &admit.Error{Status: http.StatusConflict, Code: "sold_out", Message: "It is sold out.", Header: http.Header{"X-Stock": {"0"}}}

func newAPI(t testing.TB, outer admit.Policy, errs ...*admit.Error) *contract.API {
	t.Helper()
	api, err := contract.New(info, outer, errs...)
	require.NoError(t, err)
	return api
}

func newAuth(t testing.TB) *admit.Auth {
	t.Helper()
	auth, err := admit.NewAuth(admit.AuthConfig{Store: admit.KeyMap{}})
	require.NoError(t, err)
	return auth
}

var nothing = http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})

// row finds the rows of a route with a code.
func row(api *contract.API, route, code string) []contract.Answer {
	return slices.DeleteFunc(api.Answers(), func(a contract.Answer) bool { return a.Route != route || a.Code != code })
}

func TestAnswers(t *testing.T) {
	t.Parallel()
	api := newAPI(t, admit.Policy{Maintenance: new(admit.Maintenance)}, admit.NewError(http.StatusPreconditionRequired, ""))
	mux := http.NewServeMux()
	api.Handle(mux, "POST /v1/orders", admit.Policy{Auth: newAuth(t), ContentType: []string{"application/json"}}, nothing, errSoldOut, errSoldOut)
	api.Declare("GET example.com/v1/items/{id}", admit.Policy{}, &admit.Error{Status: 404})

	var order []string
	for _, a := range api.Answers() {
		order = append(order, a.Route+" "+a.Code)
	}
	assert.Equal(t, []string{
		" bad_request", " not_found", " method_not_allowed", " precondition_required", " internal", " maintenance",
		"POST /v1/orders bad_request", "POST /v1/orders bad_request", "POST /v1/orders key_invalid", "POST /v1/orders key_invalid",
		"POST /v1/orders key_invalid", "POST /v1/orders key_invalid", "POST /v1/orders key_missing", "POST /v1/orders address_not_allowed", "POST /v1/orders sold_out",
		"POST /v1/orders unsupported_media_type", "POST /v1/orders unsupported_media_type", "POST /v1/orders unsupported_media_type",
		"POST /v1/orders unsupported_media_type", "POST /v1/orders unsupported_media_type", "POST /v1/orders internal",
		"GET example.com/v1/items/{id} not_found", "GET example.com/v1/items/{id} internal",
	}, order)

	sold := row(api, "POST /v1/orders", "sold_out")[0]
	assert.Equal(t, "POST", sold.Method)
	assert.Equal(t, []string{"X-Stock"}, sold.Headers)
	assert.False(t, sold.Retryable)
	assert.JSONEq(t, `{"result":"error","message":"It is sold out.","code":"sold_out","request_id":"`+sold.Example.Header["X-Request-ID"][0]+`"}`, sold.Example.Body)
	missing := row(api, "GET example.com/v1/items/{id}", "not_found")[0]
	assert.Equal(t, "There is no such resource.", missing.Message, "what an error leaves to its status is there")
	assert.True(t, row(api, "", "maintenance")[0].Retryable)
	for _, a := range api.Answers() {
		assert.NotEmpty(t, a.Message)
		assert.NotEmpty(t, a.When)
		assert.NotEmpty(t, a.Example.Body)
	}
}

// An answer of others has a row without a code.
func TestForeign(t *testing.T) {
	t.Parallel()
	api := newAPI(t, admit.Policy{})
	api.Declare("/x", admit.Policy{}, contract.Foreign(502, "The upstream has failed."))
	text, err := json.Marshal(row(api, "/x", ""))
	require.NoError(t, err)
	assert.JSONEq(t, `[{"route":"/x","status":502,"code":"","message":"","retryable":true,"when":"The upstream has failed."}]`, string(text))
	assert.Panics(t, func() { contract.Foreign(200, "x") })
}

// The examples are what the service sends, by its own ErrorWriter, and no hook of the
// service is called for them.
func TestExamples(t *testing.T) {
	t.Parallel()
	observed := 0
	own := &admit.ErrorWriter{
		Observe: func(*http.Request, *admit.Error) { observed++ },
		Encode: func(_ *http.Request, e *admit.Error) (string, []byte) {
			return "text/x-own", []byte("own " + e.Code)
		},
	}
	api := newAPI(t, admit.Policy{Errors: own})
	api.Declare("/own", admit.Policy{}, errSoldOut)
	api.Declare("/usual", admit.Policy{Errors: new(admit.ErrorWriter)}, errSoldOut)
	assert.Equal(t, "own sold_out", row(api, "/own", "sold_out")[0].Example.Body)
	assert.Equal(t, []string{"text/x-own"}, row(api, "/own", "sold_out")[0].Example.Header["Content-Type"])
	assert.Contains(t, row(api, "/usual", "sold_out")[0].Example.Body, `"result":"error"`)
	assert.Zero(t, observed)

	limiter, err := admit.NewLimiter(admit.LimiterConfig{Limits: []admit.Limit{admit.PerSecond(5), admit.PerDay(9)}})
	require.NoError(t, err)
	p := admit.Policy{Limiter: limiter}
	api.Declare("/limited", p)
	h, r := p.Wrap(nothing), httptest.NewRequest("GET", "/", nil)
	var w *httptest.ResponseRecorder
	for range 6 {
		w = httptest.NewRecorder()
		h.ServeHTTP(w, r)
	}
	example := row(api, "/limited", "rate_limited")[0].Example
	for _, name := range []string{"RateLimit-Policy", "Retry-After"} {
		assert.Equal(t, w.Header().Values(name), example.Header[name], name)
	}
	assert.Equal(t, []string{`"second";r=0;t=1`}, example.Header["RateLimit"])
}

// A route whose pattern has a method says nothing of what only another one is answered.
func TestAnswersOfAPatternWithAMethod(t *testing.T) {
	t.Parallel()
	api := newAPI(t, admit.Policy{})
	p := admit.Policy{ContentType: []string{"application/json"}}
	api.Declare("PUT /x", p)
	api.Declare("QUERY /x", p)
	api.Declare("/y", p)
	assert.Len(t, row(api, "PUT /x", "bad_request"), 1)
	assert.Len(t, row(api, "QUERY /x", "bad_request"), 2)
	assert.Len(t, row(api, "/y", "bad_request"), 2)
	assert.Empty(t, row(api, "PUT /x", "method_not_allowed"), "the mux answers it")

	// Nor does a Policy that names the method once more.
	p.Methods = []string{"GET", "POST"}
	for _, pattern := range []string{"POST /z", "GET /z", "HEAD /z"} {
		api.Declare(pattern, p)
		assert.Empty(t, row(api, pattern, "method_not_allowed"), pattern)
		assert.Empty(t, row(api, pattern, "not_implemented"), pattern)
	}
	api.Declare("DELETE /z", p)
	assert.Len(t, row(api, "DELETE /z", "method_not_allowed"), 1, "it refuses all that comes")
}

func TestFaults(t *testing.T) {
	t.Parallel()
	named := info
	named.SecuritySchemes = map[string]contract.SecurityScheme{"bearer": {Type: "http", Scheme: "basic"}}
	identity := admit.Policy{Identity: func(h http.Handler) http.Handler { return h }}
	for name, test := range map[string]struct {
		info  contract.Info
		outer admit.Policy
		errs  []*admit.Error
		field string
	}{
		"no title":         {contract.Info{Title: " ", Version: "1"}, admit.Policy{}, nil, "contract.Info.Title"},
		"no version":       {contract.Info{Title: "x"}, admit.Policy{}, nil, "contract.Info.Version"},
		"server":           {contract.Info{Title: "x", Version: "1", Servers: []string{"api.example.com"}}, admit.Policy{}, nil, "contract.Info.Servers[0]"},
		"server, user":     {contract.Info{Title: "x", Version: "1", Servers: []string{"http://a", "https://me:x@example.com"}}, admit.Policy{}, nil, "contract.Info.Servers[1]"},
		"a wrong policy":   {info, admit.Policy{MaxBody: -1}, nil, "Policy.MaxBody"},
		"a nil error":      {info, admit.Policy{}, []*admit.Error{errSoldOut, nil}, "errs[1]"},
		"unknown identity": {info, identity, nil, "contract.Info.SecuritySchemes"},
		"a name of Auth's": {named, admit.Policy{Auth: newAuth(t)}, nil, `contract.Info.SecuritySchemes["bearer"]`},
	} {
		api, err := contract.New(test.info, test.outer, test.errs...)
		var fault *admit.ConfigError
		require.ErrorAs(t, err, &fault, name)
		assert.Equal(t, test.field, fault.Field, name)
		assert.Nil(t, api)
	}
	_, err := contract.New(contract.Info{}, admit.Policy{MaxBody: -1})
	for _, part := range []string{"contract.Info.Title", "contract.Info.Version", "Policy.MaxBody"} {
		assert.ErrorContains(t, err, part, "each fault is told")
	}

	for _, scheme := range []contract.SecurityScheme{
		{},
		{Type: "jwt"},
		{Type: "apiKey", In: "header"},
		{Type: "apiKey", Name: "X", In: "body"},
		{Type: "http"},
		{Type: "oauth2"},
		{Type: "oauth2", Flows: func() {}},
		{Type: "openIdConnect"},
	} {
		wrong := info
		wrong.SecuritySchemes = map[string]contract.SecurityScheme{"who": scheme}
		_, err := contract.New(wrong, admit.Policy{})
		assert.ErrorContains(t, err, `contract.Info.SecuritySchemes["who"]`)
	}

	api := newAPI(t, admit.Policy{})
	mux := http.NewServeMux()
	api.Handle(mux, "GET /x", admit.Policy{}, nothing)
	for part, f := range map[string]func(){
		`Handle("GET /x")`:              func() { api.Handle(mux, "GET /x", admit.Policy{}, nothing) },
		"Policy.MaxBody":                func() { api.Handle(mux, "/y", admit.Policy{MaxBody: -1}, nothing) },
		"handler is nil":                func() { api.Handle(mux, "/y", admit.Policy{}, nil) },
		`Declare("nonsense x y")`:       func() { api.Declare("nonsense x y", admit.Policy{}) },
		"errs[0]":                       func() { api.Declare("/y", admit.Policy{}, nil) },
		"contract.Info.SecuritySchemes": func() { api.Declare("/y", identity) },
		"Wrap: the handler":             func() { api.Wrap(nil) },
	} {
		assert.Contains(t, panicOf(f), part)
	}
	assert.Empty(t, row(api, "/y", "internal"), "what has panicked is not in the contract")
	with := info
	with.SecuritySchemes = map[string]contract.SecurityScheme{"jwt": {Type: "http", Scheme: "bearer", BearerFormat: "JWT"}}
	_, err = contract.New(with, identity)
	require.NoError(t, err)
}

func panicOf(f func()) (text string) {
	defer func() {
		switch v := recover().(type) {
		case string:
			text = v
		case error:
			text = v.Error()
		}
	}()
	f()
	return ""
}

// heard is what Undeclared was told.
type heard struct {
	mu  sync.Mutex
	all []string
}

func (h *heard) take() []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	defer func() { h.all = nil }()
	return h.all
}

func TestUndeclared(t *testing.T) {
	t.Parallel()
	quiet := admit.Policy{Errors: &admit.ErrorWriter{Logger: slog.New(slog.DiscardHandler)}}
	api := newAPI(t, quiet)
	var said heard
	api.Undeclared(func(r *http.Request, status int, code string) {
		said.mu.Lock()
		defer said.mu.Unlock()
		said.all = append(said.all, r.URL.Path+" "+http.StatusText(status)+" "+code)
	})
	fails := func(e *admit.Error) http.Handler {
		return admit.HandlerFunc(func(http.ResponseWriter, *http.Request) error { return e })
	}
	text := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "text", 404) })
	mux, sub := http.NewServeMux(), http.NewServeMux()
	api.Handle(mux, "GET /declared", admit.Policy{}, fails(errSoldOut), errSoldOut)
	api.Handle(mux, "GET /forgotten", admit.Policy{}, fails(errSoldOut))
	api.Handle(mux, "GET /text/{id}", admit.Policy{}, text, admit.NewError(404, ""))
	api.Handle(mux, "GET /missing", admit.Policy{}, fails(admit.NewError(404, "")))
	api.Handle(mux, "GET /foreign", admit.Policy{}, text, contract.Foreign(404, "There is no such text."))
	api.Handle(mux, "GET /fails", admit.Policy{}, admit.HandlerFunc(func(http.ResponseWriter, *http.Request) error { return errors.New("x") }))
	api.Handle(mux, "GET /panics", admit.Policy{}, http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic("x") }))
	api.Handle(sub, "GET /below", admit.Policy{}, fails(errSoldOut), errSoldOut)
	mux.Handle("/mounted/", http.StripPrefix("/mounted", sub))
	mux.Handle("/unknown", fails(errSoldOut))
	mux.Handle("/unknown/404", fails(admit.NewError(404, "")))
	api.Declare("GET /elsewhere/{id}", admit.Policy{}, errSoldOut)
	mux.Handle("/elsewhere/", fails(errSoldOut))
	h := api.Wrap(quiet.Wrap(admit.Mux(mux)))
	for path, want := range map[string][]string{
		"/declared":      nil,
		"/forgotten":     {"/forgotten Conflict sold_out"},
		"/text/1":        {"/text/1 Not Found "},           // a code is what is missing
		"/missing":       {"/missing Not Found not_found"}, // the row of the mux is not for a handler
		"/foreign":       nil,
		"/fails":         nil,
		"/panics":        nil,
		"/none":          nil,
		"/mounted/below": nil,
		"/mounted/none":  {"/mounted/none Not Found "},
		"/unknown":       {"/unknown Conflict sold_out"},
		"/unknown/404":   {"/unknown/404 Not Found not_found"},
		"/elsewhere/1":   nil,
	} {
		h.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("GET", path, nil))
		assert.Equal(t, want, said.take(), path)
	}
	star := httptest.NewRequest("GET", "/", nil)
	star.RequestURI, star.URL.Path = "*", "*"
	for status, r := range map[int]*http.Request{400: star, 405: httptest.NewRequest("POST", "/declared", nil)} {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		assert.Equal(t, status, w.Code)
		assert.Empty(t, said.take(), "the mux answers %d", status)
	}

	// A route for all that is no route does not hide those that nobody has declared.
	api.Handle(mux, "/", admit.Policy{}, fails(admit.NewError(404, "")), admit.NewError(404, ""))
	mux.Handle("GET /raw/{id}", fails(admit.NewError(404, "")))
	for path, want := range map[string][]string{"/raw/1": {"/raw/1 Not Found not_found"}, "/none": nil, "/mounted/below": nil, "/elsewhere/1": nil} {
		h.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("GET", path, nil))
		assert.Equal(t, want, said.take(), path)
	}
}

// A request for "*" is the mux's own, also where a pattern would match the path /*.
func TestUndeclaredOfTheWholeServer(t *testing.T) {
	t.Parallel()
	outer := admit.Policy{Errors: &admit.ErrorWriter{Logger: slog.New(slog.DiscardHandler)}}
	api := newAPI(t, outer)
	mux := http.NewServeMux()
	api.Handle(mux, "/{any}", admit.Policy{}, nothing)
	api.Undeclared(func(_ *http.Request, status int, code string) { t.Errorf("%d %s is undeclared", status, code) })
	r := httptest.NewRequest("GET", "/", nil)
	r.RequestURI, r.URL.Path = "*", "*"
	w := httptest.NewRecorder()
	api.Wrap(outer.Wrap(admit.Mux(mux))).ServeHTTP(w, r)
	assert.Equal(t, http.StatusBadRequest, w.Code)
}

// It is logged once, and a stranger cannot fill the log.
func TestUndeclaredIsLoggedOnce(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	api := newAPI(t, admit.Policy{Errors: &admit.ErrorWriter{Logger: slog.New(slog.NewTextHandler(&out, nil))}})
	h := api.Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(400 + len(r.URL.Path)%100)
	}))
	for range 3 {
		for i := range 5 {
			h.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("GET", "/"+strings.Repeat("x", i), nil))
		}
	}
	assert.Equal(t, 5, strings.Count(out.String(), "not in the contract"))
	assert.Contains(t, out.String(), "status_code=402")
}

// A contract may be read while routes are added and requests come.
func TestConcurrentUse(t *testing.T) {
	t.Parallel()
	api := newAPI(t, admit.Policy{Errors: &admit.ErrorWriter{Logger: slog.New(slog.DiscardHandler)}})
	h := api.Wrap(admit.HandlerFunc(func(http.ResponseWriter, *http.Request) error { return errSoldOut }))
	var all sync.WaitGroup
	for i := range 8 {
		all.Go(func() {
			api.Declare("/"+strings.Repeat("x", i+1), admit.Policy{}, errSoldOut)
			h.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("GET", "/x", nil))
			api.Undeclared(func(*http.Request, int, string) {})
			_ = api.Answers()
		})
	}
	all.Wait()
	assert.Len(t, row(api, "/x", "sold_out"), 1)
}

// A route of Handle inside of Wrap allocates no more than the same chain alone.
func TestHandleAllocatesNothing(t *testing.T) {
	api := newAPI(t, admit.Policy{})
	mux, bare := http.NewServeMux(), http.NewServeMux()
	api.Handle(mux, "GET /x", admit.Policy{}, nothing)
	bare.Handle("GET /x", admit.Policy{}.Wrap(nothing))
	r := httptest.NewRequest("GET", "/x", nil)
	r.Header.Set("X-Request-Id", "known")
	allocs := func(h http.Handler) float64 {
		w := httptest.NewRecorder()
		return testing.AllocsPerRun(200, func() { h.ServeHTTP(w, r) })
	}
	outer := admit.Policy{}
	assert.LessOrEqual(t, allocs(api.Wrap(outer.Wrap(admit.Mux(mux)))), allocs(outer.Wrap(admit.Mux(bare))))
}
