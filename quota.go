package admit

import (
	"fmt"
	"slices"
	"strconv"

	"github.com/admit-go/admit/internal/calendar"
)

// Quota is how many requests an account has bought for each day, week or month. [Quotas] counts
// them. A quota may be spent at any speed; a Limit beside it bounds the speed.
type Quota struct {
	// Name identifies the quota in headers and stores. Default: the name of Every, such as
	// "month". Permitted: 1 to 64 printable ASCII characters. Prohibited: the name of another
	// quota of the same caller, or of a Limit of the same plan.
	Name string
	// Requests is how many requests the account has in each period. Required. Permitted: 1 to
	// 999,999,999,999,999.
	Requests int64
	// Every is the period: Day, Week or Month. Required.
	Every Period
	// Soft means that requests beyond the quota are counted and reported, and never rejected.
	Soft bool
}

// Period is a period of a calendar: a Day, Week or Month. The zero Period is not valid.
// QuotasConfig.Anchor says when periods begin.
type Period int

// The periods of a Quota.
const (
	Day   = Period(calendar.Day)
	Week  = Period(calendar.Week)
	Month = Period(calendar.Month)
)

var periodNames = map[Period]string{Day: "day", Week: "week", Month: "month"}

// String returns day, week or month.
func (p Period) String() string {
	if name, known := periodNames[p]; known {
		return name
	}
	return "Period(" + strconv.Itoa(int(p)) + ")"
}

// MarshalText implements encoding.TextMarshaler. The text is that of String.
func (p Period) MarshalText() ([]byte, error) {
	if name, known := periodNames[p]; known {
		return []byte(name), nil
	}
	return nil, fmt.Errorf("admit: %v is not a period; use Day, Week or Month", p)
}

// UnmarshalText implements encoding.TextUnmarshaler.
func (p *Period) UnmarshalText(text []byte) error {
	for period, name := range periodNames {
		if name == string(text) {
			*p = period
			return nil
		}
	}
	return fmt.Errorf("admit: %q is not a period; use day, week or month", text)
}

// Bounds of a Quota. A header cannot hold a larger Integer (RFC 9651 §3.3.1).
const (
	maxQuota  = maxInteger
	maxQuotas = 16 // of one caller
)

// CompleteQuotas returns the quotas of one caller with their defaults filled in, or an error with
// every problem that NewPlans would report. It is for programs that store the quotas of keys.
func CompleteQuotas(quotas []Quota) ([]Quota, error) {
	var f faults
	f.within("Quotas", checkQuotas(quotas))
	if err := f.err(); err != nil {
		return nil, err
	}
	complete := slices.Clone(quotas)
	for i, q := range complete {
		complete[i] = q.complete()
	}
	return complete, nil
}

func (q Quota) complete() Quota {
	if q.Name == "" {
		q.Name = q.Every.String()
	}
	return q
}

// checkQuotas checks the quotas of one caller, which may be none.
func checkQuotas(quotas []Quota) error {
	var f faults
	if len(quotas) > maxQuotas {
		f.add("Quotas", "has %d quotas; each request checks all of them, and at most %d are permitted", len(quotas), maxQuotas)
		return f.err()
	}
	names := make(map[string]bool)
	for i, q := range quotas {
		field := fmt.Sprintf("Quotas[%d]", i)
		if _, known := periodNames[q.Every]; !known {
			f.add(field+".Every", "is %v; it is Day, Week or Month", q.Every)
			continue
		}
		if q.Requests < 1 || q.Requests > maxQuota {
			f.add(field+".Requests", "is %d; it needs 1 to %d", q.Requests, int64(maxQuota))
		}
		q = q.complete()
		if !validLimitName(q.Name) {
			f.add(field+".Name", "is %q; a header needs 1 to 64 printable ASCII characters", q.Name)
		}
		if names[q.Name] {
			f.add(field+".Name", "is %q, which another quota has too", q.Name)
		}
		names[q.Name] = true
	}
	return f.err()
}
