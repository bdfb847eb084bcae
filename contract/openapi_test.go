package contract_test

import (
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/admit-go/admit"
	"github.com/admit-go/admit/contract"
)

// openAPI is the document of an API, as others read it.
type openAPI struct {
	OpenAPI string
	Info    struct{ Title, Version, Description string }
	Servers []server
	Paths   map[string]pathItem

	Components struct {
		Responses       map[string]response
		Headers         map[string]any
		Schemas         map[string]any
		SecuritySchemes map[string]contract.SecurityScheme
	}
}

type server struct{ URL string }

type pathItem struct {
	Servers    []server
	Parameters []struct {
		Name, In, Description string
		Required              bool
	}
	Get, Put, Post, Patch, Delete, Head, Options, Query *operation
	AdditionalOperations                                map[string]*operation
}

// methods are those that the path has, sorted.
func (p pathItem) methods() (all []string) {
	for method, op := range map[string]*operation{
		"GET": p.Get, "PUT": p.Put, "POST": p.Post, "PATCH": p.Patch, "DELETE": p.Delete, "HEAD": p.Head, "OPTIONS": p.Options, "QUERY": p.Query,
	} {
		if op != nil {
			all = append(all, method)
		}
	}
	for method := range p.AdditionalOperations {
		all = append(all, method)
	}
	slices.Sort(all)
	return all
}

type operation struct {
	OperationID, Summary, Description string
	RequestBody                       *struct {
		Description string
		Content     map[string]any
	}
	Responses map[string]response
	Security  []map[string][]string
	Servers   []server
}

type response struct {
	Ref         string `json:"$ref"`
	Description string
	Headers     map[string]any
	Content     map[string]struct {
		Schema   any
		Examples map[string]struct {
			Summary string
			Value   any
		}
	}
}

// response returns that of a status, wherever it is.
func (d openAPI) response(op *operation, status string) response {
	r := op.Responses[status]
	if name, shared := strings.CutPrefix(r.Ref, "#/components/responses/"); shared {
		return d.Components.Responses[name]
	}
	return r
}

func document(t testing.TB, api *contract.API, version contract.OpenAPIVersion) (d openAPI) {
	t.Helper()
	text, err := api.OpenAPI(version)
	require.NoError(t, err)
	require.NoError(t, json.Unmarshal(text, &d))
	assert.Equal(t, string(version), d.OpenAPI)
	again, err := api.OpenAPI(version)
	require.NoError(t, err)
	assert.Equal(t, text, again)
	return d
}

// A whole document is looked at by eye, and by the validators of others in integration/.
func TestOpenAPIGolden(t *testing.T) {
	t.Parallel()
	limiter, err := admit.NewLimiter(admit.LimiterConfig{Name: "items", Limits: []admit.Limit{admit.PerSecond(5)}})
	require.NoError(t, err)
	api := newAPI(t, admit.Policy{Maintenance: new(admit.Maintenance)})
	api.Declare("GET /items/{id}", admit.Policy{Auth: newAuth(t), Limiter: limiter}, errSoldOut)
	text, err := api.OpenAPI(contract.OpenAPI31)
	require.NoError(t, err)

	golden := filepath.Join("testdata", "openapi.json")
	if os.Getenv("ADMIT_UPDATE") == "1" {
		require.NoError(t, os.WriteFile(golden, text, 0o666))
	}
	want, err := os.ReadFile(golden)
	require.NoError(t, err)
	assert.Equal(t, string(want), string(text), "ADMIT_UPDATE=1 rewrites the file")
}

