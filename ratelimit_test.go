package admit_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/admit-go/admit"
)

func newLimiter(t testing.TB, c admit.LimiterConfig) *admit.Limiter {
	t.Helper()
	l, err := admit.NewLimiter(c)
	require.NoError(t, err)
	return l
}

// from is a request from an address.
func from(addr string) *http.Request {
	r := get("/")
	r.RemoteAddr = addr
	return r
}

// by is a request with a key in its context.
func by(key *admit.Key) *http.Request {
	r := get("/")
	return r.WithContext(admit.WithKey(r.Context(), key))
}

func status(h http.Handler, r *http.Request) int {
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w.Code
}

func TestRateLimit(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h := admit.RateLimit(admit.PerSecond(5), admit.PerMinute(100))(ok)
		for i := range 5 {
			headers := allowed(t, h, get("/"))
			assert.Equal(t, []string{`"second";q=5;w=1, "minute";q=100;w=60`}, headers["Ratelimit-Policy"])
			assert.Equal(t, fmt.Sprintf(`"second";r=%d;t=1, "minute";r=%d;t=%d`, 4-i, 99-i, 60-(6*i+6)/10), headers.Get("RateLimit"))
			assert.Empty(t, headers.Get("X-RateLimit-Limit"))
			assert.Empty(t, headers.Get("Retry-After"))
		}
		body, headers := refused(t, h, get("/"), http.StatusTooManyRequests)
		assert.Equal(t, "rate_limited", body.Code)
		assert.EqualValues(t, 1, body.RetryAfter)
		assert.Equal(t, "1", headers.Get("Retry-After"))
		assert.Equal(t, `"second";q=5;w=1, "minute";q=100;w=60`, headers.Get("RateLimit-Policy"))
		assert.Equal(t, `"second";r=0;t=1, "minute";r=95;t=57`, headers.Get("RateLimit"))
	})
}

func TestRateLimitPanics(t *testing.T) {
	t.Parallel()
	for _, limits := range [][]admit.Limit{nil, {admit.PerSecond(0)}, {admit.PerDay(1), admit.PerDay(2)}} {
		assert.Panics(t, func() { admit.RateLimit(limits...) })
	}
	assert.Panics(t, func() { admit.RateLimit(admit.PerHour(1))(nil) })
	assert.Panics(t, func() { (*admit.Limiter)(nil).Wrap(ok) })
}

func TestNewLimiterReportsEveryFault(t *testing.T) {
	t.Parallel()
	_, err := admit.NewLimiter(admit.LimiterConfig{
		Limits:    []admit.Limit{{Requests: -1, Per: time.Second}, {Name: "slow", Requests: 1}},
		Store:     newMemoryStore(t, 0),
		StoreDown: 3,
	})
	for _, fault := range []string{"Limits[0].Requests is -1", `Limits[1].Per is 0s`, "Name is empty", "StoreDown is StoreDown(3)"} {
		assert.ErrorContains(t, err, fault)
	}
	_, err = admit.NewLimiter(admit.LimiterConfig{Limits: []admit.Limit{admit.PerHour(1)}, Name: "a b"})
	assert.ErrorContains(t, err, `"a b"`)
	_, err = admit.NewLimiter(admit.LimiterConfig{Limits: []admit.Limit{admit.PerHour(1)}, Name: strings.Repeat("x", 65)})
	assert.ErrorContains(t, err, "1 to 64")
	newLimiter(t, admit.LimiterConfig{Limits: []admit.Limit{admit.PerHour(1)}, Name: strings.Repeat("x", 64)})
	_, err = admit.NewLimiter(admit.LimiterConfig{Limits: []admit.Limit{admit.PerHour(1)}, StoreDown: -1})
	assert.ErrorContains(t, err, "StoreDown(-1)")
	_, err = admit.NewLimiter(admit.LimiterConfig{})
	assert.ErrorContains(t, err, "Limits is empty")
}

// What a Limiter in memory has no use for does it no harm.
func TestLimiterInMemoryNeedsNoShares(t *testing.T) {
	t.Parallel()
	slow := []admit.Limit{{Requests: 1, Per: 99 * 365 * 24 * time.Hour}}
	for _, mode := range []admit.StoreDown{admit.LimitLocally, admit.AdmitAll, admit.RefuseAll} {
		h := newLimiter(t, admit.LimiterConfig{Name: "api", Store: newMemoryStore(t, 0), Limits: slow, StoreDown: mode, Replicas: 50}).Wrap(ok)
		allowed(t, h, get("/"))
		refused(t, h, get("/"), http.StatusTooManyRequests)
	}
	newLimiter(t, admit.LimiterConfig{Name: "api", Store: &failing{}, StoreDown: admit.RefuseAll, Limits: slow, Replicas: 50})
	plans, err := admit.NewPlans(admit.Plan{Name: "without limits"})
	require.NoError(t, err)
	newLimiter(t, admit.LimiterConfig{Name: "api", Store: &failing{}, Plans: plans, Limits: slow})
}

func TestWhoIsCounted(t *testing.T) {
	t.Parallel()
	key := func(id string) *http.Request { return by(&admit.Key{ID: id}) }
	mapped := from("[::ffff:192.0.2.1]:1")
	for _, test := range []struct {
		name string
		a, b *http.Request
		same bool
	}{
		{"two ports of an address", from("192.0.2.1:1"), from("192.0.2.1:2"), true},
		{"two addresses", from("192.0.2.1:1"), from("192.0.2.2:1"), false},
		{"IPv4 in two notations", from("192.0.2.1:1"), mapped, true},
		{"two addresses of one IPv6 network", from("[2001:db8:1:2::1]:1"), from("[2001:db8:1:2:ffff::]:1"), true},
		{"two IPv6 networks", from("[2001:db8:1:2::1]:1"), from("[2001:db8:1:3::1]:1"), false},
		{"two zones of one network", from("[fe80::1%eth0]:1"), from("[fe80::2%eth1]:1"), true},
		{"no address twice", from("@"), from(""), true},
		{"one key from two addresses", key("a"), func() *http.Request { r := key("a"); r.RemoteAddr = "192.0.2.9:1"; return r }(), true},
		{"two keys", key("a"), key("b"), false},
		{"a key and an address that looks the same", key("192.0.2.1"), from("192.0.2.1:1"), false},
		{"a key that looks like an address", key("addr:192.0.2.1"), from("192.0.2.1:1"), false},
		{"no key, and its address", by(nil), get("/"), true},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			h := admit.RateLimit(admit.PerHour(1))(ok)
			allowed(t, h, test.a)
			want := http.StatusOK
			if test.same {
				want = http.StatusTooManyRequests
			}
			assert.Equal(t, want, status(h, test.b))
			assert.Equal(t, test.same, admit.Caller(test.a) == admit.Caller(test.b))
		})
	}
	assert.Equal(t, "key:a", admit.Caller(key("a")))
	assert.Equal(t, "addr:192.0.2.1", admit.Caller(mapped))
	assert.Equal(t, "addr:2001:db8:1:2::", admit.Caller(from("[2001:db8:1:2::1]:1")))
	assert.Equal(t, "addr:", admit.Caller(from("@")))
}

func TestOneRateLimitHasOneSetOfBuckets(t *testing.T) {
	t.Parallel()
	limit := admit.RateLimit(admit.PerHour(20))
	mux := http.NewServeMux()
	for i := range 20 {
		mux.Handle(fmt.Sprintf("/%d", i), limit(ok))
	}
	for i := range 20 {
		allowed(t, mux, get(fmt.Sprintf("/%d", i)))
	}
	refused(t, mux, get("/7"), http.StatusTooManyRequests)
}

func TestLimiterBy(t *testing.T) {
	t.Parallel()
	mux := http.NewServeMux()
	l := newLimiter(t, admit.LimiterConfig{
		Limits:  []admit.Limit{admit.PerHour(1)},
		CountBy: func(r *http.Request) string { return r.Pattern + " " + admit.Caller(r) },
	})
	mux.Handle("/a/{id}", l.Wrap(ok))
	mux.Handle("/b/{id}", l.Wrap(ok))
	allowed(t, mux, get("/a/1"))
	allowed(t, mux, get("/b/1"))
	refused(t, mux, get("/a/2"), http.StatusTooManyRequests)

	all := newLimiter(t, admit.LimiterConfig{
		Limits:  []admit.Limit{admit.PerHour(1)},
		CountBy: func(*http.Request) string { return "" },
	}).Wrap(ok)
	allowed(t, all, from("192.0.2.1:1"))
	refused(t, all, from("192.0.2.2:1"), http.StatusTooManyRequests)
}

