package admittest_test

import (
	"context"
	"log/slog"
	"net/http"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/admit-go/admit"
	"github.com/admit-go/admit/admittest"
	"github.com/admit-go/admit/contract"
)

// parts are what policies of these tests are made of.
type parts struct {
	keys  admit.KeyMap
	users sync.Map // *admit.Key by name, of the Identity
	admit.Policy
}

var errWho = &admit.Error{Status: http.StatusUnauthorized, Code: "who", Message: "Say who you are."}

// newParts returns a Policy that has every field, apart from those that say the same as
// another.
func newParts(t testing.TB) *parts {
	t.Helper()
	p := &parts{keys: admit.KeyMap{}}
	auth, err := admit.NewAuth(admit.AuthConfig{Store: p.keys, MintedPrefixes: []string{"admittest"}})
	require.NoError(t, err)
	plans, err := admit.NewPlans(
		admit.Plan{Name: "free", Limits: []admit.Limit{admit.PerSecond(5)}, Quotas: []admit.Quota{{Requests: 3, Every: admit.Week}}},
		admit.Plan{
			Name: "pro", Includes: "free", Features: []string{"export"}, Limits: []admit.Limit{admit.PerDay(1_000_000)},
			Quotas: []admit.Quota{{Requests: 4, Every: admit.Month}, {Requests: 2, Every: admit.Week, Soft: true}}, UpgradeURL: "https://example.com/pro",
		},
	)
	require.NoError(t, err)
	limiter, err := admit.NewLimiter(admit.LimiterConfig{Limits: []admit.Limit{admit.PerSecond(1)}, Plans: plans})
	require.NoError(t, err)
	addresses, err := admit.NewLimiter(admit.LimiterConfig{Limits: []admit.Limit{{Name: "burst", Requests: 20, Per: time.Minute}}})
	require.NoError(t, err)
	quotas, err := admit.NewQuotas(admit.QuotasConfig{Plans: plans, Store: admit.NewMemoryQuotaStore()})
	require.NoError(t, err)
	inFlight, err := admit.NewInFlight(admit.InFlightConfig{Max: 3, Queue: 2, Wait: time.Second})
	require.NoError(t, err)
	shedder, err := admit.NewShedder(admit.ShedderConfig{Max: 3, Plans: plans})
	require.NoError(t, err)
	p.Policy = admit.Policy{
		ClientIP: admit.ClientIP("X-Forwarded-For", netip.MustParsePrefix("10.0.0.0/8")), Observe: func(*http.Request, admit.Outcome) {},
		Errors: &admit.ErrorWriter{Logger: slog.New(slog.DiscardHandler)}, Maintenance: new(admit.Maintenance),
		InFlight: inFlight, AddressLimiter: addresses, Methods: []string{"GET", "POST"},
		Auth: auth, Scopes: []string{"orders:write"}, Plans: plans, AtLeast: "free", Features: []string{"export"}, Limiter: limiter, Quotas: quotas,
		Accept: []string{"application/json"}, ContentType: []string{"application/*+json", "application/json"}, MaxBody: 1000, Shedder: shedder,
		BodyTimeout: admit.BodyTimeout{Grace: 5 * time.Second, Max: time.Minute}, WriteStall: time.Second, Timeout: 35 * time.Second,
	}
	return p
}

// others has what newParts leaves out.
func (p *parts) others(t testing.TB) admit.Policy {
	t.Helper()
	negotiator, err := admit.NewNegotiator(admit.NegotiatorConfig{Offers: []string{"text/csv"}})
	require.NoError(t, err)
	types, err := admit.NewContentTypes(admit.ContentTypesConfig{Allow: []string{"application/x-www-form-urlencoded"}})
	require.NoError(t, err)
	timeout, err := admit.NewHandlerTimeout(admit.HandlerTimeoutConfig{FirstByte: time.Second, Total: time.Minute})
	require.NoError(t, err)
	perAddress, err := admit.NewInFlight(admit.InFlightConfig{Max: 5000, PerAddress: 2})
	require.NoError(t, err)
	return admit.Policy{
		InFlight: perAddress, Identity: p.identity, Scopes: []string{"admin"}, Negotiator: negotiator, ContentTypes: types, HandlerTimeout: timeout,
	}
}

