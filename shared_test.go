package admit_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/admit-go/admit"
)

// kind is a kind of answer: a handler, and a request for it.
type kind struct {
	h      http.Handler
	status int
	r      *http.Request // nil: a GET
	body   string        // of r
}

// answers are all kinds of answers, each the same again when it is asked for again.
func answers(t testing.TB) map[string]kind {
	t.Helper()
	past, future := time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
	keys := admit.KeyMap{
		admit.DigestOf("good"): {ID: "good", Plan: "free"}, admit.DigestOf("expired"): {ID: "expired", ExpiresAt: past},
		admit.DigestOf("early"): {ID: "early", NotBefore: future}, admit.DigestOf("revoked"): {ID: "revoked", RevokedAt: past},
	}
	auth := newAuth(t, admit.AuthConfig{Store: keys, Realm: "api"})
	down := storeFunc(func(context.Context, admit.Digest) (*admit.Key, error) { return nil, errors.New("down") })
	throttled := newAuth(t, admit.AuthConfig{Store: admit.KeyStore(storeFunc(keys.LookupKey)), Failures: admit.PerDay(1)})
	status(throttled.Wrap(ok), get("/", "X-API-Key", "unknown"))
	plans := newPlans(t)
	var on, until admit.Maintenance
	on.On(time.Time{})
	until.On(time.Now().Add(100 * time.Hour).Truncate(time.Hour))
	states := []admit.LimitState{{Remaining: 7, Reset: time.Minute}, {Remaining: 9, Reset: time.Hour}}
	limited := func(c admit.LimiterConfig, d admit.Decision) http.Handler {
		c.Name, c.Store, c.Limits = "api", fixed(d), []admit.Limit{admit.PerMinute(10), admit.PerHour(20)}
		return newLimiter(t, c).Wrap(ok)
	}
	broken := new(failing)
	err := errors.New("down")
	broken.err.Store(&err)
	outage := newLimiter(t, admit.LimiterConfig{Name: "api", Limits: []admit.Limit{admit.PerDay(1)}, Store: broken, StoreDown: admit.RefuseAll}).Wrap(ok)
	hundred := newLimiter(t, admit.LimiterConfig{Limits: []admit.Limit{admit.PerHour(5)}, Cost: func(*http.Request) int { return 0 }, LegacyHeaders: true}).Wrap(ok)
	sent := func(method, contentType string, more ...string) *http.Request {
		return newRequest(method, "/", "{}", append([]string{"Content-Type", contentType}, more...)...)
	}
	types := admit.ContentType(jsonType)(ok)
	mux := http.NewServeMux()
	mux.Handle("GET /only/get", ok)
	methods := admit.Methods("GET", "PUT")(ok)
	header := http.Header{"X-Own": {"1", "2"}, "Vary": {"Origin", "Accept"}}
	own := &admit.Error{Status: 409, Header: header, RetryAfter: time.Second, Meta: map[string]any{"a": []int{1}}, Fields: []admit.FieldError{{Path: "a", Code: "b", Message: "c"}}}
	success := admit.HandlerFunc(func(w http.ResponseWriter, r *http.Request) error { return admit.Success(w, r, 200, "data") })
	key := func(token string) *http.Request { return get("/", "X-API-Key", token) }
	withKey := func(h http.Handler) kind { return kind{h: auth.Wrap(h), r: key("good")} }
	of := func(k kind, status int) kind { k.status = status; return k }
	all := map[string]kind{
		"200":                     {h: ok, status: 200},
		"304":                     {h: answer(304), status: 304},
		"Success":                 {h: success, status: 200},
		"Success, HEAD":           {h: success, status: 200, r: newRequest("HEAD", "/", "")},
		"Success, 204":            {h: admit.HandlerFunc(func(w http.ResponseWriter, r *http.Request) error { return admit.Success(w, r, 204, nil) }), status: 204},
		"error":                   {h: fails(own), status: 409},
		"error, problem+json":     {h: fails(own), status: 409, r: get("/", "Accept", "application/problem+json")},
		"error, encoded":          {h: ownErrors("x").Wrap(fails(own)), status: 409},
		"error, of a status":      {h: fails(admit.NewError(404, "")), status: 404},
		"error, internal":         {h: fails(errors.New("secret")), status: 500},
		"error, deadline":         {h: fails(context.DeadlineExceeded), status: 503},
		"panic":                   {h: panics("secret"), status: 500},
		"maintenance":             {h: on.Wrap(ok), status: 503},
		"maintenance, until":      {h: until.Wrap(ok), status: 503},
		"overloaded":              {h: fullInFlight(t)(ok), status: 429},
		"OPTIONS":                 {h: methods, status: 204, r: newRequest("OPTIONS", "/", "")},
		"405":                     {h: methods, status: 405, r: newRequest("POST", "/", "")},
		"501":                     {h: methods, status: 501, r: newRequest("BREW", "/", "")},
		"key missing":             {h: auth.Wrap(ok), status: 401},
		"key unknown":             {h: auth.Wrap(ok), status: 401, r: key("unknown")},
		"key expired":             {h: auth.Wrap(ok), status: 401, r: key("expired")},
		"key early":               {h: auth.Wrap(ok), status: 401, r: key("early")},
		"key revoked":             {h: auth.Wrap(ok), status: 401, r: key("revoked")},
		"two keys":                {h: auth.Wrap(ok), status: 400, r: get("/", "X-API-Key", "good", "Authorization", "Bearer good")},
		"key store":               {h: newAuth(t, admit.AuthConfig{Store: down}).Wrap(ok), status: 503, r: key("good")},
		"too many unknown keys":   {h: throttled.Wrap(ok), status: 429, r: key("another")},
		"a key in the query":      {h: newAuth(t, admit.AuthConfig{Store: keys, Sources: []admit.KeySource{admit.FromQuery("k")}}).Wrap(http.RedirectHandler("/b", http.StatusFound)), status: http.StatusFound, r: get("/?k=good")},
		"scope":                   of(withKey(admit.RequireScopes("w")(ok)), 403),
		"scope, no key":           {h: admit.RequireScopes("w")(ok), status: 500},
		"plan":                    of(withKey(plans.AtLeast("pro")(ok)), 402),
		"feature":                 of(withKey(plans.Features("sso")(ok)), 402),
		"limit, in memory":        {h: hundred, status: 200},
		"limit":                   {h: limited(admit.LimiterConfig{}, admit.Decision{Allowed: true, States: states}), status: 200},
		"limit, legacy":           {h: limited(admit.LimiterConfig{LegacyHeaders: true}, admit.Decision{Allowed: true, States: states}), status: 200},
		"limit, another outside":  {h: admit.RequestID(newLimiter(t, admit.LimiterConfig{Limits: []admit.Limit{admit.PerDay(5)}, Cost: func(*http.Request) int { return 0 }}).Wrap(hundred)), status: 200},
		"limit, refused":          {h: limited(admit.LimiterConfig{LegacyHeaders: true}, admit.Decision{RetryAfter: time.Minute, States: states}), status: 429},
		"limit, in memory, never": {h: limiterThatRefuses(t)(ok), status: 429},
		"limit store":             {h: outage, status: 503},
		"Accept":                  {h: admit.Accept(jsonType)(ok), status: 200},
		"Accept, Vary":            {h: varies(admit.Accept(jsonType)(fails(own))), status: 409},
		"406":                     {h: admit.Accept(jsonType)(ok), status: 406, r: get("/", "Accept", "image/png")},
		"415, missing":            {h: types, status: 415, r: newRequest("POST", "/", "{}")},
		"415, malformed":          {h: types, status: 415, r: sent("PUT", "json")},
		"415, type":               {h: types, status: 415, r: sent("PATCH", "text/plain")},
		"415, charset":            {h: types, status: 415, r: sent("POST", jsonType+"; charset=latin1")},
		"415, encoding":           {h: types, status: 415, r: sent("POST", jsonType, "Content-Encoding", "gzip")},
		"two types":               {h: types, status: 400, r: sent("POST", jsonType, "Content-Type", jsonType)},
		"413":                     {h: admit.MaxBody(1)(ok), status: 413, r: sent("POST", jsonType)},
		"Decode, 413":             {h: admit.MaxBody(1)(readAll(0)), status: 413, r: chunked(sent("POST", jsonType))},
		"Decode, 422":             {h: decoding[int](), status: 422, r: sent("POST", jsonType)},
		"Decode, 400":             {h: decoding[int](), status: 400, r: newRequest("POST", "/", "{")},
		"Decode, empty":           {h: decoding[int](), status: 400},
		"text":                    {h: admit.Intercept(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "text", 404) })), status: 404},
		"404 of a mux":            {h: admit.Mux(mux), status: 404},
		"405 of a mux":            {h: admit.Mux(mux), status: 405, r: newRequest("POST", "/only/get", "")},
		"NotFound":                {h: http.HandlerFunc(admit.NotFound), status: 404},
		"MethodNotAllowed":        {h: http.HandlerFunc(admit.MethodNotAllowed), status: 405},
		"502":                     {h: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { admit.ProxyError(w, r, io.EOF) }), status: 502},
		"504":                     {h: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { admit.ProxyError(w, r, context.DeadlineExceeded) }), status: 504},
		"timeout":                 {h: admit.Timeout(time.Millisecond)(overruns(t)), status: 503},
		"inside a timeout":        {h: admit.Timeout(time.Hour)(fails(own)), status: 409},
	}
	for name, k := range all {
		if k.r == nil {
			k.r = get("/")
		}
		body, err := io.ReadAll(k.r.Body)
		require.NoError(t, err)
		k.body = string(body)
		all[name] = k
	}
	return all
}

