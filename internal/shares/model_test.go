package shares_test

import (
	"math/big"
	"math/rand/v2"
	"testing"

	"github.com/admit-go/admit"
	"github.com/admit-go/admit/internal/shares"
)

// process is one that spends, and what it has really done.
type process struct {
	shares.Counter
	name  string
	seq   int64
	heard int64
	inUse []int64
	used  *big.Int
}

// world is a store and the processes that share a quota in it, over a network that loses both
// claims and answers.
type world struct {
	t         *testing.T
	rnd       *rand.Rand
	limit     int64
	most      int64 // what limit was at most
	count     admit.QuotaCount
	shares    map[string]*admit.QuotaShare
	told      *big.Int // by the claims that have arrived: the sum of what they added
	processes []*process
	names     int
	used      *big.Int // by all, those that crashed too
	lost      *big.Int // at most: what processes had not said that crashed
	strays    []admit.QuotaClaim
}

func (w *world) start() *process {
	w.names++
	return &process{name: string(rune('a' + w.names)), used: new(big.Int)}
}

// settle carries a claim to the store and its answer back, unless one is lost.
func (w *world) settle(p *process, claim shares.Claim) {
	p.seq++
	c := admit.QuotaClaim{
		Process: p.name, Seq: p.seq, Heard: p.heard, Fresh: claim.Fresh,
		Used: claim.Used, Want: claim.Want, Floor: claim.Floor, Limit: w.limit,
	}
	if w.rnd.IntN(8) == 0 {
		w.strays = append(w.strays, c) // it is lost, or comes later
		return
	}
	if n := len(w.strays); n > 0 && w.rnd.IntN(4) == 0 {
		w.receive(w.strays[n-1])
		w.strays = w.strays[:n-1]
	}
	b := w.receive(c)
	if w.rnd.IntN(8) == 0 {
		return // the answer is lost
	}
	p.heard = p.seq
	p.Answered(claim, shares.Balance{Used: b.Used, Held: b.Held, MyUsed: b.MyUsed, MyHeld: b.MyHeld})
}

// receive is the store.
func (w *world) receive(c admit.QuotaClaim) admit.QuotaBalance {
	if w.shares[c.Process] == nil {
		w.shares[c.Process] = new(admit.QuotaShare)
	}
	b, added := c.Settle(&w.count, w.shares[c.Process])
	w.told.Add(w.told, big.NewInt(added))
	return b
}

// spends returns what all have spent and are spending.
func (w *world) spends() *big.Int {
	sum := new(big.Int).Set(w.used)
	for _, p := range w.processes {
		for _, cost := range p.inUse {
			sum.Add(sum, big.NewInt(cost))
		}
	}
	return sum
}

