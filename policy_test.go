package admit_test

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/admit-go/admit"
)

// Each refusal comes before those that stand further inside: a request with every
// fault shows one after the other as they are mended.
func TestPolicyOrder(t *testing.T) {
	t.Parallel()
	plans := newPlans(t)
	var maintenance admit.Maintenance
	maintenance.On(time.Time{})
	store := admit.KeyMap{
		admit.DigestOf("no scope"): {ID: "1", Plan: "free"},
		admit.DigestOf("no plan"):  {ID: "2", Plan: "free", Scopes: []string{"w"}},
		admit.DigestOf("no sso"):   {ID: "3", Plan: "pro", Scopes: []string{"w"}},
		admit.DigestOf("all"):      {ID: "4", Plan: "enterprise", Scopes: []string{"w"}},
	}
	shedder, work := newShedder(t, admit.ShedderConfig{Max: 1}), newGate()
	worked := send(shedder.Wrap(work), get("/"))
	require.Eventually(t, func() bool { return work.inside.Load() == 1 }, 10*time.Second, time.Millisecond)
	h := admit.Policy{
		ClientIP: anyProxy, Errors: new(admit.ErrorWriter), Maintenance: &maintenance, Shedder: shedder,
		Methods: []string{"POST"}, Auth: newAuth(t, admit.AuthConfig{Store: store}), Scopes: []string{"w"},
		Plans: plans, AtLeast: "pro", Features: []string{"sso"},
		Accept: []string{"application/json"}, ContentType: []string{"application/json"}, MaxBody: 10,
		BodyTimeout: admit.BodyTimeout{Grace: time.Second}, Timeout: 500 * time.Millisecond,
	}.Wrap(admit.HandlerFunc(func(w http.ResponseWriter, r *http.Request) error {
		v, err := admit.Decode[int](r)
		if err != nil {
			return err
		}
		if v == 0 {
			<-r.Context().Done()
		}
		return admit.Success(w, r, http.StatusOK, fmt.Sprint(v, admit.ClientIPFrom(r), admit.MediaTypeFrom(r.Context())))
	}))

	method, body := "BREW", `"far too long"`
	headers := map[string]string{"Accept": "image/png", "Content-Type": "text/plain", "X-Forwarded-For": "198.51.100.7"}
	next := func(status int, code string) {
		t.Helper()
		r := newRequest(method, "/", body)
		for name, value := range headers {
			r.Header.Set(name, value)
		}
		e, header := refused(t, h, r, status)
		assert.Equal(t, code, e.Code)
		assert.Equal(t, header.Get("X-Request-Id"), e.RequestID)
	}
	next(503, "maintenance")
	maintenance.Off()
	next(501, "not_implemented")
	method = "PUT"
	next(405, "method_not_allowed")
	method = "POST"
	next(401, "key_missing")
	headers["X-API-Key"] = "unknown"
	next(401, "key_invalid")
	headers["X-API-Key"] = "no scope"
	next(403, "scope_required")
	headers["X-API-Key"] = "no plan"
	next(402, "plan_required")
	headers["X-API-Key"] = "no sso"
	next(402, "plan_required")
	headers["X-API-Key"] = "all"
	next(406, "not_acceptable")
	headers["Accept"] = "*/*"
	next(415, "unsupported_media_type")
	headers["Content-Type"] = "application/json"
	next(413, "body_too_large")
	body = `"text"`
	next(429, "overloaded")
	close(work.out)
	<-worked
	next(422, "unprocessable")
	body = `{`
	next(400, "bad_request")
	body = `0`
	next(503, "handler_timeout")
	body = `7`
	r := newRequest(method, "/", body)
	for name, value := range headers {
		r.Header.Set(name, value)
	}
	allowed(t, h, r)
}

// The AddressLimiter counts those whom Auth refuses, and does not mix them with callers.
func TestPolicyAddressLimiter(t *testing.T) {
	t.Parallel()
	h := admit.Policy{
		AddressLimiter: newLimiter(t, admit.LimiterConfig{Limits: []admit.Limit{admit.PerHour(4)}}),
		Methods:        []string{"GET"},
		Auth:           newAuth(t, admit.AuthConfig{}),
		Limiter:        newLimiter(t, admit.LimiterConfig{Limits: []admit.Limit{admit.PerDay(1)}}),
	}.Wrap(ok)
	refused(t, h, get("/", "X-API-Key", "guess"), 401)
	refused(t, h, newRequest("PUT", "/", ""), 405)
	header := allowed(t, h, get("/", "X-API-Key", "good"))
	assert.Equal(t, []string{`"hour";q=4;w=3600`, `"day";q=1;w=86400`}, header["Ratelimit-Policy"])
	refused(t, h, get("/", "X-API-Key", "good"), 429)
	e, _ := refused(t, h, get("/", "X-API-Key", "guess"), 429)
	assert.Equal(t, "rate_limited", e.Code)
}

