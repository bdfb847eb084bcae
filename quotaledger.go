package admit

import (
	"context"
	"crypto/rand"
	"fmt"
	"log/slog"
	"math"
	"runtime/debug"
	"sync"
	"time"

	"github.com/admit-go/admit/internal/calendar"
	"github.com/admit-go/admit/internal/outage"
	"github.com/admit-go/admit/internal/shares"
)

const (
	// quotaRest is how long after its last use a share goes back, and within which time the store
	// is told of what was used.
	quotaRest = time.Minute
	// quotaAgain is how long the store is not asked again for more of a quota that is used up, or
	// for more ahead after it has failed.
	quotaAgain = time.Second
	// quotaBatch is the largest number of claims in one call.
	quotaBatch = 256
	// quotaClose is how long Close waits for each call, even to a store that has failed before:
	// what it cannot report is lost.
	quotaClose = 10 * time.Second
)

// quotaLedger is what a process knows of quotas, and the only user of the store. It has a counter
// for each quota of the accounts that came in the last minutes.
//
// Counters are changed under the lock; the store is never asked under it. A counter has at most
// one claim under way, its flight.
type quotaLedger struct {
	store     QuotaStore
	guard     storeGuard
	process   string
	down      StoreDown
	processes int
	notify    func(QuotaNotice) // nil: nobody is told

	mu       sync.Mutex
	seq      int64
	telling  int                      // notices that are being delivered
	told     chan struct{}            // closed when telling is 0; nil: nobody waits for it
	periods  map[periodID]quotaPeriod // the current ones
	counters map[countID]*quotaCounter
	queue    []*quotaCounter // all counters, each once, by due
	timer    *time.Timer     // for the first of the queue; nil: the queue is empty
}

// periodID identifies the periods that begin at the same times.
type periodID struct {
	every  Period
	anchor int64
}

type quotaPeriod struct {
	calendar.Period
	name string
}

// maxPeriods bounds the periods that are kept. With more billing days, some are computed again.
const maxPeriods = 10_000

// quotaCounter is the quota of an account in a period.
type quotaCounter struct {
	shares.Counter
	id     countID
	period calendar.Period

	limit  int64        // as last seen
	flight *quotaFlight // nil: there is none
	next   *quotaFlight // for requests that came during the flight; nil: there are none
	owed   int64        // to requests for which the store was asked, and that have not woken up yet
	heard  int64        // QuotaClaim.Heard
	fullTo time.Time    // until then, the store has no more
	fullAt int64        // within this limit
	quiet  time.Time    // until then, nothing is asked for ahead

	lastUse time.Time
	due     time.Time // when lookAfter is to see it next
}

// quotaFlight is a claim that is under way, or that follows the one under way.
type quotaFlight struct {
	shares.Claim
	seq, limit int64
	demand     int64         // of the requests that wait for it
	owed       bool          // demand is in quotaCounter.owed
	done       chan struct{} // closed when it has been answered, or is not needed
	err        error         // valid then
}

func newQuotaLedger(c QuotasConfig) *quotaLedger {
	l := &quotaLedger{
		store: c.Store, process: rand.Text(), down: c.StoreDown, processes: max(c.Replicas, 1), notify: c.Notify,
		periods: make(map[periodID]quotaPeriod), counters: make(map[countID]*quotaCounter),
	}
	l.guard.begin()
	return l
}

// periodOf returns the current period of a quota.
func (l *quotaLedger) periodOf(now time.Time, on quotaAccount, q Quota) quotaPeriod {
	id := periodID{q.Every, on.anchorID}
	p := l.periods[id]
	if !p.Contains(now) {
		p.Period = calendar.In(now, calendar.Unit(q.Every), on.anchor, on.loc)
		p.name = p.Name()
		if len(l.periods) >= maxPeriods {
			clear(l.periods)
		}
		l.periods[id] = p
	}
	return p
}

// find returns the counter of a quota in a period. It has the same identity as in the store: with
// two counters there and one here, the use of one would be reported as the use of the other.
func (l *quotaLedger) find(now time.Time, on quotaAccount, q Quota, p quotaPeriod) *quotaCounter {
	id := countID{on.account, q.Name, p.name}
	c := l.counters[id]
	if c == nil {
		c = &quotaCounter{id: id, period: p.Period, heard: l.seq}
		l.counters[id] = c
		l.enqueue(c, now)
	}
	c.limit, c.lastUse = q.Requests, now
	return c
}

// spending is what a request spends of a quota.
type spending struct {
	counter  *quotaCounter
	period   calendar.Period
	left     int64
	exceeded bool         // the quota does not have so much
	flight   *quotaFlight // whose demand includes the cost
}

