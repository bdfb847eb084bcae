package admit

import (
	"math"
	"time"
	"unique"

	"golang.org/x/time/rate"
)

// bucket is what one caller has left of one Limit.
type bucket struct {
	id     fingerprint
	limit  unique.Handle[Limit]
	next   *bucket // in the same slot
	tokens rate.Limiter
}

// newBucket returns a bucket that holds so many tokens at t. The zero Limiter holds
// none, and taking less than nothing fills it.
func newBucket(ru *rule, id fingerprint, tokens int, t time.Time) *bucket {
	b := &bucket{id: id, limit: ru.id}
	b.tokens.SetLimitAt(t, ru.rate)
	b.tokens.SetBurstAt(t, ru.Burst)
	b.tokens.AllowN(t, -tokens)
	return b
}

// fullIn is how long after t it takes until b is as good as a new bucket, 0 if it is.
func (b *bucket) fullIn(t time.Time) time.Duration {
	l := b.limit.Value()
	missing := float64(l.Burst) - b.tokens.TokensAt(t)
	if missing <= 0 {
		return 0
	}
	return max(time.Duration(missing*float64(l.Per)/float64(l.Requests)), 1)
}

// enough reports whether AllowN lets n requests through a bucket with so many tokens:
// it does not mind what comes back within a nanosecond, where rounding hides. What takes
// longer than a Duration holds stays a float64, or it would be less than nothing.
func (ru *rule) enough(tokens float64, n int) bool {
	short := float64(n) - tokens
	return short <= 0 || short/float64(ru.rate)*float64(time.Second) < 1
}

// remaining is the highest cost that tokens are enough for.
func (ru *rule) remaining(tokens float64) int {
	n := max(int(tokens), 0)
	// The first condition spares most calls the division of the second.
	if (float64(n+1)-tokens)*float64(time.Second) < 2*float64(ru.rate) && ru.enough(tokens, n+1) {
		n++
	}
	return n
}

// refill is the time in which so many tokens come back.
func (ru *rule) refill(tokens float64) time.Duration {
	if tokens <= 0 {
		return 0
	}
	return time.Duration(math.Ceil(tokens / float64(ru.rate) * float64(time.Second)))
}

// wait is the time after which b, which has too few tokens at t, lets n requests
// through. The bucket itself is asked, so that rounding makes no promise that it does
// not keep.
func (ru *rule) wait(b *bucket, tokens float64, n int, t time.Time) time.Duration {
	wait := max(ru.refill(float64(n)-tokens), 1)
	for step := time.Duration(1); !ru.enough(b.tokens.TokensAt(t.Add(wait)), n); step *= 2 {
		wait += step
	}
	return wait
}
