package lease_test

import (
	"math"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/admit-go/admit/internal/lease"
)

const ms = time.Millisecond

// one is a store and one process that asks it, without a delay.
type one struct {
	*world
	*process
	calls []int64
}

func newOne(t *testing.T, share float64, processes int, last time.Duration, limits ...lease.Limit) *one {
	w := &world{t: t, terms: lease.NewTerms(limits, share, processes, last)}
	require.NotNil(t, w.terms)
	for _, l := range limits {
		w.buckets = append(w.buckets, &bucket{Limit: l})
	}
	return &one{world: w, process: &process{Account: lease.New(w.terms, 0), live: true}}
}

// request sends a request after a time, and returns whether it is let in, and its views.
func (o *one) request(after time.Duration, cost int64) (allowed bool, views []lease.View) {
	o.now += after
	v := o.Take(o.now, cost)
	n := int64(0)
	for turn := 1; v == lease.Ask; turn++ {
		switch turn {
		case 1:
			n = o.Ask(o.now, cost, 0)
		case 2:
			n = o.Again(o.now, cost, 0)
		case 3:
			n = o.Only(o.now, cost)
		default:
			o.t.Fatalf("%d is not refused, and not let in, by %+v", cost, o.View(o.now, 0, cost, true))
		}
		o.calls = append(o.calls, n)
		ok, states := o.world.take(n)
		if ok {
			o.Granted(o.now, states)
		} else if o.Refused(o.now, cost, states) && turn < 3 {
			continue
		}
		v = o.Decide(o.now, cost)
	}
	for i := range o.Known() {
		views = append(views, o.View(o.now, i, cost, v == lease.Refused))
	}
	return v == lease.Spent, views
}

func TestTerms(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		burst     int64
		share     float64
		processes int
		none      bool
	}{
		{100, 0.25, 8, false}, {8, 1, 8, false}, {7, 1, 8, true}, {100, 0.07, 8, true}, {1, 1, 1, false}, {1, 0.99, 1, true}, {1_000_000_000, 1, 1, false},
	} {
		terms := lease.NewTerms([]lease.Limit{{Burst: 2_000_000_000, Requests: 1, Per: time.Second}, {Burst: c.burst, Requests: 1, Per: time.Second}}, c.share, c.processes, time.Second)
		assert.Equal(t, c.none, terms == nil, "%+v", c)
		if terms != nil {
			assert.True(t, terms.Holds(c.burst))
			assert.False(t, terms.Holds(c.burst+1), "the smallest burst counts")
		}
	}
}

// Who comes rarely is asked about each time, and who comes often less and less.
func TestALeaseGrowsWithTheRate(t *testing.T) {
	t.Parallel()
	limit := lease.Limit{Burst: 1000, Requests: 1000, Per: time.Second}
	for name, c := range map[string]struct {
		gap   time.Duration
		share float64
		want  []int64
	}{
		"rare":         {1001 * ms, 1, []int64{1, 1, 1, 1, 1, 1}},
		"twice in For": {500 * ms, 1, []int64{1, 2, 2, 2}},
		"often":        {10 * ms, 1, []int64{1, 2, 4, 8, 16, 32, 64, 100, 100}},
		"bounded":      {10 * ms, 0.02, []int64{1, 2, 4, 8, 16, 21, 21}}, // what it costs itself, and 20
	} {
		o := newOne(t, c.share, 1, time.Second, limit)
		for len(o.calls) < len(c.want) {
			allowed, _ := o.request(c.gap, 1)
			require.True(t, allowed, name)
		}
		assert.Equal(t, c.want, o.calls, name)
	}
	o := newOne(t, 1, 1, time.Second, limit)
	o.request(0, 5)
	o.request(10*ms, 5)
	assert.Equal(t, []int64{5, 10}, o.calls)
	o.request(time.Hour, 5)
	assert.Equal(t, []int64{5, 10, 0}, o.calls, "a lease that has ended, and is renewed with what was left")
}

