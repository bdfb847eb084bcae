package admit

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net/http"
	"slices"
	"strconv"
	"time"

	"github.com/admit-go/admit/internal/calendar"
	"github.com/admit-go/admit/internal/lists"
)

// QuotasConfig configures NewQuotas. Plans and Store are required.
type QuotasConfig struct {
	// Plans have the quotas of callers. Those of a Key replace the ones of its plan that have
	// the same names. A Key whose plan is none of them is logged, once each for the first 1,000,
	// and has its own quotas alone.
	Plans *Plans
	// Store counts for all processes that share it: see NewMemoryQuotaStore and package
	// sqlquota. It is not asked for each request: a process takes 1% of what is left ahead, or
	// one request while less than 100 are left, and gives back what it has not spent for a
	// minute. If a process crashes, what it has used in the last minute may be forgotten, up to
	// that share, and nobody else gets the share before the period ends: so call Close. A request
	// that has to wait does so for two calls at most, of 400 ms each at most.
	Store QuotaStore
	// StoreDown says what to do while Store fails, once what was taken ahead is spent: by
	// LimitLocally each process lets in its part of what was left when it last knew, see Replicas,
	// and answers 503 with the code store_unavailable after that; AdmitAll lets everybody in;
	// RefuseAll answers 503. What is used is counted, and told the Store when it is back. One line
	// of slog.Default() says that it fails, and one that it is back.
	StoreDown StoreDown
	// Replicas is how many processes share Store, for LimitLocally. 0: 1.
	Replicas int

	// Account says who uses the quota of a key: whose keys have an account in common share it.
	// Nil: Key.Owner, or Key.ID without one.
	Account func(*Key) string
	// Anchor is when the billing day of a key was: its periods begin at that time of the day, on
	// that day of the week or of the month, by the clocks of Location; where a month is shorter,
	// on its last day. The same for all keys of an account. Nil, or a zero time: days begin at
	// midnight, weeks on Monday, months on the first.
	Anchor func(*Key) time.Time
	// Location is by whose clocks periods begin. Nil: UTC.
	Location *time.Location
	// Cost is what a request takes: 0 or less takes nothing, and is let in. Nil: 1.
	Cost func(*http.Request) int
	// Counts is asked, when the handler is done, whether a response with this status counts. A
	// client that was gone by then is 499, and a connection that was hijacked 101. What was
	// refused before the handler, or because the body was too large or too slow, does not count,
	// and Counts is not asked. Nil: what is below 500 counts.
	Counts func(status int) bool
	// Skip exempts a request: it is let in, not counted, and gets no headers. With an Auth that
	// is optional, requests without a Key need it.
	Skip func(*http.Request) bool
	// Notify is told that an account has used 80% of a quota, and 100%: once each in a period, by
	// one of the processes, and again only where the quota became larger. It is told at most a
	// minute late, in a goroutine of its own. Nil: nobody is told.
	Notify func(QuotaNotice)
}

// QuotaNotice is what QuotasConfig.Notify is told.
type QuotaNotice struct {
	Account, Quota  string
	Percent         int   // 80 or 100
	Limit, Used     int64 // as it was noticed
	Start, ResetsAt time.Time
}

// QuotaUsage is what an account has of a quota in the present period.
type QuotaUsage struct {
	Name      string    `json:"name"`
	Limit     int64     `json:"limit"`
	Used      int64     `json:"used"` // by others, as it was a minute ago at most
	Remaining int64     `json:"remaining"`
	ResetsAt  time.Time `json:"resets_at"`
}

// Quotas counts what callers have bought: see Quota. It is safe for concurrent use, and all
// handlers that it wraps share what it counts. It has no goroutine of its own; a service that
// ends should call Close.
type Quotas struct {
	c      QuotasConfig
	ledger *quotaLedger
	made   made

	plans   map[string]*planQuotas
	unknown firsts // keys whose plan nobody knows
}

// planQuotas are the quotas of the callers of a plan.
type planQuotas struct {
	set  *quotaSet
	keys lists.Cache[Quota, *quotaSet] // with those of a key
}

