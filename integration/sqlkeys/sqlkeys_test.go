package sqlkeys_test

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	neturl "net/url"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	_ "modernc.org/sqlite" // the driver "sqlite"

	"github.com/admit-go/admit"
	"github.com/admit-go/admit/integration/servers"
	"github.com/admit-go/admit/internal/testkit"
	"github.com/admit-go/admit/sqlkeys"
)

// database is an empty table in a database of its own.
type database struct {
	*sql.DB
	dialect sqlkeys.Dialect
}

// everywhere runs a test on each database.
func everywhere(t *testing.T, test func(t *testing.T, db database)) {
	t.Parallel()
	t.Run("PostgreSQL", func(t *testing.T) {
		t.Parallel()
		test(t, openDatabase(t, sqlkeys.PostgreSQL, "pgx", servers.PostgresDatabase(t)))
	})
	t.Run("SQLite", func(t *testing.T) {
		t.Parallel()
		test(t, openSQLite(t))
	})
}

func openSQLite(t testing.TB) database {
	t.Helper()
	return openDatabase(t, sqlkeys.SQLite, "sqlite", sqliteURL(t))
}

func sqliteURL(t testing.TB) string {
	t.Helper()
	return "file:" + filepath.Join(t.TempDir(), "keys.db") + "?_pragma=busy_timeout(5000)&_pragma=journal_mode(WAL)"
}

func openDatabase(t testing.TB, dialect sqlkeys.Dialect, driver, url string) database {
	t.Helper()
	db := connect(t, dialect, driver, url)
	db.exec(t, sqlkeys.Schema(dialect))
	return db
}

// connect opens a database without making the table.
func connect(t testing.TB, dialect sqlkeys.Dialect, driver, url string) database {
	t.Helper()
	db, err := sql.Open(driver, url)
	require.NoError(t, err)
	t.Cleanup(func() { _ = db.Close() })
	return database{db, dialect}
}

func (db database) store(t testing.TB) *sqlkeys.Store {
	t.Helper()
	s, err := sqlkeys.New(sqlkeys.Config{DB: db.DB, Dialect: db.dialect, Logger: slog.New(slog.DiscardHandler)})
	require.NoError(t, err)
	t.Cleanup(func() { _ = s.Close() })
	return s
}

// exec runs a statement of a test; ? is a parameter.
func (db database) exec(t testing.TB, query string, args ...any) {
	t.Helper()
	if db.dialect == sqlkeys.PostgreSQL {
		for i := range args {
			query = strings.Replace(query, "?", fmt.Sprintf("$%d", i+1), 1)
		}
	}
	_, err := db.ExecContext(t.Context(), query, args...)
	require.NoError(t, err)
}

func insert(t testing.TB, s *sqlkeys.Store, token string, k admit.Key) admit.Digest {
	t.Helper()
	if k.ID == "" {
		k.ID = token
	}
	require.NoError(t, s.Insert(t.Context(), admit.DigestOf(token), &k))
	return admit.DigestOf(token)
}

func TestFaults(t *testing.T) {
	t.Parallel()
	s, err := sqlkeys.New(sqlkeys.Config{Timeout: -1})
	assert.Nil(t, s)
	for _, want := range []string{"DB is nil", "Dialect(0)", "Timeout is -1ns"} {
		assert.ErrorContains(t, err, want)
	}
	assert.Panics(t, func() { sqlkeys.Schema(0) })
}

func TestLookup(t *testing.T) {
	everywhere(t, func(t *testing.T, db database) {
		s := db.store(t)
		at := time.Date(2031, 2, 3, 4, 5, 6, 789_000, time.UTC)
		full := admit.Key{
			ID: "k1", Owner: "ACME \u2603 'x'", Plan: "pro", Scopes: []string{"orders:read", `a"b`}, Meta: map[string]string{"hint": "acme_1..."},
			NotBefore: at, ExpiresAt: at.Add(time.Hour), RevokedAt: at.Add(time.Minute),
		}
		insert(t, s, "full", full)
		insert(t, s, "bare", admit.Key{ID: "k2"})

		k, err := s.LookupKey(t.Context(), admit.DigestOf("full"))
		require.NoError(t, err)
		assert.Equal(t, &full, k)
		k, err = s.LookupKey(t.Context(), admit.DigestOf("bare"))
		require.NoError(t, err)
		assert.Equal(t, &admit.Key{ID: "k2"}, k)
		_, err = s.LookupKey(t.Context(), admit.DigestOf("none"))
		assert.ErrorIs(t, err, admit.ErrKeyNotFound)

		assert.ErrorIs(t, s.Insert(t.Context(), admit.DigestOf("full"), &admit.Key{ID: "k3"}), sqlkeys.ErrExists)
		assert.ErrorIs(t, s.Insert(t.Context(), admit.DigestOf("other"), &admit.Key{ID: "k1"}), sqlkeys.ErrExists)
		assert.Error(t, s.Insert(t.Context(), admit.DigestOf("other"), &admit.Key{}), "an id is required")
	})
}

