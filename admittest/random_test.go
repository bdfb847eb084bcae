package admittest_test

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"maps"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/admit-go/admit"
	"github.com/admit-go/admit/admittest"
	"github.com/admit-go/admit/contract"
)

// Whatever the policies and whatever the requests, each answer has a row: no wrapper of a chain
// answers what Policy.Answers leaves out.
func TestEveryAnswerOfAPolicyHasARow(t *testing.T) {
	t.Parallel()
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	g := &generator{Rand: rand.New(rand.NewPCG(seed, 0)), used: make(map[string]bool), seen: make(map[int]bool)}
	for i := 0; i < 300 || i < 5000 && !g.sawAll(); i++ {
		synctest.Test(t, g.round)
	}
	for _, f := range reflect.VisibleFields(reflect.TypeFor[admit.Policy]()) {
		assert.True(t, g.used[f.Name], "no Policy had %s", f.Name)
	}
	assert.True(t, g.sawAll(), "%v", g.seen)
}

// generator makes services and requests.
type generator struct {
	*rand.Rand
	used map[string]bool // fields of Policy
	mu   sync.Mutex
	seen map[int]bool // statuses
}

// sawAll reports whether requests have been answered in every way.
func (g *generator) sawAll() bool {
	for _, status := range []int{200, 400, 401, 402, 403, 404, 405, 406, 408, 413, 415, 422, 429, 500, 501, 502, 503} {
		if !g.seen[status] {
			return false
		}
	}
	return true
}

func (g *generator) flip() bool { return g.IntN(2) == 0 }

func pick[T any](g *generator, all ...T) T { return all[g.IntN(len(all))] }

// round tries one service.
func (g *generator) round(t *testing.T) {
	values := g.values(t)
	outer := g.policy(values)
	api := newAPI(t, outer, errWho)
	mux := http.NewServeMux()
	for _, pattern := range []string{"/a", "GET /b/{id}", "POST /c/"} {
		handler, errs := g.handler()
		api.Handle(mux, pattern, g.policy(values), handler, errs...)
	}
	quiet := &admit.ErrorWriter{Logger: slog.New(slog.DiscardHandler)}
	c := admittest.NewContract(t, api, quiet.Wrap(outer.Wrap(admit.Mux(mux))))
	for range 10 {
		var together sync.WaitGroup
		for range pick(g, 1, 1, 12) {
			w, r, after := g.request(t)
			together.Go(func() {
				defer after()
				defer func() {
					if v := recover(); v != nil && v != http.ErrAbortHandler {
						panic(v)
					}
				}()
				var ended []admit.Outcome
				admit.ObserveAs("random", func(_ *http.Request, o admit.Outcome) { ended = append(ended, o) })(c).ServeHTTP(w, r)
				if assert.Len(t, ended, 1) && ended[0].Status != 499 {
					assert.Equal(t, w.Code, ended[0].Status)
					if w.Code >= 400 && w.Body.Len() > 0 {
						assert.Equal(t, codeOf(w.Body.Bytes()), ended[0].Code)
					}
					if r.Method != http.MethodHead {
						assert.EqualValues(t, w.Body.Len(), ended[0].Written)
					}
				}
				g.mu.Lock()
				defer g.mu.Unlock()
				g.seen[w.Code] = true
			})
		}
		together.Wait()
		if g.flip() {
			time.Sleep(pick(g, time.Millisecond, time.Second, time.Minute))
		}
	}
	time.Sleep(time.Minute) // until look-ups that nobody waits for have ended
}

// codeOf returns the code of an error that admit has written, or "".
func codeOf(body []byte) string {
	var e struct {
		Code string `json:"code"`
	}
	_ = json.Unmarshal(body, &e)
	return e.Code
}

