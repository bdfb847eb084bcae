package admit

import (
	"math"
	"time"
	"unique"

	"golang.org/x/time/rate"
)

// bucket holds what one caller has left of one Limit.
type bucket struct {
	id     fingerprint
	limit  unique.Handle[Limit]
	next   *bucket // in the same slot
	tokens rate.Limiter
}

// newBucket returns a bucket that holds the given tokens at t. The zero rate.Limiter holds
// none, and taking a negative number fills it.
func newBucket(ru *rule, id fingerprint, tokens int, t time.Time) *bucket {
	b := &bucket{id: id, limit: ru.id}
	b.tokens.SetLimitAt(t, ru.rate)
	b.tokens.SetBurstAt(t, ru.Burst)
	b.tokens.AllowN(t, -tokens)
	return b
}

// fullIn returns the time after t at which b is as good as a new bucket; 0 if it is already.
func (b *bucket) fullIn(t time.Time) time.Duration {
	l := b.limit.Value()
	missing := float64(l.Burst) - b.tokens.TokensAt(t)
	if missing <= 0 {
		return 0
	}
	return max(time.Duration(missing*float64(l.Per)/float64(l.Requests)), 1)
}

// enough reports whether AllowN lets n requests through a bucket with the given tokens. AllowN
// tolerates what comes back within a nanosecond, which rounding hides. A time that is longer
// than a Duration holds stays a float64, or it would become negative.
func (ru *rule) enough(tokens float64, n int) bool {
	short := float64(n) - tokens
	return short <= 0 || short/float64(ru.rate)*float64(time.Second) < 1
}

// remaining returns the highest cost for which the tokens are enough.
func (ru *rule) remaining(tokens float64) int {
	n := max(int(tokens), 0)
	// The first condition spares most calls the division of the second.
	if (float64(n+1)-tokens)*float64(time.Second) < 2*float64(ru.rate) && ru.enough(tokens, n+1) {
		n++
	}
	return n
}

// refill returns the time in which the given number of tokens comes back.
func (ru *rule) refill(tokens float64) time.Duration {
	if tokens <= 0 {
		return 0
	}
	return time.Duration(math.Ceil(tokens / float64(ru.rate) * float64(time.Second)))
}

// wait returns the time after which b, which has too few tokens at t, lets n requests through.
// It asks the bucket itself, so that rounding cannot make the promise false.
func (ru *rule) wait(b *bucket, tokens float64, n int, t time.Time) time.Duration {
	wait := max(ru.refill(float64(n)-tokens), 1)
	for step := time.Duration(1); !ru.enough(b.tokens.TokensAt(t.Add(wait)), n); step *= 2 {
		wait += step
	}
	return wait
}
