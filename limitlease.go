package admit

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/admit-go/admit/internal/lease"
)

// Lease lets a process take requests in advance from the Store of a Limiter: for each caller, as
// many as the caller will need soon. Most requests are then decided without a call to the Store.
// A service that uses a Lease should call [Limiter.Close] when it ends.
//
// The first request of a caller takes only its own cost from the Store. From the second request
// within For on, a call may take more: what the caller needs during For at its rate since the
// last call, but at most twice what the last call was for. A process holds at most
// Share*Burst/Replicas of each limit for one caller, rounded down. If that is less than 1, as for
// a Limit with a small Burst, nothing is taken in advance, and each request asks the Store. About
// ten are needed to save nine calls in ten.
//
// For one caller, all processes together admit at most Burst + Requests + Share*Burst of each
// limit in any period of length Per: what the Store gives in that period, and what the processes
// held when it began. This bound holds while at most Replicas processes run. A rolling deployment
// runs more, and two Limiters with one Name count as two processes. While the Store fails, a
// process spends what it holds first. After that StoreDown decides, and what it admits is not
// within the bound.
//
// What is left after For goes back with the next call for the caller, or within another For (or
// 100 ms, if For is shorter), and at Close. What cannot go back, because a process crashes or the
// Store does not respond, is lost to the caller.
//
// A caller that has used up a limit is rejected without a call until the Store would admit it. A
// caller that comes often enough to have something taken in advance is rejected for at least the
// time in which Share*Burst refills, but at most for For. Retry-After says so. What other
// processes give back counts only after that.
//
// RateLimit is computed from the last response of the Store, which is less than For old for a
// request that is admitted. Its r is too high by what other processes have admitted since, and
// too low by what they hold, at most Share*Burst.
//
// Only one request of a caller asks the Store at a time, with up to three calls if little is
// left. Other requests of the caller wait for the result, for at most 400 ms, and may then have
// to ask themselves.
//
// A Limiter keeps about 300 bytes, and the key, for each caller that came lately, up to twice For
// ago. It keeps at most 100,000 callers, of which at most 75,000 are counted by address or by
// CountBy. For all other callers, for a key longer than 256 bytes, and for a cost above the
// smallest Burst, each request asks the Store. When the limits of a caller change, each of its
// requests asks the Store until what was taken in advance of the old limits has gone back; that
// is not spent on the new limits. A Lease has no effect with a MemoryStore, which needs no call
// over a network.
type Lease struct {
	// Share is the part of Burst that all processes together may take in advance. Required.
	// Permitted: more than 0, at most 1.
	Share float64
	// For is how long requests that were taken in advance may be used. What is left then goes back.
	// Required. Permitted: 10 ms or more.
	For time.Duration
}

const shortestLease = 10 * time.Millisecond

// check adds the problems of l, the Lease of c.
func (l Lease) check(f *faults, c *LimiterConfig) {
	if l == (Lease{}) {
		return
	}
	if !(l.Share > 0 && l.Share <= 1) { // NaN is neither
		f.add("LimiterConfig.Lease.Share", "is %v; it is the part of Burst that may be taken ahead: more than 0 and at most 1, such as 0.25", l.Share)
	}
	if l.For < shortestLease {
		f.add("LimiterConfig.Lease.For", "is %v; it is how long requests that were taken ahead may be used: %v or more, such as time.Second", l.For, shortestLease)
	}
	if c.Store == nil {
		f.add("LimiterConfig.Lease", "is set, but there is no Store to take requests ahead from; leave it out, or set Store")
	} else if c.Replicas == 0 {
		f.add("LimiterConfig.Replicas", "is 0; a Lease needs the largest number of processes that share the Store at the same time")
	}
}

// terms returns what may be taken ahead of a list of limits; nil if nothing may.
func (l Lease) terms(limits []Limit, replicas int) *lease.Terms {
	of := make([]lease.Limit, len(limits))
	for i, limit := range limits {
		of[i] = lease.Limit{Burst: int64(limit.Burst), Requests: int64(limit.Requests), Per: limit.Per}
	}
	return lease.NewTerms(of, l.Share, replicas, l.For)
}