// take begins to spend cost from all quotas of an account, or from none, and appends to spent.
// The error is that of ctx, or of the store, and then the decision was made without it.
func (l *quotaLedger) take(ctx context.Context, on quotaAccount, cost int64, spent []spending) (_ []spending, allowed bool, err error) {
	quotas := on.set.quotas
	asked := false
	for {
		l.mu.Lock()
		now := time.Now()
		leave(spent, cost)
		spent = spent[:0]
		for _, q := range quotas {
			p := l.periodOf(now, on, q)
			spent = append(spent, spending{counter: l.find(now, on, q, p), period: p.Period})
		}
		allowed = l.tryLocked(quotas, spent, cost, asked, err)
		var asking []*quotaCounter
		var wait *quotaFlight
		switch {
		case err != nil:
			l.guard.outage.Without()
		case allowed:
			l.aheadLocked(now, quotas, spent)
		default:
			asking, wait = l.askLocked(now, quotas, spent, cost, asked)
		}
		l.mu.Unlock()
		switch {
		case wait != nil:
			select {
			case <-wait.done:
				err, asked = wait.err, true
			case <-ctx.Done():
				l.mu.Lock()
				leave(spent, cost)
				l.mu.Unlock()
				return spent, false, ctx.Err()
			}
		case len(asking) > 0:
			err, asked = l.ask(ctx, asking, storeWait), true
		default:
			return spent, allowed, err
		}
	}
}

// tryLocked spends what may be spent without the store: what was taken ahead and is not owed to
// other requests (unless the store was asked for this request too), and, in an outage, what
// StoreDown allows.
func (l *quotaLedger) tryLocked(quotas []Quota, spent []spending, cost int64, asked bool, outage error) (allowed bool) {
	allowed = true
	for i, q := range quotas {
		c := spent[i].counter
		owed := c.owed
		if asked {
			owed = 0
		}
		switch {
		case (q.Soft || cost == 0) && (c.Known() || outage != nil): // otherwise it is not known what is left
			c.Force(cost)
		case c.Take(cost, q.Requests, owed):
		case outage != nil && l.down == AdmitAll:
			c.Force(cost)
		case outage != nil && l.down == LimitLocally && c.TakeWithout(cost, q.Requests, l.processes):
		default:
			spent[i].exceeded, allowed = true, false
		}
	}
	for i, q := range quotas {
		c := spent[i].counter
		if !allowed && !spent[i].exceeded {
			c.Done(cost, false)
		}
		spent[i].left = c.Left(q.Requests)
	}
	return allowed
}

// askLocked returns the counters for which to ask the store, or else the flight to wait for. That
// is the one after the flight under way, so that a request that comes later is not served first.
// With neither, a quota has no more; this is certain once the store was asked for this request.
func (l *quotaLedger) askLocked(now time.Time, quotas []Quota, spent []spending, cost int64, asked bool) (ask []*quotaCounter, wait *quotaFlight) {
	for i, q := range quotas {
		c := spent[i].counter
		if !spent[i].exceeded {
			continue
		}
		if asked && c.Left(q.Requests) < cost {
			c.fullTo, c.fullAt = now.Add(quotaAgain), q.Requests
		}
		if !q.Soft && (cost > q.Requests || c.full(now, q.Requests)) {
			return nil, nil
		}
	}
	for i, q := range quotas {
		c := spent[i].counter
		if !spent[i].exceeded || c.flight == nil {
			continue
		}
		if c.next == nil {
			c.next = &quotaFlight{done: make(chan struct{})}
		}
		c.next.limit = max(c.next.limit, q.Requests)
		c.next.demand = plus(c.next.demand, cost)
		spent[i].flight = c.next
		return nil, c.next
	}
	for i, q := range quotas {
		c := spent[i].counter
		if spent[i].exceeded {
			l.askFor(c, &quotaFlight{demand: cost, limit: q.Requests, done: make(chan struct{})})
			spent[i].flight = c.flight
			ask = append(ask, c)
		}
	}
	return ask, nil
}

// full reports whether the store has said lately that nothing is left of limit.
func (c *quotaCounter) full(now time.Time, limit int64) bool {
	return now.Before(c.fullTo) && limit <= c.fullAt
}

// leave is for a request that does not wait for a flight any more.
func leave(spent []spending, cost int64) {
	for _, s := range spent {
		switch f := s.flight; {
		case f == nil:
		case f.owed:
			s.counter.owed = max(s.counter.owed-cost, 0)
		default:
			f.demand = max(f.demand-cost, 0)
		}
	}
}

