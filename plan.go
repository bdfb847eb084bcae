package admit

import (
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"slices"
)

// Plan is a plan that callers pay for. A key has one, by its name in Key.Plan.
type Plan struct {
	// Name is the name of the plan, as in Key.Plan. Required, and different for each plan.
	// Includes is the name of another plan, whose features this plan has too. Default: none.
	// Prohibited: plans that include one another.
	Name, Includes string
	// Features are what Plans.Features asks for. Prohibited: an empty name.
	Features []string
	// Limits are the rate limits of callers with this plan, in a Limiter that has the Plans.
	// They are not inherited. Empty means LimiterConfig.Limits.
	Limits []Limit
	// Quotas are the quotas of callers with this plan, in a Quotas that has the Plans. They are
	// not inherited. Empty means none. Prohibited: the name of one of Limits.
	Quotas []Quota
	// UpgradeURL is where to buy this plan. Callers of other plans get it in a refusal.
	// Permitted: an http or https URL. Default: none.
	UpgradeURL string
}

// Plans is a set of plans. It is immutable and safe for concurrent use.
type Plans struct {
	plans []Plan // in the order of NewPlans
	index map[string]int
	made  made
}

// NewPlans returns Plans. List the plans from the lowest to the highest: a Shedder prefers
// callers of later plans, and the first plan that would pass is offered as an upgrade. The error
// has every problem of the plans: names that are empty, duplicate or unknown, cycles of Includes,
// and invalid features, limits, quotas and URLs. The Plans returned with it cannot serve.
func NewPlans(plans ...Plan) (*Plans, error) {
	p := &Plans{index: make(map[string]int, len(plans)), made: made{ok: true}}
	var f faults
	if len(plans) == 0 {
		f.add("Plans", "has no plan; give at least one")
	}
	for i, plan := range plans {
		field := fmt.Sprintf("Plans[%d]", i)
		plan.Features, plan.Limits, plan.Quotas = slices.Clone(plan.Features), slices.Clone(plan.Limits), slices.Clone(plan.Quotas)
		p.plans = append(p.plans, plan)
		if _, double := p.index[plan.Name]; double {
			f.add(field+".Name", "is %q, which another plan has too", plan.Name)
			continue
		}
		p.index[plan.Name] = i
		if plan.Name == "" {
			f.add(field+".Name", "is empty; name the plan as Key.Plan does")
		}
		if j := slices.Index(plan.Features, ""); j >= 0 {
			f.add(fmt.Sprintf("%s.Features[%d]", field, j), "is empty; name the feature")
		}
		if u, err := url.Parse(plan.UpgradeURL); plan.UpgradeURL != "" && (err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Host == "") {
			f.add(field+".UpgradeURL", "is %q, which is not an http or https URL", plan.UpgradeURL)
		}
		f.within(field+".Limits", checkLimits(plan.Limits))
		f.within(field+".Quotas", checkQuotas(plan.Quotas))
		for j, q := range plan.Quotas {
			name := q.complete().Name
			if slices.ContainsFunc(plan.Limits, func(l Limit) bool { return l.Name == name }) {
				f.add(fmt.Sprintf("%s.Quotas[%d].Name", field, j), "is %q, which a limit of the plan has too; clients tell them apart by it", name)
			}
		}
	}
	for i, plan := range p.plans {
		if plan.Includes == "" {
			continue
		}
		if _, known := p.index[plan.Includes]; !known {
			f.add(fmt.Sprintf("Plans[%d].Includes", i), "is %q, which is not one of the plans", plan.Includes)
		}
		if p.reaches(plan.Includes, plan.Name) && p.index[plan.Name] == i {
			f.add(fmt.Sprintf("Plans[%d].Includes", i), "is %q, through which the plan %q includes itself", plan.Includes, plan.Name)
		}
	}
	if err := f.err(); err != nil {
		return &Plans{made: made{err: err}}, err
	}
	return p, nil
}

func (p *Plans) fault() error {
	if p == nil {
		return (*made)(nil).fault("Plans")
	}
	return p.made.fault("Plans")
}

func (p *Plans) knows(plan string) bool {
	_, known := p.index[plan]
	return known
}

// limited reports whether a plan has limits.
func (p *Plans) limited() bool {
	return slices.ContainsFunc(p.plans, func(plan Plan) bool { return len(plan.Limits) > 0 })
}

