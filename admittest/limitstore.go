// Package admittest tests implementations of the interfaces of admit, and tests that a service
// keeps the contract that it publishes.
package admittest

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/admit-go/admit"
)

// LimitStoreOptions describe the clock of a store. The zero value is for a store with a real
// clock, which the tests cannot move. They then take some seconds.
type LimitStoreOptions struct {
	// Bubble runs every test in a bubble of testing/synctest, for a store that uses the clock
	// of package time in this process.
	Bubble bool
	// Sleep moves the clock of the store forward. Default: time.Sleep.
	Sleep func(time.Duration)
	// Now returns the time by the clock of the store. Its offset does not matter. Default:
	// time.Now.
	Now func() time.Time
	// Precision is the resolution of the clock of the store. Default: 10 ns.
	Precision time.Duration
	// Slow is for a store whose calls take about a millisecond. It gets a small part of the
	// random operations.
	Slow bool
	// Seed makes the random tests repeatable. Zero means a random seed, which is logged.
	Seed uint64
}

// TestLimitStore tests that a store decides as admit.LimitStore requires. The function newStore
// returns an empty store; it may close it with t.Cleanup.
func TestLimitStore(t *testing.T, newStore func(t *testing.T) admit.LimitStore, o LimitStoreOptions) {
	movable := o.Bubble || o.Sleep != nil
	if o.Sleep == nil {
		o.Sleep = time.Sleep
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Precision == 0 {
		o.Precision = 10 * time.Nanosecond
	}
	for _, test := range []struct {
		name string
		run  func(*limitStoreTest)
	}{
		{"random operations agree with an exact model", (*limitStoreTest).random},
		{"a caller that waits for RetryAfter is admitted", (*limitStoreTest).retryAfter},
		{"Remaining requests are admitted, and no more", (*limitStoreTest).whatRemains},
		{"at most Burst and Requests in any one Per", (*limitStoreTest).bound},
		{"all limits are charged or none", (*limitStoreTest).allOrNone},
		{"a cost of 0 looks, a negative one gives back", (*limitStoreTest).costs},
		{"keys have separate buckets", (*limitStoreTest).keys},
		{"limits have separate buckets", (*limitStoreTest).limits},
		{"limits that are not valid are an error", (*limitStoreTest).faults},
		{"16 goroutines get no more than one", (*limitStoreTest).concurrent},
	} {
		t.Run(test.name, func(t *testing.T) {
			run := func(t *testing.T) {
				seed := o.Seed
				if seed == 0 {
					seed = rand.Uint64()
				}
				t.Logf("seed %d", seed)
				test.run(&limitStoreTest{
					T: t, LimitStoreOptions: o, movable: movable, store: newStore(t),
					rand: rand.New(rand.NewPCG(seed, 0)),
				})
			}
			if o.Bubble {
				synctest.Test(t, run)
			} else {
				run(t)
			}
		})
	}
}

type limitStoreTest struct {
	*testing.T
	LimitStoreOptions
	movable bool // the test can move the clock
	store   admit.LimitStore
	rand    *rand.Rand
}

func (t *limitStoreTest) take(key string, cost int, limits ...admit.Limit) admit.Decision {
	t.Helper()
	given := slices.Clone(limits)
	d, err := t.store.Take(t.Context(), key, cost, limits)
	if err != nil {
		t.Fatalf("Take(%q, %d, %v): %v", key, cost, limits, err)
	}
	if !slices.Equal(given, limits) {
		t.Fatalf("Take changed its argument limits from %v to %v", given, limits)
	}
	if len(d.States) != len(limits) {
		t.Fatalf("Take(%q, %d, %v) returned %d States, want %d", key, cost, limits, len(d.States), len(limits))
	}
	return d
}

// spend calls Take, which must allow the cost.
func (t *limitStoreTest) spend(key string, cost int, limits ...admit.Limit) admit.Decision {
	t.Helper()
	d := t.take(key, cost, limits...)
	if !d.Allowed {
		t.Fatalf("Take(%q, %d, %v) = %+v, want it allowed", key, cost, limits, d)
	}
	return d
}

// refuse calls Take, which must not allow the cost.
func (t *limitStoreTest) refuse(key string, cost int, limits ...admit.Limit) admit.Decision {
	t.Helper()
	d := t.take(key, cost, limits...)
	if d.Allowed {
		t.Fatalf("Take(%q, %d, %v) = %+v, want it not allowed", key, cost, limits, d)
	}
	return d
}

func (t *limitStoreTest) remaining(want int, key string, limit admit.Limit) {
	t.Helper()
	if d := t.spend(key, 0, limit); d.States[0].Remaining != want {
		t.Fatalf("Remaining of %q is %d with the limit %v, want %d", key, d.States[0].Remaining, limit, want)
	}
}

// slow is a limit that gives nothing back while a test runs.
func slow(name string, n int) admit.Limit {
	return admit.Limit{Name: name, Requests: 1, Per: 100 * time.Hour, Burst: n}
}

// random compares the store with a model that does not round.
func (t *limitStoreTest) random() {
	rounds, operations := 150, 300
	switch {
	case !t.movable:
		rounds, operations = 20, 500
	case t.Slow:
		rounds = 8
	}
	for round := range rounds {
		callers := 1 + t.rand.IntN(3)
		if round%5 == 0 {
			callers *= 50
		}
		key := func() string { return fmt.Sprintf("round %d caller %d", round, t.rand.IntN(callers)) }
		lists := make([][]admit.Limit, 1+t.rand.IntN(3))
		for i := range lists {
			for j := range 1 + t.rand.IntN(3) {
				lists[i] = append(lists[i], t.limit(fmt.Sprint("limit ", j)))
			}
		}
		m := model{precision: t.Precision, buckets: make(map[bucketKey]*bucket)}
		var refused admit.Decision
		for i := range operations {
			limits, key := lists[t.rand.IntN(len(lists))], key()
			t.pause(limits, refused)
			cost := t.cost(limits)
			before := t.Now()
			d := t.take(key, cost, limits...)
			after := t.Now()
			if err := m.check(key, cost, limits, before, after, d); err != nil {
				t.Fatalf("round %d, operation %d, Take(%q, %d, %+v) is %+v: %v", round, i, key, cost, limits, d, err)
			}
			if refused = d; d.Allowed {
				refused.RetryAfter = 0
			}
		}
	}
}

func (t *limitStoreTest) limit(name string) admit.Limit {
	l := admit.Limit{Name: name, Requests: 1 + t.rand.IntN(20)}
	switch t.rand.IntN(4) {
	case 0:
		l.Requests = 1 + t.rand.IntN(1000)
	case 1:
		l.Burst = 1 + t.rand.IntN(2*l.Requests)
	case 2:
		l.Burst = 1
	}
	// With a real clock, a bucket must refill slowly compared with the time of a call.
	periods := []time.Duration{10 * time.Second, time.Minute, time.Hour, 24 * time.Hour}
	if t.movable {
		periods = append(periods, time.Second, 1500*time.Millisecond, 7*time.Second+time.Nanosecond, 30*24*time.Hour)
	}
	l.Per = periods[t.rand.IntN(len(periods))]
	return l
}

func (t *limitStoreTest) cost(limits []admit.Limit) int {
	burst := max(limits[0].Burst, 1)
	switch t.rand.IntN(10) {
	case 0:
		return 0
	case 1:
		return -1 - t.rand.IntN(burst)
	case 2, 3:
		return 1 + t.rand.IntN(burst+1)
	default:
		return 1
	}
}

// pause lets time pass: none, the RetryAfter of the last refusal, or enough to refill a bucket
// in part.
func (t *limitStoreTest) pause(limits []admit.Limit, refused admit.Decision) {
	if !t.movable {
		if t.rand.IntN(100) == 0 {
			t.Sleep(time.Duration(t.rand.IntN(int(5 * time.Millisecond))))
		}
		return
	}
	l := limits[t.rand.IntN(len(limits))]
	switch t.rand.IntN(8) {
	case 0:
		t.Sleep(wholeSeconds(refused.RetryAfter))
	case 1:
		t.Sleep(max(refused.RetryAfter, 0))
	case 2:
		t.Sleep(time.Duration(t.rand.Int64N(int64(2 * l.Per))))
	case 3, 4:
		t.Sleep(time.Duration(t.rand.Int64N(1 + int64(2*l.Per)/int64(l.Requests))))
	}
}

// wholeSeconds rounds up to seconds, as the header Retry-After does.
func wholeSeconds(d time.Duration) time.Duration {
	if d <= 0 {
		return 0
	}
	return (d + time.Second - 1).Truncate(time.Second)
}

// retryAfter empties buckets in random ways, and then waits for RetryAfter.
func (t *limitStoreTest) retryAfter() {
	n := 2000
	switch {
	case !t.movable:
		n = 20
	case t.Slow:
		n = 30
	}
	var waiting sync.WaitGroup
	defer waiting.Wait()
	for i := range n {
		limits := []admit.Limit{t.limit("first"), t.limit("second")}[:1+t.rand.IntN(2)]
		key, cost := fmt.Sprint("caller ", i), 1
		switch {
		case !t.movable:
			limits = []admit.Limit{{Name: "first", Requests: 1 + t.rand.IntN(5), Per: time.Second}}
		case i%3 == 0:
			cost = 1 + t.rand.IntN(max(limits[0].Burst, 1))
		}
		refusal := t.take(key, cost, limits...)
		for takes := 1; refusal.Allowed; takes++ {
			if takes == 20_000 { // bursts are at most 2000, and the bucket refills more slowly than it is spent
				t.Fatalf("%q is never rejected with the limits %v", key, limits)
			}
			if t.movable && t.rand.IntN(3) == 0 {
				t.Sleep(time.Duration(t.rand.Int64N(1 + int64(limits[0].Per)/int64(limits[0].Requests)/2)))
			}
			refusal = t.take(key, cost, limits...)
		}
		if refusal.RetryAfter < 0 {
			continue // more than the burst of one of the limits
		}
		if refusal.RetryAfter == 0 {
			t.Fatalf("a refusal with the limits %v without RetryAfter: %+v", limits, refusal)
		}
		if most := t.longest(cost, limits); refusal.RetryAfter > most {
			t.Fatalf("RetryAfter is %v for the cost %d with the limits %v, want at most %v: %+v", refusal.RetryAfter, cost, limits, most, refusal)
		}
		if t.movable {
			wait := refusal.RetryAfter
			if i%2 == 0 {
				wait = wholeSeconds(wait)
			}
			t.Sleep(wait)
			t.spend(key, cost, limits...)
			continue
		}
		waiting.Go(func() {
			time.Sleep(wholeSeconds(refusal.RetryAfter))
			if d, err := t.store.Take(t.Context(), key, cost, limits); err != nil || !d.Allowed {
				t.Errorf("%q is rejected after waiting %v with the limits %v: %+v, %v", key, refusal.RetryAfter, limits, d, err)
			}
		})
	}
}

// longest returns the longest wait for a cost, which is that of empty buckets. The test does
// not sleep longer, or a wrong store could make it sleep for days.
func (t *limitStoreTest) longest(cost int, limits []admit.Limit) (most time.Duration) {
	for _, l := range limits {
		n := int64(l.Requests)
		most = max(most, time.Duration((int64(cost)*int64(l.Per)+n-1)/n))
	}
	return most + t.Precision
}

// whatRemains spends exactly what Remaining says.
func (t *limitStoreTest) whatRemains() {
	for i := range 1000 {
		l := slow("limit", 1+t.rand.IntN(100))
		if t.movable { // else the bucket might refill in between
			l = t.limit("limit")
		}
		key := fmt.Sprint("caller ", i)
		t.spend(key, 1, l)
		for range 5 {
			if t.movable {
				t.Sleep(time.Duration(t.rand.IntN(3)) * l.Per / time.Duration(l.Requests))
			}
			left := t.spend(key, 0, l).States[0].Remaining
			t.refuse(key, left+1, l)
			if t.movable {
				t.Sleep(t.Precision) // the store may remember the refusal as that much later
			}
			if n := t.rand.IntN(left + 1); n > 0 {
				t.spend(key, left, l)
				t.spend(key, n-left, l)
			}
		}
	}
}

// bound calls Take as often as it can, and counts what is allowed.
func (t *limitStoreTest) bound() {
	for i := range 25 {
		l := t.limit("limit")
		if i == 3 && (t.Slow || !t.movable) {
			return
		}
		if !t.movable {
			l = admit.Limit{Name: "limit", Requests: 1 + t.rand.IntN(50), Per: 200 * time.Millisecond}
		}
		key := fmt.Sprint("caller ", i)
		start := t.Now()
		var admitted []time.Time // the earliest times at which it may have been
		for t.Now().Sub(start) < 3*l.Per && len(admitted) < 2000 {
			before := t.Now()
			d := t.take(key, 1, l)
			if d.Allowed {
				admitted = append(admitted, before)
			}
			if t.movable {
				t.Sleep(max(1, time.Duration(t.rand.Int64N(1+int64(l.Per)/int64(l.Requests)/3))))
			}
		}
		most := l.Requests + max(l.Burst, 0)
		if l.Burst == 0 {
			most = 2 * l.Requests
		}
		slack := t.Precision
		if !t.movable {
			slack = 5 * time.Millisecond // of a call
		}
		for first := range admitted {
			if last := first + most; last < len(admitted) && admitted[last].Sub(admitted[first]) < l.Per-slack {
				t.Fatalf("the limit %v admitted %d in %v, want at most %d", l, most+1, admitted[last].Sub(admitted[first]), most)
			}
		}
	}
}

func (t *limitStoreTest) allOrNone() {
	wide, narrow := slow("wide", 10), slow("narrow", 3)
	t.spend("caller", 3, wide, narrow)
	for range 5 {
		d := t.refuse("caller", 1, wide, narrow)
		if d.States[0].Exceeded || !d.States[1].Exceeded {
			t.Fatalf("only the second limit must be Exceeded: %+v", d)
		}
		if d.RetryAfter <= 0 || d.RetryAfter != d.States[1].Reset {
			t.Fatalf("RetryAfter must be the Reset of the exceeded limit: %+v", d)
		}
	}
	t.remaining(7, "caller", wide)
	t.remaining(0, "caller", narrow)
	t.refuse("caller", 1, narrow, wide)
	t.spend("caller", 7, wide)
	if d := t.refuse("caller", 1, wide, narrow); !d.States[0].Exceeded || !d.States[1].Exceeded || d.RetryAfter != max(d.States[0].Reset, d.States[1].Reset) {
		t.Fatalf("both limits must be Exceeded, and RetryAfter the longer Reset: %+v", d)
	}
}

func (t *limitStoreTest) costs() {
	l := slow("limit", 10)
	t.remaining(10, "caller", l)
	t.spend("caller", -5, l)
	t.remaining(10, "caller", l)
	t.spend("caller", 4, l)
	t.remaining(6, "caller", l)
	t.refuse("caller", 7, l)
	t.remaining(6, "caller", l)
	t.spend("caller", -3, l)
	t.remaining(9, "caller", l)
	t.spend("caller", -3, l)
	t.remaining(10, "caller", l)
	t.spend("caller", 10, l)
	t.remaining(0, "caller", l)
	t.refuse("caller", 1, l)
	t.spend("caller", -1_000_000, l)
	t.remaining(10, "caller", l)

	if d := t.refuse("caller", 11, l); d.RetryAfter >= 0 || !d.States[0].Exceeded {
		t.Fatalf("a cost of 11 with a Burst of 10 must be rejected with a negative RetryAfter: %+v", d)
	}
	if d := t.refuse("caller", 11, slow("wide", 20), l); d.RetryAfter >= 0 || d.States[0].Exceeded {
		t.Fatalf("a cost of 11 with a Burst of 10 must be rejected with a negative RetryAfter, whatever the other limit is: %+v", d)
	}
	t.remaining(20, "caller", slow("wide", 20))
	for _, l := range []admit.Limit{l, admit.PerSecond(10), {Name: "century", Requests: 1, Per: 100 * 365 * 24 * time.Hour}} {
		full := t.take("huge", 0, l).States[0].Remaining
		for _, cost := range hugeCosts {
			if d := t.refuse("huge", cost, l); d.RetryAfter >= 0 || !d.States[0].Exceeded {
				t.Fatalf("a cost of %d with the limit %v must be rejected with a negative RetryAfter: %+v", cost, l, d)
			}
			t.remaining(full, "huge", l)
			t.spend("huge", -cost, l)
			t.remaining(full, "huge", l)
		}
		t.spend("huge", math.MinInt, l)
		t.remaining(full, "huge", l)
	}
	if d := t.spend("caller", 3, l); d.States[0].Exceeded || d.States[0].Remaining != 7 || d.States[0].Reset <= 0 || d.RetryAfter != 0 {
		t.Fatalf("after a cost of 3 with a Burst of 10, Remaining must be 7: %+v", d)
	}
}

func (t *limitStoreTest) keys() {
	l := slow("limit", 1)
	long := strings.Repeat("x", 5000)
	keys := []string{
		"", "a", "A", "a ", "a:", ":a", "key:a", "addr:a", "key:", "addr:", "key:a:limit", "a\x00", "\x00a", "{a}", "a}",
		"ä", "a\u0308", "\xff", "limit", long, long + "x", "key:" + long, "192.0.2.1", "2001:db8::",
	}
	for _, key := range keys {
		t.spend(key, 1, l)
	}
	for _, key := range keys {
		t.refuse(key, 1, l)
	}
}

// limits tests that limits with other names or other numbers have other buckets: a caller whose
// plan has changed does not start with the debts of another limit.
func (t *limitStoreTest) limits() {
	all := []admit.Limit{
		slow("limit", 1), slow("limit", 2), slow("Limit", 1), slow("limit ", 1), slow(`"`, 1),
		{Name: "limit", Requests: 2, Per: 100 * time.Hour, Burst: 1},
		{Name: "limit", Requests: 1, Per: 200 * time.Hour, Burst: 1},
	}
	for _, l := range all {
		t.spend("caller", l.Burst, l)
	}
	for _, l := range all {
		t.refuse("caller", 1, l)
	}
	// A limit with defaults is the same limit as one that has these values.
	short := admit.Limit{Requests: 3, Per: 100 * time.Hour}
	t.spend("caller", 3, short)
	short.Burst = 3
	t.refuse("caller", 1, short)
	short.Name = short.Per.String()
	t.refuse("caller", 1, short)
}

func (t *limitStoreTest) faults() {
	good := slow("limit", 1)
	for _, limits := range [][]admit.Limit{
		nil,
		{{Name: "no requests", Per: time.Second}},
		{{Name: "negative", Requests: -1, Per: time.Second}},
		{{Name: "too many", Requests: 1_000_000_001, Per: time.Hour}},
		{{Name: "no period", Requests: 1}},
		{{Name: "negative period", Requests: 1, Per: -time.Second}},
		{{Name: "nanoseconds", Requests: 1, Per: 60}},
		{{Name: "too fast", Requests: 2_000_000, Per: time.Millisecond}},
		{{Name: "negative burst", Requests: 1, Per: time.Second, Burst: -1}},
		{{Name: "too much burst", Requests: 1, Per: time.Second, Burst: 1_000_000_001}},
		{{Name: "too slow", Requests: 1, Per: 1_000_000 * time.Hour}},
		{{Name: "line\nfeed", Requests: 1, Per: time.Second}},
		{{Name: "ä", Requests: 1, Per: time.Second}},
		{{Name: strings.Repeat("x", 65), Requests: 1, Per: time.Second}},
		{good, good},
		{good, slow("limit", 2)},
		{good, {Name: "no requests", Per: time.Second}},
	} {
		if d, err := t.store.Take(context.Background(), "caller", 1, limits); err == nil || d.Allowed {
			t.Errorf("Take accepts the limits %+v, which are not valid: %+v, %v", limits, d, err)
		}
	}
	t.remaining(1, "caller", good)
}

func (t *limitStoreTest) concurrent() {
	wide, narrow := slow("wide", 1500), slow("narrow", 1000)
	var admitted, spent atomic.Int64
	var goroutines sync.WaitGroup
	for g := range 16 {
		costs := rand.New(rand.NewPCG(t.rand.Uint64(), uint64(g)))
		goroutines.Go(func() {
			for range 150 {
				cost := 1 + costs.IntN(2)
				d, err := t.store.Take(t.Context(), "caller", cost, []admit.Limit{wide, narrow})
				if err != nil {
					t.Errorf("Take: %v", err)
					return
				}
				if d.Allowed {
					admitted.Add(1)
					spent.Add(int64(cost))
				}
			}
		})
	}
	goroutines.Wait()
	for spent.Load() <= 1000 && t.take("caller", 1, wide, narrow).Allowed {
		admitted.Add(1)
		spent.Add(1)
	}
	if spent.Load() != 1000 {
		t.Errorf("%d calls spent %d in all, want 1000", admitted.Load(), spent.Load())
	}
	t.remaining(500, "caller", wide)
	t.remaining(0, "caller", narrow)
}

// hugeCosts are too large for a time.Duration, for a float64, and for anything but an int. The
// client of a service may choose the cost.
var hugeCosts = []int{2_000, 1_000_000, math.MaxInt32, math.MaxInt / 1024, math.MaxInt - 1, math.MaxInt}
