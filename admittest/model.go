package admittest

import (
	"fmt"
	"time"

	"github.com/admit-go/admit"
)

// model is what a LimitStore should do, in whole numbers. For each caller and limit it keeps
// what the bucket lacks: n requests cost n/Requests of Per, which time gives back. They are
// admitted unless the bucket would then lack more than Burst/Requests of Per.
//
// The test does not know exactly when the store decides, so what a bucket lacks is an interval.
// Where both decisions are right, the model follows the store, and the interval shrinks.
type model struct {
	precision time.Duration
	buckets   map[bucketKey]*bucket
}

type bucketKey struct {
	key   string
	limit admit.Limit
}

// bucket counts in nanoseconds times Requests, so that all amounts are whole numbers.
type bucket struct {
	rate, per, burst int64
	at               time.Time // the earliest time of the current decision
	span             int64     // from at to the latest time of that
	least, most      int64     // bounds of what it lacks at that time
}

// check applies an operation to the model, and returns what is wrong with its outcome.
func (m *model) check(key string, cost int, limits []admit.Limit, before, after time.Time, d admit.Decision) error {
	can, must := true, true // be admitted
	never := false
	var least, most time.Duration // of RetryAfter
	buckets := make([]*bucket, len(limits))
	for i, l := range limits {
		b := m.bucket(key, l, before.Add(-m.precision), after.Add(m.precision))
		buckets[i] = b
		low, high := b.free()
		n := int64(cost) * b.per
		exceeded := d.States[i].Exceeded
		if cost > 0 {
			can, must = can && high >= n, must && low >= n
			never = never || n > b.burst
			if exceeded && low >= n || !exceeded && !d.Allowed && high < n {
				return fmt.Errorf("%q: Exceeded is %v with %d to %d requests left", l.Name, exceeded, low/b.per, high/b.per)
			}
		} else if exceeded {
			return fmt.Errorf("%q: Exceeded is true with a cost that is not positive", l.Name)
		}
		if exceeded && n <= b.burst {
			least, most = max(least, b.duration(n-high)-m.precision), max(most, b.duration(n-low)+m.precision)
		}
	}
	switch {
	case d.Allowed && !can:
		return fmt.Errorf("it is allowed, but too few requests are left")
	case !d.Allowed && must:
		return fmt.Errorf("it is not allowed, but enough requests are left")
	case d.Allowed && d.RetryAfter != 0:
		return fmt.Errorf("it is allowed, but RetryAfter is not 0")
	case !d.Allowed && never != (d.RetryAfter < 0):
		return fmt.Errorf("RetryAfter must be negative if the cost can never be allowed, and only then")
	case !d.Allowed && !never && (d.RetryAfter < least || d.RetryAfter > most):
		return fmt.Errorf("RetryAfter is not between %v and %v", least, most)
	}
	for i, l := range limits {
		if err := buckets[i].settle(cost, d.Allowed, d.States[i], m.precision); err != nil {
			return fmt.Errorf("%q: %w", l.Name, err)
		}
	}
	return nil
}

// bucket returns the bucket as it is when the store decides.
func (m *model) bucket(key string, l admit.Limit, from, to time.Time) *bucket {
	if l.Burst == 0 {
		l.Burst = l.Requests
	}
	id := bucketKey{key, l}
	b := m.buckets[id]
	if b == nil {
		b = &bucket{rate: int64(l.Requests), per: int64(l.Per), burst: int64(l.Burst) * int64(l.Per), at: from}
		m.buckets[id] = b
	}
	b.least, b.most = b.after(from.Sub(b.at), b.least), b.after(from.Sub(b.at), b.most)
	b.at, b.span = from, int64(to.Sub(from))*b.rate
	return b
}

// after returns what a bucket lacks some time later.
func (b *bucket) after(d time.Duration, lacks int64) int64 {
	if lacks/b.rate < int64(d) { // the product might be too large
		return 0
	}
	return lacks - int64(d)*b.rate
}

// free returns bounds of what may be spent.
func (b *bucket) free() (low, high int64) {
	return b.burst - b.most, b.burst - max(b.least-b.span, 0)
}

// duration returns the time that gives back that much.
func (b *bucket) duration(units int64) time.Duration { return time.Duration(max(units, 0) / b.rate) }

// settle applies a decision, and compares what is left.
func (b *bucket) settle(cost int, allowed bool, st admit.LimitState, precision time.Duration) error {
	n := int64(cost) * b.per
	switch {
	case allowed && cost > 0: // the bucket may have been full at the time of the decision
		b.least, b.most = b.least+n, min(max(b.most, b.span)+n, b.span+b.burst)
	case allowed:
		b.least, b.most = max(b.least+n, 0), max(b.most+n, 0)
	case st.Exceeded && n <= b.burst:
		b.least = min(max(b.least, b.burst-n), b.most)
	}
	low, high := b.free()
	if r := int64(st.Remaining); r < max(low, 0)/b.per || r > max(high, 0)/b.per {
		return fmt.Errorf("its Remaining is not between %d and %d", max(low, 0)/b.per, max(high, 0)/b.per)
	}
	least, most := b.burst-high, b.burst-low
	if st.Exceeded && n <= b.burst {
		least, most = n-high, n-low
	}
	if st.Reset < b.duration(least)-precision || st.Reset > b.duration(most)+precision {
		return fmt.Errorf("its Reset is not between %v and %v", b.duration(least), b.duration(most))
	}
	if st.Remaining > 0 {
		return nil
	}
	next := nextOf(st, cost, b)
	if next < b.duration(b.per-high)-precision || next > b.duration(b.per-low)+precision {
		return fmt.Errorf("the next request is admitted after %v, which is not between %v and %v; a store without token buckets must set Next", next, b.duration(b.per-high), b.duration(b.per-low))
	}
	return nil
}

// nextOf returns when the next request is admitted, as the response says it.
func nextOf(st admit.LimitState, cost int, b *bucket) time.Duration {
	others := b.burst - b.per
	switch n := int64(cost) * b.per; {
	case st.Next > 0:
		return st.Next
	case st.Exceeded && n <= b.burst:
		others = n - b.per
	}
	return st.Reset - b.duration(others)
}
