package lease

import "time"

// Account is what a process knows and holds of one caller, under Terms. Costs are above 0 unless
// a method says otherwise, and within what Terms.Holds.
//
// All that it holds was taken from the store before, and what goes back is held no more before
// the store is told. So what all processes admit in a time is at most what the store gave in that
// time, and what they held when it began.
type Account struct {
	terms *Terms

	left int64         // may be spent, until
	ends time.Duration // then it goes back

	asking bool
	asked  int64 // of the store
	aside  int64 // was left, and is spent by nobody until the store has answered

	full  []time.Duration // when each bucket in the store is full, as of the last answer; empty: not known
	heard time.Duration   // when that came

	demand int64         // since
	since  time.Duration // the store was asked for more
	size   int64         // of that; 0: it was not yet
	ahead  int64         // of what is asked for now
	busy   bool          // it came often enough to take something ahead, then

	held    time.Duration // until then such a cost is refused
	floor   int64         // or more
	reached uint64        // by these limits, a bit each

	used time.Duration // the last request
}

// New returns the account of a caller that nothing is known of.
func New(t *Terms, now time.Duration) Account {
	return Account{terms: t, full: make([]time.Duration, 0, len(t.limits)), since: now, used: now}
}

// Verdict is what becomes of a request.
type Verdict int

const (
	Spent   Verdict = iota // it has what it costs
	Refused                // the store would refuse it
	Ask                    // the store is to be asked: see Account.Ask
	Wait                   // it is being asked
)

// Take is the verdict for a request that comes.
func (a *Account) Take(now time.Duration, cost int64) Verdict {
	a.used = now
	a.demand = plus(a.demand, cost)
	return a.Decide(now, cost)
}

// Decide is the verdict for a request that has come.
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

// Ask returns what to take from the store for a request, for others that wait, and ahead. It may
// be less than nothing, where what is left of a lease that has ended is more. Nothing is spent
// until Granted, Refused or Failed says what the store has answered.
func (a *Account) Ask(now time.Duration, cost, waiting int64) int64 {
	// A lease is what comes while it lasts, at the rate since the store was last asked. It grows
	// step by step from the first request, which shows no rate, since one short gap shows little.
	likely := min(float64(a.demand)*float64(a.terms.last)/float64(max(now-a.since, 1)), float64(2*a.size))
	a.ahead = min(max(int64(likely)-plus(cost, waiting), 0), a.terms.most)
	a.busy = a.ahead > 0
	a.size, a.demand, a.since = plus(cost, a.ahead), 0, now
	return a.ask(now, cost, waiting)
}

// Again is Ask after the store has refused more than a request alone.
func (a *Account) Again(now time.Duration, cost, waiting int64) int64 {
	return a.ask(now, cost, waiting)
}

// Only is Ask for nothing but the request.
func (a *Account) Only(now time.Duration, cost int64) int64 {
	a.ahead = 0
	return a.ask(now, cost, 0)
}

func (a *Account) ask(now time.Duration, cost, waiting int64) int64 {
	n := plus(plus(cost, waiting), a.ahead)
	n = max(min(n, plus(a.left, a.there(now))), cost) // more than the bucket can hold is refused
	a.asked, a.aside, a.left, a.asking = n-a.left, a.left, 0, true
	return a.asked
}

// Alone reports whether what is asked for is a cost, and nothing besides.
func (a *Account) Alone(cost int64) bool { return a.asked == cost && a.aside == 0 }

// State is what the store says of a limit: when it is full, or lets through what was asked for.
type State struct {
	Reset    time.Duration
	Exceeded bool
}

// Granted is told that the store gave what it was asked for. What the request and others that
// wait do not Decide to spend is to be trimmed.
func (a *Account) Granted(now time.Duration, states []State) {
	a.left, a.aside, a.asking = a.aside+a.asked, 0, false
	a.ends = later(now, a.terms.last)
	a.learn(now, states)
}

// Refused is told that the store did not, and returns whether it may give less, which is enough
// for a cost.
func (a *Account) Refused(now time.Duration, cost int64, states []State) (again bool) {
	a.left, a.aside, a.asking = a.aside, 0, false
	a.learn(now, states)
	return len(a.full) > 0 && cost <= plus(a.left, a.there(now))
}

// Failed is told that there is no answer. What was to go back may have; all else that is left may
// be spent on, since nobody else has it.
func (a *Account) Failed(now time.Duration) {
	a.left, a.aside, a.asking = min(a.aside, a.aside+a.asked), 0, false
	a.ends = max(a.ends, later(now, a.terms.last))
}

// Trim returns what is more than a process may hold, and holds it no more.
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

// Returns is told that so much goes back to the store.
func (a *Account) Returns(n int64) {
	if n > 0 {
		a.held = 0
		for i, l := range a.terms.limits[:len(a.full)] {
			a.full[i] = max(a.full[i]-l.fill(min(n, l.Burst)), 0)
		}
	}
}

// Ended returns what is left of a lease that has ended, and holds it no more. Idle is an account
// that has been of no use for as long as a lease lasts.
func (a *Account) Ended(now time.Duration) (rest int64, idle bool) {
	if a.asking {
		return 0, false
	}
	if now >= a.ends {
		rest = a.Rest()
	}
	return rest, a.left == 0 && now-a.used >= a.terms.last
}

// Rest returns all that is left, and holds it no more.
func (a *Account) Rest() int64 {
	rest := a.left
	a.left = 0
	a.Returns(rest)
	return rest
}

// Closed is Ended for an account that is to hold nothing any more.
func (a *Account) Closed(time.Duration) (rest int64, over bool) {
	return a.Rest(), !a.asking
}

// Free reports whether nothing is held or asked for.
func (a *Account) Free() bool { return a.left == 0 && !a.asking }

// Held returns how much was taken ahead, and not spent.
func (a *Account) Held() int64 { return a.left + a.aside }

// Known returns of how many limits there are views.
func (a *Account) Known() int { return len(a.full) }

// Fresh reports whether an answer of the store is younger than a lease may be.
func (a *Account) Fresh(now time.Duration) bool {
	return len(a.full) > 0 && now-a.heard < a.terms.last
}

// maxReset is more than admit.Limit may take to fill.
const maxReset = 101 * 365 * 24 * time.Hour

// learn takes the states that came with an answer. They are older than that, so that nothing is
// promised for too early.
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

// there returns how much the store can give at most, as far as is known: others have taken, and
// not given back.
func (a *Account) there(now time.Duration) int64 {
	least := a.terms.burst
	for i, full := range a.full {
		least = min(least, a.terms.limits[i].holds(full-now))
	}
	return least
}

// wait is the time until a bucket holds what a cost needs beside what is held here.
func (a *Account) wait(now time.Duration, i int, cost int64) time.Duration {
	l := a.terms.limits[i]
	return a.full[i] - now - l.fill(l.Burst-max(cost-a.Held(), 0))
}

// refuses reports whether the store would surely refuse: more than rounding says so. Who comes often enough to have a lease,
// and has used up a limit, is refused for a little longer, so that there is something to take
// then: else each of the few requests that come back would cost all processes a trip.
func (a *Account) refuses(now time.Duration, cost int64) bool {
	if now < a.held && cost >= a.floor && len(a.full) > 0 {
		return true
	}
	var reached uint64
	for i := range a.full {
		slack := a.terms.limits[i].slack()
		if now == a.heard {
			slack = 0 // the store has just been asked
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
