package sqlkeys

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/admit-go/admit"
	"github.com/admit-go/admit/internal/sqldb"
)

const (
	useEvery   = time.Minute // a key's last use is written at most so often
	useBatch   = 500         // keys in one statement
	maxUses    = 50_000      // keys that wait to be written
	useTimeout = 10 * time.Second

	closeTimeout = 2 * time.Second
)

// uses are the keys that were used, and are not written yet.
type uses struct {
	mu   sync.Mutex
	used map[admit.Digest]time.Time
	full chan struct{}
}

// add notes that a key was used, if it was valid. What does not fit is left out: the
// next use counts as well.
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

// take returns what there is, and leaves nothing.
func (u *uses) take() map[admit.Digest]time.Time {
	u.mu.Lock()
	defer u.mu.Unlock()
	used := u.used
	u.used = nil
	return used
}

// noteUses writes uses until ctx ends: a little less often than a key may be written, or
// every other time would come too early.
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
		_ = s.flushUses(useTimeout) // it is logged
	}
}

// flushUses writes what there is in batches. After a failure the rest is dropped: a
// database that is in trouble gets no more work from this. A service that may not write
// has failed in nothing: one line says what it does without.
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
		s.unwritten.Fails(slog.LevelWarn, "sqlkeys: the last use of keys is not kept: the database does not let this service write", err)
		return nil
	default:
		s.unwritten.Fails(slog.LevelError, "sqlkeys: the last use of keys cannot be written", s.explain(err))
	}
	return err
}

// closeUses is flushUses for the end: it waits for no database that hangs.
func (s *Store) closeUses(noted <-chan struct{}) error {
	written := make(chan error, 1)
	go func() { // ends when the driver lets go
		<-noted
		written <- s.flushUses(closeTimeout)
	}()
	late := time.NewTimer(closeTimeout)
	defer late.Stop()
	select {
	case err := <-written:
		return s.wrap("write the last uses", err)
	case <-late.C:
		return fmt.Errorf("sqlkeys: write the last uses: the database has not answered in %v: %w", closeTimeout, context.DeadlineExceeded)
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

// writeUses marks keys as used, unless another service did within the minute. Of two
// services that write the same keys, one skips them, so that they cannot lock each
// other out.
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
