package lease_test

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/admit-go/admit/internal/lease"
)

// bucket is a limit in the store, in exact numbers: it counts parts, of which Per make a request,
// and of which each nanosecond brings Requests.
type bucket struct {
	lease.Limit
	lacks int64
	at    time.Duration
}

func (b *bucket) advance(now time.Duration) {
	b.lacks, b.at = max(b.lacks-int64(now-b.at)*b.Requests, 0), now
}

// world is a store, the processes that ask it about one caller, and what they have let in.
type world struct {
	t         *testing.T
	rnd       *rand.Rand
	now       time.Duration
	share     float64
	buckets   []*bucket
	terms     *lease.Terms
	processes []*process
	admitted  []admission
}

type admission struct {
	at   time.Duration
	cost int64
}

// process is one Account, with what the glue around it knows.
type process struct {
	lease.Account
	live    bool
	cost    int64 // of the request that asks
	waiting []int64
	calls   []call // under way: at most one that is waited for, and what goes back
	turn    int

	got, spent int64 // of the store, less what was given back; by requests
}

type call struct {
	n       int64
	arrives time.Duration
	back    time.Duration // when the answer comes
	done    bool          // it has arrived
	allowed bool
	states  []lease.State
	asks    bool // and is not to give back
	lost    bool // there is no answer
}

func (w *world) take(n int64) (allowed bool, states []lease.State) {
	allowed = true
	for _, b := range w.buckets {
		b.advance(w.now)
		allowed = allowed && (n <= 0 || b.lacks+n*int64(b.Per) <= b.Burst*int64(b.Per))
	}
	for _, b := range w.buckets {
		st := lease.State{Exceeded: n > 0 && b.lacks+n*int64(b.Per) > b.Burst*int64(b.Per)}
		if allowed {
			b.lacks = max(b.lacks+n*int64(b.Per), 0)
		}
		parts := b.lacks
		if st.Exceeded {
			parts += (n - b.Burst) * int64(b.Per)
		}
		st.Reset = time.Duration((parts + b.Requests - 1) / b.Requests)
		states = append(states, st)
	}
	return allowed, states
}

func (w *world) admit(p *process, cost int64) {
	p.spent += cost
	w.admitted = append(w.admitted, admission{w.now, cost})
}

// send begins a call, which takes its time each way, or is lost on one.
func (w *world) send(p *process, n int64, asks bool) {
	arrives := w.now + time.Duration(w.rnd.Int64N(int64(5*time.Millisecond)))
	p.calls = append(p.calls, call{n: n, arrives: arrives, back: arrives + time.Duration(w.rnd.Int64N(int64(5*time.Millisecond))), asks: asks, lost: w.rnd.IntN(10) == 0})
}

func (w *world) giveBack(p *process, n int64) {
	if n > 0 {
		p.got -= n
		w.send(p, -n, false)
	}
}

func (p *process) sum() (sum int64) {
	for _, c := range p.waiting {
		sum += c
	}
	return sum
}

// request is what the glue does with one.
func (w *world) request(p *process, cost int64) {
	if !p.live {
		p.Account, p.live = lease.New(w.terms, w.now), true
	}
	switch p.Take(w.now, cost) {
	case lease.Spent:
		w.admit(p, cost)
	case lease.Wait:
		p.waiting = append(p.waiting, cost)
	case lease.Ask:
		p.cost, p.turn = cost, 1
		w.send(p, p.Ask(w.now, cost, 0), true)
	}
	w.check(p)
}

func (w *world) check(p *process) {
	if held := p.Held(); p.live && float64(held) > w.share*float64(w.buckets[0].Burst)/float64(len(w.processes)) {
		w.t.Fatalf("at %v a process holds %d", w.now, held)
	}
	if p.spent+p.Held() > p.got {
		w.t.Fatalf("at %v a process has spent %d and holds %d, and got %d", w.now, p.spent, p.Held(), p.got)
	}
}

// answer is what the glue does with the answer to a call.
func (w *world) answer(p *process, c call) {
	if !c.asks {
		return
	}
	switch {
	case c.lost:
		p.got += min(c.n, 0) // it may have arrived
		p.Failed(w.now)
		if p.Decide(w.now, p.cost) == lease.Spent {
			w.admit(p, p.cost)
		}
	case c.allowed:
		p.got += c.n
		p.Granted(w.now, c.states)
		if v := p.Decide(w.now, p.cost); v != lease.Spent {
			w.t.Fatalf("what was granted is not spent, but %v", v)
		}
		w.admit(p, p.cost)
	case p.Refused(w.now, p.cost, c.states) && p.turn < 3:
		p.turn++
		n := p.Again(w.now, p.cost, p.sum())
		w.send(p, n, true)
		return
	default:
		if p.Decide(w.now, p.cost) == lease.Spent {
			w.admit(p, p.cost)
		}
	}
	for len(p.waiting) > 0 {
		cost := p.waiting[0]
		p.waiting = p.waiting[1:]
		if w.rnd.IntN(10) == 0 {
			continue // its client has left
		}
		switch p.Decide(w.now, cost) {
		case lease.Spent:
			w.admit(p, cost)
		case lease.Ask:
			if c.lost {
				continue
			}
			w.giveBack(p, p.Trim())
			p.cost, p.turn = cost, 1
			w.send(p, p.Ask(w.now, cost, p.sum()), true)
			return
		}
	}
	w.giveBack(p, p.Trim())
}

