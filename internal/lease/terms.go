// Package lease is how a process takes ahead from a limit that it shares with others, so that it
// need not ask the store about each request: what one caller will need soon, a little of the
// bucket at most, for a short time. Nothing is safe for concurrent use, times are since any one
// moment, and what asks the store is the caller's.
package lease

import (
	"math"
	"math/bits"
	"time"
)

// Limit is a bucket in the store: see admit.Limit.
type Limit struct {
	Burst, Requests int64
	Per             time.Duration
}

// fill is the time in which so many requests come back, rounded down.
func (l Limit) fill(n int64) time.Duration {
	if n <= 0 {
		return 0
	}
	hi, lo := bits.Mul64(uint64(n), uint64(l.Per))
	if hi >= uint64(l.Requests) {
		return math.MaxInt64
	}
	d, _ := bits.Div64(hi, lo, uint64(l.Requests))
	return time.Duration(min(d, math.MaxInt64))
}

// holds returns how many requests are in a bucket that will be full after a time.
func (l Limit) holds(full time.Duration) int64 {
	if full <= 0 {
		return l.Burst
	}
	hi, lo := bits.Mul64(uint64(full), uint64(l.Requests))
	if hi >= uint64(l.Per) {
		return 0
	}
	lacks, rest := bits.Div64(hi, lo, uint64(l.Per))
	if rest > 0 {
		lacks++
	}
	return l.Burst - int64(min(lacks, uint64(l.Burst)))
}

// rounding is by how much that time may be too long: stores round it up, to a microsecond at most.
func (l Limit) rounding() time.Duration { return min(time.Microsecond, l.fill(1)) }

// slack is by how much what is known of a bucket may be off through rounding, here and there.
func (l Limit) slack() time.Duration { return max(l.rounding(), 1) }

// Terms are what may be taken ahead of a list of limits.
type Terms struct {
	limits []Limit
	most   int64         // for one caller, in one process
	burst  int64         // the smallest
	last   time.Duration // how long
	hold   time.Duration // how long who comes often is refused, at least
}

// NewTerms returns the terms for so many processes that may hold a share of each bucket
// together, each for as long as it lasts. Nil: a process may hold nothing.
func NewTerms(limits []Limit, share float64, processes int, last time.Duration) *Terms {
	t := &Terms{limits: limits, most: math.MaxInt64, burst: math.MaxInt64, last: last, hold: last}
	for _, l := range limits {
		t.most = min(t.most, int64(share*float64(l.Burst)/float64(processes)))
		t.burst = min(t.burst, l.Burst)
		t.hold = min(t.hold, l.fill(int64(share*float64(l.Burst))))
	}
	if t.most < 1 {
		return nil
	}
	return t
}

// Holds reports whether full buckets hold a cost.
func (t *Terms) Holds(cost int64) bool { return cost <= t.burst }

// Last returns how long a lease lasts.
func (t *Terms) Last() time.Duration { return t.last }

func plus(a, b int64) int64 {
	if b > math.MaxInt64-a {
		return math.MaxInt64
	}
	return a + b
}