// An Identity stands where Auth does: before scopes, plans and the Limiter.
func TestPolicyIdentity(t *testing.T) {
	t.Parallel()
	identity := func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			who := r.Header.Get("X-Subject")
			if who == "" {
				admit.WriteError(w, r, admit.NewError(http.StatusUnauthorized, ""))
				return
			}
			key := &admit.Key{ID: who, Plan: r.Header.Get("X-Plan"), Scopes: []string{"w"}}
			next.ServeHTTP(w, r.WithContext(admit.WithKey(r.Context(), key)))
		})
	}
	p := admit.Policy{
		Methods: []string{"GET"}, Identity: identity, Scopes: []string{"w"}, Plans: newPlans(t), AtLeast: "pro",
		Limiter: newLimiter(t, admit.LimiterConfig{Limits: []admit.Limit{admit.PerHour(1)}}),
	}
	h := p.Wrap(ok)
	refused(t, h, newRequest("PUT", "/", ""), 405)
	refused(t, h, get("/"), 401)
	refused(t, h, get("/", "X-Subject", "a", "X-Plan", "free"), 402)
	allowed(t, h, get("/", "X-Subject", "a", "X-Plan", "pro"))
	allowed(t, h, get("/", "X-Subject", "b", "X-Plan", "pro"))
	refused(t, h, get("/", "X-Subject", "a", "X-Plan", "pro"), 429)
	p.Scopes = []string{"x"}
	refused(t, p.Wrap(ok), get("/", "X-Subject", "c", "X-Plan", "pro"), 403)
}

func TestPolicyReportsEveryFault(t *testing.T) {
	t.Parallel()
	p := admit.Policy{
		Methods: []string{"get"}, Scopes: []string{"a b"}, AtLeast: "pro", Accept: []string{"json"}, ContentType: []string{"json"},
		MaxBody: -1, BodyTimeout: admit.BodyTimeout{Max: time.Second}, Timeout: -time.Second,
	}
	_, err := p.Chain()
	require.Error(t, err)
	for _, part := range []string{
		`Policy.Methods`, `Policy.Scopes`, "Policy.Plans is nil", "Policy.Accept", "Policy.ContentType", "Policy.MaxBody", "Policy.BodyTimeout.Grace", "Policy.Timeout",
	} {
		assert.ErrorContains(t, err, part)
	}
	assert.PanicsWithError(t, err.Error(), func() { p.Wrap(ok) })

	_, err = admit.Policy{Plans: newPlans(t), AtLeast: "gold", Features: []string{"telepathy"}}.Chain()
	assert.ErrorContains(t, err, `Policy.AtLeast is "gold"`)
	assert.ErrorContains(t, err, "telepathy")
	assert.Panics(t, func() { admit.Policy{}.Wrap(nil) })
}

// One Policy around the mux and another around a route: the outer id and the outer
// ErrorWriter hold inside.
func TestPolicyInsideAnother(t *testing.T) {
	t.Parallel()
	var counted []string
	ew := &admit.ErrorWriter{Observe: func(_ *http.Request, e *admit.Error) { counted = append(counted, e.Code) }}
	mux := http.NewServeMux()
	mux.Handle("/route", admit.Policy{Scopes: []string{"admin"}}.Wrap(ok))
	h := admit.Policy{Errors: ew, Auth: newAuth(t, admit.AuthConfig{})}.Wrap(admit.Mux(mux))
	e, header := refused(t, h, get("/route", "X-API-Key", "good", "X-Request-Id", "r1"), 403)
	assert.Equal(t, "r1", e.RequestID)
	assert.Equal(t, []string{"r1"}, header["X-Request-Id"])
	refused(t, h, get("/nowhere", "X-API-Key", "good"), 404)
	assert.Equal(t, []string{"scope_required", "not_found"}, counted)
}

func TestOptionalAuthWithScopesDoesNotBuild(t *testing.T) {
	t.Parallel()
	a := newAuth(t, admit.AuthConfig{Optional: true})
	_, err := admit.Policy{Auth: a, Scopes: []string{"x"}}.Chain()
	assert.ErrorContains(t, err, "optional")
}

func TestPolicyIsAValue(t *testing.T) {
	t.Parallel()
	base := admit.Policy{Methods: []string{"GET"}}
	h := base.Wrap(ok)
	changed := base
	changed.Methods = []string{"POST"}
	allowed(t, h, get("/"))
	refused(t, changed.Wrap(ok), get("/"), 405)
	allowed(t, admit.Policy{}.Wrap(ok), get("/"))
}

// fullPolicy is a Policy with everything, and a request that it lets in.
func fullPolicy(t testing.TB, change func(*admit.Policy)) (http.Handler, *http.Request) {
	t.Helper()
	return fullPolicyAround(t, func(http.ResponseWriter, *http.Request) {}, change)
}