func TestLimiterCost(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h := newLimiter(t, admit.LimiterConfig{
			Limits: []admit.Limit{admit.PerHour(10)},
			Cost: func(r *http.Request) int {
				n, _ := strconv.Atoi(r.URL.Query().Get("cost"))
				return n
			},
		}).Wrap(ok)
		assert.Equal(t, `"hour";r=6;t=2160`, allowed(t, h, get("/?cost=4")).Get("RateLimit"))
		for _, free := range []string{"/?cost=0", "/?cost=-5"} {
			assert.Equal(t, `"hour";r=6;t=2160`, allowed(t, h, get(free)).Get("RateLimit"))
		}
		_, headers := refused(t, h, get("/?cost=7"), http.StatusTooManyRequests)
		assert.Equal(t, "360", headers.Get("Retry-After"))
		assert.Equal(t, `"hour";r=6;t=2160`, headers.Get("RateLimit"))

		body, headers := refused(t, h, get("/?cost=11"), http.StatusTooManyRequests)
		assert.Equal(t, "rate_limited", body.Code)
		assert.Zero(t, body.RetryAfter)
		assert.Empty(t, headers.Get("Retry-After"), "it will never be let in")
		allowed(t, h, get("/?cost=6"))
		allowed(t, h, get("/?cost=0"))
	})
}

func TestLimiterSkip(t *testing.T) {
	t.Parallel()
	h := newLimiter(t, admit.LimiterConfig{
		Limits: []admit.Limit{admit.PerHour(1)},
		Skip:   func(r *http.Request) bool { return r.URL.Path == "/healthz" },
	}).Wrap(ok)
	for range 3 {
		headers := allowed(t, h, get("/healthz"))
		assert.Empty(t, headers["Ratelimit"])
		assert.Empty(t, headers["Ratelimit-Policy"])
	}
	allowed(t, h, get("/"))
	refused(t, h, get("/"), http.StatusTooManyRequests)
}

func TestLimiterPlans(t *testing.T) {
	t.Parallel()
	plans, err := admit.NewPlans(
		admit.Plan{Name: "free", Limits: []admit.Limit{admit.PerHour(2)}},
		admit.Plan{Name: "pro", Limits: []admit.Limit{admit.PerHour(5), admit.PerDay(10)}},
		admit.Plan{Name: "plain"},
	)
	require.NoError(t, err)
	h := newLimiter(t, admit.LimiterConfig{Limits: []admit.Limit{admit.PerHour(1)}, Plans: plans}).Wrap(ok)
	for _, test := range []struct {
		r      *http.Request
		policy string
		n      int
	}{
		{get("/"), `"hour";q=1;w=3600`, 1},
		{by(&admit.Key{ID: "1", Plan: "free"}), `"hour";q=2;w=3600`, 2},
		{by(&admit.Key{ID: "2", Plan: "pro"}), `"hour";q=5;w=3600, "day";q=10;w=86400`, 5},
		{by(&admit.Key{ID: "3", Plan: "plain"}), `"hour";q=1;w=3600`, 1},
		{by(&admit.Key{ID: "4", Plan: "unknown"}), `"hour";q=1;w=3600`, 1},
		{by(&admit.Key{ID: "5"}), `"hour";q=1;w=3600`, 1},
		{by(&admit.Key{ID: "1", Plan: "pro"}), `"hour";q=5;w=3600, "day";q=10;w=86400`, 5}, // has bought it just now
		{func() *http.Request { r := by(nil); r.RemoteAddr = "192.0.2.9:1"; return r }(), `"hour";q=1;w=3600`, 1},
	} {
		for range test.n {
			assert.Equal(t, test.policy, allowed(t, h, test.r).Get("RateLimit-Policy"))
		}
		_, headers := refused(t, h, test.r, http.StatusTooManyRequests)
		assert.Equal(t, test.policy, headers.Get("RateLimit-Policy"))
	}
}

func TestLimiterRefund(t *testing.T) {
	t.Parallel()
	var code int
	h := newLimiter(t, admit.LimiterConfig{
		Limits: []admit.Limit{admit.PerHour(2)},
		Refund: func(status int) bool { return status < 400 }, // failures count
	}).Wrap(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		switch code {
		case 0: // says nothing
		case -1:
			panic("oh")
		case -2:
			w.WriteHeader(http.StatusNoContent)
			panic("too late")
		default:
			w.WriteHeader(code)
		}
	}))
	left := func() string {
		code = http.StatusOK
		w := httptest.NewRecorder()
		h.ServeHTTP(w, get("/"))
		return strings.TrimPrefix(strings.Split(w.Header().Get("RateLimit"), ";")[1], "r=")
	}
	for _, good := range []int{0, http.StatusOK, http.StatusFound, http.StatusSwitchingProtocols} {
		code = good
		status(h, get("/"))
		require.Equal(t, "1", left(), "%d does not count", good)
	}
	code = -2
	require.Panics(t, func() { status(h, get("/")) })
	require.Equal(t, "1", left(), "what was sent before a panic does not count")
	code = http.StatusUnauthorized
	status(h, get("/"))
	require.Equal(t, "0", left())
	code = -1
	require.Panics(t, func() { status(h, get("/")) })
	refused(t, h, get("/"), http.StatusTooManyRequests)
}

// What took nothing has nothing to give back: neither what costs nothing, nor what a
// shadow let in.
func TestLimiterGivesBackWhatItTook(t *testing.T) {
	t.Parallel()
	asked := 0
	l := newLimiter(t, admit.LimiterConfig{
		Limits: []admit.Limit{admit.PerHour(1)},
		DryRun: true,
		Cost:   func(r *http.Request) int { return len(r.URL.Query()) },
		Refund: func(int) bool { asked++; return asked > 1 },
	})
	h := l.Wrap(ok)
	allowed(t, h, get("/"))
	assert.Zero(t, asked)
	allowed(t, h, get("/?a=1"))
	allowed(t, h, get("/?a=1"))
	assert.Equal(t, 1, asked)
	assert.Contains(t, allowed(t, h, get("/")).Get("RateLimit"), `"hour";r=0;`)
}

// A store of somebody else may refuse with any wait, with or without states.
func TestLimiterSaysWhatTheStoreSays(t *testing.T) {
	t.Parallel()
	for wait, want := range map[time.Duration]string{
		0: "1", 1: "1", time.Second: "1", time.Second + 1: "2", time.Minute: "60", time.Minute + 1: "61", time.Hour: "3600", -1: "",
	} {
		h := newLimiter(t, admit.LimiterConfig{Name: "api", Store: fixed{RetryAfter: wait}, Limits: []admit.Limit{admit.PerHour(1)}}).Wrap(ok)
		e, headers := refused(t, h, get("/"), http.StatusTooManyRequests)
		assert.Equal(t, "rate_limited", e.Code)
		assert.Equal(t, want, headers.Get("Retry-After"), wait)
		assert.NotContains(t, headers, "Ratelimit")
	}
}

// A Limiter keeps some of the errors that it has made; each request gets its own wait.
func TestLimiterLongWaits(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var store fixed
		h := newLimiter(t, admit.LimiterConfig{Name: "api", Store: &store, Limits: []admit.Limit{admit.PerHour(1)}}).Wrap(ok)
		for range 2 {
			for seconds := range 300 {
				store.RetryAfter = time.Duration(seconds+1) * time.Second
				e, headers := refused(t, h, get("/"), http.StatusTooManyRequests)
				require.EqualValues(t, seconds+1, e.RetryAfter)
				require.Equal(t, strconv.Itoa(seconds+1), headers.Get("Retry-After"))
			}
		}
	})
}

// What the store refuses takes nothing from the share either.
func TestLimiterShareIsNotSpentByRefusals(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		down := errors.New("no answer in time")
		store := &failing{LimitStore: fixed{RetryAfter: time.Second}}
		h := newLimiter(t, admit.LimiterConfig{Name: "api", Store: store, Replicas: 2, Limits: []admit.Limit{admit.PerHour(10)}}).Wrap(ok)
		for range 10 {
			refused(t, h, get("/"), http.StatusTooManyRequests)
		}
		store.err.Store(&down)
		assert.Equal(t, `"hour";r=4;t=2880`, allowed(t, h, get("/")).Get("RateLimit"))
	})
}

func TestLimiterLogsWhatItCannotRefund(t *testing.T) {
	t.Parallel()
	down := errors.New("no route to the store")
	logger, log := logged()
	store := &failing{LimitStore: newMemoryStore(t, 0)}
	h := newLimiter(t, admit.LimiterConfig{
		Name: "api", Store: store, Limits: []admit.Limit{admit.PerHour(1)}, Refund: func(int) bool { return true },
	}).Wrap(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/down" {
			store.err.Store(&down)
		}
	}))
	h = (&admit.ErrorWriter{Logger: logger}).Wrap(h)
	allowed(t, h, get("/"))
	assert.NotContains(t, log.String(), "the limit store failed")
	allowed(t, h, get("/down"))
	assert.Contains(t, log.String(), "the limit store failed")
}

