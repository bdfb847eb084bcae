// Package lease is the arithmetic of a process that takes requests in advance from a rate limit
// that it shares with others, so that it need not ask the store about each request. It takes what
// one caller will need soon, at most a small part of the bucket, for a short time. It is not safe
// for concurrent use, and does not call the store. Times are durations since any fixed moment.
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

// fill returns the time in which n requests refill, rounded down.
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

// holds returns how many requests a bucket has that will be full after a time.
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

// rounding returns how much too long that time may be: stores round it up, to at most a
// microsecond.
func (l Limit) rounding() time.Duration { return min(time.Microsecond, l.fill(1)) }

// slack returns how wrong the knowledge about a bucket may be because of rounding in the store
// and here.
func (l Limit) slack() time.Duration { return max(l.rounding(), 1) }

// Terms say how much may be taken in advance from a list of limits.
type Terms struct {
	limits []Limit
	most   int64         // that a process may hold for one caller
	burst  int64         // the smallest Burst
	last   time.Duration // how long a lease lasts
	hold   time.Duration // how long at least a busy caller is rejected
}

// NewTerms returns the terms for a number of processes, which together may hold a share of each
// bucket, each for the time last. Nil means that a process may hold nothing.
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
