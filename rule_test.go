package admit_test

import (
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/admit-go/admit"
	"github.com/admit-go/admit/internal/published"
)

// The rule: a handler sees what is around it, and nothing else. Here two handlers run in
// one request, and only the first has a wrapper around it. The second must see what it
// sees when nobody has.

// guest is a wrapper around the first handler.
type guest struct {
	wrap    admit.Middleware
	first   http.HandlerFunc // the handler; nil: it does nothing
	shows   string           // what is seen only inside of it
	adds    []string         // the headers of the response that are its own
	answers bool             // the response is its own: a refusal
	plain   admit.Middleware // what stands in its place when nobody has a wrapper
}

// guests are all wrappers of the package, as they let in and as they refuse.
func guests(t testing.TB) map[string]guest {
	t.Helper()
	plans := newPlans(t)
	known := admit.KeyMap{admit.DigestOf("guest"): {ID: "guest", Plan: "pro", Scopes: []string{"read"}}}
	auth := func(c admit.AuthConfig) admit.Middleware {
		c.Store = known
		return newAuth(t, c).Wrap
	}
	from := func(source admit.KeySource) admit.Middleware {
		return auth(admit.AuthConfig{Sources: []admit.KeySource{source}})
	}
	byHeader := from(admit.FromHeader("X-Guest"))
	limiter := func(c admit.LimiterConfig) admit.Middleware {
		c.Limits = []admit.Limit{admit.PerDay(1000)}
		return newLimiter(t, c).Wrap
	}
	never := limiterThatRefuses(t)
	sold := newQuotas(t, admit.QuotasConfig{})
	spent := newQuotas(t, admit.QuotasConfig{Cost: func(*http.Request) int { return 2 }}, admit.Quota{Requests: 1, Every: admit.Month})
	negotiator, err := admit.NewNegotiator(admit.NegotiatorConfig{Offers: []string{"image/png"}, Fallback: "image/png"})
	require.NoError(t, err)
	types, err := admit.NewContentTypes(admit.ContentTypesConfig{Allow: []string{"text/plain"}, AllowMissing: true})
	require.NoError(t, err)
	total, err := admit.NewHandlerTimeout(admit.HandlerTimeoutConfig{FirstByte: time.Minute, Total: time.Hour})
	require.NoError(t, err)
	var off, on admit.Maintenance
	on.On(time.Time{})
	jwt := func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			next.ServeHTTP(w, r.WithContext(admit.WithKey(r.Context(), known[admit.DigestOf("guest")])))
		})
	}
	chain := func(wrappers ...admit.Middleware) admit.Middleware {
		return func(h http.Handler) http.Handler { return wrap(h, wrappers...) }
	}
	quiet := ownErrors("guest").Wrap
	mux := func(around func(*http.ServeMux) http.Handler) admit.Middleware {
		return func(h http.Handler) http.Handler {
			m := http.NewServeMux()
			m.Handle("POST /{path...}", h)
			return around(m)
		}
	}
	looks := func(r *http.Request, o admit.Outcome) { _ = fmt.Sprint(r.Header, r.Pattern, o) }
	whole := admit.Policy{
		ClientIP: admit.ClientIP("X-Guest-IP", anywhere), Observe: looks, Errors: ownErrors("guest"), Maintenance: &off, InFlight: newInFlight(t, admit.InFlightConfig{Max: 9}),
		Methods: []string{"POST"}, Auth: newAuth(t, admit.AuthConfig{Store: known, Sources: []admit.KeySource{admit.FromHeader("X-Guest")}}),
		Scopes: []string{"read"}, Plans: plans, AtLeast: "pro", Features: []string{"history"},
		Limiter: newLimiter(t, admit.LimiterConfig{Limits: []admit.Limit{admit.PerDay(1000)}, Refund: func(int) bool { return true }, LegacyHeaders: true}),
		Quotas:  sold,
		Accept:  []string{"text/plain"}, ContentType: []string{"text/plain"}, MaxBody: 3 << 20,
		Shedder: newShedder(t, admit.ShedderConfig{Max: 9}), BodyTimeout: admit.BodyTimeout{Grace: time.Minute}, WriteStall: time.Minute, Timeout: time.Minute,
	}
	limits := []string{"Ratelimit", "Ratelimit-Policy"}
	legacy := append([]string{"X-Ratelimit-Limit", "X-Ratelimit-Remaining", "X-Ratelimit-Reset"}, limits...)
	all := map[string]guest{
		"RequestID":         {wrap: admit.RequestID, shows: "request id", adds: []string{"X-Request-Id"}},
		"ClientIP":          {wrap: admit.ClientIP("X-Guest-IP", anywhere), shows: "address"},
		"ErrorWriter":       {wrap: ownErrors("guest").Wrap, shows: "error"},
		"Recover":           {wrap: admit.Recover},
		"Recover, a panic":  {wrap: chain(quiet, admit.Recover), first: panics("as asked for").ServeHTTP, answers: true},
		"Maintenance":       {wrap: off.Wrap},
		"Maintenance, on":   {wrap: on.Wrap, answers: true},
		"InFlight":          {wrap: newInFlight(t, admit.InFlightConfig{Max: 9, PerAddress: 9, Queue: 1, Wait: time.Minute}).Wrap, shows: "around"},
		"MaxInFlight":       {wrap: admit.MaxInFlight(9), shows: "around"},
		"Shedder":           {wrap: newShedder(t, admit.ShedderConfig{Max: 9}).Wrap, shows: "around"},
		"Shedder, full":     {wrap: fullShedder(t), answers: true},
		"InFlight, full":    {wrap: fullInFlight(t), answers: true},
		"Methods":           {wrap: admit.Methods("POST")},
		"Methods, 405":      {wrap: admit.Methods("GET"), answers: true},
		"Auth, header":      {wrap: byHeader, shows: "key"},
		"Auth, query":       {wrap: from(admit.FromQuery("guest")), shows: "key"},
		"Auth, cookie":      {wrap: from(admit.FromCookie("guest")), shows: "key"},
		"Auth, bearer":      {wrap: from(admit.FromBearer()), shows: "key"},
		"Auth, kept":        {wrap: auth(admit.AuthConfig{KeepCredential: true, Sources: []admit.KeySource{admit.FromHeader("X-Guest")}}), shows: "key"},
		"Auth, optional":    {wrap: auth(admit.AuthConfig{Optional: true, Sources: []admit.KeySource{admit.FromHeader("X-None")}})},
		"Auth, 401":         {wrap: from(admit.FromHeader("X-None")), answers: true},
		"Auth, unknown":     {wrap: from(admit.FromHeader("X-Guest-IP")), answers: true},
		"RequireScopes":     {wrap: chain(byHeader, admit.RequireScopes("read")), shows: "key"},
		"RequireScopes, no": {wrap: chain(byHeader, admit.RequireScopes("write")), answers: true},
		"AtLeast":           {wrap: chain(jwt, plans.AtLeast("pro")), shows: "key"},
		"AtLeast, no":       {wrap: chain(jwt, plans.AtLeast("enterprise")), answers: true},
		"Features":          {wrap: chain(jwt, plans.Features("history")), shows: "key"},
		"Features, no":      {wrap: chain(jwt, plans.Features("sso")), answers: true},
		"WithKey":           {wrap: jwt, shows: "key"},
		"RateLimit":         {wrap: admit.RateLimit(admit.PerDay(1000)), adds: limits},
		"RateLimit, 429":    {wrap: never, answers: true},
		"Limiter":           {wrap: limiter(admit.LimiterConfig{Refund: func(int) bool { return true }, LegacyHeaders: true}), adds: legacy},
		"Limiter, shadow":   {wrap: limiter(admit.LimiterConfig{DryRun: true, Cost: func(*http.Request) int { return 9999 }}), adds: limits},
		"Quotas":            {wrap: chain(jwt, sold.Wrap), shows: "key", adds: limits},
		"Quotas, 429":       {wrap: chain(jwt, spent.Wrap), answers: true},
		"Accept":            {wrap: admit.Accept("text/plain"), shows: "media type", adds: []string{"Vary"}},
		"Accept, 406":       {wrap: admit.Accept("image/png"), answers: true},
		"Negotiator":        {wrap: negotiator.Wrap, shows: "media type", adds: []string{"Vary"}},
		"ContentType":       {wrap: admit.ContentType("text/plain")},
		"ContentType, 415":  {wrap: admit.ContentType("image/png"), answers: true},
		"ContentTypes":      {wrap: types.Wrap},
		"MaxBody":           {wrap: admit.MaxBody(3 << 20), shows: "Decode"},
		"MaxBody, 413":      {wrap: admit.MaxBody(1), answers: true},
		"BodyTimeout":       {wrap: chain(quiet, admit.BodyTimeout{Grace: time.Minute, MinRate: 1, Max: time.Hour}.Wrap)},
		"WriteStall":        {wrap: admit.WriteStall(time.Minute)},
		"Timeout":           {wrap: admit.Timeout(time.Minute), shows: "around"},
		"NewHandlerTimeout": {wrap: total.Wrap, shows: "around"},
		"Timeout, overrun":  {wrap: admit.Timeout(time.Millisecond), first: overruns(t), answers: true},
		"Intercept":         {wrap: func(h http.Handler) http.Handler { return admit.Intercept(h) }},
		"Intercept, text": {
			wrap: func(h http.Handler) http.Handler { return admit.Intercept(h) }, answers: true,
			first: func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "text", 404) },
		},
		"Mux": {wrap: mux(admit.Mux), plain: mux(func(m *http.ServeMux) http.Handler { return m })},
		"Mux, 404": {
			wrap: func(http.Handler) http.Handler { return admit.Mux(http.NewServeMux()) }, answers: true,
			plain: func(http.Handler) http.Handler { return http.NewServeMux() },
		},
		"Observe":   {wrap: admit.Observe(looks)},
		"ObserveAs": {wrap: admit.ObserveAs("rule", looks)},
		"AccessLog": {wrap: admit.AccessLog(discardLogs)},
		"Outcomes": {wrap: func(h http.Handler) http.Handler {
			return published.Outcomes(h, func(*http.Request, published.Outcome) {})
		}},
		"Policy":          {wrap: whole.Wrap, shows: "key", adds: append([]string{"X-Request-Id", "Vary"}, legacy...)},
		"Policy, a panic": {wrap: whole.Wrap, first: panics("as asked for").ServeHTTP, answers: true},
		"Policy, an error": {wrap: whole.Wrap, answers: true, first: func(w http.ResponseWriter, r *http.Request) {
			admit.WriteError(w, r, admit.NewError(409, ""))
		}},
	}
	for name, g := range all {
		if g.first == nil {
			g.first = func(http.ResponseWriter, *http.Request) {}
		}
		if g.plain == nil {
			g.plain = func(h http.Handler) http.Handler { return h }
		}
		all[name] = g
	}
	return all
}