func TestLimiterDryRun(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var seen []bool
		h := newLimiter(t, admit.LimiterConfig{
			Limits: []admit.Limit{admit.PerHour(1)},
			DryRun: true,
			Refund: func(int) bool { return false },
			Observe: func(_ *http.Request, e admit.LimitEvent) {
				assert.Equal(t, []admit.Limit{{Name: "hour", Requests: 1, Per: time.Hour, Burst: 1}}, e.Decision.Limits)
				assert.Equal(t, !e.Decision.Allowed, e.Decision.States[0].Exceeded)
				assert.Equal(t, 1, e.Cost)
				assert.NoError(t, e.Err)
				seen = append(seen, e.Decision.Allowed)
			},
		}).Wrap(ok)
		for range 3 {
			headers := allowed(t, h, get("/"))
			assert.Contains(t, headers.Get("RateLimit"), `"hour";r=0;t=`)
			assert.Empty(t, headers.Get("Retry-After"))
		}
		assert.Equal(t, []bool{true, false, false}, seen)
	})
}

func TestLimiterLegacyHeaders(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h := newLimiter(t, admit.LimiterConfig{
			Limits:        []admit.Limit{admit.PerHour(5), admit.PerDay(3)},
			LegacyHeaders: true,
		}).Wrap(ok)
		legacy := func(h http.Header) []string {
			return []string{h.Get("X-RateLimit-Limit"), h.Get("X-RateLimit-Remaining"), h.Get("X-RateLimit-Reset")}
		}
		assert.Equal(t, []string{"3", "2", "28800"}, legacy(allowed(t, h, get("/"))))
		allowed(t, h, get("/"))
		allowed(t, h, get("/"))
		_, headers := refused(t, h, get("/"), http.StatusTooManyRequests)
		assert.Equal(t, []string{"3", "0", headers.Get("Retry-After")}, legacy(headers))
		assert.Equal(t, `"hour";q=5;w=3600, "day";q=3;w=86400`, headers.Get("RateLimit-Policy"))
	})
}

// fixed is a store that always answers the same.
type fixed admit.Decision

func (f fixed) Take(context.Context, string, int, []admit.Limit) (admit.Decision, error) {
	return admit.Decision(f), nil
}

// Of several limits, the legacy headers speak of the one that lets in last, else of the
// one with the fewest requests left, and of the first of equals.
func TestLegacyHeadersSpeakOfOneLimit(t *testing.T) {
	t.Parallel()
	left := func(n int, reset time.Duration) admit.LimitState {
		return admit.LimitState{Remaining: n, Reset: reset}
	}
	exceeded := func(n int, reset time.Duration) admit.LimitState {
		return admit.LimitState{Remaining: n, Reset: reset, Exceeded: true}
	}
	for name, test := range map[string]struct {
		states           []admit.LimitState
		limit, remaining string
	}{
		"the fewest":                     {[]admit.LimitState{left(5, 9), left(3, 1), left(4, 9)}, "2", "3"},
		"the fewest is first":            {[]admit.LimitState{left(2, 1), left(3, 9), left(3, 1)}, "1", "2"},
		"as few":                         {[]admit.LimitState{left(3, 1), left(3, 9), left(3, 9)}, "1", "3"},
		"one refuses":                    {[]admit.LimitState{left(0, 9), exceeded(5, 1), left(0, 9)}, "2", "5"},
		"the first refuses":              {[]admit.LimitState{exceeded(5, 1), left(0, 9), left(5, 9)}, "1", "5"},
		"the first of two lets in later": {[]admit.LimitState{exceeded(5, 9), exceeded(0, 1), left(0, 1)}, "1", "5"},
		"the last of two lets in later":  {[]admit.LimitState{left(0, 1), exceeded(0, 1), exceeded(5, 9)}, "3", "5"},
		"two let in at once":             {[]admit.LimitState{left(0, 9), exceeded(5, 7), exceeded(4, 7)}, "2", "5"},
	} {
		h := newLimiter(t, admit.LimiterConfig{
			Name: "api", Store: fixed{Allowed: true, States: test.states}, LegacyHeaders: true,
			Limits: []admit.Limit{admit.PerSecond(1), admit.PerMinute(2), admit.PerHour(3)},
		}).Wrap(ok)
		headers := allowed(t, h, get("/"))
		assert.Equal(t, test.limit, headers.Get("X-RateLimit-Limit"), name)
		assert.Equal(t, test.remaining, headers.Get("X-RateLimit-Remaining"), name)
	}
}

func TestLimitNamesAreQuoted(t *testing.T) {
	t.Parallel()
	h := admit.RateLimit(admit.Limit{Name: `a"b\c d`, Requests: 1, Per: 1500 * time.Millisecond})(ok)
	headers := allowed(t, h, get("/"))
	assert.Equal(t, `"a\"b\\c d";q=1;w=2`, headers.Get("RateLimit-Policy"))
	assert.Equal(t, `"a\"b\\c d";r=0;t=2`, headers.Get("RateLimit"))
}

// A Limiter inside another adds to its headers, and leaves those alone that others share.
func TestLimiterInsideAnother(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		outer := admit.RateLimit(admit.PerDay(9))
		inner := admit.RateLimit(admit.PerHour(1))(ok)
		for _, r := range []*http.Request{from("192.0.2.1:1"), from("192.0.2.2:1")} {
			headers := allowed(t, outer(inner), r)
			assert.Equal(t, []string{`"day";q=9;w=86400`, `"hour";q=1;w=3600`}, headers["Ratelimit-Policy"])
			assert.Equal(t, []string{`"day";r=8;t=76800`, `"hour";r=0;t=3600`}, headers["Ratelimit"])
			assert.Equal(t, []string{`"day";q=9;w=86400`}, allowed(t, outer(ok), r)["Ratelimit-Policy"])
		}
		_, headers := refused(t, outer(inner), from("192.0.2.1:1"), http.StatusTooManyRequests)
		assert.Len(t, headers["Ratelimit"], 2)
	})
}

// failing is a store that is down for as long as err is not nil.
type failing struct {
	admit.LimitStore
	err  atomic.Pointer[error]
	keys []string
}

func (f *failing) Take(ctx context.Context, key string, cost int, limits []admit.Limit) (admit.Decision, error) {
	if err := f.err.Load(); err != nil {
		return admit.Decision{}, *err
	}
	f.keys = append(f.keys, fmt.Sprint(key, " ", cost, " ", limits))
	return f.LimitStore.Take(ctx, key, cost, limits)
}

func TestLimiterStore(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := &failing{LimitStore: newMemoryStore(t, 0)}
		l := newLimiter(t, admit.LimiterConfig{
			Name: "api", Store: store, Limits: []admit.Limit{{Requests: 2, Per: time.Hour}},
			Refund: func(status int) bool { return status == http.StatusTeapot },
		})
		headers := allowed(t, l.Wrap(ok), from("192.0.2.1:1"))
		assert.Equal(t, `"1h0m0s";q=2;w=3600`, headers.Get("RateLimit-Policy"))
		assert.Equal(t, `"1h0m0s";r=1;t=1800`, headers.Get("RateLimit"))
		require.Equal(t, http.StatusTeapot, status(l.Wrap(answer(http.StatusTeapot)), by(&admit.Key{ID: "a"})))
		assert.Equal(t, []string{
			"addr:api:192.0.2.1 1 [{1h0m0s 2 1h0m0s 2}]",
			"key:api:a 1 [{1h0m0s 2 1h0m0s 2}]",
			"key:api:a -1 [{1h0m0s 2 1h0m0s 2}]",
		}, store.keys, "names are not for clients to choose, and limits are complete")
		allowed(t, l.Wrap(ok), from("192.0.2.1:2"))
		refused(t, l.Wrap(ok), from("192.0.2.1:3"), http.StatusTooManyRequests)
	})
}

func TestLimitersShareAMemoryStore(t *testing.T) {
	t.Parallel()
	store := newMemoryStore(t, 0)
	wrap := func(name string) http.Handler {
		return newLimiter(t, admit.LimiterConfig{Name: name, Store: store, Limits: []admit.Limit{admit.PerHour(1)}}).Wrap(ok)
	}
	allowed(t, wrap("a"), by(&admit.Key{ID: "1"}))
	allowed(t, wrap("b"), by(&admit.Key{ID: "1"}))
	refused(t, wrap("a"), by(&admit.Key{ID: "1"}), http.StatusTooManyRequests)
	assert.Equal(t, 2, store.Len())
	assert.False(t, take(t, store, "key:a:1", 1, admit.PerHour(1)).Allowed, "the same bucket, by its key")
}

