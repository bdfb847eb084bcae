package admit_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/admit-go/admit"
)

// broken are the values that constructors return with an error, and those that nobody has
// made: the error each time, and what uses the value.
func broken() map[string]struct {
	err error
	use func()
} {
	type value = struct {
		err error
		use func()
	}
	all := map[string]value{}
	add := func(name string, err error, use func()) { all[name] = value{err, use} }

	auth, err := admit.NewAuth(admit.AuthConfig{})
	add("Auth", err, func() { auth.Wrap(ok) })
	add("Auth, zero", nil, func() { new(admit.Auth).Wrap(ok) })
	add("Auth, nil", nil, func() { (*admit.Auth)(nil).Wrap(ok) })

	limiter, err := admit.NewLimiter(admit.LimiterConfig{})
	add("Limiter", err, func() { limiter.Wrap(ok) })
	add("Limiter, zero", nil, func() { new(admit.Limiter).Wrap(ok) })
	add("Limiter, nil", nil, func() { (*admit.Limiter)(nil).Wrap(ok) })
	divided, err := admit.NewLimiter(admit.LimiterConfig{
		Name: "x", Store: &failing{}, Replicas: 9, Limits: []admit.Limit{{Requests: 1, Per: 99 * 365 * 24 * time.Hour}},
	})
	add("Limiter that cannot be divided", err, func() { divided.Wrap(ok) })

	inFlight, err := admit.NewInFlight(admit.InFlightConfig{})
	add("InFlight", err, func() { inFlight.Wrap(ok) })
	add("InFlight, zero", nil, func() { new(admit.InFlight).Wrap(ok) })
	add("InFlight, nil", nil, func() { (*admit.InFlight)(nil).Wrap(ok) })

	shedder, err := admit.NewShedder(admit.ShedderConfig{})
	add("Shedder", err, func() { shedder.Wrap(ok) })
	add("Shedder, zero", nil, func() { new(admit.Shedder).Wrap(ok) })
	add("Shedder, nil", nil, func() { (*admit.Shedder)(nil).Wrap(ok) })

	quotas, err := admit.NewQuotas(admit.QuotasConfig{})
	add("Quotas", err, func() { quotas.Wrap(ok) })
	add("Quotas, usage", err, func() { quotas.Usage() })
	add("Quotas, zero", nil, func() { new(admit.Quotas).Wrap(ok) })
	add("Quotas, nil", nil, func() { (*admit.Quotas)(nil).Wrap(ok) })

	plans, err := admit.NewPlans()
	add("Plans", err, func() { plans.AtLeast("pro") })
	add("Plans, features", err, func() { plans.Features("sso") })
	add("Plans, zero", nil, func() { new(admit.Plans).AtLeast("") })
	add("Plans, nil", nil, func() { (*admit.Plans)(nil).AtLeast("pro") })

	negotiator, err := admit.NewNegotiator(admit.NegotiatorConfig{})
	add("Negotiator", err, func() { negotiator.Wrap(ok) })
	add("Negotiator, zero", nil, func() { new(admit.Negotiator).Wrap(ok) })
	add("Negotiator, nil", nil, func() { (*admit.Negotiator)(nil).Wrap(ok) })

	types, err := admit.NewContentTypes(admit.ContentTypesConfig{})
	add("ContentTypes", err, func() { types.Wrap(ok) })
	add("ContentTypes, zero", nil, func() { new(admit.ContentTypes).Wrap(ok) })
	add("ContentTypes, nil", nil, func() { (*admit.ContentTypes)(nil).Wrap(ok) })

	timeout, err := admit.NewHandlerTimeout(admit.HandlerTimeoutConfig{})
	add("HandlerTimeout", err, func() { timeout.Wrap(ok) })
	add("HandlerTimeout, zero", nil, func() { new(admit.HandlerTimeout).Wrap(ok) })
	add("HandlerTimeout, nil", nil, func() { (*admit.HandlerTimeout)(nil).Wrap(ok) })
	return all
}