const (
	// maxLeased is how many callers have an account, and maxStrangers how many of those may be
	// callers without a key. Each request of another caller is a call to the store.
	maxLeased    = 100_000
	maxStrangers = maxLeased - maxLeased/keyedShare
	// maxLeaseKey is how long the key of a caller may be. CountBy may return any string.
	maxLeaseKey = 256
	leaseShards = 64
	// leaseTurns is how often the store is asked for one request at most: for the request and
	// ahead, for what the store has said is left, and for the request alone. A slow store is not
	// asked the second time.
	leaseTurns = 3
	// leaseSweep is the shortest time between two sweeps for leases that have ended.
	leaseSweep = 100 * time.Millisecond
	// leaseBatch is about how many callers a sweep collects before it gives back what is left of
	// their leases, and leaseGivers how many calls to the store do that at a time.
	leaseBatch  = 1024
	leaseGivers = 32
)

// leases is what a Limiter knows and holds of callers: an account for each that came lately.
//
// An account is changed under the lock of its shard; the store is never asked under that lock.
// While one request asks, others of the caller that need the store wait in a queue. The request
// that has asked serves the queue, and hands over to the first that has to ask again.
type leases struct {
	store  *guardedStore
	epoch  time.Time
	seeds  seeds
	last   time.Duration
	counts [2]atomic.Int64 // of accounts, by class
	shards [leaseShards]leaseShard
	closed atomic.Bool

	mu       sync.Mutex
	timer    *time.Timer   // for the next sweep; nil: there is no account
	sweeping chan struct{} // closed when the current sweep is over; nil: there is none
}

type leaseShard struct {
	mu       sync.Mutex
	accounts map[fingerprint]*leaseAccount
	hits     uint64
}

type leaseAccount struct {
	lease.Account
	set   *limitSet
	key   string
	class class
	queue []*leaseWaiter
}

// leaseWaiter is a request in a queue.
type leaseWaiter struct {
	cost int64
	turn chan leaseTurn // gets one, from whoever takes the waiter out of the queue
}

// leaseTurn is what a request in a queue is told: an answer, or that it has to ask.
type leaseTurn struct {
	storeAnswer
	ask bool
	n   int64
}

// storeAnswer is a decision of the store, or one that needed no call to it.
type storeAnswer struct {
	Decision
	asked bool
	err   error
}

func newLeases(store *guardedStore, last time.Duration) *leases {
	return &leases{store: store, epoch: time.Now(), last: last, seeds: newSeeds()}
}

func (ls *leases) now() time.Duration { return time.Since(ls.epoch) }

func (ls *leases) shardOf(id fingerprint) *leaseShard { return &ls.shards[id[1]%leaseShards] }

// key returns the key of a caller as a string, without an allocation if it has an account.
func (ls *leases) key(id fingerprint, key []byte) string {
	sh := ls.shardOf(id)
	sh.mu.Lock()
	a := sh.accounts[id]
	sh.mu.Unlock()
	if a != nil {
		return a.key
	}
	return string(key)
}

// take is Take of the store. It does not call the store, and asked is false, where it can decide
// by what is known and held of the caller.
func (ls *leases) take(ctx context.Context, states []LimitState, who caller, set *limitSet, cost int) (d Decision, asked bool, err error) {
	if set.lease == nil || !set.lease.Holds(int64(cost)) || ls.closed.Load() {
		d, err = ls.exact(ctx, who, set, cost)
		return d, true, err
	}
	sh := ls.shardOf(who.id)
	sh.mu.Lock()
	now := ls.now()
	a := ls.account(sh, now, who, set, cost)
	if a == nil {
		sh.mu.Unlock()
		d, err = ls.exact(ctx, who, set, cost)
		return d, true, err
	}
	v := lease.Ask
	switch {
	case cost > 0:
		v = a.Take(now, int64(cost))
	case a.Fresh(now) && (cost == 0 || cost >= -maxRequests && a.Give(now, -int64(cost))):
		v = lease.Spent
	}
	switch {
	case v == lease.Spent || v == lease.Refused:
		sh.hits++
		d = a.decision(states, now, int64(cost), v)
		sh.mu.Unlock()
		return d, false, nil
	case cost <= 0:
		sh.mu.Unlock()
		d, err = ls.back(ctx, sh, a, who, set, cost)
		return d, true, err
	}
	var answer storeAnswer
	if v == lease.Wait {
		w := &leaseWaiter{cost: int64(cost), turn: make(chan leaseTurn, 1)}
		a.queue = append(a.queue, w)
		sh.mu.Unlock()
		answer = ls.wait(ctx, sh, a, w, who, set)
	} else {
		n := a.Ask(now, int64(cost), 0)
		sh.mu.Unlock()
		answer = ls.ask(ctx, sh, a, int64(cost), n)
	}
	return answer.Decision, answer.asked, answer.err
}

