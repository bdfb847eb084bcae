// Package sqlkeys keeps the keys of admit in PostgreSQL or SQLite, through database/sql
// and a driver that the caller brings.
//
//	db, err := sql.Open("pgx", url)
//	db.SetMaxOpenConns(10) // or one flood of unknown keys takes all that PostgreSQL has
//	store, err := sqlkeys.New(sqlkeys.Config{DB: db, Dialect: sqlkeys.PostgreSQL})
//	defer store.Close()
//	cache, err := admit.NewKeyCache(store, admit.KeyCacheConfig{TTL: time.Minute, StaleFor: time.Hour})
//	go store.Watch(ctx, cache.Forget)
//	auth, err := admit.NewAuth(admit.AuthConfig{Store: cache})
//
// With Watch, a change that is committed is seen by the caches of all services within
// about a second: half a second on average, and one second plus the time of a query at
// most; so is a changed digest, as if the one before were revoked. While the database
// cannot be reached, the TTL is the bound, then StaleFor. A row that is deleted is not seen
// by Watch, so revoke instead; the TTL bounds that too.
//
// A look-up takes a connection, and waits for one as long as Config.Timeout. A KeyCache makes
// at most 64 at a time, and a Store without one as many as there are requests: bound them
// with SetMaxOpenConns, so that all services together stay below max_connections of
// PostgreSQL. PgBouncer may stand between, also in transaction mode. Before its release 1.21
// it knows no prepared statements, so the driver must make none: for pgx that is
// default_query_exec_mode=exec in the URL.
//
// After a failover, a connection to the server that was demoted stays open for as long as the
// pool keeps it: SetConnMaxLifetime, of some minutes, bounds that. A replica that lags knows a
// key, and a revocation, as late as it lags.
//
// A service needs the right to read the table; with UPDATE of last_used_at it keeps the last
// use of keys as well.
//
// Schema returns the table for your migrations, and SchemaFrom what brings the table of an
// earlier release up.
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

// Dialect is the database behind a *sql.DB: PostgreSQL or SQLite. Its String returns that name.
type Dialect = sqldb.Dialect

// The databases that are supported. The zero Dialect is none.
const (
	PostgreSQL = sqldb.PostgreSQL
	SQLite     = sqldb.SQLite
)

// Config says where the keys are.
type Config struct {
	// DB is the database, which has the table of Schema. Required. It stays open after
	// Close. For SQLite, its driver should be told to wait for locks (busy_timeout).
	DB *sql.DB
	// Dialect is what the database speaks. Required.
	Dialect Dialect
	// Timeout bounds a look-up, the wait for a connection included. 0: one second.
	Timeout time.Duration
	// Logger is told when Watch and the notes of last use fail. Nil: slog.Default().
	Logger *slog.Logger
}

const defaultTimeout = time.Second

// Store is an admit.KeyStore, and what manages its keys. It is safe for concurrent use.
type Store struct {
	db      *sql.DB
	dialect Dialect
	timeout time.Duration
	logger  *slog.Logger
	uses    uses
	close   func() error

	unwritten outage.Log // of uses
}

// New returns a Store. It does not ask the database, which may be down when a service
// starts. The error joins every fault of the configuration, each an *admit.ConfigError.
func New(c Config) (*Store, error) {
	var faults []error
	fault := func(field, format string, args ...any) {
		faults = append(faults, &admit.ConfigError{Field: "sqlkeys.Config." + field, Reason: fmt.Sprintf(format, args...)})
	}
	if c.DB == nil {
		fault("DB", "is nil; give the database, as sql.Open returns it")
	}
	if c.Dialect != PostgreSQL && c.Dialect != SQLite {
		fault("Dialect", "is %v; it is PostgreSQL or SQLite", c.Dialect)
	}
	if c.Timeout < 0 {
		fault("Timeout", "is %v; it is a time, or 0 for %v", c.Timeout, defaultTimeout)
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

// Close writes the last uses that are not written yet, for two seconds at most: the error
// says that some are lost. A service that may not write, or whose database is read-only,
// keeps no last use: that is no error, but one line in the log. Close leaves the database
// open.
func (s *Store) Close() error { return s.close() }

// LookupKey implements admit.KeyStore with one indexed query. It returns
// admit.ErrKeyNotFound where there is no such row, and an *admit.ConfigError where there is
// one that cannot be read: its key is refused with 503, and an admit.KeyCache does not go on
// with what it was before. Any other error is an outage. It prepares no statement: a pool
// between the service and PostgreSQL may give it another connection each time.
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

// orNow returns an expression for a time, which is now for the zero one, and its parameters.
func (s *Store) orNow(t time.Time) (expr string, args []any) {
	if t.IsZero() {
		return s.dialect.Now(), nil
	}
	return `?`, []any{s.dialect.Moment(t)}
}