// identity believes a header.
func (p *parts) identity(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		key, known := p.users.Load(r.Header.Get("X-User"))
		if !known {
			admit.WriteError(w, r, errWho)
			return
		}
		next.ServeHTTP(w, r.WithContext(admit.WithKey(r.Context(), key.(*admit.Key))))
	})
}

func (p *parts) sign(r *http.Request, key *admit.Key) {
	p.users.Store(key.ID, key)
	r.Header.Set("X-User", key.ID)
}

func decodes(w http.ResponseWriter, r *http.Request) error {
	return decodesA[struct{ Name string }](w, r)
}

func decodesA[T any](w http.ResponseWriter, r *http.Request) error {
	v, err := admit.Decode[T](r)
	if err != nil {
		return err
	}
	return admit.Success(w, r, http.StatusOK, v)
}

func parsesForms(w http.ResponseWriter, r *http.Request) error {
	if err := admit.ParseForm(r, 1000); err != nil {
		return err
	}
	return admit.Success(w, r, http.StatusOK, nil)
}

func streams(w http.ResponseWriter, r *http.Request) {
	w.WriteHeader(http.StatusOK)
	<-r.Context().Done()
}

// bubble runs a test whose waiting takes no time, and takes none.
func bubble(t *testing.T, f func(t *testing.T)) {
	t.Helper()
	began := time.Now()
	synctest.Test(t, f)
	assert.Less(t, time.Since(began), 20*time.Second)
}

// With all that Provoke asks for it reaches each row of every field, on routes with handlers of
// every kind.
func TestProvokeReachesEveryRow(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		p := newParts(t)
		others := p.others(t)
		for _, f := range reflect.VisibleFields(reflect.TypeFor[admit.Policy]()) {
			in := func(p admit.Policy) bool { return !reflect.ValueOf(p).FieldByIndex(f.Index).IsZero() }
			require.True(t, in(p.Policy) || in(others), "a Policy of this test needs %s", f.Name)
		}
		outer := admit.Policy{Errors: p.Errors, Maintenance: p.Maintenance}
		api := newAPI(t, outer, errWho)
		mux := http.NewServeMux()
		api.Handle(mux, "/all/{id}", p.Policy, admit.HandlerFunc(decodes), contract.Decodes()...)
		api.Handle(mux, "POST /others/{id}/{rest...}", others, admit.HandlerFunc(parsesForms), contract.Forms()...)
		api.Handle(mux, "GET /empty/", admit.Policy{}, http.HandlerFunc(streams))
		api.Handle(mux, "GET api.example.org/none/{id}", admit.Policy{}, fails(admit.NewError(404, "")), admit.NewError(404, ""))
		r := &recorder{TB: t}
		c := admittest.NewContract(r, api, outer.Wrap(admit.Mux(mux)))
		c.Provoke(admittest.Credentials{Keys: p.keys, Sign: p.sign, Values: map[string]string{"id": "a/b c", "rest": "d/e f"}, Patience: time.Minute})
		assert.Empty(t, r.take())
		c.AllReached()
		assert.Empty(t, r.take())
		assert.Empty(t, p.keys, "they are taken out again")
		assert.Equal(t, 404, get(c, "/none"), "maintenance is over")
		assert.Empty(t, r.logs, "nobody waits")
	})
}

// The same rows in the outer Policy, before the mux.
func TestProvokeReachesTheOuterRows(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		p := newParts(t)
		api := newAPI(t, p.Policy)
		mux := http.NewServeMux()
		api.Handle(mux, "POST /a", admit.Policy{}, http.HandlerFunc(streams))
		r := &recorder{TB: t}
		c := admittest.NewContract(r, api, p.Wrap(admit.Mux(mux)))
		c.Provoke(admittest.Credentials{Keys: p.keys, Patience: time.Minute})
		c.AllReached()
		assert.Empty(t, r.take())
	})
}

