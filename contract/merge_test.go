package contract_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/admit-go/admit"
	"github.com/admit-go/admit/contract"
)

// trading is the contract that is merged in these tests.
func trading(t testing.TB) *contract.API {
	t.Helper()
	limiter, err := admit.NewLimiter(admit.LimiterConfig{Name: "x", Limits: []admit.Limit{admit.PerSecond(5)}})
	require.NoError(t, err)
	keyed := admit.Policy{Auth: newAuth(t), Limiter: limiter}
	api := newAPI(t, admit.Policy{})
	api.Declare("GET /v1/prices/{pair}", keyed, admit.NewError(http.StatusNotFound, "There is no such pair."))
	api.Declare("DELETE /v1/prices/{pair}", keyed)
	api.Declare("POST /v1/orders", keyed, errSoldOut)
	api.Declare("QUERY /v1/orders", keyed)
	api.Declare("PURGE /v1/orders", keyed)
	api.Declare("GET /healthz", admit.Policy{})
	api.Declare("GET admin.test/v1/keys/{id}", keyed)
	return api
}

// merge merges, and merges again, which changes nothing.
func merge(t testing.TB, api *contract.API, text string) (string, openAPI) {
	t.Helper()
	merged, err := api.Merge([]byte(text))
	require.NoError(t, err)
	again, err := api.Merge(merged)
	require.NoError(t, err)
	require.Equal(t, string(merged), string(again))
	var d openAPI
	require.NoError(t, json.Unmarshal(merged, &d))
	requireKept(t, decode(t, text), decode(t, string(merged)), "#")
	return string(merged), d
}

func decode(t testing.TB, text string) (v any) {
	t.Helper()
	dec := json.NewDecoder(strings.NewReader(text))
	dec.UseNumber()
	require.NoError(t, dec.Decode(&v))
	return v
}

// requireKept fails the test if something of one value is not in the other.
func requireKept(t testing.TB, before, after any, at string) {
	t.Helper()
	switch before := before.(type) {
	case map[string]any:
		now, ok := after.(map[string]any)
		require.True(t, ok, at)
		for name, v := range before {
			is, found := now[name]
			require.True(t, found, "%s/%s", at, name)
			requireKept(t, v, is, at+"/"+name)
		}
	default:
		require.Equal(t, before, after, at)
	}
}

func TestMergeIntoNothing(t *testing.T) {
	t.Parallel()
	api := trading(t)
	for version, full := range map[string]contract.OpenAPIVersion{"3.1.0": contract.OpenAPI31, "3.2.0": contract.OpenAPI32} {
		_, merged := merge(t, api, `{"openapi": "`+version+`", "info": {"title": "T", "version": "7"}}`)
		whole := document(t, api, full)
		assert.Equal(t, whole.Paths, merged.Paths)
		assert.Equal(t, whole.Components, merged.Components)
		assert.Equal(t, "7", merged.Info.Version)
	}
}

func TestMerge(t *testing.T) {
	t.Parallel()
	text := `{
  "x-first": 1.0,
  "openapi": "3.1.0",
  "info": {"version": "2", "title": "Prices", "x-big": 12345678901234567890},
  "paths": {
    "/v1/prices/{id}": {
      "parameters": [{"$ref": "#/components/parameters/Id"}],
      "get": {
        "operationId": "deleteV1PricesPair",
        "responses": {
          "200": {"description": "A price."},
          "404": {"description": "Of our own."},
          "429": {"$ref": "limits.json#/429"}
        }
      },
      "put": {"responses": {"204": {"description": "It is put."}}}
    },
    "/v1/others": {"get": {"responses": {"default": {"description": "Any."}}}},
    "/v1/orders": {"$ref": "orders.json"},
    "x-not-a-path": {"x": 1.0}
  },
  "components": {
    "parameters": {"Id": {"name": "id", "in": "path", "required": true, "schema": {"type": "integer"}}},
    "schemas": {"Error": {"type": "string"}, "Success": {"type": "number"}},
    "headers": {"X-Request-ID": {"schema": {"type": "integer"}}},
    "securitySchemes": {"bearer": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"}}
  },
  "tags": []
}`
	merged, d := merge(t, trading(t), text)

	get := d.Paths["/v1/prices/{id}"].Get
	assert.Equal(t, "Of our own.", get.Responses["404"].Description)
	assert.Equal(t, "limits.json#/429", get.Responses["429"].Ref)
	assert.Contains(t, get.Responses, "401")
	assert.NotContains(t, get.Responses, "2XX", "it has a success")
	assert.Equal(t, []map[string][]string{{"bearer2": {}}, {"header_x_api_key": {}}}, get.Security)

	added := d.Paths["/v1/prices/{id}"].Delete
	require.NotNil(t, added)
	assert.Equal(t, "deleteV1PricesPair2", added.OperationID, "another has the name")
	assert.Contains(t, added.Responses, "2XX")
	assert.NotContains(t, d.Paths, "/v1/prices/{pair}")
	var parameters struct {
		Paths map[string]struct{ Delete struct{ Parameters []any } }
	}
	require.NoError(t, json.Unmarshal([]byte(merged), &parameters))
	assert.Empty(t, parameters.Paths["/v1/prices/{id}"].Delete.Parameters, "the path has it")

	assert.Nil(t, d.Paths["/v1/orders"].Post, "it is elsewhere")
	assert.Equal(t, []string{"GET"}, d.Paths["/healthz"].methods())
	assert.Equal(t, []server{{"http://admin.test"}}, d.Paths["/v1/keys/{id}"].Servers)
	for section, name := range map[string]string{"Error": "Error2", "Success": "Success2"} {
		assert.Contains(t, d.Components.Schemas, section)
		assert.Contains(t, d.Components.Schemas, name)
	}
	assert.Contains(t, d.Components.Schemas, "Problem")
	assert.Contains(t, d.Components.Headers, "X-Request-ID2")
	assert.Contains(t, merged, `"$ref": "#/components/schemas/Error2"`)
	assert.NotContains(t, merged, `"#/components/headers/X-Request-ID"`)

	order := []string{`"x-first": 1.0,`, `"openapi"`, `"version": "2"`, `"x-big": 12345678901234567890`, `"/v1/prices/{id}"`, `"/v1/others"`, `"x": 1.0`, `"/healthz"`, `"components"`, `"tags"`}
	at := 0
	for _, s := range order {
		next := strings.Index(merged[at:], s)
		require.GreaterOrEqual(t, next, 0, s)
		at += next
	}
}