func TestALeaseEnds(t *testing.T) {
	t.Parallel()
	o := newOne(t, 1, 1, time.Second, lease.Limit{Burst: 1000, Requests: 1, Per: time.Hour})
	for len(o.calls) < 5 {
		o.request(10*ms, 1)
	}
	taken := o.now
	require.EqualValues(t, 15, o.Held())
	rest, idle := o.Ended(taken + time.Second - 1)
	assert.Zero(t, rest)
	assert.False(t, idle)
	assert.Equal(t, lease.Spent, o.Decide(taken+time.Second-1, 1))
	assert.Equal(t, lease.Ask, o.Decide(taken+time.Second, 1))
	o.now = taken + time.Second
	assert.EqualValues(t, -13, o.Ask(o.now, 1, 0), "it is not used so much any more: the rest goes back, but for the request")
	rest, idle = o.Ended(taken + time.Hour)
	assert.Zero(t, rest, "the store is being asked")
	assert.False(t, idle)
	assert.Equal(t, lease.Wait, o.Decide(o.now, 1))
	o.Failed(o.now)
	assert.EqualValues(t, 1, o.Held(), "what may have gone back is held no more")
	o.Ask(o.now, 1, 0)
	o.Failed(o.now + 100*ms)
	rest, idle = o.Ended(o.now + time.Second)
	assert.Zero(t, rest, "while the store does not answer it may be spent on")
	assert.False(t, idle)
	rest, idle = o.Ended(o.now + 2*time.Second)
	assert.EqualValues(t, 1, rest)
	assert.True(t, idle)
	rest, _ = o.Ended(o.now + 2*time.Second)
	assert.Zero(t, rest, "once")
}

// Who was refused is refused until the store would let it in, and no longer.
func TestARefusalIsKnown(t *testing.T) {
	t.Parallel()
	o := newOne(t, 0.5, 1, 100*ms, lease.Limit{Burst: 5, Requests: 1, Per: time.Second}, lease.Limit{Burst: 50, Requests: 5, Per: time.Second})
	for range 5 {
		allowed, _ := o.request(200*ms, 1)
		require.True(t, allowed)
	}
	allowed, views := o.request(0, 5)
	require.False(t, allowed)
	calls := len(o.calls)
	assert.Equal(t, 4200*ms, views[0].Reset)
	assert.True(t, views[0].Exceeded)
	assert.False(t, views[1].Exceeded)
	allowed, views = o.request(time.Second, 5)
	require.False(t, allowed)
	assert.Equal(t, 3200*ms, views[0].Reset, "what is left of it")
	allowed, views = o.request(0, 4)
	require.False(t, allowed)
	assert.Equal(t, 2200*ms, views[0].Reset, "less is let in sooner")
	assert.Len(t, o.calls, calls, "without a call")
	allowed, views = o.request(0, 1)
	require.True(t, allowed, "and some of it at once")
	assert.EqualValues(t, 0, views[0].Remaining)
	assert.Equal(t, 200*ms, views[0].Next)
	allowed, _ = o.request(200*ms, 1)
	assert.True(t, allowed)
	o.Returns(3)
	assert.Equal(t, lease.Ask, o.Decide(o.now, 3), "what goes back counts at once")
}

// Who has used up a limit, and comes often, is refused until there is something to take for a
// while, and is told so.
func TestABusyCallerIsHeld(t *testing.T) {
	t.Parallel()
	o := newOne(t, 0.5, 1, time.Second, lease.Limit{Burst: 100, Requests: 100, Per: time.Second})
	refused := func() (views []lease.View) {
		for {
			allowed, views := o.request(ms, 1)
			if !allowed {
				return views
			}
		}
	}
	first := refused()
	assert.Equal(t, 500*ms, first[0].Reset, "the time in which Share*Burst come back")
	assert.Equal(t, 500*ms, first[0].Next)
	assert.EqualValues(t, 0, first[0].Remaining)
	calls := len(o.calls)
	for range 499 {
		allowed, views := o.request(ms, 1)
		require.False(t, allowed)
		require.True(t, views[0].Exceeded)
		require.EqualValues(t, 0, views[0].Remaining)
	}
	assert.Len(t, o.calls, calls)
	allowed, views := o.request(ms, 1)
	assert.True(t, allowed)
	assert.EqualValues(t, 49, views[0].Remaining, "nothing is lost by it")
	second := refused()
	assert.Equal(t, 500*ms, second[0].Reset)
	assert.Less(t, len(o.calls)-calls, 5)
	o.Returns(1)
	assert.NotEqual(t, lease.Refused, o.Decide(o.now, 1), "what goes back counts at once")
}