// Who does not look at the error of a constructor gets no service, instead of one without
// a lock on the door.
func TestBrokenValuesDoNotWrap(t *testing.T) {
	t.Parallel()
	for name, v := range broken() {
		func() {
			defer func() {
				err, _ := recover().(error)
				require.Error(t, err, name)
				assert.NotPanics(t, func() { require.ErrorAs(t, err, new(*admit.ConfigError), name) })
				if v.err != nil {
					assert.Equal(t, v.err, err, name)
				} else {
					assert.ErrorContains(t, err, "was not made by New", name)
				}
			}()
			v.use()
		}()
	}
}

func TestPolicyReportsBrokenValues(t *testing.T) {
	t.Parallel()
	auth, _ := admit.NewAuth(admit.AuthConfig{Realm: "\n"})
	limiter, _ := admit.NewLimiter(admit.LimiterConfig{Limits: []admit.Limit{{Requests: 1}}})
	inFlight, _ := admit.NewInFlight(admit.InFlightConfig{})
	shedder, _ := admit.NewShedder(admit.ShedderConfig{Max: 1, MaxQueue: -1})
	quotas, _ := admit.NewQuotas(admit.QuotasConfig{Store: admit.NewMemoryQuotaStore(), Replicas: -1})
	plans, _ := admit.NewPlans(admit.Plan{Name: "pro"}, admit.Plan{Name: "pro"})
	negotiator, _ := admit.NewNegotiator(admit.NegotiatorConfig{Offers: []string{"json"}})
	types, _ := admit.NewContentTypes(admit.ContentTypesConfig{Allow: []string{"json"}})
	timeout, _ := admit.NewHandlerTimeout(admit.HandlerTimeoutConfig{Total: -1})

	_, err := admit.Policy{
		InFlight: inFlight, AddressLimiter: new(admit.Limiter), Methods: []string{"GET", "post"}, Auth: auth, Scopes: []string{"ok", "a b"},
		Plans: plans, AtLeast: "pro", Limiter: limiter, Quotas: quotas, Negotiator: negotiator, ContentTypes: types, MaxBody: -1, Shedder: shedder,
		BodyTimeout: admit.BodyTimeout{Max: -1, MinRate: -1}, WriteStall: -1, HandlerTimeout: timeout,
	}.Chain()
	assert.Equal(t, []string{
		"Policy.InFlight.Max", "Policy.AddressLimiter", "Policy.Methods[1]", "Policy.Auth.Store", "Policy.Auth.Realm", "Policy.Scopes[1]",
		"Policy.Plans[1].Name", "Policy.Limiter.Limits[0].Per", "Policy.Quotas.Plans", "Policy.Quotas.Replicas", "Policy.Negotiator.Offers[0]", "Policy.ContentTypes.Allow[0]", "Policy.MaxBody", "Policy.Shedder.MaxQueue",
		"Policy.BodyTimeout.Grace", "Policy.BodyTimeout.Max", "Policy.BodyTimeout.MinRate", "Policy.WriteStall",
		"Policy.HandlerTimeout.FirstByte", "Policy.HandlerTimeout.Total",
	}, fieldsOf(t, err))
	assert.ErrorContains(t, err, "admit: Policy.Limiter.Limits[0].Per is 0s; name a period")
	assert.ErrorContains(t, err, "admit: Policy.AddressLimiter was not made by NewLimiter")

	_, err = admit.Policy{Accept: []string{"json"}, ContentType: []string{"a/b", "json"}, Timeout: -1}.Chain()
	assert.Equal(t, []string{"Policy.Accept[0]", "Policy.ContentType[1]", "Policy.Timeout"}, fieldsOf(t, err))
}

