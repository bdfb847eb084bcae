package admit

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"
	"unique"

	"golang.org/x/time/rate"
)

// Limit lets a caller have Requests in each Per, as a token bucket: it holds Burst
// requests (0: as many as Requests), starts full, and fills up evenly. It admits at
// most Burst + Requests in any one Per. Name tells it apart in headers and stores; the
// default is Per as Go prints it, such as 1m0s.
//
// A caller has one bucket for each Limit, and a Limit with other numbers is another one:
// where the numbers change, by a deployment or with a plan, everybody starts with a full
// bucket. Who has used up 10 a day, and may have 20 a day from now on, has 20 more.
type Limit struct {
	Name     string        // 1 to 64 printable ASCII characters
	Requests int           // 1 to 1,000,000,000
	Per      time.Duration // 1 ms or more; sent in whole seconds, rounded up
	Burst    int           // 0 to 1,000,000,000
}

// PerSecond is n requests a second, named second.
func PerSecond(n int) Limit { return Limit{Name: "second", Requests: n, Per: time.Second} }

// PerMinute is n requests a minute, named minute.
func PerMinute(n int) Limit { return Limit{Name: "minute", Requests: n, Per: time.Minute} }

// PerHour is n requests an hour, named hour.
func PerHour(n int) Limit { return Limit{Name: "hour", Requests: n, Per: time.Hour} }

// PerDay is n requests in 24 hours, named day. It is a bucket and no calendar: who comes with
// a full one may have up to two days' requests in the first 24 hours.
func PerDay(n int) Limit { return Limit{Name: "day", Requests: n, Per: 24 * time.Hour} }

// Decision is the answer of a LimitStore. A refusal has taken nothing.
type Decision struct {
	Allowed    bool
	RetryAfter time.Duration // where a Limit is exceeded: a lone caller that waits it is let in; < 0: never
	States     []LimitState  // one for each Limit, in order
	Limits     []Limit       // the limits behind States; set by the Limiter, not by a LimitStore
}

// LimitState is what a caller has left of one Limit after the Decision.
type LimitState struct {
	Remaining int           // requests that may come at once
	Reset     time.Duration // until the bucket is full; where Exceeded, until it lets this cost through
	Exceeded  bool          // this Limit refused
	Next      time.Duration // where Remaining is 0: until a cost of 1 is let through; 0: as of a bucket with this Reset
}

// LimitStore decides, for all limits or none, whether key may spend cost. A cost of 0
// only looks and is always allowed; a negative cost gives back, at most until the
// bucket is full. The clock is the store's. An error is an outage, or limits that
// NewLimiter does not take. The limits are a copy. Take is called by any number of
// goroutines.
//
// The key is "key:", LimiterConfig.Name, a colon and the ID for a caller with a Key; "addr:",
// the Name, a colon and the address of Caller for others; with LimiterConfig.CountBy "by:", the
// Name, a colon and what that has returned. It may have any byte and any length.
//
// A store that bounds its calls itself may say so by a method MaxWait() time.Duration: if that
// is no longer than a Limiter waits, Take is called as it is, without the goroutine, the timer
// and the probes that LimiterConfig.Store is about.
type LimitStore interface {
	Take(ctx context.Context, key string, cost int, limits []Limit) (Decision, error)
}

// CompleteLimits returns the limits of one caller with their defaults filled in, or all
// that NewLimiter would find wrong with them. It is for those who write a LimitStore.
func CompleteLimits(limits []Limit) ([]Limit, error) {
	rules, err := newRules(limits)
	if err != nil {
		var f faults
		f.within("Limits", err)
		return nil, f.err()
	}
	complete := make([]Limit, len(rules))
	for i := range rules {
		complete[i] = rules[i].Limit
	}
	return complete, nil
}

// maxInteger is the largest Integer of RFC 9651 §3.3.1. No header says more: what
// only a LimitStore of somebody else does is cut.
const maxInteger = 999_999_999_999_999

// rule is a Limit made ready for decisions.
type rule struct {
	Limit                      // with its defaults filled in
	id    unique.Handle[Limit] // tells its buckets from those of any other Limit
	rate  rate.Limit
}

// What a Limit may ask for. Within these bounds the rounding of a bucket's tokens
// stays far below one request, and its times fit a time.Duration.
const (
	maxRequests = 1_000_000_000
	maxFill     = 100 * 365 * 24 * time.Hour
	maxLimits   = 16 // of one caller
)

// newRules checks the limits of one caller. The paths of its faults begin with Limits.
func newRules(limits []Limit) ([]rule, error) {
	if len(limits) == 0 {
		return nil, configFault("Limits", "is empty; name at least one limit, such as PerMinute(100)")
	}
	if len(limits) > maxLimits {
		return nil, configFault("Limits", "has %d limits; each costs a look at every request, and %d are the most", len(limits), maxLimits)
	}
	rules := make([]rule, 0, len(limits))
	var f faults
	for i, l := range limits {
		field := fmt.Sprintf("Limits[%d]", i)
		ru, err := newRule(l)
		if err != nil {
			f.within(field, err)
			continue
		}
		if slices.ContainsFunc(rules, func(r rule) bool { return r.Name == ru.Name }) {
			f.add(field+".Name", "is %q, which another limit has too; clients and stores tell them apart by it", ru.Name)
		}
		rules = append(rules, ru)
	}
	return rules, f.err()
}

// checkLimits is for limits that may be left out.
func checkLimits(limits []Limit) error {
	if len(limits) == 0 {
		return nil
	}
	_, err := newRules(limits)
	return err
}

// newRule checks one limit. The path of its fault begins with Limit.
func newRule(l Limit) (rule, error) {
	fault := func(field, format string, args ...any) (rule, error) {
		return rule{}, configFault("Limit."+field, format, args...)
	}
	switch {
	case l.Requests < 1 || l.Requests > maxRequests:
		return fault("Requests", "is %d; it needs 1 to %d", l.Requests, maxRequests)
	case l.Per <= 0:
		return fault("Per", "is %v; name a period, such as time.Minute", l.Per)
	case l.Per < shortest:
		return fault("Per", "is %v; a number alone is nanoseconds: did you mean %d*time.Second? A period has %v or more", l.Per, l.Per, shortest)
	case time.Duration(l.Requests) > l.Per:
		return fault("Per", "is %v, in which %d requests are more than one in a nanosecond", l.Per, l.Requests)
	case l.Burst < 0 || l.Burst > maxRequests:
		return fault("Burst", "is %d; it needs 0, for as many as Requests, to %d", l.Burst, maxRequests)
	}
	if l.Burst == 0 {
		l.Burst = l.Requests
	}
	if float64(l.Burst)/float64(l.Requests)*float64(l.Per) > float64(maxFill) {
		return fault("Burst", "is %d, which takes more than a hundred years to fill up again; lower it, or Per", l.Burst)
	}
	if l.Name == "" {
		l.Name = strings.ReplaceAll(l.Per.String(), "µ", "u") // a header is ASCII
	}
	if !validLimitName(l.Name) {
		return fault("Name", "is %q; a header needs 1 to 64 printable ASCII characters", l.Name)
	}
	return rule{
		Limit: l,
		id:    unique.Make(l),
		rate:  rate.Limit(float64(l.Requests) / l.Per.Seconds()),
	}, nil
}

func validLimitName(name string) bool {
	for i := range len(name) {
		if name[i] < ' ' || name[i] > '~' {
			return false
		}
	}
	return len(name) <= 64 // the default of an empty one is filled in
}
