package lease

import "time"

// Account is what a process knows about one caller, and holds for it, under Terms. Costs are
// positive unless a method says otherwise, and Terms.Holds is true for them.
//
// A process holds only what it has taken from the store before, and no longer holds what it gives
// back before the store is told. So in any time, all processes together admit at most what the
// store gave in that time and what they held at its beginning.
type Account struct {
	terms *Terms

	left int64         // what may be spent
	ends time.Duration // when left goes back

	asking bool
	asked  int64 // of the store
	aside  int64 // was left, and must not be spent until the store has replied

	full  []time.Duration // when each bucket in the store is full, as of the last reply; empty: unknown
	heard time.Duration   // when that reply came

	demand int64         // costs since
	since  time.Duration // the last claim
	size   int64         // of the last claim; 0: there was none
	ahead  int64         // part of the current claim that is taken in advance
	busy   bool          // requests came often enough for that

	held    time.Duration // until then, a cost of
	floor   int64         // or more is rejected
	reached uint64        // because of these limits, one bit each

	used time.Duration // the time of the last request
}

// New returns the account of an unknown caller.
func New(t *Terms, now time.Duration) Account {
	return Account{terms: t, full: make([]time.Duration, 0, len(t.limits)), since: now, used: now}
}

// Verdict is what to do with a request.
type Verdict int

const (
	Spent   Verdict = iota // admit it: the cost has been spent
	Refused                // reject it: the store would
	Ask                    // ask the store: see Account.Ask
	Wait                   // wait for the store, which is being asked
)

// Take returns the verdict for a new request.
func (a *Account) Take(now time.Duration, cost int64) Verdict {
	a.used = now
	a.demand = plus(a.demand, cost)
	return a.Decide(now, cost)
}

// Decide returns the verdict for a request that Take has counted.
func (a *Account) Decide(now time.Duration, cost int64) Verdict {
	switch {
	case cost <= a.left && now < a.ends:
		a.left -= cost
		return Spent
	case a.refuses(now, cost):
		return Refused
	case a.asking:
		return Wait
	}
	return Ask
}

// Ask returns what to take from the store for a request, for others that wait, and in advance. It
// is negative if more than that is left of a lease that has ended. Nothing is spent until
// Granted, Refused or Failed applies the reply of the store.
func (a *Account) Ask(now time.Duration, cost, waiting int64) int64 {
	// A lease is what will come while it lasts, at the rate since the last claim. It grows step by
	// step from the first request, since one short gap says little about the rate.
	likely := min(float64(a.demand)*float64(a.terms.last)/float64(max(now-a.since, 1)), float64(2*a.size))
	a.ahead = min(max(int64(likely)-plus(cost, waiting), 0), a.terms.most)
	a.busy = a.ahead > 0
	a.size, a.demand, a.since = plus(cost, a.ahead), 0, now
	return a.ask(now, cost, waiting)
}

// Again is Ask after the store has refused to give more than the cost of one request.
func (a *Account) Again(now time.Duration, cost, waiting int64) int64 {
	return a.ask(now, cost, waiting)
}

// Only is Ask for only the request itself.
func (a *Account) Only(now time.Duration, cost int64) int64 {
	a.ahead = 0
	return a.ask(now, cost, 0)
}

func (a *Account) ask(now time.Duration, cost, waiting int64) int64 {
	n := plus(plus(cost, waiting), a.ahead)
	n = max(min(n, plus(a.left, a.there(now))), cost) // the store would refuse more than the bucket has
	a.asked, a.aside, a.left, a.asking = n-a.left, a.left, 0, true
	return a.asked
}

// Alone reports whether the claim is for a cost, and nothing more.
func (a *Account) Alone(cost int64) bool { return a.asked == cost && a.aside == 0 }

// State is the reply of the store about a limit: when it is full or, if it is exceeded, when it
// admits the claim.
type State struct {
	Reset    time.Duration
	Exceeded bool
}

// Granted applies a reply with which the store gave what was claimed. After the request and those
// that wait have called Decide, call Trim.
func (a *Account) Granted(now time.Duration, states []State) {
	a.left, a.aside, a.asking = a.aside+a.asked, 0, false
	a.ends = later(now, a.terms.last)
	a.learn(now, states)
}

// Refused applies a reply with which the store gave nothing. It reports whether a smaller claim,
// which is enough for a cost, may succeed.
func (a *Account) Refused(now time.Duration, cost int64, states []State) (again bool) {
	a.left, a.aside, a.asking = a.aside, 0, false
	a.learn(now, states)
	return len(a.full) > 0 && cost <= plus(a.left, a.there(now))
}

// Failed records that there was no reply. What the claim gave back may be gone; the rest of what
// is left may still be spent, since no other process has it.
func (a *Account) Failed(now time.Duration) {
	a.left, a.aside, a.asking = min(a.aside, a.aside+a.asked), 0, false
	a.ends = max(a.ends, later(now, a.terms.last))
}

// Trim removes and returns what is more than a process may hold.
func (a *Account) Trim() int64 {
	more := max(a.left-a.terms.most, 0)
	a.left -= more
	a.Returns(more)
	return more
}