func TestOpenAPIVersions(t *testing.T) {
	t.Parallel()
	api := newAPI(t, admit.Policy{})
	_, err := api.OpenAPI("3.0.3")
	assert.ErrorContains(t, err, `there is no document of the version "3.0.3"; give OpenAPI31 or OpenAPI32`)

	api.Declare("/search", admit.Policy{Methods: []string{"GET", "QUERY", "PURGE"}})
	api.Declare("QUERY /only", admit.Policy{Auth: newAuth(t)})
	d := document(t, api, contract.OpenAPI31)
	assert.Equal(t, []string{"GET"}, d.Paths["/search"].methods())
	assert.NotContains(t, d.Paths, "/only")
	assert.Empty(t, d.Components.SecuritySchemes, "nothing refers to one")
	assert.Contains(t, d.Info.Description, "Not listed, since OpenAPI 3.1.2 does not have these methods: `QUERY /only`, `QUERY /search`, `PURGE /search`.")

	d = document(t, api, contract.OpenAPI32)
	assert.Equal(t, []string{"GET", "PURGE", "QUERY"}, d.Paths["/search"].methods())
	assert.Equal(t, []string{"QUERY"}, d.Paths["/only"].methods())
	assert.NotContains(t, d.Info.Description, "Not listed")
}

// What a pattern of net/http matches is what a path and its operations say.
func TestOpenAPIPaths(t *testing.T) {
	t.Parallel()
	api := newAPI(t, admit.Policy{})
	for _, pattern := range []string{
		"GET /{$}", "GET /items/{id}", "DELETE /items/{name}", "PUT /files/{path...}", "GET /tree/", "GET /tree/{path}/x/",
		"POST /exact/{$}", "GET /caf%C3%A9/a b", "HEAD /head", "/any", "PATCH /any",
	} {
		api.Declare(pattern, admit.Policy{})
	}
	api.Declare("/healthz", admit.Policy{Methods: []string{"GET", "HEAD"}})
	d := document(t, api, contract.OpenAPI32)
	all := map[string][]string{}
	for path, item := range d.Paths {
		all[path] = item.methods()
		for _, p := range item.Parameters {
			assert.Contains(t, path, "{"+p.Name+"}")
			assert.Equal(t, "path", p.In)
			assert.True(t, p.Required)
			rest := strings.HasPrefix(path, "/files") || strings.HasPrefix(path, "/tree") && strings.HasSuffix(path, "{"+p.Name+"}")
			assert.Equal(t, rest, strings.HasPrefix(p.Description, "The rest of the path."), path)
		}
		assert.Equal(t, strings.Count(path, "{"), len(item.Parameters), path)
	}
	assert.Equal(t, map[string][]string{
		"/": {"GET"}, "/items/{id}": {"DELETE", "GET"}, "/files/{path}": {"PUT"}, "/tree/{path}": {"GET"}, "/tree/{path}/x/{_path}": {"GET"},
		"/exact/": {"POST"}, "/caf%C3%A9/a%20b": {"GET"}, "/head": {"HEAD"}, "/healthz": {"GET"},
		"/any": {"DELETE", "GET", "PATCH", "POST", "PUT", "QUERY"},
	}, all)
	assert.Contains(t, d.Paths["/any"].Get.Description, "It takes any method")
	assert.NotContains(t, d.Paths["/any"].Patch.Description, "any method", "another pattern has it")

	ids := map[string]bool{}
	for _, item := range d.Paths {
		for _, op := range []*operation{item.Get, item.Put, item.Post, item.Patch, item.Delete, item.Head, item.Query} {
			if op != nil {
				assert.Regexp(t, `^[a-z]+[A-Za-z0-9]*$`, op.OperationID)
				assert.False(t, ids[op.OperationID], op.OperationID)
				ids[op.OperationID] = true
			}
		}
	}
	assert.True(t, ids["getItemsId"])
}