// anywhere is all of IPv4.
var anywhere = netip.MustParsePrefix("0.0.0.0/0")

// ownErrors writes errors that tell by whom.
func ownErrors(name string) *admit.ErrorWriter {
	return &admit.ErrorWriter{Logger: discardLogs, Encode: func(*http.Request, *admit.Error) (string, []byte) {
		return "text/plain", []byte(name)
	}}
}

// limiterThatRefuses has let in whoever it would have.
func limiterThatRefuses(t testing.TB) admit.Middleware {
	return newLimiter(t, admit.LimiterConfig{
		Limits: []admit.Limit{admit.PerDay(1)}, Cost: func(*http.Request) int { return 2 },
	}).Wrap
}

// fullInFlight has no place, and fullShedder has none.
func fullInFlight(t testing.TB) admit.Middleware {
	return full(t, newInFlight(t, admit.InFlightConfig{Max: 1}))
}

func fullShedder(t testing.TB) admit.Middleware {
	return full(t, newShedder(t, admit.ShedderConfig{Max: 1}))
}

func full(t testing.TB, f bound) admit.Middleware {
	g := newGate()
	answered := send(f.Wrap(g), get("/"))
	require.Eventually(t, func() bool { return g.inside.Load() == 1 }, 10*time.Second, time.Millisecond)
	t.Cleanup(func() { close(g.out); <-answered })
	return f.Wrap
}

