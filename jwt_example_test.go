package admit_test

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"time"

	"github.com/admit-go/admit"
)

var (
	errTokenMissing = &admit.Error{
		Status: http.StatusUnauthorized, Code: "token_missing", Message: "A token is required: Authorization: Bearer TOKEN.",
		Header: http.Header{"WWW-Authenticate": {`Bearer realm="orders"`}},
	}
	errTokenInvalid = &admit.Error{
		Status: http.StatusUnauthorized, Code: "token_invalid", Message: "The token is not valid.",
		Header: http.Header{"WWW-Authenticate": {`Bearer realm="orders", error="invalid_token"`}},
	}
)

type claims struct {
	Subject string `json:"sub"`
	Scope   string `json:"scope"` // separated by spaces, RFC 8693
	Expires int64  `json:"exp"`
}

// identify is a middleware that makes the Key of a request from its token. The problem of an
// invalid token is not sent to the client.
func identify(verify func(token string) (claims, error)) admit.Middleware {
	return func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			scheme, token, _ := strings.Cut(r.Header.Get("Authorization"), " ")
			if !strings.EqualFold(scheme, "Bearer") || token == "" {
				admit.WriteError(w, r, errTokenMissing)
				return
			}
			c, err := verify(token)
			if err == nil && c.Subject == "" {
				err = errors.New("the token has no subject")
			}
			if err != nil {
				admit.WriteError(w, r, errTokenInvalid.WithCause(err))
				return
			}
			key := &admit.Key{
				ID:     "user:" + c.Subject, // limits count by it, and no API key has this prefix
				Owner:  "user:" + c.Subject, // quotas count by it
				Scopes: strings.Fields(c.Scope),
			}
			next.ServeHTTP(w, r.WithContext(admit.WithKey(r.Context(), key)))
		})
	}
}

// verifyHS256 verifies a JWT (RFC 7519) that is signed with HMAC SHA-256. It accepts no other
// algorithm. A library does more, such as key rotation, audience and issuer.
func verifyHS256(secret []byte) func(token string) (claims, error) {
	return func(token string) (c claims, err error) {
		parts := strings.Split(token, ".")
		if len(parts) != 3 {
			return c, errors.New("it does not have three parts")
		}
		var header struct {
			Algorithm string `json:"alg"`
		}
		var raw [3][]byte
		for i, part := range parts {
			if raw[i], err = base64.RawURLEncoding.DecodeString(part); err != nil {
				return c, err
			}
		}
		if err := json.Unmarshal(raw[0], &header); err != nil {
			return c, err
		}
		if header.Algorithm != "HS256" {
			return c, fmt.Errorf("its algorithm is %q", header.Algorithm)
		}
		mac := hmac.New(sha256.New, secret)
		mac.Write([]byte(parts[0] + "." + parts[1]))
		if !hmac.Equal(mac.Sum(nil), raw[2]) {
			return c, errors.New("its signature is wrong")
		}
		if err := json.Unmarshal(raw[1], &c); err != nil {
			return c, err
		}
		if !time.Now().Before(time.Unix(c.Expires, 0)) {
			return c, errors.New("it has expired")
		}
		return c, nil
	}
}

// sign makes a token, as its issuer does.
func sign(secret []byte, c claims) string {
	payload, err := json.Marshal(c)
	if err != nil {
		panic(err)
	}
	token := base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"HS256"}`)) + "." + base64.RawURLEncoding.EncodeToString(payload)
	mac := hmac.New(sha256.New, secret)
	mac.Write([]byte(token))
	return token + "." + base64.RawURLEncoding.EncodeToString(mac.Sum(nil))
}

// A JWT takes the place of an API key: scopes, plans and limits work with it. In a Policy the
// middleware stands in the place of Auth.
func ExampleWithKey_jwt() {
	secret := []byte("at least 32 bytes, from the vault")
	perUser, err := admit.NewLimiter(admit.LimiterConfig{Limits: []admit.Limit{admit.PerMinute(100)}})
	if err != nil {
		panic(err)
	}
	h := admit.Policy{
		Identity: identify(verifyHS256(secret)),
		Scopes:   []string{"orders:read"},
		Limiter:  perUser,
	}.Wrap(admit.HandlerFunc(func(w http.ResponseWriter, r *http.Request) error {
		key, _ := admit.KeyFrom(r.Context())
		return admit.Success(w, r, http.StatusOK, "Hello, "+key.Owner)
	}))

	soon := time.Now().Add(time.Hour).Unix()
	for _, token := range []string{
		sign(secret, claims{"ann", "orders:read orders:write", soon}),
		sign(secret, claims{"ann", "profile", soon}),
		sign(secret, claims{"ann", "orders:read", time.Now().Unix()}),
		sign([]byte("guessed"), claims{"ann", "orders:read", soon}),
	} {
		r := httptest.NewRequest("GET", "/orders", nil)
		r.Header.Set("X-Request-Id", "r1")
		r.Header.Set("Authorization", "Bearer "+token)
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		fmt.Println(w.Code, strings.TrimSpace(w.Body.String()))
	}
	// Output:
	// 200 {"result":"success","data":"Hello, user:ann"}
	// 403 {"result":"error","message":"The caller does not have the scope that this request needs: orders:read.","code":"scope_required","request_id":"r1"}
	// 401 {"result":"error","message":"The token is not valid.","code":"token_invalid","request_id":"r1"}
	// 401 {"result":"error","message":"The token is not valid.","code":"token_invalid","request_id":"r1"}
}
