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

// QuotaStoreOptions describe the clock of a store. The zero value is for a store with a clock
// that the tests cannot move. They then skip what takes minutes or days.
type QuotaStoreOptions struct {
	// Bubble runs every test in a bubble of testing/synctest, for a store that uses the clock
	// of package time in this process.
	Bubble bool
	// Sleep moves the clock of the store forward, or back for a negative duration, as when the
	// clock is set or another database takes over. Default: time.Sleep in a Bubble; otherwise
	// the clock cannot be moved.
	Sleep func(time.Duration)
	// Now returns the time by the clock of the store. Default: time.Now.
	Now func() time.Time
	// Slow is for a store whose calls take about a millisecond. It gets a small part of the
	// random claims.
	Slow bool
	// Seed makes the random tests repeatable. Zero means a random seed, which is logged.
	Seed uint64
}

// TestQuotaStore tests that a store does what admit.QuotaStore requires. The function newStore
// returns an empty store; it may close it with t.Cleanup.
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
		needs bool // true if the store can do what the test needs of the clock
	}{
		{"random claims agree with an exact model", (*quotaStoreTest).random, true},
		{"goroutines spend no more than the limit, and each use is counted once", (*quotaStoreTest).concurrent, true},
		{"concurrent calls with the same accounts do not deadlock", (*quotaStoreTest).crossing, true},
		{"accounts of any bytes and lengths are separate", (*quotaStoreTest).accounts, true},
		{"a claim that only looks leaves nothing", (*quotaStoreTest).looks, true},
		{"numbers that are too large do not overflow", (*quotaStoreTest).huge, true},
		{"a count is kept for as long as it is needed", (*quotaStoreTest).keeps, o.Sleep != nil},
		{"minutes are offered when they are over, until they are acknowledged", (*quotaStoreTest).offers, o.Sleep != nil},
		{"concurrent calls of Offer share the records", (*quotaStoreTest).offersShared, o.Sleep != nil},
		{"a record that has been offered never changes", (*quotaStoreTest).offeredStays, back},
	} {
		t.Run(test.name, func(t *testing.T) {
			if !test.needs {
				t.Skip("the test cannot move the clock of this store as it needs")
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
		t.Fatalf("Settle changed its argument claims from %+v to %+v", given, claims)
	}
	if len(balances) != len(claims) {
		t.Fatalf("Settle returned %d balances for %d claims", len(balances), len(claims))
	}
	return balances
}

// want settles one claim, and compares its balance.
func (t *quotaStoreTest) want(want admit.QuotaBalance, c admit.QuotaClaim) {
	t.Helper()
	if got := t.settle(c)[0]; got != want {
		t.Fatalf("%+v has the balance\n%+v, want\n%+v", c, got, want)
	}
}

// claim returns a claim for a period that is not over.
func (t *quotaStoreTest) claim(account, process string, seq int64) admit.QuotaClaim {
	return admit.QuotaClaim{
		Account: account, Quota: "month", Period: "2026-01-31/P1M", Ends: t.Now().Add(40 * 24 * time.Hour),
		Process: process, Seq: seq, Heard: seq - 1, Limit: 1000,
	}
}

// use makes the first claim of a process, which has used something.
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
		t.Fatalf("Offer(%d) returned %d records", most, len(records))
	}
	return records
}

func (t *quotaStoreTest) acknowledge(ids ...string) {
	t.Helper()
	if err := t.store.Acknowledge(t.Context(), ids); err != nil {
		t.Fatalf("Acknowledge(%q): %v", ids, err)
	}
}

// long is long enough for all usage to be offered, and to be offered again.
const long = time.Hour

// drain waits until everything can be offered, acknowledges it, and returns it.
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
				t.Fatalf("the record %+v is offered again after Acknowledge", r)
			}
			seen[r.ID] = true
			ids = append(ids, r.ID)
		}
		all = append(all, records...)
		t.acknowledge(ids...)
	}
}

// quotaModel implements the doc comment of admit.QuotaClaim for one count: it keeps the last
// claim of each process, and adds them up each time.
type quotaModel struct {
	processes map[string]*processModel
	told      int64 // the usage at the last notification
}

type processModel struct {
	seq               int64
	first, used, held int64 // first: what it had used before its first claim, which is not counted
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
			if m.used() < at || percent == 80 && m.used() >= c.Limit || at <= m.told { // at 100 there is no notice of 80
				continue
			}
			m.told, p.told, p.toldAt = at, percent, c.Seq
		}
	}
	return admit.QuotaBalance{Used: m.used(), Held: m.held(), MyUsed: p.used, MyHeld: p.held, Notice: int(p.told)}
}

