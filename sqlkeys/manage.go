package sqlkeys

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/admit-go/admit"
	"github.com/admit-go/admit/internal/sqldb"
)

// Record is a key with the other columns of its row.
type Record struct {
	admit.Key
	Digest    admit.Digest
	CreatedAt time.Time
	// LastUsedAt is precise to a minute or two, or to the TTL of caches if that is longer.
	// Zero means never.
	LastUsedAt time.Time
}

var (
	// ErrExists is returned for a key whose id or digest is in the table already.
	ErrExists = errors.New("sqlkeys: a key with this id or digest exists")
	// ErrNotValid is returned by Rotate for a key that has expired or has been revoked.
	ErrNotValid = errors.New("sqlkeys: the key has expired or is revoked")
)

// Insert adds a key. It returns ErrExists if there is a key with its id or digest. It rejects
// Limits that admit.CompleteLimits rejects, Quotas that admit.CompleteQuotas rejects, and
// Networks with host bits or with IPv4 addresses in the form of IPv6.
func (s *Store) Insert(ctx context.Context, d admit.Digest, k *admit.Key) error {
	return s.wrap("insert a key", s.insert(ctx, s.db, d, k))
}

// Get returns the key with an id, or admit.ErrKeyNotFound.
func (s *Store) Get(ctx context.Context, id string) (*Record, error) {
	var r *Record
	err := sqldb.Again(ctx, func() error {
		var err error
		r, err = s.get(ctx, s.db, id)
		return err
	})
	return r, s.wrap("get a key", err)
}

// List returns all keys of an owner, or of all owners for "", ordered by id. It reads 1,000
// rows at a time, each time from the current table. For a row that cannot be read it yields an
// *admit.ConfigError that names the key, and goes on with the next row. An error of the
// database ends the list.
func (s *Store) List(ctx context.Context, owner string) iter.Seq2[*Record, error] {
	const size = 1000
	return func(yield func(*Record, error) bool) {
		if !s.holds(owner) {
			return
		}
		after := ""
		for {
			page, err := s.page(ctx, owner, after, size)
			if err != nil {
				yield(nil, s.wrap("list keys", err))
				return
			}
			for _, f := range page {
				if !yield(f.record, s.wrap("list keys", f.err)) {
					return
				}
			}
			if len(page) < size {
				return
			}
			after = page[size-1].id
		}
	}
}

// Revoke revokes a key at a time, and returns the changed key. Zero means now, by the clock of
// the database; the time may be in the future. A key that is revoked at an earlier time keeps
// that. For a row that cannot be read, Revoke returns only ID, Digest and RevokedAt. It returns
// admit.ErrKeyNotFound if there is no such key.
func (s *Store) Revoke(ctx context.Context, id string, at time.Time) (*Record, error) {
	if !s.holds(id) {
		return nil, admit.ErrKeyNotFound
	}
	when, args := s.orNow(at)
	var r *Record
	err := s.dialect.InTx(ctx, s.db, func(tx *sql.Tx) error {
		n, err := s.exec(ctx, tx, `UPDATE admit_keys SET revoked_at = CASE WHEN revoked_at IS NULL OR revoked_at > `+when+` THEN `+when+` ELSE revoked_at END WHERE id = ?`,
			slices.Concat(args, args, []any{id})...)
		if err == nil && n == 0 {
			err = admit.ErrKeyNotFound
		}
		if err != nil {
			return err
		}
		if r, err = s.get(ctx, tx, id); err != nil { // a row that cannot be read must be revocable too
			r, err = s.revoked(ctx, tx, id)
		}
		return err
	})
	if err != nil {
		return nil, s.wrap("revoke a key", err)
	}
	return r, nil
}

// revoked returns the columns of a revoked row that can be read in any case.
func (s *Store) revoked(ctx context.Context, tx *sql.Tx, id string) (*Record, error) {
	var d digest
	var at sqldb.Moment
	if err := tx.QueryRowContext(ctx, s.dialect.Query(`SELECT digest, revoked_at FROM admit_keys WHERE id = ?`), id).Scan(&d, &at); err != nil {
		return nil, err
	}
	return &Record{Key: admit.Key{ID: id, RevokedAt: at.Time}, Digest: d.Digest}, nil
}