// A log that takes its time holds the request that writes to it, and no other.
func TestLogsHoldNobodyElse(t *testing.T) {
	t.Parallel()
	down := errors.New("no route to the store")
	store := &failing{LimitStore: newMemoryStore(t, 0)}
	store.err.Store(&down)
	limiter := newLimiter(t, admit.LimiterConfig{Name: "api", Store: store, Limits: []admit.Limit{admit.PerHour(2)}})
	type opaque struct{ http.ResponseWriter }
	for name, wrapper := range map[string]admit.Middleware{
		"Limiter":     limiter.Wrap,
		"BodyTimeout": admit.BodyTimeout{Grace: time.Second}.Wrap,
	} {
		synctest.Test(t, func(t *testing.T) {
			release := make(chan struct{})
			h := wrap(ok, (&admit.ErrorWriter{Logger: slog.New(slowLog{slog.DiscardHandler, release})}).Wrap, wrapper)
			first := make(chan struct{})
			go func() {
				defer close(first)
				h.ServeHTTP(opaque{httptest.NewRecorder()}, newRequest("POST", "/", "body"))
			}()
			synctest.Wait() // it waits for the log
			began := time.Now()
			assert.Equal(t, 200, status(h, newRequest("POST", "/", "body")), name)
			assert.Zero(t, time.Since(began), name)
			close(release)
			<-first
		})
	}
}

// slowLog waits with each line.
type slowLog struct {
	slog.Handler
	release chan struct{}
}

func (l slowLog) Enabled(context.Context, slog.Level) bool { return true }

func (l slowLog) Handle(context.Context, slog.Record) error {
	<-l.release
	return nil
}

func TestLimiterStoreDown(t *testing.T) {
	t.Parallel()
	down := errors.New("no route to the store")
	for _, test := range []struct {
		mode    admit.StoreDown
		want    []int
		headers bool
	}{
		{admit.LimitLocally, []int{200, 200, 429}, true},
		{admit.AdmitAll, []int{200, 200, 200}, false},
		{admit.RefuseAll, []int{503, 503, 503}, false},
	} {
		t.Run(fmt.Sprint(test.mode), func(t *testing.T) {
			t.Parallel()
			logger, log := logged()
			store := &failing{LimitStore: newMemoryStore(t, 0)}
			store.err.Store(&down)
			var failures int
			h := (&admit.ErrorWriter{Logger: logger}).Wrap(newLimiter(t, admit.LimiterConfig{
				Name: "api", Store: store, StoreDown: test.mode, Limits: []admit.Limit{admit.PerHour(2)},
				Refund: func(status int) bool { return status == http.StatusTeapot },
				Observe: func(_ *http.Request, e admit.LimitEvent) {
					assert.Equal(t, "api", e.Limiter)
					if errors.Is(e.Err, down) {
						failures++
					}
				},
			}).Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.URL.Path == "/teapot" {
					w.WriteHeader(http.StatusTeapot)
				}
			})))
			status(h, get("/teapot"))
			for i, want := range test.want {
				w := httptest.NewRecorder()
				h.ServeHTTP(w, get("/"))
				require.Equal(t, want, w.Code, "request %d", i)
				assert.Equal(t, test.headers, w.Header().Get("RateLimit") != "")
				if want == http.StatusServiceUnavailable {
					e := readEnvelope(t, w.Code, w.Header(), w.Body.Bytes())
					assert.Equal(t, "store_unavailable", e.Code)
					assert.NotEmpty(t, w.Header().Get("Retry-After"))
					assert.NotContains(t, w.Body.String(), "no route")
				}
			}
			assert.Equal(t, 4, failures)
			assert.Equal(t, 1, strings.Count(log.String(), "the limit store failed"), "once a minute: %s", log)
			assert.Contains(t, log.String(), "no route to the store")

			store.err.Store(nil)
			assert.Equal(t, http.StatusOK, status(h, get("/")), "it is asked again")
		})
	}
}

// While the store fails, each process applies its share: together they let in what they
// should, and no more.
func TestLimiterReplicas(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		down := errors.New("no route to the store")
		store := &failing{LimitStore: newMemoryStore(t, 0)}
		store.err.Store(&down)
		plans, err := admit.NewPlans(admit.Plan{Name: "pro", Limits: []admit.Limit{{Name: "second", Requests: 50, Per: time.Second, Burst: 83}}})
		require.NoError(t, err)
		logger, log := logged()
		var replicas []http.Handler
		for range 8 {
			l := newLimiter(t, admit.LimiterConfig{
				Name: "api", Store: store, Replicas: 8, Plans: plans, Limits: []admit.Limit{admit.PerSecond(5)},
				Cost:   func(r *http.Request) int { return len(r.URL.Path) },
				Refund: func(status int) bool { return status == http.StatusTeapot },
			})
			replicas = append(replicas, (&admit.ErrorWriter{Logger: logger}).Wrap(l.Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.Header.Get("Teapot") != "" {
					w.WriteHeader(http.StatusTeapot)
				}
			}))))
		}
		pro := func() *http.Request { return by(&admit.Key{ID: "a", Plan: "pro"}) }
		count := func(request func() *http.Request) (admitted int) {
			for range 1000 {
				for _, h := range replicas {
					if status(h, request()) == http.StatusOK {
						admitted++
					}
				}
				time.Sleep(10 * time.Millisecond)
			}
			return admitted
		}
		assert.InDelta(t, 8*10+500, count(pro), 8, "a burst of 10 for each, and 50 a second together in 10 s")
		assert.InDelta(t, 8*1+50, count(func() *http.Request { return from("192.0.2.1:1") }), 8)
		assert.NotContains(t, log.String(), "Replicas is not set")

		time.Sleep(time.Minute)
		ten, eleven, most, all := pro(), pro(), pro(), pro()
		ten.URL.Path, eleven.URL.Path = strings.Repeat("/", 10), strings.Repeat("/", 11)
		most.URL.Path, all.URL.Path = strings.Repeat("/", 83), strings.Repeat("/", 84)
		ten.Header.Set("Teapot", "x")
		for range 3 {
			assert.Equal(t, http.StatusTeapot, status(replicas[0], ten), "what is given back is given back to the share")
		}
		for _, r := range []*http.Request{eleven, most} {
			w := httptest.NewRecorder()
			replicas[0].ServeHTTP(w, r)
			assert.Equal(t, http.StatusServiceUnavailable, w.Code, "for now, there is no room for it")
			assert.NotEmpty(t, w.Header().Get("Retry-After"))
		}
		w := httptest.NewRecorder()
		replicas[0].ServeHTTP(w, all)
		assert.Equal(t, http.StatusTooManyRequests, w.Code)
		assert.Empty(t, w.Header().Get("Retry-After"), "there never is")
	})
}

// What a process has let in by the store's word is gone from its share, so that a store
// that fails once in a while lets in no more than one that works.
func TestLimiterShareIsSpentBefore(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		down := errors.New("no answer in time")
		store := &failing{LimitStore: newMemoryStore(t, 0)}
		l := newLimiter(t, admit.LimiterConfig{
			Name: "api", Store: store, Replicas: 2, Limits: []admit.Limit{admit.PerHour(10)},
			Refund: func(status int) bool { return status == http.StatusTeapot },
		})
		for range 4 {
			allowed(t, l.Wrap(ok), get("/"))
		}
		require.Equal(t, http.StatusTeapot, status(l.Wrap(answer(http.StatusTeapot)), get("/")), "it does not count there either")
		store.err.Store(&down)
		assert.Equal(t, `"hour";r=0;t=720`, allowed(t, l.Wrap(ok), get("/")).Get("RateLimit"))
		refused(t, l.Wrap(ok), get("/"), http.StatusTooManyRequests)
		store.err.Store(nil)
		for range 6 {
			allowed(t, l.Wrap(ok), get("/"))
		}
		refused(t, l.Wrap(ok), get("/"), http.StatusTooManyRequests)
	})
}

func TestLimiterReplicasNotSet(t *testing.T) {
	t.Parallel()
	down := errors.New("no route to the store")
	for replicas, warns := range map[int]bool{0: true, 1: false, 3: false} {
		for _, mode := range []admit.StoreDown{admit.LimitLocally, admit.AdmitAll, admit.RefuseAll} {
			store := &failing{LimitStore: newMemoryStore(t, 0)}
			store.err.Store(&down)
			logger, log := logged()
			l := newLimiter(t, admit.LimiterConfig{Name: "api", Store: store, StoreDown: mode, Replicas: replicas, Limits: []admit.Limit{admit.PerHour(2)}})
			status((&admit.ErrorWriter{Logger: logger}).Wrap(l.Wrap(ok)), get("/"))
			assert.Contains(t, log.String(), "the limit store failed")
			assert.Equal(t, warns && mode == admit.LimitLocally, strings.Contains(log.String(), "Replicas is not set"), "%d %v", replicas, mode)
		}
	}
	plans, err := admit.NewPlans(admit.Plan{Name: "slow", Limits: []admit.Limit{{Requests: 1, Per: 99 * 365 * 24 * time.Hour}}})
	require.NoError(t, err)
	_, err = admit.NewLimiter(admit.LimiterConfig{
		Name: "api", Store: &failing{}, Replicas: 50, Plans: plans,
		Limits: []admit.Limit{{Requests: 1, Per: 50 * 365 * 24 * time.Hour}},
	})
	require.ErrorContains(t, err, `is 50, by which the limit "438000h0m0s" cannot be divided`)
	require.ErrorContains(t, err, `is 50, by which the limit "867240h0m0s" cannot be divided`, "that of the plan")
	_, err = admit.NewLimiter(admit.LimiterConfig{
		Name: "api", Store: &failing{}, Replicas: 2, Limits: []admit.Limit{{Requests: 1, Per: 99 * 365 * 24 * time.Hour}},
	})
	require.ErrorContains(t, err, "is 2, by which")
	_, err = admit.NewLimiter(admit.LimiterConfig{Replicas: -1, Limits: []admit.Limit{admit.PerHour(1)}})
	require.ErrorContains(t, err, "Replicas is -1")
}