// random makes claims of several processes. Some results are lost, and some claims are late or
// repeated.
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
			if len(before) > 0 && t.rand.IntN(10) == 0 { // a repeated or late claim
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
				c.Heard = c.Seq // else the result was lost
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
					t.Fatalf("round %d: %+v has the balance\n%+v, want\n%+v", round, c, balances[i], want)
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
				t.Fatalf("round %d: %+v has used %d, but the records have %d", round, id, used, sums[id])
			}
		}
	}
}

// concurrent lets processes take from one quota in advance, until nothing is left.
func (t *quotaStoreTest) concurrent() {
	const processes = 8
	limit := int64(10_000) // large enough for the notice of 80 before 100 is reached, though results are lost
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
				if claims == limit { // several times what is needed
					t.Errorf("%d claims did not spend %d", claims, limit)
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
					t.Errorf("%d used and %d held of %d", b.Used, b.Held, limit)
					return
				}
				if random.IntN(4) == 0 { // the result is lost
					// What it held may be gone, so it spends nothing until the next result.
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
		t.Errorf("%d of %d were spent", spent, limit)
	}
	last := t.claim("account", "last", 1)
	last.Limit, last.Want = limit, limit
	if b := t.settle(last)[0]; b.MyHeld != limit-spent {
		t.Errorf("%d of %d were spent, but the last claim got %d", spent, limit, b.MyHeld)
	}
	if told[80] != 1 || spent == limit && told[100] != 1 {
		t.Errorf("there were %v notices of each threshold, want 1", told)
	}
}

// crossing makes concurrent calls with the same claims in different orders.
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
	noise := make([]byte, 5000) // random, so that a database cannot compress it
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
		t.Errorf("the accounts have used %v, but the records have %v", used, exported)
	}
}

func (t *quotaStoreTest) looks() {
	if balances := t.settle(); len(balances) != 0 {
		t.Fatalf("Settle without claims returned the balances %+v", balances)
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
			t.Fatalf("nothing was used, but Offer returned %+v", records)
		}
	}
}

// huge tests costs that a service may give to a request.
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
			t.Fatalf("the record of the largest numbers is %+v", r)
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
		t.Fatalf("the minute is not over, but Offer returned %+v", records)
	}
	t.Sleep(time.Minute)
	t.use("a", 8)
	if records := t.offer(100); len(records) > 0 {
		t.Fatalf("the minute has only just ended, but Offer returned %+v", records)
	}
	t.Sleep(long)

	for _, most := range []int{0, -1} {
		if records := t.offer(most); len(records) > 0 {
			t.Fatalf("Offer(%d) returned %+v", most, records)
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
		t.Fatalf("the records have %v, want %v", sums, want)
	}
	if !slices.IsSortedFunc(records, func(a, b admit.UsageRecord) int { return a.Minute.Compare(b.Minute) }) {
		t.Fatalf("the oldest minute is not the first: %+v", records)
	}

	// Some are acknowledged, some of them twice, together with ids that never existed.
	t.acknowledge()
	t.acknowledge(records[0].ID, "no such record", "", "\x00\xff", records[0].ID)
	t.acknowledge(records[0].ID)
	t.Sleep(long)
	byID := func(a, b admit.UsageRecord) int { return cmp.Compare(a.ID, b.ID) }
	again, rest := t.offer(100), slices.Clone(records[1:])
	slices.SortFunc(again, byID)
	slices.SortFunc(rest, byID)
	if !slices.EqualFunc(again, rest, sameRecord) {
		t.Fatalf("these are not acknowledged:\n%+v, but these are offered again:\n%+v", rest, again)
	}
	for _, r := range rest {
		t.acknowledge(r.ID)
	}
	t.Sleep(long)
	if records := t.offer(100); len(records) > 0 {
		t.Fatalf("all are acknowledged, but Offer returned %+v", records)
	}
}

func sameRecord(a, b admit.UsageRecord) bool {
	same := a.Minute.Equal(b.Minute)
	a.Minute = b.Minute
	return same && a == b
}

// offersShared tests exports that run in all replicas at once.
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
			for range accounts { // a call may skip records that another has locked
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
		t.Errorf("%d were used, but the records have %d", want, sum)
	}
}

// offeredStays moves the clock back to a minute that has been offered.
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
		t.Fatalf("the record %+v was offered, and after more usage %+v", offered, again)
	}
}
