package sqlkeys

import (
	"context"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/admit-go/admit"
)

const (
	useEvery   = time.Minute // a key's last use is written at most so often
	useBatch   = 500         // keys in one statement
	maxUses    = 50_000      // keys that wait to be written
	useTimeout = 10 * time.Second
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
	failing := false
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticks.C:
		case <-s.uses.full:
		}
		err := s.flushUses()
		if err != nil && !failing {
			s.logger.Error("sqlkeys: the last use of keys cannot be written", slog.Any("error", s.explain(err)))
		}
		failing = err != nil
	}
}

// flushUses writes what there is in batches. After a failure the rest is dropped: a
// database that is in trouble gets no more work from this.
func (s *Store) flushUses() error {
	ctx, cancel := context.WithTimeout(context.Background(), useTimeout)
	defer cancel()
	var latest time.Time
	var digests []any
	for d, at := range s.uses.take() {
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
	args := append([]any{s.moment(at)}, digests...)
	args = append(args, s.moment(at.Add(-useEvery)))
	_, err := s.db.ExecContext(ctx, s.query(`UPDATE admit_keys SET last_used_at = ? WHERE digest IN (`+which+`)`), args...)
	return err
}