// values has what each field of a Policy may be.
func (g *generator) values(t *testing.T) map[string][]any {
	t.Helper()
	p := newParts(t)
	others := p.others(t)
	keys := admit.KeyMap{}
	for name, key := range map[string]admit.Key{
		"all":       {Plan: "pro", Scopes: []string{"orders:write", "admin"}},
		"free":      {Plan: "free"},
		"once":      {Plan: "pro", Scopes: []string{"orders:write"}, Limits: []admit.Limit{admit.PerDay(1)}},
		"little":    {Plan: "pro", Scopes: []string{"orders:write"}, Quotas: []admit.Quota{{Requests: 1, Every: admit.Month}}},
		"elsewhere": {Networks: []netip.Prefix{netip.MustParsePrefix("198.51.100.0/24")}},
		"expired":   {ExpiresAt: time.Unix(1, 0)},
	} {
		key.ID = name
		keys[admit.DigestOf(name)] = &key
		p.users.Store(name, &key)
	}
	p.users.Store("nameless", &admit.Key{})
	p.users.Store("wrong", &admit.Key{ID: "wrong", Limits: []admit.Limit{{}}, Quotas: []admit.Quota{{}}})
	down := lookUp(func(context.Context, admit.Digest) (*admit.Key, error) {
		time.Sleep(time.Second)
		return nil, errors.New("it is down")
	})
	slow := lookUp(func(ctx context.Context, d admit.Digest) (*admit.Key, error) {
		time.Sleep(10 * time.Millisecond)
		return keys.LookupKey(ctx, d)
	})
	auth := func(c admit.AuthConfig) *admit.Auth {
		a, err := admit.NewAuth(c)
		require.NoError(t, err)
		return a
	}
	limiter := func(c admit.LimiterConfig) *admit.Limiter {
		c.Limits = []admit.Limit{{Requests: 3, Per: time.Second}}
		l, err := admit.NewLimiter(c)
		require.NoError(t, err)
		return l
	}
	fails := takeFunc(func(context.Context, string, int, []admit.Limit) (admit.Decision, error) {
		return admit.Decision{}, errors.New("it is down")
	})
	costs := func(r *http.Request) int { return len(r.URL.Path) }
	limiters := []any{
		p.Limiter, limiter(admit.LimiterConfig{Plans: p.Plans}), limiter(admit.LimiterConfig{Cost: costs, DryRun: true, Plans: p.Plans}),
		limiter(admit.LimiterConfig{Cost: costs, Plans: p.Plans, LegacyHeaders: true, Refund: func(status int) bool { return status >= 500 }}),
		limiter(admit.LimiterConfig{Name: "x", Store: fails, StoreDown: admit.RefuseAll, Plans: p.Plans}),
		limiter(admit.LimiterConfig{Name: "x", Store: fails, StoreDown: admit.AdmitAll, Plans: p.Plans}),
		limiter(admit.LimiterConfig{Name: "x", Store: fails, Replicas: 2, Cost: costs, Plans: p.Plans}),
		limiter(admit.LimiterConfig{Name: "x", Store: fails, Cost: costs, Plans: p.Plans}),
	}
	quotas := func(c admit.QuotasConfig) *admit.Quotas {
		c.Plans = p.Plans
		if c.Store == nil {
			c.Store = admit.NewMemoryQuotaStore()
		}
		q, err := admit.NewQuotas(c)
		require.NoError(t, err)
		return q
	}
	away := func() admit.QuotaStore { return &countedQuotas{err: errors.New("it is down")} }
	sold := []any{
		p.Quotas, quotas(admit.QuotasConfig{}), quotas(admit.QuotasConfig{Cost: costs, Skip: func(r *http.Request) bool { return r.Header.Get("Cookie") != "" }}),
		quotas(admit.QuotasConfig{Store: away(), StoreDown: admit.RefuseAll}), quotas(admit.QuotasConfig{Store: away(), StoreDown: admit.AdmitAll}),
		quotas(admit.QuotasConfig{Store: away(), Replicas: 2, Cost: costs, Counts: func(int) bool { return true }}),
	}
	addresses := []any{p.AddressLimiter, limiter(admit.LimiterConfig{}), limiter(admit.LimiterConfig{Name: "a", Store: fails, StoreDown: admit.RefuseAll})}
	in, err := admit.NewInFlight(admit.InFlightConfig{Max: 1, RetryAfter: time.Minute})
	require.NoError(t, err)
	shedder, err := admit.NewShedder(admit.ShedderConfig{Max: 1, Interval: 5 * time.Millisecond, MaxQueue: 1})
	require.NoError(t, err)
	falls, err := admit.NewNegotiator(admit.NegotiatorConfig{Offers: []string{"text/csv"}, Fallback: "text/csv"})
	require.NoError(t, err)
	missing, err := admit.NewContentTypes(admit.ContentTypesConfig{Allow: []string{"text/*", "application/json"}, Charsets: []string{"latin1"}, Encodings: []string{"gzip"}, AllowMissing: true})
	require.NoError(t, err)
	closed := new(admit.Maintenance)
	closed.On(time.Now().Add(30 * time.Second))
	return map[string][]any{
		"ClientIP": {p.ClientIP}, "Observe": {p.Observe}, "Errors": {p.Errors}, "Maintenance": {p.Maintenance, closed}, "InFlight": {p.InFlight, in, others.InFlight},
		"Shedder":        {p.Shedder, shedder},
		"AddressLimiter": addresses, "Methods": {[]string{"GET", "POST"}, []string{"GET"}, []string{"POST", "QUERY", "OPTIONS"}},
		"Auth": {
			auth(admit.AuthConfig{Store: keys}), auth(admit.AuthConfig{Store: keys, Optional: true}), auth(admit.AuthConfig{Store: down}),
			auth(admit.AuthConfig{Store: slow, Failures: admit.PerMinute(2), MintedPrefixes: []string{"minted"}}),
			auth(admit.AuthConfig{Store: keys, Sources: []admit.KeySource{admit.FromQuery("key"), admit.FromCookie("key")}}),
		},
		"Identity": {admit.Middleware(p.identity)}, "Scopes": {[]string{"admin"}}, "Plans": {p.Plans}, "AtLeast": {"free", "pro"},
		"Features": {[]string{"export"}}, "Limiter": limiters, "Quotas": sold, "Accept": {[]string{"application/json", "text/html"}},
		"Negotiator": {others.Negotiator, falls}, "ContentType": {[]string{"application/json"}}, "ContentTypes": {others.ContentTypes, missing},
		"MaxBody": {int64(5), int64(1000)}, "BodyTimeout": {p.BodyTimeout, admit.BodyTimeout{Grace: time.Second, MinRate: 1}},
		"WriteStall": {time.Second}, "Timeout": {time.Millisecond, 2 * time.Second}, "HandlerTimeout": {others.HandlerTimeout},
	}
}

