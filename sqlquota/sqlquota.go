// Package sqlquota keeps what accounts have used of their quotas in PostgreSQL or SQLite,
// through database/sql and a driver that the caller brings.
//
//	db, err := sql.Open("pgx", url)
//	db.SetMaxOpenConns(10)
//	store, err := sqlquota.New(sqlquota.Config{DB: db, Dialect: sqlquota.PostgreSQL})
//	quotas, err := admit.NewQuotas(admit.QuotasConfig{Plans: plans, Store: store})
//
// A Settle is one transaction, which locks the rows of its accounts: processes that claim for
// one account wait for each other. One that hangs in the middle, or whose machine is gone, holds
// them until the server ends its transaction, so let it: in PostgreSQL, ALTER ROLE ... SET
// idle_in_transaction_session_timeout = '5s'. With synchronous_commit off, a crash of the server
// forgets what was claimed just before it; with a replica that takes over, what had not reached
// it.
//
// Account, Quota, Period and Process may be any bytes, of any length. What a column cannot hold
// is escaped there: see the comment in Schema. A database of PostgreSQL must have the encoding
// UTF8. PgBouncer may stand between, also in transaction mode: see package sqlkeys.
//
// A service needs the right to SELECT, INSERT, UPDATE and DELETE in the tables of Schema.
// Periods that ended more than 35 days ago are forgotten, and usage that nobody has
// acknowledged after as long: no billing system takes what is older. Each Store sees to that
// about once an hour, after a Settle and not in its way.
package sqlquota

import (
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"strings"
	"sync/atomic"
	"time"

	"github.com/admit-go/admit"
	"github.com/admit-go/admit/internal/outage"
	"github.com/admit-go/admit/internal/sqldb"
)

// Dialect is the database behind a *sql.DB: PostgreSQL or SQLite. Its String returns that name.
// It is the type sqlkeys.Dialect.
type Dialect = sqldb.Dialect

// The databases that are supported. The zero Dialect is none.
const (
	PostgreSQL = sqldb.PostgreSQL
	SQLite     = sqldb.SQLite
)

// Config says where the quotas are.
type Config struct {
	// DB is the database, which has the tables of Schema. Required. For SQLite, its driver
	// should be told to wait for locks (busy_timeout).
	DB *sql.DB
	// Dialect is what the database speaks. Required.
	Dialect Dialect
	// Timeout bounds a Settle, the wait for a connection included. 0: one second.
	Timeout time.Duration
	// Logger is told when what is old cannot be forgotten. Nil: slog.Default().
	Logger *slog.Logger
}

const defaultTimeout = time.Second

// Store is an admit.QuotaStore. It is safe for concurrent use.
type Store struct {
	db      *sql.DB
	dialect Dialect
	timeout time.Duration

	due         atomic.Int64 // when what is old is forgotten next, in Unix nanoseconds
	unforgotten outage.Log
}

// New returns a Store. It does not ask the database, which may be down when a service
// starts. The error joins every fault of the configuration, each an *admit.ConfigError.
func New(c Config) (*Store, error) {
	var faults []error
	fault := func(field, format string, args ...any) {
		faults = append(faults, &admit.ConfigError{Field: "sqlquota.Config." + field, Reason: fmt.Sprintf(format, args...)})
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
	s := &Store{db: c.DB, dialect: c.Dialect, timeout: c.Timeout, unforgotten: outage.Log{Logger: c.Logger}}
	s.due.Store(time.Now().Add(rand.N(forgetEvery)).UnixNano()) // replicas that start together do not all come at once
	return s, nil
}

// ago is an expression for the time so long ago.
func (s *Store) ago(d time.Duration) string {
	if s.dialect == SQLite {
		return fmt.Sprintf(`(%s - %d)`, s.dialect.Now(), d.Microseconds())
	}
	return fmt.Sprintf(`(%s - interval '%d seconds')`, s.dialect.Now(), int64(d.Seconds()))
}

// skipLocked is for rows that others work at, which are left to them.
func (s *Store) skipLocked() string {
	if s.dialect == SQLite {
		return ``
	}
	return ` FOR UPDATE SKIP LOCKED`
}

// wrap says what has failed, and what to do about it.
func (s *Store) wrap(doing string, err error) error {
	if err == nil {
		return nil
	}
	command := "admit quotas schema " + strings.ToLower(s.dialect.String())
	return fmt.Errorf("sqlquota: %s: %w", doing, s.dialect.Explain(err, command, "admit_quota_counts", "admit_quota_shares", "admit_quota_usage"))
}