// A token, such as a JWT, has no limits of its own: those of the service are not in the way of
// other rows, and are used up for theirs.
func TestProvokeWithTokensWithoutLimits(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		p := newParts(t)
		limiter, err := admit.NewLimiter(admit.LimiterConfig{Limits: []admit.Limit{admit.PerHour(1)}})
		require.NoError(t, err)
		quiet := admit.Policy{Errors: p.Errors}
		api := newAPI(t, quiet)
		mux := http.NewServeMux()
		api.Handle(mux, "POST /a", admit.Policy{
			Identity: p.identity, Limiter: limiter, Scopes: []string{"a"}, ContentType: []string{"application/json"}, MaxBody: 100,
			BodyTimeout: admit.BodyTimeout{Grace: time.Second, Max: time.Second}, Timeout: 2 * time.Second,
		}, admit.HandlerFunc(decodes), append(contract.Decodes(), errWho)...)
		r := &recorder{TB: t}
		c := admittest.NewContract(r, api, quiet.Wrap(admit.Mux(mux)))
		c.Provoke(admittest.Credentials{Patience: time.Minute, Sign: func(r *http.Request, key *admit.Key) {
			p.sign(r, &admit.Key{ID: key.ID, Scopes: key.Scopes, Networks: key.Networks})
		}})
		c.AllReached()
		assert.Empty(t, r.take())
	})
}

// Without quotas of its own a token uses up those of its plan, on an account that no other
// request of Provoke's has, if that takes no more requests than Provoke makes.
func TestProvokeUsesUpTheQuotaOfAPlan(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		p := newParts(t)
		for sold, reached := range map[int64]bool{3: true, 999: true, 1000: false} {
			plans, err := admit.NewPlans(admit.Plan{Name: "free", Quotas: []admit.Quota{{Requests: sold, Every: admit.Month}}})
			require.NoError(t, err)
			quotas, err := admit.NewQuotas(admit.QuotasConfig{Plans: plans, Store: admit.NewMemoryQuotaStore()})
			require.NoError(t, err)
			quiet := admit.Policy{Errors: p.Errors}
			api := newAPI(t, quiet)
			mux := http.NewServeMux()
			api.Handle(mux, "POST /a", admit.Policy{
				Identity: p.identity, Quotas: quotas, Scopes: []string{"a"}, ContentType: []string{"application/json"}, MaxBody: 100, Timeout: 2 * time.Second,
			}, admit.HandlerFunc(decodes), append(contract.Decodes(), errWho)...)
			r := &recorder{TB: t}
			c := admittest.NewContract(r, api, quiet.Wrap(admit.Mux(mux)))
			c.Provoke(admittest.Credentials{Patience: time.Minute, Sign: func(r *http.Request, key *admit.Key) {
				p.sign(r, &admit.Key{ID: key.ID, Owner: key.Owner, Plan: "free", Scopes: key.Scopes, Networks: key.Networks})
			}})
			c.AllReached()
			failures := r.take()
			if reached {
				assert.Empty(t, failures)
				continue
			}
			require.Len(t, failures, 1)
			assert.Contains(t, failures[0], "429 quota_exceeded: a request of Provoke got 204 No Content, after 999 like it; make Credentials.Sign use the Quotas of the key")
		}
	})
}

// A row that the contract has and the service cannot answer is not reached, whichever wrapper is
// missing there.
func TestProvokeFindsMissingWrappers(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		p := newParts(t)
		keyed := admit.Policy{Errors: p.Errors, Auth: p.Auth, Plans: p.Plans}
		for _, policy := range []admit.Policy{p.Policy, p.others(t)} {
			v := reflect.ValueOf(policy)
			for _, f := range reflect.VisibleFields(v.Type()) {
				if slices.Contains([]string{"ClientIP", "Observe", "Errors", "Plans", "WriteStall"}, f.Name) || v.FieldByIndex(f.Index).IsZero() {
					continue // they answer nothing
				}
				served := admit.Policy{Errors: p.Errors}
				if slices.Contains([]string{"Scopes", "AtLeast", "Features", "Limiter", "Quotas"}, f.Name) {
					served = keyed
				}
				promised := served
				reflect.ValueOf(&promised).Elem().FieldByIndex(f.Index).Set(v.FieldByIndex(f.Index))
				assert.NotEmpty(t, provoke(t, p, promised, served), f.Name)
				assert.Empty(t, provoke(t, p, promised, promised), f.Name)
			}
		}
	})
}