// Whatever is not "no such row" is an outage.
func TestLookupFails(t *testing.T) {
	everywhere(t, func(t *testing.T, db database) {
		s := db.store(t)
		insert(t, s, "a", admit.Key{})
		h := admit.APIKey(s)(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
		status := func(token string) int {
			w := httptest.NewRecorder()
			r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/", nil)
			r.Header.Set("X-API-Key", token)
			h := (&admit.ErrorWriter{Logger: slog.New(slog.DiscardHandler)}).Wrap(h)
			h.ServeHTTP(w, r)
			return w.Code
		}
		assert.Equal(t, 200, status("a"))
		assert.Equal(t, 401, status("b"))

		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		_, err := s.LookupKey(ctx, admit.DigestOf("b"))
		assert.ErrorIs(t, err, context.Canceled)
		assert.NotErrorIs(t, err, admit.ErrKeyNotFound)

		db.exec(t, `ALTER TABLE admit_keys RENAME TO elsewhere`)
		assert.Equal(t, 503, status("a"))
		assert.Equal(t, 503, status("b"))
		db.exec(t, `ALTER TABLE elsewhere RENAME TO admit_keys`)
		assert.Equal(t, 200, status("a"))
		require.NoError(t, db.Close())
		assert.Equal(t, 503, status("a"))
	})
}

// A look-up has a deadline of its own, the wait for a connection included.
func TestLookupDeadline(t *testing.T) {
	everywhere(t, func(t *testing.T, db database) {
		s, err := sqlkeys.New(sqlkeys.Config{DB: db.DB, Dialect: db.dialect, Timeout: 50 * time.Millisecond})
		require.NoError(t, err)
		defer s.Close()
		db.SetMaxOpenConns(1)
		conn, err := db.Conn(t.Context())
		require.NoError(t, err)
		_, err = s.LookupKey(t.Context(), admit.DigestOf("a"))
		assert.ErrorIs(t, err, context.DeadlineExceeded)
		require.NoError(t, conn.Close())
		_, err = s.LookupKey(t.Context(), admit.DigestOf("a"))
		assert.ErrorIs(t, err, admit.ErrKeyNotFound)
	})
}

// Both hot queries are answered from an index.
func TestQueriesAreIndexed(t *testing.T) {
	everywhere(t, func(t *testing.T, db database) {
		queries := map[string]string{
			`SELECT id FROM admit_keys WHERE digest = ?`:                       "admit_keys_pkey",
			`SELECT id FROM admit_keys WHERE owner = ? AND id > ? ORDER BY id`: "admit_keys_owner",
		}
		for _, which := range []string{`k.changed_at > now()`, `(k.changed_at, k.digest) > (now(), k.digest)`} { // as Watch asks
			queries[`SELECT k.digest, (SELECT former FROM admit_keys AS f WHERE f.digest = k.digest) FROM admit_keys AS k, (SELECT CAST(NULL AS bytea) AS former) AS absent
				WHERE `+which+` AND k.changed_at < 'infinity' ORDER BY k.changed_at, k.digest LIMIT 5000`] = "admit_keys_changed_at"
		}
		if db.dialect == sqlkeys.PostgreSQL { // as a Store asks, for a table of any version
			queries[`SELECT k.* FROM (SELECT '[]'::jsonb AS networks, '[]'::jsonb AS limits, '[]'::jsonb AS quotas) AS absent,
				LATERAL (SELECT id, networks, limits, quotas FROM admit_keys WHERE digest = ?) AS k`] = "admit_keys_pkey"
			queries[`SELECT k.* FROM (SELECT '[]'::jsonb AS networks, '[]'::jsonb AS limits, '[]'::jsonb AS quotas) AS absent,
				LATERAL (SELECT id, networks, limits, quotas FROM admit_keys WHERE owner = ? AND id > ? ORDER BY id LIMIT 1000) AS k ORDER BY id`] = "admit_keys_owner"
		}
		ctx := t.Context()
		conn, err := db.Conn(ctx) // what is set holds for one connection
		require.NoError(t, err)
		defer conn.Close()
		explain := "EXPLAIN QUERY PLAN "
		if db.dialect == sqlkeys.PostgreSQL {
			explain = "EXPLAIN (FORMAT JSON) "
			_, err := conn.ExecContext(ctx, `SET enable_seqscan = off`) // the table is too small for it to be worse
			require.NoError(t, err)
		}
		for query, index := range queries {
			if db.dialect == sqlkeys.PostgreSQL {
				query = strings.ReplaceAll(strings.Replace(query, "digest = ?", `digest = '\x00'`, 1), "?", "'x'")
			} else {
				query = strings.Replace(strings.ReplaceAll(query, "?", "'x'"), "now()", "CAST((julianday('now') - 2440587.5) * 86400000000.0 AS INTEGER)", 1)
			}
			rows, err := conn.QueryContext(ctx, explain+query)
			require.NoError(t, err)
			var plan strings.Builder
			for rows.Next() {
				if db.dialect == sqlkeys.PostgreSQL {
					var line string
					require.NoError(t, rows.Scan(&line))
					plan.WriteString(line)
					continue
				}
				var id, parent, unused int
				var line string
				require.NoError(t, rows.Scan(&id, &parent, &unused, &line))
				plan.WriteString(line)
			}
			require.NoError(t, rows.Err())
			if db.dialect == sqlkeys.SQLite && index == "admit_keys_pkey" {
				index = "PRIMARY KEY (digest=?)"
			}
			assert.Contains(t, plan.String(), index, query)
		}
	})
}

func TestManage(t *testing.T) {
	everywhere(t, func(t *testing.T, db database) {
		s := db.store(t)
		ctx := t.Context()
		begin := time.Now().Add(-time.Second)
		soon := time.Now().Add(time.Hour).Truncate(time.Microsecond).UTC()
		insert(t, s, "1", admit.Key{ID: "old", Owner: "ACME", Scopes: []string{"x"}})
		for i := range 2100 {
			insert(t, s, fmt.Sprintf("bulk %d", i), admit.Key{ID: fmt.Sprintf("bulk-%04d", i), Owner: "bulk"})
		}

		r, err := s.Get(ctx, "old")
		require.NoError(t, err)
		assert.Equal(t, admit.DigestOf("1"), r.Digest)
		assert.Equal(t, admit.Key{ID: "old", Owner: "ACME", Scopes: []string{"x"}}, r.Key)
		assert.WithinRange(t, r.CreatedAt, begin, time.Now().Add(time.Second))
		assert.Zero(t, r.LastUsedAt)
		_, err = s.Get(ctx, "none")
		assert.ErrorIs(t, err, admit.ErrKeyNotFound)

		list := func(owner string) (ids []string) {
			for r, err := range s.List(ctx, owner) {
				require.NoError(t, err)
				ids = append(ids, r.ID)
			}
			return ids
		}
		assert.Len(t, list("bulk"), 2100)
		assert.True(t, slices.IsSorted(list("bulk")))
		assert.Len(t, list(""), 2101)
		assert.Empty(t, list("nobody"))
		for range s.List(ctx, "") {
			break // which has to work too
		}

		// Rotation: two keys of one owner at once.
		require.NoError(t, s.Rotate(ctx, "old", soon, admit.DigestOf("2"), &admit.Key{ID: "new", Owner: "ACME", Scopes: []string{"x"}}))
		assert.Equal(t, []string{"new", "old"}, list("ACME"))
		k, err := s.LookupKey(ctx, admit.DigestOf("1"))
		require.NoError(t, err)
		assert.Equal(t, soon, k.ExpiresAt)
		k, err = s.LookupKey(ctx, admit.DigestOf("2"))
		require.NoError(t, err)
		assert.Zero(t, k.ExpiresAt)
		require.NoError(t, s.Rotate(ctx, "old", soon.Add(time.Hour), admit.DigestOf("3"), &admit.Key{ID: "newer"}))
		k, err = s.LookupKey(ctx, admit.DigestOf("1"))
		require.NoError(t, err)
		assert.Equal(t, soon, k.ExpiresAt, "rotation makes no key live longer")

		assert.ErrorIs(t, s.Rotate(ctx, "none", soon, admit.DigestOf("4"), &admit.Key{ID: "x"}), admit.ErrKeyNotFound)
		assert.ErrorIs(t, s.Rotate(ctx, "new", soon, admit.DigestOf("4"), &admit.Key{ID: "old"}), sqlkeys.ErrExists)
		r, err = s.Get(ctx, "new")
		require.NoError(t, err)
		assert.Zero(t, r.ExpiresAt, "both or neither")

		r, err = s.Revoke(ctx, "new", soon)
		require.NoError(t, err)
		assert.Equal(t, soon, r.RevokedAt)
		r, err = s.Revoke(ctx, "new", time.Time{})
		require.NoError(t, err)
		assert.WithinRange(t, r.RevokedAt, begin, time.Now(), "zero is now")
		first := r.RevokedAt
		r, err = s.Revoke(ctx, "new", soon)
		require.NoError(t, err)
		assert.Equal(t, first, r.RevokedAt, "what is revoked stays so")
		_, err = s.Revoke(ctx, "none", soon)
		assert.ErrorIs(t, err, admit.ErrKeyNotFound)
		assert.ErrorIs(t, s.Rotate(ctx, "new", soon, admit.DigestOf("5"), &admit.Key{ID: "y"}), sqlkeys.ErrNotValid)
	})
}

// A text that a database cannot hold is in no row, and in none that is to be made.
func TestTextsThatNoRowHas(t *testing.T) {
	everywhere(t, func(t *testing.T, db database) {
		s := db.store(t)
		ctx := t.Context()
		insert(t, s, "a", admit.Key{Owner: "ACME"})
		for _, id := range []string{"a\x00b", "a\xff", "\x00", strings.Repeat("x", 1<<20)} {
			_, err := s.Get(ctx, id)
			assert.ErrorIs(t, err, admit.ErrKeyNotFound, "%q", id)
			_, err = s.Revoke(ctx, id, time.Time{})
			assert.ErrorIs(t, err, admit.ErrKeyNotFound, "%q", id)
			_, err = s.Update(ctx, id, func(*admit.Key) error { return nil })
			assert.ErrorIs(t, err, admit.ErrKeyNotFound, "%q", id)
			assert.ErrorIs(t, s.Rotate(ctx, id, time.Time{}, admit.DigestOf("b"), &admit.Key{ID: "b"}), admit.ErrKeyNotFound, "%q", id)
			for r, err := range s.List(ctx, id) {
				assert.Fail(t, "an owner of that name", "%v %v", r, err)
			}
		}
		if db.dialect == sqlkeys.SQLite {
			return
		}
		for i, k := range []admit.Key{
			{ID: "a\x00b"},
			{ID: "x", Owner: "a\x00b"},
			{ID: "x", Plan: "\xff"},
			{ID: "x", Scopes: []string{"a\x00b"}},
			{ID: "x", Meta: map[string]string{"a": "\xff"}},
			{ID: "x", Meta: map[string]string{"\x00": "a"}},
		} {
			assert.ErrorContains(t, s.Insert(ctx, admit.DigestOf("x"), &k), "PostgreSQL cannot store it", i)
			if k.ID == "x" {
				_, err := s.Update(ctx, "a", func(to *admit.Key) error { *to = k; to.ID = "a"; return nil })
				assert.ErrorContains(t, err, "PostgreSQL cannot store it", i)
			}
		}
	})
}

// The last use of valid keys is written by Close, and at most once a minute for each.
func TestLastUse(t *testing.T) {
	everywhere(t, func(t *testing.T, db database) {
		manage := db.store(t)
		const n = 1203 // more than a batch
		for i := range n {
			insert(t, manage, fmt.Sprint(i), admit.Key{})
		}
		insert(t, manage, "expired", admit.Key{ExpiresAt: time.Now().Add(-time.Hour)})
		insert(t, manage, "revoked", admit.Key{RevokedAt: time.Now().Add(-time.Hour)})
		insert(t, manage, "early", admit.Key{NotBefore: time.Now().Add(time.Hour)})
		insert(t, manage, "unused", admit.Key{})

		use := func(tokens ...string) {
			s := db.store(t)
			for _, token := range tokens {
				_, err := s.LookupKey(t.Context(), admit.DigestOf(token))
				require.NoError(t, err)
			}
			r, err := s.Get(t.Context(), "0")
			require.NoError(t, err)
			before := r.LastUsedAt
			require.NoError(t, s.Close())
			require.NoError(t, s.Close())
			if before.IsZero() {
				r, err = manage.Get(t.Context(), "0")
				require.NoError(t, err)
				assert.NotZero(t, r.LastUsedAt, "it was not written with the look-up, but later")
			}
		}
		tokens := []string{"expired", "revoked", "early"}
		for i := range n {
			tokens = append(tokens, fmt.Sprint(i))
		}
		use(tokens...)
		used := 0
		for r, err := range manage.List(t.Context(), "") {
			require.NoError(t, err)
			switch r.ID {
			case "expired", "revoked", "early", "unused":
				assert.Zero(t, r.LastUsedAt, r.ID)
			default:
				used++
				assert.WithinRange(t, r.LastUsedAt, time.Now().Add(-time.Minute), time.Now(), r.ID)
			}
		}
		assert.Equal(t, n, used)

		first, err := manage.Get(t.Context(), "0")
		require.NoError(t, err)
		use("0")
		again, err := manage.Get(t.Context(), "0")
		require.NoError(t, err)
		assert.Equal(t, first.LastUsedAt, again.LastUsedAt, "not twice in a minute")
		long := time.Now().Add(-61 * time.Second)
		if db.dialect == sqlkeys.SQLite {
			db.exec(t, `UPDATE admit_keys SET last_used_at = ? WHERE id = '0'`, long.UnixMicro())
		} else {
			db.exec(t, `UPDATE admit_keys SET last_used_at = ? WHERE id = '0'`, long)
		}
		use("0")
		again, err = manage.Get(t.Context(), "0")
		require.NoError(t, err)
		assert.WithinRange(t, again.LastUsedAt, first.LastUsedAt, time.Now())
	})
}

// forgotten collects what Watch tells.
type forgotten struct {
	mu    sync.Mutex
	times map[admit.Digest]int
}

func (f *forgotten) forget(d admit.Digest) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.times == nil {
		f.times = map[admit.Digest]int{}
	}
	f.times[d]++
}