// fieldsOf returns the paths of all faults. Each is one line.
func fieldsOf(t *testing.T, err error) []string {
	t.Helper()
	joined, ok := err.(interface{ Unwrap() []error })
	require.True(t, ok, "%v", err)
	var fields []string
	for _, err := range joined.Unwrap() {
		var fault *admit.ConfigError
		require.ErrorAs(t, err, &fault)
		assert.Equal(t, "admit: "+fault.Field+" "+fault.Reason, err.Error())
		assert.NotContains(t, fault.Reason, "\n")
		assert.NotContains(t, fault.Reason, "admit:", "no prefix twice")
		fields = append(fields, fault.Field)
	}
	return fields
}

func TestPolicyTakesOneFormOfAThing(t *testing.T) {
	t.Parallel()
	negotiator, err := admit.NewNegotiator(admit.NegotiatorConfig{Offers: []string{jsonType}})
	require.NoError(t, err)
	types, err := admit.NewContentTypes(admit.ContentTypesConfig{Allow: []string{jsonType}})
	require.NoError(t, err)
	timeout, err := admit.NewHandlerTimeout(admit.HandlerTimeoutConfig{FirstByte: time.Second})
	require.NoError(t, err)
	limiter := newLimiter(t, admit.LimiterConfig{Limits: []admit.Limit{admit.PerHour(1)}})
	both := admit.Policy{
		Accept: []string{jsonType}, Negotiator: negotiator, ContentType: []string{jsonType}, ContentTypes: types,
		Timeout: time.Second, HandlerTimeout: timeout, Auth: newAuth(t, admit.AuthConfig{}), Identity: admit.RequestID,
		Limiter: limiter, AddressLimiter: limiter,
	}
	_, err = both.Chain()
	assert.Equal(t, []string{"Policy.Negotiator", "Policy.ContentTypes", "Policy.HandlerTimeout", "Policy.Identity", "Policy.Limiter"}, fieldsOf(t, err))
	assert.ErrorContains(t, err, "together with Accept")

	_, err = admit.Policy{
		Negotiator: negotiator, ContentTypes: types, HandlerTimeout: timeout, Identity: admit.RequestID, Limiter: limiter,
	}.Chain()
	assert.NoError(t, err)
}

