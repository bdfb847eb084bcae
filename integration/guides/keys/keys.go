// Package keys is the code of the guide to API keys.
package keys

import (
	"context"
	"database/sql"
	"net/http"
	"time"

	_ "github.com/jackc/pgx/v5/stdlib" // the driver "pgx"

	"github.com/admit-go/admit"
	"github.com/admit-go/admit/sqlkeys"
)

// Service takes orders from callers with a key of a store.
func Service(store admit.KeyStore) (http.Handler, error) {
	auth, err := admit.NewAuth(admit.AuthConfig{Store: store})
	if err != nil {
		return nil, err
	}
	orders := admit.Policy{Methods: []string{"POST"}, Auth: auth, Scopes: []string{"orders:write"}}
	mux := http.NewServeMux()
	mux.Handle("/orders", orders.Wrap(admit.HandlerFunc(createOrder)))
	return admit.Policy{}.Wrap(admit.Mux(mux)), nil
}

func createOrder(w http.ResponseWriter, r *http.Request) error {
	key, _ := admit.KeyFrom(r.Context())
	return admit.Success(w, r, http.StatusCreated, map[string]string{"customer": key.Owner})
}

// FromFile serves orders with the keys of a file.
func FromFile(path string, serve func(http.Handler) error) error {
	keys, err := admit.OpenKeyFile(path)
	if err != nil {
		return err
	}
	defer keys.Close()
	handler, err := Service(keys)
	if err != nil {
		return err
	}
	return serve(handler)
}

// FromDatabase serves orders with the keys of a PostgreSQL database, until ctx ends.
func FromDatabase(ctx context.Context, url string, serve func(http.Handler) error) error {
	db, err := sql.Open("pgx", url) // the driver of github.com/jackc/pgx/v5/stdlib
	if err != nil {
		return err
	}
	defer db.Close()
	db.SetMaxOpenConns(10)
	db.SetConnMaxLifetime(5 * time.Minute)
	if err := db.PingContext(ctx); err != nil {
		return err
	}
	store, err := sqlkeys.New(sqlkeys.Config{DB: db, Dialect: sqlkeys.PostgreSQL})
	if err != nil {
		return err
	}
	defer store.Close() // writes when keys were last used
	keys, err := admit.NewKeyCache(store, admit.KeyCacheConfig{TTL: time.Minute, StaleFor: time.Hour})
	if err != nil {
		return err
	}
	go store.Watch(ctx, keys.Forget)
	handler, err := Service(keys)
	if err != nil {
		return err
	}
	return serve(handler)
}

// Strict limits how many unknown keys an address may try, and knows which prefixes its own
// tokens have.
func Strict(keys admit.KeyStore) (*admit.Auth, error) {
	return admit.NewAuth(admit.AuthConfig{
		Store:          keys,
		MintedPrefixes: []string{"acme"},    // tokens acme_... have a checksum
		Failures:       admit.PerMinute(30), // unknown keys from one address
	})
}

// Anywhere takes keys from more places than the default.
func Anywhere(keys admit.KeyStore) (*admit.Auth, error) {
	return admit.NewAuth(admit.AuthConfig{
		Store: keys,
		Sources: []admit.KeySource{
			admit.FromBearer(),                 // Authorization: Bearer KEY
			admit.FromHeader("X-API-Key"),      // X-API-Key: KEY
			admit.FromCookie("__Host-session"), // for browsers; needs protection against CSRF
			admit.FromQuery("key"),             // ends up in logs; the last resort
		},
	})
}

// Sell mints a key in the service itself.
func Sell(ctx context.Context, store *sqlkeys.Store, customer string) (token string, err error) {
	token, digest, hint := admit.Mint("acme")
	err = store.Insert(ctx, digest, &admit.Key{
		ID:     "customer-" + customer,
		Owner:  customer,
		Plan:   "free",
		Scopes: []string{"orders:write"},
		Meta:   map[string]string{"hint": hint},
	})
	return token, err
}