func (f *forgotten) count(d admit.Digest) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.times[d]
}

func watch(t *testing.T, s *sqlkeys.Store, forget func(admit.Digest)) {
	ctx, stop := context.WithCancel(t.Context())
	var w sync.WaitGroup
	w.Go(func() { s.Watch(ctx, forget) })
	t.Cleanup(func() {
		stop()
		w.Wait()
	})
}

const soon = 10 * time.Second // by then it has happened, on a slow machine too

func TestWatch(t *testing.T) {
	everywhere(t, func(t *testing.T, db database) {
		s := db.store(t)
		old := insert(t, s, "old", admit.Key{})
		if db.dialect == sqlkeys.SQLite {
			db.exec(t, `UPDATE admit_keys SET changed_at = 0`)
		} else {
			db.exec(t, `UPDATE admit_keys SET changed_at = '2020-01-01'`)
		}
		var f forgotten
		watch(t, s, f.forget)
		told := func(d admit.Digest, n int) {
			t.Helper()
			require.Eventually(t, func() bool { return f.count(d) == n }, soon, 10*time.Millisecond, "%d times", n)
		}
		fresh := insert(t, s, "fresh", admit.Key{})
		told(fresh, 1)
		_, err := s.Revoke(t.Context(), "old", time.Time{})
		require.NoError(t, err)
		told(old, 1)
		db.exec(t, `UPDATE admit_keys SET plan = 'by hand' WHERE id = 'old'`)
		told(old, 2)
		db.exec(t, `UPDATE admit_keys SET last_used_at = created_at`)
		last := insert(t, s, "last", admit.Key{})
		told(last, 1)
		assert.Equal(t, 1, f.count(fresh), "each change is told once, and the last use is none")
		assert.Equal(t, 2, f.count(old))
	})
}

