package sqlkeys

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/admit-go/admit"
)

// Update changes the key with an id, and returns the changed key. No other writer changes the
// key between the read and the write.
//
// The function change gets a copy of the key. It may change everything except ID and RevokedAt;
// Revoke revokes a key. If it returns an error, Update returns that error as it is and writes
// nothing. If it changes nothing, nothing is written. It may be called more than once, each
// time with the current key. It runs in a transaction, so it must not use the Store.
//
// Update returns admit.ErrKeyNotFound if there is no such key. Among the changes it rejects an
// ExpiresAt that is not after NotBefore, Scopes that make admit.RequireScopes panic, and
// Limits, Quotas and Networks that Insert rejects.
func (s *Store) Update(ctx context.Context, id string, change func(*admit.Key) error) (*Record, error) {
	var r *Record
	err := s.dialect.InTx(ctx, s.db, func(tx *sql.Tx) error {
		var err error
		if r, err = s.lock(ctx, tx, id); err != nil {
			return err
		}
		next := clone(&r.Key)
		if err := change(next); err != nil {
			return callersError{err}
		}
		if err := errors.Join(checkChange(&r.Key, next), s.checkTexts(next)); err != nil {
			return callersError{fmt.Errorf("sqlkeys: the key %q: %w", id, err)}
		}
		if same(&r.Key, next) {
			return nil
		}
		if err := s.write(ctx, tx, &r.Key, next); err != nil {
			return err
		}
		r, err = s.get(ctx, tx, id)
		return err
	})
	if err != nil {
		return nil, s.wrap("update a key", err)
	}
	return r, nil
}

// lock returns the key with an id. No other transaction can change the key until tx ends.
func (s *Store) lock(ctx context.Context, tx *sql.Tx, id string) (*Record, error) {
	if !s.holds(id) {
		return nil, admit.ErrKeyNotFound
	}
	if s.dialect == PostgreSQL {
		return s.one(ctx, tx, `WHERE id = ? FOR UPDATE`, id)
	}
	// A transaction that begins with a write takes the lock first. One that begins with a read
	// fails if another has written since. The trigger ignores this column.
	if _, err := s.exec(ctx, tx, `UPDATE admit_keys SET last_used_at = last_used_at WHERE id = ?`, id); err != nil {
		return nil, err
	}
	return s.get(ctx, tx, id)
}

// write writes the columns that may have changed. It leaves out unchanged columns that a table
// of version 1 does not have.
func (s *Store) write(ctx context.Context, tx *sql.Tx, old, next *admit.Key) error {
	set := `owner = ?, plan = ?, scopes = ?, meta = ?, not_before = ?, expires_at = ?`
	args := []any{next.Owner, next.Plan, marshal(next.Scopes, "[]"), marshal(next.Meta, "{}"), s.dialect.Moment(next.NotBefore), s.dialect.Moment(next.ExpiresAt)}
	if !slices.Equal(next.Networks, old.Networks) {
		set += `, networks = ?`
		args = append(args, formatNetworks(next.Networks))
	}
	if !slices.Equal(next.Limits, old.Limits) {
		set += `, limits = ?`
		args = append(args, formatLimits(next.Limits))
	}
	if !slices.Equal(next.Quotas, old.Quotas) {
		set += `, quotas = ?`
		args = append(args, formatQuotas(next.Quotas))
	}
	_, err := s.exec(ctx, tx, `UPDATE admit_keys SET `+set+` WHERE id = ?`, append(args, next.ID)...)
	return err
}

// callersError is an error that Update returns without a prefix.
type callersError struct{ error }

func clone(k *admit.Key) *admit.Key {
	c := *k
	c.Scopes, c.Limits, c.Quotas = slices.Clone(k.Scopes), slices.Clone(k.Limits), slices.Clone(k.Quotas)
	c.Networks, c.Meta = slices.Clone(k.Networks), maps.Clone(k.Meta)
	return &c
}

// same reports whether both keys have the same row.
func same(a, b *admit.Key) bool {
	return a.Owner == b.Owner && a.Plan == b.Plan && slices.Equal(a.Scopes, b.Scopes) && maps.Equal(a.Meta, b.Meta) &&
		slices.Equal(a.Limits, b.Limits) && slices.Equal(a.Quotas, b.Quotas) && slices.Equal(a.Networks, b.Networks) &&
		sameMoment(a.NotBefore, b.NotBefore) && sameMoment(a.ExpiresAt, b.ExpiresAt)
}

// sameMoment compares times with the precision of the table.
func sameMoment(a, b time.Time) bool {
	return a.IsZero() == b.IsZero() && a.UnixMicro() == b.UnixMicro()
}

// checkChange rejects changes that cannot be meant. What the row had before may stay, so that
// it does not keep the rest from being changed.
func checkChange(old, next *admit.Key) error {
	var faults []error
	if next.ID != old.ID {
		faults = append(faults, fmt.Errorf("the id cannot be changed to %q", next.ID))
	}
	if !sameMoment(next.RevokedAt, old.RevokedAt) {
		faults = append(faults, errors.New("Update cannot change RevokedAt; use Revoke"))
	}
	if !sameMoment(next.NotBefore, old.NotBefore) || !sameMoment(next.ExpiresAt, old.ExpiresAt) {
		if !next.ExpiresAt.IsZero() && next.ExpiresAt.UnixMicro() <= next.NotBefore.UnixMicro() {
			faults = append(faults, fmt.Errorf("it expires before it is valid: ExpiresAt, %v, must be after NotBefore, %v",
				next.ExpiresAt.Format(time.RFC3339Nano), next.NotBefore.Format(time.RFC3339Nano)))
		}
	}
	for _, scope := range next.Scopes {
		if !isScope(scope) && !slices.Contains(old.Scopes, scope) {
			faults = append(faults, fmt.Errorf("%q is not a scope: use printable ASCII characters other than space, quote and backslash", scope))
		}
	}
	faults = append(faults, checkNetworks(next.Networks), checkLimits(next.Limits), checkQuotas(next.Quotas))
	return errors.Join(faults...)
}

// isScope reports whether s is a scope-token (RFC 6749 §3.3).
func isScope(s string) bool {
	return s != "" && !strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r > '~' || r == '"' || r == '\\' })
}
