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

// QuotasConfig configures NewQuotas.
type QuotasConfig struct {
	// Plans has the quotas of callers. Required. The quotas of a Key replace those of its plan
	// that have the same names. A Key whose plan is not in Plans has only its own quotas, and is
	// logged once, for the first 1,000 of these keys.
	Plans *Plans
	// Store counts for all processes that share it. Required. See NewMemoryQuotaStore and
	// package sqlquota.
	//
	// Most requests do not ask it. A process takes 1% of what is left ahead, or one request
	// while less than 100 are left, and gives back what it has not spent for a minute. If a
	// process crashes, what it has used in the last minute may be forgotten, up to that share,
	// and no other process gets the share before the period ends. So call Close. A request that
	// asks the Store waits for at most two calls, of at most 400 ms each.
	Store QuotaStore
	// StoreDown says what to do while Store is down, once what was taken ahead is spent. What is
	// used meanwhile is counted, and reported to Store when it is back. slog.Default() gets one
	// line when the outage begins, and one when it is over. Permitted:
	//   - LimitLocally: each process admits its part of what was left when Store last answered
	//     (see Replicas), and then rejects with 503 and the code store_unavailable. The default.
	//   - AdmitAll: every request is admitted.
	//   - RefuseAll: every request gets 503.
	StoreDown StoreDown
	// Replicas is how many processes share Store, for LimitLocally. Zero means 1.
	Replicas int

	// Account returns the account whose quota a key uses. Keys with one account share its quota.
	// A key for which it returns "" gets 500. Default: Key.Owner, or Key.ID without an owner.
	Account func(*Key) string
	// Anchor returns the billing day of a key, and should return the same time for all keys of
	// an account. Periods begin at that time of day, on that day of the week or of the month, in
	// Location; in a shorter month, on its last day. By default, and for the zero time, days
	// begin at midnight, weeks on Monday and months on the first.
	Anchor func(*Key) time.Time
	// Location is the time zone in which periods begin. Default: UTC.
	Location *time.Location
	// Cost returns what a request takes from the quota. A request that costs 0 or less takes
	// nothing and is admitted. Default: 1.
	Cost func(*http.Request) int
	// Counts reports whether a request counts, by the status of its response. It is called when
	// the handler has returned. The status is 499 if the client left before the response began,
	// and 101 if the connection was hijacked. A request that was rejected before it came to the
	// handler, or because its body was too large or too slow, does not count, and Counts is not
	// called. Default: a status below 500 counts.
	Counts func(status int) bool
	// Skip exempts a request: it is admitted without a count and without headers. Inside an Auth
	// that is Optional, requests without a Key need it.
	Skip func(*http.Request) bool
	// Notify is called when an account has used 80% of a quota, and when it has used 100%: once
	// each in a period, by one of the processes, and again only if the quota becomes larger. It
	// is called at most a minute late, in a goroutine of its own.
	Notify func(QuotaNotice)
}

// QuotaNotice is what QuotasConfig.Notify gets.
type QuotaNotice struct {
	Account, Quota  string
	Percent         int   // 80 or 100
	Limit, Used     int64 // at the time of the notice
	Start, ResetsAt time.Time
}

// QuotaUsage is what an account has used of a quota in the current period.
type QuotaUsage struct {
	Name      string    `json:"name"`
	Limit     int64     `json:"limit"`
	Used      int64     `json:"used"` // what other processes have used is up to a minute old
	Remaining int64     `json:"remaining"`
	ResetsAt  time.Time `json:"resets_at"`
}

// Quotas is a middleware that counts the requests of accounts, and rejects those beyond a
// [Quota]. All handlers that it wraps share what it counts. It has no goroutine that runs all the
// time; a service that ends should call Close. It is safe for concurrent use.
type Quotas struct {
	c      QuotasConfig
	ledger *quotaLedger
	made   made

	plans   map[string]*planQuotas
	unknown firsts // keys whose plan is not known
}

// planQuotas are the quotas of the callers of a plan.
type planQuotas struct {
	set  *quotaSet
	keys lists.Cache[Quota, *quotaSet] // with the quotas of a key
}

// quotaSet is the quotas of a caller.
type quotaSet struct {
	quotas   []Quota // complete
	policies []string
	items    []string
	upgrades []string // the UpgradeURL of the first plan that has more
}

// quotaAccount is the account that uses the quotas of a set.
type quotaAccount struct {
	set      *quotaSet
	account  string
	anchor   time.Time
	anchorID int64
	loc      *time.Location
}

