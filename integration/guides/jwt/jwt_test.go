package jwt

import (
	"crypto/ed25519"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/justinas/alice"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/admit-go/admit"
	"github.com/admit-go/admit/admittest"
	"github.com/admit-go/admit/integration/internal/guide"
	"github.com/admit-go/admit/internal/testkit"
)

const (
	issuer   = "https://id.example.com"
	audience = "orders"
)

// provider issues tokens.
type provider struct {
	public  ed25519.PublicKey
	private ed25519.PrivateKey
}

func newProvider(t *testing.T) provider {
	t.Helper()
	public, private, err := ed25519.GenerateKey(nil)
	require.NoError(t, err)
	return provider{public, private}
}

func (p provider) keys(*jwt.Token) (any, error) { return p.public, nil }

// claims are those of ann, changed.
func claimsOf(change func(*claims)) claims {
	c := claims{jwt.RegisteredClaims{
		Issuer: issuer, Subject: "ann", Audience: jwt.ClaimStrings{audience},
		ExpiresAt: jwt.NewNumericDate(time.Now().Add(time.Hour)),
	}, "orders:read orders:write", "pro"}
	change(&c)
	return c
}

func as(*claims) {}

func sign(t *testing.T, method jwt.SigningMethod, key any, c claims) string {
	t.Helper()
	token := jwt.NewWithClaims(method, c)
	token.Header["kid"] = "k1"
	text, err := token.SignedString(key)
	require.NoError(t, err)
	return text
}

func (p provider) token(t *testing.T, change func(*claims)) string {
	return sign(t, jwt.SigningMethodEdDSA, p.private, claimsOf(change))
}

func plansAndLimiter(t *testing.T) (*admit.Plans, *admit.Limiter) {
	t.Helper()
	plans, err := admit.NewPlans(admit.Plan{Name: "pro", Limits: []admit.Limit{admit.PerMinute(1000)}})
	require.NoError(t, err)
	limiter, err := admit.NewLimiter(admit.LimiterConfig{Plans: plans, Limits: []admit.Limit{admit.PerMinute(10)}})
	require.NoError(t, err)
	return plans, limiter
}

func ago(d time.Duration) *jwt.NumericDate { return jwt.NewNumericDate(time.Now().Add(-d)) }

func TestPage(t *testing.T) {
	t.Parallel()
	p := newProvider(t)
	plans, limiter := plansAndLimiter(t)
	keys := admit.KeyMap{admit.DigestOf("acme_s3cret"): {ID: "k1", Owner: "ACME", Scopes: []string{"orders:read"}}}
	h, err := newBoth(keys, newTokens(issuer, audience, p.keys, "EdDSA", "ES256", "RS256"), plans, limiter)
	require.NoError(t, err)
	s := testkit.Serve(t, testkit.HTTP1, h)
	guide.Run(t, "jwt", s.URL, t.TempDir(),
		"TOKEN="+p.token(t, as),
		"EXPIRED="+p.token(t, func(c *claims) { c.ExpiresAt = ago(time.Hour) }),
		"PROFILE="+p.token(t, func(c *claims) { c.Scope = "profile" }),
		"API_KEY=acme_s3cret",
	)
}

// accessLog logs who was served, after the answer.
func accessLog(logger *slog.Logger) admit.Middleware {
	return func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			defer func() {
				id := "nobody"
				if key, found := admit.SeenKeyFrom(r.Context()); found {
					id = key.ID
				}
				logger.Info("served", "key", id, "request", admit.RequestIDFrom(r.Context()))
			}()
			next.ServeHTTP(w, r)
		})
	}
}