// policy returns one that may be served, with one field, with few or with many.
func (g *generator) policy(values map[string][]any) admit.Policy {
	seldom, alone := pick(g, 2, 4, 10, 50), pick(g, slices.Sorted(maps.Keys(values))...)
	if g.IntN(3) > 0 {
		alone = ""
	}
	for {
		var p admit.Policy
		v := reflect.ValueOf(&p).Elem()
		var used []string
		for _, f := range reflect.VisibleFields(v.Type()) {
			if all := values[f.Name]; len(all) > 0 && (alone == f.Name || alone == "" && g.IntN(seldom) == 0) {
				v.FieldByIndex(f.Index).Set(reflect.ValueOf(pick(g, all...)))
				used = append(used, f.Name)
			}
		}
		if _, err := p.Chain(); err != nil {
			alone = "" // fields that do not go together, or miss another
			continue
		}
		for _, name := range used {
			g.used[name] = true
		}
		return p
	}
}

// handler returns one with what it says that it answers.
func (g *generator) handler() (http.Handler, []*admit.Error) {
	type declared struct {
		handler http.Handler
		errs    []*admit.Error
	}
	reads := declared{admit.HandlerFunc(func(w http.ResponseWriter, r *http.Request) error {
		if r.Method == http.MethodGet || r.Method == http.MethodHead {
			return nil // a Timeout alone takes no blame for a body there
		}
		_, err := io.Copy(w, r.Body)
		return err
	}), nil}
	d := pick(g,
		declared{admit.HandlerFunc(decodes), contract.Decodes()},
		declared{admit.HandlerFunc(parsesForms), contract.Forms()},
		declared{fails(errSoldOut), []*admit.Error{errSoldOut}},
		declared{http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic("x") }), nil},
		declared{http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { http.Error(w, "x", http.StatusTeapot) }), []*admit.Error{contract.Foreign(418, "Always.")}},
		declared{admit.Intercept(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { http.Error(w, "x", http.StatusTeapot) })), []*admit.Error{admit.NewError(418, "")}},
		reads, reads, reads,
		declared{admit.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) error {
			select {
			case <-r.Context().Done():
				return r.Context().Err()
			case <-time.After(3 * time.Second):
				return errors.New("x")
			}
		}), nil},
		declared{http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if _, err := io.Copy(io.Discard, r.Body); err != nil {
				admit.ProxyError(w, r, err)
			}
		}), contract.Proxies()},
		declared{http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(204) }), nil},
	)
	return d.handler, d.errs
}