// What serves without Wrap fails too, and never as if there were no such key.
func TestBrokenValuesDoNotDecide(t *testing.T) {
	t.Parallel()
	auth, fault := admit.NewAuth(admit.AuthConfig{})
	for _, a := range []*admit.Auth{auth, new(admit.Auth), nil} {
		key, err := a.Verify(t.Context(), "token")
		assert.Nil(t, key)
		var e *admit.Error
		require.ErrorAs(t, err, &e)
		assert.Equal(t, 500, e.Status)
		require.ErrorAs(t, err, new(*admit.ConfigError))
	}
	assert.Error(t, fault)

	cache, fault := admit.NewKeyCache(oneKey, admit.KeyCacheConfig{})
	for _, c := range []*admit.KeyCache{cache, new(admit.KeyCache), nil} {
		key, err := c.LookupKey(t.Context(), admit.DigestOf("good"))
		assert.Nil(t, key)
		require.ErrorAs(t, err, new(*admit.ConfigError))
		assert.NotErrorIs(t, err, admit.ErrKeyNotFound)
		assert.False(t, c.Knows(admit.DigestOf("good")))
		c.Forget(admit.DigestOf("good"))
	}
	assert.Error(t, fault)

	limiter, _ := admit.NewLimiter(admit.LimiterConfig{})
	for _, l := range []*admit.Limiter{limiter, new(admit.Limiter), nil} {
		d, err := l.Take(get("/"), 1)
		assert.False(t, d.Allowed)
		require.ErrorAs(t, err, new(*admit.ConfigError))
		require.ErrorAs(t, l.Close(t.Context()), new(*admit.ConfigError))
	}

	quotas, fault := admit.NewQuotas(admit.QuotasConfig{})
	for _, q := range []*admit.Quotas{quotas, new(admit.Quotas), nil} {
		usage, err := q.Of(t.Context(), &admit.Key{ID: "k"})
		assert.Empty(t, usage)
		require.ErrorAs(t, err, new(*admit.ConfigError))
		require.ErrorAs(t, q.Close(t.Context()), new(*admit.ConfigError))
		require.ErrorAs(t, q.Export(t.Context(), func(context.Context, []admit.UsageRecord) error { return nil }), new(*admit.ConfigError))
	}
	assert.Error(t, fault)
	for _, s := range []*admit.MemoryQuotaStore{new(admit.MemoryQuotaStore), nil} {
		_, err := s.Settle(t.Context(), []admit.QuotaClaim{{Account: "a", Quota: "month"}})
		require.ErrorAs(t, err, new(*admit.ConfigError))
		_, err = s.Offer(t.Context(), 1)
		require.ErrorAs(t, err, new(*admit.ConfigError))
		require.ErrorAs(t, s.Acknowledge(t.Context(), nil), new(*admit.ConfigError))
	}

	store, _ := admit.NewMemoryStore(admit.MemoryStoreConfig{MaxKeys: -1})
	for _, s := range []*admit.MemoryStore{store, new(admit.MemoryStore), nil} {
		d, err := s.Take(t.Context(), "addr:x", 1, []admit.Limit{admit.PerHour(1)})
		assert.False(t, d.Allowed)
		require.ErrorAs(t, err, new(*admit.ConfigError))
	}

	types, _ := admit.NewContentTypes(admit.ContentTypesConfig{})
	negotiator, _ := admit.NewNegotiator(admit.NegotiatorConfig{})
	for _, c := range []*admit.ContentTypes{types, new(admit.ContentTypes), nil} {
		assert.Error(t, c.Check(newRequest("POST", "/", "{}", "Content-Type", jsonType)))
	}
	for _, n := range []*admit.Negotiator{negotiator, new(admit.Negotiator), nil} {
		_, chosen := n.Negotiate([]string{"*/*"})
		assert.False(t, chosen)
	}
}