// exact asks the store for cost alone.
func (ls *leases) exact(ctx context.Context, who caller, set *limitSet, cost int) (Decision, error) {
	return ls.store.take(ctx, who.key, cost, slices.Clone(set.limits))
}

// back is exact for a cost of 0, which looks, and for a negative cost, which gives back.
func (ls *leases) back(ctx context.Context, sh *leaseShard, a *leaseAccount, who caller, set *limitSet, cost int) (Decision, error) {
	d, err := ls.exact(ctx, who, set, cost)
	if err == nil && cost < 0 {
		sh.mu.Lock()
		if a.set == set {
			a.Returns(-max(int64(cost), -maxRequests))
		}
		sh.mu.Unlock()
	}
	return d, err
}

// account returns the account of a caller, a new one if it may have one. It returns nil if the
// caller has none, or one for other limits that is in use.
func (ls *leases) account(sh *leaseShard, now time.Duration, who caller, set *limitSet, cost int) *leaseAccount {
	a := sh.accounts[who.id]
	switch {
	case a != nil && a.set == set:
		return a
	case cost <= 0 || a != nil && !a.Free():
		return nil
	case a == nil:
		if len(who.key) > maxLeaseKey || !ls.reserve(who.class) {
			return nil
		}
		a = &leaseAccount{key: who.key, class: who.class}
		if sh.accounts == nil {
			sh.accounts = make(map[fingerprint]*leaseAccount)
		}
		sh.accounts[who.id] = a
	}
	a.Account, a.set = lease.New(set.lease, now), set
	return a
}

// reserve makes room for one more account, if there is any, and starts the sweeps.
func (ls *leases) reserve(c class) bool {
	n := ls.counts[c].Add(1)
	if c == unkeyed && n > maxStrangers || ls.counts[unkeyed].Load()+ls.counts[keyed].Load() > maxLeased {
		ls.counts[c].Add(-1)
		return false
	}
	ls.mu.Lock()
	defer ls.mu.Unlock()
	if ls.timer == nil && !ls.closed.Load() {
		ls.timer = time.AfterFunc(max(ls.last, leaseSweep), ls.sweep)
	}
	return true
}

// ask takes n from the store, for a request of this cost and ahead, and serves the queue.
func (ls *leases) ask(ctx context.Context, sh *leaseShard, a *leaseAccount, cost, n int64) storeAnswer {
	set := a.set // it does not change while a request asks
	began := ls.now()
	asking := ctx
	if ls.store.bounded && ctx.Err() == nil {
		asking = context.WithoutCancel(ctx) // others need the answer too, and it comes soon
	}
	for turn := 1; ; turn++ {
		ahead := n - cost
		late := func() {
			if ahead > 0 {
				_ = ls.giveBack(context.WithoutCancel(ctx), a.key, set, ahead) // else it is lost
			}
		}
		d, err := caught(asking, func(ctx context.Context) (Decision, error) {
			return ls.store.takeOr(ctx, a.key, int(n), slices.Clone(set.limits), late)
		})
		sh.mu.Lock()
		now := ls.now()
		answer, again := a.answered(now, cost, storeAnswer{d, true, err})
		if again && turn < leaseTurns {
			if now-began > slowFailure {
				turn = leaseTurns - 1
			}
			if turn == leaseTurns-1 {
				n = a.Only(now, cost)
			} else {
				n = a.Again(now, cost, a.waiting())
			}
			sh.mu.Unlock()
			continue
		}
		told := err == nil
		if ctx.Err() != nil {
			err = nil // of this request alone
		}
		rest := a.serve(now, told, err)
		if ls.closed.Load() {
			rest += a.Rest()
		}
		sh.mu.Unlock()
		if rest > 0 {
			_ = ls.giveBack(context.WithoutCancel(ctx), a.key, set, rest) // else it is lost
		}
		return answer
	}
}

