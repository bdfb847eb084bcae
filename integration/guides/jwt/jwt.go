// Package jwt has the code of docs/jwt.md.
package jwt

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"time"

	"github.com/MicahParks/keyfunc/v3"
	"github.com/golang-jwt/jwt/v5"

	"github.com/admit-go/admit"
	"github.com/admit-go/admit/contract"
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
	Scope string `json:"scope"` // separated by spaces
	Plan  string `json:"plan"`
}

// tokens verifies JWTs of one issuer, for one audience.
type tokens struct {
	parser *jwt.Parser
	keys   jwt.Keyfunc
}

func newTokens(issuer, audience string, keys jwt.Keyfunc, methods ...string) *tokens {
	return &tokens{
		parser: jwt.NewParser(
			jwt.WithValidMethods(methods), // whatever the token says
			jwt.WithIssuer(issuer),
			jwt.WithAudience(audience),
			jwt.WithExpirationRequired(),
			jwt.WithLeeway(30*time.Second), // for clocks that differ
		),
		keys: keys,
	}
}

// Wrap lets in requests with a token, whose claims become the Key of the caller.
func (t *tokens) Wrap(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		key, err := t.verify(r)
		if err != nil {
			admit.WriteError(w, r, err)
			return
		}
		next.ServeHTTP(w, r.WithContext(admit.WithKey(r.Context(), key)))
	})
}

func (t *tokens) verify(r *http.Request) (*admit.Key, error) {
	lines := r.Header["Authorization"]
	if len(lines) == 0 {
		return nil, errTokenMissing
	}
	scheme, token, _ := strings.Cut(lines[0], " ")
	switch {
	case !strings.EqualFold(scheme, "Bearer"):
		return nil, errTokenMissing
	case len(lines) > 1 || len(token) > 8<<10:
		return nil, errTokenInvalid
	}
	var c claims
	_, err := t.parser.ParseWithClaims(token, &c, t.keys)
	switch {
	case errors.Is(err, jwt.ErrTokenExpired):
		return nil, errTokenExpired.WithCause(err)
	case err != nil:
		return nil, errTokenInvalid.WithCause(err)
	case c.Subject == "":
		return nil, errTokenInvalid.WithCause(errors.New("the token has no subject"))
	}
	return &admit.Key{
		ID:     "user:" + c.Subject, // no API key has an ID or an Owner that begins so
		Owner:  "user:" + c.Subject,
		Plan:   c.Plan,
		Scopes: strings.Fields(c.Scope),
	}, nil
}

// newRemoteTokens takes the keys of the issuer from its JWKS, and follows it until ctx ends.
func newRemoteTokens(ctx context.Context, issuer, audience, jwksURL string) (*tokens, error) {
	keys, err := keyfunc.NewDefaultCtx(ctx, []string{jwksURL})
	if err != nil {
		return nil, err
	}
	return newTokens(issuer, audience, keys.Keyfunc, "EdDSA", "ES256", "RS256"), nil
}

// newSecretTokens takes tokens that the issuer signs with a secret that it shares with the service.
func newSecretTokens(issuer, audience string, secret []byte) *tokens {
	return newTokens(issuer, audience, func(*jwt.Token) (any, error) { return secret, nil }, "HS256")
}

// newOrders takes tokens alone.
func newOrders(t *tokens, plans *admit.Plans, limiter *admit.Limiter) http.Handler {
	return admit.Policy{
		Identity: t.Wrap,
		Scopes:   []string{"orders:read"},
		Plans:    plans,
		Limiter:  limiter,
	}.Wrap(admit.HandlerFunc(orders))
}

// newPublished is newOrders with a contract.
func newPublished(outer admit.Policy, t *tokens, plans *admit.Plans, limiter *admit.Limiter) (http.Handler, *contract.API, error) {
	info := contract.Info{
		Title: "Orders", Version: "1.0",
		SecuritySchemes: map[string]contract.SecurityScheme{"jwt": {Type: "http", Scheme: "bearer", BearerFormat: "JWT"}},
	}
	api, err := contract.New(info, outer)
	if err != nil {
		return nil, nil, err
	}
	route := admit.Policy{Methods: []string{"GET"}, Identity: t.Wrap, Scopes: []string{"orders:read"}, Plans: plans, Limiter: limiter}
	mux := http.NewServeMux()
	api.Handle(mux, "/orders", route, admit.HandlerFunc(orders), errTokenMissing, errTokenInvalid, errTokenExpired)
	return api.Wrap(outer.Wrap(admit.Mux(mux))), api, nil
}

// keyOrToken takes an API key from a request that has one, and else a token. The Auth has
// FromHeader("X-API-Key") as its only source.
func keyOrToken(auth *admit.Auth, t *tokens) admit.Middleware {
	return func(next http.Handler) http.Handler {
		byKey, byToken := auth.Wrap(next), t.Wrap(next)
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.Header.Get("X-API-Key") != "" {
				byKey.ServeHTTP(w, r)
				return
			}
			byToken.ServeHTTP(w, r)
		})
	}
}

// newBoth takes API keys and tokens on one route.
func newBoth(keys admit.KeyStore, t *tokens, plans *admit.Plans, limiter *admit.Limiter) (http.Handler, error) {
	auth, err := admit.NewAuth(admit.AuthConfig{
		Store:   keys,
		Sources: []admit.KeySource{admit.FromHeader("X-API-Key")},
	})
	if err != nil {
		return nil, err
	}
	return admit.Policy{
		Identity: keyOrToken(auth, t),
		Scopes:   []string{"orders:read"},
		Plans:    plans,
		Limiter:  limiter,
	}.Wrap(admit.HandlerFunc(orders)), nil
}

func orders(w http.ResponseWriter, r *http.Request) error {
	key, _ := admit.KeyFrom(r.Context())
	return admit.Success(w, r, http.StatusOK, "Hello, "+key.Owner)
}
