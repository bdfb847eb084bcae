package sqlkeys

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/admit-go/admit"
	"github.com/admit-go/admit/internal/keyform"
	"github.com/admit-go/admit/internal/sqldb"
)

// keyColumns are the columns of a key that each version of the table has.
const keyColumns = `id, owner, plan, scopes, meta, not_before, expires_at, revoked_at`

// querier is a *sql.DB or a *sql.Tx.
type querier interface {
	ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error)
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
}

// found is a row of the table, or the reason why it cannot be read.
type found struct {
	id     string
	record *Record
	err    error // an *admit.ConfigError, which is not an outage for a KeyCache
}

// one returns the row that a clause selects, or admit.ErrKeyNotFound.
func (s *Store) one(ctx context.Context, q querier, which string, args ...any) (*Record, error) {
	rows, err := s.rows(ctx, q, which, "", args...)
	switch {
	case err != nil:
		return nil, err
	case len(rows) == 0:
		return nil, admit.ErrKeyNotFound
	default:
		return rows[0].record, rows[0].err
	}
}

// rows returns the rows that a clause selects, in an order that the clause has too. A row that
// cannot be read is in the result with its error.
func (s *Store) rows(ctx context.Context, q querier, which, order string, args ...any) ([]found, error) {
	rows, err := q.QueryContext(ctx, s.selectKeys(which, order), args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	columns, err := rows.Columns()
	if err != nil {
		return nil, err
	}
	var all []found
	for rows.Next() {
		r := row{networks: []byte("[]"), limits: []byte("[]"), quotas: []byte("[]")}
		into := make([]any, len(columns))
		for i, column := range columns {
			into[i] = r.column(column)
		}
		f := found{err: rows.Scan(into...)}
		if f.id = r.id; f.err != nil {
			f.err = r.fault("", f.err)
		} else {
			f.record, f.err = r.record()
		}
		all = append(all, f)
	}
	return all, rows.Err()
}

// selectKeys returns the query for all columns of a key, on a table of any version. It must not
// depend on an earlier state of the table: a service that did not notice the new column
// networks would admit callers that it excludes. The id comes first, so that it is known for
// each row.
func (s *Store) selectKeys(which, order string) string {
	if s.dialect == SQLite {
		return `SELECT id, * FROM admit_keys ` + which // which has the order
	}
	// A column that admit_keys does not have is taken from absent. When the column is added,
	// PostgreSQL plans statements anew that a driver or a pool has prepared. It requires them to
	// have the same result type, which SELECT * would not.
	return s.dialect.Query(`SELECT k.* FROM (SELECT '[]'::jsonb AS networks, '[]'::jsonb AS limits, '[]'::jsonb AS quotas) AS absent,
		LATERAL (SELECT id, owner, plan, scopes, meta, networks, limits, quotas, digest, ` + finiteTimes + ` FROM admit_keys ` + which + `) AS k` + order)
}

// finiteTimes are the times of a row in PostgreSQL, and the names of those that are infinite.
// Drivers fail to read an infinite time, and with it all rows of the query.
var finiteTimes = func() string {
	var times, infinite []string
	for _, column := range []string{"not_before", "expires_at", "revoked_at", "created_at", "last_used_at"} {
		times = append(times, `CASE WHEN isfinite(`+column+`) THEN `+column+` END AS `+column)
		infinite = append(infinite, `CASE WHEN NOT isfinite(`+column+`) THEN '`+column+`' END`)
	}
	return strings.Join(times, ", ") + `, concat_ws(' and ', ` + strings.Join(infinite, ", ") + `) AS infinite`
}()

// row is a row of the table.
type row struct {
	digest                                           digest
	id, owner, plan, infinite                        string
	scopes, meta, networks, limits, quotas           []byte
	notBefore, expiresAt, revokedAt, created, usedAt sqldb.Moment
}

// column returns where to scan a column to.
func (r *row) column(name string) any {
	switch strings.ToLower(name) { // SQLite keeps the case of the CREATE TABLE
	case "digest":
		return &r.digest
	case "id":
		return &r.id
	case "owner":
		return &r.owner
	case "plan":
		return &r.plan
	case "scopes":
		return &r.scopes
	case "meta":
		return &r.meta
	case "networks":
		return &r.networks
	case "limits":
		return &r.limits
	case "quotas":
		return &r.quotas
	case "not_before":
		return &r.notBefore
	case "expires_at":
		return &r.expiresAt
	case "revoked_at":
		return &r.revokedAt
	case "created_at":
		return &r.created
	case "last_used_at":
		return &r.usedAt
	case "infinite":
		return &r.infinite
	default:
		return dropped{}
	}
}

// record fails if any part of the row cannot be read: a key without its networks would be
// admitted from everywhere.
func (r *row) record() (*Record, error) {
	k := admit.Key{
		ID: r.id, Owner: r.owner, Plan: r.plan,
		NotBefore: r.notBefore.Time, ExpiresAt: r.expiresAt.Time, RevokedAt: r.revokedAt.Time,
	}
	var faults []error
	read := func(column string, err error) {
		if err != nil {
			faults = append(faults, r.fault("."+column, err))
		}
	}
	if r.infinite != "" {
		read(r.infinite, errors.New("a time must be finite, or NULL for none"))
	}
	read("scopes", unmarshal(r.scopes, "[]", &k.Scopes))
	read("meta", unmarshal(r.meta, "{}", &k.Meta))
	var err error
	k.Networks, err = parseNetworks(r.networks)
	read("networks", err)
	k.Limits, err = parseLimits(r.limits)
	read("limits", err)
	k.Quotas, err = parseQuotas(r.quotas)
	read("quotas", err)
	if len(faults) > 0 {
		return nil, errors.Join(faults...)
	}
	return &Record{Key: k, Digest: r.digest.Digest, CreatedAt: r.created.Time, LastUsedAt: r.usedAt.Time}, nil
}

// fault returns the error for a column of the row, or for all of it.
func (r *row) fault(column string, err error) error {
	return &admit.ConfigError{Field: fmt.Sprintf("admit_keys[%q]%s", r.id, column), Reason: "cannot be read: " + err.Error()}
}

// unmarshal does not change into if there is nothing to read.
func unmarshal(text []byte, nothing string, into any) error {
	if string(text) == nothing {
		return nil
	}
	return json.Unmarshal(text, into)
}

func marshal[T []string | []keyform.Limit | []quota | map[string]string](v T, nothing string) string {
	if len(v) == 0 {
		return nothing
	}
	text, _ := json.Marshal(v) // never fails for these
	return string(text)
}

// dropped ignores an unknown column.
type dropped struct{}

// Scan implements sql.Scanner.
func (dropped) Scan(any) error { return nil }

// digest is a digest in a column.
type digest struct{ admit.Digest }

// Scan implements sql.Scanner.
func (d *digest) Scan(v any) error {
	b, _ := v.([]byte)
	if len(b) != len(d.Digest) {
		return fmt.Errorf("the digest is a %T of %d bytes, not of %d", v, len(b), len(d.Digest))
	}
	d.Digest = admit.Digest(b)
	return nil
}
