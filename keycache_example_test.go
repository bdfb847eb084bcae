package admit_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"time"

	"github.com/admit-go/admit"
)

// database is a KeyStore of the service.
type database struct {
	keys admit.KeyMap
	down bool
}

// LookupKey returns admit.ErrKeyNotFound for an unknown key, and any other error if the
// database fails.
func (db *database) LookupKey(ctx context.Context, d admit.Digest) (*admit.Key, error) {
	fmt.Println("asked")
	if db.down {
		return nil, errors.New("connection refused")
	}
	return db.keys.LookupKey(ctx, d)
}

// A cache in front of a database. It asks for each key once a minute, serves the keys that it
// has for an hour while the database is down, and drops a key at once when it has changed.
func ExampleNewKeyCache() {
	db := &database{keys: admit.KeyMap{admit.DigestOf("s3cret"): {ID: "k1"}}}
	cache, err := admit.NewKeyCache(db, admit.KeyCacheConfig{TTL: time.Minute, StaleFor: time.Hour})
	if err != nil {
		panic(err)
	}
	auth, err := admit.NewAuth(admit.AuthConfig{Store: cache})
	if err != nil {
		panic(err)
	}
	h := auth.Wrap(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	request := func() {
		r := httptest.NewRequest("GET", "/", nil)
		r.Header.Set("X-API-Key", "s3cret")
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		fmt.Println(w.Code)
	}

	request()
	request() // from memory
	db.down = true
	request() // from memory

	db.down = false
	delete(db.keys, admit.DigestOf("s3cret"))
	cache.Forget(admit.DigestOf("s3cret")) // as sqlkeys.Store.Watch does
	request()
	// Output:
	// asked
	// 200
	// 200
	// 200
	// asked
	// 401
}
