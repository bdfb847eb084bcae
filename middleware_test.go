package admit_test

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/justinas/alice"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/admit-go/admit"
	"github.com/admit-go/admit/internal/testkit"
)

// wires are the protocols over which the chain is tried.
var wires = testkit.Wires

// serve serves h over a real socket, under a guard.
func serve(t testing.TB, wire string, h http.Handler, configure ...func(*http.Server)) *httptest.Server {
	t.Helper()
	return testkit.Serve(t, wire, h, configure...)
}

// do sends a request and reads the whole answer; headers are names and values in turn.
func do(t testing.TB, s *httptest.Server, method, path, body string, headers ...string) (*http.Response, []byte) {
	t.Helper()
	return testkit.Do(t, s, method, path, body, headers...)
}

// A wrapper calls what is inside of it once, and with the answer's status as it is: a
// recorder alone would take an answer that nobody gave for a 200.
func TestWrappersCallTheHandlerOnce(t *testing.T) {
	t.Parallel()
	plans := newPlans(t)
	skip := func(*http.Request) bool { return true }
	for name, wrapper := range map[string]admit.Middleware{
		"RequestID": admit.RequestID, "two RequestIDs": func(h http.Handler) http.Handler { return admit.RequestID(admit.RequestID(h)) },
		"ClientIP": anyProxy, "ErrorWriter": new(admit.ErrorWriter).Wrap, "Recover": admit.Recover, "Maintenance": new(admit.Maintenance).Wrap,
		"MaxInFlight":    admit.MaxInFlight(1),
		"InFlight, skip": newInFlight(t, admit.InFlightConfig{Max: 1, Skip: skip}).Wrap,
		"Methods":        admit.Methods("PUT"),
		"Auth":           newAuth(t, admit.AuthConfig{}).Wrap,
		"Auth, optional": newAuth(t, admit.AuthConfig{Optional: true, Sources: []admit.KeySource{admit.FromQuery("key")}}).Wrap,
		"RequireScopes":  admit.RequireScopes("read"),
		"AtLeast":        plans.AtLeast("pro"), "Features": plans.Features("history"),
		"RateLimit":       admit.RateLimit(admit.PerHour(2)),
		"Limiter, skip":   newLimiter(t, admit.LimiterConfig{Limits: []admit.Limit{admit.PerHour(1)}, Skip: skip}).Wrap,
		"Limiter, Refund": newLimiter(t, admit.LimiterConfig{Limits: []admit.Limit{admit.PerHour(2)}, Refund: func(int) bool { return false }}).Wrap,
		"Quotas":          newQuotas(t, admit.QuotasConfig{}).Wrap,
		"Quotas, skip":    newQuotas(t, admit.QuotasConfig{Skip: skip}).Wrap,
		"Accept":          admit.Accept(jsonType),
		"ContentType":     admit.ContentType(jsonType),
		"MaxBody":         admit.MaxBody(10), "BodyTimeout": admit.BodyTimeout{Grace: time.Minute}.Wrap,
		"Shedder":       newShedder(t, admit.ShedderConfig{Max: 1}).Wrap,
		"Shedder, skip": newShedder(t, admit.ShedderConfig{Max: 1, Skip: skip}).Wrap,
		"Timeout":       admit.Timeout(time.Minute),
		"Intercept":     admit.Intercept,
		"Mux": func(h http.Handler) http.Handler {
			mux := http.NewServeMux()
			mux.Handle("/", h)
			return admit.Mux(mux)
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			calls := 0
			h := wrapper(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				calls++
				w.WriteHeader(http.StatusAccepted)
			}))
			for _, body := range []string{"", "{}"} {
				r := newRequest(http.MethodPut, "/", body, "Content-Type", jsonType, "X-API-Key", "good")
				r = r.WithContext(admit.WithKey(r.Context(), &admit.Key{ID: "k", Plan: "pro", Scopes: []string{"read"}}))
				w := httptest.NewRecorder()
				calls = 0
				h.ServeHTTP(w, r)
				assert.Equal(t, 1, calls)
				assert.Equal(t, http.StatusAccepted, w.Code)
			}
		})
	}
}