// A client that is gone is no outage, and is not counted here instead.
func TestLimiterStoreAndAClientThatIsGone(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	store := &failing{LimitStore: newMemoryStore(t, 0)}
	gone := fmt.Errorf("ask the store: %w", context.Canceled)
	store.err.Store(&gone)
	logger, log := logged()
	h := newLimiter(t, admit.LimiterConfig{Name: "api", Store: store, Limits: []admit.Limit{admit.PerHour(1)}}).Wrap(ok)
	h = (&admit.ErrorWriter{Logger: logger}).Wrap(h)
	w := httptest.NewRecorder()
	h.ServeHTTP(w, get("/").WithContext(ctx))
	assert.Empty(t, w.Body.String())
	assert.NotContains(t, log.String(), "store")
	assert.Contains(t, log.String(), "the client is gone")
	allowed(t, h, get("/"))

	store.err.Store(nil)
	store.keys = nil
	w = httptest.NewRecorder()
	h.ServeHTTP(w, from("192.0.2.9:1").WithContext(ctx))
	assert.Empty(t, w.Body.String())
	assert.Empty(t, store.keys, "for nobody nothing is asked")
}

// Who waits as told is let in, with nothing but the headers of a response to go by.
func TestRetryAfterIsTrue(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		for i := range 1000 {
			var limits []admit.Limit
			for j := range 1 + rand.IntN(3) {
				limits = append(limits, admit.Limit{
					Name:     fmt.Sprint("limit ", j),
					Requests: 1 + rand.IntN(30),
					Per:      time.Millisecond + time.Duration(rand.Int64N(int64(10*time.Minute))),
					Burst:    rand.IntN(10),
				})
			}
			if i%3 == 0 {
				limits = []admit.Limit{{Requests: 1 + rand.IntN(10), Per: time.Duration(1+rand.IntN(100)) * time.Second}}
			}
			h := admit.RateLimit(limits...)(ok)
			for range 3 {
				for status(h, get("/")) == http.StatusOK {
					time.Sleep(time.Duration(rand.Int64N(1 + int64(limits[0].Per)/int64(3*limits[0].Requests))))
				}
				body, headers := refused(t, h, get("/"), http.StatusTooManyRequests)
				wait, err := strconv.Atoi(headers.Get("Retry-After"))
				require.NoError(t, err)
				require.GreaterOrEqual(t, wait, 1)
				require.EqualValues(t, wait, body.RetryAfter)
				time.Sleep(time.Duration(wait) * time.Second)
				require.Equal(t, http.StatusOK, status(h, get("/")), "%+v, after %d s", limits, wait)
			}
		}
	})
}

func TestRateLimitUnderConcurrency(t *testing.T) {
	t.Parallel()
	for _, callers := range []int{1, 100} {
		h := admit.RateLimit(admit.PerDay(50), admit.Limit{Name: "burst", Requests: 1, Per: 24 * time.Hour, Burst: 40})(ok)
		var admitted atomic.Int64
		var goroutines sync.WaitGroup
		for range 16 {
			goroutines.Go(func() {
				for i := range 60 * callers {
					if status(h, from(fmt.Sprintf("192.0.2.%d:1", i%callers))) == http.StatusOK {
						admitted.Add(1)
					}
				}
			})
		}
		goroutines.Wait()
		assert.Equal(t, int64(40*callers), admitted.Load())
	}
}

func TestRateLimitAllocations(t *testing.T) {
	key := by(&admit.Key{ID: "0123456789abcdef0123456789abcdef"})
	w := newDiscard()
	serve := func(h http.Handler, r *http.Request) func() {
		return func() {
			clear(w.h)
			h.ServeHTTP(w, r)
		}
	}
	defer admit.WithoutShedders()()
	limits := []admit.Limit{admit.PerHour(1_000_000), admit.PerDay(1_000_000)}
	for name, r := range map[string]*http.Request{"a key": key, "an address": get("/"), "an IPv6 address": from("[2001:db8::1]:1")} {
		t.Run(name, func(t *testing.T) {
			allocs(t, 2, serve(admit.RateLimit(limits...)(ok), r))
		})
	}
	t.Run("by a function", func(t *testing.T) {
		l := newLimiter(t, admit.LimiterConfig{Limits: limits, CountBy: func(r *http.Request) string { return r.Host }})
		allocs(t, 2, serve(l.Wrap(ok), key))
	})
	t.Run("a plan", func(t *testing.T) {
		plans, err := admit.NewPlans(admit.Plan{Name: "pro", Limits: limits})
		require.NoError(t, err)
		l := newLimiter(t, admit.LimiterConfig{Limits: limits[:1], Plans: plans})
		allocs(t, 2, serve(l.Wrap(ok), by(&admit.Key{ID: "1", Plan: "pro"})))
	})
	t.Run("a memory store with a name", func(t *testing.T) {
		l := newLimiter(t, admit.LimiterConfig{Limits: limits, Name: "api", Store: newMemoryStore(t, 0)})
		allocs(t, 2, serve(l.Wrap(ok), key))
	})
	t.Run("refused", func(t *testing.T) {
		allocs(t, 4, serve(admit.RateLimit(admit.PerMinute(1))(ok), key))
		allocs(t, 5, serve(admit.RateLimit(admit.PerDay(1))(ok), key)) // one for the digits
	})
}

func TestLimitsInAPolicy(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		inFlight := newInFlight(t, admit.InFlightConfig{Max: 1})
		g := newGate()
		h := admit.Policy{
			InFlight: inFlight,
			Methods:  []string{"GET"},
			Auth:     newAuth(t, admit.AuthConfig{Store: admit.KeyMap{admit.DigestOf("token"): {ID: "1"}}}),
			Limiter:  newLimiter(t, admit.LimiterConfig{Limits: []admit.Limit{admit.PerHour(2)}}),
			Accept:   []string{"application/json"},
		}.Wrap(g)
		const bearer = "Bearer token"
		first := send(h, get("/", "Authorization", bearer))
		synctest.Wait()
		e, headers := refused(t, h, newRequest("PUT", "/", ""), http.StatusTooManyRequests)
		assert.Equal(t, "overloaded", e.Code, "before the method is looked at")
		assert.Empty(t, headers.Get("RateLimit"), "and before anything is counted")
		close(g.out)
		assert.Equal(t, http.StatusOK, <-first)

		_, headers = refused(t, h, get("/"), http.StatusUnauthorized)
		assert.Empty(t, headers.Get("RateLimit"), "a stranger takes nothing")
		_, headers = refused(t, h, get("/", "Authorization", bearer, "Accept", "image/png"), http.StatusNotAcceptable)
		assert.Equal(t, `"hour";r=0;t=1800`, headers.Get("RateLimit"))
		e, _ = refused(t, h, get("/", "Authorization", bearer, "Accept", "image/png"), http.StatusTooManyRequests)
		assert.Equal(t, "rate_limited", e.Code)
		inUse(t, inFlight, 0, 0, 0)
	})
}

// Over a socket, by names as they are in the standards.
func TestRateLimitOnTheWire(t *testing.T) {
	t.Parallel()
	s := serve(t, "HTTP/1.1", admit.RateLimit(admit.PerHour(1))(ok))
	for _, want := range []int{http.StatusOK, http.StatusTooManyRequests} {
		resp, err := s.Client().Get(s.URL)
		require.NoError(t, err)
		_, err = io.Copy(io.Discard, resp.Body)
		require.NoError(t, err)
		require.NoError(t, resp.Body.Close())
		assert.Equal(t, want, resp.StatusCode)
		assert.Equal(t, `"hour";q=1;w=3600`, resp.Header.Get("RateLimit-Policy"))
		assert.Regexp(t, `^"hour";r=0;t=3(600|59\d)$`, resp.Header.Get("RateLimit"), "a while later, on a machine that is busy")
	}
}