// request returns one that has anything wrong, or nothing, and what is to be done after it.
func (g *generator) request(t *testing.T) (*wakeable, *http.Request, func()) {
	ctx, after := context.WithCancel(t.Context())
	if g.IntN(20) == 0 { // the client leaves
		time.AfterFunc(time.Second, after)
	}
	r := httptest.NewRequestWithContext(ctx, pick(g, "GET", "GET", "POST", "POST", "PUT", "QUERY", "OPTIONS", "HEAD", "TRACE", "BREW"),
		pick(g, "/a", "/a", "/b/1", "/c/d", "/c", "/none", "//a", "/a?key=all", "/b/1?key=all&key=all", "/a?%zz"), nil)
	if g.IntN(30) == 0 {
		r.RequestURI, r.URL.Path = "*", "*"
	}
	r.RemoteAddr = pick(g, "192.0.2.1:1", "192.0.2.1:2", "[2001:db8::1]:1", "10.0.0.1:1", "@")
	headers := map[string][]string{
		"Authorization": {"Bearer all", "Bearer all", "Bearer all", "Bearer free", "Bearer once", "Bearer little", "Bearer elsewhere", "Bearer expired", "Bearer", "Basic x", "Bearer " + strings.Repeat("x", 5000)},
		"X-Api-Key":     {"all", "unknown", "minted_x"}, "X-User": {"all", "all", "free", "little", "elsewhere", "nameless", "wrong", "nobody"},
		"Accept": {"application/json", "text/csv", "text/html;q=0, */*", "image/png", "application/problem+json", "x"},
		"Content-Type": {
			"application/json", "application/json; charset=utf-8", "application/json; charset=latin1", "application/x-www-form-urlencoded",
			"multipart/form-data; boundary=x", "multipart/form-data", "text/plain", "nonsense",
		},
		"Content-Encoding": {"gzip", "br"}, "X-Forwarded-For": {"192.0.2.7", "x"}, "Cookie": {"key=all", "key=all; key=all", "key=x"}, "Expect": {"100-continue"},
	}
	for _, name := range slices.Sorted(maps.Keys(headers)) {
		for range pick(g, 0, 0, 1, 1, 1, 2) {
			if name != "Content-Type" && name != "Authorization" && name != "X-User" && name != "Accept" && g.IntN(4) > 0 {
				continue
			}
			r.Header.Add(name, pick(g, headers[name]...))
		}
	}
	if len(r.Header["Authorization"]) > 1 && g.IntN(4) > 0 {
		r.Header["Authorization"] = r.Header["Authorization"][:1]
	}
	w := &wakeable{ResponseRecorder: httptest.NewRecorder()}
	if g.flip() {
		text := pick(g, `{"Name":"x"}`, `{"Name":1}`, "{", "a=b", "a=%zz", "--x\r\n", strings.Repeat("x", 2000), "")
		r.Body, r.ContentLength = io.NopCloser(strings.NewReader(text)), int64(len(text))
		if g.IntN(4) == 0 {
			r.Body, r.ContentLength = io.NopCloser(io.MultiReader(strings.NewReader(text), failing{pick(g, io.ErrUnexpectedEOF, os.ErrDeadlineExceeded, errors.New("x"))})), 10_000
		}
		if g.IntN(4) == 0 {
			client, server := net.Pipe()
			w.conn, r.Body, r.ContentLength = server, server, 10
			closing := time.AfterFunc(time.Hour, func() { _ = client.Close() })
			ended := after
			after = func() { ended(); closing.Stop(); _ = client.Close() }
		}
		if g.IntN(4) == 0 {
			r.ContentLength = -1
		}
	}
	return w, r, after
}

type failing struct{ err error }

func (f failing) Read([]byte) (int, error) { return 0, f.err }

// wakeable is an answer whose request has a body that can be woken.
type wakeable struct {
	*httptest.ResponseRecorder
	conn net.Conn
}

func (w *wakeable) SetReadDeadline(t time.Time) error {
	if w.conn == nil {
		return nil
	}
	return w.conn.SetReadDeadline(t)
}

func (w *wakeable) SetWriteDeadline(time.Time) error { return nil }
