package admittest

import (
	"fmt"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"time"

	"github.com/admit-go/admit"
	"github.com/admit-go/admit/internal/published"
)

// caller is the kind of caller that a request comes from.
type caller int

const (
	nobody    caller = iota
	anyone           // has all that a route requires, without a rate limit
	unscoped         // has no scope
	unplanned        // has no plan
	elsewhere        // may come only from another network
	limited          // may send one request a day
	metered          // has a quota of one request
	callers
)

// key returns the key of a caller of a route.
func (p *provoker) key(route published.Route, as caller) *admit.Key {
	id := fmt.Sprintf("admittest-%s-%d-%s", p.run, as, route.Pattern)
	k := &admit.Key{
		ID: id, Owner: id, // each caller is an account of its own
		Plan: p.planFor(route), Scopes: slices.Concat(p.outer.Chain.Scopes, route.Chain.Scopes),
		Limits: []admit.Limit{{Name: "admittest", Requests: 1_000_000_000, Per: time.Hour}},
	}
	k.Quotas = p.quotas(route, k.Plan, 1_000_000_000)
	switch as {
	case unscoped:
		k.Scopes = nil
	case unplanned:
		k.Plan = ""
	case elsewhere:
		k.Networks = []netip.Prefix{netip.MustParsePrefix("198.51.100.0/24")} // for documentation (RFC 5737)
	case limited:
		k.Limits = []admit.Limit{{Name: "admittest", Requests: 1, Per: 24 * time.Hour}}
	case metered:
		if k.Quotas = p.quotas(route, k.Plan, 1); len(k.Quotas) == 0 {
			k.Quotas = []admit.Quota{{Name: "admittest-quota", Requests: 1, Every: admit.Month}}
		}
	}
	return k
}

// quotas returns the quotas of a plan, each with that many requests a month.
func (p *provoker) quotas(route published.Route, plan string, requests int64) []admit.Quota {
	var all []admit.Quota
	for _, of := range slices.Concat(p.outer.Chain.Quotas, route.Chain.Quotas) {
		for _, q := range of.Quotas {
			if of.Plan == plan && !slices.ContainsFunc(all, func(o admit.Quota) bool { return o.Name == q.Name }) {
				all = append(all, admit.Quota{Name: q.Name, Requests: requests, Every: admit.Month})
			}
		}
	}
	return all
}

// planFor returns the first plan that has all that a route requires, or "".
func (p *provoker) planFor(route published.Route) string {
	plans := slices.Concat(p.outer.Chain.Plans, route.Chain.Plans)
	for _, plan := range plans {
		names, features := contents(plans, plan.Name)
		if !slices.ContainsFunc([]published.Chain{p.outer.Chain, route.Chain}, func(c published.Chain) bool {
			return c.AtLeast != "" && !slices.Contains(names, c.AtLeast) ||
				slices.ContainsFunc(c.Features, func(f string) bool { return !slices.Contains(features, f) })
		}) {
			return plan.Name
		}
	}
	return ""
}

// contents returns a plan with all plans that it includes, and all their features.
func contents(plans []published.Plan, name string) (names, features []string) {
	for name != "" && !slices.Contains(names, name) {
		names = append(names, name)
		i := slices.IndexFunc(plans, func(p published.Plan) bool { return p.Name == name })
		if i < 0 {
			break
		}
		features = append(features, plans[i].Features...)
		name = plans[i].Includes
	}
	return names, features
}

// addKeys adds the keys of all callers to Credentials.Keys before the first request, since a
// KeyMap must not change during requests. It returns a function that removes them.
func (p *provoker) addKeys() (remove func()) {
	if p.with.Keys == nil {
		return func() {}
	}
	var digests []admit.Digest
	for _, route := range p.all() {
		for as := anyone; as < callers; as++ {
			token, digest, _ := admit.Mint("admittest")
			key := p.key(route, as)
			p.tokens[key.ID] = token
			p.with.Keys[digest] = key
			digests = append(digests, digest)
		}
	}
	return func() {
		for _, d := range digests {
			delete(p.with.Keys, d)
		}
	}
}

// sign adds the credential of its caller to a request.
func (p *provoker) sign(q *exchange) {
	if q.as == nobody {
		return
	}
	key := p.key(q.to, q.as)
	token, signed := p.tokens[key.ID], false
	if q.as != limited && q.as != metered && token == "" { // a new caller each time, since the service may ignore the Limits and Quotas of key
		p.signed++
		key.ID += "-" + strconv.Itoa(p.signed)
		key.Owner = key.ID
	}
	for _, c := range []published.Chain{p.outer.Chain, q.to.Chain} {
		keyed := c.Sources != nil && token != ""
		if keyed {
			put(q.Request, c.Sources[0], token)
		}
		if (c.Identity || c.Sources != nil && !keyed) && p.with.Sign != nil && !signed {
			p.with.Sign(q.Request, key)
			signed = true
		}
	}
}

// put adds a token where a source reads it.
func put(r *http.Request, s published.Source, token string) {
	switch s.In {
	case "authorization":
		r.Header.Set("Authorization", s.Name+" "+token)
	case "header":
		r.Header.Set(s.Name, token)
	case "query":
		values := r.URL.Query()
		values.Set(s.Name, token)
		r.URL.RawQuery = values.Encode()
	case "cookie":
		if len(r.CookiesNamed(s.Name)) == 0 {
			r.AddCookie(&http.Cookie{Name: s.Name, Value: token})
		}
	}
}

// putTwo adds two tokens where a source reads one.
func putTwo(r *http.Request, s published.Source) {
	const token = "admittest"
	put(r, s, token)
	switch s.In {
	case "authorization":
		r.Header.Add("Authorization", s.Name+" "+token)
	case "header":
		r.Header.Add(s.Name, token)
	case "query":
		r.URL.RawQuery += "&" + r.URL.RawQuery
	case "cookie":
		r.AddCookie(&http.Cookie{Name: s.Name, Value: token})
	}
}