// A Limiter that is around a request already counts it once, and says so once.
func TestLimiterAroundTwice(t *testing.T) {
	t.Parallel()
	for name, around := range map[string]func(*admit.Limiter) http.Handler{
		"once":     func(l *admit.Limiter) http.Handler { return l.Wrap(ok) },
		"directly": func(l *admit.Limiter) http.Handler { return l.Wrap(l.Wrap(ok)) },
		"two policies": func(l *admit.Limiter) http.Handler {
			p := admit.Policy{Limiter: l}
			return p.Wrap(p.Wrap(ok))
		},
		"around a mux": func(l *admit.Limiter) http.Handler {
			mux := http.NewServeMux()
			mux.Handle("/", admit.Policy{Limiter: l, Methods: []string{"GET"}}.Wrap(ok))
			return admit.Policy{Limiter: l, Errors: new(admit.ErrorWriter)}.Wrap(admit.Mux(mux))
		},
		"inside a Timeout":  func(l *admit.Limiter) http.Handler { return l.Wrap(admit.Timeout(time.Minute)(l.Wrap(ok))) },
		"through a handler": func(l *admit.Limiter) http.Handler { return l.Wrap(inTurn(l.Wrap(ok))) },
		"others between": func(l *admit.Limiter) http.Handler {
			many := newLimiter(t, admit.LimiterConfig{Limits: []admit.Limit{{Name: "many", Requests: 100, Per: time.Hour}}, Skip: func(*http.Request) bool { return true }})
			return wrap(ok, l.Wrap, many.Wrap, l.Wrap, admit.MaxInFlight(1), l.Wrap)
		},
		"its handler called in itself": func(l *admit.Limiter) http.Handler {
			var h http.Handler
			h = admit.RequestID(l.Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.URL.Path == "/" { // a redirect that the client does not see
					r.URL.Path = "/index"
					h.ServeHTTP(w, r)
				}
			})))
			return h
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				h := around(newLimiter(t, admit.LimiterConfig{Limits: []admit.Limit{admit.PerMinute(10)}}))
				for i := range 12 {
					w := httptest.NewRecorder()
					h.ServeHTTP(w, get("/"))
					assert.Len(t, w.Header()["Ratelimit"], 1)
					assert.Len(t, w.Header()["Ratelimit-Policy"], 1)
					assert.Equal(t, 1, strings.Count(w.Header().Get("Ratelimit"), `"minute"`))
					if i < 10 {
						assert.Equal(t, http.StatusOK, w.Code)
					} else {
						assert.Equal(t, http.StatusTooManyRequests, w.Code)
					}
				}
			})
		})
	}
}

// More Limiters than a chain has room for: each counts once, and tells the client.
func TestManyLimitersInAChain(t *testing.T) {
	t.Parallel()
	var all, chain []admit.Middleware
	for i := range 5 {
		l := newLimiter(t, admit.LimiterConfig{Limits: []admit.Limit{{Name: fmt.Sprint(i), Requests: 2, Per: time.Hour}}})
		all = append(all, l.Wrap)
	}
	chain = append(append(chain, all...), all...)
	h := admit.RequestID(wrap(ok, chain...))
	for range 2 {
		assert.Len(t, allowed(t, h, get("/"))["Ratelimit"], 5)
	}
	_, headers := refused(t, h, get("/"), http.StatusTooManyRequests)
	assert.Len(t, headers["Ratelimit"], 1)
}

// One handler after the other counts each, and so does each try of a retry.
func TestLimiterInTurn(t *testing.T) {
	t.Parallel()
	silent := http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})
	for name, around := range map[string]func(*admit.Limiter) http.Handler{
		"one after the other": func(l *admit.Limiter) http.Handler { return admit.RequestID(inTurn(l.Wrap(silent), l.Wrap(silent))) },
		"without a chain":     func(l *admit.Limiter) http.Handler { return inTurn(l.Wrap(silent), l.Wrap(silent)) },
		"a retry":             func(l *admit.Limiter) http.Handler { return admit.RequestID(twice(l.Wrap(silent))) },
	} {
		h := around(newLimiter(t, admit.LimiterConfig{Limits: []admit.Limit{admit.PerDay(3)}}))
		allowed(t, h, get("/"))
		assert.Equal(t, http.StatusTooManyRequests, status(h, get("/")), name)
	}
}

func TestLimitsOfAKey(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		plans, err := admit.NewPlans(admit.Plan{Name: "pro", Limits: []admit.Limit{admit.PerHour(2)}})
		require.NoError(t, err)
		for name, c := range map[string]admit.LimiterConfig{
			"in memory": {},
			"a store":   {Name: "api", Store: &failing{LimitStore: newMemoryStore(t, 0)}, Replicas: 3},
		} {
			c.Plans, c.Limits = plans, []admit.Limit{admit.PerHour(1)}
			h := newLimiter(t, c).Wrap(ok)
			own := &admit.Key{ID: "own", Plan: "pro", Limits: []admit.Limit{admit.PerMinute(3), admit.PerDay(100)}}
			for range 3 {
				header := allowed(t, h, by(own))
				assert.Equal(t, `"minute";q=3;w=60, "day";q=100;w=86400`, header.Get("RateLimit-Policy"), name)
			}
			refused(t, h, by(own), 429)
			assert.Equal(t, `"hour";q=2;w=3600`, allowed(t, h, by(&admit.Key{ID: "other", Plan: "pro"})).Get("RateLimit-Policy"))
			assert.Equal(t, `"hour";q=1;w=3600`, allowed(t, h, get("/")).Get("RateLimit-Policy"))

			// A changed key counts at once, and its new limits are other buckets.
			changed := *own
			changed.Limits = []admit.Limit{admit.PerMinute(4)}
			assert.Equal(t, `"minute";r=3;t=45`, allowed(t, h, by(&changed)).Get("RateLimit"), name)
			changed.Limits = nil
			assert.Equal(t, `"hour";q=2;w=3600`, allowed(t, h, by(&changed)).Get("RateLimit-Policy"))

			logger, log := logged()
			broken := &admit.Key{ID: "broken", Limits: []admit.Limit{{Requests: 1}}}
			refused(t, (&admit.ErrorWriter{Logger: logger}).Wrap(h), by(broken), 500)
			assert.Contains(t, log.String(), "the limits of the key broken cannot be used")
		}
		tooSlow := &admit.Key{ID: "slow", Limits: []admit.Limit{{Requests: 1, Per: 99 * 365 * 24 * time.Hour}}}
		h := newLimiter(t, admit.LimiterConfig{Name: "api", Store: &failing{LimitStore: newMemoryStore(t, 0)}, Replicas: 50, Limits: []admit.Limit{admit.PerHour(1)}}).Wrap(ok)
		refused(t, h, by(tooSlow), 500)
	})
}

func TestLimitsOfAKeyAllocations(t *testing.T) {
	defer admit.WithoutShedders()()
	h := admit.RateLimit(admit.PerHour(1))(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	r := by(&admit.Key{ID: "own", Limits: []admit.Limit{admit.PerSecond(1e9), admit.PerMinute(1e9)}})
	w := newDiscard()
	allocs(t, 2, func() { clear(w.h); h.ServeHTTP(w, r) })
}

func TestLimiterTake(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var events []admit.LimitEvent
		l := newLimiter(t, admit.LimiterConfig{
			Name: "messages", Limits: []admit.Limit{admit.PerHour(10)},
			Skip:    func(*http.Request) bool { return true },
			Cost:    func(*http.Request) int { return 99 },
			Observe: func(_ *http.Request, e admit.LimitEvent) { events = append(events, e) },
		})
		limits := []admit.Limit{{Name: "hour", Requests: 10, Per: time.Hour, Burst: 10}}
		r := by(&admit.Key{ID: "a"})
		for _, step := range []struct {
			cost, left int
			allowed    bool
		}{{0, 10, true}, {4, 6, true}, {7, 6, false}, {6, 0, true}, {1, 0, false}, {0, 0, true}, {-3, 3, true}, {3, 0, true}, {-100, 10, true}} {
			d, err := l.Take(r, step.cost)
			require.NoError(t, err)
			assert.Equal(t, step.allowed, d.Allowed, "%+v", step)
			assert.Equal(t, step.left, d.States[0].Remaining, "%+v", step)
			assert.Equal(t, limits, d.Limits)
			assert.Equal(t, step.cost, events[len(events)-1].Cost)
			if !d.Allowed {
				assert.Positive(t, d.RetryAfter)
			}
		}
		d, err := l.Take(r, 11)
		require.NoError(t, err)
		assert.Negative(t, d.RetryAfter, "never")
		d.States[0].Remaining, d.Limits[0].Requests = 99, 99
		d, err = l.Take(r, 0)
		require.NoError(t, err)
		assert.Equal(t, 10, d.States[0].Remaining)
		assert.Equal(t, limits, d.Limits, "what is handed out is a copy")
		other, err := l.Take(get("/"), 0)
		require.NoError(t, err)
		assert.Equal(t, 10, other.States[0].Remaining)
	})
}

func TestLimiterTakeCountsBesideWrap(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := newLimiter(t, admit.LimiterConfig{Limits: []admit.Limit{admit.PerHour(10)}})
		h := l.Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			for range 3 { // messages
				d, err := l.Take(r, 2)
				assert.NoError(t, err)
				assert.True(t, d.Allowed)
			}
		}))
		header := allowed(t, h, get("/"))
		assert.Equal(t, `"hour";r=9;t=3240`, header.Get("RateLimit"), "as it was when the request came")
		assert.Contains(t, allowed(t, l.Wrap(ok), get("/")).Get("RateLimit"), `"hour";r=2;`)
	})
}

