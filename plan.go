package admit

import (
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"slices"
)

// Plan is what callers pay for.
type Plan struct {
	// Name is what Key.Plan holds. Includes is the name of the plan below, if any,
	// whose features this one has too.
	Name, Includes string
	Features       []string
	// Limits of this plan's callers, for a Limiter that has the Plans. They are not
	// inherited.
	Limits []Limit
	// UpgradeURL is where to buy this plan.
	UpgradeURL string
}

// Plans knows which plan has what. It is read-only, for any number of goroutines.
type Plans struct {
	plans []Plan // in the order of NewPlans
	index map[string]int
}

// NewPlans reports every fault of the plans at once: names that are empty, double or
// unknown, cycles, limits and addresses that cannot be.
func NewPlans(plans ...Plan) (*Plans, error) {
	p := &Plans{index: make(map[string]int, len(plans))}
	var faults []error
	fault := func(format string, args ...any) {
		faults = append(faults, fmt.Errorf("admit: NewPlans: "+format, args...))
	}
	if len(plans) == 0 {
		fault("there are no plans")
	}
	for i, plan := range plans {
		plan.Features, plan.Limits = slices.Clone(plan.Features), slices.Clone(plan.Limits)
		p.plans = append(p.plans, plan)
		if _, double := p.index[plan.Name]; double {
			fault("the plan %q is there twice", plan.Name)
			continue
		}
		p.index[plan.Name] = i
		if plan.Name == "" {
			fault("plan %d has no name", i)
		}
		if slices.Contains(plan.Features, "") {
			fault("the plan %q has a feature without a name", plan.Name)
		}
		if u, err := url.Parse(plan.UpgradeURL); plan.UpgradeURL != "" && (err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Host == "") {
			fault("the plan %q: UpgradeURL %q is not an http or https URL", plan.Name, plan.UpgradeURL)
		}
		if err := checkLimits(plan.Limits); err != nil {
			fault("the plan %q: %w", plan.Name, err)
		}
	}
	for i, plan := range p.plans {
		if plan.Includes == "" {
			continue
		}
		if _, known := p.index[plan.Includes]; !known {
			fault("the plan %q includes %q, which is not there", plan.Name, plan.Includes)
		}
		if p.reaches(plan.Includes, plan.Name) && p.index[plan.Name] == i {
			fault("the plan %q includes itself, through %q", plan.Name, plan.Includes)
		}
	}
	if len(faults) > 0 {
		return nil, errors.Join(faults...)
	}
	return p, nil
}

// reaches reports whether from is, or includes, the plan to.
func (p *Plans) reaches(from, to string) bool {
	for range p.plans { // a chain without a cycle is no longer than this
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

// AtLeast lets in keys whose plan is, or includes, the given one, and refuses others
// with 402 plan_required and the upgrade_url of the first plan, in the order of
// NewPlans, that would pass. A key with no plan, or one that is unknown here, is
// refused and logged. Without a key in the context it is 500. It panics on a name
// that NewPlans did not get.
func (p *Plans) AtLeast(plan string) Middleware {
	m, err := p.atLeast(plan)
	if err != nil {
		panic("admit: Plans.AtLeast: " + err.Error())
	}
	return m
}

func (p *Plans) atLeast(plan string) (Middleware, error) {
	if _, known := p.index[plan]; !known {
		return nil, fmt.Errorf("there is no plan %q", plan)
	}
	return p.require(func(name string) bool { return p.reaches(name, plan) }), nil
}

// Features lets in keys whose plan has all of the features, itself or through the plans
// that it includes; the rest is as with AtLeast. It panics without a name, and if no
// plan has all of them.
func (p *Plans) Features(names ...string) Middleware {
	m, err := p.haveAll(names)
	if err != nil {
		panic("admit: Plans.Features: " + err.Error())
	}
	return m
}

func (p *Plans) haveAll(names []string) (Middleware, error) {
	if len(names) == 0 {
		return nil, errors.New("no feature is given")
	}
	passes := func(plan string) bool {
		return !slices.ContainsFunc(names, func(feature string) bool { return !p.has(plan, feature) })
	}
	if !slices.ContainsFunc(p.plans, func(plan Plan) bool { return passes(plan.Name) }) {
		return nil, fmt.Errorf("no plan has all of %q, so that no request could pass", names)
	}
	return p.require(passes), nil
}

// has reports whether a plan has the feature.
func (p *Plans) has(plan, feature string) bool {
	return slices.ContainsFunc(p.plans, func(holder Plan) bool {
		return slices.Contains(holder.Features, feature) && p.reaches(plan, holder.Name)
	})
}

// require decides once for each plan, so that a request is one look-up.
func (p *Plans) require(passes func(plan string) bool) Middleware {
	admits := make(map[string]bool, len(p.plans))
	refusal := &Error{
		Status:  http.StatusPaymentRequired,
		Code:    "plan_required",
		Message: "The API is not available on your current plan.",
	}
	for _, plan := range p.plans {
		admits[plan.Name] = passes(plan.Name)
		if admits[plan.Name] && refusal.Meta == nil {
			refusal.Meta = map[string]any{}
			if plan.UpgradeURL != "" {
				refusal.Meta["upgrade_url"] = plan.UpgradeURL
			}
		}
	}
	return func(next http.Handler) http.Handler {
		return wrap("Plans", next, func(in inside, w http.ResponseWriter, r *http.Request) {
			id := identityOf(r.Context())
			if id == nil {
				WriteError(w, r, errInternal.WithCause(errors.New("admit: Plans found no key in the context: put an Auth, or a wrapper that calls WithKey, outside of it")))
				return
			}
			if admitted, known := admits[id.key.Plan]; !known {
				errorWriterOf(r.Context()).log(r, slog.LevelWarn, "admit: a key has a plan that is not known here",
					slog.String("key", id.key.ID), slog.String("plan", id.key.Plan))
				WriteError(w, r, refusal)
				return
			} else if !admitted {
				WriteError(w, r, refusal)
				return
			}
			in.ServeHTTP(w, r)
		})
	}
}
