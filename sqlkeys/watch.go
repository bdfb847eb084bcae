package sqlkeys

import (
	"context"
	"fmt"
	"time"

	"github.com/admit-go/admit"
	"github.com/admit-go/admit/internal/outage"
	"github.com/admit-go/admit/internal/sqldb"
)

const (
	watchEvery   = time.Second
	watchTimeout = 5 * time.Second // of a page
	watchPage    = 5000            // changes, of about 80 bytes each on the wire
	// watchOverlap is how far each pass looks back: a change becomes visible when it is
	// committed, some time after its timestamp. A change that takes longer to commit is not
	// seen; the TTL of the cache bounds that.
	watchOverlap = 10 * time.Second
	// maxSeen is how many changes of that time are remembered, so that each is reported once.
	// Beyond that some are reported again, which is harmless.
	maxSeen = 100_000
)

// Watch calls forget with the digest of each key that any program adds or changes, until ctx is
// done. For a key whose digest has changed it also calls forget with the last eight digests
// before. It queries once a second, with an indexed query, and resumes where it stopped, so it
// catches up after an outage, or with many changes over a slow link. Start it before the
// service takes requests, once for each cache, with (*admit.KeyCache).Forget.
//
// On a table of version 1 Watch does not see the previous digests of a key.
func (s *Store) Watch(ctx context.Context, forget func(admit.Digest)) {
	w := watcher{store: s, asked: time.Now()}
	blind := outage.Log{Logger: s.logger}
	ticks := time.NewTicker(watchEvery)
	defer ticks.Stop()
	for {
		switch err := w.look(ctx, forget); {
		case ctx.Err() != nil:
			return
		case err != nil:
			blind.Fails("sqlkeys: changes of keys cannot be seen; until they can, caches rely on their TTL", s.explain(err))
		default:
			blind.Works("sqlkeys: changes of keys are seen again")
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
	asked time.Time // when the last completed pass began
	seen  changes   // in that pass
	pass  *pass     // that has not been completed; nil: none
}

// changes are the latest known changes, by digest.
type changes map[admit.Digest]change

type change struct {
	at      int64 // microseconds
	version int64
}

// pass reads everything that has changed since the previous pass began, less the overlap. It
// may take more than one look.
type pass struct {
	began time.Time
	seen  changes
	at    sqldb.Moment // of the last row that was read; zero: none was
	last  []byte       // its digest
}

// look resumes a pass that has failed after some rows, or else begins a new one.
func (w *watcher) look(ctx context.Context, forget func(admit.Digest)) error {
	if w.pass == nil || w.pass.at.IsZero() {
		w.pass = &pass{began: time.Now(), seen: changes{}}
	}
	for {
		n, err := w.page(ctx, forget)
		if err != nil {
			return err
		}
		if n < watchPage {
			w.asked, w.seen, w.pass = w.pass.began, w.pass.seen, nil
			return nil
		}
	}
}

// page reads the next rows of the pass, the oldest change first, and returns their number. Rows
// read before an error count.
func (w *watcher) page(ctx context.Context, forget func(admit.Digest)) (n int, err error) {
	ctx, cancel := context.WithTimeout(ctx, watchTimeout)
	defer cancel()
	which, args := w.next()
	rows, err := w.store.db.QueryContext(ctx, w.store.dialect.Query(w.store.selectChanges(which)), args...)
	if err != nil {
		return 0, err
	}
	defer rows.Close()
	for ; rows.Next(); n++ {
		var digest, former []byte
		var at sqldb.Moment
		var version int64
		if err := rows.Scan(&digest, &at, &version, &former); err != nil {
			return n, err
		}
		w.pass.at, w.pass.last = at, digest
		if len(digest) != len(admit.Digest{}) {
			continue // not a digest
		}
		d, c := admit.Digest(digest), change{at.UnixMicro(), version}
		if w.seen[d] != c {
			forget(d)
			for ; len(former) >= len(d); former = former[len(d):] {
				forget(admit.Digest(former))
			}
		}
		if len(w.pass.seen) < maxSeen {
			w.pass.seen[d] = c
		}
	}
	return n, rows.Err()
}

// next returns the condition for the next rows. It compares the clock of the database only with
// itself.
func (w *watcher) next() (which string, args []any) {
	if !w.pass.at.IsZero() {
		return `(k.changed_at, k.digest) > (?, ?)`, []any{w.store.dialect.Moment(w.pass.at.Time), w.pass.last}
	}
	// The wall clock counts too: the monotonic clock stands still while a machine sleeps.
	now := time.Now()
	past := max(now.Sub(w.asked), now.Round(0).Sub(w.asked.Round(0))) + watchOverlap
	if w.store.dialect == SQLite {
		return `k.changed_at > ` + w.store.dialect.Now() + ` - ?`, []any{past.Microseconds()}
	}
	return `k.changed_at > ` + w.store.dialect.Now() + ` - make_interval(secs => ?)`, []any{past.Seconds()}
}

// selectChanges returns the query for changes, on a table of any version: without a column
// former, that of absent is used. It skips infinite and malformed times, since no row would
// ever come after them.
func (s *Store) selectChanges(which string) string {
	sane := `k.changed_at < 'infinity'`
	if s.dialect == SQLite {
		sane = `typeof(k.changed_at) = 'integer'`
	}
	return fmt.Sprintf(`SELECT k.digest, k.changed_at, CAST(k.version AS bigint), (SELECT former FROM admit_keys AS f WHERE f.digest = k.digest)
		FROM admit_keys AS k, (SELECT CAST(NULL AS bytea) AS former) AS absent
		WHERE %s AND %s ORDER BY k.changed_at, k.digest LIMIT %d`, which, sane, watchPage)
}
