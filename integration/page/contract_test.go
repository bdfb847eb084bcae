package page

import (
	"log/slog"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/admit-go/admit"
	"github.com/admit-go/admit/contract"
	"github.com/admit-go/admit/example/service"
)

// exampleContract is the page of the example's service.
func exampleContract(t *testing.T) http.Handler {
	api, err := service.New(t.Context(), service.Config{Keys: admit.KeyMap{}, Logger: slog.New(slog.DiscardHandler)})
	require.NoError(t, err)
	return api.Contract.Page()
}

// hostile is a text that is a script, a picture of another host, and the end of whatever it
// may stand in.
const hostile = `--></title></style></script></code></pre>"'><script>console.error("run")</script><img src=http://192.0.2.1/ onerror=console.error("run")>&lt;{{.}}`

// hostileContract is the page of a service that says hostile, very long and empty things
// wherever it may say something.
func hostileContract(t *testing.T) http.Handler {
	long := strings.Repeat("unbroken", 40)
	plans, err := admit.NewPlans(
		admit.Plan{Name: "free", Limits: []admit.Limit{admit.PerSecond(1)}, Quotas: []admit.Quota{{Requests: 999_999_999_999_999, Every: admit.Month}}},
		admit.Plan{
			Name: "plan-" + long, Includes: "free", Features: []string{hostile, long},
			Limits: []admit.Limit{admit.PerSecond(2)}, Quotas: []admit.Quota{{Name: "<b>&" + long[:60], Requests: 1, Every: admit.Day, Soft: true}}, UpgradeURL: "https://example.com/" + long + "?a=<b>&c=\"'",
		},
	)
	require.NoError(t, err)
	limiter, err := admit.NewLimiter(admit.LimiterConfig{Name: "hostile", Plans: plans, Limits: []admit.Limit{admit.PerSecond(1)}})
	require.NoError(t, err)
	quotas, err := admit.NewQuotas(admit.QuotasConfig{Plans: plans, Store: admit.NewMemoryQuotaStore(), Location: time.FixedZone(hostile, 3600)})
	require.NoError(t, err)
	identity := func(http.Handler) http.Handler { return http.NotFoundHandler() }

	api, err := contract.New(contract.Info{
		Title: hostile, Version: long, Description: hostile + "\n\n" + long + "\n\n\u202eturned round",
		Servers: []string{"https://example.com/" + long + "/<b>'"},
		SecuritySchemes: map[string]contract.SecurityScheme{
			hostile: {Type: "http", Scheme: "bearer", Description: hostile},
			long:    {Type: "apiKey", In: "header", Name: long},
		},
	}, admit.Policy{}, admit.NewError(http.StatusConflict, hostile))
	require.NoError(t, err)
	policy := admit.Policy{
		Methods: []string{"GET", "POST"}, Identity: identity, Plans: plans, Limiter: limiter, Quotas: quotas, Features: []string{hostile},
		Scopes: []string{"scope:" + long},
	}
	for _, pattern := range []string{"/<b>'\"&/{id}", "/" + long + "/{" + long + "...}", "POST example.com/{$}"} {
		api.Declare(pattern, policy,
			&admit.Error{Status: http.StatusConflict, Code: long, Message: hostile, Header: http.Header{"X-" + long: {hostile}}, Meta: map[string]any{hostile: hostile}},
			&admit.Error{Status: 499, Code: "<b>", Message: long},
			contract.Foreign(http.StatusBadGateway, hostile),
		)
	}
	return api.Page()
}

// testHostile wants the texts to be read as they were written, and none to have become an
// element.
func testHostile(t *testing.T, b *browser) {
	p := page{b, t, hostileContract(t)}
	p.load(view{width: 1440, scheme: "light", open: true})
	text := ask[string](p, "document.body.innerText")
	for _, part := range []string{hostile, strings.Repeat("unbroken", 40), "/<b>'\"&/{id}"} {
		assert.Contains(t, text, part)
	}
	assert.Equal(t, hostile, strings.SplitN(ask[string](p, "document.title"), " unbroken", 2)[0])
	assert.Equal(t, 0, ask[int](p, "document.querySelectorAll('script, img, b').length"))
}
