// Package sqlkeys keeps API keys in PostgreSQL or SQLite, through database/sql and a driver
// that the service imports.
//
//	db, err := sql.Open("pgx", url)
//	db.SetMaxOpenConns(10) // or a flood of unknown keys takes all connections of PostgreSQL
//	store, err := sqlkeys.New(sqlkeys.Config{DB: db, Dialect: sqlkeys.PostgreSQL})
//	defer store.Close()
//	cache, err := admit.NewKeyCache(store, admit.KeyCacheConfig{TTL: time.Minute, StaleFor: time.Hour})
//	go store.Watch(ctx, cache.Forget)
//	auth, err := admit.NewAuth(admit.AuthConfig{Store: cache})
//
// With Watch, the caches of all services see a committed change within about a second: after
// half a second on average, and after one second plus the time of a query at most. A changed
// digest is seen too, as if the previous one had been revoked. While the database cannot be
// reached, TTL and then StaleFor are the bound. Watch does not see deleted rows, so revoke keys
// instead of deleting them; for a deleted row the TTL is the bound.
//
// A look-up takes a connection, and waits for one for at most Config.Timeout. A KeyCache makes
// at most 64 look-ups at a time; a Store without one makes as many as there are requests. Bound
// them with SetMaxOpenConns, so that all services together stay below max_connections of
// PostgreSQL. PgBouncer may stand in between, also in transaction mode. Before its release 1.21
// it does not support prepared statements, so the driver must not prepare any: for pgx, put
// default_query_exec_mode=exec into the URL.
//
// After a failover, the pool may keep a connection to the demoted server; SetConnMaxLifetime of
// a few minutes bounds that. A read replica knows a new or revoked key as late as it lags.
//
// A service needs the right to SELECT from the table. With the right to UPDATE last_used_at it
// also records when keys were last used.
//
// Schema returns the table for your migrations, and SchemaFrom the migration of a table from an
// earlier release.
package sqlkeys

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/admit-go/admit"
	"github.com/admit-go/admit/internal/outage"
	"github.com/admit-go/admit/internal/sqldb"
)

// Dialect is the database behind a *sql.DB: PostgreSQL or SQLite. Its method String returns
// that name.
type Dialect = sqldb.Dialect

// The supported databases. The zero Dialect is not valid.
const (
	PostgreSQL = sqldb.PostgreSQL
	SQLite     = sqldb.SQLite
)

// Config configures New.
type Config struct {
	// DB is the database that has the table of Schema. Required. Close leaves it open. For
	// SQLite, configure the driver to wait for locks (busy_timeout).
	DB *sql.DB
	// Dialect is the kind of database. Required.
	Dialect Dialect
	// Timeout bounds a look-up, including the wait for a connection. Default: one second.
	Timeout time.Duration
	// Logger logs failures of Watch and of writing the last use. Default: slog.Default().
	Logger *slog.Logger
}

const defaultTimeout = time.Second

// Store is an admit.KeyStore with methods that manage its keys. It is safe for concurrent use.
type Store struct {
	db      *sql.DB
	dialect Dialect
	timeout time.Duration
	logger  *slog.Logger
	uses    uses
	close   func() error

	unwritten outage.Log // of uses
}

// New returns a Store. It does not query the database, which may be down when a service
// starts. The error joins every problem of the configuration, each an *admit.ConfigError.
func New(c Config) (*Store, error) {
	var faults []error
	fault := func(field, format string, args ...any) {
		faults = append(faults, &admit.ConfigError{Field: "sqlkeys.Config." + field, Reason: fmt.Sprintf(format, args...)})
	}
	if c.DB == nil {
		fault("DB", "is nil; give the *sql.DB that sql.Open returns")
	}
	if c.Dialect != PostgreSQL && c.Dialect != SQLite {
		fault("Dialect", "is %v; give PostgreSQL or SQLite", c.Dialect)
	}
	if c.Timeout < 0 {
		fault("Timeout", "is %v; give a positive duration, or 0 for %v", c.Timeout, defaultTimeout)
	}
	if len(faults) > 0 {
		return nil, errors.Join(faults...)
	}
	if c.Timeout == 0 {
		c.Timeout = defaultTimeout
	}
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	s := &Store{db: c.DB, dialect: c.Dialect, timeout: c.Timeout, logger: c.Logger, unwritten: outage.Log{Logger: c.Logger}}
	ctx, stop := context.WithCancel(context.Background())
	noted := make(chan struct{})
	s.uses.full = make(chan struct{}, 1)
	go func() {
		defer close(noted)
		s.noteUses(ctx)
	}()
	s.close = sync.OnceValue(func() error {
		stop()
		return s.closeUses(noted)
	})
	return s, nil
}

// Close writes the last uses of keys that have not been written yet. It takes at most two
// seconds; an error means that some are lost. A service that has no right to write, or whose
// database is read-only, does not record the last use: that is logged once and is not an error.
// Close leaves the database open.
func (s *Store) Close() error { return s.close() }

// LookupKey implements admit.KeyStore with one indexed query. It returns admit.ErrKeyNotFound
// if there is no such row, and an *admit.ConfigError if the row cannot be read: an Auth then
// answers with 503, and an admit.KeyCache does not go on with an earlier version of the key.
// Any other error is an outage. LookupKey does not prepare statements, since a pool between
// the service and PostgreSQL may use another connection each time.
func (s *Store) LookupKey(ctx context.Context, d admit.Digest) (*admit.Key, error) {
	ctx, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()
	var r *Record
	err := sqldb.Again(ctx, func() error {
		var err error
		r, err = s.one(ctx, s.db, `WHERE digest = ?`, d[:])
		return err
	})
	if err != nil {
		return nil, s.wrap("look up a key", err)
	}
	s.uses.add(d, &r.Key, time.Now())
	return &r.Key, nil
}

// orNow returns an expression for a time, which is the current time for the zero one, and its
// parameters.
func (s *Store) orNow(t time.Time) (expr string, args []any) {
	if t.IsZero() {
		return s.dialect.Now(), nil
	}
	return `?`, []any{s.dialect.Moment(t)}
}
