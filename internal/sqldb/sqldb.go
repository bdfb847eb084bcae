// Package sqldb has what the stores in PostgreSQL and SQLite have in common: how to write a
// query for both, and what to do about their errors.
package sqldb

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"time"
)

// Dialect is the database behind a *sql.DB.
type Dialect int

// The supported databases. The zero Dialect is not valid.
const (
	PostgreSQL Dialect = iota + 1
	SQLite
)

// String returns the name of the database.
func (d Dialect) String() string {
	switch d {
	case PostgreSQL:
		return "PostgreSQL"
	case SQLite:
		return "SQLite"
	default:
		return "Dialect(" + strconv.Itoa(int(d)) + ")"
	}
}

// Query replaces question marks with the placeholders of the dialect.
func (d Dialect) Query(q string) string {
	if d != PostgreSQL {
		return q
	}
	var b strings.Builder
	n := 0
	for {
		before, after, more := strings.Cut(q, "?")
		b.WriteString(before)
		if !more {
			return b.String()
		}
		n++
		b.WriteString("$" + strconv.Itoa(n))
		q = after
	}
}

// Now returns an expression for the current time by the clock of the database, which all its
// clients share. In PostgreSQL it is constant during a transaction.
func (d Dialect) Now() string {
	if d == SQLite {
		return `CAST((julianday('now') - 2440587.5) * 86400000000.0 AS INTEGER)`
	}
	return `now()`
}

// Moment is the time in a column: a timestamptz in PostgreSQL, microseconds since 1970 in
// SQLite. NULL is the zero time.
type Moment struct{ time.Time }

// Scan implements sql.Scanner.
func (m *Moment) Scan(v any) error {
	switch v := v.(type) {
	case nil:
		m.Time = time.Time{}
	case time.Time:
		m.Time = v.UTC()
	case int64:
		m.Time = time.UnixMicro(v).UTC()
	default:
		return fmt.Errorf("the time is a %T", v)
	}
	return nil
}

// Moment returns t as a parameter of a query.
func (d Dialect) Moment(t time.Time) any {
	switch {
	case t.IsZero():
		return nil
	case d == SQLite:
		return t.UnixMicro()
	default:
		return t
	}
}

// InTx runs do in a transaction, and repeats it if the database asks for that. In PostgreSQL
// each statement sees what others have committed before it (READ COMMITTED, whatever the
// default is), so a transaction that has waited for a row lock can go on. In SQLite do must
// begin with a write: a transaction that begins with a read fails if another has written since.
func (d Dialect) InTx(ctx context.Context, db *sql.DB, do func(*sql.Tx) error) error {
	var o sql.TxOptions
	if d == PostgreSQL {
		o.Isolation = sql.LevelReadCommitted
	}
	return Again(ctx, func() error {
		tx, err := db.BeginTx(ctx, &o)
		if err != nil {
			return err
		}
		defer func() { _ = tx.Rollback() }() // does nothing after Commit; also if do panics
		if err := do(tx); err != nil {
			return err
		}
		return tx.Commit()
	})
}

// maxTries is enough for several clients that change one row at once: in each round at least
// one of them succeeds.
const maxTries = 10

// Again calls do, and repeats it after an error with which the database asks for that: a
// conflict at the isolation level REPEATABLE READ or SERIALIZABLE, a deadlock, or a prepared
// statement that no longer fits because the table has changed, which happens once on each
// connection.
func Again(ctx context.Context, do func() error) error {
	for try := 1; ; try++ {
		err := do()
		if err == nil || try == maxTries || !transient(err) {
			return err
		}
		pause := time.NewTimer(rand.N(time.Duration(try) * 5 * time.Millisecond))
		select {
		case <-ctx.Done():
			pause.Stop()
			return err
		case <-pause.C:
		}
	}
}

func transient(err error) bool {
	switch State(err) {
	case "40001", "40P01": // serialization_failure, deadlock_detected
		return true
	case "0A000", "26000": // the table of a prepared statement has changed, or the statement is gone
		return true
	default:
		return false
	}
}

// State returns the SQLSTATE of an error of a PostgreSQL driver, or "".
func State(err error) string {
	var e interface{ SQLState() string }
	if errors.As(err, &e) {
		return e.SQLState()
	}
	return ""
}

// Explain adds what to do about a missing table, whose SQL a command prints, and about a pool
// that does not know the prepared statements of a driver.
func (d Dialect) Explain(err error, command string, tables ...string) error {
	state, text := State(err), err.Error()
	if state == "42P01" || d == SQLite && strings.Contains(text, "no such table") { // SQLite has no states
		for _, table := range tables {
			if strings.Contains(text, table) {
				return fmt.Errorf("there is no table %s; create it with the output of `%s`: %w", table, command, err)
			}
		}
	}
	if state == "42P05" || state == "26000" {
		return fmt.Errorf("the driver prepares statements, but the connection pool in front of PostgreSQL does not support them; turn them off, with pgx by default_query_exec_mode=exec: %w", err)
	}
	return err
}