// overruns is a handler that still runs when all else is over.
func overruns(t testing.TB) http.HandlerFunc {
	over := make(chan struct{})
	t.Cleanup(func() { close(over) })
	return func(http.ResponseWriter, *http.Request) { <-over }
}

// surroundings are what both handlers are inside of.
var surroundings = map[string]func(t testing.TB) admit.Middleware{
	"bare":      func(testing.TB) admit.Middleware { return func(h http.Handler) http.Handler { return h } },
	"RequestID": func(testing.TB) admit.Middleware { return admit.RequestID },
	"Policy": func(t testing.TB) admit.Middleware {
		total, err := admit.NewHandlerTimeout(admit.HandlerTimeoutConfig{FirstByte: time.Minute, Total: time.Hour})
		require.NoError(t, err)
		p := admit.Policy{
			ClientIP: anyProxy, Observe: func(*http.Request, admit.Outcome) {}, Errors: ownErrors("host"), Maintenance: new(admit.Maintenance), InFlight: newInFlight(t, admit.InFlightConfig{Max: 9}),
			Methods: []string{"POST"}, Auth: newAuth(t, admit.AuthConfig{Sources: []admit.KeySource{admit.FromHeader("X-Host")}}),
			Scopes: []string{"orders:read"}, Plans: newPlans(t), AtLeast: "pro", Features: []string{"history"},
			Limiter: newLimiter(t, admit.LimiterConfig{Limits: []admit.Limit{admit.PerDay(1000)}, Refund: func(int) bool { return true }}),
			Quotas:  newQuotas(t, admit.QuotasConfig{}),
			Accept:  []string{"text/html", "text/plain"}, ContentType: []string{"text/*"}, MaxBody: 2 << 20, Shedder: newShedder(t, admit.ShedderConfig{Max: 9}),
			BodyTimeout: admit.BodyTimeout{Grace: time.Hour}, WriteStall: time.Hour, Timeout: time.Hour,
		}
		return func(h http.Handler) http.Handler { return p.Wrap(total.Wrap(h)) }
	},
}

