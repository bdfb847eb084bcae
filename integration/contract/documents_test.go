package contract_test

import (
	"net/http"
	"net/netip"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/admit-go/admit"
	"github.com/admit-go/admit/contract"
	"github.com/admit-go/admit/example/service"
)

// The validators find nothing in what OpenAPI and Merge write: of the example, and of a
// service that has everything.
func TestDocumentsAreValid(t *testing.T) {
	t.Parallel()
	example, err := service.New(t.Context(), service.Config{Keys: admit.KeyMap{}})
	require.NoError(t, err)
	all := everything(t)
	docs := documents{}
	for version, openAPI := range map[string]contract.OpenAPIVersion{"3.1": contract.OpenAPI31, "3.2": contract.OpenAPI32} {
		docs["everything "+version], err = all.OpenAPI(openAPI)
		require.NoError(t, err)
		docs["example merged into "+version], err = example.Contract.Merge(read(t, "testdata/good-"+version+".json"))
		require.NoError(t, err)
	}
	docs["example"], err = example.Contract.OpenAPI(contract.OpenAPI31)
	require.NoError(t, err)
	requireValid(t, docs)
}

// everything is a service with every field of Policy, each kind of pattern, and every way to
// say who calls.
func everything(t *testing.T) *contract.API {
	t.Helper()
	plans, err := admit.NewPlans(
		admit.Plan{Name: "free", Limits: []admit.Limit{admit.PerSecond(5)}, Quotas: []admit.Quota{{Requests: 1000, Every: admit.Month}, {Requests: 100, Every: admit.Day, Soft: true}}},
		admit.Plan{Name: "pro", Includes: "free", Features: []string{"history"}, UpgradeURL: "https://acme.dev/pro"},
	)
	require.NoError(t, err)
	quotas, err := admit.NewQuotas(admit.QuotasConfig{Plans: plans, Store: admit.NewMemoryQuotaStore(), Cost: func(*http.Request) int { return 2 }})
	require.NoError(t, err)
	auth := func(c admit.AuthConfig) *admit.Auth {
		cache, err := admit.NewKeyCache(admit.KeyMap{}, admit.KeyCacheConfig{TTL: time.Minute, MaxKeys: 10})
		require.NoError(t, err)
		c.Store, c.Failures = cache, admit.PerMinute(60)
		made, err := admit.NewAuth(c)
		require.NoError(t, err)
		return made
	}
	limiter := func(c admit.LimiterConfig) *admit.Limiter {
		made, err := admit.NewLimiter(c)
		require.NoError(t, err)
		return made
	}
	inFlight, err := admit.NewInFlight(admit.InFlightConfig{Max: 10})
	require.NoError(t, err)
	negotiator, err := admit.NewNegotiator(admit.NegotiatorConfig{Offers: []string{"application/vnd.acme+json", "text/html; charset=utf-8"}})
	require.NoError(t, err)
	types, err := admit.NewContentTypes(admit.ContentTypesConfig{Allow: []string{"text/*", "application/*+json"}, Encodings: []string{"gzip"}})
	require.NoError(t, err)
	total, err := admit.NewHandlerTimeout(admit.HandlerTimeoutConfig{FirstByte: time.Second, Total: time.Minute})
	require.NoError(t, err)
	timeout := admit.BodyTimeout{Grace: time.Second, Max: time.Minute, MinRate: 1 << 10}
	identity := func(h http.Handler) http.Handler { return h }
	own := &admit.ErrorWriter{Encode: func(_ *http.Request, e *admit.Error) (string, []byte) {
		if e.Status < 500 {
			return "application/vnd.acme+json", []byte(`{"fault": "` + e.Code + `"}`)
		}
		return "text/plain; charset=utf-8", []byte(e.Message)
	}}

	info := contract.Info{
		Title: "Everything", Version: "2026-11-28", Description: "All that there is.",
		Servers: []string{"https://api.acme.dev", "https://eu.acme.dev/base/"},
		SecuritySchemes: map[string]contract.SecurityScheme{
			"jwt":   {Type: "http", Scheme: "bearer", BearerFormat: "JWT", Description: "Of the issuer."},
			"basic": {Type: "http", Scheme: "basic"},
			"mtls":  {Type: "mutualTLS"},
			"oauth": {Type: "oauth2", Flows: map[string]any{"clientCredentials": map[string]any{"tokenUrl": "https://acme.dev/token", "scopes": map[string]string{"items:read": "Read."}}}},
			"oidc":  {Type: "openIdConnect", OpenIDConnectURL: "https://acme.dev/.well-known/openid-configuration"},
		},
	}
	outer := admit.Policy{
		ClientIP: admit.ClientIP("X-Forwarded-For", netip.MustParsePrefix("10.0.0.0/8")), Errors: new(admit.ErrorWriter), Maintenance: new(admit.Maintenance), InFlight: inFlight,
		AddressLimiter: limiter(admit.LimiterConfig{Name: "address", Limits: []admit.Limit{admit.PerMinute(600)}, LegacyHeaders: true}), WriteStall: time.Second,
	}
	api, err := contract.New(info, outer, admit.NewError(http.StatusMisdirectedRequest, ""))
	require.NoError(t, err)

	keyed := admit.Policy{
		Auth: auth(admit.AuthConfig{Realm: "items"}), Scopes: []string{"items:read", "items:write"}, Plans: plans, AtLeast: "free", Features: []string{"history"},
		Limiter: limiter(admit.LimiterConfig{Name: "keyed", Plans: plans, Limits: []admit.Limit{admit.PerSecond(1)}}), Quotas: quotas, Accept: []string{"application/json", "text/csv"}, ContentType: []string{"application/json"},
		MaxBody: 1 << 10, BodyTimeout: timeout, Timeout: time.Second,
	}
	for _, pattern := range []string{
		"GET /v1/items/{id}", "PUT /v1/items/{name}", "QUERY /v1/items", "POST /v1/items", "PURGE /v1/items", "DELETE /v1/items/{id}/{rest...}",
		"GET /files/", "HEAD /head", "OPTIONS /options", "GET admin.acme.dev/v1/items/{id}", "PATCH admin.acme.dev/v1/keys",
	} {
		errs := append(contract.Decodes(), &admit.Error{Status: 409, Code: "sold_out", Message: "It is sold out.", Header: http.Header{"X-Stock": {"0"}}, Meta: map[string]any{"stock": 0}})
		api.Declare(pattern, keyed, append(errs, contract.Forms()...)...)
	}
	api.Declare("/v1/any", admit.Policy{Auth: auth(admit.AuthConfig{Optional: true, Sources: []admit.KeySource{admit.FromQuery("key"), admit.FromCookie("key"), admit.FromAuthorization("Token")}})})
	api.Declare("GET /v1/any", admit.Policy{Identity: identity, Scopes: []string{"items:read"}})
	api.Declare("/v1/some", admit.Policy{Methods: []string{"GET", "POST", "QUERY", "PROPFIND"}, Negotiator: negotiator, ContentTypes: types, HandlerTimeout: total})
	api.Declare("GET /{$}", admit.Policy{Errors: own}, admit.NewError(http.StatusTeapot, ""))
	api.Declare("/proxy/{path...}", admit.Policy{Methods: []string{"GET"}}, append(contract.Proxies(), contract.Foreign(http.StatusBadGateway, "So says the upstream."), contract.Foreign(http.StatusConflict, "So does it."))...)
	return api
}
