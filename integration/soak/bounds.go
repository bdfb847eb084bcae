package main

import (
	"fmt"
	"slices"
	"time"

	"github.com/admit-go/admit"
)

// span is when a request was sent and answered, since the beginning of the run. The
// service has decided somewhere between.
type span struct{ sent, received time.Duration }

// limitsOf are those of the example's plans.
func limitsOf(plan string) []admit.Limit {
	switch plan {
	case "free":
		return []admit.Limit{admit.PerSecond(5), admit.PerMinute(100)}
	case "pro":
		return []admit.Limit{admit.PerSecond(50), admit.PerMinute(5000)}
	default:
		return []admit.Limit{admit.PerSecond(1)}
	}
}

// quotaOf is that of a key: its own, or that of its plan in the example. Nil: it has none.
func quotaOf(k admit.Key) *admit.Quota {
	switch {
	case len(k.Quotas) > 0:
		return &k.Quotas[0]
	case k.Plan == "free":
		return &admit.Quota{Name: "month", Requests: 10_000}
	case k.Plan == "pro":
		return &admit.Quota{Name: "month", Requests: 1_000_000, Soft: true}
	default:
		return nil
	}
}

// excess returns an error if more were admitted than a limit allows in any time of Per,
// or in all. Only what lies in a window as a whole is counted, so that what it finds has
// happened whatever the time between the client and the service.
func excess(admitted []span, l admit.Limit) error {
	if l.Burst == 0 {
		l.Burst = l.Requests
	}
	slices.SortFunc(admitted, func(a, b span) int { return int(a.received - b.received) })
	most := l.Burst + l.Requests
	first := 0
	for i, end := range admitted {
		begin := end.received - l.Per
		for admitted[first].received < begin {
			first++
		}
		n := 0
		for _, s := range admitted[first : i+1] {
			if s.sent >= begin {
				n++
			}
		}
		if n > most {
			return fmt.Errorf("%d were admitted from %v to %v, at most %d may be by the limit %q", n, begin, end.received, most, l.Name)
		}
	}
	if len(admitted) == 0 {
		return nil
	}
	begin, end := admitted[0].sent, admitted[len(admitted)-1].received
	for _, s := range admitted {
		begin = min(begin, s.sent)
	}
	if all := l.Burst + int(float64(l.Requests)*(end-begin).Seconds()/l.Per.Seconds()); len(admitted) > all {
		return fmt.Errorf("%d were admitted in %v, at most %d may be by the limit %q", len(admitted), end-begin, all, l.Name)
	}
	return nil
}