func decoding[T any]() http.Handler {
	return admit.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) error {
		_, err := admit.Decode[T](r)
		return err
	})
}

// chunked says nothing of the length.
func chunked(r *http.Request) *http.Request {
	r.ContentLength = -1
	return r
}

// shared is what all responses have of a wrapper outside, with room behind it.
var shared = append(make([]string, 0, 8), "Origin")

// varies is a wrapper that gives every response the same slice.
func varies(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header()["Vary"] = shared
		h.ServeHTTP(w, r)
	})
}

// again returns the request, to be sent once more.
func (k kind) again(t testing.TB) *http.Request {
	t.Helper()
	r := k.r.Clone(t.Context())
	r.Header.Set("X-Request-Id", "known")
	r.Body = io.NopCloser(strings.NewReader(k.body))
	return r
}

// Whoever stands outside may change a header's values in place, or append to them: the
// next answer is as before, and what others have given to the response is theirs.
func TestNothingSharedIsChanged(t *testing.T) {
	t.Parallel()
	chains := map[string]func(http.Handler) http.Handler{
		"bare":  func(h http.Handler) http.Handler { return h },
		"chain": func(h http.Handler) http.Handler { return wrap(h, admit.RequestID, ownLogs, admit.Recover) },
	}
	for chain, around := range chains {
		for name, k := range answers(t) {
			if chain == "bare" && name == "panic" {
				continue // nobody answers
			}
			h := around(ownLogs(k.h))
			answered := func() (*httptest.ResponseRecorder, http.Header) {
				w := httptest.NewRecorder()
				h.ServeHTTP(w, k.again(t))
				require.Equal(t, k.status, w.Code, "%s, %s: %s", chain, name, w.Body)
				return w, w.Header().Clone()
			}
			t.Run(chain+" "+name, func(t *testing.T) {
				w, before := answered()
				for header, values := range w.Header() {
					w.Header()[header] = append(values, "more")
				}
				for header, values := range before {
					assert.Equal(t, values, w.Header()[header][:len(values)], "%s is a neighbour of another", header)
				}
				spoil(w.Header())
				after, header := answered()
				assert.Equal(t, before, header)
				assert.Equal(t, w.Body.String(), after.Body.String())

				var all sync.WaitGroup // for the race detector
				for range 2 {
					all.Go(func() {
						for range 3 {
							w := httptest.NewRecorder()
							h.ServeHTTP(w, k.again(t))
							if name != "Accept, Vary" { // its own wrapper is the one that shares
								spoil(w.Header())
							}
						}
					})
				}
				all.Wait()
				shared[0] = "Origin"
			})
		}
	}
	assert.Empty(t, shared[:cap(shared)][1], "what is behind a value of others is not ours")
}