// quotaSet is the quotas of a caller.
type quotaSet struct {
	quotas   []Quota // complete
	policies []string
	items    []string
	upgrades []string // the UpgradeURL of the first plan that has more
}

// quotaAccount is who uses the quotas of a set.
type quotaAccount struct {
	set      *quotaSet
	account  string
	anchor   time.Time
	anchorID int64
	loc      *time.Location
}

// NewQuotas returns Quotas. The error has every fault of the configuration; the Quotas that
// comes with it cannot serve.
func NewQuotas(c QuotasConfig) (*Quotas, error) {
	var f faults
	if c.Plans == nil {
		f.add("QuotasConfig.Plans", "is nil; give the Plans, whose Quotas hold for callers")
	} else {
		f.value("QuotasConfig.Plans", c.Plans)
	}
	if c.Store == nil {
		f.add("QuotasConfig.Store", "is nil; give one, such as NewMemoryQuotaStore() for one process that may forget")
	} else {
		f.value("QuotasConfig.Store", c.Store)
	}
	if c.StoreDown < LimitLocally || c.StoreDown > RefuseAll {
		f.add("QuotasConfig.StoreDown", "is %v; it is LimitLocally, AdmitAll or RefuseAll", c.StoreDown)
	}
	if c.Replicas < 0 {
		f.add("QuotasConfig.Replicas", "is %d; it is the number of processes that share the Store, or 0", c.Replicas)
	}
	if err := f.err(); err != nil {
		return &Quotas{made: made{err: err}}, err
	}
	if c.Location == nil {
		c.Location = time.UTC
	}
	q := &Quotas{c: c, made: made{ok: true}, plans: make(map[string]*planQuotas)}
	for _, plan := range c.Plans.plans {
		set, _ := q.newSet(plan.Quotas) // NewPlans has looked at them
		q.plans[plan.Name] = &planQuotas{set: set}
	}
	none, _ := q.newSet(nil)
	q.plans[noPlan] = &planQuotas{set: none}
	q.ledger = newQuotaLedger(c)
	return q, nil
}

// noPlan is a name that no plan has.
const noPlan = ""

func (q *Quotas) fault() error {
	if q == nil {
		return (*made)(nil).fault("Quotas")
	}
	return q.made.fault("Quotas")
}

func (q *Quotas) newSet(quotas []Quota) (*quotaSet, error) {
	quotas, err := CompleteQuotas(quotas)
	if err != nil {
		return nil, err
	}
	set := &quotaSet{quotas: quotas}
	for _, quota := range quotas {
		name := appendFieldString(nil, quota.Name)
		set.items = append(set.items, string(name)+";r=")
		set.policies = append(set.policies, string(name)+";q="+strconv.FormatInt(quota.Requests, 10)+";w=")
		set.upgrades = append(set.upgrades, q.upgradeFrom(quota))
	}
	return set, nil
}

// upgradeFrom returns where the first plan is bought that has more than a quota, or "".
func (q *Quotas) upgradeFrom(quota Quota) string {
	for _, plan := range q.c.Plans.plans {
		if plan.UpgradeURL == "" {
			continue
		}
		i := slices.IndexFunc(plan.Quotas, func(other Quota) bool { return other.complete().Name == quota.Name })
		if i < 0 || plan.Quotas[i].Soft || plan.Quotas[i].Requests > quota.Requests {
			return plan.UpgradeURL
		}
	}
	return ""
}

// Wrap lets requests to next in as long as the caller's account has something left of each of
// its quotas, and counts them. It stands inside of an Auth: a request without a Key is answered
// 500, unless Skip exempts it. A request that is inside of another Wrap of q passes.
//
// Refused: 429 with the code quota_exceeded, Retry-After to the end of the period, resets_at,
// and upgrade_url where a plan has more. A quota is a member of RateLimit-Policy and RateLimit,
// with the seconds of this period and those to its end.
func (q *Quotas) Wrap(next http.Handler) http.Handler {
	must(q.fault())
	metering.Store(true)
	return wrap("Quotas.Wrap", next, q.handle)
}