// Who comes rarely is refused as long as the store says, and no longer.
func TestARareCallerIsNotHeld(t *testing.T) {
	t.Parallel()
	o := newOne(t, 0.5, 1, time.Second, lease.Limit{Burst: 10, Requests: 1, Per: 2 * time.Second})
	for range 3 {
		allowed, _ := o.request(1500*ms, 3)
		require.True(t, allowed)
	}
	allowed, views := o.request(1500*ms, 4) // three are there, and a quarter
	require.False(t, allowed)
	assert.Equal(t, 1500*ms, views[0].Reset)
	assert.EqualValues(t, 3, views[0].Remaining)
	assert.Equal(t, []int64{3, 3, 3}, o.calls, "what is known is enough")
	ok, _ := o.world.take(2) // another process
	require.True(t, ok)
	allowed, views = o.request(0, 3)
	require.False(t, allowed)
	assert.Equal(t, []int64{3, 3, 3, 3}, o.calls)
	assert.Equal(t, 3500*ms, views[0].Reset)
	assert.EqualValues(t, 1, views[0].Remaining)
	allowed, views = o.request(0, 2)
	require.False(t, allowed)
	assert.Equal(t, 1500*ms, views[0].Reset)
	allowed, _ = o.request(1500*ms, 2)
	assert.True(t, allowed)
	assert.Equal(t, []int64{3, 3, 3, 3, 2}, o.calls)
}

// What is held and what the store still has are enough together.
func TestARequestIsPaidFromBoth(t *testing.T) {
	t.Parallel()
	o := newOne(t, 0.5, 1, time.Second, lease.Limit{Burst: 10, Requests: 1, Per: time.Hour})
	for _, cost := range []int64{1, 1, 1, 1} {
		o.request(ms, cost)
	}
	require.Equal(t, []int64{1, 2, 4}, o.calls)
	require.EqualValues(t, 3, o.Held(), "and three are in the store")
	allowed, views := o.request(ms, 6)
	assert.True(t, allowed)
	assert.EqualValues(t, 0, views[0].Remaining)
	assert.Equal(t, []int64{1, 2, 4, 3}, o.calls)
	allowed, _ = o.request(ms, 1)
	assert.False(t, allowed)
	assert.Len(t, o.calls, 4)
}

func TestGive(t *testing.T) {
	t.Parallel()
	o := newOne(t, 0.05, 1, time.Second, lease.Limit{Burst: 100, Requests: 100, Per: time.Second})
	assert.False(t, o.Give(0, 1), "nothing was taken")
	for range 2 {
		o.request(ms, 1)
	}
	require.EqualValues(t, 1, o.Held())
	assert.True(t, o.Give(o.now, 4))
	assert.False(t, o.Give(o.now, 1), "there is no room for more")
	assert.EqualValues(t, 5, o.Held())
	assert.False(t, o.Give(o.now+time.Hour, -1))
}