// provoke returns what is wrong with a service that promises one Policy and has another.
func provoke(t *testing.T, p *parts, promised, served admit.Policy) []string {
	t.Helper()
	service := func(policy admit.Policy) (*contract.API, http.Handler) {
		outer, mux := admit.Policy{Errors: p.Errors}, http.NewServeMux()
		api := newAPI(t, outer, errWho)
		api.Handle(mux, "/x", policy, admit.HandlerFunc(decodes), contract.Decodes()...)
		api.Handle(mux, "GET /y", admit.Policy{Identity: p.identity}, nothing)
		return api, outer.Wrap(admit.Mux(mux))
	}
	api, _ := service(promised)
	other, handler := service(served)
	r := &recorder{TB: t}
	admittest.NewContract(r, other, handler) // so that others may stand in for its handlers
	c := admittest.NewContract(r, api, handler)
	c.Provoke(admittest.Credentials{Keys: p.keys, Sign: p.sign, Patience: time.Minute})
	c.AllReached()
	return r.take()
}

var nothing = http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})

// Without credentials Provoke reaches what it can, and says what to give for the rest.
func TestProvokeSaysWhatItNeeds(t *testing.T) {
	t.Parallel()
	p := newParts(t)
	api := newAPI(t, admit.Policy{Errors: p.Errors})
	mux := http.NewServeMux()
	api.Handle(mux, "/all/{id}", p.Policy, http.HandlerFunc(streams), errSoldOut)
	r := &recorder{TB: t}
	c := admittest.NewContract(r, api, admit.Policy{Errors: p.Errors}.Wrap(admit.Mux(mux)))
	c.Provoke(admittest.Credentials{})
	c.AllReached()
	failures := strings.Join(r.take(), "\n")
	for _, want := range []string{
		"/all/{id}: 402 plan_required: a request of Provoke got 401 key_missing; set Credentials.Keys or Sign, so that it is admitted",
		"/all/{id}: 403 scope_required: a request",
		"/all/{id}: 408 request_timeout: a request",
		"/all/{id}: 409 sold_out: it is an error of the service; make a request",
		"/all/{id}: 503 handler_timeout: it takes 35s; set Credentials.Patience, or call Provoke in a bubble of testing/synctest",
	} {
		assert.Contains(t, failures, want)
	}
	for _, reached := range []string{"400 bad_request", "401", "405", "429 overloaded", "500", "501", "503 maintenance"} {
		assert.NotContains(t, failures, ": "+reached)
	}
}

// A row that may be had in several ways is reached where there is one way alone.
func TestProvokeTriesEachWay(t *testing.T) {
	t.Parallel()
	p := newParts(t)
	for name, test := range map[string]struct {
		types   admit.ContentTypesConfig
		handler admit.HandlerFunc
		errs    []*admit.Error
	}{
		"of a kind":            {admit.ContentTypesConfig{Allow: []string{"application/*"}}, nil, nil},
		"encoded":              {admit.ContentTypesConfig{Allow: []string{"text/*"}, Encodings: []string{"x-admittest"}}, nil, nil},
		"a form":               {admit.ContentTypesConfig{}, parsesForms, contract.Forms()},
		"an urlencoded form":   {admit.ContentTypesConfig{Allow: []string{"application/x-www-form-urlencoded"}}, parsesForms, contract.Forms()},
		"JSON, an object":      {admit.ContentTypesConfig{}, decodesA[map[string]int], contract.Decodes()},
		"JSON, a string":       {admit.ContentTypesConfig{}, decodesA[string], contract.Decodes()},
		"JSON, with that type": {admit.ContentTypesConfig{Allow: []string{"application/json"}}, decodesA[[]int], contract.Decodes()},
	} {
		policy := admit.Policy{Methods: []string{"POST"}}
		if test.types.Allow != nil {
			types, err := admit.NewContentTypes(test.types)
			require.NoError(t, err)
			policy.ContentTypes = types
		}
		if test.handler == nil {
			test.handler = func(http.ResponseWriter, *http.Request) error { return nil }
		}
		api := newAPI(t, admit.Policy{Errors: p.Errors})
		mux := http.NewServeMux()
		api.Handle(mux, "/x", policy, test.handler, test.errs...)
		r := &recorder{TB: t}
		c := admittest.NewContract(r, api, admit.Policy{Errors: p.Errors}.Wrap(admit.Mux(mux)))
		c.Provoke(admittest.Credentials{})
		c.AllReached()
		assert.Empty(t, r.take(), name)
	}
}

