package main

import (
	"net/http"
	"strings"
	"testing"

	"github.com/admit-go/admit"
)

// BenchmarkQuotas has a caller of whom a quota lets all in, or nothing, and the whole chain
// with one. No peer has quotas.
func BenchmarkQuotas(b *testing.B) { compare(b, quotas()) }

func quotas() []contest {
	seller := func(cost int) *admit.Quotas {
		return must(admit.NewQuotas(admit.QuotasConfig{
			Plans: must(admit.NewPlans(admit.Plan{Name: "pro", Quotas: []admit.Quota{{Requests: unreached, Every: admit.Month}}})),
			Store: admit.NewMemoryQuotaStore(), Cost: func(*http.Request) int { return cost },
		}))
	}
	caller := func(next http.Handler) http.Handler {
		key := &admit.Key{ID: "k", Plan: "pro"}
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			next.ServeHTTP(w, r.WithContext(admit.WithKey(r.Context(), key)))
		})
	}
	ring := newKeyring()
	policy := ring.policy(unreached, 0)
	policy.Quotas = seller(1)
	get, post := requests("GET", ""), ring.post("Content-Type", "application/json", "Accept", "application/json")

	work := func(name string, h http.Handler, request func() *http.Request, status int) contest {
		return contest{name: "case=" + name, entries: []entry{{"admit", func(v *verdict) {
			res := v.ask(h, request(), status, "a request")
			if state := strings.Join(res.Header.Values("RateLimit"), ", "); !strings.Contains(state, `"month";r=`) {
				v.wrong("says %q in RateLimit", state)
			}
		}, serially(h, request, status)}}}
	}
	return []contest{
		work("accepted", caller(seller(1).Wrap(nothing)), get, 200),
		work("refused", caller(seller(unreached+1).Wrap(nothing)), get, 429),
		work("policy", policy.Wrap(nothing), post, 200),
	}
}