// pass lets time go by, in which calls arrive and are answered.
func (w *world) pass(d time.Duration) {
	for until := w.now + d; ; {
		var first *process
		at, next := 0, until
		for _, p := range w.processes {
			for i, c := range p.calls {
				when := c.arrives
				if c.done {
					when = c.back
				}
				if when < next || when == next && first == nil {
					first, at, next = p, i, when
				}
			}
		}
		if first == nil {
			w.now = until
			return
		}
		w.now = max(w.now, next)
		c := &first.calls[at]
		if !c.done {
			c.done = true
			if !c.lost || w.rnd.IntN(2) == 0 {
				c.allowed, c.states = w.take(c.n)
			}
			continue
		}
		answered := *c
		first.calls = append(first.calls[:at], first.calls[at+1:]...)
		w.answer(first, answered)
		w.check(first)
	}
}

// bound checks each limit in each of its periods.
func (w *world) bound() error {
	for _, b := range w.buckets {
		most := b.Burst + b.Requests + int64(w.share*float64(b.Burst))
		first, sum := 0, int64(0)
		for _, a := range w.admitted {
			sum += a.cost
			for a.at-w.admitted[first].at > b.Per {
				sum -= w.admitted[first].cost
				first++
			}
			if sum > most {
				return fmt.Errorf("%d let in within %v at %v, of %d at most, by %+v", sum, b.Per, a.at, most, b.Limit)
			}
		}
	}
	return nil
}

// run is a schedule.
func run(t *testing.T, seed uint64) {
	rnd := rand.New(rand.NewPCG(seed, 1))
	w := &world{t: t, rnd: rnd, share: 0.1 + 0.9*rnd.Float64()}
	processes := 1 + rnd.IntN(5)
	per := []time.Duration{100 * time.Millisecond, time.Second, 3 * time.Second}[rnd.IntN(3)]
	first := lease.Limit{Burst: 1 + rnd.Int64N(200), Requests: 1 + rnd.Int64N(100), Per: per}
	limits := []lease.Limit{first}
	if rnd.IntN(2) == 0 {
		limits = append(limits, lease.Limit{Burst: 1 + rnd.Int64N(2*first.Burst), Requests: 1 + rnd.Int64N(100), Per: per / 2})
	}
	for _, l := range limits {
		w.buckets = append(w.buckets, &bucket{Limit: l})
	}
	last := []time.Duration{10 * time.Millisecond, 100 * time.Millisecond, time.Second}[rnd.IntN(3)]
	w.terms = lease.NewTerms(limits, w.share, processes, last)
	if w.terms == nil {
		return
	}
	for range processes {
		w.processes = append(w.processes, new(process))
	}
	for range 1500 {
		p := w.processes[rnd.IntN(processes)]
		switch rnd.IntN(40) {
		case 0: // a rest, so that buckets and leases are full when it ends
			w.pass(time.Duration(rnd.Int64N(int64(2 * per))))
		case 1, 2, 3:
			w.pass(time.Duration(rnd.Int64N(int64(per) / 10)))
		case 4:
			if cost := 1 + rnd.Int64N(5); p.live && len(w.admitted) > 0 {
				w.admit(p, -cost)
				if !p.Give(w.now, cost) {
					p.got += cost // which it has had before
					p.Returns(cost)
					w.giveBack(p, cost)
				}
			}
		case 5, 6:
			if p.live {
				rest, idle := p.Ended(w.now)
				w.giveBack(p, rest)
				p.live = !idle
			}
		case 7:
			if p.live && rnd.IntN(10) == 0 {
				w.giveBack(p, p.Rest())
			}
		default:
			cost := int64(1)
			if rnd.IntN(8) == 0 {
				cost += rnd.Int64N(10)
			}
			if w.terms.Holds(cost) {
				w.request(p, cost)
			}
			w.pass(time.Duration(rnd.Int64N(int64(per) / (1 + 2*first.Requests))))
		}
		w.check(p)
	}
	w.pass(time.Minute)
	if err := w.bound(); err != nil {
		t.Fatalf("seed %d: %v", seed, err)
	}
	// What is not spent goes back: a minute later the buckets are full, and nothing is held.
	for _, p := range w.processes {
		if !p.Free() {
			w.giveBack(p, p.Rest())
		}
		if p.live && p.Held() != 0 {
			t.Fatalf("seed %d: %d are held", seed, p.Held())
		}
	}
}

// However requests, answers and losses come together, all processes stay within the bound.
func TestModel(t *testing.T) {
	t.Parallel()
	schedules := uint64(1000)
	if testing.Short() {
		schedules = 300
	}
	for seed := range schedules {
		run(t, seed)
	}
}

func FuzzLeases(f *testing.F) {
	f.Add(uint64(1))
	f.Fuzz(run)
}
