// Package jwt has an identity from github.com/golang-jwt/jwt in the place of an API key.
package jwt_test

import (
	"context"
	"crypto/ed25519"
	"crypto/x509"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/justinas/alice"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/admit-go/admit"
	"github.com/admit-go/admit/internal/testkit"
)

const (
	issuer   = "https://id.example.com"
	audience = "orders"
	maxToken = 8 << 10
)

var (
	errTokenMissing = tokenError("token_missing", "A token is required: Authorization: Bearer TOKEN.", `Bearer realm="orders"`)
	errTokenInvalid = tokenError("token_invalid", "The token is not valid.", `Bearer realm="orders", error="invalid_token"`)
	errTokenExpired = tokenError("token_expired", "The token has expired.", `Bearer realm="orders", error="invalid_token"`)
)

func tokenError(code, message, challenge string) *admit.Error {
	return &admit.Error{
		Status: http.StatusUnauthorized, Code: code, Message: message,
		Header: http.Header{"WWW-Authenticate": {challenge}},
	}
}

type claims struct {
	jwt.RegisteredClaims
	Scope string `json:"scope"`
}

// identify makes the Key of a request from its token. It takes one algorithm: that of the
// key, whatever the token says.
func identify(public ed25519.PublicKey) admit.Middleware {
	parser := jwt.NewParser(
		jwt.WithValidMethods([]string{jwt.SigningMethodEdDSA.Alg()}),
		jwt.WithIssuer(issuer), jwt.WithAudience(audience), jwt.WithExpirationRequired(),
	)
	verify := func(r *http.Request) (*admit.Key, error) {
		lines := r.Header["Authorization"]
		if len(lines) == 0 {
			return nil, errTokenMissing
		}
		scheme, token, _ := strings.Cut(lines[0], " ")
		if !strings.EqualFold(scheme, "Bearer") {
			return nil, errTokenMissing
		}
		if len(lines) > 1 || len(token) > maxToken {
			return nil, errTokenInvalid
		}
		var c claims
		_, err := parser.ParseWithClaims(token, &c, func(*jwt.Token) (any, error) { return public, nil })
		switch {
		case errors.Is(err, jwt.ErrTokenExpired):
			return nil, errTokenExpired.WithCause(err)
		case err != nil:
			return nil, errTokenInvalid.WithCause(err)
		case c.Subject == "":
			return nil, errTokenInvalid.WithCause(jwt.ErrTokenRequiredClaimMissing)
		}
		return &admit.Key{
			ID: "user:" + c.Subject, Owner: c.Subject, Scopes: strings.Fields(c.Scope), ExpiresAt: c.ExpiresAt.Time,
		}, nil
	}
	return func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			key, err := verify(r)
			if err != nil {
				admit.WriteError(w, r, err)
				return
			}
			next.ServeHTTP(w, r.WithContext(admit.WithKey(r.Context(), key)))
		})
	}
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