// A digest that is no key's any more is forgotten as one that is revoked: each that the key
// had before, however fast they were changed.
func TestWatchFollowsADigest(t *testing.T) {
	everywhere(t, func(t *testing.T, db database) {
		s := db.store(t)
		digests := []admit.Digest{insert(t, s, "0", admit.Key{ID: "k"})}
		for i := range 10 {
			digests = append(digests, admit.DigestOf(fmt.Sprint(i+1)))
		}
		for n := range 256 { // whatever bytes a digest has
			insert(t, s, fmt.Sprint("bytes ", n), admit.Key{})
			db.exec(t, `UPDATE admit_keys SET digest = ? WHERE id = ?`, bytes.Repeat([]byte{byte(n)}, 32), fmt.Sprint("bytes ", n))
		}
		cache, err := admit.NewKeyCache(s, admit.KeyCacheConfig{TTL: time.Hour, StaleFor: time.Hour})
		require.NoError(t, err)
		_, err = cache.LookupKey(t.Context(), digests[0])
		require.NoError(t, err)
		var f forgotten
		watch(t, s, func(d admit.Digest) { cache.Forget(d); f.forget(d) })
		require.Eventually(t, func() bool { return f.count(digests[0]) > 0 }, soon, 10*time.Millisecond)
		_, err = cache.LookupKey(t.Context(), digests[0])
		require.NoError(t, err)

		for _, d := range digests[1:5] {
			db.exec(t, `UPDATE admit_keys SET digest = ? WHERE id = 'k'`, d[:])
		}
		require.Eventually(t, func() bool {
			_, err := cache.LookupKey(t.Context(), digests[0])
			return errors.Is(err, admit.ErrKeyNotFound)
		}, soon, 10*time.Millisecond)
		for i, d := range digests[:5] {
			assert.NotZero(t, f.count(d), i)
		}
		for n := range 256 {
			assert.NotZero(t, f.count(admit.DigestOf(fmt.Sprint("bytes ", n))), n)
		}

		for _, d := range digests[5:] {
			db.exec(t, `UPDATE admit_keys SET digest = ? WHERE id = 'k'`, d[:])
		}
		var former []byte
		require.NoError(t, db.QueryRowContext(t.Context(), `SELECT former FROM admit_keys WHERE id = 'k'`).Scan(&former))
		require.Len(t, former, 8*32, "the last eight")
		for i := range 8 {
			assert.Equal(t, digests[9-i], admit.Digest(former[32*i:]))
		}
	})
}