func (q *Quotas) handle(in inside, w http.ResponseWriter, r *http.Request) {
	if around(r.Context(), q) || q.c.Skip != nil && q.c.Skip(r) {
		in.ServeHTTP(w, r)
		return
	}
	id, err := identified(r)
	if err == nil && id == nil {
		err = errInternal.WithCause(errors.New("admit: Quotas found no key in the context: put an Auth, or a wrapper that calls WithKey, outside of it, or exempt the request by QuotasConfig.Skip"))
	}
	if err != nil {
		WriteError(w, r, err)
		return
	}
	on, unusable := q.account(r.Context(), id.key)
	switch {
	case unusable != nil:
		WriteError(w, r, unusable)
		return
	case len(on.set.quotas) == 0:
		in.ServeHTTP(w, r)
		return
	}
	var few [4]spending
	cost := q.costOf(r)
	spent, allowed, outage := q.ledger.take(r.Context(), on, cost, few[:0])
	if gone := r.Context().Err(); outage != nil && gone != nil {
		if allowed {
			q.ledger.done(spent, cost, false)
		}
		WriteError(w, r, gone) // no outage
		return
	}
	now := time.Now()
	if outage == nil || q.c.StoreDown == LimitLocally {
		on.set.writeHeaders(in, w.Header(), now, spent)
	}
	if !allowed {
		WriteError(w, r, q.refusal(on.set, now, spent, cost, outage))
		return
	}
	q.serve(in, w, r, spent, cost)
}

// serve lets a request in, and counts it by how it has ended.
func (q *Quotas) serve(in inside, w http.ResponseWriter, r *http.Request, spent []spending, cost int64) {
	s, tracked, inner := in.fill(w, r, slotMetered)
	defer s.leave(r, inner)
	s.metered = q
	s.writer.client = inner.Context()
	returned := false
	defer func() {
		counted := false
		defer func() { q.ledger.done(spent, cost, counted) }() // if Counts panics too
		counted = s.reached.Load() && q.counts(s.writer.ended(returned))
	}()
	in.ServeHTTP(tracked, inner)
	returned = true
}

func (q *Quotas) counts(status int) bool {
	if q.c.Counts == nil {
		return status < 500
	}
	return q.c.Counts(status)
}

func (q *Quotas) costOf(r *http.Request) int64 {
	if q.c.Cost == nil {
		return 1
	}
	return int64(max(q.c.Cost(r), 0))
}

// account returns who uses which quotas. The error is the answer to a request whose key cannot
// be used.
func (q *Quotas) account(ctx context.Context, key *Key) (quotaAccount, error) {
	set, err := q.quotasOf(ctx, key)
	if err != nil {
		return quotaAccount{}, errInternal.WithCause(fmt.Errorf("admit: the quotas of the key %s cannot be used: %w", key.ID, err))
	}
	on := quotaAccount{set: set, loc: q.c.Location, anchorID: math.MinInt64}
	switch {
	case q.c.Account != nil:
		on.account = q.c.Account(key)
	case key.Owner != "":
		on.account = key.Owner
	default:
		on.account = key.ID
	}
	if on.account == "" {
		return quotaAccount{}, errInternal.WithCause(fmt.Errorf("admit: QuotasConfig.Account has no account for the key %s", key.ID))
	}
	if q.c.Anchor != nil {
		if on.anchor = q.c.Anchor(key); !on.anchor.IsZero() {
			on.anchorID = on.anchor.Unix()
		}
	}
	return on, nil
}

// quotasOf returns the quotas of a key: those of its plan, of which its own replace some.
func (q *Quotas) quotasOf(ctx context.Context, key *Key) (*quotaSet, error) {
	plan := q.plans[key.Plan]
	if plan == nil {
		plan = q.plans[noPlan]
		if q.unknown.first(key.ID + " " + key.Plan) {
			slog.Default().WarnContext(ctx, "admit: a key has a plan that is not known here, and no quotas but its own", slog.String("key", key.ID), slog.String("plan", key.Plan))
		}
	}
	if len(key.Quotas) == 0 {
		return plan.set, nil
	}
	return plan.keys.Get(key.Quotas, func(own []Quota) (*quotaSet, error) {
		own, err := CompleteQuotas(own)
		if err != nil {
			return nil, err
		}
		all := slices.Clone(plan.set.quotas)
		for _, quota := range own {
			if i := slices.IndexFunc(all, func(other Quota) bool { return other.Name == quota.Name }); i >= 0 {
				all[i] = quota
			} else {
				all = append(all, quota)
			}
		}
		return q.newSet(all)
	})
}