// A row that another one is in the way of, and one that the callers of the service cannot have,
// are told apart from what is broken.
func TestProvokeSaysWhatToExcept(t *testing.T) {
	t.Parallel()
	p := newParts(t)
	outer := admit.Policy{Errors: p.Errors, MaxBody: 10}
	api := newAPI(t, outer)
	mux := http.NewServeMux()
	api.Handle(mux, "POST /a", admit.Policy{MaxBody: 5, Identity: p.identity}, nothing, errWho)
	mux.Handle("POST /0", admit.Policy{}.Wrap(nothing))
	api.Declare("POST /0", admit.Policy{}) // Provoke cannot replace this handler by one that reads
	r := &recorder{TB: t}
	c := admittest.NewContract(r, api, outer.Wrap(admit.Mux(mux)))
	c.Provoke(admittest.Credentials{Sign: func(r *http.Request, key *admit.Key) { p.sign(r, &admit.Key{ID: key.ID}) }})
	c.AllReached()
	failures := strings.Join(r.take(), "\n")
	assert.Contains(t, failures, `any request: 408 request_timeout: a request of Provoke got 408 request_timeout, which is also a row of the route "POST /a"`)
	assert.Contains(t, failures, "POST /a: 403 address_not_allowed: a request of Provoke got 204 No Content; make Credentials.Sign use the Networks")
}

// The log says how long Provoke waits, but only where that takes time.
func TestProvokeSaysHowLongItWaits(t *testing.T) {
	t.Parallel()
	for timeout, said := range map[time.Duration]bool{time.Millisecond: false, time.Second: true, time.Minute: false} {
		t.Run(timeout.String(), func(t *testing.T) {
			t.Parallel()
			outer := admit.Policy{Errors: &admit.ErrorWriter{Logger: slog.New(slog.DiscardHandler)}}
			api := newAPI(t, outer)
			mux := http.NewServeMux()
			api.Handle(mux, "/slow", admit.Policy{Timeout: timeout}, http.HandlerFunc(streams))
			r := &recorder{TB: t}
			admittest.NewContract(r, api, outer.Wrap(admit.Mux(mux))).Provoke(admittest.Credentials{})
			if !said {
				assert.Empty(t, r.logs, "it is short, or is given up before it begins")
				return
			}
			require.Len(t, r.logs, 1)
			assert.Contains(t, r.logs[0], "Provoke waits up to 1s for each of the slow responses, 1 in all, 100 at a time; in a bubble")
		})
	}
}

// Where a rate limit is in the way of a quota, the report says so.
func TestProvokeSaysThatALimitIsBeforeTheQuota(t *testing.T) {
	t.Parallel()
	p := newParts(t)
	plans, err := admit.NewPlans(admit.Plan{Name: "free", Limits: []admit.Limit{admit.PerDay(2)}, Quotas: []admit.Quota{{Requests: 3, Every: admit.Month}}})
	require.NoError(t, err)
	limiter, err := admit.NewLimiter(admit.LimiterConfig{Limits: []admit.Limit{admit.PerDay(2)}, Plans: plans})
	require.NoError(t, err)
	quotas, err := admit.NewQuotas(admit.QuotasConfig{Plans: plans, Store: admit.NewMemoryQuotaStore()})
	require.NoError(t, err)
	outer := admit.Policy{Errors: p.Errors}
	api := newAPI(t, outer)
	mux := http.NewServeMux()
	api.Handle(mux, "GET /me", admit.Policy{Identity: p.identity, Limiter: limiter, Quotas: quotas}, nothing, errWho)
	r := &recorder{TB: t}
	c := admittest.NewContract(r, api, outer.Wrap(admit.Mux(mux)))
	c.Provoke(admittest.Credentials{Sign: func(r *http.Request, key *admit.Key) {
		p.sign(r, &admit.Key{ID: key.ID, Owner: key.Owner, Plan: "free", Networks: key.Networks})
	}})
	c.AllReached()
	failures := strings.Join(r.take(), "\n")
	assert.Contains(t, failures, "GET /me: 429 quota_exceeded: a request of Provoke got 429 rate_limited, after 999 like it; "+
		"the rate limit is reached before the quota: make Credentials.Sign use the Quotas of the key, or its Limits")
}

