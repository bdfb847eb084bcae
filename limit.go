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

// Limit is a rate limit: a caller may send Requests requests in each Per. It is a token bucket,
// which holds Burst requests, starts full and fills at a constant rate. It admits at most
// Burst + Requests requests in any period of length Per.
//
// A caller has one bucket for each Limit, and a Limit with other numbers is another Limit. When
// the numbers change, in a deployment or with the plan of a caller, the caller starts with a full
// bucket. A caller that has used up 10 requests a day and now may send 20 has 20 more today.
type Limit struct {
	// Name identifies the limit in headers and stores. Default: Per as Go prints it, such as
	// "1m0s". Permitted: 1 to 64 printable ASCII characters. Prohibited: the name of another
	// limit of the same caller.
	Name string
	// Requests is how many requests are admitted in each Per. Required. Permitted: 1 to
	// 1,000,000,000, but no more than one in a nanosecond.
	Requests int
	// Per is the period. Required. Permitted: 1 ms or more. Headers have it in whole seconds,
	// rounded up.
	Per time.Duration
	// Burst is how many requests a full bucket holds, and so how many may come at once. Zero
	// means as many as Requests. Permitted: 0 to 1,000,000,000. Prohibited: a Burst that takes
	// more than 100 years to refill.
	Burst int
}

// PerSecond returns a Limit of n requests a second, named "second".
func PerSecond(n int) Limit { return Limit{Name: "second", Requests: n, Per: time.Second} }

// PerMinute returns a Limit of n requests a minute, named "minute".
func PerMinute(n int) Limit { return Limit{Name: "minute", Requests: n, Per: time.Minute} }

// PerHour returns a Limit of n requests an hour, named "hour".
func PerHour(n int) Limit { return Limit{Name: "hour", Requests: n, Per: time.Hour} }

// PerDay returns a Limit of n requests in 24 hours, named "day". It is a token bucket, not a
// calendar day: a caller that starts with a full bucket may send up to 2n requests in the first
// 24 hours. For calendar days, see [Quota].
func PerDay(n int) Limit { return Limit{Name: "day", Requests: n, Per: 24 * time.Hour} }

// Decision is the decision of a LimitStore or a Limiter. A refusal takes nothing from any bucket.
type Decision struct {
	// Allowed reports whether the request is admitted.
	Allowed bool
	// RetryAfter is how long to wait where a Limit is exceeded. If no other request of the
	// caller comes meanwhile, the same cost is then admitted. A negative value means never.
	RetryAfter time.Duration
	// States has one LimitState for each Limit, in the same order.
	States []LimitState
	// Limits has the limits of States. It is set by the Limiter, not by a LimitStore.
	Limits []Limit
}

// LimitState is what a caller has left of one Limit after a Decision.
type LimitState struct {
	// Remaining is how many requests may come at once now.
	Remaining int
	// Reset is the time until the bucket is full. Where this Limit is exceeded and its Burst
	// holds the cost, it is the time until the cost is admitted.
	Reset time.Duration
	// Exceeded reports whether this Limit rejected the request.
	Exceeded bool
	// Next is the time until a cost of 1 is admitted, where Remaining is 0. Zero means that it
	// follows from Reset.
	Next time.Duration
}

// LimitStore keeps the token buckets of callers. Take decides whether the caller with this key
// may spend cost, and takes it from the buckets of all limits or of none. A cost of 0 only looks
// and is always allowed. A negative cost gives back, at most until the bucket is full. The time
// is that of the store's own clock. The slice of limits is a copy. An error means an outage, or
// limits that NewLimiter does not accept. Take must be safe for concurrent use.
//
// The key may have any length and contain any byte. It has one of these forms, where name is
// LimiterConfig.Name:
//   - key:name:ID, with the ID of the Key, for a caller with a Key
//   - addr:name:address, with the address that [Caller] returns, for other callers
//   - by:name:result, with the result of LimiterConfig.CountBy, if that is set
//
// A store that bounds its own calls may have a method MaxWait() time.Duration. If it returns at
// most 400 ms, the time that a Limiter waits, the Limiter calls Take directly: without the
// goroutine, the timer and the probes that LimiterConfig.Store describes.
type LimitStore interface {
	Take(ctx context.Context, key string, cost int, limits []Limit) (Decision, error)
}

// CompleteLimits returns the limits of one caller with their defaults filled in, or an error with
// every problem that NewLimiter would report. It is for implementations of LimitStore.
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

// maxInteger is the largest Integer of RFC 9651 §3.3.1. Larger numbers, which only a LimitStore
// of a user returns, are cut to it in headers.
const maxInteger = 999_999_999_999_999

// rule is a Limit made ready for decisions.
type rule struct {
	Limit                      // with its defaults filled in
	id    unique.Handle[Limit] // of its buckets, different for each Limit
	rate  rate.Limit
}

// Bounds of a Limit. Within them, the rounding error of a bucket's tokens stays far below one
// request, and its times fit into a time.Duration.
const (
	maxRequests = 1_000_000_000
	maxFill     = 100 * 365 * 24 * time.Hour
	maxLimits   = 16 // of one caller
)

// newRules checks the limits of one caller. The paths of the errors begin with Limits.
func newRules(limits []Limit) ([]rule, error) {
	if len(limits) == 0 {
		return nil, configFault("Limits", "is empty; name at least one limit, such as PerMinute(100)")
	}
	if len(limits) > maxLimits {
		return nil, configFault("Limits", "has %d limits; each request checks all of them, and at most %d are permitted", len(limits), maxLimits)
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

// checkLimits checks limits that may be empty.
func checkLimits(limits []Limit) error {
	if len(limits) == 0 {
		return nil
	}
	_, err := newRules(limits)
	return err
}

// newRule checks one limit. The path of the error begins with Limit.
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
		return fault("Per", "is %v; a number alone is nanoseconds: give it a unit, such as 10*time.Second (at least %v)", l.Per, shortest)
	case time.Duration(l.Requests) > l.Per:
		return fault("Per", "is %v, and %d requests in it are more than one in a nanosecond", l.Per, l.Requests)
	case l.Burst < 0 || l.Burst > maxRequests:
		return fault("Burst", "is %d; it needs 0, for as many as Requests, to %d", l.Burst, maxRequests)
	}
	if l.Burst == 0 {
		l.Burst = l.Requests
	}
	if float64(l.Burst)/float64(l.Requests)*float64(l.Per) > float64(maxFill) {
		return fault("Burst", "is %d, which takes more than a hundred years to refill; lower it, or Per", l.Burst)
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