// aheadLocked asks for more before a request has to wait for it. It also reports what was used of
// a soft quota, for which no request ever waits.
func (l *quotaLedger) aheadLocked(now time.Time, quotas []Quota, spent []spending) {
	for i, q := range quotas {
		c := spent[i].counter
		if c.flight != nil || now.Before(c.quiet) || c.full(now, q.Requests) {
			continue
		}
		switch {
		case q.Soft && c.Behind():
			l.claim(c, c.Say(q.Requests), q.Requests)
		case !q.Soft && c.Low(c.owed):
			l.claim(c, c.Ask(c.owed, q.Requests), q.Requests)
		default:
			continue
		}
		time.AfterFunc(0, func() { _ = l.ask(context.Background(), []*quotaCounter{c}, storeWait) })
	}
}

// done ends what take began.
func (l *quotaLedger) done(spent []spending, cost int64, counted bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	for _, s := range spent {
		s.counter.Done(cost, counted)
		s.counter.lastUse = now
	}
}

// claim begins a flight for which no request waits.
func (l *quotaLedger) claim(c *quotaCounter, claim shares.Claim, limit int64) {
	l.seq++
	c.flight = &quotaFlight{Claim: claim, seq: l.seq, limit: limit, done: make(chan struct{})}
}

// askFor begins a flight for requests that wait. From now on they are owed what there is, or
// requests that come later could take it.
func (l *quotaLedger) askFor(c *quotaCounter, f *quotaFlight) {
	l.seq++
	c.owed, f.owed = plus(c.owed, f.demand), true
	f.Claim, f.seq = c.Ask(c.owed, f.limit), l.seq
	c.flight = f
}

// ask settles the flights of counters. It goes on when the client of the request has left, since
// other requests may wait too.
func (l *quotaLedger) ask(ctx context.Context, counters []*quotaCounter, wait time.Duration) error {
	claims := make([]QuotaClaim, len(counters))
	for i, c := range counters { // what is read here does not change during a flight
		claims[i] = QuotaClaim{
			Account: c.id.account, Quota: c.id.quota, Period: c.id.period, Ends: c.period.End,
			Process: l.process, Seq: c.flight.seq, Heard: c.heard, Fresh: c.flight.Fresh,
			Used: c.flight.Used, Want: c.flight.Want, Floor: c.flight.Floor, Limit: c.flight.limit,
		}
	}
	balances, err := l.settle(context.WithoutCancel(ctx), claims, wait)

	l.mu.Lock()
	defer l.mu.Unlock()
	var again []*quotaCounter
	for i, c := range counters {
		f := c.flight
		c.flight, f.err = nil, err
		if err == nil {
			l.answered(c, f, balances[i])
		} else {
			c.quiet = time.Now().Add(quotaAgain)
		}
		close(f.done)
		if l.nextLocked(c, err) {
			again = append(again, c)
		}
	}
	if len(again) > 0 {
		time.AfterFunc(0, func() { _ = l.ask(context.Background(), again, storeWait) })
	}
	return err
}

// nextLocked begins the flight of requests that came during one that has ended, if it is needed.
func (l *quotaLedger) nextLocked(c *quotaCounter, err error) bool {
	n := c.next
	c.next = nil
	if n == nil {
		return false
	}
	if err != nil || n.demand == 0 || c.full(time.Now(), n.limit) {
		n.err = err
		close(n.done)
		return false
	}
	l.askFor(c, n)
	return true
}

// settle asks the store, and logs when an outage begins and when it is over.
func (l *quotaLedger) settle(ctx context.Context, claims []QuotaClaim, wait time.Duration) ([]QuotaBalance, error) {
	look := claims[0]
	look.Process = ""
	call := storeCall[[]QuotaBalance]{
		ask:   func(ctx context.Context) ([]QuotaBalance, error) { return l.store.Settle(ctx, claims) },
		probe: func(ctx context.Context) ([]QuotaBalance, error) { return l.store.Settle(ctx, []QuotaClaim{look}) },
	}
	var balances []QuotaBalance
	var err error
	if wait > storeWait {
		balances, err = call.wait(ctx, &l.guard, wait, call.ask)
	} else {
		balances, err = call.in(ctx, &l.guard)
	}
	if err == nil {
		err = misfit(claims, balances)
	}
	if err != nil {
		if l.guard.outage.Failed() {
			slog.Default().Warn("admit: the quota store failed", slog.Any("error", err))
		}
		return nil, err
	}
	if away, without, tell := l.guard.outage.Worked(); tell {
		slog.Default().Info("admit: the quota store is back", outage.Away(away), slog.Int64("decisions_without_it", without))
	}
	return balances, nil
}