func spoil(h http.Header) {
	for _, values := range h {
		for i := range values {
			values[i] = "spoilt"
		}
	}
}

// ownLogs keeps logs out of the test's.
func ownLogs(h http.Handler) http.Handler {
	return (&admit.ErrorWriter{Logger: discardLogs}).Wrap(h)
}

// A handler may change the header of its request in place: the next one has its own.
func TestNothingSharedOfARequestIsChanged(t *testing.T) {
	t.Parallel()
	h := wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		assert.Len(t, r.Header.Get("X-Request-Id"), 32)
		assert.Equal(t, r.Header.Get("X-Request-Id"), w.Header().Get("X-Request-Id"))
		spoil(r.Header)
		assert.NotEqual(t, "spoilt", w.Header().Get("X-Request-Id"))
		assert.NotEqual(t, "spoilt", admit.RequestIDFrom(r.Context()))
	}), admit.RequestID, admit.APIKey(oneKey), admit.Accept(jsonType))
	var all sync.WaitGroup
	for range 4 {
		all.Go(func() { allowed(t, h, get("/", "X-API-Key", "good", "Accept", jsonType)) })
	}
	all.Wait()
}

// What a constructor gets may be changed afterwards, and what a function or a store of
// others gets is theirs.
func TestConfigurationIsCopied(t *testing.T) {
	t.Parallel()
	plan := admit.Plan{Name: "pro", Features: []string{"history"}, Limits: []admit.Limit{admit.PerDay(7)}}
	plans, err := admit.NewPlans(plan)
	require.NoError(t, err)
	features := []string{"history"}
	networks := []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}
	methods, scopes, accept, contentTypes := []string{"POST"}, []string{"orders:read"}, []string{"text/plain"}, []string{"text/plain"}
	sources, minted := []admit.KeySource{admit.FromHeader("X-Key")}, []string{"acme"}
	auth := newAuth(t, admit.AuthConfig{Sources: sources, MintedPrefixes: minted})
	limits := []admit.Limit{admit.PerDay(5)}
	var observed [][]admit.Limit
	var taken []string
	store := takeFunc(func(_ context.Context, key string, _ int, limits []admit.Limit) (admit.Decision, error) {
		taken = append(taken, fmt.Sprint(limits))
		states := make([]admit.LimitState, len(limits))
		for i := range limits {
			limits[i], states[i] = admit.PerSecond(1), admit.LimitState{Remaining: 3}
		}
		return admit.Decision{Allowed: true, States: states}, nil
	})
	var always admit.Decision
	limiter := newLimiter(t, admit.LimiterConfig{
		Name: "api", Store: store, Limits: limits, Plans: plans, Refund: func(int) bool { return true },
		Observe: func(_ *http.Request, e admit.LimitEvent) {
			observed = append(observed, slices.Clone(e.Decision.Limits))
			e.Decision.Limits[0], e.Decision.States[0] = admit.PerSecond(1), admit.LimitState{Remaining: 99}
			always = e.Decision
		},
	})
	p := admit.Policy{
		ClientIP: admit.ClientIP("X-Forwarded-For", networks...), Methods: methods, Auth: auth, Scopes: scopes, Plans: plans, AtLeast: "pro", Features: features,
		Limiter: limiter, Accept: accept, ContentType: contentTypes,
	}
	var address, mediaType string
	h := p.Wrap(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		address, mediaType = admit.ClientIPFrom(r).String(), admit.MediaTypeFrom(r.Context())
	}))

	plan.Features[0], plan.Limits[0] = "none", admit.PerSecond(1)
	features[0], networks[0], methods[0], scopes[0], accept[0], contentTypes[0] = "none", netip.MustParsePrefix("198.51.100.0/24"), "PUT", "none", "image/png", "image/png"
	sources[0], minted[0], limits[0] = admit.FromHeader("X-None"), "none", admit.PerSecond(1)
	for range 2 {
		headers := allowed(t, h, newRequest("POST", "/", "{}", "X-Key", "good", "Accept", "text/plain", "Content-Type", "text/plain", "X-Forwarded-For", "198.51.100.7"))
		assert.Equal(t, `"day";q=7;w=86400`, headers.Get("RateLimit-Policy"))
		assert.Equal(t, `"day";r=3;t=37029`, headers.Get("RateLimit"))
		assert.Equal(t, "198.51.100.7 text/plain", address+" "+mediaType)
		assert.Equal(t, 99, always.States[0].Remaining)
	}
	day := []admit.Limit{{Name: "day", Requests: 7, Per: 24 * time.Hour, Burst: 7}}
	assert.Equal(t, [][]admit.Limit{day, day}, observed)
	assert.Equal(t, []string{fmt.Sprint(day), fmt.Sprint(day), fmt.Sprint(day), fmt.Sprint(day)}, taken, "taken and given back")
	e, _ := refused(t, h, newRequest("POST", "/", "", "X-Key", "acme_"+strings.Repeat("0", 33)), http.StatusUnauthorized)
	assert.Equal(t, "key_invalid", e.Code)
}