// reaches reports whether from is, or includes, the plan to.
func (p *Plans) reaches(from, to string) bool {
	for range p.plans { // a chain without a cycle is not longer than this
		if from == to {
			return true
		}
		i, known := p.index[from]
		if !known {
			return false
		}
		from = p.plans[i].Includes
	}
	return false
}

// AtLeast returns a middleware that admits keys whose plan is the given one, or includes it. It
// rejects other keys with 402 and the code plan_required. The body has the UpgradeURL of the
// first plan, in the order of NewPlans, that would be admitted, as upgrade_url. A key without a
// plan, or with an unknown plan, is rejected and logged. A request without a key in its context
// gets 500, since AtLeast belongs inside an Auth. AtLeast panics on a name that NewPlans did not
// get.
func (p *Plans) AtLeast(plan string) Middleware {
	n, err := p.atLeast(plan)
	must(err)
	return n.wrap
}

func (p *Plans) atLeast(plan string) (*planNeed, error) {
	if err := p.fault(); err != nil {
		return nil, err
	}
	if !p.knows(plan) {
		return nil, configFault("AtLeast", "is %q, which is not one of the plans", plan)
	}
	return p.require(func(name string) bool { return p.reaches(name, plan) }), nil
}

// Features returns a middleware that admits keys whose plan has all of the features, itself or
// through the plans that it includes. Otherwise it works like [Plans.AtLeast]. It panics without
// a feature, and if no plan has all of them.
func (p *Plans) Features(names ...string) Middleware {
	n, err := p.haveAll(names)
	must(err)
	return n.wrap
}

func (p *Plans) haveAll(names []string) (*planNeed, error) {
	if err := p.fault(); err != nil {
		return nil, err
	}
	if len(names) == 0 {
		return nil, configFault("Features", "has no feature; name one that a plan has")
	}
	passes := func(plan string) bool {
		return !slices.ContainsFunc(names, func(feature string) bool { return !p.has(plan, feature) })
	}
	if !slices.ContainsFunc(p.plans, func(plan Plan) bool { return passes(plan.Name) }) {
		return nil, configFault("Features", "is %q; no plan has all of them, so that no request could pass", names)
	}
	return p.require(passes), nil
}

// has reports whether a plan has the feature.
func (p *Plans) has(plan, feature string) bool {
	return slices.ContainsFunc(p.plans, func(holder Plan) bool {
		return slices.Contains(holder.Features, feature) && p.reaches(plan, holder.Name)
	})
}

// planNeed is the decision of AtLeast or Features.
type planNeed struct {
	admits  map[string]bool // each plan
	refused *Error
}

// require decides once for each plan, so that a request needs only one look-up.
func (p *Plans) require(passes func(plan string) bool) *planNeed {
	n := &planNeed{
		admits: make(map[string]bool, len(p.plans)),
		refused: &Error{
			Status:  http.StatusPaymentRequired,
			Code:    "plan_required",
			Message: "This resource is not available on your current plan.",
		},
	}
	for _, plan := range p.plans {
		n.admits[plan.Name] = passes(plan.Name)
		if n.admits[plan.Name] && n.refused.Meta == nil {
			n.refused.Meta = map[string]any{}
			if plan.UpgradeURL != "" {
				n.refused.Meta["upgrade_url"] = plan.UpgradeURL
			}
		}
	}
	return n
}

func (n *planNeed) wrap(next http.Handler) http.Handler {
	return wrap("Plans", next, func(in inside, w http.ResponseWriter, r *http.Request) {
		id, err := identified(r)
		if err == nil {
			err = n.check(r, id)
		}
		if err != nil {
			WriteError(w, r, err)
			return
		}
		in.ServeHTTP(w, r)
	})
}

func (n *planNeed) check(r *http.Request, id *identity) *Error {
	if id == nil {
		return errInternal.WithCause(errors.New("admit: Plans found no key in the context: put an Auth, or a middleware that calls WithKey, outside of it"))
	}
	admitted, known := n.admits[id.key.Plan]
	if !known {
		errorWriterOf(r.Context()).log(r, slog.LevelWarn, "admit: a key has a plan that is not known here",
			slog.String("admit.key.id", id.key.ID), slog.String("admit.plan", id.key.Plan))
	}
	if admitted {
		return nil
	}
	return n.refused
}

func (n *planNeed) answers() []Answer {
	return []Answer{answer(n.refused, "The plan of the caller does not include this resource.")}
}
