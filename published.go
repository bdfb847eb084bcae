package admit

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/admit-go/admit/internal/calendar"
	"github.com/admit-go/admit/internal/published"
)

// The packages contract and admittest get access to what users do not need.
func init() {
	published.Of = func(policy any) published.Chain { return policy.(Policy).published() }
	published.Outcomes = outcomes
	published.SetRoute = setRoute
	published.SwitchMaintenance = func(m any, until *time.Time) *time.Time { return m.(*Maintenance).until.Swap(until) }
	notAllowed := *errMethodNotAllowed
	notAllowed.Header = http.Header{"Allow": {"GET, HEAD"}} // an example: a ServeMux sets it
	published.Mux = []*Error{NewError(http.StatusBadRequest, ""), errNotFound, &notAllowed}
	published.Handlers = []*Error{errInternal, errDeadline}
	published.Decodes = func() any {
		return []*Error{errBodyEmpty, errBodyMalformed, errBodyTrailing, errBodyUnread, errRequestTimeout, errBodyTooLarge, sampleInvalid()}
	}
	published.Forms = []*Error{
		errQueryMalformed, errFormMalformed, errNoBoundary, errTwoContentTypes, errBodyUnread, errRequestTimeout, errBodyTooLarge,
		formTypes.refusals[faultType].of(""),
	}
	published.Proxies = []*Error{errBadGateway, errGatewayTimeout, errBodyUnread, errBodyTooSlow}
}

// sampleInvalid returns the error of Decode for a member that is not valid.
func sampleInvalid() *Error {
	var sample struct {
		Quantity int `json:"quantity"`
	}
	return errorOf(decode([]byte(`{"quantity":"ten"}`), &sample))
}

// published describes a Policy without a configuration error.
func (p Policy) published() published.Chain {
	c := published.Chain{
		MaxBody: p.MaxBody, FirstByte: p.Timeout,
		Scopes: slices.Clone(p.Scopes), AtLeast: p.AtLeast, Features: slices.Clone(p.Features),
		Identity: p.Identity != nil, Offers: slices.Clone(p.Accept), Types: slices.Clone(p.ContentType),
	}
	if len(p.Methods) > 0 {
		m, _ := newMethods(p.Methods, nil)
		c.Methods = m.allowed
	}
	if n := p.Negotiator; n != nil {
		for _, t := range n.offers {
			c.Offers = append(c.Offers, t.String())
		}
	}
	if t := p.ContentTypes; t != nil {
		c.Types, c.Encodings = slices.Clone(t.given), slices.Clone(t.encodings)
	}
	if t := p.HandlerTimeout; t != nil {
		c.FirstByte, c.Total = t.c.FirstByte, t.c.Total
	}
	if f := p.InFlight; f != nil {
		c.InFlight = published.InFlight{Max: f.c.Max, PerAddress: f.c.PerAddress, Queue: f.c.Queue}
	}
	if s := p.Shedder; s != nil {
		c.Shedder = published.Shedder{Max: s.c.Max, Queue: s.c.MaxQueue, Interval: s.c.Interval}
	}
	if t := p.BodyTimeout; t.Grace > 0 {
		c.BodyWait = t.Grace // Max is no shorter
	}
	if p.Maintenance != nil {
		c.Maintenance = p.Maintenance
	}
	if p.Errors != nil {
		c.Errors = p.Errors
	}
	if a := p.Auth; a != nil {
		c.Realm, c.Optional, c.Outside = a.realm, a.optional, a.outside()
		for _, s := range a.sources {
			c.Sources = append(c.Sources, published.Source{In: s.in, Name: s.name})
		}
		if a.throttles() {
			c.Throttle = publishedLimit(a.failures.rules[0].Limit)
		}
	}
	plans := p.Plans
	for field, l := range map[string]*Limiter{"AddressLimiter": p.AddressLimiter, "Limiter": p.Limiter} {
		if l != nil {
			c.Limits = append(c.Limits, l.published(field)...)
		}
	}
	slices.SortStableFunc(c.Limits, func(a, b published.Limits) int { return len(b.Field) - len(a.Field) }) // as in the chain
	if plans == nil && p.Limiter != nil {
		plans = p.Limiter.c.Plans
	}
	if p.Quotas != nil {
		c.Quotas = p.Quotas.published()
	}
	if plans == nil && p.Quotas != nil {
		plans = p.Quotas.c.Plans
	}
	if plans != nil {
		for _, plan := range plans.plans {
			c.Plans = append(c.Plans, published.Plan{Name: plan.Name, Includes: plan.Includes, Features: slices.Clone(plan.Features), UpgradeURL: plan.UpgradeURL})
		}
	}
	return c
}

// published describes the limits of callers without a plan, and those of each plan.
func (l *Limiter) published(field string) []published.Limits {
	by := "address"
	switch {
	case l.c.CountBy != nil:
		by = ""
	case field == "Limiter":
		by = "key"
	}
	describe := func(plan string, set *limitSet) published.Limits {
		p := published.Limits{Field: field, Name: l.c.Name, By: by, Plan: plan, DryRun: l.c.DryRun, Policy: set.policy, Exhausted: set.items[0] + "0;t=1", Store: l.store != nil, Legacy: l.c.LegacyHeaders}
		for _, limit := range set.limits {
			p.Limits = append(p.Limits, publishedLimit(limit))
		}
		return p
	}
	all := []published.Limits{describe("", l.base)}
	if l.c.Plans == nil || field == "AddressLimiter" {
		return all
	}
	for _, plan := range l.c.Plans.plans {
		if set := l.plans[plan.Name]; set != nil {
			all = append(all, describe(plan.Name, set))
			all[0].Others = true
		}
	}
	return all
}

func publishedLimit(l Limit) published.Limit {
	return published.Limit{Name: l.Name, Requests: l.Requests, Per: l.Per, Burst: l.Burst}
}

// published describes the quotas of callers without a plan, of which there are none, and those of
// each plan.
func (q *Quotas) published() []published.Quotas {
	_, inMemory := q.c.Store.(*MemoryQuotaStore)
	describe := func(plan string) published.Quotas {
		p := published.Quotas{Plan: plan, Billing: q.c.Anchor != nil, Location: q.c.Location.String(), Store: !inMemory}
		set := q.plans[plan].set
		var policies []string
		for i, quota := range set.quotas {
			period := calendar.In(sampleTime, calendar.Unit(quota.Every), time.Time{}, q.c.Location)
			p.Quotas = append(p.Quotas, published.Quota{Name: quota.Name, Requests: quota.Requests, Every: quota.Every.String(), Soft: quota.Soft})
			policies = append(policies, fmt.Sprint(set.policies[i], ceilSeconds(period.End.Sub(period.Start))))
			if !quota.Soft && p.Exhausted == "" {
				p.Exhausted = fmt.Sprint(set.items[i], "0;t=", ceilSeconds(period.End.Sub(sampleTime)))
			}
		}
		p.Policy = strings.Join(policies, ", ")
		return p
	}
	all := []published.Quotas{describe(noPlan)}
	for _, plan := range q.c.Plans.plans {
		all = append(all, describe(plan.Name))
	}
	return all
}