// Every way to forge, cut or misuse a token, on each wire; and what an access log around it
// knows of the caller.
func TestTokens(t *testing.T) {
	t.Parallel()
	p, stranger := newProvider(t), newProvider(t)
	publicBytes, err := x509.MarshalPKIXPublicKey(p.public)
	require.NoError(t, err)
	ours := func(change func(*claims)) string { return "Bearer " + p.token(t, change) }
	good := ours(as)
	const (
		none    = `Bearer realm="orders"`
		invalid = `Bearer realm="orders", error="invalid_token"`
		scope   = `Bearer error="insufficient_scope", scope="orders:read"`
	)
	for name, test := range map[string]struct {
		authorization []string
		status        int
		code          string
		seen          string // by the access log
		challenge     string
	}{
		"good":               {[]string{good}, 200, "", "user:ann", ""},
		"scheme in any case": {[]string{"bEARER" + strings.TrimPrefix(good, "Bearer")}, 200, "", "user:ann", ""},
		"expired just now":   {[]string{ours(func(c *claims) { c.ExpiresAt = ago(time.Second) })}, 200, "", "user:ann", ""},
		"wrong scope":        {[]string{ours(func(c *claims) { c.Scope = "orders:write profile" })}, 403, "scope_required", "user:ann", scope},
		"no scope":           {[]string{ours(func(c *claims) { c.Scope = "" })}, 403, "scope_required", "user:ann", scope},
		"expired":            {[]string{ours(func(c *claims) { c.ExpiresAt = ago(time.Minute) })}, 401, "token_expired", "nobody", invalid},
		"never expires":      {[]string{ours(func(c *claims) { c.ExpiresAt = nil })}, 401, "token_invalid", "nobody", invalid},
		"early":              {[]string{ours(func(c *claims) { c.NotBefore = ago(-time.Hour) })}, 401, "token_invalid", "nobody", invalid},
		"other issuer":       {[]string{ours(func(c *claims) { c.Issuer = "https://example.org" })}, 401, "token_invalid", "nobody", invalid},
		"other audience":     {[]string{ours(func(c *claims) { c.Audience = jwt.ClaimStrings{"prices"} })}, 401, "token_invalid", "nobody", invalid},
		"no subject":         {[]string{ours(func(c *claims) { c.Subject = "" })}, 401, "token_invalid", "nobody", invalid},
		"wrong signature":    {[]string{"Bearer " + stranger.token(t, as)}, 401, "token_invalid", "nobody", invalid},
		"not signed":         {[]string{"Bearer " + sign(t, jwt.SigningMethodNone, jwt.UnsafeAllowNoneSignatureType, claimsOf(as))}, 401, "token_invalid", "nobody", invalid},
		"signed with HMAC and the public key": {
			[]string{"Bearer " + sign(t, jwt.SigningMethodHS256, publicBytes, claimsOf(as))}, 401, "token_invalid", "nobody", invalid,
		},
		"cut":            {[]string{good[:len(good)-2]}, 401, "token_invalid", "nobody", invalid},
		"a word":         {[]string{"Bearer guess"}, 401, "token_invalid", "nobody", invalid},
		"two":            {[]string{good, good}, 401, "token_invalid", "nobody", invalid},
		"large":          {[]string{"Bearer " + strings.Repeat("x", 9<<10)}, 401, "token_invalid", "nobody", invalid},
		"none":           {nil, 401, "token_missing", "nobody", none},
		"empty":          {[]string{""}, 401, "token_missing", "nobody", none},
		"another scheme": {[]string{"Basic YTpi"}, 401, "token_missing", "nobody", none},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			plans, limiter := plansAndLimiter(t)
			for _, wire := range testkit.Wires {
				var logs testkit.Buffer
				s := testkit.Serve(t, wire, alice.New(
					admit.RequestID,
					accessLog(slog.New(slog.NewTextHandler(&logs, nil))),
					(&admit.ErrorWriter{Logger: slog.New(slog.DiscardHandler)}).Wrap,
				).Then(newOrders(newTokens(issuer, audience, p.keys, "EdDSA", "ES256", "RS256"), plans, limiter)))
				headers := []string{"X-Request-Id", "r1"}
				for _, line := range test.authorization {
					headers = append(headers, "Authorization", line)
				}
				res, body := testkit.Do(t, s, "GET", "/", "", headers...)
				require.Equal(t, test.status, res.StatusCode, "%s: %s", wire, body)
				s.Close() // which waits for the log line
				assert.Contains(t, logs.String(), "key="+test.seen+" request=r1\n")
				if test.status == http.StatusOK {
					assert.Equal(t, `"minute";q=1000;w=60`, res.Header.Get("RateLimit-Policy"), "that of the plan")
					assert.Contains(t, string(body), "Hello, user:ann")
					continue
				}
				var answer struct{ Code string }
				require.NoError(t, json.Unmarshal(body, &answer), "%s", body)
				assert.Equal(t, test.code, answer.Code)
				assert.NotContains(t, string(body), "signature", "why a token is refused is not for who has forged it")
				assert.Equal(t, []string{test.challenge}, res.Header["Www-Authenticate"])
			}
		})
	}
}

