package sqlquota

import (
	"context"
	"iter"
	"time"

	"github.com/admit-go/admit/internal/sqldb"
)

// Count is what an account has used of a quota in a period. Account, Quota and Period are
// those of its admit.QuotaClaim.
type Count struct {
	Account, Quota, Period string
	Ends                   time.Time // end of the period
	Used                   int64     // requests that processes have reported
	Held                   int64     // requests that processes have taken in advance, beyond Used
}

// listPage is how many counts List reads at a time.
const listPage = 1000

// List returns the counts of an account, or of all accounts for "", ordered only by the first
// 100 characters of the account. It reads 1,000 rows at a time, each time from the current
// table. An error ends the list.
func (s *Store) List(ctx context.Context, account string) iter.Seq2[Count, error] {
	return func(yield func(Count, error) bool) {
		after := row{id: []byte{}}
		for {
			var page []row
			err := sqldb.Again(ctx, func() (err error) {
				page, err = s.page(ctx, account, after)
				return err
			})
			if err != nil {
				yield(Count{}, s.wrap("list quotas", err))
				return
			}
			for _, r := range page {
				if !yield(r.Count, nil) {
					return
				}
			}
			if len(page) < listPage {
				return
			}
			after = page[len(page)-1]
		}
	}
}

// row is a Count with its position in the index.
type row struct {
	Count
	id    []byte
	place string
}

func (s *Store) page(ctx context.Context, account string, after row) ([]row, error) {
	const place = `substr(account, 1, 100)`
	query := `SELECT id, ` + place + `, account, quota, period, ends_at, used, held FROM admit_quota_counts`
	args := []any{after.place, after.id, listPage}
	query += ` WHERE (` + place + `, id) > (?, ?)`
	if account != "" {
		args = []any{after.place, after.id, escape(account), escape(account), listPage}
		query += ` AND ` + place + ` = substr(CAST(? AS text), 1, 100) AND account = ?`
	}
	found, err := s.db.QueryContext(ctx, s.dialect.Query(query+` ORDER BY `+place+`, id LIMIT ?`), args...)
	if err != nil {
		return nil, err
	}
	defer found.Close()
	var page []row
	for found.Next() {
		var r row
		var ends sqldb.Moment
		if err := found.Scan(&r.id, &r.place, &r.Account, &r.Quota, &r.Period, &ends, &r.Used, &r.Held); err != nil {
			return nil, err
		}
		r.Account, r.Quota, r.Period, r.Ends = unescape(r.Account), unescape(r.Quota), unescape(r.Period), ends.Time
		page = append(page, r)
	}
	return page, found.Err()
}