// misfit returns an error for balances that cannot be the answers to claims.
func misfit(claims []QuotaClaim, balances []QuotaBalance) error {
	if len(balances) != len(claims) {
		return fmt.Errorf("the store has answered %d claims with %d balances", len(claims), len(balances))
	}
	for i, c := range claims {
		b := balances[i]
		if min(b.Used, b.Held, b.MyHeld) < 0 || b.MyHeld > max(c.Want, 0) || b.MyUsed < c.Used {
			return fmt.Errorf("the store has answered a claim of %d used and %d to hold with the balance %+v", c.Used, c.Want, b)
		}
	}
	return nil
}

func (l *quotaLedger) answered(c *quotaCounter, f *quotaFlight, b QuotaBalance) {
	c.Answered(f.Claim, shares.Balance{Used: b.Used, Held: b.Held, MyUsed: b.MyUsed, MyHeld: b.MyHeld})
	c.heard = f.seq
	// It may hold all that it wants from when the limit was larger, and not be allowed to spend it.
	if left := f.limit - min(plus(b.Used, max(b.Held-b.MyHeld, 0)), math.MaxInt64/2); min(left, b.MyHeld) < f.Want {
		c.fullTo, c.fullAt = time.Now().Add(quotaAgain), f.limit
	}
	if b.Notice != 0 && l.notify != nil {
		n := QuotaNotice{
			Account: c.id.account, Quota: c.id.quota, Percent: b.Notice, Limit: f.limit, Used: b.Used,
			Start: c.period.Start, ResetsAt: c.period.End,
		}
		l.telling++
		go l.tell(n) // Notify may take its time
	}
}

// tell calls Notify. A panic in it is logged, since there is no request that it could end.
func (l *quotaLedger) tell(n QuotaNotice) {
	defer func() {
		if v := recover(); v != nil {
			slog.Default().Error("admit: QuotasConfig.Notify panicked", slog.Any("panic", v), slog.String("stack", string(debug.Stack())))
		}
		l.mu.Lock()
		defer l.mu.Unlock()
		if l.telling--; l.telling == 0 && l.told != nil {
			close(l.told)
			l.told = nil
		}
	}()
	l.notify(n)
}

// untold waits until no notice is being delivered: a notice comes once, and would be lost with a
// process that ends.
func (l *quotaLedger) untold(ctx context.Context) {
	l.mu.Lock()
	if l.telling > 0 && l.told == nil {
		l.told = make(chan struct{})
	}
	told := l.told
	l.mu.Unlock()
	if told == nil {
		return
	}
	select {
	case <-told:
	case <-ctx.Done():
	}
}

// enqueue puts a counter into the queue. All wait for the same time, so that the queue is in
// order.
func (l *quotaLedger) enqueue(c *quotaCounter, now time.Time) {
	c.due = now.Add(quotaRest)
	l.queue = append(l.queue, c)
	if l.timer == nil {
		l.timer = time.AfterFunc(quotaRest, l.lookAfter)
	}
}

// lookAfter reports to the store what was used, gives back what nobody spends, and deletes
// counters that are not used any more.
func (l *quotaLedger) lookAfter() {
	for {
		l.mu.Lock()
		now := time.Now()
		var batch []*quotaCounter
		for len(batch) < quotaBatch && len(l.queue) > 0 && !now.Before(l.queue[0].due) {
			c := l.queue[0]
			l.queue[0], l.queue = nil, l.queue[1:]
			if !l.forgetLocked(c, now) {
				l.enqueue(c, now)
				batch = append(batch, c)
			}
		}
		if len(batch) == 0 {
			switch {
			case len(l.queue) == 0:
				l.queue, l.timer = nil, nil
				l.counters = make(map[countID]*quotaCounter) // a map never shrinks
			default:
				l.timer = time.AfterFunc(l.queue[0].due.Sub(now), l.lookAfter)
			}
			l.mu.Unlock()
			return
		}
		l.mu.Unlock()
		// What could not be reported is reported next time.
		_ = l.tellAll(context.Background(), batch, storeWait, func(c *quotaCounter) (shares.Claim, bool) {
			if c.rests(now) {
				return c.rest()
			}
			return c.say()
		})
	}
}

// forgetLocked deletes a counter that is not used any more, if the store knows all of it.
func (l *quotaLedger) forgetLocked(c *quotaCounter, now time.Time) bool {
	if !c.rests(now) || c.flight != nil || !c.Settled() {
		return false
	}
	delete(l.counters, c.id)
	return true
}

