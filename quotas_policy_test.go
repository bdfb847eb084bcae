package admit_test

import (
	"io"
	"log"
	"maps"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/admit-go/admit"
)

// newQuotas returns Quotas, in memory without a Store. The plan pro has the given ones, or else
// as much as anybody wants.
func newQuotas(t testing.TB, c admit.QuotasConfig, pro ...admit.Quota) *admit.Quotas {
	t.Helper()
	if len(pro) == 0 {
		pro = []admit.Quota{{Requests: 1e12, Every: admit.Month}}
	}
	c.Plans = mustPlans(t, admit.Plan{Name: "free"}, admit.Plan{Name: "pro", Quotas: pro})
	if c.Store == nil {
		c.Store = admit.NewMemoryQuotaStore()
	}
	q, err := admit.NewQuotas(c)
	require.NoError(t, err)
	return q
}

// byKey lets all requests be of a key.
func byKey(next http.Handler, key *admit.Key) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		next.ServeHTTP(w, r.WithContext(admit.WithKey(r.Context(), key)))
	})
}

var pro = &admit.Key{ID: "k", Plan: "pro"}

// used is what the account of pro has used.
func used(t testing.TB, q *admit.Quotas) int64 {
	t.Helper()
	usage, err := q.Of(t.Context(), pro)
	require.NoError(t, err)
	require.Len(t, usage, 1)
	return usage[0].Used
}

// What a limit refuses costs no quota, nor does what is refused inside. Who has no quota left
// is told so before anybody looks at what is sent.
func TestPolicyQuotasStandBehindLimits(t *testing.T) {
	t.Parallel()
	shedder, work := newShedder(t, admit.ShedderConfig{Max: 1}), newGate()
	quotas := newQuotas(t, admit.QuotasConfig{}, admit.Quota{Requests: 1, Every: admit.Month})
	p := admit.Policy{
		Identity: func(h http.Handler) http.Handler { return byKey(h, pro) },
		Limiter:  newLimiter(t, admit.LimiterConfig{Limits: []admit.Limit{admit.PerDay(4)}}), Quotas: quotas,
		Accept: []string{jsonType}, MaxBody: 10, Shedder: shedder,
	}
	h := p.Wrap(ok)
	_, header := refused(t, h, get("/", "Accept", "image/png"), 406)
	assert.Equal(t, `"day";q=4;w=86400`, header["Ratelimit-Policy"][0])
	assert.True(t, strings.HasPrefix(header["Ratelimit-Policy"][1], `"month";q=1;w=`), "%q", header["Ratelimit-Policy"])
	refused(t, h, newRequest("POST", "/", "far too long"), 413)

	worked := send(shedder.Wrap(work), get("/"))
	require.Eventually(t, func() bool { return work.inside.Load() == 1 }, 10*time.Second, time.Millisecond)
	e, _ := refused(t, h, get("/"), 429)
	assert.Equal(t, "overloaded", e.Code)
	close(work.out)
	<-worked
	assert.Zero(t, used(t, quotas), "nobody was served")

	allowed(t, h, get("/"))
	e, header = refused(t, h, get("/", "Accept", "image/png"), 429)
	assert.Equal(t, "quota_exceeded", e.Code, "before the Accept")
	assert.Equal(t, []string{"month"}, e.Limits)
	assert.True(t, strings.HasPrefix(header["Ratelimit"][1], `"month";r=0;t=`), "%q", header["Ratelimit"])
	e, header = refused(t, h, get("/"), 429)
	assert.Equal(t, "rate_limited", e.Code)
	assert.Len(t, header["Ratelimit"], 1)
	assert.EqualValues(t, 1, used(t, quotas))
}

// Quotas that are around a request twice count it once, and those of two handlers of one
// request each time.
func TestQuotasCountOnce(t *testing.T) {
	t.Parallel()
	quotas := newQuotas(t, admit.QuotasConfig{})
	identity := func(h http.Handler) http.Handler { return byKey(h, pro) }
	foreign := func(h http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { h.ServeHTTP(w, r) })
	}
	twice := identity(quotas.Wrap(quotas.Wrap(foreign(admit.Policy{Quotas: quotas}.Wrap(ok)))))
	header := allowed(t, twice, get("/"))
	assert.EqualValues(t, 1, used(t, quotas))
	assert.Len(t, header["Ratelimit"], 1)

	counted := quotas.Wrap(ok)
	allowed(t, identity(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		counted.ServeHTTP(newDiscard(), r)
		counted.ServeHTTP(w, r)
	})), get("/"))
	assert.EqualValues(t, 3, used(t, quotas))
}

// A request without a key has no account.
func TestQuotasNeedAKey(t *testing.T) {
	t.Parallel()
	optional := newAuth(t, admit.AuthConfig{Optional: true})
	quotas := newQuotas(t, admit.QuotasConfig{})
	_, err := admit.Policy{Auth: optional, Quotas: quotas}.Chain()
	assert.ErrorContains(t, err, "Policy.Auth is optional, but Quotas need a key; exempt requests without one by QuotasConfig.Skip")
	e, _ := refused(t, (&admit.ErrorWriter{Logger: discardLogs}).Wrap(quotas.Wrap(ok)), get("/"), 500)
	assert.Equal(t, "internal", e.Code)

	skips := newQuotas(t, admit.QuotasConfig{Skip: func(r *http.Request) bool {
		_, found := admit.KeyFrom(r.Context())
		return !found
	}})
	header := allowed(t, admit.Policy{Auth: optional, Quotas: skips}.Wrap(ok), get("/"))
	assert.Empty(t, header["Ratelimit"])
}