// wait waits while another request asks. After storeWait it asks for the cost alone.
func (ls *leases) wait(ctx context.Context, sh *leaseShard, a *leaseAccount, w *leaseWaiter, who caller, set *limitSet) storeAnswer {
	late := time.NewTimer(storeWait)
	defer late.Stop()
	var turn leaseTurn
	select {
	case turn = <-w.turn:
	case <-late.C:
		if a.leave(sh, w) {
			d, err := ls.exact(ctx, who, set, int(w.cost))
			return storeAnswer{d, true, err}
		}
		turn = <-w.turn
	case <-ctx.Done():
		if a.leave(sh, w) {
			return storeAnswer{err: ctx.Err()}
		}
		turn = <-w.turn
	}
	if turn.ask {
		return ls.ask(ctx, sh, a, w.cost, turn.n)
	}
	return turn.storeAnswer
}

// leave removes a request from the queue, and reports whether it was there.
func (a *leaseAccount) leave(sh *leaseShard, w *leaseWaiter) bool {
	sh.mu.Lock()
	defer sh.mu.Unlock()
	i := slices.Index(a.queue, w)
	if i >= 0 {
		a.queue = slices.Delete(a.queue, i, i+1)
	}
	return i >= 0
}

// answered takes an answer of the store, and returns what it means for the request that has
// asked, or that it is worth asking for less.
func (a *leaseAccount) answered(now time.Duration, cost int64, answer storeAnswer) (_ storeAnswer, again bool) {
	alone := a.Alone(cost)
	states := make([]lease.State, len(answer.States))
	for i, st := range answer.States {
		states[i] = lease.State{Reset: st.Reset, Exceeded: st.Exceeded}
	}
	switch {
	case answer.err != nil:
		a.Failed(now)
		if a.Decide(now, cost) == lease.Spent {
			return storeAnswer{Decision: a.decision(nil, now, cost, lease.Spent)}, false
		}
		return answer, false
	case answer.Allowed:
		a.Granted(now, states)
	case a.Refused(now, cost, states):
		again = true
	}
	if again {
		return answer, true
	}
	// An answer about this cost alone is kept, unless the account knows a longer wait.
	if v := a.Decide(now, cost); v == lease.Spent || v == lease.Refused {
		if d := a.decision(nil, now, cost, v); !alone || d.Allowed != answer.Allowed || d.RetryAfter > answer.RetryAfter {
			answer.Decision = d
		}
	}
	return answer, false
}

// serve tells the requests in the queue what they get, up to the first that has to ask, and
// returns what is to go back. err is the error of a store that fails; told reports whether it has
// answered.
func (a *leaseAccount) serve(now time.Duration, told bool, err error) (rest int64) {
	for i, w := range a.queue {
		switch v := a.Decide(now, w.cost); {
		case v == lease.Spent || v == lease.Refused:
			w.turn <- leaseTurn{storeAnswer: storeAnswer{a.decision(nil, now, w.cost, v), told, nil}}
		case err != nil:
			w.turn <- leaseTurn{storeAnswer: storeAnswer{err: err}}
		default:
			rest = a.Trim()
			a.queue = slices.Delete(a.queue, 0, i+1)
			w.turn <- leaseTurn{ask: true, n: a.Ask(now, w.cost, a.waiting())}
			return rest
		}
	}
	a.queue = nil
	return a.Trim()
}

// waiting is what the requests in the queue cost.
func (a *leaseAccount) waiting() (sum int64) {
	for _, w := range a.queue {
		sum = min(sum+w.cost, maxRequests)
	}
	return sum
}

// decision returns the Decision for v. It appends the states to those given.
func (a *leaseAccount) decision(states []LimitState, now time.Duration, cost int64, v lease.Verdict) Decision {
	d := Decision{Allowed: v == lease.Spent}
	for i := range a.Known() {
		st := a.View(now, i, cost, v == lease.Refused)
		states = append(states, LimitState{Remaining: int(st.Remaining), Reset: st.Reset, Exceeded: st.Exceeded, Next: st.Next})
		if st.Exceeded {
			d.RetryAfter = max(d.RetryAfter, st.Reset)
		}
	}
	d.States = states
	return d
}

// leaseRest is what is to go back.
type leaseRest struct {
	key string
	set *limitSet
	n   int64
}

func (ls *leases) giveBack(ctx context.Context, key string, set *limitSet, n int64) error {
	_, err := caught(ctx, func(ctx context.Context) (Decision, error) {
		return ls.store.take(ctx, key, -int(n), slices.Clone(set.limits))
	})
	return err
}