// ruleRequest lets every guest in that lets in at all.
func ruleRequest(host string) *http.Request {
	r := newRequest("POST", "/a?b=1&guest=guest", "the body", "Authorization", "Bearer guest", "X-Guest", "guest", "Cookie", "c=1; guest=guest",
		"X-Host", "good", "X-Forwarded-For", "198.51.100.7", "X-Guest-IP", "203.0.113.9", "Accept", "text/plain", "Content-Type", "text/plain")
	if host != "bare" {
		r.Header.Set("X-Request-Id", "host")
	}
	return r
}

// connection is a recorder that takes note of deadlines, as the writer of a server has them.
type connection struct {
	*httptest.ResponseRecorder
	mu        sync.Mutex
	deadlines []string
}

func newConnection() *connection { return &connection{ResponseRecorder: httptest.NewRecorder()} }

func (c *connection) note(deadline string) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.deadlines = append(c.deadlines, deadline)
	return nil
}

func (c *connection) SetReadDeadline(time.Time) error  { return c.note("read") }
func (c *connection) SetWriteDeadline(time.Time) error { return c.note("write") }

// sights is what a handler sees, by name.
type sights map[string]string

// view returns all that a handler can see, except the body, which can be read once.
func view(r *http.Request) sights {
	ctx := r.Context()
	key, found := admit.KeyFrom(ctx)
	err := httptest.NewRecorder()
	admit.WriteError(err, r, admit.NewError(418, ""))
	runs, places := admit.Around(ctx)
	large := r.WithContext(ctx)
	large.Body, large.ContentLength = io.NopCloser(strings.NewReader(`"it says that it is large"`)), 2<<20+1
	_, decodes := admit.Decode[string](large)
	_, bounded := ctx.Deadline()
	return sights{
		"request id": admit.RequestIDFrom(ctx),
		"address":    admit.ClientIPFrom(r).String(),
		"media type": admit.MediaTypeFrom(ctx),
		"key":        fmt.Sprint(key, found),
		"caller":     admit.Caller(r),
		"error":      fmt.Sprint(err.Header(), err.Body),
		"around":     fmt.Sprintf("%d runs, %d places", runs, places),
		"Decode":     fmt.Sprint(decodes),
		"pattern":    r.Pattern,
		"context":    fmt.Sprint(ctx.Err(), bounded),
		"request":    fmt.Sprint(r.Method, r.URL, r.RequestURI, r.RemoteAddr, r.Header, r.ContentLength, r.Form, r.PostForm, r.MultipartForm),
	}
}

// pair is one request with two handlers in it.
type pair struct {
	guest
	second sights // what the second has seen
	inside sights // what the first has seen
}