// The chain as a client sees it: alice around a mux, over each wire.
func TestChainOverTheWire(t *testing.T) {
	t.Parallel()
	free, freeDigest, _ := admit.Mint("acme")
	pro, proDigest, _ := admit.Mint("acme")
	plans, err := admit.NewPlans(admit.Plan{Name: "free"}, admit.Plan{Name: "pro", Includes: "free", UpgradeURL: "https://example.com/pro"})
	require.NoError(t, err)
	auth := newAuth(t, admit.AuthConfig{MintedPrefixes: []string{"acme"}, Store: admit.KeyMap{
		freeDigest: {ID: "f", Plan: "free"}, proDigest: {ID: "p", Plan: "pro", Scopes: []string{"write"}},
	}})

	mux := http.NewServeMux()
	route := func(pattern string, h http.Handler, chain ...alice.Constructor) {
		mux.Handle(pattern, alice.New(chain...).Then(h))
	}
	whoami := admit.HandlerFunc(func(w http.ResponseWriter, r *http.Request) error {
		k, _ := admit.KeyFrom(r.Context())
		return admit.Success(w, r, http.StatusOK, map[string]string{"key": k.ID, "pattern": r.Pattern, "name": r.PathValue("name")})
	})
	route("/who/{name}", whoami, admit.Methods("GET"), auth.Wrap)
	route("/pro", whoami, auth.Wrap, plans.AtLeast("pro"))
	route("/write", whoami, auth.Wrap, admit.RequireScopes("write"))
	route("/panic", panics("secret"))
	route("/text", http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "secret", http.StatusBadGateway) }), admit.Intercept)
	route("/decode", admit.HandlerFunc(func(w http.ResponseWriter, r *http.Request) error {
		v, err := admit.Decode[struct{ N int }](r)
		if err != nil {
			return err
		}
		return admit.Success(w, r, http.StatusCreated, v)
	}))
	var maintenance admit.Maintenance
	route("/down", ok, maintenance.Wrap)
	maintenance.On(time.Now().Add(time.Hour))
	h := alice.New(admit.RequestID, new(admit.ErrorWriter).Wrap, admit.Recover).Then(admit.Mux(mux))

	tests := []struct {
		method, path, body string
		headers            []string
		status             int
		code               string
		want               string // a part of the headers or the body
	}{
		{"GET", "/who/a%2Fb", "", []string{"X-API-Key", free}, 200, "", `{"result":"success","data":{"key":"f","name":"a/b","pattern":"/who/{name}"}}`},
		{"HEAD", "/who/a", "", []string{"X-API-Key", free}, 200, "", ""},
		{"POST", "/who/a", "{}", []string{"X-API-Key", free}, 405, "method_not_allowed", "GET, HEAD, OPTIONS"},
		{"OPTIONS", "/who/a", "", nil, 204, "", "GET, HEAD, OPTIONS"},
		{"BREW", "/who/a", "", nil, 501, "not_implemented", "GET, HEAD, OPTIONS"},
		{"GET", "/who/a", "", nil, 401, "key_missing", `Bearer realm="api"`},
		{"GET", "/who/a", "", []string{"Authorization", "Bearer " + free[:20]}, 401, "key_invalid", `error="invalid_token"`},
		{"GET", "/who/a", "", []string{"Authorization", "Bearer " + free, "X-API-Key", free}, 400, "bad_request", "more than one"},
		{"GET", "/pro", "", []string{"X-API-Key", free}, 402, "plan_required", `"upgrade_url":"https://example.com/pro"`},
		{"GET", "/pro", "", []string{"X-API-Key", pro}, 200, "", `"key":"p"`},
		{"GET", "/write", "", []string{"X-API-Key", free}, 403, "scope_required", "insufficient_scope"},
		{"GET", "/nowhere", "", nil, 404, "not_found", ""},
		{"GET", "/panic", "", nil, 500, "internal", ""},
		{"GET", "/text", "", nil, 502, "bad_gateway", ""},
		{"POST", "/decode", `{"N":"x"}`, nil, 422, "unprocessable", `"path":"N"`},
		{"POST", "/decode", `{"N":`, nil, 400, "bad_request", ""},
		{"POST", "/decode", `{"N":1}`, nil, 201, "", `"N":1`},
		{"GET", "/down", "", nil, 503, "maintenance", `"retry_after":3`},
		{"HEAD", "/nowhere", "", nil, 404, "", ""},
	}
	for _, wire := range wires {
		t.Run(wire, func(t *testing.T) {
			t.Parallel()
			s := serve(t, wire, h)
			for _, test := range tests {
				res, body := do(t, s, test.method, test.path, test.body, test.headers...)
				require.Equal(t, test.status, res.StatusCode, "%s %s: %s", test.method, test.path, body)
				assert.Equal(t, wire == "HTTP/2", res.ProtoMajor == 2)
				assert.NotEmpty(t, res.Header.Get("X-Request-Id"))
				if test.code != "" {
					e := readEnvelope(t, res.StatusCode, res.Header, body)
					assert.Equal(t, test.code, e.Code)
					assert.Equal(t, res.Header.Get("X-Request-Id"), e.RequestID)
					assert.Equal(t, fmt.Sprint(len(body)), res.Header.Get("Content-Length"))
				}
				assert.Contains(t, fmt.Sprint(res.Header)+string(body), test.want)
				assert.NotContains(t, string(body), "secret")
			}
		})
	}
}