// The contract of a route with tokens is kept, but for a row that only a key with Networks reaches.
func TestContract(t *testing.T) {
	t.Parallel()
	p := newProvider(t)
	limiter, err := admit.NewLimiter(admit.LimiterConfig{Limits: []admit.Limit{admit.PerMinute(10)}})
	require.NoError(t, err)
	quiet := admit.Policy{Errors: &admit.ErrorWriter{Logger: slog.New(slog.DiscardHandler)}}
	h, api, err := newPublished(quiet, newTokens(issuer, audience, p.keys, "EdDSA", "ES256", "RS256"), nil, limiter)
	require.NoError(t, err)
	c := admittest.NewContract(t, api, h)
	for _, authorization := range []string{"", "Bearer guess", "Bearer " + p.token(t, func(c *claims) { c.ExpiresAt = ago(time.Hour) })} {
		r := httptest.NewRequest("GET", "/orders", nil)
		r.Header.Set("Authorization", authorization)
		c.ServeHTTP(httptest.NewRecorder(), r)
	}
	c.Provoke(admittest.Credentials{Sign: func(r *http.Request, key *admit.Key) {
		r.Header.Set("Authorization", "Bearer "+p.token(t, func(c *claims) {
			c.Subject, c.Scope, c.Plan = key.ID, strings.Join(key.Scopes, " "), key.Plan
		}))
	}})
	c.AllReached("403 address_not_allowed")
	assert.Contains(t, string(api.Markdown()), "`jwt`")
}

// A limit counts a user and a key of the same name apart, and a bad key never falls back to
// a token.
func TestKeyOrToken(t *testing.T) {
	t.Parallel()
	p := newProvider(t)
	limiter, err := admit.NewLimiter(admit.LimiterConfig{Limits: []admit.Limit{admit.PerHour(1)}})
	require.NoError(t, err)
	keys := admit.KeyMap{admit.DigestOf("s3cret"): {ID: "ann", Owner: "ACME", Scopes: []string{"orders:read"}}}
	h, err := newBoth(keys, newTokens(issuer, audience, p.keys, "EdDSA", "ES256", "RS256"), nil, limiter)
	require.NoError(t, err)
	token := "Bearer " + p.token(t, as)
	for i, test := range []struct {
		key, authorization string
		status             int
		want               string
	}{
		{"s3cret", "", 200, "Hello, ACME"},
		{"", token, 200, "Hello, user:ann"},
		{"s3cret", token, 429, "rate_limited"},
		{"guess", token, 401, "key_invalid"},
		{"", "Bearer s3cret", 401, "token_invalid"},
		{"", "", 401, "token_missing"},
	} {
		r := httptest.NewRequest("GET", "/", nil)
		if test.key != "" {
			r.Header.Set("X-API-Key", test.key)
		}
		if test.authorization != "" {
			r.Header.Set("Authorization", test.authorization)
		}
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		assert.Equal(t, test.status, w.Code, "%d: %s", i, w.Body)
		assert.Contains(t, w.Body.String(), test.want)
	}
}

// A token of a shared secret gets in if it is signed with that secret, by HMAC.
func TestSecret(t *testing.T) {
	t.Parallel()
	secret := []byte("a secret of 32 bytes or more, say")
	h := newOrders(newSecretTokens(issuer, audience, secret), nil, nil)
	for name, test := range map[string]struct {
		token  string
		status int
	}{
		"good":           {sign(t, jwt.SigningMethodHS256, secret, claimsOf(as)), 200},
		"another secret": {sign(t, jwt.SigningMethodHS256, []byte("guess"), claimsOf(as)), 401},
		"another method": {newProvider(t).token(t, as), 401},
		"not signed":     {sign(t, jwt.SigningMethodNone, jwt.UnsafeAllowNoneSignatureType, claimsOf(as)), 401},
	} {
		r := httptest.NewRequest("GET", "/", nil)
		r.Header.Set("Authorization", "Bearer "+test.token)
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		assert.Equal(t, test.status, w.Code, "%s: %s", name, w.Body)
	}
}

// The keys come from the provider, and an unknown one is no reason to wait.
func TestJWKS(t *testing.T) {
	t.Parallel()
	p, stranger := newProvider(t), newProvider(t)
	jwks := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = fmt.Fprintf(w, `{"keys":[{"kty":"OKP","crv":"Ed25519","alg":"EdDSA","kid":"k1","use":"sig","x":%q}]}`,
			base64.RawURLEncoding.EncodeToString(p.public))
	}))
	defer jwks.Close()
	tokens, err := newRemoteTokens(t.Context(), issuer, audience, jwks.URL)
	require.NoError(t, err)
	plans, limiter := plansAndLimiter(t)
	h := newOrders(tokens, plans, limiter)
	unknown := jwt.NewWithClaims(jwt.SigningMethodEdDSA, claimsOf(as))
	unknown.Header["kid"] = "k2"
	other, err := unknown.SignedString(stranger.private)
	require.NoError(t, err)
	for _, test := range []struct {
		token  string
		status int
	}{{p.token(t, as), 200}, {stranger.token(t, as), 401}, {other, 401}, {other, 401}, {p.token(t, as), 200}} {
		r := httptest.NewRequest("GET", "/", nil)
		r.Header.Set("Authorization", "Bearer "+test.token)
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		assert.Equal(t, test.status, w.Code, w.Body.String())
	}
}