// One process alone decides as the store would, and says the same, but for what it holds: a bucket
// may be full again before a lease is spent. Who waits as long as a refusal says is let in.
func TestAloneItIsExact(t *testing.T) {
	t.Parallel()
	for seed := range uint64(500) {
		rnd := rand.New(rand.NewPCG(seed, 2))
		var limits []lease.Limit
		for range 1 + rnd.IntN(2) {
			limits = append(limits, lease.Limit{Burst: 1 + rnd.Int64N(100), Requests: 1 + rnd.Int64N(100), Per: time.Millisecond + time.Duration(rnd.Int64N(int64(10*time.Second)))})
		}
		const share = 0.3
		if lease.NewTerms(limits, share, 1, time.Second) == nil {
			continue
		}
		o := newOne(t, share, 1, time.Second, limits...)
		exact := newOne(t, 1, 1, time.Second, limits...).world
		waits := false
		for range 500 {
			cost := 1 + rnd.Int64N(1+rnd.Int64N(3))
			if !o.terms.Holds(cost) {
				continue
			}
			allowed, views := o.request(time.Duration(rnd.Int64N(int64(limits[0].Per)/limits[0].Requests*2)), cost)
			if !allowed {
				var wait time.Duration
				for _, v := range views {
					if v.Exceeded {
						wait = max(wait, v.Reset)
					}
				}
				require.Positive(t, wait, "seed %d", seed)
				if waits = !waits; !waits {
					continue
				}
				allowed, views = o.request(wait, cost)
				require.True(t, allowed, "seed %d: who waits is let in", seed)
			}
			exact.now = o.now
			for i, b := range exact.buckets {
				b.advance(exact.now)
				held := int64(share * float64(b.Burst))
				left := (b.Burst*int64(b.Per) - b.lacks) / int64(b.Per)
				require.LessOrEqual(t, cost, left+held, "seed %d", seed)
				b.lacks += cost * int64(b.Per)
				left = max(b.Burst*int64(b.Per)-b.lacks, 0) / int64(b.Per)
				require.GreaterOrEqual(t, views[i].Remaining, left-1, "seed %d", seed)
				require.LessOrEqual(t, views[i].Remaining, left+held, "seed %d", seed)
				reset := time.Duration(b.lacks / b.Requests)
				require.LessOrEqual(t, views[i].Reset, reset+2*time.Microsecond, "seed %d", seed)
				require.GreaterOrEqual(t, views[i].Reset, reset-time.Duration(held*int64(b.Per)/b.Requests)-2*time.Microsecond, "seed %d", seed)
				if views[i].Remaining == 0 {
					next := time.Duration((b.lacks + (1-b.Burst)*int64(b.Per)) / b.Requests)
					require.LessOrEqual(t, views[i].Next, next+2*time.Microsecond, "seed %d", seed)
				}
			}
		}
	}
}

// Who waits as long as a refusal says is let in, though a part of it went back meanwhile, which is
// rounded.
func TestARefusalEndsWhenItSays(t *testing.T) {
	t.Parallel()
	o := newOne(t, 0.5, 1, 500*ms, lease.Limit{Burst: 10, Requests: 3, Per: time.Second})
	for range 5 {
		o.request(ms, 1)
	}
	require.EqualValues(t, 2, o.Held())
	allowed, views := o.request(ms, 8)
	require.False(t, allowed)
	o.now += 600 * ms
	rest, _ := o.Ended(o.now)
	require.EqualValues(t, 2, rest)
	_, _ = o.world.take(-rest)
	allowed, _ = o.request(views[0].Reset-600*ms, 8)
	assert.True(t, allowed)
}

// A refusal says of each limit what is so of it alone.
func TestWhatARefusalSays(t *testing.T) {
	t.Parallel()
	o := newOne(t, 0.5, 1, time.Second, lease.Limit{Burst: 10, Requests: 10, Per: time.Second})
	allowed, _ := o.request(0, 10)
	require.True(t, allowed)
	_, views := o.request(0, 1)
	assert.Equal(t, 100*ms, views[0].Reset, "one request shows no rate, and is no reason to hold")
	_, views = o.request(0, 5)
	assert.Equal(t, lease.View{Reset: 500 * ms, Next: 100 * ms, Exceeded: true}, views[0])

	o = newOne(t, 0.5, 1, time.Second, lease.Limit{Burst: 100, Requests: 100, Per: time.Second}, lease.Limit{Burst: 1000, Requests: 1000, Per: time.Second})
	for allowed, views = o.request(ms, 5); allowed; {
		allowed, views = o.request(ms, 5)
	}
	held := views[0].Reset
	require.Equal(t, 500*ms, held)
	assert.False(t, views[1].Exceeded, "the other limit has not refused")
	less := views[0].Remaining + 1
	require.Less(t, less, int64(5))
	allowed, _ = o.request(ms, less)
	require.False(t, allowed)
	_, views = o.request(ms, 5)
	assert.Equal(t, held-2*ms, views[0].Reset, "less that is refused meanwhile prolongs nothing")
}

