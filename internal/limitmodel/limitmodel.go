// Package limitmodel is a model of what a LimitStore should decide, slow and with exact numbers of
// any size. It also generates operations with extreme numbers, to compare a store with the model.
package limitmodel

import (
	"fmt"
	"math/big"
	"time"

	"github.com/admit-go/admit"
)

// Model knows the buckets of a store whose clock the test moves.
type Model struct {
	// Rounding returns how wrong a decision of the store may be, for a limit whose bucket fills up
	// in the given time. Nil means exact.
	Rounding func(fill time.Duration) time.Duration

	buckets map[id]*bucket
}

type id struct {
	key   string
	limit admit.Limit
}

// bucket is what a bucket lacks, as a time that passes: one request costs unit, a full bucket size.
type bucket struct {
	unit, size, lacks *big.Rat
	at                time.Duration
	burst             int
	slack             *big.Rat // how wrong the store may be by now
	rounding          *big.Rat
}

func rat(n int64) *big.Rat { return new(big.Rat).SetInt64(n) }

func add(a, b *big.Rat) *big.Rat { return new(big.Rat).Add(a, b) }

func sub(a, b *big.Rat) *big.Rat { return new(big.Rat).Sub(a, b) }

func atLeastZero(a *big.Rat) *big.Rat {
	if a.Sign() < 0 {
		return new(big.Rat)
	}
	return a
}

func (m *Model) bucket(key string, l admit.Limit, now time.Duration) *bucket {
	b := m.buckets[id{key, l}]
	if b == nil {
		b = &bucket{unit: big.NewRat(int64(l.Per), int64(l.Requests)), lacks: new(big.Rat), at: now, burst: l.Burst, slack: new(big.Rat), rounding: new(big.Rat)}
		b.size = new(big.Rat).Mul(b.unit, rat(int64(l.Burst)))
		if m.Rounding != nil {
			fill, _ := b.size.Float64()
			b.rounding = rat(int64(m.Rounding(time.Duration(fill))))
		}
		if m.buckets == nil {
			m.buckets = make(map[id]*bucket)
		}
		m.buckets[id{key, l}] = b
	}
	b.lacks, b.at = atLeastZero(sub(b.lacks, rat(int64(now-b.at)))), now
	b.slack = add(b.slack, b.rounding)
	return b
}

// Check applies a Take with complete limits to the model, and returns what is wrong with its
// outcome. Where rounding allows both decisions, the model follows the store.
func (m *Model) Check(now time.Duration, key string, cost int, limits []admit.Limit, d admit.Decision) error {
	if len(d.States) != len(limits) {
		return fmt.Errorf("%d States for %d limits", len(d.States), len(limits))
	}
	never, may, must := false, true, true
	buckets := make([]*bucket, len(limits))
	for i, l := range limits {
		b := m.bucket(key, l, now)
		buckets[i] = b
		if cost <= 0 {
			if d.States[i].Exceeded {
				return fmt.Errorf("%s: Exceeded is true with a cost that is not positive", l.Name)
			}
			continue
		}
		short := b.short(cost)
		never = never || cost > l.Burst
		may = may && cost <= l.Burst && short.Cmp(b.slack) <= 0
		must = must && cost <= l.Burst && add(short, b.slack).Sign() <= 0
		if e := d.States[i].Exceeded; e != (cost > l.Burst) && (e && add(short, b.slack).Sign() <= 0 || !e && short.Cmp(b.slack) > 0) {
			return fmt.Errorf("%s: Exceeded is %v, but %s ns are missing", l.Name, e, short.FloatString(3))
		}
	}
	switch {
	case d.Allowed && !may:
		return fmt.Errorf("it is allowed, but too little is left")
	case !d.Allowed && must:
		return fmt.Errorf("it is not allowed, but enough is left")
	case d.Allowed && d.RetryAfter != 0 || never != (d.RetryAfter < 0):
		return fmt.Errorf("its RetryAfter is %v", d.RetryAfter)
	}
	var wait time.Duration
	for i, l := range limits {
		st, b := d.States[i], buckets[i]
		if d.Allowed {
			b.lacks = atLeastZero(add(b.lacks, new(big.Rat).Mul(b.unit, rat(int64(cost)))))
		}
		if err := b.state(st, cost); err != nil {
			return fmt.Errorf("%s: %w", l.Name, err)
		}
		if st.Exceeded {
			wait = max(wait, st.Reset)
		}
	}
	if !d.Allowed && !never && d.RetryAfter != wait {
		return fmt.Errorf("its RetryAfter is %v, but the longest Reset of a limit is %v", d.RetryAfter, wait)
	}
	return nil
}

// short returns the time until a bucket holds a cost.
func (b *bucket) short(cost int) *big.Rat {
	return sub(add(b.lacks, new(big.Rat).Mul(b.unit, rat(int64(cost)))), b.size)
}

func (b *bucket) state(st admit.LimitState, cost int) error {
	free := sub(b.size, b.lacks)
	floor := func(r *big.Rat) *big.Int {
		q := new(big.Rat).Quo(atLeastZero(r), b.unit)
		return new(big.Int).Quo(q.Num(), q.Denom())
	}
	r, low, high := big.NewInt(int64(st.Remaining)), floor(sub(free, b.slack)), floor(add(free, b.slack))
	if r.Cmp(low) < 0 || r.Cmp(high) > 0 {
		return fmt.Errorf("its Remaining is %d, not between %v and %v", st.Remaining, low, high)
	}
	reset := b.lacks
	if st.Exceeded && cost <= b.burst {
		reset = b.short(cost)
	}
	if !b.near(st.Reset, reset) {
		return fmt.Errorf("its Reset is %v, and not %s ns", st.Reset, reset.FloatString(3))
	}
	if next := b.short(1); st.Remaining == 0 && !b.near(st.Next, next) {
		return fmt.Errorf("its Next is %v, and not %s ns", st.Next, next.FloatString(3))
	}
	return nil
}

// near reports whether d is the exact time, rounded up by at most a microsecond.
func (b *bucket) near(d time.Duration, exact *big.Rat) bool {
	off := sub(rat(int64(d)), atLeastZero(exact))
	return add(off, b.slack).Sign() >= 0 && off.Cmp(add(b.slack, rat(1000))) <= 0
}