// sweep gives back what is left of leases that have ended, and forgets callers that do not come
// any more. It starts the next sweep while there are accounts.
func (ls *leases) sweep() {
	ls.mu.Lock()
	if ls.closed.Load() {
		ls.mu.Unlock()
		return
	}
	done := make(chan struct{})
	ls.sweeping = done
	ls.mu.Unlock()

	var back []leaseRest
	for i := range ls.shards {
		if ls.closed.Load() {
			break // close takes the others
		}
		if back = ls.collect(back, &ls.shards[i], (*lease.Account).Ended); len(back) >= leaseBatch {
			_, _ = ls.giveAllBack(context.Background(), back) // else it is lost
			back = back[:0]
		}
	}
	_, _ = ls.giveAllBack(context.Background(), back)

	ls.mu.Lock()
	defer ls.mu.Unlock()
	ls.sweeping, ls.timer = nil, nil
	close(done)
	if !ls.closed.Load() && ls.counts[unkeyed].Load()+ls.counts[keyed].Load() > 0 {
		ls.timer = time.AfterFunc(max(ls.last, leaseSweep), ls.sweep)
	}
}

// giveAllBack gives back for several callers at a time, and returns for how many callers it
// failed. It returns after its goroutines have ended.
func (ls *leases) giveAllBack(ctx context.Context, back []leaseRest) (lost int, err error) {
	var (
		next   atomic.Int64
		mu     sync.Mutex
		givers sync.WaitGroup
	)
	for range min(leaseGivers, len(back)) {
		givers.Go(func() {
			for i := next.Add(1) - 1; i < int64(len(back)); i = next.Add(1) - 1 {
				if failed := ls.giveBack(ctx, back[i].key, back[i].set, back[i].n); failed != nil {
					mu.Lock()
					lost, err = lost+1, failed
					mu.Unlock()
				}
			}
		})
	}
	givers.Wait()
	return lost, err
}

// collect takes what is left out of the accounts of a shard, appends it to back, and forgets
// accounts that are not needed any more.
func (ls *leases) collect(back []leaseRest, sh *leaseShard, left func(*lease.Account, time.Duration) (rest int64, over bool)) []leaseRest {
	sh.mu.Lock()
	defer sh.mu.Unlock()
	now := ls.now()
	for id, a := range sh.accounts {
		rest, over := left(&a.Account, now)
		if rest > 0 {
			back = append(back, leaseRest{a.key, a.set, rest})
		}
		if over {
			delete(sh.accounts, id)
			ls.counts[a.class].Add(-1)
		}
	}
	if len(sh.accounts) == 0 {
		sh.accounts = nil // a map keeps its memory
	}
	return back
}

// sum returns how many requests are held, and how many decisions needed no call to the store.
func (ls *leases) sum() (held int64, hits uint64) {
	for i := range ls.shards {
		sh := &ls.shards[i]
		sh.mu.Lock()
		for _, a := range sh.accounts {
			held += a.Held()
		}
		hits += sh.hits
		sh.mu.Unlock()
	}
	return held, hits
}

// close gives back all that is left. A request that is still asking gives back by itself.
func (ls *leases) close(ctx context.Context) error {
	ls.mu.Lock()
	ls.closed.Store(true)
	if ls.timer != nil {
		ls.timer.Stop()
		ls.timer = nil
	}
	sweeping := ls.sweeping
	ls.mu.Unlock()
	if sweeping != nil {
		select {
		case <-sweeping:
		case <-ctx.Done():
		}
	}
	var back []leaseRest
	for i := range ls.shards {
		back = ls.collect(back, &ls.shards[i], (*lease.Account).Closed)
	}
	if lost, err := ls.giveAllBack(ctx, back); err != nil {
		return fmt.Errorf("admit: what was taken ahead for %d callers could not be given back: %w", lost, err)
	}
	return nil
}

// Close gives back to the Store what LimiterConfig.Lease has taken in advance. Call it after
// Server.Shutdown; requests that come later are decided as without a Lease. It makes one call for
// each caller that has something left, 32 at a time, and waits for each at most 400 ms, until ctx
// ends. The error says that something could not be given back; that is lost to its callers.
// Without a Lease, Close does nothing. It may be called more than once, and is safe for
// concurrent use.
func (l *Limiter) Close(ctx context.Context) error {
	if err := l.fault(); err != nil {
		return err
	}
	if l.leases == nil {
		return nil
	}
	return l.leases.close(ctx)
}