// What Watch cannot read must not keep it from what comes after.
func TestWatchPassesUnreadableRows(t *testing.T) {
	everywhere(t, func(t *testing.T, db database) {
		s := db.store(t)
		insert(t, s, "bad", admit.Key{})
		if db.dialect == sqlkeys.PostgreSQL {
			db.exec(t, `UPDATE admit_keys SET changed_at = 'infinity'`)
		} else {
			db.exec(t, `UPDATE admit_keys SET changed_at = 'tomorrow', version = 'x'`)
		}
		var f forgotten
		watch(t, s, f.forget)
		good := insert(t, s, "good", admit.Key{})
		require.Eventually(t, func() bool { return f.count(good) == 1 }, soon, 10*time.Millisecond)
		_, err := s.Revoke(t.Context(), "bad", time.Time{})
		require.NoError(t, err)
		require.Eventually(t, func() bool { return f.count(admit.DigestOf("bad")) == 1 }, soon, 10*time.Millisecond)
	})
}

// Watch catches up after a change that it cannot read at once: many rows over a slow link.
// A key that is revoked meanwhile is told, and little is told twice.
func TestWatchCatchesUp(t *testing.T) {
	t.Parallel()
	const n = 20_000
	slow := servers.Weather{Delay: 150 * time.Millisecond} // of a piece of 32 KiB: 220 KB a second
	url := servers.PostgresDatabase(t)
	admin := openDatabase(t, sqlkeys.PostgreSQL, "pgx", url)
	admin.exec(t, `INSERT INTO admit_keys (digest, id, changed_at) SELECT sha256(convert_to('key ' || i, 'UTF8')), 'k-' || i, '2020-01-01' FROM generate_series(1, ?::int) i`, n)
	manage := admin.store(t)
	revoked := insert(t, manage, "revoked", admit.Key{})

	at, err := neturl.Parse(url)
	require.NoError(t, err)
	proxy := servers.StartProxy(t, at.Host)
	at.Host = proxy.Addr
	var log testkit.Buffer
	s, err := sqlkeys.New(sqlkeys.Config{DB: connect(t, sqlkeys.PostgreSQL, "pgx", at.String()).DB, Dialect: sqlkeys.PostgreSQL, Logger: slog.New(slog.NewTextHandler(&log, nil))})
	require.NoError(t, err)
	defer s.Close()
	var f forgotten
	watch(t, s, f.forget)
	require.Eventually(t, func() bool { return f.count(revoked) == 1 }, soon, 10*time.Millisecond)

	proxy.Set(slow)
	admin.exec(t, `UPDATE admit_keys SET plan = 'new' WHERE id LIKE 'k-%'`)
	changed := time.Now()
	_, err = manage.Revoke(t.Context(), "revoked", time.Time{})
	require.NoError(t, err)
	require.Eventually(t, func() bool { return f.count(revoked) == 2 }, time.Minute, 10*time.Millisecond)
	t.Logf("%d changes of keys, and a revocation after them, were told in %v", n, time.Since(changed).Round(time.Millisecond))
	for _, i := range []int{1, n / 2, n} {
		assert.Equal(t, 1, f.count(admit.DigestOf(fmt.Sprint("key ", i))), i)
	}
	assert.NotContains(t, log.String(), "cannot be seen")

	// A link that is cut before a page is through, again and again: what was read is kept.
	told := func() bool {
		for i := range 10_000 {
			if f.count(admit.DigestOf(fmt.Sprint("key ", 10_000+i))) < 2 {
				return false
			}
		}
		return true
	}
	admin.exec(t, `UPDATE admit_keys SET plan = 'newer' WHERE id ~ '^k-1....$'`)
	for began := time.Now(); !told(); {
		require.Less(t, time.Since(began), time.Minute)
		time.Sleep(2500 * time.Millisecond)
		proxy.Set(servers.Weather{Cut: true})
		proxy.Set(slow)
	}
	assert.Contains(t, log.String(), "cannot be seen")
}