// around puts the guest, or what is plain, around the first handler.
func (p *pair) around(plain bool) http.Handler {
	var mu sync.Mutex // there may be several of it at once
	h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		p.inside = view(r)
		mu.Unlock()
		p.first(w, r)
	})
	if !plain {
		return p.wrap(h)
	}
	if p.answers {
		h = func(http.ResponseWriter, *http.Request) {} // who is refused does nothing
	}
	return p.plain(h)
}

// probe is the second handler.
func (p *pair) probe(w http.ResponseWriter, r *http.Request) {
	p.second = view(r)
	body, err := io.ReadAll(r.Body)
	p.second["body"] = fmt.Sprint(string(body), err)
	p.second["in time"] = fmt.Sprint(admit.StopTimeout(r.Context()))
	w.WriteHeader(http.StatusAccepted)
	_, _ = io.WriteString(w, "second")
}

// arrangements are the ways in which two handlers may be in one request.
var arrangements = map[string]func(first, second http.Handler) http.HandlerFunc{
	"one after the other": func(first, second http.Handler) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			first.ServeHTTP(w, r)
			second.ServeHTTP(w, r)
		}
	},
	"fallback": func(first, second http.Handler) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			first.ServeHTTP(httptest.NewRecorder(), r)
			second.ServeHTTP(w, r)
		}
	},
	"batch": func(first, second http.Handler) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			for _, h := range []http.Handler{first, second} {
				part := r.Clone(r.Context())
				answer := httptest.NewRecorder()
				h.ServeHTTP(answer, part)
				maps.Copy(w.Header(), map[string][]string{"X-Parts": append(w.Header()["X-Parts"], fmt.Sprint(answer.Code, len(answer.Header())))})
			}
			w.Header()["X-Parts"] = w.Header()["X-Parts"][1:] // the first may be refused
		}
	},
	"at once": func(first, second http.Handler) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			var all sync.WaitGroup
			for range 3 {
				all.Go(func() { first.ServeHTTP(httptest.NewRecorder(), r) })
			}
			all.Go(func() { second.ServeHTTP(w, r) })
			all.Wait()
		}
	},
}

func TestRuleOfTwoHandlers(t *testing.T) {
	t.Parallel()
	for place, arrange := range arrangements {
		for host, surround := range surroundings {
			t.Run(place+" in "+host, func(t *testing.T) {
				t.Parallel()
				for name, g := range guests(t) {
					own := place == "one after the other" && g.answers // the response is the first's
					// run returns the second's sights, the response, and what is left of the request.
					run := func(plain bool) (p *pair, w *connection, left string) {
						p, w = &pair{guest: g}, newConnection()
						first, second := p.around(plain), http.Handler(http.HandlerFunc(p.probe))
						if place == "at once" && name[:3] == "Mux" { // it writes to its request, as any mux does
							first = copied(first)
						}
						surround(t)(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
							before, header, u, body := *r, r.Header.Clone(), *r.URL, r.Body
							arrange(first, second)(w, r)
							assert.True(t, body == r.Body, "%s: the body is another", name)
							assert.Equal(t, header, r.Header, name)
							assert.Equal(t, u, *r.URL, name)
							assert.Same(t, before.URL, r.URL, name)
							left = fmt.Sprint(r.Pattern, r.Form, r.PostForm, r.MultipartForm == before.MultipartForm)
						})).ServeHTTP(w, ruleRequest(host))
						return p, w, left
					}
					want, wantW, wantLeft := run(true)
					got, gotW, gotLeft := run(false)
					require.NotNil(t, want.second, name)
					if own {
						delete(want.second, "body") // it was read before the answer
						delete(got.second, "body")
					}
					assert.Equal(t, want.second, got.second, "%s: what the second sees", name)
					assert.Equal(t, wantLeft, gotLeft, "%s: what is left of the request", name)
					if g.shows != "" && host == "bare" {
						assert.NotEqual(t, want.inside[g.shows], got.inside[g.shows], "%s: the first sees its wrapper", name)
					}
					if own {
						continue
					}
					assert.Equal(t, wantW.Code, gotW.Code, name)
					assert.Equal(t, wantW.Body.String(), gotW.Body.String(), name)
					header, wantHeader := timeless(gotW.Result().Header), timeless(wantW.Result().Header)
					if place == "one after the other" {
						for _, h := range g.adds {
							assert.Contains(t, header, h, name)
							if wantHeader[h] == nil {
								delete(header, h)
							} else {
								header[h] = wantHeader[h]
							}
						}
					} else {
						assert.Equal(t, wantW.deadlines, gotW.deadlines, "%s: deadlines of the connection", name)
					}
					assert.Equal(t, wantHeader, header, name)
				}
			})
		}
	}
}

