package sqlkeys

import (
	"context"
	"log/slog"
	"time"

	"github.com/admit-go/admit"
)

const (
	watchEvery   = time.Second
	watchTimeout = 5 * time.Second
	// A change becomes visible when it is committed, some time after the moment that it
	// is marked with, so each query looks back by this much. What takes longer to commit
	// is not seen: the TTL of the cache bounds that.
	watchOverlap = 10 * time.Second
	// How many changes of that time are remembered, to be told once. Beyond it some are
	// told again, which does no harm.
	maxSeen = 100_000
)

// Watch calls forget with the digest of each key that is added or changed, by whatever
// program, until ctx ends. It asks once a second, with an indexed query; after an
// outage it catches up. Start it with (*admit.KeyCache).Forget before the service takes
// requests; one for each cache.
func (s *Store) Watch(ctx context.Context, forget func(admit.Digest)) {
	w := watcher{store: s, asked: time.Now(), seen: map[admit.Digest]change{}}
	ticks := time.NewTicker(watchEvery)
	defer ticks.Stop()
	failing := false
	for {
		switch err := w.look(ctx, forget); {
		case ctx.Err() != nil:
			return
		case err != nil && !failing:
			failing = true
			s.logger.ErrorContext(ctx, "sqlkeys: changes of keys cannot be seen; until they are, caches rely on their TTL", slog.Any("error", s.explain(err)))
		case err == nil && failing:
			failing = false
			s.logger.InfoContext(ctx, "sqlkeys: changes of keys are seen again")
		}
		select {
		case <-ctx.Done():
			return
		case <-ticks.C:
		}
	}
}

type watcher struct {
	store *Store
	asked time.Time // when the last query began that has succeeded
	seen  map[admit.Digest]change
}

type change struct {
	at      int64 // microseconds
	version int64
}

// look asks for what has changed since it last did, and longer ago by the overlap. It
// compares the clock of the database with itself alone.
func (w *watcher) look(ctx context.Context, forget func(admit.Digest)) error {
	now := time.Now()
	// The wall clock counts too: the other one stands still while a machine sleeps.
	past := max(now.Sub(w.asked), now.Round(0).Sub(w.asked.Round(0))) + watchOverlap
	ctx, cancel := context.WithTimeout(ctx, watchTimeout)
	defer cancel()
	query, param := `SELECT digest, changed_at, version FROM admit_keys WHERE changed_at > now() - make_interval(secs => $1)`, any(past.Seconds())
	if w.store.dialect == SQLite {
		query = `SELECT digest, changed_at, version FROM admit_keys WHERE changed_at > CAST((julianday('now') - 2440587.5) * 86400000000.0 AS INTEGER) - ?`
		param = past.Microseconds()
	}
	rows, err := w.store.db.QueryContext(ctx, query, param)
	if err != nil {
		return err
	}
	defer rows.Close()
	seen := make(map[admit.Digest]change, len(w.seen))
	for rows.Next() {
		var d digest
		var at moment
		var c change
		if err := rows.Scan(&d, &at, &c.version); err != nil {
			return err
		}
		c.at = at.UnixMicro()
		if w.seen[d.Digest] != c {
			forget(d.Digest)
		}
		if len(seen) < maxSeen {
			seen[d.Digest] = c
		}
	}
	if err := rows.Err(); err != nil {
		return err
	}
	w.asked, w.seen = now, seen
	return nil
}
