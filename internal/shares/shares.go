// Package shares is the arithmetic of a process that spends a quota together with others: it
// takes a share of what is left in advance, reports later what it has used, and gives back the
// rest. It is not safe for concurrent use, and does not call the store.
package shares

import "math"

// Counter is what a process knows about the quota of an account in a period. The zero Counter
// knows nothing.
//
// used+inUse is never above granted, except after TakeWithout and Force, so all processes
// together stay within the quota.
type Counter struct {
	known    bool  // the store has replied
	open     bool  // the result of the last claim is unknown
	base     int64 // what the store had counted for this process before
	used     int64 // since then
	reported int64 // part of used that the store knows
	inUse    int64 // by requests in flight
	granted  int64 // bound of used and inUse
	others   int64 // used or held by other processes

	step int64 // the next share, unless too little is left for it
}

// Claim is what to tell the store: see admit.QuotaClaim.
type Claim struct {
	Fresh             bool
	Used, Want, Floor int64
}

// Balance is the reply of the store: see admit.QuotaBalance.
type Balance struct{ Used, Held, MyUsed, MyHeld int64 }

// Take begins to spend a cost, if the share has room for it and for what is owed to other
// requests, and the limit has room for it.
func (c *Counter) Take(cost, limit, owed int64) bool {
	if spends := plus(c.used, c.inUse, cost); plus(spends, owed) > c.granted || plus(c.others, spends) > limit {
		return false
	}
	c.inUse += cost
	return true
}

// TakeWithout is Take during an outage of the store: each process may spend an equal part of what
// was left when the store last replied.
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

// Done ends what Take, TakeWithout or Force began. If counted, the cost is used.
func (c *Counter) Done(cost int64, counted bool) {
	c.inUse = max(c.inUse-cost, 0)
	if counted {
		c.used = plus(c.used, cost)
	}
}

// Left returns how much of a limit is left, as far as is known.
func (c *Counter) Left(limit int64) int64 { return max(limit-plus(c.others, c.used, c.inUse), 0) }

// Held returns how much of the share is neither used nor in use.
func (c *Counter) Held() int64 { return max(c.granted-plus(c.used, c.inUse), 0) }

// Low reports whether most of the share is spent or owed, so that the process should claim more
// before a request has to wait for it. Small shares are spent exactly.
func (c *Counter) Low(owed int64) bool {
	return c.step >= 8 && c.granted-plus(c.used, c.inUse, owed) < c.step/4
}

// Behind reports whether the unreported use is at least the last step.
func (c *Counter) Behind() bool { return c.Unreported() >= max(c.step, 1) }

// Known reports whether the store has replied.
func (c *Counter) Known() bool { return c.known }

// Unreported returns how much has been used that the store does not know of.
func (c *Counter) Unreported() int64 { return c.used - c.reported }

// Settled reports whether the store knows everything, and nothing is held.
func (c *Counter) Settled() bool {
	return !c.open && c.inUse == 0 && c.used == c.reported && (c.granted == c.used || !c.known)
}

// Same reports whether a claim that gives back the rest would not change anything.
func (c *Counter) Same() bool {
	return !c.open && c.used == c.reported && (c.granted == plus(c.used, c.inUse) || !c.known && c.inUse == 0)
}

// Ask claims a demand, and in addition a share of what is left of a limit: at most 1%, so that a
// crash loses little. The share doubles with each call, or is the demand if that is more. It
// starts again after Rest.
func (c *Counter) Ask(demand, limit int64) Claim {
	if c.known {
		c.step = min(max(2*c.step, demand, 1), c.Left(limit)/100)
		demand = plus(demand, c.step)
	}
	return c.claim(max(demand, 1))
}

// Say claims nothing new, and reports what is used.
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
	// Even without a reply, what is given back is not spent any more.
	c.granted = min(c.granted, plus(c.used, c.inUse, max(free, 0)))
	if !c.known {
		floor := plus(c.used, c.inUse)
		return Claim{Fresh: true, Want: plus(floor, max(free, 0)), Floor: floor}
	}
	return Claim{Used: plus(c.base, c.used), Want: plus(c.inUse, max(free, 0)), Floor: c.inUse}
}

// Answered applies the reply to a claim.
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
