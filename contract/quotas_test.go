package contract_test

import (
	"encoding/json"
	"html"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/admit-go/admit"
	"github.com/admit-go/admit/contract"
)

// newSold is a contract of a service that sells quotas.
func newSold(t testing.TB, configure func(*admit.QuotasConfig)) *contract.API {
	t.Helper()
	plans, err := admit.NewPlans(
		admit.Plan{Name: "trial"},
		admit.Plan{Name: "free", Quotas: []admit.Quota{{Requests: 10_000, Every: admit.Month}, {Requests: 1, Every: admit.Day}}},
		admit.Plan{Name: "pro", UpgradeURL: "https://example.com/pro", Quotas: []admit.Quota{{Requests: 1_000_000, Every: admit.Month, Soft: true}}},
	)
	require.NoError(t, err)
	auth, err := admit.NewAuth(admit.AuthConfig{Store: admit.KeyMap{}})
	require.NoError(t, err)
	c := admit.QuotasConfig{Plans: plans, Store: admit.NewMemoryQuotaStore()}
	configure(&c)
	quotas, err := admit.NewQuotas(c)
	require.NoError(t, err)
	api := newAPI(t, admit.Policy{})
	api.Declare("GET /sold", admit.Policy{Auth: auth, Quotas: quotas, Accept: []string{"application/json"}})
	api.Declare("GET /sold/too", admit.Policy{Auth: auth, Quotas: quotas})
	return api
}

func TestQuotasOnThePage(t *testing.T) {
	t.Parallel()
	berlin, err := time.LoadLocation("Europe/Berlin")
	require.NoError(t, err)
	for begin, configure := range map[string]func(*admit.QuotasConfig){
		"with the calendar, in the time zone UTC": func(*admit.QuotasConfig) {},
		"on your billing day, in the time zone Europe/Berlin": func(c *admit.QuotasConfig) {
			c.Location, c.Anchor = berlin, func(*admit.Key) time.Time { return time.Time{} }
		},
	} {
		api := newSold(t, configure)
		page := html.UnescapeString(show(t, api, "GET", browser).Body.String())
		markdown := string(api.Markdown())
		for _, text := range []string{page, markdown} {
			for _, want := range []string{
				"10,000 requests a month", "1 request a day", "1,000,000 requests a month; more are counted, not rejected",
				begin, "each account on the plan free", "each account on the plan pro", `"month";q=10000;w=2678400, "day";q=1;w=86400`,
			} {
				assert.Contains(t, text, want, begin)
			}
			assert.NotContains(t, text, "the plan trial", "it has none")
		}
		assertTables(t, api.Markdown())
		assert.Equal(t, 1, strings.Count(markdown, "1,000,000 requests"), "two routes have the same Quotas")

		var all struct {
			Data struct {
				Quotas []struct {
					For    string
					Quotas []admit.Quota
					Begin  string `json:"periods_begin"`
				}
			}
		}
		require.NoError(t, json.Unmarshal(show(t, api, "GET", "application/json").Body.Bytes(), &all))
		require.Len(t, all.Data.Quotas, 2)
		assert.Equal(t, begin, all.Data.Quotas[0].Begin)
		assert.Equal(t, []admit.Quota{{Name: "month", Requests: 1_000_000, Every: admit.Month, Soft: true}}, all.Data.Quotas[1].Quotas)
	}
}

// The example of a refusal is one of a fixed day, so that a contract is the same on each.
func TestQuotasHaveAnExample(t *testing.T) {
	t.Parallel()
	api := newSold(t, func(*admit.QuotasConfig) {})
	exceeded := row(api, "GET /sold", "quota_exceeded")
	require.Len(t, exceeded, 1)
	assert.True(t, exceeded[0].Retryable)
	assert.Equal(t, []string{"RateLimit", "RateLimit-Policy", "Retry-After"}, exceeded[0].Headers)
	example := exceeded[0].Example
	assert.Equal(t, []string{"907200"}, example.Header["Retry-After"])
	assert.Equal(t, []string{`"month";r=0;t=907200`}, example.Header["RateLimit"])
	assert.Equal(t, []string{`"month";q=10000;w=2678400, "day";q=1;w=86400`}, example.Header["RateLimit-Policy"])
	assert.Contains(t, example.Body, `"limits":["month","day"],"resets_at":"2026-02-01T00:00:00Z","upgrade_url":"https://example.com/pro"`)
	assert.Equal(t, api.Markdown(), newSold(t, func(*admit.QuotasConfig) {}).Markdown())
}

// In the document the headers of quotas stand where Quotas are around, and nowhere else.
func TestQuotasInOpenAPI(t *testing.T) {
	t.Parallel()
	api := newSold(t, func(*admit.QuotasConfig) {})
	text, err := api.OpenAPI(contract.OpenAPI31)
	require.NoError(t, err)
	type response struct {
		Ref     string `json:"$ref"`
		Headers map[string]any
	}
	var document struct {
		Paths map[string]struct {
			Get struct {
				Responses map[string]response
			}
		}
		Components struct {
			Headers   map[string]struct{ Example string }
			Responses map[string]response
		}
	}
	require.NoError(t, json.Unmarshal(text, &document))
	responses := document.Paths["/sold"].Get.Responses
	for status, want := range map[string]bool{"2XX": true, "401": false, "406": true, "429": true} {
		r := responses[status]
		if shared, found := strings.CutPrefix(r.Ref, "#/components/responses/"); found {
			r = document.Components.Responses[shared]
		}
		require.NotEmpty(t, r.Headers, status)
		assert.Equal(t, want, r.Headers["RateLimit"] != nil, status)
		assert.Equal(t, want, r.Headers["RateLimit-Policy"] != nil, status)
	}
	assert.Equal(t, `"month";r=0;t=907200`, document.Components.Headers["RateLimit"].Example)
}