// An operation that says nothing of its parameters gets them by the names of its path, and
// what is said of security is left.
func TestMergeOfAnOperation(t *testing.T) {
	t.Parallel()
	text, d := merge(t, trading(t), `{"openapi": "3.2.0", "security": [{"own": []}], "paths": {
		"/v1/prices/{id}": {"get": {}}, "/v1/orders": {"query": {"responses": {"4XX": {"description": "x"}}}, "additionalOperations": {"COPY": {}}}
	}}`)
	get := d.Paths["/v1/prices/{id}"].Get
	assert.Nil(t, get.Security)
	assert.Contains(t, get.Responses, "2XX", "it has no other")
	assert.Contains(t, text, `"name": "id"`)
	assert.NotContains(t, text, `"name": "pair"`)
	query := d.Paths["/v1/orders"].Query
	assert.Contains(t, query.Responses, "2XX")
	assert.Contains(t, query.Responses, "401", "beside 4XX")
	assert.Equal(t, []string{"COPY", "POST", "PURGE", "QUERY"}, d.Paths["/v1/orders"].methods())
}

// The paths of a document are below those of its servers.
func TestMergeBelowServers(t *testing.T) {
	t.Parallel()
	api := trading(t)
	for name, servers := range map[string]string{
		"absolute":  `[{"url": "https://api.test/v1/"}, {"url": "https://two.test/v1"}]`,
		"relative":  `[{"url": "/v1"}]`,
		"variables": `[{"url": "https://{host}/{version}", "variables": {"host": {"default": "api.test"}, "version": {"default": "v1"}}}]`,
	} {
		_, d := merge(t, api, `{"openapi": "3.1.0", "servers": `+servers+`, "paths": {"/prices/{id}": {"get": {"responses": {"200": {"description": "x"}}}}}}`)
		assert.Contains(t, d.Paths["/prices/{id}"].Get.Responses, "429", name)
		assert.Contains(t, d.Paths, "/orders", name)
		assert.NotContains(t, d.Paths, "/v1/orders", name)
		want := []server{{"https://api.test"}, {"https://two.test"}}
		switch name {
		case "relative":
			want = []server{{"/"}}
		case "variables":
			want = want[:1]
		}
		assert.Equal(t, want, d.Paths["/healthz"].Servers, "it is not below them")
		assert.Empty(t, d.Paths["/orders"].Servers)
	}

	// A gateway that takes the prefix away has paths as the service has them.
	_, d := merge(t, api, `{"openapi": "3.1.0", "servers": [{"url": "https://api.test/market"}], "paths": {"/v1/prices/{id}": {"get": {}}}}`)
	assert.Contains(t, d.Paths["/v1/prices/{id}"].Get.Responses, "429")
	assert.Contains(t, d.Paths, "/healthz")
	assert.Empty(t, d.Paths["/healthz"].Servers)

	// A path may have servers of its own.
	_, d = merge(t, api, `{"openapi": "3.1.0", "servers": [{"url": "/v1"}], "paths": {"/healthz": {"servers": [{"url": "/"}], "get": {}}, "/orders": {"servers": [{"url": "/v2"}], "post": {}}}}`)
	assert.Contains(t, d.Paths["/healthz"].Get.Responses, "500")
	assert.Contains(t, d.Paths["/orders"].Post.Responses, "409", "there is no other place")
}