// Where a Timeout is over before a client is too slow, the report says so. With a Max, the client
// gets its 408, here that of the route.
func TestProvokeSaysThatATimeoutIsBeforeTheGrace(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		body admit.BodyTimeout
		want string
	}{
		"without Max": {admit.BodyTimeout{Grace: 2 * time.Second}, "any request: 408 request_timeout: a request of Provoke got 503 handler_timeout; " +
			"a Timeout is over before the Grace of the BodyTimeout: give the BodyTimeout a Max, or the Timeout more time"},
		"with Max": {
			admit.BodyTimeout{Grace: 2 * time.Second, Max: time.Minute},
			`any request: 408 request_timeout: a request of Provoke got 408 request_timeout, which is also a row of the route "/a"`,
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				outer := admit.Policy{Errors: &admit.ErrorWriter{Logger: slog.New(slog.DiscardHandler)}, BodyTimeout: test.body}
				api := newAPI(t, outer)
				mux := http.NewServeMux()
				mux.Handle("/0", nothing) // the only route without a 408 of its own, and tried first
				api.Declare("/0", admit.Policy{})
				api.Handle(mux, "/a", admit.Policy{Timeout: time.Second}, nothing)
				r := &recorder{TB: t}
				c := admittest.NewContract(r, api, outer.Wrap(admit.Mux(mux)))
				c.Provoke(admittest.Credentials{})
				c.AllReached()
				assert.Contains(t, strings.Join(r.take(), "\n"), test.want)
			})
		})
	}
}

// What would take too many requests, or a handler that is not there, is said.
func TestProvokeSaysWhatItDoesNotReach(t *testing.T) {
	t.Parallel()
	p := newParts(t)
	many, err := admit.NewInFlight(admit.InFlightConfig{Max: 1000})
	require.NoError(t, err)
	most, err := admit.NewInFlight(admit.InFlightConfig{Max: 999})
	require.NoError(t, err)
	addresses, err := admit.NewLimiter(admit.LimiterConfig{Name: "a", Limits: []admit.Limit{admit.PerDay(1000)}})
	require.NoError(t, err)
	free, err := admit.NewLimiter(admit.LimiterConfig{Name: "b", Limits: []admit.Limit{admit.PerDay(1)}, Cost: func(*http.Request) int { return 0 }})
	require.NoError(t, err)
	api := newAPI(t, admit.Policy{Errors: p.Errors})
	mux := http.NewServeMux()
	declared := admit.Policy{Timeout: time.Second, MaxBody: 5, Methods: []string{"POST"}}
	api.Declare("/declared", declared)
	mux.Handle("/declared", declared.Wrap(nothing))
	api.Handle(mux, "/many", admit.Policy{InFlight: many, AddressLimiter: addresses, Limiter: free}, nothing)
	api.Handle(mux, "/most", admit.Policy{InFlight: most}, nothing)
	r := &recorder{TB: t}
	c := admittest.NewContract(r, api, admit.Policy{Errors: p.Errors}.Wrap(admit.Mux(mux)))
	c.Provoke(admittest.Credentials{})
	c.AllReached()
	failures := strings.Join(r.take(), "\n")
	for _, want := range []string{
		"/declared: 400 bad_request: a request of Provoke got 200 OK; Provoke cannot replace the handler",
		"/declared: 408 request_timeout: a request of Provoke got 200 OK; Provoke cannot",
		"/declared: 503 handler_timeout: a request of Provoke got 200 OK; Provoke cannot",
		"/many: 429 overloaded: it takes more than 1000 requests; make them",
		"/many: 429 rate_limited: a request of Provoke got 204 No Content, after 999 like it",
	} {
		assert.Contains(t, failures, want)
	}
	assert.Equal(t, 4, strings.Count(failures, "\n"), failures)
}

// Nothing panics for want of a Recover, and what is on stays on.
func TestProvokeLeavesAllAsItWas(t *testing.T) {
	t.Parallel()
	maintenance := new(admit.Maintenance)
	maintenance.On(time.Time{})
	bare := http.NewServeMux()
	bare.Handle("/x", maintenance.Wrap(nothing))
	api := newAPI(t, admit.Policy{})
	api.Handle(http.NewServeMux(), "/x", admit.Policy{Maintenance: maintenance}, nothing)
	r := &recorder{TB: t}
	c := admittest.NewContract(r, api, bare)
	c.Provoke(admittest.Credentials{})
	c.AllReached("400 bad_request", "404 not_found")
	failures := strings.Join(r.take(), "\n")
	assert.Contains(t, failures, "/x: 500 internal: a request of Provoke got 200 OK")
	assert.NotContains(t, failures, "503 maintenance")
	assert.Equal(t, 503, get(c, "/x"))
	maintenance.Off()
	assert.Equal(t, 200, get(c, "/x"))
}

