// Package sqldb is what the stores in PostgreSQL and SQLite have in common: how to say the
// same to both, and what to do about their errors.
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

// The databases that are supported. The zero Dialect is none.
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

// Query puts the placeholders of the dialect in place of question marks.
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

// Now is an expression for the time by the clock of the database, which all who use it
// share. In a transaction of PostgreSQL it stands still.
func (d Dialect) Now() string {
	if d == SQLite {
		return `CAST((julianday('now') - 2440587.5) * 86400000000.0 AS INTEGER)`
	}
	return `now()`
}

// Moment is a time as a column has it: timestamptz in PostgreSQL, microseconds in
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
		return fmt.Errorf("a time is a %T", v)
	}
	return nil
}

// Moment returns what a parameter for t is.
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

// InTx runs do in a transaction, and once more where the database asks for it. In PostgreSQL
// each statement sees what others have committed before it, whatever is the default there:
// who has locked a row may go on with it. In SQLite a transaction must begin with a write:
// one that began to read would fail where another has written since.
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
		defer func() { _ = tx.Rollback() }() // nothing, once it is committed; also where do panics
		if err := do(tx); err != nil {
			return err
		}
		return tx.Commit()
	})
}

// maxTries is for several who change one row at once: at least one of them succeeds in
// each turn.
const maxTries = 10

// Again does what has failed once more, if the database says that this is what to do. Of
// statements at the isolation level repeatable read or serializable, or transactions in a
// deadlock, one has to begin anew. After a change of the table each connection fails once
// with what its driver has prepared on it.
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
	case "0A000", "26000": // of a statement that the driver has prepared: the table has changed, or it is gone
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

// Explain says what to do about a missing one of the tables, which a command makes, and about
// a pool in which what a driver has prepared is elsewhere.
func (d Dialect) Explain(err error, command string, tables ...string) error {
	state, text := State(err), err.Error()
	if state == "42P01" || d == SQLite && strings.Contains(text, "no such table") { // where there are no states, the text must do
		for _, table := range tables {
			if strings.Contains(text, table) {
				return fmt.Errorf("there is no table %s; make it with: %s: %w", table, command, err)
			}
		}
	}
	if state == "42P05" || state == "26000" {
		return fmt.Errorf("the driver prepares statements, which the pool before PostgreSQL does not know; tell the driver not to, as pgx with default_query_exec_mode=exec: %w", err)
	}
	return err
}
