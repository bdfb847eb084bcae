package sqlquota

import (
	"context"
	"database/sql"
	"fmt"
	"time"
)

const (
	// forgetAfter is how long after its end a period, or a minute of usage, is deleted.
	forgetAfter = 35 * 24 * time.Hour
	// forgetEvery is how often a Store deletes, and forgetTimeout how long that may take.
	forgetEvery   = time.Hour
	forgetTimeout = time.Minute
	// forgetBatch is how many rows one transaction deletes, so that it is short.
	forgetBatch = 500
)

// forgetNowAndThen starts a goroutine about once an hour, which ends within a minute.
func (s *Store) forgetNowAndThen() {
	now := time.Now()
	due := s.due.Load()
	if now.UnixNano() < due || !s.due.CompareAndSwap(due, now.Add(forgetEvery).UnixNano()) {
		return
	}
	go func() {
		ctx, cancel := context.WithTimeout(context.Background(), forgetTimeout)
		defer cancel()
		if err := s.forget(ctx); err != nil {
			s.unforgotten.Fails("sqlquota: old periods cannot be deleted", s.wrap("delete old periods", err))
			return
		}
		s.unforgotten.Works("sqlquota: old periods are deleted again")
	}()
}

// forget deletes old rows, in short transactions. Other Stores may do so at the same time.
func (s *Store) forget(ctx context.Context) error {
	for _, each := range []func(context.Context, *sql.Tx) (int, error){s.forgetCounts, s.forgetUsage} {
		for n := forgetBatch; n == forgetBatch; {
			err := s.dialect.InTx(ctx, s.db, func(tx *sql.Tx) (err error) {
				n, err = each(ctx, tx)
				return err
			})
			if err != nil {
				return err
			}
		}
	}
	return nil
}

// forgetCounts deletes counts, and then their shares. A claim at the same time waits for the
// lock of the count, and then finds neither.
func (s *Store) forgetCounts(ctx context.Context, tx *sql.Tx) (int, error) {
	found, err := tx.QueryContext(ctx, fmt.Sprintf(`WITH old AS (SELECT id FROM admit_quota_counts WHERE ends_at < %s ORDER BY ends_at LIMIT %d%s)
		DELETE FROM admit_quota_counts WHERE id IN (SELECT id FROM old) RETURNING id`, s.ago(forgetAfter), forgetBatch, s.skipLocked()))
	if err != nil {
		return 0, err
	}
	defer found.Close()
	var ids []any
	for found.Next() {
		var id []byte
		if err := found.Scan(&id); err != nil {
			return 0, err
		}
		ids = append(ids, id)
	}
	if err := found.Err(); err != nil || len(ids) == 0 {
		return 0, err
	}
	return len(ids), s.run(ctx, tx, statement{`DELETE FROM admit_quota_shares WHERE count_id IN (` + rows(`?`, len(ids)) + `)`, ids})
}

func (s *Store) forgetUsage(ctx context.Context, tx *sql.Tx) (int, error) {
	done, err := tx.ExecContext(ctx, fmt.Sprintf(`WITH old AS (SELECT id FROM admit_quota_usage WHERE minute < %s ORDER BY minute, id LIMIT %d%s)
		DELETE FROM admit_quota_usage WHERE id IN (SELECT id FROM old)`, s.ago(forgetAfter), forgetBatch, s.skipLocked()))
	if err != nil {
		return 0, err
	}
	n, err := done.RowsAffected()
	return int(n), err
}
