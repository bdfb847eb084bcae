package contract

import (
	"slices"
	"strconv"

	"github.com/admit-go/admit/internal/published"
)

// quotasDoc are the quotas of the callers of one plan.
type quotasDoc struct {
	For    string     `json:"for"` // the accounts that they apply to
	Quotas []quotaDoc `json:"quotas"`
	Begin  string     `json:"periods_begin"`
	Policy string     `json:"policy"` // an example of the header RateLimit-Policy
}

type quotaDoc struct {
	Name     string `json:"name"`
	Requests int64  `json:"requests"`
	Every    string `json:"every"`
	Soft     bool   `json:"soft,omitempty"`
}

func quotasOf(q published.Quotas) quotasDoc {
	d := quotasDoc{For: "each account on the plan " + q.Plan, Policy: q.Policy, Begin: "with the calendar, in the time zone " + q.Location}
	if q.Billing {
		d.Begin = "on your billing day, in the time zone " + q.Location
	}
	for _, quota := range q.Quotas {
		d.Quotas = append(d.Quotas, quotaDoc(quota))
	}
	return d
}

// String writes the quota for people.
func (q quotaDoc) String() string {
	requests := " requests a "
	if q.Requests == 1 {
		requests = " request a "
	}
	s := grouped(q.Requests) + requests + q.Every
	if q.Soft {
		s += "; more are counted, not rejected"
	}
	return s
}

// grouped writes a number that is not negative with a comma between groups of three digits.
func grouped(n int64) string {
	s := strconv.FormatInt(n, 10)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

// inheritQuotas adds the quotas of the plans that have any, each once.
func (m *model) inheritQuotas(all []published.Quotas) {
	for _, q := range all {
		if len(q.Quotas) > 0 && !slices.ContainsFunc(m.quotas, func(o published.Quotas) bool {
			return o.Plan == q.Plan && o.Billing == q.Billing && o.Location == q.Location && slices.Equal(o.Quotas, q.Quotas)
		}) {
			m.quotas = append(m.quotas, q)
		}
	}
}