func (w *world) step() {
	i := w.rnd.IntN(len(w.processes))
	p := w.processes[i]
	switch w.rnd.IntN(12) {
	case 0, 1, 2, 3:
		cost := 1 + w.rnd.Int64N(1+w.limit/50)
		if p.Take(cost, w.limit, 0) {
			p.inUse = append(p.inUse, cost)
		} else {
			w.settle(p, p.Ask(cost, w.limit))
		}
	case 4, 5, 6:
		if n := len(p.inUse); n > 0 {
			cost, counted := p.inUse[n-1], w.rnd.IntN(4) > 0
			p.inUse = p.inUse[:n-1]
			p.Done(cost, counted)
			if counted {
				p.used.Add(p.used, big.NewInt(cost))
				w.used.Add(w.used, big.NewInt(cost))
			}
		}
	case 7:
		w.settle(p, p.Say(w.limit))
	case 8:
		if p.Same() {
			if held, spends := w.held(p), sum(p.inUse); held != spends {
				w.t.Fatalf("%s spends %d and would say nothing new, and the store holds %d for it", p.name, spends, held)
			}
			break
		}
		w.settle(p, p.Rest())
	case 9:
		switch {
		case p.Low(0):
			w.settle(p, p.Ask(0, w.limit))
		case p.Settled(): // it is forgotten, and begins anew
			p.Counter, p.heard = shares.Counter{}, p.seq
		}
	case 10:
		if w.rnd.IntN(20) == 0 {
			w.limit += w.rnd.Int64N(1 + w.limit/10) // more was sold
			w.most = max(w.most, w.limit)
		}
		if w.rnd.IntN(4) == 0 {
			w.limit -= w.rnd.Int64N(1 + w.limit/10) // or less, or another key comes
		} else {
			w.limit = w.most
		}
	case 11:
		if w.rnd.IntN(30) == 0 { // it crashes: what it has not said is lost, and no more than it held
			unsaid := new(big.Int).Sub(p.used, big.NewInt(w.said(p)))
			for _, cost := range p.inUse {
				unsaid.Add(unsaid, big.NewInt(cost))
			}
			if held := w.held(p); unsaid.Cmp(big.NewInt(held)) > 0 {
				w.t.Fatalf("a crash loses %v, of which the store held only %d", unsaid, held)
			}
			for _, cost := range p.inUse {
				w.used.Add(w.used, big.NewInt(cost)) // in the worst case
			}
			w.lost.Add(w.lost, unsaid)
			w.processes[i] = w.start()
		}
	}
	if all := w.spends(); all.Cmp(big.NewInt(w.most)) > 0 {
		w.t.Fatalf("%v are spent of %d", all, w.most)
	}
	if all := w.spends(); big.NewInt(w.count.Used+w.count.Held).Cmp(all) < 0 {
		w.t.Fatalf("%v are spent, and the store knows of %d and has given %d", all, w.count.Used, w.count.Held)
	}
	if big.NewInt(w.count.Used).Cmp(w.told) != 0 {
		w.t.Fatalf("the store has %d used, and has been told of %v", w.count.Used, w.told)
	}
}

func sum(all []int64) (sum int64) {
	for _, n := range all {
		sum += n
	}
	return sum
}

func (w *world) said(p *process) int64 {
	if s := w.shares[p.name]; s != nil {
		return s.Used
	}
	return 0
}

func (w *world) held(p *process) int64 {
	if s := w.shares[p.name]; s != nil {
		return s.Held
	}
	return 0
}

// finish ends what is under way, and has everything told.
func (w *world) finish() {
	for _, p := range w.processes {
		for _, cost := range p.inUse {
			p.Done(cost, true)
			p.used.Add(p.used, big.NewInt(cost))
			w.used.Add(w.used, big.NewInt(cost))
		}
		p.inUse = nil
		for tries := 0; !p.Settled(); tries++ {
			if tries == 1000 {
				w.t.Fatalf("%s cannot settle: %+v", p.name, p.Counter)
			}
			w.settle(p, p.Rest())
		}
		if !p.Same() {
			w.t.Fatalf("%s has settled all, and has something to say: %+v", p.name, p.Counter)
		}
	}
	for _, c := range w.strays {
		w.receive(c)
	}
	for _, p := range w.processes {
		if held := w.held(p); held != 0 {
			w.t.Fatalf("%s has settled all, and the store holds %d for it", p.name, held)
		}
	}
	// What a process has said before it crashed may still arrive.
	if known, has := new(big.Int).Sub(w.used, w.lost), big.NewInt(w.count.Used); known.Cmp(has) > 0 || has.Cmp(w.used) > 0 {
		w.t.Fatalf("%v were used and %v lost, and the store has %d", w.used, w.lost, w.count.Used)
	}
}

// No more is spent than was sold, nothing is lost but by crashes, and nothing doubled, whatever
// the network loses.
func TestSharesAgainstModel(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rnd := rand.New(rand.NewPCG(seed, 0))
	for range 2000 {
		run(t, rnd)
	}
}

func FuzzShares(f *testing.F) {
	f.Add(uint64(1))
	f.Fuzz(func(t *testing.T, seed uint64) { run(t, rand.New(rand.NewPCG(seed, 1))) })
}

func run(t *testing.T, rnd *rand.Rand) {
	w := &world{
		t: t, rnd: rnd, limit: 1 + rnd.Int64N(1<<(1+rnd.IntN(50))), shares: map[string]*admit.QuotaShare{},
		told: new(big.Int), used: new(big.Int), lost: new(big.Int),
	}
	w.most = w.limit
	for range 1 + rnd.IntN(5) {
		w.processes = append(w.processes, w.start())
	}
	for range 400 {
		w.step()
	}
	w.finish()
}
