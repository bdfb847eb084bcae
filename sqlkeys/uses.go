package sqlkeys

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/admit-go/admit"
	"github.com/admit-go/admit/internal/sqldb"
)

const (
	useEvery   = time.Minute // the last use of a key is written at most this often
	useBatch   = 500         // keys in one statement
	maxUses    = 50_000      // keys that wait to be written
	useTimeout = 10 * time.Second

	closeTimeout = 2 * time.Second
)

// uses are the last uses of keys that have not been written yet.
type uses struct {
	mu   sync.Mutex
	used map[admit.Digest]time.Time
	full chan struct{}
}

// add records the use of a key, if the key is valid. It drops what does not fit; the next use
// of the key counts as well.
func (u *uses) add(d admit.Digest, k *admit.Key, now time.Time) {
	if k.Status(now) != admit.KeyValid {
		return
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.used == nil {
		u.used = map[admit.Digest]time.Time{}
	}
	if _, there := u.used[d]; there || len(u.used) < maxUses {
		u.used[d] = now
	}
	if len(u.used) >= maxUses {
		select {
		case u.full <- struct{}{}:
		default:
		}
	}
}

// take removes and returns all uses.
func (u *uses) take() map[admit.Digest]time.Time {
	u.mu.Lock()
	defer u.mu.Unlock()
	used := u.used
	u.used = nil
	return used
}

// noteUses writes uses until ctx is done. It does so a little less often than a key may be
// written, or every other write would come too early.
func (s *Store) noteUses(ctx context.Context) {
	ticks := time.NewTicker(useEvery + useEvery/20)
	defer ticks.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticks.C:
		case <-s.uses.full:
		}
		_ = s.flushUses(useTimeout) // the error is logged
	}
}

// flushUses writes all uses in batches. After a failure it drops the rest, so that a database
// in trouble gets no more work. Having no right to write is not an error; it is logged.
func (s *Store) flushUses(timeout time.Duration) error {
	used := s.uses.take()
	if len(used) == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	err := s.writeAll(ctx, used)
	switch {
	case err == nil:
		s.unwritten.Works("sqlkeys: the last use of keys is written again")
	case s.mayNotWrite(err):
		s.unwritten.Fails("sqlkeys: the last use of keys is not recorded: this service has no right to write, or the database is read-only", err)
		return nil
	default:
		s.unwritten.Fails("sqlkeys: the last use of keys cannot be written", s.explain(err))
	}
	return err
}

// closeUses is flushUses for Close: it does not wait for a database that hangs.
func (s *Store) closeUses(noted <-chan struct{}) error {
	written := make(chan error, 1)
	go func() { // ends when the driver returns
		<-noted
		written <- s.flushUses(closeTimeout)
	}()
	late := time.NewTimer(closeTimeout)
	defer late.Stop()
	select {
	case err := <-written:
		return s.wrap("write the last uses", err)
	case <-late.C:
		return fmt.Errorf("sqlkeys: write the last uses: no reply from the database in %v: %w", closeTimeout, context.DeadlineExceeded)
	}
}

// mayNotWrite reports whether a database is read-only, at least for this user.
func (s *Store) mayNotWrite(err error) bool {
	switch sqldb.State(err) {
	case "42501", "25006": // insufficient_privilege, read_only_sql_transaction
		return true
	default:
		return s.dialect == SQLite && strings.Contains(err.Error(), "readonly database")
	}
}

func (s *Store) writeAll(ctx context.Context, used map[admit.Digest]time.Time) error {
	var latest time.Time
	var digests []any
	for d, at := range used {
		digests = append(digests, d[:])
		if at.After(latest) {
			latest = at
		}
		if len(digests) == useBatch {
			if err := s.writeUses(ctx, digests, latest); err != nil {
				return err
			}
			digests = digests[:0]
		}
	}
	if len(digests) == 0 {
		return nil
	}
	return s.writeUses(ctx, digests, latest)
}

// writeUses writes the last use of keys, except of those that another service has written
// within the minute. Of two services that write the same keys at once, one skips them, so that
// they cannot deadlock.
func (s *Store) writeUses(ctx context.Context, digests []any, at time.Time) error {
	which := `SELECT digest FROM admit_keys WHERE digest IN (?` + strings.Repeat(", ?", len(digests)-1) + `) AND (last_used_at IS NULL OR last_used_at <= ?)`
	if s.dialect == PostgreSQL {
		which += ` FOR NO KEY UPDATE SKIP LOCKED`
	}
	args := append([]any{s.dialect.Moment(at)}, digests...)
	args = append(args, s.dialect.Moment(at.Add(-useEvery)))
	_, err := s.db.ExecContext(ctx, s.dialect.Query(`UPDATE admit_keys SET last_used_at = ? WHERE digest IN (`+which+`)`), args...)
	return err
}
