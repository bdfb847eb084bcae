package admit

import (
	"math"
	"math/bits"
	"net/http"
	"slices"
	"strconv"
	"time"

	"github.com/admit-go/admit/internal/lease"
)

// limitSet is the limits of one caller, with what their headers need. Only this type knows the
// format of the headers.
type limitSet struct {
	limits []Limit // complete
	rules  []rule
	shares []rule // the part of this process, while the store is down
	lease  *lease.Terms

	policy string   // RateLimit-Policy
	items  []string // of RateLimit, up to the part that depends on the response
	quotas []string // X-RateLimit-Limit
}

// The names are in the canonical form of http.Header, and values are assigned directly, since Set
// would canonicalize the name each time. Field names are case-insensitive (RFC 9110 §5.1).
const (
	headerPolicy          = "Ratelimit-Policy"
	headerLimit           = "Ratelimit"
	headerLegacyLimit     = "X-Ratelimit-Limit"
	headerLegacyRemaining = "X-Ratelimit-Remaining"
	headerLegacyReset     = "X-Ratelimit-Reset"
)

func newLimitSet(limits []Limit) (*limitSet, error) {
	rules, err := newRules(limits)
	if err != nil {
		return nil, err
	}
	set := &limitSet{rules: rules}
	var policy []byte
	for i, ru := range rules {
		set.limits = append(set.limits, ru.Limit)
		set.quotas = append(set.quotas, strconv.Itoa(ru.Requests))

		name := appendFieldString(nil, ru.Name)
		set.items = append(set.items, string(name)+";r=")
		if i > 0 {
			policy = append(policy, ", "...)
		}
		policy = append(append(policy, name...), ";q="...)
		policy = strconv.AppendInt(policy, int64(ru.Requests), 10)
		policy = append(policy, ";w="...)
		policy = strconv.AppendInt(policy, ceilSeconds(ru.Per), 10)
	}
	set.policy = string(policy)
	return set, nil
}

// divide computes the share of each of so many processes. The rate of a share is exact, since its
// period is longer. Only a Burst that is less than the number of processes is rounded up.
func (set *limitSet) divide(replicas int) error {
	if replicas <= 1 {
		set.shares = set.rules
		return nil
	}
	for _, l := range set.limits {
		fits := l.Per <= math.MaxInt64/time.Duration(replicas)
		l.Per *= time.Duration(replicas)
		l.Burst = max(l.Burst/replicas, 1)
		share, err := newRule(l)
		if !fits || err != nil {
			return configFault("Replicas", "is %d, by which the limit %q cannot be divided, since its period is too long", replicas, l.Name)
		}
		set.shares = append(set.shares, share)
	}
	return nil
}

// reached returns the names of the limits that are exceeded.
func (set *limitSet) reached(states []LimitState) (names []string) {
	for i, st := range states[:min(len(states), len(set.limits))] {
		if st.Exceeded {
			names = append(names, set.limits[i].Name)
		}
	}
	return names
}

// areReached reports whether names are the names of the limits that are exceeded.
func (set *limitSet) areReached(states []LimitState, names []string) bool {
	for i, st := range states[:min(len(states), len(set.limits))] {
		if !st.Exceeded {
			continue
		}
		if len(names) == 0 || names[0] != set.limits[i].Name {
			return false
		}
		names = names[1:]
	}
	return len(names) == 0
}

// holds reports whether full buckets hold cost.
func (set *limitSet) holds(cost int) bool {
	return !slices.ContainsFunc(set.limits, func(l Limit) bool { return cost > l.Burst })
}

// appendFieldString appends a String of RFC 9651 §3.3.3; s is printable ASCII.
func appendFieldString(b []byte, s string) []byte {
	b = append(b, '"')
	for i := range len(s) {
		if s[i] == '"' || s[i] == '\\' {
			b = append(b, '\\')
		}
		b = append(b, s[i])
	}
	return append(b, '"')
}

// writeHeaders writes RateLimit-Policy and RateLimit for d, which was decided by rules for cost.
// Both are Lists of Strings with parameters (draft-ietf-httpapi-ratelimit-headers-11). If a
// Limiter outside has set them, members are added. Without states it writes nothing.
func (set *limitSet) writeHeaders(in inside, h http.Header, d Decision, rules []rule, cost int, legacy bool) {
	if len(d.States) == 0 {
		return
	}
	var buf [160]byte
	b := buf[:0]
	for i := range min(len(d.States), len(set.items)) {
		if i > 0 {
			b = append(b, ", "...)
		}
		r := min(max(int64(d.States[i].Remaining), 0), maxInteger)
		b = append(b, set.items[i]...)
		b = strconv.AppendInt(b, r, 10)
		b = append(b, ";t="...)
		b = strconv.AppendInt(b, rules[i].window(d.States[i], r, cost), 10)
	}
	switch outer := h[headerPolicy]; {
	case outer != nil:
		h[headerPolicy] = append(outer, set.policy)
		h[headerLimit] = append(h[headerLimit], string(b))
	case in.open != nil:
		h[headerPolicy] = in.one(set.policy)
		h[headerLimit] = in.one(string(b))
	default:
		values := [2]string{set.policy, string(b)} // one allocation for both
		h[headerPolicy] = values[0:1:1]
		h[headerLimit] = values[1:2:2]
	}
	if legacy {
		set.writeLegacy(h, d.States)
	}
}

// window is the t of RateLimit, in seconds: the time over which the r remaining requests may be
// spread, so that r/t is never more than q/w. If none remains, it is the time until the next one
// is admitted, so that the last admitted response says the same as the refusal that follows.
func (ru *rule) window(st LimitState, r int64, cost int) int64 {
	if r == 0 {
		next := st.Next
		if next <= 0 {
			next = ru.next(st, cost)
		}
		return max(ceilSeconds(next), 1)
	}
	q := uint64(ru.Requests)
	hi, lo := bits.Mul64(uint64(r), uint64(ceilSeconds(ru.Per)))
	lo, carry := bits.Add64(lo, q-1, 0)
	if hi += carry; hi >= q {
		return maxInteger
	}
	t, _ := bits.Div64(hi, lo, q)
	return int64(min(t, maxInteger))
}

// next is the time until a bucket holds one request, computed from the time until it is full or
// holds cost.
func (ru *rule) next(st LimitState, cost int) time.Duration {
	n := ru.Burst
	if st.Exceeded && cost <= ru.Burst {
		n = max(cost, 1)
	}
	hi, lo := bits.Mul64(uint64(n-1), uint64(ru.Per))
	others, _ := bits.Div64(hi, lo, uint64(ru.Requests)) // at most maxFill
	return st.Reset - time.Duration(others)
}

// writeLegacy writes the headers of one limit: of the exceeded limits the one with the longest
// wait, or else the one with the fewest remaining requests.
func (set *limitSet) writeLegacy(h http.Header, states []LimitState) {
	at := 0
	for i, st := range states[:min(len(states), len(set.quotas))] {
		closest := states[at]
		switch {
		case st.Exceeded && (!closest.Exceeded || st.Reset > closest.Reset),
			!closest.Exceeded && st.Remaining < closest.Remaining:
			at = i
		}
	}
	values := [3]string{
		set.quotas[at],
		strconv.Itoa(states[at].Remaining),
		strconv.FormatInt(ceilSeconds(states[at].Reset), 10),
	}
	h[headerLegacyLimit] = values[0:1:1]
	h[headerLegacyRemaining] = values[1:2:2]
	h[headerLegacyReset] = values[2:3:3]
}