// A constructor that is handed a broken value, or a nil pointer in an interface, reports it.
func TestBrokenValuesInAConfiguration(t *testing.T) {
	t.Parallel()
	cache, _ := admit.NewKeyCache(oneKey, admit.KeyCacheConfig{})
	plans, _ := admit.NewPlans()
	memory, _ := admit.NewMemoryStore(admit.MemoryStoreConfig{MaxKeys: -1})
	limits := []admit.Limit{admit.PerHour(1)}
	for name, test := range map[string]struct {
		of    func() error
		fault string
	}{
		"a cache":      {func() error { _, err := admit.NewAuth(admit.AuthConfig{Store: cache}); return err }, "AuthConfig.Store.TTL is 0s"},
		"no key file":  {func() error { _, err := admit.NewAuth(admit.AuthConfig{Store: (*admit.KeyFile)(nil)}); return err }, "AuthConfig.Store is a nil *admit.KeyFile"},
		"no cache":     {func() error { _, err := admit.NewAuth(admit.AuthConfig{Store: (*admit.KeyCache)(nil)}); return err }, "AuthConfig.Store is a nil *admit.KeyCache"},
		"cached cache": {func() error { _, err := admit.NewKeyCache(cache, admit.KeyCacheConfig{TTL: 1}); return err }, "NewKeyCache.store.TTL is 0s"},
		"cached file": {func() error {
			_, err := admit.NewKeyCache((*admit.KeyFile)(nil), admit.KeyCacheConfig{TTL: 1})
			return err
		}, "NewKeyCache.store is a nil *admit.KeyFile"},
		"plans": {func() error {
			_, err := admit.NewLimiter(admit.LimiterConfig{Limits: limits, Plans: plans})
			return err
		}, "LimiterConfig.Plans has no plan"},
		"a store": {func() error {
			_, err := admit.NewLimiter(admit.LimiterConfig{Limits: limits, Name: "x", Store: memory})
			return err
		}, "LimiterConfig.Store.MaxKeys is -1"},
		"no store": {func() error {
			_, err := admit.NewLimiter(admit.LimiterConfig{Limits: limits, Name: "x", Store: (*admit.MemoryStore)(nil)})
			return err
		}, "LimiterConfig.Store is a nil *admit.MemoryStore"},
		"a zero store": {func() error {
			_, err := admit.NewLimiter(admit.LimiterConfig{Limits: limits, Name: "x", Store: new(admit.MemoryStore)})
			return err
		}, "LimiterConfig.Store was not made by NewMemoryStore"},
		"plans of quotas": {func() error {
			_, err := admit.NewQuotas(admit.QuotasConfig{Plans: plans, Store: admit.NewMemoryQuotaStore()})
			return err
		}, "QuotasConfig.Plans has no plan"},
		"no store of quotas": {func() error {
			_, err := admit.NewQuotas(admit.QuotasConfig{Plans: newPlans(t), Store: (*admit.MemoryQuotaStore)(nil)})
			return err
		}, "QuotasConfig.Store is a nil *admit.MemoryQuotaStore"},
		"a zero store of quotas": {func() error {
			_, err := admit.NewQuotas(admit.QuotasConfig{Plans: newPlans(t), Store: new(admit.MemoryQuotaStore)})
			return err
		}, "QuotasConfig.Store was not made by NewMemoryQuotaStore"},
		"another's nil": {func() error {
			_, err := admit.NewLimiter(admit.LimiterConfig{Limits: limits, Name: "x", Store: (*failing)(nil)})
			return err
		}, "LimiterConfig.Store is a nil *admit_test.failing"},
	} {
		assert.ErrorContains(t, test.of(), test.fault, name)
	}
}

// What cannot be meant does not build.
func TestConfigurationThatIsPointless(t *testing.T) {
	t.Parallel()
	limits := []admit.Limit{admit.PerHour(1)}
	plans, err := admit.NewPlans(admit.Plan{Name: "pro", Limits: limits})
	require.NoError(t, err)
	limiter := newLimiter(t, admit.LimiterConfig{Limits: limits})
	auth := func(c admit.AuthConfig) error { c.Store = oneKey; _, err := admit.NewAuth(c); return err }
	newLimiter := func(c admit.LimiterConfig) error { c.Limits = limits; _, err := admit.NewLimiter(c); return err }
	policy := func(p admit.Policy) error { _, err := p.Chain(); return err }
	cache := func(c admit.KeyCacheConfig) error { _, err := admit.NewKeyCache(oneKey, c); return err }
	for fault, err := range map[string]error{
		"Replicas is 3, but there is no Store":          newLimiter(admit.LimiterConfig{Replicas: 3}),
		"StoreDown is RefuseAll, but there is no Store": newLimiter(admit.LimiterConfig{StoreDown: admit.RefuseAll}),
		"Policy.Limiter has no Plans":                   policy(admit.Policy{Plans: plans, AtLeast: "pro", Limiter: limiter}),
		"Timeout is 1µs; a number alone is nanoseconds: give it a unit, such as 10*time.Second (at least 1ms)": policy(admit.Policy{Timeout: time.Microsecond}),
		"Policy.WriteStall is 5ns":                                     policy(admit.Policy{WriteStall: 5}),
		"Policy.BodyTimeout.Grace is 5ns":                              policy(admit.Policy{BodyTimeout: admit.BodyTimeout{Grace: 5}}),
		"KeyCacheConfig.TTL is 60ns":                                   cache(admit.KeyCacheConfig{TTL: 60}),
		"KeyCacheConfig.StaleFor is 999.999µs":                         cache(admit.KeyCacheConfig{TTL: time.Minute, StaleFor: time.Millisecond - 1}),
		`MintedPrefixes[0] is "acme_"; omit the underscore: Mint adds`: auth(admit.AuthConfig{MintedPrefixes: []string{"acme_"}}),
		`Methods[1] is "*", which is not a method`:                     policy(admit.Policy{Methods: []string{"GET", "*"}}),
		"Sources[0] is the header Cookie":                              auth(admit.AuthConfig{Sources: []admit.KeySource{admit.FromHeader("cookie")}}),
		"Sources[0] is the header Host":                                auth(admit.AuthConfig{Sources: []admit.KeySource{admit.FromHeader("host")}}),
		"Sources[0] is the header Connection":                          auth(admit.AuthConfig{Sources: []admit.KeySource{admit.FromHeader("Connection")}}),
	} {
		assert.ErrorContains(t, err, fault)
	}
	require.NoError(t, policy(admit.Policy{Timeout: time.Millisecond, WriteStall: time.Millisecond}))
	require.NoError(t, newLimiter(admit.LimiterConfig{Plans: plans}))
	require.NoError(t, newLimiter(admit.LimiterConfig{Name: "x", Store: newMemoryStore(t, 0), Replicas: 3, StoreDown: admit.RefuseAll}))
}

