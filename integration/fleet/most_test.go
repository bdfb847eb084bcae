package main

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
)

// What an exact bucket lets in is never more than it may, however late the end of a decision
// is noted, and two buckets are found out.
func TestMostInKnowsABucketFromTwo(t *testing.T) {
	t.Parallel()
	for buckets := 1; buckets <= 2; buckets++ {
		random := rand.New(rand.NewPCG(1, uint64(buckets)))
		full := make([]time.Duration, buckets) // when each is full again
		cost := limit.Per / time.Duration(limit.Requests)
		var all []decision
		for at := time.Duration(0); at < 4*time.Second; at += 200 * time.Microsecond {
			b := &full[random.IntN(buckets)]
			admitted := max(*b, at)+cost <= at+limit.Per
			if admitted {
				*b = max(*b, at) + cost
			}
			all = append(all, decision{from: at - rand.N(time.Millisecond), to: at + rand.N(20*time.Millisecond), admitted: admitted})
		}
		random.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
		m := mostIn(all)
		// Buckets are full once, and 5,000 a second come, for 4 s.
		per, ahead := buckets*2*limit.Requests, buckets*limit.Requests+(buckets-1)*4*limit.Requests
		assert.LessOrEqual(t, m.per, per)
		assert.LessOrEqual(t, m.ahead, ahead)
		assert.Greater(t, m.per, per*9/10)
		assert.Greater(t, m.ahead, ahead*9/10)
	}
}

func TestMostInOfNothing(t *testing.T) {
	t.Parallel()
	assert.Equal(t, most{}, mostIn(nil))
	assert.Equal(t, most{}, mostIn([]decision{{from: 1, to: 2}}), "a refusal")
	assert.Equal(t, most{per: 1, ahead: 0}, mostIn([]decision{{from: 1, to: 2, admitted: true}}))
}