// What goes back is in the store from then on, as far as is known.
func TestWhatGoesBackIsThere(t *testing.T) {
	t.Parallel()
	o := newOne(t, 0.05, 1, time.Second, lease.Limit{Burst: 100, Requests: 1, Per: time.Hour})
	for range 2 {
		o.request(ms, 1)
	}
	require.EqualValues(t, 1, o.Held())
	assert.EqualValues(t, 98, o.View(o.now, 0, 1, false).Remaining)
	rest := o.Rest()
	require.EqualValues(t, 1, rest)
	assert.EqualValues(t, 98, o.View(o.now, 0, 1, false).Remaining)
	_, _ = o.world.take(-rest)

	n := o.Ask(o.now, 1, 50) // for others, whose clients leave
	ok, states := o.world.take(n)
	require.True(t, ok)
	o.Granted(o.now, states)
	require.Equal(t, lease.Spent, o.Decide(o.now, 1))
	assert.EqualValues(t, n-1-5, o.Trim())
	assert.EqualValues(t, 97, o.View(o.now, 0, 1, false).Remaining)
}

// Who was refused twice, while the states say that there is enough, asks for nothing ahead.
func TestOnly(t *testing.T) {
	t.Parallel()
	o := newOne(t, 0.5, 1, time.Second, lease.Limit{Burst: 100, Requests: 100, Per: time.Second})
	o.request(time.Hour, 1)
	assert.True(t, o.Fresh(o.now+time.Second-1))
	assert.False(t, o.Fresh(o.now+time.Second))
	o.now += 10 * ms
	require.Equal(t, lease.Ask, o.Take(o.now, 1))
	require.EqualValues(t, 2, o.Ask(o.now, 1, 0))
	require.True(t, o.Refused(o.now, 1, make([]lease.State, 1)))
	require.EqualValues(t, 2, o.Again(o.now, 1, 0))
	require.True(t, o.Refused(o.now, 1, make([]lease.State, 1)))
	assert.EqualValues(t, 1, o.Only(o.now, 1))
	assert.True(t, o.Alone(1))
}

// Numbers at the edge of what a limit may be.
func TestLargeNumbers(t *testing.T) {
	t.Parallel()
	const century = 100 * 365 * 24 * time.Hour
	for _, limit := range []lease.Limit{
		{Burst: 1_000_000_000, Requests: 1_000_000_000, Per: time.Second},
		{Burst: 1_000_000_000, Requests: 1_000_000_000, Per: century},
		{Burst: 1, Requests: 1, Per: century},
		{Burst: 1_000_000_000, Requests: 1_000_000_000, Per: time.Millisecond},
		{Burst: 1_000_000_000, Requests: 10, Per: century / 100_000_000},
	} {
		o := newOne(t, 1, 1, math.MaxInt64, limit)
		states := []lease.State{{Reset: math.MaxInt64, Exceeded: true}}
		for _, now := range []time.Duration{0, ms, time.Hour, century} {
			for _, cost := range []int64{1, limit.Burst} {
				for _, states[0].Reset = range []time.Duration{math.MaxInt64, math.MinInt64, 0, 1, century} {
					if o.Take(now, cost) == lease.Ask {
						n := o.Ask(now, cost, math.MaxInt64)
						assert.LessOrEqual(t, n, limit.Burst)
						o.Refused(now, cost, states)
					}
					for _, refused := range []bool{false, true} {
						v := o.View(now, 0, cost, refused)
						assert.GreaterOrEqual(t, v.Remaining, int64(0))
						assert.LessOrEqual(t, v.Remaining, limit.Burst)
						assert.GreaterOrEqual(t, v.Reset, time.Duration(0))
						assert.GreaterOrEqual(t, v.Next, time.Duration(0))
					}
					o.Returns(1)
				}
			}
		}
		for range 10 {
			o.Returns(limit.Burst)
		}
		assert.GreaterOrEqual(t, o.View(century, 0, 1, false).Remaining, int64(0))
	}
}