// rests reports whether a counter is not used any more.
func (c *quotaCounter) rests(now time.Time) bool {
	return now.Sub(c.lastUse) >= quotaRest || !c.period.Contains(now)
}

// rest returns a claim that gives back what is held, if that is news to the store.
func (c *quotaCounter) rest() (claim shares.Claim, some bool) {
	if c.Same() {
		return claim, false
	}
	return c.Rest(), true
}

// say returns a claim that reports what was used, if the store does not know it.
func (c *quotaCounter) say() (claim shares.Claim, some bool) {
	if c.Unreported() == 0 {
		return claim, false
	}
	return c.Say(c.limit), true
}

// close reports to the store what was used, gives back what is held and not being spent, and
// waits for notices. It returns how many counters it could not settle, and why.
func (l *quotaLedger) close(ctx context.Context) (left int, err error) {
	defer l.untold(ctx)
	l.mu.Lock()
	all := append([]*quotaCounter(nil), l.queue...)
	l.mu.Unlock()
	for len(all) > 0 {
		n := min(len(all), quotaBatch)
		if failed := l.tellAll(ctx, all[:n], quotaClose, (*quotaCounter).rest); failed != nil {
			left, err = left+n, failed
		}
		if ctx.Err() != nil {
			return left + len(all) - n, ctx.Err()
		}
		all = all[n:]
	}
	return left, err
}

// tellAll sends the claims of the counters that have one, in one call. The first claim of a
// counter only learns what the store knows of this process, and a second one reports the rest. A
// counter that is always busy with other claims is left to them.
func (l *quotaLedger) tellAll(ctx context.Context, counters []*quotaCounter, wait time.Duration, claim func(*quotaCounter) (shares.Claim, bool)) error {
	for range 3 {
		flying, again, err := l.fly(ctx, counters, claim)
		if err != nil {
			return err
		}
		if len(flying) > 0 {
			if err := l.ask(ctx, flying, wait); err != nil {
				return err
			}
		}
		if counters = again; len(counters) == 0 {
			break
		}
	}
	return nil
}

// fly begins a flight of each counter that has a claim to make, once the flight before has ended.
// It returns the counters that fly, and those to come back to.
func (l *quotaLedger) fly(ctx context.Context, counters []*quotaCounter, claim func(*quotaCounter) (shares.Claim, bool)) (flying, again []*quotaCounter, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, c := range counters {
		if c.flight != nil && ctx.Err() == nil {
			done := c.flight.done
			l.mu.Unlock()
			select {
			case <-done:
			case <-ctx.Done():
			}
			l.mu.Lock()
		}
	}
	if ctx.Err() != nil {
		return nil, nil, ctx.Err()
	}
	for _, c := range counters {
		if c.flight != nil {
			again = append(again, c)
			continue
		}
		if made, some := claim(c); some {
			l.claim(c, made, c.limit)
			flying = append(flying, c)
			if made.Fresh {
				again = append(again, c)
			}
		}
	}
	return flying, again, nil
}

// look returns what is used of all quotas of an account, with what this process has used.
func (l *quotaLedger) look(ctx context.Context, on quotaAccount) ([]QuotaUsage, error) {
	l.mu.Lock()
	now := time.Now()
	periods := make([]quotaPeriod, len(on.set.quotas))
	var mine []*quotaCounter
	for i, q := range on.set.quotas {
		periods[i] = l.periodOf(now, on, q)
		if c := l.counters[countID{on.account, q.Name, periods[i].name}]; c != nil && c.Unreported() > 0 {
			mine = append(mine, c)
		}
	}
	l.mu.Unlock()
	if err := l.tellAll(ctx, mine, storeWait, (*quotaCounter).say); err != nil {
		return nil, err
	}
	claims := make([]QuotaClaim, len(on.set.quotas))
	usage := make([]QuotaUsage, len(claims))
	for i, q := range on.set.quotas {
		claims[i] = QuotaClaim{Account: on.account, Quota: q.Name, Period: periods[i].name, Ends: periods[i].End, Limit: q.Requests}
		usage[i] = QuotaUsage{Name: q.Name, Limit: q.Requests, ResetsAt: periods[i].End}
	}
	if len(claims) == 0 {
		return usage, nil
	}
	balances, err := l.settle(ctx, claims, storeWait)
	if err != nil {
		return nil, err
	}
	for i, b := range balances {
		usage[i].Used = b.Used
		usage[i].Remaining = max(usage[i].Limit-b.Used, 0)
	}
	return usage, nil
}