func TestJWT(t *testing.T) {
	t.Parallel()
	public, private, err := ed25519.GenerateKey(nil)
	require.NoError(t, err)
	_, stranger, err := ed25519.GenerateKey(nil)
	require.NoError(t, err)
	publicBytes, err := x509.MarshalPKIXPublicKey(public)
	require.NoError(t, err)

	now := time.Now()
	sign := func(method jwt.SigningMethod, key any, change func(*claims)) string {
		c := claims{jwt.RegisteredClaims{
			Issuer: issuer, Subject: "ann", Audience: jwt.ClaimStrings{audience},
			IssuedAt: jwt.NewNumericDate(now), ExpiresAt: jwt.NewNumericDate(now.Add(time.Hour)),
		}, "orders:read orders:write"}
		change(&c)
		token, err := jwt.NewWithClaims(method, c).SignedString(key)
		require.NoError(t, err)
		return "Bearer " + token
	}
	ours := func(change func(*claims)) string { return sign(jwt.SigningMethodEdDSA, private, change) }
	as := func(*claims) {}
	good := ours(as)

	for name, test := range map[string]struct {
		authorization []string
		status        int
		code          string
		seen          string // by the access log
		challenge     string
	}{
		"good":               {[]string{good}, 200, "", "user:ann", ""},
		"scheme in any case": {[]string{"bEARER" + strings.TrimPrefix(good, "Bearer")}, 200, "", "user:ann", ""},
		"wrong scope": {
			[]string{ours(func(c *claims) { c.Scope = "orders:read profile" })},
			403, "scope_required", "user:ann",
			`Bearer error="insufficient_scope", scope="orders:write"`,
		},
		"no scope": {
			[]string{ours(func(c *claims) { c.Scope = "" })},
			403, "scope_required", "user:ann",
			`Bearer error="insufficient_scope", scope="orders:write"`,
		},
		"expired":         {[]string{ours(func(c *claims) { c.ExpiresAt = jwt.NewNumericDate(now.Add(-time.Minute)) })}, 401, "token_expired", "nobody", "invalid"},
		"never expires":   {[]string{ours(func(c *claims) { c.ExpiresAt = nil })}, 401, "token_invalid", "nobody", "invalid"},
		"early":           {[]string{ours(func(c *claims) { c.NotBefore = jwt.NewNumericDate(now.Add(time.Hour)) })}, 401, "token_invalid", "nobody", "invalid"},
		"other issuer":    {[]string{ours(func(c *claims) { c.Issuer = "https://example.org" })}, 401, "token_invalid", "nobody", "invalid"},
		"other audience":  {[]string{ours(func(c *claims) { c.Audience = jwt.ClaimStrings{"prices"} })}, 401, "token_invalid", "nobody", "invalid"},
		"no subject":      {[]string{ours(func(c *claims) { c.Subject = "" })}, 401, "token_invalid", "nobody", "invalid"},
		"wrong signature": {[]string{sign(jwt.SigningMethodEdDSA, stranger, as)}, 401, "token_invalid", "nobody", "invalid"},
		"not signed":      {[]string{sign(jwt.SigningMethodNone, jwt.UnsafeAllowNoneSignatureType, as)}, 401, "token_invalid", "nobody", "invalid"},
		"signed with HMAC and the public key": {
			[]string{sign(jwt.SigningMethodHS256, publicBytes, as)}, 401, "token_invalid", "nobody", "invalid",
		},
		"cut":            {[]string{good[:len(good)-2]}, 401, "token_invalid", "nobody", "invalid"},
		"a word":         {[]string{"Bearer guess"}, 401, "token_invalid", "nobody", "invalid"},
		"two":            {[]string{good, good}, 401, "token_invalid", "nobody", "invalid"},
		"large":          {[]string{"Bearer " + strings.Repeat("x", maxToken+1)}, 401, "token_invalid", "nobody", "invalid"},
		"none":           {nil, 401, "token_missing", "nobody", `Bearer realm="orders"`},
		"empty":          {[]string{""}, 401, "token_missing", "nobody", `Bearer realm="orders"`},
		"another scheme": {[]string{"Basic YTpi"}, 401, "token_missing", "nobody", `Bearer realm="orders"`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for _, wire := range testkit.Wires {
				var logs testkit.Buffer
				policy, err := admit.Policy{Identity: identify(public), Scopes: []string{"orders:write"}, Timeout: time.Minute}.Chain()
				require.NoError(t, err)
				s := testkit.Serve(t, wire, alice.New(
					admit.RequestID,
					accessLog(slog.New(slog.NewTextHandler(&logs, nil))),
					(&admit.ErrorWriter{Logger: slog.New(slog.DiscardHandler)}).Wrap,
				).Extend(policy).Then(admit.HandlerFunc(func(w http.ResponseWriter, r *http.Request) error {
					return admit.Success(w, r, http.StatusOK, owner(r.Context()))
				})))

				headers := []string{"X-Request-Id", "r1"}
				for _, line := range test.authorization {
					headers = append(headers, "Authorization", line)
				}
				res, body := testkit.Do(t, s, "GET", "/", "", headers...)
				require.Equal(t, test.status, res.StatusCode, "%s: %s", wire, body)
				s.Close() // which waits for the log line
				assert.Contains(t, logs.String(), "key="+test.seen+" request=r1\n")

				var answer struct {
					Result, Data, Code, Message string
					RequestID                   string `json:"request_id"`
				}
				require.NoError(t, json.Unmarshal(body, &answer), "%s", body)
				if test.status == http.StatusOK {
					assert.Equal(t, "success ann", answer.Result+" "+answer.Data)
					continue
				}
				assert.Equal(t, "application/json", res.Header.Get("Content-Type"))
				assert.Equal(t, "error", answer.Result)
				assert.Equal(t, test.code, answer.Code)
				assert.Equal(t, "r1", answer.RequestID)
				assert.NotContains(t, string(body), "signature", "why a token is refused is not for who has forged it")
				challenge := test.challenge
				if challenge == "invalid" {
					challenge = `Bearer realm="orders", error="invalid_token"`
				}
				assert.Equal(t, []string{challenge}, res.Header["Www-Authenticate"])
			}
		})
	}
}

func owner(ctx context.Context) string {
	key, _ := admit.KeyFrom(ctx)
	return key.Owner
}