func TestLimiterTakeInAnOutage(t *testing.T) {
	t.Parallel()
	down := errors.New("down")
	for mode, test := range map[admit.StoreDown]struct {
		allowed bool
		status  int
	}{admit.LimitLocally: {true, 0}, admit.AdmitAll: {true, 0}, admit.RefuseAll: {false, 503}} {
		store := &failing{LimitStore: newMemoryStore(t, 0)}
		store.err.Store(&down)
		var observed error
		l := newLimiter(t, admit.LimiterConfig{
			Name: "api", Store: store, StoreDown: mode, Limits: []admit.Limit{admit.PerHour(2)}, Replicas: 1,
			Observe: func(_ *http.Request, e admit.LimitEvent) { observed = e.Err },
		})
		d, err := l.Take(get("/"), 1)
		assert.Equal(t, test.allowed, d.Allowed, mode)
		require.ErrorIs(t, observed, down)
		if test.status == 0 {
			require.NoError(t, err)
			continue
		}
		var e *admit.Error
		require.ErrorAs(t, err, &e)
		assert.Equal(t, test.status, e.Status)
		require.ErrorIs(t, err, down)
	}

	store := &failing{LimitStore: newMemoryStore(t, 0)}
	store.err.Store(&down)
	l := newLimiter(t, admit.LimiterConfig{Name: "api", Store: store, Limits: []admit.Limit{admit.PerHour(2)}})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := l.Take(get("/").WithContext(ctx), 1)
	require.ErrorIs(t, err, context.Canceled, "no outage")

	l = newLimiter(t, admit.LimiterConfig{Limits: []admit.Limit{admit.PerHour(1)}, DryRun: true})
	for range 3 {
		d, err := l.Take(get("/"), 1)
		require.NoError(t, err)
		assert.True(t, d.Allowed)
	}
	d, err := l.Take(get("/"), 1)
	require.NoError(t, err)
	assert.True(t, d.States[0].Exceeded)

	_, err = l.Take(by(&admit.Key{}), 1)
	assert.ErrorContains(t, err, "has no ID")
	_, err = l.Take(by(&admit.Key{ID: "k", Networks: prefixes("198.51.100.0/24")}), 1)
	assert.ErrorContains(t, err, "address_not_allowed")
}

// A cost that no bucket ever holds is refused, however large it is, also where the time
// that would pay it back does not fit a time.Duration.
func TestCostsThatNoBucketHolds(t *testing.T) {
	t.Parallel()
	century := admit.Limit{Requests: 1, Per: 100 * 365 * 24 * time.Hour}
	for _, limit := range []admit.Limit{admit.PerSecond(10), admit.PerHour(1000), admit.PerDay(1), century} {
		for _, cost := range []int64{2_000, 200_000, math.MaxInt32, 1e13, math.MaxInt64} {
			cost := int(min(cost, math.MaxInt))
			t.Run(fmt.Sprint(limit.Requests, " in ", limit.Per, ", ", cost), func(t *testing.T) {
				t.Parallel()
				l := newLimiter(t, admit.LimiterConfig{Limits: []admit.Limit{limit}, Cost: func(*http.Request) int { return cost }})
				assert.Equal(t, 429, status(l.Wrap(ok), get("/")), "Wrap")
				d, err := l.Take(get("/"), cost)
				require.NoError(t, err)
				assert.False(t, d.Allowed, "Take")
				assert.Negative(t, d.RetryAfter, "Take: never")
				assert.False(t, take(t, newMemoryStore(t, 0), "key:k", cost, limit).Allowed, "MemoryStore.Take")
			})
		}
	}
}

// What CountBy returns is one caller, with or without a Key.
func TestCountByIsOneCallerWithAndWithoutAKey(t *testing.T) {
	t.Parallel()
	l := newLimiter(t, admit.LimiterConfig{Limits: []admit.Limit{admit.PerHour(1)}, CountBy: func(*http.Request) string { return "all" }})
	h := l.Wrap(ok)
	assert.Equal(t, 200, status(h, by(&admit.Key{ID: "k"})))
	assert.Equal(t, 429, status(h, get("/")))
}

// noNext is a store that leaves it to the Limiter to tell when the next request comes.
type noNext struct{ admit.LimitStore }

func (s noNext) Take(ctx context.Context, key string, cost int, limits []admit.Limit) (admit.Decision, error) {
	d, err := s.LimitStore.Take(ctx, key, cost, limits)
	for i := range d.States {
		d.States[i].Next = 0
	}
	return d, err
}

// What a client is told promises it no more than the limit, and the last response that was
// let in says what the refusal after it says: whoever decides.
func TestRateLimitPromisesNoMoreThanTheLimit(t *testing.T) {
	t.Parallel()
	down := errors.New("down")
	for name, newStore := range map[string]func() admit.LimitStore{
		"in memory": func() admit.LimitStore { return nil },
		"a store":   func() admit.LimitStore { return noNext{newMemoryStore(t, 0)} },
		"the share of a process": func() admit.LimitStore {
			store := &failing{LimitStore: newMemoryStore(t, 0)}
			store.err.Store(&down)
			return store
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for range 100 {
				limit := admit.Limit{
					Name: "x", Requests: 1 + rand.IntN(1<<rand.IntN(9)), Burst: rand.IntN(50),
					Per: time.Millisecond + time.Duration(rand.Int64N(int64(time.Second)<<rand.IntN(20))),
				}
				checkPromises(t, limit, newStore())
			}
			for _, limit := range []admit.Limit{admit.PerSecond(5), admit.PerMinute(100), admit.PerHour(7), admit.PerDay(100)} {
				limit.Name = "x"
				checkPromises(t, limit, newStore())
			}
		})
	}
}

// checkPromises spends what there is, all at once.
func checkPromises(t *testing.T, limit admit.Limit, store admit.LimitStore) {
	synctest.Test(t, func(t *testing.T) {
		c := admit.LimiterConfig{Limits: []admit.Limit{limit}}
		if store != nil {
			c.Name, c.Store, c.Replicas = "api", store, 1+limit.Requests%3
		}
		h := (&admit.ErrorWriter{Logger: discardLogs}).Wrap(newLimiter(t, c).Wrap(ok))
		for last := ""; ; {
			w := httptest.NewRecorder()
			h.ServeHTTP(w, get("/"))
			var q, window, r, next int64
			_, err := fmt.Sscanf(w.Header().Get("RateLimit-Policy"), `"x";q=%d;w=%d`, &q, &window)
			require.NoError(t, err)
			_, err = fmt.Sscanf(w.Header().Get("RateLimit"), `"x";r=%d;t=%d`, &r, &next)
			require.NoError(t, err)
			require.LessOrEqual(t, r*window, q*next, "%d in %d s is more than %d in %d s", r, next, q, window)
			if w.Code == http.StatusTooManyRequests {
				require.Equal(t, w.Header().Get("Retry-After"), fmt.Sprint(next))
				require.Equal(t, last, w.Header().Get("RateLimit"), "%+v", limit)
				return
			}
			last = w.Header().Get("RateLimit")
		}
	})
}

// A store of somebody else may say what no header can.
func TestRateLimitOfWhatCannotBe(t *testing.T) {
	t.Parallel()
	for want, state := range map[string]admit.LimitState{
		`"hour";r=0;t=1`:                              {Remaining: -5, Reset: -1},
		`"hour";r=0;t=9223372037`:                     {Next: math.MaxInt64},
		`"hour";r=0;t=1 `:                             {Reset: math.MinInt64 + 1},
		`"hour";r=2147483647;t=7730941129200`:         {Remaining: math.MaxInt32},
		`"hour";r=999999999999999;t=999999999999999 `: {Remaining: math.MaxInt},
	} {
		if state.Remaining == math.MaxInt && math.MaxInt == math.MaxInt32 {
			continue
		}
		h := newLimiter(t, admit.LimiterConfig{
			Name: "api", Store: fixed{Allowed: true, States: []admit.LimitState{state}}, Limits: []admit.Limit{admit.PerHour(1)},
		}).Wrap(ok)
		assert.Equal(t, strings.TrimSpace(want), allowed(t, h, get("/")).Get("RateLimit"))
	}
}