func fullPolicyAround(t testing.TB, handler http.HandlerFunc, change func(*admit.Policy)) (http.Handler, *http.Request) {
	t.Helper()
	token, digest, _ := admit.Mint("acme")
	plans, err := admit.NewPlans(admit.Plan{Name: "pro", Features: []string{"orders"}, Limits: []admit.Limit{admit.PerSecond(1e9), admit.PerMinute(1e9)}})
	require.NoError(t, err)
	limiter, err := admit.NewLimiter(admit.LimiterConfig{Limits: []admit.Limit{admit.PerSecond(1e9)}, Plans: plans})
	require.NoError(t, err)
	inFlight, err := admit.NewInFlight(admit.InFlightConfig{Max: 1000})
	require.NoError(t, err)
	p := admit.Policy{
		ClientIP: anyProxy, Errors: new(admit.ErrorWriter), Maintenance: new(admit.Maintenance), InFlight: inFlight,
		Methods: []string{"POST"},
		Auth:    newAuth(t, admit.AuthConfig{Store: admit.KeyMap{digest: {ID: "k1", Plan: "pro", Scopes: []string{"orders:write"}}}}),
		Scopes:  []string{"orders:write"}, Plans: plans, AtLeast: "pro", Features: []string{"orders"}, Limiter: limiter,
		Accept: []string{"application/json", "text/csv"}, ContentType: []string{"application/json"}, MaxBody: 64 << 10,
		Shedder: newShedder(t, admit.ShedderConfig{Max: 1000, Plans: plans}),
	}
	if change != nil {
		change(&p)
	}
	r := newRequest("POST", "/v1/orders", `{"pair":"btc-usd"}`, "Authorization", "Bearer "+token, "Accept", "application/json",
		"Content-Type", "application/json", "X-Forwarded-For", "198.51.100.7", "User-Agent", "test")
	return p.Wrap(handler), r
}

func withTimeouts(p *admit.Policy) {
	p.BodyTimeout = admit.BodyTimeout{Grace: 5 * time.Second, MinRate: 1 << 10}
	p.Timeout = 10 * time.Second
}

func TestPolicyAllocations(t *testing.T) {
	w := newDiscard()
	h, r := fullPolicy(t, nil)
	allocs(t, 8, func() { clear(w.h); h.ServeHTTP(w, r) })
	h, r = fullPolicy(t, withTimeouts)
	allocs(t, 14, func() { clear(w.h); h.ServeHTTP(w, r) })
	observed := func(p *admit.Policy) { p.Observe = func(*http.Request, admit.Outcome) {} }
	h, r = fullPolicy(t, observed)
	allocs(t, 10, func() { clear(w.h); h.ServeHTTP(w, r) })
	h, r = fullPolicy(t, func(p *admit.Policy) { withTimeouts(p); observed(p) })
	allocs(t, 20, func() { clear(w.h); h.ServeHTTP(w, r) }) // a handler that is late has a header of its own
}

// A chain leaves most of the 8 KiB that the stack of a connection's goroutine has to the handler
// and to net/http: one that is too small is copied with each request, since the collector makes
// it smaller between two of them.
func TestPolicyStack(t *testing.T) {
	if raceDetector {
		t.Skip("frames are larger with the race detector")
	}
	const requests, body = 100, `{"pair":"btc-usd"}`
	for name, change := range map[string]func(*admit.Policy){"without timeouts": nil, "with timeouts": withTimeouts} {
		most := uint64(10 << 10) // that of the connection, and what the runtime keeps
		if change != nil {
			most *= 2 // and that of the handler
		}
		var inside sync.WaitGroup
		inside.Add(requests)
		leave := make(chan struct{})
		h, r := fullPolicyAround(t, func(w http.ResponseWriter, r *http.Request) {
			read, err := io.ReadAll(r.Body)
			assert.NoError(t, err)
			_, _ = w.Write(read)
			inside.Done()
			<-leave
		}, change)
		s := httptest.NewServer(h)
		r.Body, r.ContentLength = io.NopCloser(strings.NewReader(body)), int64(len(body))
		var wire bytes.Buffer
		require.NoError(t, r.Write(&wire))
		conns := make([]net.Conn, requests)
		for i := range conns {
			conns[i] = dial(t, s)
		}
		before := stackInUse()
		for _, c := range conns {
			_, err := c.Write(wire.Bytes())
			require.NoError(t, err)
		}
		inside.Wait()
		used := (stackInUse() - before) / requests
		close(leave)
		for _, c := range conns {
			_ = c.Close()
		}
		s.Close()
		assert.LessOrEqual(t, used, most, "%s: bytes of stack", name)
	}
}

func stackInUse() uint64 {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.StackInuse
}

func BenchmarkPolicy(b *testing.B) {
	for name, change := range map[string]func(*admit.Policy){"without timeouts": nil, "with timeouts": withTimeouts, "with quotas": withQuotas(b)} {
		b.Run(name, func(b *testing.B) {
			h, r := fullPolicy(b, change)
			w := newDiscard()
			b.ReportAllocs()
			for b.Loop() {
				clear(w.h) // each response has a header of its own
				h.ServeHTTP(w, r)
			}
		})
	}
}