// Each fault of a configuration is said at once, with its path.
func TestQuotasConfigFaults(t *testing.T) {
	t.Parallel()
	_, err := admit.NewQuotas(admit.QuotasConfig{StoreDown: 7, Replicas: -1})
	assert.Equal(t, []string{"QuotasConfig.Plans", "QuotasConfig.Store", "QuotasConfig.StoreDown", "QuotasConfig.Replicas"}, fieldsOf(t, err))

	month := admit.Quota{Requests: 1, Every: admit.Month}
	for reason, quotas := range map[string][]admit.Quota{
		"Quotas[0].Every is Period(0); it is Day, Week or Month":                    {{Requests: 1}},
		"Quotas[1].Every is Period(9)":                                              {month, {Requests: 1, Every: 9}},
		"Quotas[0].Requests is 0; it needs 1 to 999999999999999":                    {{Every: admit.Day}},
		"Quotas[0].Requests is -1":                                                  {{Requests: -1, Every: admit.Day}},
		"Quotas[0].Requests is 1000000000000000":                                    {{Requests: 1e15, Every: admit.Day}},
		`Quotas[0].Name is "\n"; a header needs 1 to 64 printable`:                  {{Name: "\n", Requests: 1, Every: admit.Day}},
		`Quotas[1].Name is "month", which another quota has too`:                    {month, {Name: "month", Requests: 1, Every: admit.Day}},
		"Quotas has 17 quotas; each request checks all of them, and at most 16 are": make([]admit.Quota, 17),
		`Quotas[0].Name is "` + strings.Repeat("x", 65) + `"; a header needs 1`:     {{Name: strings.Repeat("x", 65), Requests: 1, Every: admit.Week}},
	} {
		_, err := admit.CompleteQuotas(quotas)
		assert.ErrorContains(t, err, "admit: "+reason)
		_, err = admit.NewPlans(admit.Plan{Name: "free"}, admit.Plan{Name: "pro", Quotas: quotas})
		assert.ErrorContains(t, err, "admit: Plans[1]."+reason)

		// A key that has them is a fault of the service, and lets nobody in.
		q := newQuotas(t, admit.QuotasConfig{})
		key := &admit.Key{ID: "k", Plan: "pro", Quotas: quotas}
		h := (&admit.ErrorWriter{Logger: discardLogs}).Wrap(byKey(q.Wrap(ok), key))
		refused(t, h, get("/"), 500)
		_, err = q.Of(t.Context(), key)
		require.ErrorAs(t, err, new(*admit.ConfigError), reason)
	}
	_, err = admit.NewPlans(admit.Plan{Name: "pro", Limits: []admit.Limit{{Name: "month", Requests: 1, Per: time.Hour}}, Quotas: []admit.Quota{month}})
	assert.ErrorContains(t, err, `Plans[0].Quotas[0].Name is "month", which a limit of the plan has too`)

	complete, err := admit.CompleteQuotas([]admit.Quota{month, {Name: "burst", Requests: 999_999_999_999_999, Every: admit.Day}})
	require.NoError(t, err)
	assert.Equal(t, "month", complete[0].Name)
}

// A billing system that has counted, and whose answer is lost, gets the same events again and
// counts them once.
func TestQuotasAreBilledOnce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		q := newQuotas(t, admit.QuotasConfig{})
		h := q.Wrap(ok)
		for i := range 100 {
			for _, owner := range []string{"acme", "globex"}[:1+i%2] {
				h.ServeHTTP(newDiscard(), get("/").WithContext(admit.WithKey(t.Context(), &admit.Key{ID: "k", Owner: owner, Plan: "pro"})))
			}
			time.Sleep(3 * time.Second)
		}
		require.NoError(t, q.Close(t.Context()))
		time.Sleep(5 * time.Minute) // before there is a server: it would keep time from passing

		var bills meter
		batches, lose := 0, true
		export := func() error {
			server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				batches++
				if bills.ServeHTTP(w, r); lose {
					panic(http.ErrAbortHandler)
				}
			}))
			server.Config.ErrorLog = log.New(io.Discard, "", 0)
			server.Start()
			defer server.Close()
			return q.Export(t.Context(), sendEvents(server.URL))
		}
		require.Error(t, export())
		first := maps.Clone(bills.used)
		time.Sleep(10 * time.Minute)
		lose = false
		require.NoError(t, export())
		assert.Equal(t, map[string]int64{"acme": 100, "globex": 50}, bills.used)
		assert.Equal(t, first, bills.used, "all was counted at first")
		assert.Greater(t, batches, 1, "and sent again")
		time.Sleep(10 * time.Minute)
		sent := batches
		require.NoError(t, export())
		assert.Equal(t, sent, batches, "what was acknowledged is not sent any more")
	})
}

// withQuotas lets the caller of fullPolicy have two.
func withQuotas(t testing.TB) func(*admit.Policy) {
	return func(p *admit.Policy) {
		p.Quotas = newQuotas(t, admit.QuotasConfig{}, admit.Quota{Requests: 1e12, Every: admit.Month}, admit.Quota{Requests: 1e12, Every: admit.Day})
	}
}

// Once shares are as large as they get, the store is asked so seldom that it does not show.
func TestQuotasAllocations(t *testing.T) {
	w := newDiscard()
	hold := func(limit float64, h http.Handler, r *http.Request) {
		t.Helper()
		for range 5000 {
			clear(w.h)
			h.ServeHTTP(w, r)
		}
		allocs(t, limit, func() { clear(w.h); h.ServeHTTP(w, r) })
	}
	h, r := fullPolicy(t, withQuotas(t))
	hold(11, h, r)
	nothing := http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})
	hold(8, byKey(newQuotas(t, admit.QuotasConfig{}).Wrap(nothing), pro), get("/"))
}