// Whose client has left before the answer began gets nothing back as if the service had
// failed, whatever the handler made of it: else who hangs up early pays nothing.
func TestLimiterRefundOfWhoIsNotThere(t *testing.T) {
	t.Parallel()
	left := func(write func(http.ResponseWriter, *http.Request, func())) int {
		ctx, leave := context.WithCancel(t.Context())
		defer leave()
		asked := 0
		h := newLimiter(t, admit.LimiterConfig{
			Limits: []admit.Limit{admit.PerHour(1)},
			Refund: func(status int) bool { asked = status; return false },
		}).Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { write(w, r, leave) }))
		h = (&admit.ErrorWriter{Logger: discardLogs}).Wrap(h)
		func() {
			defer func() { _ = recover() }()
			h.ServeHTTP(hijackable{httptest.NewRecorder()}, get("/").WithContext(ctx))
		}()
		return asked
	}
	for name, test := range map[string]struct {
		write func(w http.ResponseWriter, r *http.Request, leave func())
		want  int
	}{
		"says nothing":     {func(_ http.ResponseWriter, _ *http.Request, leave func()) { leave() }, 499},
		"writes a 500":     {func(w http.ResponseWriter, _ *http.Request, leave func()) { leave(); w.WriteHeader(500) }, 499},
		"writes an answer": {func(w http.ResponseWriter, _ *http.Request, leave func()) { leave(); _, _ = io.WriteString(w, "hello") }, 499},
		"flushes": {func(w http.ResponseWriter, _ *http.Request, leave func()) {
			leave()
			_ = http.NewResponseController(w).Flush()
		}, 499},
		"writes the error": {func(w http.ResponseWriter, r *http.Request, leave func()) {
			leave()
			admit.WriteError(w, r, r.Context().Err())
		}, 499},
		"panics":    {func(_ http.ResponseWriter, _ *http.Request, leave func()) { leave(); panic("gone") }, 499},
		"had begun": {func(w http.ResponseWriter, _ *http.Request, leave func()) { w.WriteHeader(502); leave() }, 502},
		"had flushed": {func(w http.ResponseWriter, _ *http.Request, leave func()) {
			_ = http.NewResponseController(w).Flush()
			leave()
		}, 200},
		"panics with a client": {func(http.ResponseWriter, *http.Request, func()) { panic("oh") }, 500},
		"hijacks": {func(w http.ResponseWriter, _ *http.Request, _ func()) {
			_, _, _ = http.NewResponseController(w).Hijack()
		}, 101},
		"hijacks, then it goes": {func(w http.ResponseWriter, _ *http.Request, leave func()) {
			_, _, _ = http.NewResponseController(w).Hijack()
			leave()
			panic("gone")
		}, 101},
	} {
		assert.Equal(t, test.want, left(test.write), name)
	}
}

type hijackable struct{ *httptest.ResponseRecorder }

func (hijackable) Hijack() (net.Conn, *bufio.ReadWriter, error) { return nil, nil, nil }

// Over a socket: clients that hang up and come again do not get more than the limit.
func TestLimiterRefundOfClientsThatLeave(t *testing.T) {
	t.Parallel()
	var ran atomic.Int32
	l := newLimiter(t, admit.LimiterConfig{
		Limits: []admit.Limit{admit.PerHour(2)},
		Refund: func(status int) bool { return status >= 500 },
	})
	h := l.Wrap(admit.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) error {
		ran.Add(1)
		<-r.Context().Done()
		return r.Context().Err()
	}))
	ended := make(chan bool, 1)
	s := serve(t, "HTTP/1.1", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer func() { ended <- true }()
		h.ServeHTTP(w, r)
	}))
	for range 8 {
		ctx, cancel := context.WithCancel(t.Context())
		before := ran.Load()
		done := make(chan int, 1)
		go func() {
			r, err := http.NewRequestWithContext(ctx, http.MethodGet, s.URL, nil)
			assert.NoError(t, err)
			resp, err := s.Client().Do(r)
			if err != nil {
				done <- 0
				return
			}
			_ = resp.Body.Close()
			done <- resp.StatusCode
		}()
		for ran.Load() == before && len(done) == 0 {
			runtime.Gosched()
		}
		cancel()
		<-done
		<-ended
	}
	assert.EqualValues(t, 2, ran.Load())
}

// A key whose plan nobody knows is limited as a stranger is, and the log says so: once.
func TestLimiterLogsUnknownPlans(t *testing.T) {
	t.Parallel()
	plans, err := admit.NewPlans(admit.Plan{Name: "pro", Limits: []admit.Limit{admit.PerHour(1e6)}}, admit.Plan{Name: "plain"})
	require.NoError(t, err)
	logger, log := logged()
	h := (&admit.ErrorWriter{Logger: logger}).Wrap(newLimiter(t, admit.LimiterConfig{Plans: plans, Limits: []admit.Limit{admit.PerHour(1e6)}}).Wrap(ok))
	for range 3 {
		for _, plan := range []string{"pro", "plain", "", "gold"} {
			allowed(t, h, by(&admit.Key{ID: "k-" + plan, Plan: plan}))
		}
	}
	assert.Equal(t, 1, strings.Count(log.String(), "\n"), log.String())
	assert.Contains(t, log.String(), "admit.key.id=k-gold admit.plan=gold")
	for i := range 3000 {
		allowed(t, h, by(&admit.Key{ID: fmt.Sprint(i), Plan: "gold"}))
	}
	assert.Equal(t, 1000, strings.Count(log.String(), "\n"), "a store full of them does not fill the log")
}

func TestLimitsForARequest(t *testing.T) {
	t.Parallel()
	plans, err := admit.NewPlans(admit.Plan{Name: "pro", Limits: []admit.Limit{admit.PerDay(3)}})
	require.NoError(t, err)
	tenants := map[string][]admit.Limit{"big": {admit.PerDay(50), admit.PerHour(20)}, "broken": {{Requests: 1}}}
	logger, lines := logged()
	l := newLimiter(t, admit.LimiterConfig{
		Plans: plans, Limits: []admit.Limit{admit.PerDay(2)},
		LimitsFor: func(r *http.Request) []admit.Limit { return tenants[r.Header.Get("Tenant")] },
	})
	h := (&admit.ErrorWriter{Logger: logger}).Wrap(l.Wrap(ok))
	pro, own := &admit.Key{ID: "pro", Plan: "pro"}, &admit.Key{ID: "own", Plan: "pro", Limits: []admit.Limit{admit.PerDay(4)}}
	for _, test := range []struct {
		key    *admit.Key
		tenant string
		policy string
	}{
		{nil, "", `"day";q=2;w=86400`},
		{nil, "big", `"day";q=50;w=86400, "hour";q=20;w=3600`},
		{pro, "", `"day";q=3;w=86400`},
		{pro, "big", `"day";q=50;w=86400, "hour";q=20;w=3600`},
		{own, "small", `"day";q=4;w=86400`},
		{own, "big", `"day";q=50;w=86400, "hour";q=20;w=3600`},
	} {
		r := get("/", "Tenant", test.tenant)
		if test.key != nil {
			r = r.WithContext(admit.WithKey(r.Context(), test.key))
		}
		assert.Equal(t, test.policy, allowed(t, h, r).Get("RateLimit-Policy"), "%v %s", test.key, test.tenant)
	}
	refused(t, h, get("/", "Tenant", "broken"), http.StatusInternalServerError)
	assert.Contains(t, lines.String(), "the limits of LimiterConfig.LimitsFor cannot be used: admit: Limits[0].Per is 0s")
	_, err = l.Take(get("/", "Tenant", "broken"), 1)
	assert.ErrorContains(t, err, "LimiterConfig.LimitsFor")
}

// A refusal says which limits are reached, and not those of another caller who waits as long.
func TestRefusalNamesTheLimits(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		hours := []admit.Limit{{Name: "small", Requests: 1, Per: time.Hour}, {Name: "large", Requests: 100, Per: time.Hour}}
		tenants := map[string][]admit.Limit{
			"one": hours, "other": {{Name: `with "quotes"`, Requests: 1, Per: time.Hour}},
			"both": {{Name: "a", Requests: 1, Per: time.Hour}, {Name: "b", Requests: 1, Per: time.Hour}},
		}
		h := newLimiter(t, admit.LimiterConfig{
			Limits: hours, LimitsFor: func(r *http.Request) []admit.Limit { return tenants[r.URL.Path[1:]] },
			CountBy: func(r *http.Request) string { return r.URL.Path },
			Cost:    func(r *http.Request) int { return max(1, len(r.Header.Get("Cost"))) },
		}).Wrap(ok)
		for tenant := range tenants {
			allowed(t, h, get("/"+tenant))
		}
		for range 2 {
			for tenant, names := range map[string][]string{"one": {"small"}, "other": {`with "quotes"`}, "both": {"a", "b"}} {
				body, _ := refused(t, h, get("/"+tenant), http.StatusTooManyRequests)
				assert.Equal(t, names, body.Limits)
			}
		}
		body, _ := refused(t, h, get("/one", "Cost", "xx"), http.StatusTooManyRequests)
		assert.Equal(t, []string{"small"}, body.Limits, "it never holds so much")

		w := httptest.NewRecorder()
		h.ServeHTTP(w, get("/both", "Accept", "application/problem+json"))
		assert.Equal(t, `{"type":"https://iana.org/assignments/http-problem-types#quota-exceeded","title":"Too Many Requests","status":429,`+
			`"detail":"The rate limit is reached. Try again later.","code":"rate_limited","retry_after":3600,"violated-policies":["a","b"]}`+"\n", w.Body.String())
	})
}