// Rotate adds the key next, and makes the key with the id expire at the time until, unless it
// expires earlier. Zero means now, by the clock of the database. Up to then both keys are
// valid. Rotate does both or neither. It returns admit.ErrKeyNotFound, ErrNotValid for a key
// that has expired or has been revoked, or ErrExists. It rejects a next that Insert rejects.
func (s *Store) Rotate(ctx context.Context, id string, until time.Time, d admit.Digest, next *admit.Key) error {
	if !s.holds(id) {
		return admit.ErrKeyNotFound
	}
	when, args := s.orNow(until)
	return s.wrap("rotate a key", s.dialect.InTx(ctx, s.db, func(tx *sql.Tx) error {
		n, err := s.exec(ctx, tx, `UPDATE admit_keys SET expires_at = CASE WHEN expires_at IS NULL OR expires_at > `+when+` THEN `+when+` ELSE expires_at END
			WHERE id = ? AND (expires_at IS NULL OR expires_at > `+s.dialect.Now()+`) AND (revoked_at IS NULL OR revoked_at > `+s.dialect.Now()+`)`,
			slices.Concat(args, args, []any{id})...)
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

func (s *Store) insert(ctx context.Context, q querier, d admit.Digest, k *admit.Key) error {
	if err := errors.Join(s.checkTexts(k), checkNetworks(k.Networks), checkLimits(k.Limits), checkQuotas(k.Quotas)); err != nil {
		return err
	}
	columns := `digest, ` + keyColumns
	args := []any{d[:], k.ID, k.Owner, k.Plan, marshal(k.Scopes, "[]"), marshal(k.Meta, "{}"), s.dialect.Moment(k.NotBefore), s.dialect.Moment(k.ExpiresAt), s.dialect.Moment(k.RevokedAt)}
	if len(k.Networks) > 0 || len(k.Limits) > 0 || len(k.Quotas) > 0 { // else a table of version 1 is enough
		columns += `, networks, limits, quotas`
		args = append(args, formatNetworks(k.Networks), formatLimits(k.Limits), formatQuotas(k.Quotas))
	}
	n, err := s.exec(ctx, q, `INSERT INTO admit_keys (`+columns+`) VALUES (?`+strings.Repeat(", ?", len(args)-1)+`) ON CONFLICT DO NOTHING`, args...)
	if err == nil && n == 0 {
		err = ErrExists
	}
	return err
}

func (s *Store) get(ctx context.Context, q querier, id string) (*Record, error) {
	if !s.holds(id) {
		return nil, admit.ErrKeyNotFound
	}
	return s.one(ctx, q, `WHERE id = ?`, id)
}

// holds reports whether the table can store a text. For a text that it cannot store,
// PostgreSQL returns an error instead of no row.
func (s *Store) holds(text string) bool {
	return s.dialect != PostgreSQL || utf8.ValidString(text) && !strings.ContainsRune(text, 0)
}

// checkTexts rejects texts that the table cannot store, with a clearer error than a driver's.
func (s *Store) checkTexts(k *admit.Key) error {
	texts := append([]string{k.ID, k.Owner, k.Plan}, k.Scopes...)
	for name, value := range k.Meta {
		texts = append(texts, name, value)
	}
	for _, text := range texts {
		if !s.holds(text) {
			return fmt.Errorf("%q has a NUL character or is not valid UTF-8; PostgreSQL cannot store it", text)
		}
	}
	return nil
}

func (s *Store) page(ctx context.Context, owner, after string, n int) ([]found, error) {
	if owner == "" {
		return s.rows(ctx, s.db, `WHERE id > ? ORDER BY id LIMIT ?`, ` ORDER BY id`, after, n)
	}
	return s.rows(ctx, s.db, `WHERE owner = ? AND id > ? ORDER BY id LIMIT ?`, ` ORDER BY id`, owner, after, n)
}

func (s *Store) exec(ctx context.Context, q querier, query string, args ...any) (int64, error) {
	result, err := q.ExecContext(ctx, s.dialect.Query(query), args...)
	if err != nil {
		return 0, err
	}
	return result.RowsAffected()
}

// wrap adds what has failed to an error. It returns the errors of this package's API as they
// are.
func (s *Store) wrap(doing string, err error) error {
	var callers callersError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &callers):
		return callers.error
	case errors.Is(err, admit.ErrKeyNotFound), errors.Is(err, ErrExists), errors.Is(err, ErrNotValid):
		return err
	default:
		return fmt.Errorf("sqlkeys: %s: %w", doing, s.explain(err))
	}
}

// explain adds what to do about a table that is missing or has an earlier version.
func (s *Store) explain(err error) error {
	schema := "admit keys schema " + strings.ToLower(s.dialect.String())
	state, text := sqldb.State(err), err.Error()
	if state == "42703" || s.dialect == SQLite && (strings.Contains(text, "no such column") || strings.Contains(text, "no column named")) {
		for _, column := range []string{"networks", "limits", "quotas"} {
			if strings.Contains(text, column) {
				return fmt.Errorf("the table admit_keys has no column %s; upgrade it with the output of `%s --from 1`: %w", column, schema, err)
			}
		}
	}
	return s.dialect.Explain(err, schema, "admit_keys")
}