// takeFunc is a LimitStore that is one function.
type takeFunc func(context.Context, string, int, []admit.Limit) (admit.Decision, error)

func (f takeFunc) Take(ctx context.Context, key string, cost int, limits []admit.Limit) (admit.Decision, error) {
	return f(ctx, key, cost, limits)
}

// Observe and Encode know a sentinel again, however little it says by itself.
func TestSentinelsAreKnownAgain(t *testing.T) {
	t.Parallel()
	for name, sentinel := range map[string]*admit.Error{
		"no message": admit.NewError(409, ""), "no code": {Status: 409, Message: "Sold out."}, "neither": {Status: 409}, "no status": {}, "whole": {Status: 409, Code: "sold_out", Message: "Sold out."},
	} {
		for how, err := range map[string]error{
			"itself": sentinel, "with a cause": sentinel.WithCause(io.EOF), "twice": sentinel.WithCause(io.EOF).WithCause(io.ErrNoProgress), "wrapped": fmt.Errorf("order: %w", sentinel),
			"mapped": errUnknown,
		} {
			var seen []error
			ew := &admit.ErrorWriter{
				Logger: discardLogs, Observe: func(_ *http.Request, e *admit.Error) { seen = append(seen, e) }, Map: func(error) *admit.Error { return sentinel },
				Encode: func(_ *http.Request, e *admit.Error) (string, []byte) {
					seen = append(seen, e)
					return "text/plain", nil
				},
			}
			status(ew.Wrap(fails(err)), get("/"))
			require.Len(t, seen, 2)
			for _, e := range seen {
				assert.ErrorIs(t, e, sentinel, "%s, %s", name, how)
				assert.NotErrorIs(t, e, admit.NewError(409, ""))
			}
		}
	}
}

var errUnknown = errors.New("unknown")
