// Package sqlquota keeps the quota usage of accounts in PostgreSQL or SQLite, through
// database/sql and a driver that the service imports.
//
//	db, err := sql.Open("pgx", url)
//	db.SetMaxOpenConns(10)
//	store, err := sqlquota.New(sqlquota.Config{DB: db, Dialect: sqlquota.PostgreSQL})
//	quotas, err := admit.NewQuotas(admit.QuotasConfig{Plans: plans, Store: store})
//
// Settle is one transaction, which locks the rows of its accounts: processes that claim for
// the same account wait for each other. A process that hangs in the middle, or whose machine is
// gone, holds the locks until the server ends its transaction. Limit that time: in PostgreSQL,
// ALTER ROLE ... SET idle_in_transaction_session_timeout = '5s'. With synchronous_commit off, a
// crash of the server loses what was claimed just before it. A failover loses what had not
// reached the replica.
//
// Account, Quota, Period and Process may be any bytes, of any length. What a column cannot
// store is escaped: see the comment in Schema. A PostgreSQL database must have the encoding
// UTF8. PgBouncer may stand in between, also in transaction mode: see package sqlkeys.
//
// A service needs the rights to SELECT, INSERT, UPDATE and DELETE in the tables of Schema. Each
// Store deletes periods that ended more than 35 days ago, and usage that has not been
// acknowledged for as long, which no billing system would take. It does so about once an hour,
// in the background after a Settle.
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

// Dialect is the database behind a *sql.DB: PostgreSQL or SQLite. Its method String returns
// that name. It is the same type as sqlkeys.Dialect.
type Dialect = sqldb.Dialect

// The supported databases. The zero Dialect is not valid.
const (
	PostgreSQL = sqldb.PostgreSQL
	SQLite     = sqldb.SQLite
)

// Config configures New.
type Config struct {
	// DB is the database that has the tables of Schema. Required. For SQLite, configure the
	// driver to wait for locks (busy_timeout).
	DB *sql.DB
	// Dialect is the kind of database. Required.
	Dialect Dialect
	// Timeout bounds a Settle, including the wait for a connection. Default: one second.
	Timeout time.Duration
	// Logger logs failures to delete old rows. Default: slog.Default().
	Logger *slog.Logger
}

const defaultTimeout = time.Second

// Store is an admit.QuotaStore. It is safe for concurrent use.
type Store struct {
	db      *sql.DB
	dialect Dialect
	timeout time.Duration

	due         atomic.Int64 // when old rows are deleted next, in Unix nanoseconds
	unforgotten outage.Log
}

// New returns a Store. It does not query the database, which may be down when a service
// starts. The error joins every problem of the configuration, each an *admit.ConfigError.
func New(c Config) (*Store, error) {
	var faults []error
	fault := func(field, format string, args ...any) {
		faults = append(faults, &admit.ConfigError{Field: "sqlquota.Config." + field, Reason: fmt.Sprintf(format, args...)})
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
	s := &Store{db: c.DB, dialect: c.Dialect, timeout: c.Timeout, unforgotten: outage.Log{Logger: c.Logger}}
	s.due.Store(time.Now().Add(rand.N(forgetEvery)).UnixNano()) // random, since replicas may start together
	return s, nil
}

// ago returns an expression for the time that long ago.
func (s *Store) ago(d time.Duration) string {
	if s.dialect == SQLite {
		return fmt.Sprintf(`(%s - %d)`, s.dialect.Now(), d.Microseconds())
	}
	return fmt.Sprintf(`(%s - interval '%d seconds')`, s.dialect.Now(), int64(d.Seconds()))
}

// skipLocked returns the clause that leaves out rows that others have locked.
func (s *Store) skipLocked() string {
	if s.dialect == SQLite {
		return ``
	}
	return ` FOR UPDATE SKIP LOCKED`
}

// wrap adds to an error what has failed, and what to do about it.
func (s *Store) wrap(doing string, err error) error {
	if err == nil {
		return nil
	}
	command := "admit quotas schema " + strings.ToLower(s.dialect.String())
	return fmt.Errorf("sqlquota: %s: %w", doing, s.dialect.Explain(err, command, "admit_quota_counts", "admit_quota_shares", "admit_quota_usage"))
}