// Give takes back a cost that was spent, if there is room for it here.
func (a *Account) Give(now time.Duration, cost int64) bool {
	if a.asking || now >= a.ends || cost > a.terms.most-a.left {
		return false
	}
	a.left += cost
	return true
}

// Returns records that n goes back to the store.
func (a *Account) Returns(n int64) {
	if n > 0 {
		a.held = 0
		for i, l := range a.terms.limits[:len(a.full)] {
			a.full[i] = max(a.full[i]-l.fill(min(n, l.Burst)), 0)
		}
	}
}

// Ended removes and returns what is left of a lease that has ended. The account is idle if it
// holds nothing, and had no request for as long as a lease lasts.
func (a *Account) Ended(now time.Duration) (rest int64, idle bool) {
	if a.asking {
		return 0, false
	}
	if now >= a.ends {
		rest = a.Rest()
	}
	return rest, a.left == 0 && now-a.used >= a.terms.last
}

// Rest removes and returns all that is left.
func (a *Account) Rest() int64 {
	rest := a.left
	a.left = 0
	a.Returns(rest)
	return rest
}

// Closed is Ended for an account that must not hold anything any more.
func (a *Account) Closed(time.Duration) (rest int64, over bool) {
	return a.Rest(), !a.asking
}

// Free reports whether nothing is held or asked for.
func (a *Account) Free() bool { return a.left == 0 && !a.asking }

// Held returns how much was taken in advance and has not been spent.
func (a *Account) Held() int64 { return a.left + a.aside }

// Known returns for how many limits View may be called.
func (a *Account) Known() int { return len(a.full) }

// Fresh reports whether the last reply of the store is younger than a lease lasts.
func (a *Account) Fresh(now time.Duration) bool {
	return len(a.full) > 0 && now-a.heard < a.terms.last
}

// maxReset is longer than the bucket of any admit.Limit takes to fill.
const maxReset = 101 * 365 * 24 * time.Hour

// learn stores the states of a reply. They are older than the reply, so the times computed from
// them are never too early.
func (a *Account) learn(now time.Duration, states []State) {
	a.full = a.full[:0]
	if len(states) != len(a.terms.limits) {
		return
	}
	a.heard = now
	for i, st := range states {
		full := later(now, min(max(st.Reset, 0), maxReset))
		if st.Exceeded {
			l := a.terms.limits[i]
			full = later(full, l.fill(l.Burst-a.asked))
		}
		a.full = append(a.full, full)
	}
}

func later(t, d time.Duration) time.Duration { return time.Duration(plus(int64(t), int64(d))) }

// there returns how much the store can give at most, as far as is known: other processes may have
// taken more since.
func (a *Account) there(now time.Duration) int64 {
	least := a.terms.burst
	for i, full := range a.full {
		least = min(least, a.terms.limits[i].holds(full-now))
	}
	return least
}

// wait returns the time until a bucket has what a cost needs in addition to what is held here.
func (a *Account) wait(now time.Duration, i int, cost int64) time.Duration {
	l := a.terms.limits[i]
	return a.full[i] - now - l.fill(l.Burst-max(cost-a.Held(), 0))
}

// refuses reports whether the store would certainly refuse, whatever the rounding. A caller that
// comes often enough for a lease and has used up a limit is rejected for a little longer, so that
// there is something to take then. Otherwise each of the few requests that refill would cost all
// processes a round trip.
func (a *Account) refuses(now time.Duration, cost int64) bool {
	if now < a.held && cost >= a.floor && len(a.full) > 0 {
		return true
	}
	var reached uint64
	for i := range a.full {
		slack := a.terms.limits[i].slack()
		if now == a.heard {
			slack = 0 // the store has just replied
		}
		if a.wait(now, i, cost) > slack {
			reached |= 1 << i
		}
	}
	if reached != 0 && a.busy && now >= a.held {
		a.held, a.floor, a.reached = later(now, a.terms.hold), cost, reached
	}
	return reached != 0
}

// View is what a caller has left of a limit, with what is held here: see admit.LimitState.
type View struct {
	Remaining   int64
	Reset, Next time.Duration
	Exceeded    bool
}

// View returns the view of a limit after a verdict on a cost, or without one.
func (a *Account) View(now time.Duration, i int, cost int64, refused bool) View {
	l, held := a.terms.limits[i], a.Held()
	full := a.full[i] - now
	v := View{Remaining: min(plus(l.holds(full-l.rounding()), held), l.Burst), Reset: max(full-l.fill(held), 0)}
	if refused {
		wait := a.wait(now, i, cost)
		if now < a.held && cost >= a.floor && a.reached&(1<<i) != 0 {
			wait = max(wait, a.held-now)
		}
		if wait > 0 {
			v.Exceeded, v.Reset, v.Remaining = true, wait, min(v.Remaining, cost-1)
		}
	}
	if v.Remaining == 0 {
		v.Next = max(a.wait(now, i, 1), 1)
		if v.Exceeded && cost == 1 {
			v.Next = v.Reset
		}
	}
	return v
}