// What others may share is left alone, unless the test says that nobody does.
func TestProvokeSparesOtherStores(t *testing.T) {
	t.Parallel()
	var asked []string
	store := takeFunc(func(_ context.Context, key string, _ int, limits []admit.Limit) (admit.Decision, error) {
		asked = append(asked, key)
		d := admit.Decision{Allowed: len(asked) == 1, RetryAfter: time.Second, States: make([]admit.LimitState, len(limits))}
		d.States[0].Exceeded = !d.Allowed
		return d, nil
	})
	shared, err := admit.NewLimiter(admit.LimiterConfig{Name: "shared", Limits: []admit.Limit{admit.PerDay(5)}, Store: store, StoreDown: admit.RefuseAll})
	require.NoError(t, err)
	plans, err := admit.NewPlans(admit.Plan{Name: "free"}) // a key may have quotas nevertheless
	require.NoError(t, err)
	quotas := &countedQuotas{QuotaStore: admit.NewMemoryQuotaStore()}
	sold, err := admit.NewQuotas(admit.QuotasConfig{Plans: plans, Store: quotas})
	require.NoError(t, err)
	p := newParts(t)
	lookUps := 0
	keys, err := admit.NewAuth(admit.AuthConfig{Failures: admit.PerMinute(5), Store: lookUp(func(ctx context.Context, _ admit.Digest) (*admit.Key, error) {
		lookUps++
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		return nil, admit.ErrKeyNotFound
	})})
	require.NoError(t, err)
	api := newAPI(t, admit.Policy{}, errWho)
	mux := http.NewServeMux()
	api.Handle(mux, "GET /limited", admit.Policy{Limiter: shared}, http.HandlerFunc(streams))
	api.Handle(mux, "GET /sold", admit.Policy{Identity: p.identity, Quotas: sold}, http.HandlerFunc(streams))
	api.Handle(mux, "GET /keyed", admit.Policy{Auth: keys}, http.HandlerFunc(streams))
	r := &recorder{TB: t}
	c := admittest.NewContract(r, api, admit.Policy{Errors: &admit.ErrorWriter{Logger: slog.New(slog.DiscardHandler)}}.Wrap(admit.Mux(mux)))
	c.Provoke(admittest.Credentials{Sign: p.sign})
	assert.Empty(t, asked)
	assert.Zero(t, lookUps)
	assert.Zero(t, quotas.calls.Load())
	c.AllReached()
	failures := strings.Join(r.take(), "\n")
	assert.Contains(t, failures, "/limited: 429 rate_limited: its limits are in a store that others may share; set Credentials.OtherStores")
	assert.Contains(t, failures, "/sold: 429 quota_exceeded: its quotas are in a store that others may share; set Credentials.OtherStores")
	assert.Contains(t, failures, "/keyed: 401 key_invalid: its keys are in a store that others may share; set Credentials.OtherStores")

	c.Provoke(admittest.Credentials{OtherStores: true, Sign: p.sign})
	c.AllReached("503 store_unavailable", "GET /keyed: 403 address_not_allowed")
	assert.Empty(t, r.take())
	assert.Positive(t, quotas.calls.Load())
	assert.NotEmpty(t, asked)
	assert.Positive(t, lookUps)
}

// countedQuotas counts what it is asked.
type countedQuotas struct {
	admit.QuotaStore
	calls atomic.Int64
	err   error
}

func (s *countedQuotas) Settle(ctx context.Context, claims []admit.QuotaClaim) ([]admit.QuotaBalance, error) {
	s.calls.Add(1)
	if s.err != nil {
		return nil, s.err
	}
	return s.QuotaStore.Settle(ctx, claims)
}

type takeFunc func(context.Context, string, int, []admit.Limit) (admit.Decision, error)

func (f takeFunc) Take(ctx context.Context, key string, cost int, limits []admit.Limit) (admit.Decision, error) {
	return f(ctx, key, cost, limits)
}

type lookUp func(context.Context, admit.Digest) (*admit.Key, error)

func (f lookUp) LookupKey(ctx context.Context, d admit.Digest) (*admit.Key, error) { return f(ctx, d) }