// timeless leaves out when a quota is renewed, which is sooner each second.
func timeless(h http.Header) http.Header {
	for i, line := range h["Ratelimit"] {
		h["Ratelimit"][i] = renewed.ReplaceAllString(line, "$1")
	}
	return h
}

var renewed = regexp.MustCompile(`("month";r=\d+);t=\d+`)

// copied gives h a copy of the request.
func copied(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { h.ServeHTTP(w, r.WithContext(r.Context())) })
}

// A retry calls what is inside of it twice: the second try sees what an only try does,
// whatever became of the first.
func TestRuleOfARetry(t *testing.T) {
	t.Parallel()
	fates := map[string]http.HandlerFunc{
		"nothing": func(http.ResponseWriter, *http.Request) {},
		"error": func(w http.ResponseWriter, r *http.Request) {
			admit.WriteError(w, r, admit.NewError(503, ""))
		},
		"panic": func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) },
	}
	for host, surround := range surroundings {
		for fate, first := range fates {
			t.Run(fate+" in "+host, func(t *testing.T) {
				t.Parallel()
				for name, g := range guests(t) {
					run := func(tries int) (sights, http.Header) {
						p, w := &pair{guest: g}, newConnection()
						tried := 0
						inner := g.wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
							if tried++; tried == tries {
								p.probe(w, r)
								return
							}
							first(w, r)
						}))
						surround(t)(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
							for range tries - 1 {
								func() {
									defer func() { _ = recover() }()
									inner.ServeHTTP(httptest.NewRecorder(), r)
								}()
							}
							inner.ServeHTTP(w, r)
						})).ServeHTTP(w, ruleRequest(host))
						return p.second, w.Result().Header
					}
					if g.answers && !strings.HasPrefix(name, "Policy, ") && !strings.HasPrefix(name, "Recover") && !strings.HasPrefix(name, "Intercept") {
						continue // nobody gets in
					}
					want, wantHeader := run(1)
					got, gotHeader := run(3)
					require.NotNil(t, want, name)
					for _, seen := range []sights{want, got} {
						if made := seen["request id"]; host == "bare" && made != "" { // each try has another
							for what := range seen {
								seen[what] = strings.ReplaceAll(seen[what], made, "made")
							}
						}
					}
					assert.Equal(t, want, got, name)
					counted := slices.Concat(g.adds, []string{"Ratelimit"}) // what is left is less
					if host == "bare" {
						counted = append(counted, "X-Request-Id")
					}
					for _, h := range counted {
						delete(wantHeader, h)
						delete(gotHeader, h)
					}
					assert.Equal(t, wantHeader, gotHeader, name)
				}
			})
		}
	}
}

// Over a wire the server is around both handlers, and it is still well after them.
func TestRuleOverTheWire(t *testing.T) {
	t.Parallel()
	for _, wire := range wires {
		for host, surround := range surroundings {
			t.Run(wire+" in "+host, func(t *testing.T) {
				t.Parallel()
				all := guests(t)
				var p *pair
				s := serve(t, wire, surround(t)(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					p = &pair{guest: all[r.Header.Get("X-Case")]}
					first := p.around(r.Header.Get("X-Plain") == "true")
					r.Header.Del("X-Plain")
					arrangements["fallback"](first, http.HandlerFunc(p.probe))(w, r)
				})))
				for name := range all {
					ask := func(plain bool) (sights, int, string) {
						r := ruleRequest(host)
						headers := []string{"X-Case", name, "X-Plain", fmt.Sprint(plain)}
						for h, values := range r.Header {
							headers = append(headers, h, values[0])
						}
						res, body := do(t, s, r.Method, r.URL.String(), "the body", headers...)
						delete(p.second, "request") // it has the port of the client
						delete(p.second, "caller")
						return p.second, res.StatusCode, string(body)
					}
					want, _, _ := ask(true)
					got, status, body := ask(false)
					assert.Equal(t, want, got, name)
					assert.Equal(t, "the body<nil>", got["body"], name)
					assert.Equal(t, http.StatusAccepted, status, name)
					assert.Equal(t, "second", body, name)
				}
			})
		}
	}
}
