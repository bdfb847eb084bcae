package shares_test

import (
	"testing"

	"github.com/stretchr/testify/assert"

	"github.com/admit-go/admit/internal/shares"
)

// holding is a counter that holds so much, while others have used 50.
func holding(held int64) *shares.Counter {
	var c shares.Counter
	c.Answered(shares.Claim{Fresh: true}, shares.Balance{Used: 50, Held: held, MyHeld: held})
	return &c
}

func TestTakeWithoutStaysWithinALimitThatBecameSmaller(t *testing.T) {
	c := holding(10)
	assert.False(t, c.TakeWithout(6, 55, 1))
	assert.True(t, c.TakeWithout(5, 55, 1))
	assert.False(t, c.TakeWithout(1, 55, 1))
	assert.True(t, c.TakeWithout(5+4, 100, 10), "what it holds, and a tenth of the 40 that were left")
	assert.False(t, c.TakeWithout(1, 100, 10))
}

func TestLowIsForSharesThatAreWorthIt(t *testing.T) {
	c := holding(0)
	claim := c.Ask(1, 100_000)
	assert.Equal(t, shares.Claim{Want: 2}, claim)
	c.Answered(claim, shares.Balance{Used: 50, Held: 2, MyHeld: 2})
	assert.False(t, c.Low(0), "small shares are spent exactly")
	claim = c.Ask(20, 100_000)
	assert.Equal(t, shares.Claim{Want: 40}, claim)
	c.Answered(claim, shares.Balance{Used: 50, Held: 40, MyHeld: 40})
	assert.False(t, c.Low(0))
	assert.True(t, c.Take(35, 100_000, 0))
	assert.False(t, c.Low(0))
	assert.True(t, c.Low(1), "what is owed is as good as spent")
	assert.True(t, c.Take(1, 100_000, 0))
	assert.True(t, c.Low(0))
	assert.False(t, c.Take(2, 100_000, 3))
	assert.True(t, c.Take(1, 100_000, 3))
}