func TestOpenAPIHosts(t *testing.T) {
	t.Parallel()
	api, err := contract.New(contract.Info{Title: "T", Version: "1", Servers: []string{"https://api.test/base/", "https://two.test"}}, admit.Policy{})
	require.NoError(t, err)
	api.Declare("GET /plain", admit.Policy{})
	api.Declare("GET admin.test/only", admit.Policy{})
	api.Declare("GET admin.test/both", admit.Policy{Auth: newAuth(t)}, errSoldOut)
	api.Declare("GET /both", admit.Policy{})
	api.Declare("POST admin.test/plain", admit.Policy{})
	d := document(t, api, contract.OpenAPI31)
	usual := []server{{"https://api.test/base"}, {"https://two.test"}}
	admin := []server{{"https://admin.test/base"}, {"https://admin.test"}}
	assert.Equal(t, usual, d.Servers)
	assert.Equal(t, admin, d.Paths["/only"].Servers)
	assert.Empty(t, d.Paths["/only"].Get.Servers)
	assert.Empty(t, d.Paths["/plain"].Get.Servers, "those of the document")
	assert.Equal(t, admin, d.Paths["/plain"].Post.Servers)

	both := d.Paths["/both"]
	assert.ElementsMatch(t, slices.Concat(usual, admin), both.Servers)
	assert.Contains(t, both.Get.Responses, "409", "of one of them")
	assert.Equal(t, []map[string][]string{{"bearer": {}}, {"header_x_api_key": {}}, {}}, both.Get.Security)
}

func TestOpenAPIOperation(t *testing.T) {
	t.Parallel()
	optional, err := admit.NewAuth(admit.AuthConfig{Store: admit.KeyMap{}, Optional: true, Sources: []admit.KeySource{admit.FromQuery("key"), admit.FromAuthorization("Token")}})
	require.NoError(t, err)
	limiter, err := admit.NewLimiter(admit.LimiterConfig{Name: "x", Limits: []admit.Limit{admit.PerSecond(5)}, LegacyHeaders: true})
	require.NoError(t, err)
	info := contract.Info{Title: "T", Version: "1", SecuritySchemes: map[string]contract.SecurityScheme{"jwt": {Type: "http", Scheme: "bearer", BearerFormat: "JWT"}}}
	api, err := contract.New(info, admit.Policy{})
	require.NoError(t, err)
	api.Declare("POST /orders", admit.Policy{
		Auth: newAuth(t), Scopes: []string{"a", "b"}, Limiter: limiter, Accept: []string{"text/csv", "application/json"}, ContentType: []string{"application/json"},
		MaxBody: 99, Timeout: time.Second,
	}, errSoldOut, &admit.Error{Status: 409, Code: "sold_out", Message: "Another reason."}, admit.NewError(409, ""))
	api.Declare("GET /open", admit.Policy{}, contract.Foreign(502, "The upstream failed."), contract.Foreign(500, "So it is."))
	api.Declare("GET /optional", admit.Policy{Auth: optional})
	api.Declare("GET /jwt", admit.Policy{Identity: func(h http.Handler) http.Handler { return h }, Scopes: []string{"a"}})
	d := document(t, api, contract.OpenAPI31)

	post := d.Paths["/orders"].Post
	assert.Equal(t, []map[string][]string{{"bearer": {"a", "b"}}, {"header_x_api_key": {"a", "b"}}}, post.Security)
	assert.Contains(t, post.Description, "The caller needs the scopes `a`, `b`.")
	assert.Equal(t, "At most 99 bytes.", post.RequestBody.Description)
	assert.Equal(t, map[string]any{"application/json": map[string]any{}}, post.RequestBody.Content)
	var statuses []string
	for status := range post.Responses {
		statuses = append(statuses, status)
	}
	slices.Sort(statuses)
	assert.Equal(t, []string{"2XX", "400", "401", "403", "405", "406", "408", "409", "413", "415", "429", "500", "503"}, statuses)

	success := d.response(post, "2XX")
	assert.Contains(t, success.Content, "text/csv")
	assert.Contains(t, success.Content, "application/json")
	assert.Contains(t, success.Headers, "Vary")
	assert.Contains(t, success.Headers, "X-RateLimit-Reset")
	limited := d.response(post, "429")
	for _, name := range []string{"Retry-After", "RateLimit", "RateLimit-Policy", "X-RateLimit-Limit"} {
		assert.Equal(t, map[string]any{"$ref": "#/components/headers/" + name}, limited.Headers[name])
		assert.Contains(t, d.Components.Headers, name)
	}
	assert.Equal(t, "integer", d.Components.Headers["Retry-After"].(map[string]any)["schema"].(map[string]any)["type"])
	assert.Contains(t, d.response(post, "401").Headers, "WWW-Authenticate")

	conflict := d.response(post, "409")
	assert.Equal(t, "Conflict.\n\n- `conflict`: The request conflicts with the state of the resource.\n- `sold_out`: It is sold out. Another reason.", conflict.Description)
	examples := conflict.Content["application/json"].Examples
	assert.Len(t, examples, 3)
	assert.Equal(t, "Another reason.", examples["sold_out2"].Value.(map[string]any)["message"])
	text, err := json.Marshal(conflict.Content["application/json"].Schema)
	require.NoError(t, err)
	assert.JSONEq(t, `{"allOf":[{"$ref":"#/components/schemas/Error"},{"type":"object","properties":{"code":{"type":"string","enum":["conflict","sold_out"]}}}]}`, string(text))
	assert.Contains(t, conflict.Content, "application/problem+json")
	assert.Contains(t, conflict.Headers, "X-Stock")

	open := d.Paths["/open"].Get
	assert.NotNil(t, open.Security)
	assert.Empty(t, open.Security)
	assert.Nil(t, open.RequestBody)
	assert.Equal(t, "Bad Gateway.\n\n- The upstream failed.", d.response(open, "502").Description[:len("Bad Gateway.\n\n- The upstream failed.")])
	assert.Empty(t, d.response(open, "502").Content)
	mixed := d.response(open, "500")
	assert.Contains(t, mixed.Content, "*/*")
	assert.Nil(t, mixed.Content["application/json"].Schema, "others may send JSON too")

	assert.Equal(t, []map[string][]string{{"query_key": {}}, {"authorization_token": {}}, {}}, d.Paths["/optional"].Get.Security)
	assert.Equal(t, []map[string][]string{{"jwt": {"a"}}}, d.Paths["/jwt"].Get.Security)
	assert.Equal(t, contract.SecurityScheme{Type: "http", Scheme: "bearer", BearerFormat: "JWT"}, d.Components.SecuritySchemes["jwt"])
}

