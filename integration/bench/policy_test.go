package main

import (
	"context"
	"net/http"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/elnormous/contenttype"
	"github.com/go-chi/chi/v5/middleware"
	"github.com/go-chi/httprate"
	"github.com/gorilla/handlers"

	"github.com/admit-go/admit"
)

// BenchmarkPolicy has a request that is let in. "admit" has every field of the Policy,
// two limits and a plan; "admit.same" only what "peers.same" does too. "peers" is what
// people often put together, with less.
func BenchmarkPolicy(b *testing.B) { compare(b, policies()) }

// chain puts the first wrapper outside.
func chain(wrappers ...func(http.Handler) http.Handler) func(http.Handler) http.Handler {
	return func(next http.Handler) http.Handler {
		for _, wrap := range slices.Backward(wrappers) {
			next = wrap(next)
		}
		return next
	}
}

// gate is a whole chain, which lets so many requests of a caller in.
type gate struct {
	name string
	wrap func(requests int) func(http.Handler) http.Handler
}

func policies() (all []contest) {
	ring := newKeyring()
	post := ring.post("Content-Type", "application/json", "Accept", "application/json")
	for _, c := range []struct {
		name  string
		gates []gate
		limit time.Duration
	}{
		{"without-timeouts", ring.gates(0), 0},
		{"with-timeouts", ring.gates(10 * time.Second), 10 * time.Second},
	} {
		work := contest{name: "case=" + c.name}
		for _, g := range c.gates {
			work.entries = append(work.entries, entry{g.name, func(v *verdict) {
				ring.check(v, g)
				if c.limit > 0 {
					checkTimeout(v, g.wrap(unreached), post)
				}
			}, serially(g.wrap(unreached)(nothing), post, 200)})
		}
		all = append(all, work)
	}
	return all
}

// post makes requests with a good key.
func (k *keyring) post(headers ...string) func() *http.Request {
	return requests("POST", `{"pair":"btc-usd"}`, append(headers, "Authorization", "Bearer "+k.token,
		"X-Forwarded-For", "198.51.100.7", "User-Agent", "benchmark")...)
}

// gates are the contestants; zero: without timeouts.
func (k *keyring) gates(limit time.Duration) []gate {
	byKey := func(requests int) func(http.Handler) http.Handler {
		return httprate.LimitBy(requests, ages, func(r *http.Request) (string, error) {
			return r.Context().Value(identityKey{}).(*admit.Key).ID, nil
		})
	}
	common := func(requests int) func(http.Handler) http.Handler {
		return chain(k.byHand(false), byKey(requests), acceptByHand("application/json", "text/csv"), middleware.AllowContentType("application/json"))
	}
	same := func(requests int) func(http.Handler) http.Handler {
		return chain(middleware.RequestID, middleware.Recoverer,
			func(next http.Handler) http.Handler { return handlers.MethodHandler{"POST": next} },
			k.byHand(true), byKey(requests), acceptByHand("application/json", "text/csv"),
			middleware.AllowContentType("application/json"), middleware.RequestSize(64<<10))
	}
	all := []gate{
		{"admit", func(requests int) func(http.Handler) http.Handler { return k.policy(requests, limit).Wrap }},
		{"admit.same", func(requests int) func(http.Handler) http.Handler {
			p := k.policy(requests, 0)
			p.Limiter = must(admit.NewLimiter(admit.LimiterConfig{Limits: []admit.Limit{{Requests: requests, Per: ages}}}))
			return admit.Policy{
				Methods: p.Methods, Auth: p.Auth, Limiter: p.Limiter,
				Accept: p.Accept, ContentType: p.ContentType, MaxBody: p.MaxBody, Timeout: limit,
			}.Wrap
		}},
	}
	if limit == 0 {
		return append(all, gate{"peers", common}, gate{"peers.same", same})
	}
	timeoutHandler := func(next http.Handler) http.Handler { return http.TimeoutHandler(next, limit, "") }
	with := func(gate func(int) func(http.Handler) http.Handler, timeout func(http.Handler) http.Handler) func(int) func(http.Handler) http.Handler {
		return func(requests int) func(http.Handler) http.Handler { return chain(gate(requests), timeout) }
	}
	return append(all, gate{"peers+chi", with(common, middleware.Timeout(limit))},
		gate{"peers+TimeoutHandler", with(common, timeoutHandler)},
		gate{"peers.same+TimeoutHandler", with(same, timeoutHandler)})
}

// policy is a whole one.
func (k *keyring) policy(requests int, limit time.Duration) admit.Policy {
	plans := must(admit.NewPlans(admit.Plan{Name: "pro", Features: []string{"orders"}, Limits: []admit.Limit{
		{Name: "long", Requests: requests, Per: ages}, {Name: "short", Requests: unreached, Per: ages / 2},
	}}))
	p := admit.Policy{
		ClientIP: admit.ClientIP("X-Forwarded-For", netip.MustParsePrefix("192.0.2.0/24")),
		Errors:   new(admit.ErrorWriter), Maintenance: new(admit.Maintenance), InFlight: must(admit.NewInFlight(admit.InFlightConfig{Max: 1000})),
		Methods: []string{"POST"},
		Auth:    must(admit.NewAuth(admit.AuthConfig{Store: k.keys})), Scopes: []string{"orders:write"},
		Plans: plans, AtLeast: "pro", Features: []string{"orders"},
		Limiter: must(admit.NewLimiter(admit.LimiterConfig{Plans: plans, Limits: []admit.Limit{admit.PerSecond(1)}})),
		Accept:  []string{"application/json", "text/csv"}, ContentType: []string{"application/json"}, MaxBody: 64 << 10,
		Timeout: limit,
	}
	if limit > 0 {
		p.BodyTimeout = admit.BodyTimeout{Grace: 5 * time.Second, MinRate: 1 << 10}
	}
	return p
}

type offerKey struct{}

// acceptByHand is the wrapper that one writes around elnormous/contenttype.
func acceptByHand(offers ...string) func(http.Handler) http.Handler {
	var types []contenttype.MediaType
	for _, offer := range offers {
		types = append(types, contenttype.NewMediaType(offer))
	}
	return func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Add("Vary", "Accept")
			t, _, err := contenttype.GetAcceptableMediaType(r, types)
			if err != nil {
				http.Error(w, "not acceptable", http.StatusNotAcceptable)
				return
			}
			next.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), offerKey{}, t)))
		})
	}
}

// check sends one request that is let in, and some for each refusal.
func (k *keyring) check(v *verdict, g gate) {
	var credential string
	h := g.wrap(1000)(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { credential = r.Header.Get("Authorization") }))
	good := k.post("Content-Type", "application/json", "Accept", "application/json")
	res := v.ask(h, good(), 200, "a good request")
	if credential != "" {
		v.wrong("leaves the credential in the request")
	}
	if _, ok := remaining(res.Header); !ok {
		v.wrong("does not tell the client what is left of its limit")
	}
	v.refusal(h, requests("POST", "{}", "Content-Type", "application/json")(), 401, "no key")
	v.refusal(h, k.post("Content-Type", "application/json", "Accept", "application/json;q=0, text/csv;q=0")(), 406, "an Accept that excludes all")
	v.refusal(h, k.post("Content-Type", "text/xml", "Accept", "application/json")(), 415, "XML")

	h = g.wrap(1)(nothing)
	h.ServeHTTP(newDiscard(), good())
	if res := v.refusal(h, good(), 429, "the second of one request"); res.Header.Get("Retry-After") == "" {
		v.wrong("sends no Retry-After")
	}
}
