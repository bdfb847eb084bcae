package admittest

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/admit-go/admit"
)

// QuotaStoreOptions says how the clock of a store is moved. The zero value is for a store with
// a clock that nobody can move: what takes minutes or days is not tested then.
type QuotaStoreOptions struct {
	// Bubble runs every test in a bubble of testing/synctest, for a store whose clock is
	// the time package of this process.
	Bubble bool
	// Sleep moves the clock of the store forward, and back for a negative time, which happens
	// where a clock is set or another database takes over. Nil: it cannot be moved, or it is
	// moved by time.Sleep in a Bubble.
	Sleep func(time.Duration)
	// Now is the clock of the store. Nil: time.Now.
	Now func() time.Time
	// Slow is for a store that takes a millisecond for a call: it gets a small part of the
	// random claims.
	Slow bool
	// Seed makes the random tests repeatable. 0: another one each time, which is logged.
	Seed uint64
}

// TestQuotaStore tests that a QuotaStore keeps what admit.QuotaStore demands. newStore returns
// an empty store; it may end it with t.Cleanup.
func TestQuotaStore(t *testing.T, newStore func(t *testing.T) admit.QuotaStore, o QuotaStoreOptions) {
	back := o.Sleep != nil
	if o.Sleep == nil && o.Bubble {
		o.Sleep = time.Sleep
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	for _, test := range []struct {
		name  string
		run   func(*quotaStoreTest)
		needs bool // something of the clock, which is there
	}{
		{"random claims agree with an exact model", (*quotaStoreTest).random, true},
		{"goroutines spend no more than there is, and each use is counted once", (*quotaStoreTest).concurrent, true},
		{"calls that have accounts in common end", (*quotaStoreTest).crossing, true},
		{"all bytes and lengths of accounts are apart", (*quotaStoreTest).accounts, true},
		{"who only looks leaves nothing", (*quotaStoreTest).looks, true},
		{"numbers that are too large stay large", (*quotaStoreTest).huge, true},
		{"what counts is kept for as long as it counts", (*quotaStoreTest).keeps, o.Sleep != nil},
		{"minutes are offered when they are over, until they are acknowledged", (*quotaStoreTest).offers, o.Sleep != nil},
		{"several who offer share the records", (*quotaStoreTest).offersShared, o.Sleep != nil},
		{"a record that has been offered never changes", (*quotaStoreTest).offeredStays, back},
	} {
		t.Run(test.name, func(t *testing.T) {
			if !test.needs {
				t.Skip("the clock of this store cannot be moved so")
			}
			run := func(t *testing.T) {
				seed := o.Seed
				if seed == 0 {
					seed = rand.Uint64()
				}
				t.Logf("seed %d", seed)
				test.run(&quotaStoreTest{T: t, QuotaStoreOptions: o, store: newStore(t), rand: rand.New(rand.NewPCG(seed, 0))})
			}
			if o.Bubble {
				synctest.Test(t, run)
			} else {
				run(t)
			}
		})
	}
}

type quotaStoreTest struct {
	*testing.T
	QuotaStoreOptions
	store admit.QuotaStore
	rand  *rand.Rand
}

func (t *quotaStoreTest) settle(claims ...admit.QuotaClaim) []admit.QuotaBalance {
	t.Helper()
	given := slices.Clone(claims)
	balances, err := t.store.Settle(t.Context(), claims)
	if err != nil {
		t.Fatalf("Settle(%+v): %v", claims, err)
	}
	if !slices.Equal(given, claims) {
		t.Fatalf("Settle has changed the claims %+v to %+v", given, claims)
	}
	if len(balances) != len(claims) {
		t.Fatalf("Settle answers %d claims with %d balances", len(claims), len(balances))
	}
	return balances
}

// want settles one claim, whose balance is known.
func (t *quotaStoreTest) want(want admit.QuotaBalance, c admit.QuotaClaim) {
	t.Helper()
	if got := t.settle(c)[0]; got != want {
		t.Fatalf("%+v has the balance\n%+v, not\n%+v", c, got, want)
	}
}

// claim is one of a period that is not over yet.
func (t *quotaStoreTest) claim(account, process string, seq int64) admit.QuotaClaim {
	return admit.QuotaClaim{
		Account: account, Quota: "month", Period: "2026-01-31/P1M", Ends: t.Now().Add(40 * 24 * time.Hour),
		Process: process, Seq: seq, Heard: seq - 1, Limit: 1000,
	}
}

// use makes a process say for the first time that it has used something.
func (t *quotaStoreTest) use(account string, n int64) {
	t.Helper()
	process := fmt.Sprint("process ", t.rand.Uint64())
	first, second := t.claim(account, process, 1), t.claim(account, process, 2)
	second.Used = n
	t.settle(first, second)
}

func (t *quotaStoreTest) offer(most int) []admit.UsageRecord {
	t.Helper()
	records, err := t.store.Offer(t.Context(), most)
	if err != nil {
		t.Fatalf("Offer(%d): %v", most, err)
	}
	if len(records) > max(most, 0) {
		t.Fatalf("Offer(%d) returns %d records", most, len(records))
	}
	return records
}

func (t *quotaStoreTest) acknowledge(ids ...string) {
	t.Helper()
	if err := t.store.Acknowledge(t.Context(), ids); err != nil {
		t.Fatalf("Acknowledge(%q): %v", ids, err)
	}
}

// long is when all that was used is offered, and what was offered is offered again.
const long = time.Hour

// drain waits until everything can be offered, and returns it, acknowledged.
func (t *quotaStoreTest) drain() (all []admit.UsageRecord) {
	t.Helper()
	t.Sleep(long)
	for seen := map[string]bool{}; ; {
		records := t.offer(1 + t.rand.IntN(50))
		if len(records) == 0 {
			return all
		}
		var ids []string
		for _, r := range records {
			if seen[r.ID] {
				t.Fatalf("the record %+v is offered again", r)
			}
			seen[r.ID] = true
			ids = append(ids, r.ID)
		}
		all = append(all, records...)
		t.acknowledge(ids...)
	}
}

// quotaModel is what the doc of admit.QuotaClaim says, of one count: it keeps who has said
// what, and adds it up whenever it is asked.
type quotaModel struct {
	processes map[string]*processModel
	told      int64 // of which use somebody has been told
}

type processModel struct {
	seq               int64
	first, used, held int64 // first: what it had used when it was heard of first, which is in no sum
	told, toldAt      int64
}

func (m *quotaModel) sum(of func(*processModel) int64) (n int64) {
	for _, p := range m.processes {
		n += of(p)
	}
	return n
}

func (m *quotaModel) used() int64 {
	return m.sum(func(p *processModel) int64 { return p.used - p.first })
}
func (m *quotaModel) held() int64 { return m.sum(func(p *processModel) int64 { return p.held }) }

func (m *quotaModel) balance(c admit.QuotaClaim) admit.QuotaBalance {
	p, known := m.processes[c.Process]
	if c.Process == "" {
		return admit.QuotaBalance{Used: m.used(), Held: m.held()}
	}
	if !known {
		p = new(processModel)
	}
	if c.Seq > p.seq {
		if !known {
			m.processes[c.Process] = p
			if !c.Fresh {
				p.first, p.used = c.Used, c.Used
			}
		}
		p.seq = c.Seq
		keeps := p.held
		if !c.Fresh && c.Used > p.used {
			keeps -= c.Used - p.used
			p.used = c.Used
		}
		p.held = 0
		left := c.Limit - m.used() - m.held()
		p.held = max(0, c.Floor, min(c.Want, max(left, keeps)))
		if c.Heard >= p.toldAt {
			p.told = 0
		}
		for _, percent := range []int64{80, 100} {
			at := (c.Limit*percent + 99) / 100
			if m.used() < at || percent == 80 && m.used() >= c.Limit || at <= m.told { // at 100 nobody is told of 80
				continue
			}
			m.told, p.told, p.toldAt = at, percent, c.Seq
		}
	}
	return admit.QuotaBalance{Used: m.used(), Held: m.held(), MyUsed: p.used, MyHeld: p.held, Notice: int(p.told)}
}

// random makes claims in the name of processes whose answers are lost now and then, which are
// late, or come twice.
func (t *quotaStoreTest) random() {
	rounds, calls := 60, 400
	if t.Slow {
		rounds = 6
	}
	for round := range rounds {
		type counted struct{ account, quota, period string }
		models := make(map[counted]*quotaModel)
		type mine struct {
			counted
			process string
		}
		said := make(map[mine]*admit.QuotaClaim)
		var before []admit.QuotaClaim
		newest := t.Now().Add(40 * 24 * time.Hour)
		next := func() admit.QuotaClaim {
			if len(before) > 0 && t.rand.IntN(10) == 0 { // again, or late
				return before[t.rand.IntN(len(before))]
			}
			id := mine{counted{fmt.Sprintf("round %d account %d", round, t.rand.IntN(2)), fmt.Sprint("quota ", t.rand.IntN(2)), fmt.Sprint("period ", t.rand.IntN(2))}, fmt.Sprint("process ", t.rand.IntN(3))}
			if t.rand.IntN(12) == 0 {
				return admit.QuotaClaim{Account: id.account, Quota: id.quota, Period: id.period, Ends: newest, Limit: 100}
			}
			c := said[id]
			if c == nil {
				c = &admit.QuotaClaim{Account: id.account, Quota: id.quota, Period: id.period, Ends: newest, Process: id.process, Fresh: t.rand.IntN(2) == 0, Limit: 1 + t.rand.Int64N(200)}
				if t.rand.IntN(3) == 0 {
					c.Used = t.rand.Int64N(10) // the store may have forgotten it
				}
				said[id] = c
			} else if c.Fresh = t.rand.IntN(10) == 0; !c.Fresh && t.rand.IntN(3) > 0 {
				c.Used += t.rand.Int64N(12)
			}
			if t.rand.IntN(4) > 0 {
				c.Heard = c.Seq // else the answer was lost
			}
			c.Seq += 1 + t.rand.Int64N(3)
			c.Want = t.rand.Int64N(40) - 2
			c.Floor = 0
			if t.rand.IntN(8) == 0 {
				c.Floor = t.rand.Int64N(5)
				c.Want = max(c.Want, c.Floor)
			}
			if t.rand.IntN(50) == 0 {
				c.Limit = 1 + t.rand.Int64N(400)
			}
			return *c
		}
		for range calls {
			claims := make([]admit.QuotaClaim, t.rand.IntN(4))
			for i := range claims {
				claims[i] = next()
				before = append(before, claims[i])
			}
			balances := t.settle(claims...)
			for i, c := range claims {
				id := counted{c.Account, c.Quota, c.Period}
				m := models[id]
				if m == nil {
					m = &quotaModel{processes: make(map[string]*processModel)}
					models[id] = m
				}
				if want := m.balance(c); balances[i] != want {
					t.Fatalf("round %d: %+v has the balance\n%+v, not\n%+v", round, c, balances[i], want)
				}
			}
		}
		if t.Sleep == nil {
			continue
		}
		sums := make(map[counted]int64)
		for _, r := range t.drain() {
			sums[counted{r.Account, r.Quota, r.Period}] += r.Requests
		}
		for id, m := range models {
			if used := m.used(); used != sums[id] {
				t.Fatalf("round %d: of %+v %d are used, and records have %d", round, id, used, sums[id])
			}
		}
	}
}

// concurrent has processes that spend ahead, of one quota, until nothing is left.
func (t *quotaStoreTest) concurrent() {
	const processes = 8
	limit := int64(10_000) // so that 80 is heard before 100 is reached, though answers are lost
	if t.Slow {
		limit = 4000
	}
	var mu sync.Mutex
	told := map[int]int{}
	var spent int64
	var all sync.WaitGroup
	for p := range processes {
		random := rand.New(rand.NewPCG(t.rand.Uint64(), uint64(p)))
		c := t.claim("account", fmt.Sprint("process ", p), 0)
		c.Limit, c.Heard, c.Fresh = limit, 0, true
		all.Go(func() {
			hold := int64(0)
			for dry, claims := 0, int64(0); dry < 3; claims++ {
				if claims == limit { // several times as many as it takes
					t.Errorf("%d claims are not enough to spend %d", claims, limit)
					return
				}
				n := min(hold, random.Int64N(15))
				hold -= n
				c.Used += n
				c.Want = 1 + random.Int64N(30)
				c.Seq++
				balances, err := t.store.Settle(t.Context(), []admit.QuotaClaim{c})
				if err != nil {
					t.Errorf("Settle: %v", err)
					return
				}
				b := balances[0]
				if b.Used+b.Held > limit {
					t.Errorf("%d are used and %d are held of %d", b.Used, b.Held, limit)
					return
				}
				if random.IntN(4) == 0 { // the answer is lost
					// What it held before may be gone: it spends no more until it has heard again.
					hold = 0
					continue
				}
				hold, c.Heard, c.Fresh = b.MyHeld, c.Seq, false
				if b.Notice != 0 {
					mu.Lock()
					told[b.Notice]++
					mu.Unlock()
				}
				if dry++; hold > 0 {
					dry = 0
				}
			}
			c.Want = 0
			c.Seq++
			for range 2 { // the second one is a repetition
				if _, err := t.store.Settle(t.Context(), []admit.QuotaClaim{c}); err != nil {
					t.Errorf("Settle: %v", err)
				}
			}
			mu.Lock()
			spent += c.Used
			mu.Unlock()
		})
	}
	all.Wait()
	if t.Failed() {
		return
	}
	t.want(admit.QuotaBalance{Used: spent}, t.claim("account", "", 0))
	if spent > limit {
		t.Errorf("%d of %d are spent", spent, limit)
	}
	last := t.claim("account", "last", 1)
	last.Limit, last.Want = limit, limit
	if b := t.settle(last)[0]; b.MyHeld != limit-spent {
		t.Errorf("%d of %d are spent, and the last one gets %d", spent, limit, b.MyHeld)
	}
	if told[80] != 1 || spent == limit && told[100] != 1 {
		t.Errorf("somebody is told %v times of each threshold", told)
	}
}

// crossing makes calls whose claims are in all orders.
func (t *quotaStoreTest) crossing() {
	const goroutines, accounts = 8, 12
	calls := 40
	if t.Slow {
		calls = 10
	}
	var all sync.WaitGroup
	for g := range goroutines {
		random := rand.New(rand.NewPCG(t.rand.Uint64(), uint64(g)))
		claims := make([]admit.QuotaClaim, accounts)
		for i := range claims {
			claims[i] = t.claim(fmt.Sprint("account ", i), fmt.Sprint("process ", g), 0)
			claims[i].Limit = math.MaxInt32
		}
		all.Go(func() {
			for n := range calls {
				random.Shuffle(accounts, func(i, j int) { claims[i], claims[j] = claims[j], claims[i] })
				for i := range claims {
					claims[i].Seq, claims[i].Used, claims[i].Want = int64(n+1), int64(n*10), 5
				}
				balances, err := t.store.Settle(t.Context(), claims)
				if err != nil {
					t.Errorf("Settle: %v", err)
					return
				}
				for i, b := range balances {
					if b.MyUsed != claims[i].Used || b.MyHeld != 5 {
						t.Errorf("%+v has the balance %+v", claims[i], b)
						return
					}
				}
			}
		})
	}
	all.Wait()
	if t.Failed() {
		return
	}
	for i := range accounts {
		t.want(admit.QuotaBalance{Used: goroutines * int64(calls-1) * 10, Held: goroutines * 5}, t.claim(fmt.Sprint("account ", i), "", 0))
	}
}

func (t *quotaStoreTest) accounts() {
	longest := strings.Repeat("x", 5000)
	noise := make([]byte, 5000) // which no database compresses
	for i := range noise {
		noise[i] = byte(t.rand.IntN(256))
	}
	accounts := []string{
		"a", "A", "a ", " a", "a\x00", "\x00a", "\x00", "\xff", "\xff\xff", "\ufffd", "ä", "a\u0308", `\`, `\\`, `\x00`, `\xFF`, "'", `"`, "%", "$1", "?",
		longest, longest + "x", longest + "\x00", string(noise), string(noise) + "x", "\U0001F600", "\xed\xa0\x80", "a\nb",
	}
	var firsts, seconds []admit.QuotaClaim
	for i, account := range accounts {
		first := t.claim(account, "process "+account, 1)
		second := first
		second.Seq, second.Used, second.Want = 2, int64(i+1), 1
		firsts, seconds = append(firsts, first), append(seconds, second)
	}
	apart := seconds[0]
	apart.Quota, apart.Period = "2026-01-31/P1M", "month" // swapped
	apart.Seq = 3
	t.settle(firsts...)
	t.settle(seconds...)
	t.want(admit.QuotaBalance{Held: 1, MyUsed: apart.Used, MyHeld: 1}, apart)
	used := make(map[string]int64)
	for i, account := range accounts {
		t.want(admit.QuotaBalance{Used: int64(i + 1), Held: 1}, t.claim(account, "", 0))
		used[account] = int64(i + 1)
	}
	if t.Sleep == nil {
		return
	}
	exported := make(map[string]int64)
	for _, r := range t.drain() {
		exported[r.Account] += r.Requests
	}
	if !maps.Equal(used, exported) {
		t.Errorf("accounts have used %v, and records have %v", used, exported)
	}
}

func (t *quotaStoreTest) looks() {
	if balances := t.settle(); len(balances) != 0 {
		t.Fatalf("no claims have the balances %+v", balances)
	}
	look := t.claim("account", "", 5)
	look.Used, look.Want, look.Floor = 100, 100, 10
	for range 2 {
		t.want(admit.QuotaBalance{}, look)
	}
	first := t.claim("account", "process", 1)
	first.Want = 7
	balances := t.settle(look, first, look)
	for i, want := range []admit.QuotaBalance{{}, {Held: 7, MyHeld: 7}, {Held: 7}} {
		if balances[i] != want {
			t.Fatalf("the balances are %+v", balances)
		}
	}
	if t.Sleep != nil {
		if records := t.drain(); len(records) > 0 {
			t.Fatalf("nothing is used, and there are %+v", records)
		}
	}
}

// huge is what a service may give a request to cost.
func (t *quotaStoreTest) huge() {
	c := t.claim("account", "process", 1)
	t.settle(c)
	c.Seq, c.Used, c.Want, c.Floor = 2, math.MaxInt64, math.MaxInt64, math.MaxInt64
	t.want(admit.QuotaBalance{Used: math.MaxInt64, Held: math.MaxInt64, MyUsed: math.MaxInt64, MyHeld: math.MaxInt64, Notice: 100}, c)
	other := t.claim("account", "other", 1)
	t.settle(other)
	other.Seq, other.Used, other.Want = 2, math.MaxInt64-1, 1
	if b := t.settle(other)[0]; b.Used != math.MaxInt64 || b.MyHeld != 0 {
		t.Fatalf("%+v has the balance %+v", other, b)
	}
	low := t.claim("low", "process", 1)
	t.settle(low)
	low.Seq, low.Used = 2, 5
	t.settle(low)
	low.Seq, low.Used, low.Want, low.Floor = 3, math.MinInt64, math.MinInt64, math.MinInt64
	t.want(admit.QuotaBalance{Used: 5, MyUsed: 5}, low)
	for _, ends := range []time.Time{{}, time.Unix(1<<40, 0), time.Unix(-1<<40, 0)} {
		c := t.claim(fmt.Sprint("ends ", ends), "process", 1)
		c.Ends, c.Want = ends, 1
		t.want(admit.QuotaBalance{Held: 1, MyHeld: 1}, c)
	}
	if t.Sleep == nil {
		return
	}
	for _, r := range t.drain() {
		if r.Account == "account" && r.Requests < math.MaxInt64-1 {
			t.Fatalf("a record of the largest numbers is %+v", r)
		}
	}
}

func (t *quotaStoreTest) keeps() {
	quiet := t.claim("account", "quiet", 1)
	t.settle(quiet)
	quiet.Seq, quiet.Used = 2, 10
	t.want(admit.QuotaBalance{Used: 10, MyUsed: 10}, quiet)
	holder := t.claim("account", "holder", 1)
	holder.Want = 5
	t.settle(holder)

	t.Sleep(23 * time.Hour)
	t.settle(t.claim("account", "new", 1))
	quiet.Seq, quiet.Heard, quiet.Used = 3, 2, 30
	t.want(admit.QuotaBalance{Used: 30, Held: 5, MyUsed: 30}, quiet)

	t.Sleep(40*24*time.Hour - 23*time.Hour + 34*24*time.Hour) // 34 days after its end
	t.settle(t.claim("other account", "newer", 1))
	holder.Seq, holder.Heard, holder.Used, holder.Want = 2, 1, 4, 0
	t.want(admit.QuotaBalance{Used: 34, MyUsed: 4}, holder)
}

func (t *quotaStoreTest) offers() {
	t.Sleep(t.Now().Truncate(time.Minute).Add(time.Minute + time.Second).Sub(t.Now()))
	minute := t.Now().UTC().Truncate(time.Minute)
	t.use("a", 1)
	t.use("a", 2)
	t.use("b", 4)
	if records := t.offer(100); len(records) > 0 {
		t.Fatalf("the minute is not over, and these are offered: %+v", records)
	}
	t.Sleep(time.Minute)
	t.use("a", 8)
	if records := t.offer(100); len(records) > 0 {
		t.Fatalf("the minute has just ended, and these are offered: %+v", records)
	}
	t.Sleep(long)

	for _, most := range []int{0, -1} {
		if records := t.offer(most); len(records) > 0 {
			t.Fatalf("Offer(%d) returns %+v", most, records)
		}
	}
	records := append(t.offer(1), t.offer(1)...)
	records = append(records, t.offer(100)...)
	if again := t.offer(100); len(again) > 0 {
		t.Fatalf("these are offered again at once: %+v", again)
	}
	ids := make(map[string]bool)
	sums := make(map[string]int64) // of accounts and minutes
	for _, r := range records {
		if r.ID == "" || ids[r.ID] || r.Quota != "month" || r.Period != "2026-01-31/P1M" {
			t.Fatalf("a record is %+v", r)
		}
		ids[r.ID] = true
		sums[fmt.Sprintf("%s in minute %v", r.Account, r.Minute.UTC().Sub(minute))] += r.Requests
	}
	if want := map[string]int64{"a in minute 0s": 3, "b in minute 0s": 4, "a in minute 1m0s": 8}; !maps.Equal(want, sums) {
		t.Fatalf("the records have %v, not %v", sums, want)
	}
	if !slices.IsSortedFunc(records, func(a, b admit.UsageRecord) int { return a.Minute.Compare(b.Minute) }) {
		t.Fatalf("the first minute does not come first: %+v", records)
	}

	// Some are acknowledged, also twice, beside what never was.
	t.acknowledge()
	t.acknowledge(records[0].ID, "no such record", "", "\x00\xff", records[0].ID)
	t.acknowledge(records[0].ID)
	t.Sleep(long)
	byID := func(a, b admit.UsageRecord) int { return cmp.Compare(a.ID, b.ID) }
	again, rest := t.offer(100), slices.Clone(records[1:])
	slices.SortFunc(again, byID)
	slices.SortFunc(rest, byID)
	if !slices.EqualFunc(again, rest, sameRecord) {
		t.Fatalf("these are not acknowledged:\n%+v, and these are offered again:\n%+v", rest, again)
	}
	for _, r := range rest {
		t.acknowledge(r.ID)
	}
	t.Sleep(long)
	if records := t.offer(100); len(records) > 0 {
		t.Fatalf("all are acknowledged, and these are offered: %+v", records)
	}
}

func sameRecord(a, b admit.UsageRecord) bool {
	same := a.Minute.Equal(b.Minute)
	a.Minute = b.Minute
	return same && a == b
}

// offersShared is for exports that run in all replicas at once.
func (t *quotaStoreTest) offersShared() {
	const accounts = 60
	for i := range accounts {
		t.use(fmt.Sprint("account ", i), int64(1+i))
	}
	t.Sleep(long)
	var mu sync.Mutex
	seen := make(map[string]bool)
	sum := int64(0)
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			for range accounts { // what one finds locked, the next one gets
				records, err := t.store.Offer(context.Background(), 5)
				if err != nil {
					t.Errorf("Offer: %v", err)
					return
				}
				mu.Lock()
				for _, r := range records {
					if seen[r.ID] {
						t.Errorf("%+v is offered twice", r)
					}
					seen[r.ID] = true
					sum += r.Requests
				}
				mu.Unlock()
			}
		})
	}
	all.Wait()
	if want := int64(accounts * (accounts + 1) / 2); sum != want {
		t.Errorf("%d are used, and the records have %d", want, sum)
	}
}

// offeredStays sets the clock back to a minute that has been offered.
func (t *quotaStoreTest) offeredStays() {
	t.use("account", 3)
	t.Sleep(long)
	offered := t.offer(10)
	t.Sleep(-long)
	t.use("account", 4)
	t.Sleep(2 * long)
	again := t.offer(10)
	byUse := func(a, b admit.UsageRecord) int { return cmp.Compare(a.Requests, b.Requests) }
	slices.SortFunc(again, byUse)
	if len(offered) != 1 || len(again) != 2 || !sameRecord(offered[0], again[0]) || again[1].Requests != 4 || again[1].ID == again[0].ID {
		t.Fatalf("offered was %+v, and then, when 4 more were used, %+v", offered, again)
	}
}