func TestLeaseThatCannotBe(t *testing.T) {
	t.Parallel()
	good := admit.Lease{Share: 0.5, For: time.Second}
	for name, c := range map[string]struct {
		lease    admit.Lease
		replicas int
		noStore  bool
		faults   []string
	}{
		"none":                {lease: admit.Lease{}},
		"one":                 {lease: good, replicas: 1},
		"all of it":           {lease: admit.Lease{Share: 1, For: 10 * time.Millisecond}, replicas: 8},
		"no Share":            {admit.Lease{For: time.Second}, 8, false, []string{"LimiterConfig.Lease.Share is 0; it is the part"}},
		"no For":              {admit.Lease{Share: 0.5}, 8, false, []string{"LimiterConfig.Lease.For is 0s; it is how long"}},
		"more than all":       {admit.Lease{Share: 1.01, For: time.Second}, 8, false, []string{"LimiterConfig.Lease.Share is 1.01"}},
		"less than nothing":   {admit.Lease{Share: -0.5, For: -time.Second}, 8, false, []string{"LimiterConfig.Lease.Share is -0.5", "LimiterConfig.Lease.For is -1s"}},
		"not a number":        {admit.Lease{Share: math.NaN(), For: time.Second}, 8, false, []string{"LimiterConfig.Lease.Share is NaN"}},
		"a number of seconds": {admit.Lease{Share: 0.5, For: 5}, 8, false, []string{"LimiterConfig.Lease.For is 5ns"}},
		"no Replicas":         {good, 0, false, []string{"LimiterConfig.Replicas is 0; a Lease needs"}},
		"no Store":            {good, 0, true, []string{"LimiterConfig.Lease is set, but there is no Store"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			config := admit.LimiterConfig{Name: "x", Limits: []admit.Limit{admit.PerHour(1)}, Replicas: c.replicas, Lease: c.lease, Store: newMemoryStore(t, 0)}
			if c.noStore {
				config.Store = nil
			}
			_, err := admit.NewLimiter(config)
			if len(c.faults) == 0 {
				require.NoError(t, err)
				return
			}
			var fields []string
			for _, fault := range c.faults {
				assert.ErrorContains(t, err, fault)
				field, _, _ := strings.Cut(fault, " ")
				fields = append(fields, field)
			}
			assert.Equal(t, fields, fieldsOf(t, err))
		})
	}
}

