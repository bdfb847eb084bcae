package main

import (
	"context"
	"crypto/sha256"
	"net/http"
	"strings"
	"testing"

	"github.com/labstack/echo/v4"
	"github.com/labstack/echo/v4/middleware"

	"github.com/admit-go/admit"
)

// BenchmarkAPIKey looks a token of a thousand up by its SHA-256, and hands the identity to
// the handler. "by-hand" is the middleware that one writes; "by-hand-removes" also takes
// the credential out of a copy of the request, as admit does.
func BenchmarkAPIKey(b *testing.B) { compare(b, apiKeys()) }

type identityKey struct{}

// keyring is a thousand keys, and one token of them.
type keyring struct {
	keys  admit.KeyMap
	plain map[[sha256.Size]byte]*admit.Key
	token string
}

func newKeyring() *keyring {
	k := &keyring{keys: admit.KeyMap{}, plain: map[[sha256.Size]byte]*admit.Key{}}
	for range 1000 {
		token, digest, _ := admit.Mint("acme")
		key := &admit.Key{ID: digest.String(), Plan: "pro", Scopes: []string{"orders:write"}}
		k.keys[digest], k.plain[sha256.Sum256([]byte(token))], k.token = key, key, token
	}
	return k
}

// byHand returns what one writes without a library.
func (k *keyring) byHand(removes bool) func(http.Handler) http.Handler {
	refuse := func(w http.ResponseWriter, challenge string) {
		w.Header().Set("WWW-Authenticate", challenge)
		http.Error(w, "unauthorized", http.StatusUnauthorized)
	}
	return func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			token, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
			if !ok {
				refuse(w, "Bearer")
				return
			}
			key := k.plain[sha256.Sum256([]byte(token))]
			if key == nil {
				refuse(w, `Bearer error="invalid_token"`)
				return
			}
			r = r.WithContext(context.WithValue(r.Context(), identityKey{}, key))
			if removes {
				r.Header = r.Header.Clone()
				r.Header.Del("Authorization")
			}
			next.ServeHTTP(w, r)
		})
	}
}

// echoAuth is the KeyAuth of echo, around a handler of its own.
func (k *keyring) echoAuth(next echo.HandlerFunc) http.Handler {
	e := echo.New()
	e.Use(middleware.KeyAuth(func(token string, c echo.Context) (bool, error) {
		key := k.plain[sha256.Sum256([]byte(token))]
		c.Set("key", key)
		return key != nil, nil
	}))
	e.GET("/", next)
	return e
}

func apiKeys() (all []contest) {
	ring := newKeyring()
	// inside is what the handler gets.
	type inside func(id *admit.Key, r *http.Request)
	fromContext := func(seen inside) http.HandlerFunc {
		return func(_ http.ResponseWriter, r *http.Request) {
			id, _ := r.Context().Value(identityKey{}).(*admit.Key)
			seen(id, r)
		}
	}
	libs := []struct {
		name string
		make func(inside) http.Handler
	}{
		{"admit", func(seen inside) http.Handler {
			return admit.APIKey(ring.keys)(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
				id, _ := admit.KeyFrom(r.Context())
				seen(id, r)
			}))
		}},
		{"by-hand", func(seen inside) http.Handler { return ring.byHand(false)(fromContext(seen)) }},
		{"by-hand-removes", func(seen inside) http.Handler { return ring.byHand(true)(fromContext(seen)) }},
		{"echo", func(seen inside) http.Handler {
			return ring.echoAuth(func(c echo.Context) error {
				id, _ := c.Get("key").(*admit.Key)
				seen(id, c.Request())
				return nil
			})
		}},
	}
	for _, c := range []struct {
		name, authorization string
		status              int
	}{
		{"accepted", "Bearer " + ring.token, 200},
		{"wrong", "Bearer " + ring.token + "x", 401},
		{"missing", "", 401},
	} {
		work := contest{name: "case=" + c.name}
		get := requests("GET", "", "Accept", "application/json", "User-Agent", "benchmark")
		if c.authorization != "" {
			get = requests("GET", "", "Accept", "application/json", "User-Agent", "benchmark", "Authorization", c.authorization)
		}
		for _, l := range libs {
			if l.name == "by-hand-removes" && c.status != 200 {
				continue // as by-hand
			}
			status := c.status
			if l.name == "echo" && c.name == "missing" {
				status = 400 // found to be wrong by the check
			}
			h := l.make(func(id *admit.Key, _ *http.Request) {
				if id == nil {
					panic("no identity")
				}
			})
			work.entries = append(work.entries, entry{l.name, func(v *verdict) {
				var id *admit.Key
				var credential string
				h := l.make(func(key *admit.Key, r *http.Request) { id, credential = key, r.Header.Get("Authorization") })
				if c.status == 200 {
					v.ask(h, get(), 200, "a good key")
					if id == nil {
						v.wrong("gives the handler no identity")
					}
					if credential != "" {
						v.wrong("leaves the credential in the request")
					}
					return
				}
				res := v.refusal(h, get(), 401, "a key that is "+c.name)
				if res.Header.Get("WWW-Authenticate") == "" {
					v.wrong("sends no WWW-Authenticate")
				}
			}, bothWays(h, get, status)})
		}
		all = append(all, work)
	}
	return all
}
