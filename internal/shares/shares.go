// Package shares is how a process spends a quota that it shares with others: it takes a share
// of what is left ahead, says later what it has used, and gives back the rest. Nothing is safe
// for concurrent use, and what asks the store is the caller's.
package shares

import "math"

// Counter is what a process knows of an account's quota in a period. The zero Counter knows
// nothing.
//
// used+inUse is never above granted, except where Spend and Force let it, so that all
// processes together stay within the quota.
type Counter struct {
	known    bool  // the store has answered
	open     bool  // not the last claim, of which it may know
	base     int64 // what it had of this process before
	used     int64 // since then
	reported int64 // of used
	inUse    int64 // by requests that are under way
	granted  int64 // of used and inUse
	others   int64 // used or held by others

	step int64 // the next share, unless that is more than is left allows
}

// Claim is what is said to the store: see admit.QuotaClaim.
type Claim struct {
	Fresh             bool
	Used, Want, Floor int64
}

// Balance is what the store answers: see admit.QuotaBalance.
type Balance struct{ Used, Held, MyUsed, MyHeld int64 }

// Take begins to spend a cost, if the share holds it beside what is owed to others, and so does
// the limit.
func (c *Counter) Take(cost, limit, owed int64) bool {
	if spends := plus(c.used, c.inUse, cost); plus(spends, owed) > c.granted || plus(c.others, spends) > limit {
		return false
	}
	c.inUse += cost
	return true
}

// TakeWithout is Take while the store cannot be asked: of what was left when it last could,
// each of so many processes may spend the same part.
func (c *Counter) TakeWithout(cost, limit int64, processes int) bool {
	spends := plus(c.used, c.inUse, cost)
	part := max(limit-plus(c.others, c.granted), 0) / int64(processes)
	if spends > plus(c.granted, part) || plus(c.others, spends) > limit {
		return false
	}
	c.inUse = plus(c.inUse, cost)
	return true
}

// Force begins to spend a cost, whatever is left.
func (c *Counter) Force(cost int64) { c.inUse = plus(c.inUse, cost) }

// Done ends what Take, TakeWithout or Force began: the cost is used, or it is not.
func (c *Counter) Done(cost int64, counted bool) {
	c.inUse = max(c.inUse-cost, 0)
	if counted {
		c.used = plus(c.used, cost)
	}
}

// Left returns how much of a limit may be spent, as far as is known.
func (c *Counter) Left(limit int64) int64 { return max(limit-plus(c.others, c.used, c.inUse), 0) }

// Held returns how much of the share is neither used nor in use.
func (c *Counter) Held() int64 { return max(c.granted-plus(c.used, c.inUse), 0) }

// Low reports whether most of the share is spent or owed, so that more should be asked for before
// somebody has to wait for it. Small shares are spent exactly.
func (c *Counter) Low(owed int64) bool {
	return c.step >= 8 && c.granted-plus(c.used, c.inUse, owed) < c.step/4
}

// Behind reports whether the store knows of less than the last step what has been used.
func (c *Counter) Behind() bool { return c.Unreported() >= max(c.step, 1) }

// Known reports whether the store has answered.
func (c *Counter) Known() bool { return c.known }

// Unreported returns how much the store does not know of what has been used.
func (c *Counter) Unreported() int64 { return c.used - c.reported }

// Settled reports whether the store knows all, and nothing is held.
func (c *Counter) Settled() bool {
	return !c.open && c.inUse == 0 && c.used == c.reported && (c.granted == c.used || !c.known)
}

// Same reports whether a claim that gives the rest back would say nothing new.
func (c *Counter) Same() bool {
	return !c.open && c.used == c.reported && (c.granted == plus(c.used, c.inUse) || !c.known && c.inUse == 0)
}

// Ask claims a demand, and a share of what is left of a limit besides: 1% at most, so that a
// crash loses little. It grows with each call, at once to the demand of a call that comes as
// fast, and begins anew after Rest.
func (c *Counter) Ask(demand, limit int64) Claim {
	if c.known {
		c.step = min(max(2*c.step, demand, 1), c.Left(limit)/100)
		demand = plus(demand, c.step)
	}
	return c.claim(max(demand, 1))
}

// Say claims nothing new, and tells what is used.
func (c *Counter) Say(limit int64) Claim {
	c.step = max(min(2*c.step, limit/100), 1)
	return c.claim(c.granted - c.used - c.inUse)
}

// Rest claims nothing, and gives back what is held.
func (c *Counter) Rest() Claim {
	c.step = 0
	return c.claim(0)
}

func (c *Counter) claim(free int64) Claim {
	c.open = true
	// Whether or not there will be an answer, nothing is spent that is given back.
	c.granted = min(c.granted, plus(c.used, c.inUse, max(free, 0)))
	if !c.known {
		floor := plus(c.used, c.inUse)
		return Claim{Fresh: true, Want: plus(floor, max(free, 0)), Floor: floor}
	}
	return Claim{Used: plus(c.base, c.used), Want: plus(c.inUse, max(free, 0)), Floor: c.inUse}
}

// Answered takes the answer to a claim.
func (c *Counter) Answered(claim Claim, b Balance) {
	if claim.Fresh {
		c.base = b.MyUsed
	}
	c.known, c.open = true, false
	c.reported = max(min(b.MyUsed-c.base, c.used), 0)
	c.granted = plus(b.MyUsed-c.base, b.MyHeld)
	c.others = max(b.Used-b.MyUsed, 0)
	c.others = plus(c.others, max(b.Held-b.MyHeld, 0), c.base)
}

func plus(all ...int64) (sum int64) {
	for _, n := range all {
		if n > math.MaxInt64-sum {
			return math.MaxInt64
		}
		sum += n
	}
	return sum
}