// A change that is committed late, after others that came later, is told as well.
func TestWatchLateCommit(t *testing.T) {
	t.Parallel()
	db := openDatabase(t, sqlkeys.PostgreSQL, "pgx", servers.PostgresDatabase(t))
	s := db.store(t)
	late, early := insert(t, s, "late", admit.Key{}), insert(t, s, "early", admit.Key{})
	var f forgotten
	watch(t, s, f.forget)
	require.Eventually(t, func() bool { return f.count(late) == 1 && f.count(early) == 1 }, soon, 10*time.Millisecond)
	tx, err := db.Begin()
	require.NoError(t, err)
	defer tx.Rollback()
	_, err = tx.Exec(`UPDATE admit_keys SET revoked_at = now() WHERE id = 'late'`)
	require.NoError(t, err)
	_, err = s.Revoke(t.Context(), "early", time.Time{})
	require.NoError(t, err)
	require.Eventually(t, func() bool { return f.count(early) == 2 }, soon, 10*time.Millisecond)
	assert.Equal(t, 1, f.count(late))
	require.NoError(t, tx.Commit())
	require.Eventually(t, func() bool { return f.count(late) == 2 }, soon, 10*time.Millisecond)
}

// Two services, each with a cache, see a revocation within a second or so.
func TestRevocationTravels(t *testing.T) {
	everywhere(t, func(t *testing.T, db database) {
		admin := db.store(t)
		insert(t, admin, "key", admit.Key{})
		var services []*admit.Auth
		for range 2 {
			s := db.store(t)
			cache, err := admit.NewKeyCache(s, admit.KeyCacheConfig{TTL: time.Hour})
			require.NoError(t, err)
			ctx, stop := context.WithCancel(t.Context())
			var w sync.WaitGroup
			w.Go(func() { s.Watch(ctx, cache.Forget) })
			t.Cleanup(func() { stop(); w.Wait() })
			auth, err := admit.NewAuth(admit.AuthConfig{Store: cache})
			require.NoError(t, err)
			services = append(services, auth)
		}
		for _, auth := range services {
			_, err := auth.Verify(t.Context(), "key")
			require.NoError(t, err)
		}
		_, err := admin.Revoke(t.Context(), "key", time.Time{})
		require.NoError(t, err)
		for _, auth := range services {
			require.Eventually(t, func() bool {
				_, err := auth.Verify(t.Context(), "key")
				var e *admit.Error
				return errors.As(err, &e) && e.Code == "key_invalid"
			}, soon, 10*time.Millisecond)
		}
	})
}