// writeHeaders tells the client what is left. Where a Limiter outside has set the headers,
// these are further members.
func (set *quotaSet) writeHeaders(in inside, h http.Header, now time.Time, spent []spending) {
	var buf [2][160]byte
	policy, limit := buf[0][:0], buf[1][:0]
	for i, s := range spent {
		if i > 0 {
			policy, limit = append(policy, ", "...), append(limit, ", "...)
		}
		policy = strconv.AppendInt(append(policy, set.policies[i]...), ceilSeconds(s.period.End.Sub(s.period.Start)), 10)
		limit = strconv.AppendInt(append(limit, set.items[i]...), min(s.left, maxInteger), 10)
		limit = strconv.AppendInt(append(limit, ";t="...), max(ceilSeconds(s.period.End.Sub(now)), 1), 10)
	}
	if outer := h[headerPolicy]; outer != nil {
		h[headerPolicy] = append(outer, string(policy))
		h[headerLimit] = append(h[headerLimit], string(limit))
		return
	}
	h[headerPolicy] = in.one(string(policy))
	h[headerLimit] = in.one(string(limit))
}

// refusal is the error for a request that is not let in.
func (q *Quotas) refusal(set *quotaSet, now time.Time, spent []spending, cost int64, outage error) error {
	// What is left then is for when the store is back, and no reason to wait for a reset.
	if outage != nil && !slices.ContainsFunc(spent, func(s spending) bool { return s.exceeded && s.left < cost }) {
		return errStoreUnavailable.WithCause(fmt.Errorf("take from the quota store: %w", outage))
	}
	e := &Error{Status: http.StatusTooManyRequests, Code: "quota_exceeded", Message: "The quota of this period is used up."}
	never := false
	var resets time.Time
	upgrade := ""
	for i, s := range spent {
		if !s.exceeded {
			continue
		}
		e.limits = append(e.limits, set.quotas[i].Name)
		never = never || cost > set.quotas[i].Requests
		if s.period.End.After(resets) {
			resets, upgrade = s.period.End, set.upgrades[i]
		}
	}
	if never {
		e.Message = "The request costs more than the quota ever has."
	} else {
		e.RetryAfter = max(resets.Sub(now), time.Second)
		e.Meta = map[string]any{"resets_at": resets.Format(time.RFC3339)}
	}
	if upgrade != "" {
		if e.Meta == nil {
			e.Meta = make(map[string]any)
		}
		e.Meta["upgrade_url"] = upgrade
	}
	return e
}

// Usage returns a handler that answers with what the caller's account has used of its quotas,
// inside of an Auth: {"result":"success","data":{"quotas":[...]}}, with a QuotaUsage each. It
// asks the Store, and is not counted: put a Limiter outside of it. It answers 503 with the code
// store_unavailable if the Store fails.
func (q *Quotas) Usage() http.Handler {
	must(q.fault())
	return HandlerFunc(func(w http.ResponseWriter, r *http.Request) error {
		id, err := identified(r)
		if err != nil {
			return err
		}
		if id == nil {
			return errInternal.WithCause(errors.New("admit: Quotas.Usage found no key in the context: put an Auth, or a wrapper that calls WithKey, outside of it"))
		}
		quotas, failed := q.Of(r.Context(), id.key)
		if failed != nil {
			return failed
		}
		return Success(w, r, http.StatusOK, map[string]any{"quotas": quotas})
	})
}