func TestMergeFaults(t *testing.T) {
	t.Parallel()
	api := trading(t)
	for text, want := range map[string]string{
		"":                                     "the document cannot be read as JSON: line 1, column 1: the text is empty",
		"{\n\"openapi\": 3.1,\n}":              "the document cannot be read as JSON: line 3, column 1: ",
		"openapi: 3.1.0\ninfo:\n":              "the document is YAML; convert it to JSON first, for example with yq -o=json",
		"# ours\n---\nopenapi: 3.1.0":          "the document is YAML",
		`[]`:                                   "the document is not an object",
		`{"info": {}}`:                         "the document has no member openapi",
		`{"swagger": "2.0"}`:                   "the document is Swagger",
		`{"openapi": "3.0.3"}`:                 `the document is OpenAPI "3.0.3", whose schemas differ from those of 3.1; convert it to 3.1 first`,
		`{"openapi": "4.0"}`:                   `the document is OpenAPI "4.0"; Merge supports 3.1 and 3.2`,
		`{"openapi": "3.10.0"}`:                `the document is OpenAPI "3.10.0"; Merge supports 3.1 and 3.2`,
		`{"openapi": 3.1}`:                     `#/openapi is not a string, such as "3.1.2"`,
		`{"openapi": "3.1.0", "a": 1, "a": 2}`: `the document cannot be read as JSON: line 1, column 30: the member "a" is there twice in one object`,
		`{"openapi": "3.1.0", "paths": []}`:    "#/paths is not an object",
		`{"openapi": "3.1.0", "paths": {"/v1/orders": 1}}`:                                                     "#/paths/~1v1~1orders is not an object",
		`{"openapi": "3.1.0", "paths": {"/v1/orders": {"post": null}}}`:                                        "#/paths/~1v1~1orders/post is not an object",
		`{"openapi": "3.1.0", "paths": {"/v1/orders": {"post": {"responses": []}}}}`:                           "#/paths/~1v1~1orders/post/responses is not an object",
		`{"openapi": "3.1.0", "components": 1}`:                                                                "#/components is not an object",
		`{"openapi": "3.1.0", "components": {"headers": "x"}}`:                                                 "#/components/headers is not an object",
		`{"openapi": "3.2.0", "paths": {"/v1/orders": {"additionalOperations": 1}}}`:                           "#/paths/~1v1~1orders/additionalOperations is not an object",
		`{"openapi": "3.2.0", "paths": {"/v1/orders": {"additionalOperations": {"PURGE": {"responses": 1}}}}}`: "#/paths/~1v1~1orders/additionalOperations/PURGE/responses is not an object",
	} {
		merged, err := api.Merge([]byte(text))
		assert.ErrorContains(t, err, "contract: Merge: "+want, text)
		assert.Nil(t, merged)
	}
}

func FuzzMerge(f *testing.F) {
	api := newAPI(f, admit.Policy{}) // a small one, so that there are many tries
	api.Declare("GET /v1/prices/{pair}", admit.Policy{Auth: newAuth(f)})
	api.Declare("PURGE /v1/orders", admit.Policy{})
	api.Declare("GET admin.test/healthz", admit.Policy{})
	for _, seed := range []string{
		`{"openapi":"3.1.0"}`, `{"openapi":"3.2.0","paths":{"/v1/prices/{id}":{"get":{"responses":{"404":{"$ref":"x"}}}}},"servers":[{"url":"/v1"}]}`,
		`{"openapi":"3.1.0","components":{"schemas":{"Error":{}},"responses":{"Unauthorized":1},"securitySchemes":{"bearer":0}}}`,
		`{"openapi":"3.1.0","servers":[{"url":"//x/{y}","variables":{"y":{"default":"v1"}}}],"paths":{"/healthz":{"servers":[{"url":"/"}]},"/{":{}}}`,
		"openapi: 3.1.0", `{"swagger":"2.0"}`, `{"openapi":"3.2.0","paths":{"/v1/orders":{"additionalOperations":{"PURGE":{"security":[]}}}}}`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		merged, err := api.Merge(text)
		if err != nil {
			if merged != nil || !strings.HasPrefix(err.Error(), "contract: Merge: ") {
				t.Fatal(err)
			}
			return
		}
		again, err := api.Merge(merged)
		if err != nil || !bytes.Equal(merged, again) {
			t.Fatalf("%s\nmerged again is\n%s\n%v", merged, again, err)
		}
		requireKept(t, decode(t, strings.TrimPrefix(string(text), "\ufeff")), decode(t, string(merged)), "#")
	})
}

// Names that are taken cost no more than there are.
func TestMergeOfManyNames(t *testing.T) {
	t.Parallel()
	var b strings.Builder
	b.WriteString(`{"openapi":"3.1.0","components":{"schemas":{"Error":{}`)
	for i := 2; i < 20_000; i++ {
		fmt.Fprintf(&b, `,"Error%d":{}`, i)
	}
	b.WriteString("}}}")
	_, d := merge(t, trading(t), b.String())
	assert.Contains(t, d.Components.Schemas, "Error20000")
}
