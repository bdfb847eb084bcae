// Package migrating has the code of docs/migrating.md.
package migrating

import (
	"errors"
	"net/http"
	"net/netip"
	"time"

	"github.com/go-chi/chi/v5"
	"github.com/justinas/alice"
	"github.com/labstack/echo/v4"

	"github.com/admit-go/admit"
)

// Chi limits a router of chi.
func Chi(item http.HandlerFunc) http.Handler {
	r := chi.NewRouter()
	r.Use(admit.RateLimit(admit.PerMinute(60)))
	r.Get("/items/{id}", item)
	return r
}

// ByPath limits each path by itself, behind proxies of one network.
func ByPath(item http.HandlerFunc, proxies netip.Prefix) (http.Handler, error) {
	limiter, err := admit.NewLimiter(admit.LimiterConfig{
		Limits:        []admit.Limit{admit.PerMinute(60)},
		CountBy:       func(r *http.Request) string { return r.URL.Path + " " + admit.Caller(r) },
		LegacyHeaders: true, // X-RateLimit-Limit, -Remaining and -Reset too
	})
	if err != nil {
		return nil, err
	}
	return alice.New(admit.ClientIP("X-Forwarded-For", proxies), limiter.Wrap).Then(item), nil
}

// AroundEcho checks keys and limits for all routes of an Echo.
func AroundEcho(keys admit.KeyStore, item echo.HandlerFunc) http.Handler {
	e := echo.New()
	e.GET("/items/:id", item) // which reads admit.KeyFrom(c.Request().Context())
	return alice.New(admit.RequestID, admit.APIKey(keys), admit.RateLimit(admit.PerMinute(60))).Then(e)
}

// OneKey replaces the middleware that was written by hand. Clients keep their key.
func OneKey(key string, item http.HandlerFunc) http.Handler {
	keys := admit.KeyMap{admit.DigestOf(key): {ID: "first", Owner: "everybody"}}
	return alice.New(admit.RequestID, admit.Recover, admit.APIKey(keys), admit.RateLimit(admit.PerMinute(60))).Then(item)
}

// UsagePlan is that of a gateway, with its header for keys.
func UsagePlan(keys admit.KeyStore, store admit.QuotaStore) (admit.Policy, error) {
	plans, err1 := admit.NewPlans(admit.Plan{
		Name:   "basic",
		Limits: []admit.Limit{{Name: "second", Requests: 10, Per: time.Second, Burst: 20}},
		Quotas: []admit.Quota{{Requests: 10_000, Every: admit.Month}},
	})
	auth, err2 := admit.NewAuth(admit.AuthConfig{
		Store:   keys,
		Sources: []admit.KeySource{admit.FromHeader("apikey"), admit.FromBearer()},
	})
	limiter, err3 := admit.NewLimiter(admit.LimiterConfig{Plans: plans, Limits: []admit.Limit{admit.PerSecond(1)}})
	quotas, err4 := admit.NewQuotas(admit.QuotasConfig{Plans: plans, Store: store})
	return admit.Policy{Auth: auth, Limiter: limiter, Quotas: quotas}, errors.Join(err1, err2, err3, err4)
}

// DryRun counts, and lets everybody in.
func DryRun(count func(rejected bool)) (*admit.Limiter, error) {
	return admit.NewLimiter(admit.LimiterConfig{
		Limits: []admit.Limit{admit.PerMinute(60)},
		DryRun: true,
		Observe: func(_ *http.Request, e admit.LimitEvent) {
			count(!e.Decision.Allowed)
		},
	})
}

// OldBody writes errors as clients know them, and keeps status and headers.
func OldBody(_ *http.Request, e *admit.Error) (contentType string, body []byte) {
	return "text/plain; charset=utf-8", []byte(e.Message + "\n")
}
