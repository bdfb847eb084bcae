package sqlquota

import (
	"cmp"
	"context"
	"database/sql"
	"fmt"
	"slices"
	"time"

	"github.com/admit-go/admit"
	"github.com/admit-go/admit/internal/sqldb"
)

const (
	// offerAfter is how long after the end of a minute its records are offered.
	offerAfter = 2 * time.Minute
	// offerAgain is how long after that records are offered again if nobody acknowledges them.
	offerAgain = 5 * time.Minute
)

// Offer implements admit.QuotaStore. It returns the records of minutes that ended at least two
// minutes ago by the clock of the database, the oldest first, and returns a record again after
// five minutes. It skips records that another call takes at the same time, and does not wait
// for them. Only ctx limits its time.
func (s *Store) Offer(ctx context.Context, most int) ([]admit.UsageRecord, error) {
	if most <= 0 {
		return nil, nil
	}
	var records []admit.UsageRecord
	err := s.dialect.InTx(ctx, s.db, func(tx *sql.Tx) (err error) {
		records, err = s.offer(ctx, tx, most)
		return err
	})
	return records, s.wrap("offer usage", err)
}

func (s *Store) offer(ctx context.Context, tx *sql.Tx, most int) ([]admit.UsageRecord, error) {
	found, err := tx.QueryContext(ctx, s.dialect.Query(fmt.Sprintf(`WITH due AS (SELECT id FROM admit_quota_usage
			WHERE minute <= %s AND (offered_at IS NULL OR offered_at <= %s) ORDER BY minute, id LIMIT ?%s)
		UPDATE admit_quota_usage SET offered_at = %s WHERE id IN (SELECT id FROM due) RETURNING id, account, quota, period, minute, requests`,
		s.ago(time.Minute+offerAfter), s.ago(offerAgain), s.skipLocked(), s.dialect.Now())), most)
	if err != nil {
		return nil, err
	}
	defer found.Close()
	var records []admit.UsageRecord
	for found.Next() {
		var r admit.UsageRecord
		var minute sqldb.Moment
		if err := found.Scan(&r.ID, &r.Account, &r.Quota, &r.Period, &minute, &r.Requests); err != nil {
			return nil, err
		}
		r.Account, r.Quota, r.Period, r.Minute = unescape(r.Account), unescape(r.Quota), unescape(r.Period), minute.Time
		records = append(records, r)
	}
	slices.SortFunc(records, func(a, b admit.UsageRecord) int { return cmp.Or(a.Minute.Compare(b.Minute), cmp.Compare(a.ID, b.ID)) })
	return records, found.Err()
}

// Acknowledge implements admit.QuotaStore, with one statement for each 500 records. Only ctx
// limits its time.
func (s *Store) Acknowledge(ctx context.Context, ids []string) error {
	for some := range slices.Chunk(ids, batch) {
		args := make([]any, len(some))
		for i, id := range some {
			args[i] = escape(id) // an id that this changes does not exist
		}
		err := sqldb.Again(ctx, func() error {
			_, err := s.db.ExecContext(ctx, s.dialect.Query(`DELETE FROM admit_quota_usage WHERE id IN (`+rows(`?`, len(args))+`)`), args...)
			return err
		})
		if err != nil {
			return s.wrap("acknowledge usage", err)
		}
	}
	return nil
}