// NewQuotas returns Quotas. The error has every problem of the configuration; the Quotas returned
// with it cannot serve.
func NewQuotas(c QuotasConfig) (*Quotas, error) {
	var f faults
	if c.Plans == nil {
		f.add("QuotasConfig.Plans", "is nil; set the Plans that have the Quotas of callers")
	} else {
		f.value("QuotasConfig.Plans", c.Plans)
	}
	if c.Store == nil {
		f.add("QuotasConfig.Store", "is nil; set a store, such as NewMemoryQuotaStore() for a single process that may forget")
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

// noPlan is not the name of any plan.
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

// upgradeFrom returns the URL of the first plan that has more than a quota, or "".
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

// Wrap returns a handler that passes requests to next while the account of the caller has
// something left of each of its quotas, and counts them. It belongs inside an Auth: a request
// without a Key gets 500, unless Skip exempts it. A request that is inside another Wrap of q is
// counted once.
//
// A request beyond a quota gets 429 with the code quota_exceeded and Retry-After, which is the
// end of the period. The body has resets_at and, if a plan has more, upgrade_url. Each quota is a
// member of RateLimit-Policy, with the seconds of this period, and of RateLimit, with the seconds
// to its end.
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
		err = errInternal.WithCause(errors.New("admit: Quotas found no key in the context: put an Auth, or a middleware that calls WithKey, outside of it, or exempt the request by QuotasConfig.Skip"))
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
		WriteError(w, r, gone) // this is no outage
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

// serve lets a request in, and counts it by the way in which it has ended.
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

// account returns the account and the quotas of a key. The error is for a request whose key
// cannot be used.
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
		return quotaAccount{}, errInternal.WithCause(fmt.Errorf("admit: QuotasConfig.Account returned no account for the key %s", key.ID))
	}
	if q.c.Anchor != nil {
		if on.anchor = q.c.Anchor(key); !on.anchor.IsZero() {
			on.anchorID = on.anchor.Unix()
		}
	}
	return on, nil
}

// quotasOf returns the quotas of a key: those of its plan, except that its own replace some.
func (q *Quotas) quotasOf(ctx context.Context, key *Key) (*quotaSet, error) {
	plan := q.plans[key.Plan]
	if plan == nil {
		plan = q.plans[noPlan]
		if q.unknown.first(key.ID + " " + key.Plan) {
			slog.Default().WarnContext(ctx, "admit: a key has a plan that is not known here, and no quotas but its own", slog.String("admit.key.id", key.ID), slog.String("admit.plan", key.Plan))
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

// writeHeaders tells the client what is left. If a Limiter outside has set the headers, members
// are added.
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

// refusal returns the error for a request that is not admitted.
func (q *Quotas) refusal(set *quotaSet, now time.Time, spent []spending, cost int64, outage error) error {
	// If something is left, the store is the reason, and the end of the period is not what to
	// wait for.
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
		e.Message = "The request costs more than the whole quota."
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

// Usage returns a handler that responds with what the account of the caller has used of its
// quotas: {"result":"success","data":{"quotas":[...]}}, with a [QuotaUsage] for each. It belongs
// inside an Auth. Each request asks the Store and is not counted, so put a Limiter outside. If
// the Store is down, it responds with 503 and the code store_unavailable.
func (q *Quotas) Usage() http.Handler {
	must(q.fault())
	return HandlerFunc(func(w http.ResponseWriter, r *http.Request) error {
		id, err := identified(r)
		if err != nil {
			return err
		}
		if id == nil {
			return errInternal.WithCause(errors.New("admit: Quotas.Usage found no key in the context: put an Auth, or a middleware that calls WithKey, outside of it"))
		}
		quotas, failed := q.Of(r.Context(), id.key)
		if failed != nil {
			return failed
		}
		return Success(w, r, http.StatusOK, map[string]any{"quotas": quotas})
	})
}

// Of returns what the account of a key has used of each quota of the key. It asks the Store and
// adds what this process has used; what other processes have used is up to a minute old. The
// error is that of ctx or an *Error: 503 if the Store is down, 500 for a key whose quotas or
// account are not valid.
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
		return nil, errStoreUnavailable.WithCause(fmt.Errorf("look up the usage in the quota store: %w", err))
	}
}

// exportBatch is how many records are sent at once.
const exportBatch = 500

// Export sends usage to a billing system: a record for each account, quota and minute, for all
// minutes that ended some time ago, 500 records at a time. Records for which send returns nil are
// not sent again. If send fails, Export returns its error, and a later Export sends the same
// records again some minutes later, with the same IDs and numbers. A billing system that counts
// each ID once therefore never counts twice. Call Export regularly, such as once a minute; all
// processes may call it at the same time.
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
		// The records were sent: they must be acknowledged even if ctx has just ended.
		if err := q.c.Store.Acknowledge(context.WithoutCancel(ctx), ids); err != nil {
			return fmt.Errorf("admit: acknowledge the usage that was exported: %w", err)
		}
	}
}

// Close tells the Store what was used, gives back what was taken ahead, and waits for Notify.
// Call it after Server.Shutdown; requests that come later are still counted. It waits until ctx
// ends, and at most 10 seconds for each call to the Store. The error says that the use of some
// accounts could not be reported.
func (q *Quotas) Close(ctx context.Context) error {
	if err := q.fault(); err != nil {
		return err
	}
	if left, err := q.ledger.close(ctx); err != nil {
		accounts := "accounts"
		if left == 1 {
			accounts = "account"
		}
		return fmt.Errorf("admit: the usage of up to %d %s could not be reported to the quota store: %w", left, accounts, err)
	}
	return nil
}

// sampleTime is the time of examples, so that a contract is the same every day.
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
		never := answer(errorOf(q.refusal(&on, now, spent, math.MaxInt64, nil)), "The request costs more than the whole quota of the caller.", headers...)
		never.Retryable = false
		all = append(all, never)
	}
	if _, inMemory := q.c.Store.(*MemoryQuotaStore); !inMemory && q.c.StoreDown != AdmitAll {
		all = append(all, answer(errStoreUnavailable, "The service could not check its quotas."))
	}
	return all
}