// An error that the service writes in its own way has no schema of ours.
func TestOpenAPIOwnErrors(t *testing.T) {
	t.Parallel()
	own := &admit.ErrorWriter{Encode: func(_ *http.Request, e *admit.Error) (string, []byte) {
		if e.Status == 500 {
			return "text/plain; charset=utf-8", []byte("It failed.")
		}
		return "application/json", []byte(`{"own": "` + e.Code + `"}`)
	}}
	api := newAPI(t, admit.Policy{Errors: own})
	api.Declare("GET /x", admit.Policy{}, errSoldOut)
	d := document(t, api, contract.OpenAPI31)
	sold := d.response(d.Paths["/x"].Get, "409")
	assert.Len(t, sold.Content, 1)
	assert.Nil(t, sold.Content["application/json"].Schema)
	assert.Equal(t, map[string]any{"own": "sold_out"}, sold.Content["application/json"].Examples["sold_out"].Value)
	failed := d.response(d.Paths["/x"].Get, "500")
	assert.Equal(t, "It failed.", failed.Content["text/plain; charset=utf-8"].Examples["internal"].Value)
	assert.NotContains(t, d.Components.Schemas, "Error")
}

func TestOpenAPIFaults(t *testing.T) {
	t.Parallel()
	api := newAPI(t, admit.Policy{})
	_, err := api.OpenAPI("3.0.3")
	assert.ErrorContains(t, err, `"3.0.3"; give OpenAPI31 or OpenAPI32`)
}
