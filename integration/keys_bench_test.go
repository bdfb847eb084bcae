package integration

import (
	"crypto/sha256"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/labstack/echo/v4"
	"github.com/labstack/echo/v4/middleware"
	"github.com/stretchr/testify/require"

	"github.com/admit-go/admit"
)

// BenchmarkAPIKey looks a token of a thousand up by its SHA-256, and hands the identity
// to the handler; admit removes the credential too, which echo leaves in place.
func BenchmarkAPIKey(b *testing.B) {
	keys, plain := admit.KeyMap{}, map[[32]byte]*admit.Key{}
	var token string
	for range 1000 {
		t, digest, _ := admit.Mint("acme")
		k := &admit.Key{ID: digest.String()}
		keys[digest], plain[sha256.Sum256([]byte(t))], token = k, k, t
	}

	e := echo.New()
	e.Use(middleware.KeyAuth(func(token string, c echo.Context) (bool, error) {
		k := plain[sha256.Sum256([]byte(token))]
		c.Set("key", k)
		return k != nil, nil
	}))
	e.GET("/", func(c echo.Context) error {
		if k, _ := c.Get("key").(*admit.Key); k == nil {
			b.Error("no identity")
		}
		return nil
	})
	contestants := map[string]http.Handler{
		"admit": admit.APIKey(keys)(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			if k, _ := admit.KeyFrom(r.Context()); k == nil {
				b.Error("no identity")
			}
		})),
		"echo": e,
	}
	for _, name := range []string{"admit", "echo"} {
		h := contestants[name]
		for _, c := range []struct {
			name, authorization string
			status              int
		}{
			{"accepted", "Bearer " + token, 200},
			{"wrong", "Bearer " + token + "x", 401},
			{"missing", "", map[string]int{"admit": 401, "echo": 400}[name]},
		} {
			r := httptest.NewRequest(http.MethodGet, "/", nil)
			if c.authorization != "" {
				r.Header.Set("Authorization", c.authorization)
			}
			w := httptest.NewRecorder()
			h.ServeHTTP(w, r)
			require.Equal(b, c.status, w.Code, name)
			b.Run(c.name+"/"+name, func(b *testing.B) {
				w := silent{header: http.Header{}}
				b.ReportAllocs()
				for b.Loop() {
					h.ServeHTTP(w, r)
				}
			})
			b.Run(c.name+"/parallel/"+name, func(b *testing.B) {
				b.ReportAllocs()
				b.RunParallel(func(pb *testing.PB) {
					w := silent{header: http.Header{}}
					for pb.Next() {
						h.ServeHTTP(w, r)
					}
				})
			})
		}
	}
}
