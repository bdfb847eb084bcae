package sqlkeys_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log"
	"maps"
	"net/http"
	"os"
	"time"

	"github.com/admit-go/admit"
	"github.com/admit-go/admit/sqlkeys"
)

// A service whose keys are in PostgreSQL. Its main package imports a driver, such as
// github.com/jackc/pgx/v5/stdlib; for SQLite that is modernc.org/sqlite, "sqlite" and
// sqlkeys.SQLite.
func Example() {
	ctx, stop := context.WithCancel(context.Background()) // or signal.NotifyContext
	defer stop()
	db, err := sql.Open("pgx", os.Getenv("DATABASE_URL"))
	if err != nil {
		log.Fatal(err)
	}
	defer db.Close()
	db.SetMaxOpenConns(10) // all services together must stay below max_connections
	store, err := sqlkeys.New(sqlkeys.Config{DB: db, Dialect: sqlkeys.PostgreSQL})
	if err != nil {
		log.Fatal(err)
	}
	defer store.Close() // writes the last uses

	cache, err := admit.NewKeyCache(store, admit.KeyCacheConfig{TTL: time.Minute, StaleFor: time.Hour})
	if err != nil {
		log.Fatal(err)
	}
	go store.Watch(ctx, cache.Forget) // a revoked key is rejected within about a second
	auth, err := admit.NewAuth(admit.AuthConfig{Store: cache, Failures: admit.PerMinute(60)})
	if err != nil {
		log.Fatal(err)
	}
	chain, err := admit.Policy{Auth: auth}.Chain()
	if err != nil {
		log.Fatal(err)
	}
	server := &http.Server{Addr: ":8080", Handler: chain.Then(http.NotFoundHandler()), ReadHeaderTimeout: 5 * time.Second}
	if err := server.ListenAndServe(); !errors.Is(err, http.ErrServerClosed) {
		log.Print(err)
	}
}

// The token is shown to its owner once; the table has only its digest.
func ExampleStore_Insert() {
	create := func(ctx context.Context, store *sqlkeys.Store, id, owner string) (token string, err error) {
		token, digest, hint := admit.Mint("acme")
		err = store.Insert(ctx, digest, &admit.Key{
			ID:        id,
			Owner:     owner,
			Plan:      "free",
			Scopes:    []string{"orders:read"},
			Meta:      map[string]string{"hint": hint}, // to tell keys apart in a list
			ExpiresAt: time.Now().AddDate(1, 0, 0),
		})
		if errors.Is(err, sqlkeys.ErrExists) {
			return "", fmt.Errorf("the id %s is taken: %w", id, err)
		}
		return token, err
	}
	_ = create
}

// Both keys are valid for a day, so that the owner can switch to the new one.
func ExampleStore_Rotate() {
	rotate := func(ctx context.Context, store *sqlkeys.Store, id, nextID string) (token string, err error) {
		old, err := store.Get(ctx, id)
		if err != nil {
			return "", err // admit.ErrKeyNotFound, or an outage
		}
		token, digest, hint := admit.Mint("acme")
		next := old.Key // with its plan and scopes
		next.ID = nextID
		next.ExpiresAt = time.Now().AddDate(1, 0, 0)
		next.Meta = maps.Clone(old.Meta)
		if next.Meta != nil {
			next.Meta["hint"] = hint
		}
		if err := store.Rotate(ctx, id, time.Now().Add(24*time.Hour), digest, &next); err != nil {
			return "", err // sqlkeys.ErrNotValid if the key has expired or has been revoked
		}
		return token, nil
	}
	_ = rotate
}

// Keys that nobody has used for three months.
func ExampleStore_List() {
	unused := func(ctx context.Context, store *sqlkeys.Store) (ids []string, err error) {
		before := time.Now().AddDate(0, -3, 0)
		for record, err := range store.List(ctx, "") {
			if err != nil {
				return nil, err
			}
			if record.CreatedAt.Before(before) && record.LastUsedAt.Before(before) {
				ids = append(ids, record.ID)
			}
		}
		return ids, nil
	}
	_ = unused
}

// A migration creates the table. The service itself needs no right to do so.
func ExampleSchema() {
	migrate := func(ctx context.Context, db *sql.DB) error {
		_, err := db.ExecContext(ctx, sqlkeys.Schema(sqlkeys.SQLite))
		return err
	}
	_ = migrate
}
