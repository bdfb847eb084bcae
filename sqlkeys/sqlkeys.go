// Package sqlkeys keeps the keys of admit in PostgreSQL or SQLite, through database/sql
// and a driver that the caller brings.
//
//	db, err := sql.Open("pgx", url)
//	store, err := sqlkeys.New(sqlkeys.Config{DB: db, Dialect: sqlkeys.PostgreSQL})
//	cache, err := admit.NewKeyCache(store, admit.KeyCacheConfig{TTL: time.Minute, StaleFor: time.Hour})
//	go store.Watch(ctx, cache.Forget)
//	auth, err := admit.NewAuth(admit.AuthConfig{Store: cache})
//
// With Watch, a change that is committed is seen by the caches of all services within
// about a second: half a second on average, and one second plus the time of a query at
// most. While the database cannot be reached, the TTL is the bound, then StaleFor.
// A row that is deleted is not seen by Watch, so revoke instead; the TTL bounds that too.
//
// Schema returns the table for your migrations.
package sqlkeys

import (
	"context"
	"database/sql"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/admit-go/admit"
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

//go:embed postgresql.sql
var postgresqlSchema string

//go:embed sqlite.sql
var sqliteSchema string

// Schema returns the statements that make the table admit_keys with its indexes and its
// trigger: those of postgresql.sql or sqlite.sql in this package. A migration tool that
// splits files at semicolons must take the function in postgresql.sql as one statement.
// It panics on an unknown Dialect.
func Schema(d Dialect) string {
	switch d {
	case PostgreSQL:
		return postgresqlSchema
	case SQLite:
		return sqliteSchema
	default:
		panic("sqlkeys: Schema: there is no " + d.String())
	}
}

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
	lookup  atomic.Pointer[sql.Stmt]
	uses    uses
	close   func() error
}

// New reports every fault of the configuration at once. It does not ask the database,
// which may be down when a service starts.
func New(c Config) (*Store, error) {
	var faults []error
	if c.DB == nil {
		faults = append(faults, errors.New("sqlkeys: Config.DB is nil"))
	}
	if c.Dialect != PostgreSQL && c.Dialect != SQLite {
		faults = append(faults, fmt.Errorf("sqlkeys: Config.Dialect is %v; it is PostgreSQL or SQLite", c.Dialect))
	}
	if c.Timeout < 0 {
		faults = append(faults, fmt.Errorf("sqlkeys: Config.Timeout is negative: %v", c.Timeout))
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
	s := &Store{db: c.DB, dialect: c.Dialect, timeout: c.Timeout, logger: c.Logger}
	ctx, stop := context.WithCancel(context.Background())
	noted := make(chan struct{})
	s.uses.full = make(chan struct{}, 1)
	go func() {
		defer close(noted)
		s.noteUses(ctx)
	}()
	s.close = sync.OnceValue(func() error {
		stop()
		<-noted
		err := s.flushUses()
		if stmt := s.lookup.Swap(nil); stmt != nil {
			err = errors.Join(err, stmt.Close())
		}
		return err
	})
	return s, nil
}

// Close writes the last uses that are not written yet. It leaves the database open.
func (s *Store) Close() error { return s.close() }

const columns = `id, owner, plan, scopes, meta, not_before, expires_at, revoked_at`

// LookupKey implements admit.KeyStore with one prepared, indexed query. Whatever goes
// wrong is an outage, unless the database says that there is no such row.
func (s *Store) LookupKey(ctx context.Context, d admit.Digest) (*admit.Key, error) {
	ctx, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()
	key, err := s.find(ctx, d)
	switch {
	case err == nil:
		s.uses.add(d, key, time.Now())
		return key, nil
	case errors.Is(err, sql.ErrNoRows):
		return nil, admit.ErrKeyNotFound
	default:
		return nil, fmt.Errorf("sqlkeys: look up a key: %w", err)
	}
}

func (s *Store) find(ctx context.Context, d admit.Digest) (*admit.Key, error) {
	stmt, err := s.lookupStmt(ctx)
	if err != nil {
		return nil, err
	}
	var r row
	if err := stmt.QueryRowContext(ctx, d[:]).Scan(r.columns()...); err != nil {
		return nil, err
	}
	return r.key()
}

// lookupStmt prepares the query once the database can be reached. Those who come first
// may all do so, as none should wait longer than its own deadline.
func (s *Store) lookupStmt(ctx context.Context) (*sql.Stmt, error) {
	if stmt := s.lookup.Load(); stmt != nil {
		return stmt, nil
	}
	stmt, err := s.db.PrepareContext(ctx, s.query(`SELECT `+columns+` FROM admit_keys WHERE digest = ?`))
	if err != nil {
		return nil, err
	}
	if !s.lookup.CompareAndSwap(nil, stmt) {
		if first := s.lookup.Load(); first != nil {
			return first, stmt.Close()
		}
	}
	return stmt, nil
}

// query puts the placeholders of the dialect in place of question marks.
func (s *Store) query(q string) string {
	if s.dialect != PostgreSQL {
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

// row is a key as the table has it.
type row struct {
	id, owner, plan                 string
	scopes, meta                    []byte
	notBefore, expiresAt, revokedAt moment
}

func (r *row) columns() []any {
	return []any{&r.id, &r.owner, &r.plan, &r.scopes, &r.meta, &r.notBefore, &r.expiresAt, &r.revokedAt}
}

func (r *row) key() (*admit.Key, error) {
	k := &admit.Key{
		ID: r.id, Owner: r.owner, Plan: r.plan,
		NotBefore: r.notBefore.Time, ExpiresAt: r.expiresAt.Time, RevokedAt: r.revokedAt.Time,
	}
	if err := errors.Join(unmarshal(r.scopes, "[]", &k.Scopes), unmarshal(r.meta, "{}", &k.Meta)); err != nil {
		return nil, fmt.Errorf("the key %q: %w", r.id, err)
	}
	return k, nil
}

// unmarshal leaves into alone where there is nothing to read.
func unmarshal(text []byte, nothing string, into any) error {
	if string(text) == nothing {
		return nil
	}
	return json.Unmarshal(text, into)
}

func marshal[T []string | map[string]string](v T, nothing string) string {
	if len(v) == 0 {
		return nothing
	}
	text, _ := json.Marshal(v) // never fails for these
	return string(text)
}

// digest is one as a column has it.
type digest struct{ admit.Digest }

// Scan implements sql.Scanner.
func (d *digest) Scan(v any) error {
	b, _ := v.([]byte)
	if len(b) != len(d.Digest) {
		return fmt.Errorf("a digest is a %T of %d bytes", v, len(b))
	}
	d.Digest = admit.Digest(b)
	return nil
}

// moment is a time as a column has it: timestamptz in PostgreSQL, microseconds in
// SQLite. NULL is the zero time.
type moment struct{ time.Time }

// Scan implements sql.Scanner.
func (m *moment) Scan(v any) error {
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

// moment returns what a parameter for t is.
func (s *Store) moment(t time.Time) any {
	switch {
	case t.IsZero():
		return nil
	case s.dialect == SQLite:
		return t.UnixMicro()
	default:
		return t
	}
}
