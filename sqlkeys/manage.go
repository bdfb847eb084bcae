package sqlkeys

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"iter"
	"math/rand/v2"
	"time"

	"github.com/admit-go/admit"
)

// Record is a key with what the table knows besides.
type Record struct {
	admit.Key
	Digest     admit.Digest
	CreatedAt  time.Time
	LastUsedAt time.Time // to a minute or two, or the TTL of caches if that is longer; zero: never
}

var (
	// ErrExists is returned for a key whose id or digest is in the table.
	ErrExists = errors.New("sqlkeys: a key with this id or digest exists")
	// ErrNotValid is returned for the rotation of a key that has expired or is revoked.
	ErrNotValid = errors.New("sqlkeys: the key has expired or is revoked")
)

// Insert adds a key. It returns ErrExists if its id or digest is there.
func (s *Store) Insert(ctx context.Context, d admit.Digest, k *admit.Key) error {
	return wrap("insert a key", s.insert(ctx, s.db, d, k))
}

// Get returns the key with an id, or admit.ErrKeyNotFound.
func (s *Store) Get(ctx context.Context, id string) (*Record, error) {
	r, err := s.get(ctx, s.db, id)
	return r, wrap("get a key", err)
}

// List returns all keys of an owner, or of all owners for "", ordered by id. It reads
// them by the thousand, each time as the table is then.
func (s *Store) List(ctx context.Context, owner string) iter.Seq2[*Record, error] {
	const page = 1000
	return func(yield func(*Record, error) bool) {
		after := ""
		for {
			records, err := s.page(ctx, owner, after, page)
			if err != nil {
				yield(nil, wrap("list keys", err))
				return
			}
			for _, r := range records {
				if !yield(r, nil) {
					return
				}
			}
			if len(records) < page {
				return
			}
			after = records[page-1].ID
		}
	}
}

// Revoke ends a key at a time, which may be to come (zero: now), and returns it as it is
// then. A key that is revoked earlier stays so. It returns admit.ErrKeyNotFound if there is none.
func (s *Store) Revoke(ctx context.Context, id string, at time.Time) (*Record, error) {
	if at.IsZero() {
		at = time.Now()
	}
	var r *Record
	err := s.inTx(ctx, func(tx *sql.Tx) error {
		n, err := s.exec(ctx, tx, `UPDATE admit_keys SET revoked_at = CASE WHEN revoked_at IS NULL OR revoked_at > ? THEN ? ELSE revoked_at END WHERE id = ?`,
			s.moment(at), s.moment(at), id)
		if err == nil && n == 0 {
			err = admit.ErrKeyNotFound
		}
		if err == nil {
			r, err = s.get(ctx, tx, id)
		}
		return err
	})
	return r, wrap("revoke a key", err)
}

// Rotate adds next, and lets the key with the id expire at a time (zero: now), if it
// would not do so before: until then both are valid. It does both or neither. It returns
// admit.ErrKeyNotFound, ErrNotValid for a key that is not live any more, or ErrExists.
func (s *Store) Rotate(ctx context.Context, id string, until time.Time, d admit.Digest, next *admit.Key) error {
	if until.IsZero() {
		until = time.Now()
	}
	now := s.moment(time.Now())
	return wrap("rotate a key", s.inTx(ctx, func(tx *sql.Tx) error {
		n, err := s.exec(ctx, tx, `UPDATE admit_keys SET expires_at = CASE WHEN expires_at IS NULL OR expires_at > ? THEN ? ELSE expires_at END
			WHERE id = ? AND (expires_at IS NULL OR expires_at > ?) AND (revoked_at IS NULL OR revoked_at > ?)`,
			s.moment(until), s.moment(until), id, now, now)
		if err != nil {
			return err
		}
		if n == 0 {
			if _, err := s.get(ctx, tx, id); err != nil {
				return err
			}
			return ErrNotValid
		}
		return s.insert(ctx, tx, d, next)
	}))
}

// querier is a *sql.DB or a *sql.Tx.
type querier interface {
	ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error)
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
}

func (s *Store) insert(ctx context.Context, q querier, d admit.Digest, k *admit.Key) error {
	n, err := s.exec(ctx, q, `INSERT INTO admit_keys (digest, `+columns+`) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING`,
		d[:], k.ID, k.Owner, k.Plan, marshal(k.Scopes, "[]"), marshal(k.Meta, "{}"), s.moment(k.NotBefore), s.moment(k.ExpiresAt), s.moment(k.RevokedAt))
	if err == nil && n == 0 {
		err = ErrExists
	}
	return err
}

func (s *Store) get(ctx context.Context, q querier, id string) (*Record, error) {
	return s.getWhere(ctx, q, `WHERE id = ?`, id)
}

func (s *Store) getWhere(ctx context.Context, q querier, which string, id string) (*Record, error) {
	records, err := s.records(ctx, q, which, id)
	if err == nil && len(records) == 0 {
		err = admit.ErrKeyNotFound
	}
	if err != nil {
		return nil, err
	}
	return records[0], nil
}

func (s *Store) page(ctx context.Context, owner, after string, n int) ([]*Record, error) {
	if owner == "" {
		return s.records(ctx, s.db, `WHERE id > ? ORDER BY id LIMIT ?`, after, n)
	}
	return s.records(ctx, s.db, `WHERE owner = ? AND id > ? ORDER BY id LIMIT ?`, owner, after, n)
}

func (s *Store) records(ctx context.Context, q querier, which string, args ...any) ([]*Record, error) {
	rows, err := q.QueryContext(ctx, s.query(`SELECT digest, created_at, last_used_at, `+columns+` FROM admit_keys `+which), args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var records []*Record
	for rows.Next() {
		var r row
		var d digest
		var created, used moment
		if err := rows.Scan(append([]any{&d, &created, &used}, r.columns()...)...); err != nil {
			return nil, err
		}
		k, err := r.key()
		if err != nil {
			return nil, err
		}
		records = append(records, &Record{Key: *k, Digest: d.Digest, CreatedAt: created.Time, LastUsedAt: used.Time})
	}
	return records, rows.Err()
}

func (s *Store) exec(ctx context.Context, q querier, query string, args ...any) (int64, error) {
	result, err := q.ExecContext(ctx, s.query(query), args...)
	if err != nil {
		return 0, err
	}
	return result.RowsAffected()
}

// inTx runs do in a transaction, and once more where the database asks for it.
func (s *Store) inTx(ctx context.Context, do func(*sql.Tx) error) error {
	return again(ctx, func() error {
		tx, err := s.db.BeginTx(ctx, nil)
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

// maxTries is for several who change one key at once: at least one of them succeeds in
// each turn.
const maxTries = 10

// again does what has failed once more, if the database says that this is what to do: of
// transactions at the isolation level repeatable read or serializable, or in a deadlock,
// one has to begin anew.
func again(ctx context.Context, do func() error) error {
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
	switch sqlState(err) {
	case "40001", "40P01": // serialization_failure, deadlock_detected
		return true
	default:
		return false
	}
}

// sqlState returns the SQLSTATE of an error of a PostgreSQL driver, or "".
func sqlState(err error) string {
	var e interface{ SQLState() string }
	if errors.As(err, &e) {
		return e.SQLState()
	}
	return ""
}

// wrap says what has failed. An answer is returned as it is.
func wrap(doing string, err error) error {
	var callers callersError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &callers):
		return callers.error
	case errors.Is(err, admit.ErrKeyNotFound), errors.Is(err, ErrExists), errors.Is(err, ErrNotValid):
		return err
	default:
		return fmt.Errorf("sqlkeys: %s: %w", doing, err)
	}
}