// The server dies under load. Keys that the cache has go on, others get 503, nobody
// gets 401; when the server is back, all of it recovers, changes included.
func TestServerDies(t *testing.T) {
	t.Parallel()
	server := servers.StartPostgres(t)
	db := openDatabase(t, sqlkeys.PostgreSQL, "pgx", server.URL())
	var log testkit.Buffer
	s, err := sqlkeys.New(sqlkeys.Config{DB: db.DB, Dialect: db.dialect, Logger: slog.New(slog.NewTextHandler(&log, nil))})
	require.NoError(t, err)
	defer s.Close()
	cached := insert(t, s, "cached", admit.Key{})
	insert(t, s, "cold", admit.Key{})
	cache, err := admit.NewKeyCache(s, admit.KeyCacheConfig{TTL: 50 * time.Millisecond, NegativeTTL: time.Millisecond, StaleFor: time.Hour})
	require.NoError(t, err)
	ctx, stop := context.WithCancel(t.Context())
	var background sync.WaitGroup
	var told forgotten
	background.Go(func() {
		s.Watch(ctx, func(d admit.Digest) {
			cache.Forget(d)
			told.forget(d)
		})
	})
	defer background.Wait()
	defer stop()

	quiet := &admit.ErrorWriter{Logger: slog.New(slog.DiscardHandler)}
	service := testkit.Serve(t, testkit.HTTP1, quiet.Wrap(admit.APIKey(cache)(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))))
	status := func(token string) int {
		res, _ := testkit.Do(t, service, "GET", "/", "", "X-API-Key", token)
		if res.StatusCode == 503 {
			assert.NotEmpty(t, res.Header.Get("Retry-After"))
		}
		return res.StatusCode
	}
	require.Equal(t, 200, status("cached"))
	require.Equal(t, 401, status("unknown"))
	// That the keys are new is told before the server dies, or they would be forgotten.
	require.Eventually(t, func() bool { return told.count(cached) == 1 }, soon, 10*time.Millisecond)
	require.Equal(t, 200, status("cached"))

	var load sync.WaitGroup
	ended := make(chan struct{})
	for range 4 {
		load.Go(func() {
			for {
				select {
				case <-ended:
					return
				default:
					assert.Equal(t, 200, status("cached"), "fresh or stale, but in")
				}
			}
		})
	}
	server.Stop()
	for begin := time.Now(); time.Since(begin) < 2*time.Second; {
		assert.Equal(t, 503, status("cold"))
		assert.Equal(t, 503, status("unknown"))
	}
	require.Eventually(t, func() bool { return strings.Contains(log.String(), "cannot be seen") }, soon, 10*time.Millisecond)
	server.Start(t)
	require.Eventually(t, func() bool { return status("cold") == 200 && status("unknown") == 401 }, soon, 10*time.Millisecond)
	close(ended)
	load.Wait()
	require.Eventually(t, func() bool { return strings.Contains(log.String(), "seen again") }, soon, 10*time.Millisecond)
	assert.Equal(t, 1, strings.Count(log.String(), "cannot be seen"), "once, not once a second")
	_, err = s.Revoke(t.Context(), "cached", time.Time{})
	require.NoError(t, err)
	require.Eventually(t, func() bool { return status("cached") == 401 }, soon, 10*time.Millisecond)
}