// A store that fails as a broken KeyCache does is an outage, and lets nobody in.
func TestBrokenCacheBehindADecorator(t *testing.T) {
	t.Parallel()
	cache, _ := admit.NewKeyCache(oneKey, admit.KeyCacheConfig{})
	h := newAuth(t, admit.AuthConfig{Store: struct{ admit.KeyStore }{cache}}).Wrap(ok)
	w := httptest.NewRecorder()
	h.ServeHTTP(w, get("/", "X-API-Key", "good"))
	assert.Equal(t, http.StatusServiceUnavailable, w.Code)
}

func TestConfigErrorIsFoundInAPanic(t *testing.T) {
	t.Parallel()
	for name, f := range map[string]func(){
		"APIKey": func() { admit.APIKey(nil) }, "Methods": func() { admit.Methods() }, "Accept": func() { admit.Accept() },
		"ContentType": func() { admit.ContentType() }, "MaxBody": func() { admit.MaxBody(0) }, "Timeout": func() { admit.Timeout(0) },
		"WriteStall": func() { admit.WriteStall(0) }, "MaxInFlight": func() { admit.MaxInFlight(0) }, "RateLimit": func() { admit.RateLimit() },
		"RequireScopes": func() { admit.RequireScopes() }, "ClientIP": func() { admit.ClientIP("a b") },
		"BodyTimeout": func() { admit.BodyTimeout{}.Wrap(ok) }, "Policy": func() { admit.Policy{MaxBody: -1}.Wrap(ok) },
	} {
		func() {
			defer func() {
				err, _ := recover().(error)
				var fault *admit.ConfigError
				require.True(t, errors.As(err, &fault), "%s: %v", name, err)
				if name != "APIKey" {
					assert.Contains(t, fault.Field, name)
				}
			}()
			f()
		}()
	}
}

// More that cannot serve: nil functions, keys and lists that nobody could mean.
func TestConfigurationThatCannotServe(t *testing.T) {
	t.Parallel()
	limits := []admit.Limit{admit.PerHour(1)}
	ttl := admit.KeyCacheConfig{TTL: time.Minute}
	var many []admit.Limit
	var manyQuotas []admit.Quota
	for i := range 10_000 {
		many = append(many, admit.Limit{Name: fmt.Sprint(i), Requests: 1, Per: time.Hour})
		manyQuotas = append(manyQuotas, admit.Quota{Name: fmt.Sprint(i), Requests: 1, Every: admit.Day})
	}
	for name, build := range map[string]func() error{
		"a nil func as KeyStore": func() error { _, err := admit.NewAuth(admit.AuthConfig{Store: storeFunc(nil)}); return err },
		"a nil func in a cache":  func() error { _, err := admit.NewKeyCache(storeFunc(nil), ttl); return err },
		"a nil func as LimitStore": func() error {
			_, err := admit.NewLimiter(admit.LimiterConfig{Name: "x", Store: limitFunc(nil), Limits: limits})
			return err
		},
		"a network that is none": func() error {
			_, err := admit.NewAuth(admit.AuthConfig{Store: admit.KeyMap{{}: {ID: "k", Networks: []netip.Prefix{{}}}}})
			return err
		},
		"a key without ID in a cache": func() error { _, err := admit.NewKeyCache(admit.KeyMap{{}: {}}, ttl); return err },
		"10,000 limits":               func() error { _, err := admit.CompleteLimits(many); return err },
		"10,000 quotas":               func() error { _, err := admit.CompleteQuotas(manyQuotas); return err },
	} {
		assert.Error(t, build(), name)
	}
	for name, build := range map[string]func(){
		"HandlerFunc": func() { admit.Policy{}.Wrap(http.HandlerFunc(nil)) },
		"ours":        func() { admit.Policy{}.Wrap(admit.HandlerFunc(nil)) },
		"ServeMux":    func() { admit.RequestID((*http.ServeMux)(nil)) },
	} {
		assert.Panics(t, build, "a nil %s as handler", name)
	}
}

type limitFunc func() (admit.Decision, error)

func (f limitFunc) Take(context.Context, string, int, []admit.Limit) (admit.Decision, error) {
	return f()
}