// A stream arrives part by part, and its trailer after it, through every wrapper.
func TestStreamsPass(t *testing.T) {
	t.Parallel()
	for _, wire := range wires {
		t.Run(wire, func(t *testing.T) {
			t.Parallel()
			step := make(chan struct{})
			s := serve(t, wire, everyWrapper(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Trailer", "X-Sum")
				for i := range 3 {
					_, _ = fmt.Fprint(w, i)
					assert.NoError(t, http.NewResponseController(w).Flush())
					<-step // the client has read this part before the next exists
				}
				w.Header().Set("X-Sum", "3")
			})))
			res, err := s.Client().Get(s.URL)
			require.NoError(t, err)
			defer res.Body.Close()
			part := make([]byte, 1)
			for i := range 3 {
				_, err = io.ReadFull(res.Body, part)
				require.NoError(t, err)
				assert.Equal(t, fmt.Sprint(i), string(part))
				step <- struct{}{}
			}
			rest, err := io.ReadAll(res.Body)
			require.NoError(t, err)
			assert.Empty(t, rest)
			assert.Equal(t, "3", res.Trailer.Get("X-Sum"))
		})
	}
}

// An upgrade passes where the protocol has one.
func TestUpgradesPass(t *testing.T) {
	t.Parallel()
	s := serve(t, "HTTP/1.1", everyWrapper(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		c, buffered, err := w.(http.Hijacker).Hijack()
		if !assert.NoError(t, err) {
			return
		}
		defer c.Close()
		_, _ = buffered.WriteString("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n")
		_ = buffered.Flush()
		line, _ := buffered.ReadString('\n')
		_, _ = io.WriteString(c, line)
	})))
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, s.URL, nil)
	require.NoError(t, err)
	r.Header.Set("Connection", "Upgrade")
	r.Header.Set("Upgrade", "echo")
	res, err := s.Client().Do(r)
	require.NoError(t, err)
	defer res.Body.Close()
	require.Equal(t, http.StatusSwitchingProtocols, res.StatusCode)
	_, err = io.WriteString(res.Body.(io.Writer), "hello\n")
	require.NoError(t, err)
	echo, err := io.ReadAll(res.Body)
	require.NoError(t, err)
	assert.Equal(t, "hello\n", string(echo))
}

// everyWrapper puts all wrappers around h that let any GET pass.
func everyWrapper(h http.Handler) http.Handler {
	return alice.New(
		admit.RequestID, anyProxy, new(admit.ErrorWriter).Wrap, admit.Recover, new(admit.Maintenance).Wrap,
		admit.Methods("GET"), admit.Intercept,
	).Then(h)
}