// Of returns what the account of a key has used of each quota of the key, as the Store knows it
// and with what this process has used: what others have used since is at most a minute old. The
// error is an *Error: 503 if the Store fails, 500 for a key whose quotas cannot be.
func (q *Quotas) Of(ctx context.Context, key *Key) ([]QuotaUsage, error) {
	if err := q.fault(); err != nil {
		return nil, errInternal.WithCause(err)
	}
	on, err := q.account(ctx, key)
	if err != nil {
		return nil, err
	}
	usage, err := q.ledger.look(ctx, on)
	switch {
	case err == nil:
		return usage, nil
	case ctx.Err() != nil:
		return nil, ctx.Err()
	default:
		return nil, errStoreUnavailable.WithCause(fmt.Errorf("look into the quota store: %w", err))
	}
}

// exportBatch is how many records are sent at once.
const exportBatch = 500

// Export sends what was used to a billing system: a record for each account, quota and minute,
// of all minutes that have been over for some time, 500 at a time. Those for which send returns
// nil are never sent again; if it fails, Export returns its error, and they are sent again some
// minutes later, with the same IDs and numbers. So a billing system that counts each ID once
// never counts twice. Call it each minute, say; it may be called in all processes at once.
func (q *Quotas) Export(ctx context.Context, send func(context.Context, []UsageRecord) error) error {
	if err := q.fault(); err != nil {
		return err
	}
	for {
		records, err := q.c.Store.Offer(ctx, exportBatch)
		if err != nil {
			return fmt.Errorf("admit: read the usage to export: %w", err)
		}
		if len(records) == 0 {
			return nil
		}
		if err := send(ctx, records); err != nil {
			return err
		}
		ids := make([]string, len(records))
		for i, record := range records {
			ids[i] = record.ID
		}
		// It was sent: a context that has just ended must not send it again.
		if err := q.c.Store.Acknowledge(context.WithoutCancel(ctx), ids); err != nil {
			return fmt.Errorf("admit: acknowledge the usage that was exported: %w", err)
		}
	}
}

// Close tells the Store what was used, gives back what was taken ahead, and waits for Notify.
// Call it after Server.Shutdown; a request that comes later is counted as ever. It waits while
// ctx lasts, for the Store 10 s a call. The error says that the use of some accounts could not be
// told.
func (q *Quotas) Close(ctx context.Context) error {
	if err := q.fault(); err != nil {
		return err
	}
	if left, err := q.ledger.close(ctx); err != nil {
		return fmt.Errorf("admit: up to %d accounts used quotas in a way that the store could not be told: %w", left, err)
	}
	return nil
}

// sampleTime is when the examples of quotas are sent, so that a contract is the same on each
// day.
var sampleTime = time.Date(2026, time.January, 21, 12, 0, 0, 0, time.UTC)

func (q *Quotas) answers() []Answer {
	on := quotaSet{quotas: []Quota{{Name: Month.String(), Requests: 1, Every: Month}}, upgrades: []string{""}}
	for _, plan := range q.c.Plans.plans {
		if set := q.plans[plan.Name].set; slices.ContainsFunc(set.quotas, func(quota Quota) bool { return !quota.Soft }) {
			on = *set
			break
		}
	}
	now := sampleTime
	spent := make([]spending, len(on.quotas))
	for i, quota := range on.quotas {
		spent[i].exceeded = !quota.Soft
		spent[i].period = calendar.In(now, calendar.Unit(quota.Every), time.Time{}, q.c.Location)
	}
	headers := []string{"RateLimit", "RateLimit-Policy"}
	all := []Answer{answer(errorOf(q.refusal(&on, now, spent, 0, nil)), "The caller has used up a quota, which is renewed after Retry-After.", headers...)}
	if q.c.Cost != nil {
		never := answer(errorOf(q.refusal(&on, now, spent, math.MaxInt64, nil)), "The request costs more than a quota of the caller ever has.", headers...)
		never.Retryable = false
		all = append(all, never)
	}
	if _, inMemory := q.c.Store.(*MemoryQuotaStore); !inMemory && q.c.StoreDown != AdmitAll {
		all = append(all, answer(errStoreUnavailable, "The service could not look at its quotas."))
	}
	return all
}
