package sqlkeys_test

import (
	"context"
	"log/slog"
	neturl "net/url"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/admit-go/admit"
	"github.com/admit-go/admit/integration/servers"
	"github.com/admit-go/admit/internal/testkit"
	"github.com/admit-go/admit/sqlkeys"
)

// A server that hangs: keys that were seen before pass at once, others are 503 after the
// Timeout, Close does not wait for it, and all is well again when it goes on. One line says
// that changes are not seen, and one that they are, with how long they were not.
func TestServerHangs(t *testing.T) {
	t.Parallel()
	server := servers.StartPostgres(t)
	db := openDatabase(t, sqlkeys.PostgreSQL, "pgx", server.URL())
	db.SetMaxOpenConns(8)
	var log testkit.Buffer
	store := func() *sqlkeys.Store {
		s, err := sqlkeys.New(sqlkeys.Config{DB: db.DB, Dialect: db.dialect, Timeout: 200 * time.Millisecond, Logger: slog.New(slog.NewTextHandler(&log, nil))})
		require.NoError(t, err)
		return s
	}
	s, other := store(), store()
	defer s.Close()
	seen, cold := insert(t, s, "seen", admit.Key{}), insert(t, s, "cold", admit.Key{})
	var f forgotten
	watch(t, s, f.forget)
	require.Eventually(t, func() bool { return f.count(seen) == 1 }, soon, 10*time.Millisecond)
	cache, err := admit.NewKeyCache(s, admit.KeyCacheConfig{TTL: time.Millisecond, StaleFor: time.Hour})
	require.NoError(t, err)
	_, err = cache.LookupKey(t.Context(), seen)
	require.NoError(t, err)
	_, err = other.LookupKey(t.Context(), seen)
	require.NoError(t, err)

	server.Hang(t)
	defer server.Resume(t)
	time.Sleep(2 * time.Millisecond) // the TTL
	for range 20 {
		began := time.Now()
		_, err := cache.LookupKey(t.Context(), seen)
		require.NoError(t, err)
		assert.Less(t, time.Since(began), time.Second)
	}
	began := time.Now()
	_, err = cache.LookupKey(t.Context(), cold)
	assert.Error(t, err)
	assert.NotErrorIs(t, err, admit.ErrKeyNotFound)
	assert.Less(t, time.Since(began), 3*time.Second)
	began = time.Now()
	assert.ErrorIs(t, other.Close(), context.DeadlineExceeded)
	assert.Less(t, time.Since(began), 5*time.Second, "Close waits for two")
	require.Eventually(t, func() bool { return strings.Contains(log.String(), "cannot be seen") }, 2*soon, 10*time.Millisecond)

	server.Resume(t)
	require.Eventually(t, func() bool {
		_, err := cache.LookupKey(t.Context(), cold)
		return err == nil
	}, soon, 10*time.Millisecond)
	_, err = s.Revoke(t.Context(), "seen", time.Time{})
	require.NoError(t, err)
	require.Eventually(t, func() bool { return f.count(seen) == 2 }, soon, 10*time.Millisecond)
	assert.Equal(t, 1, strings.Count(log.String(), "cannot be seen"))
	assert.Regexp(t, `(?m)changes of keys are seen again" away=[1-9]`, log.String())
}

// Where a service may not write, the last use is not kept: no error, and one line.
func TestMayNotWrite(t *testing.T) {
	t.Parallel()
	test := func(t *testing.T, admin, db database) {
		insert(t, admin.store(t), "a", admit.Key{})
		var log testkit.Buffer
		s, err := sqlkeys.New(sqlkeys.Config{DB: db.DB, Dialect: db.dialect, Logger: slog.New(slog.NewTextHandler(&log, nil))})
		require.NoError(t, err)
		var f forgotten
		watch(t, s, f.forget)
		require.Eventually(t, func() bool { return f.count(admit.DigestOf("a")) == 1 }, soon, 10*time.Millisecond)
		_, err = s.LookupKey(t.Context(), admit.DigestOf("a"))
		require.NoError(t, err)
		require.NoError(t, s.Close())
		assert.Equal(t, 1, strings.Count(log.String(), "level="), log.String())
		assert.Contains(t, log.String(), "the last use of keys is not recorded: this service has no right to write")
		r, err := admin.store(t).Get(t.Context(), "a")
		require.NoError(t, err)
		assert.Zero(t, r.LastUsedAt)
	}
	t.Run("SELECT alone", func(t *testing.T) {
		t.Parallel()
		url := servers.PostgresDatabase(t)
		admin := openDatabase(t, sqlkeys.PostgreSQL, "pgx", url)
		at, err := neturl.Parse(url)
		require.NoError(t, err)
		reader := "reader_of_" + strings.Trim(at.Path, "/") // roles are those of the server
		admin.exec(t, `CREATE ROLE `+reader+` LOGIN; GRANT SELECT ON admit_keys TO `+reader)
		at.User = neturl.User(reader)
		test(t, admin, connect(t, sqlkeys.PostgreSQL, "pgx", at.String()))
	})
	t.Run("read-only transactions", func(t *testing.T) {
		t.Parallel()
		url := servers.PostgresDatabase(t)
		test(t, openDatabase(t, sqlkeys.PostgreSQL, "pgx", url), connect(t, sqlkeys.PostgreSQL, "pgx", url+"&default_transaction_read_only=on"))
	})
	t.Run("SQLite", func(t *testing.T) {
		t.Parallel()
		url := sqliteURL(t)
		test(t, openDatabase(t, sqlkeys.SQLite, "sqlite", url), connect(t, sqlkeys.SQLite, "sqlite", url+"&mode=ro"))
	})
}

// Close waits two seconds also for a driver that does not heed its context, as that of
// SQLite while it waits for a lock.
func TestCloseBehindALock(t *testing.T) {
	t.Parallel()
	db := openSQLite(t)
	s := db.store(t)
	insert(t, s, "a", admit.Key{})
	_, err := s.LookupKey(t.Context(), admit.DigestOf("a"))
	require.NoError(t, err)
	conn, err := db.Conn(t.Context())
	require.NoError(t, err)
	defer conn.Close()
	_, err = conn.ExecContext(t.Context(), `BEGIN IMMEDIATE`)
	require.NoError(t, err)
	began := time.Now()
	assert.ErrorContains(t, s.Close(), "sqlkeys: write the last uses: ")
	assert.Less(t, time.Since(began), 4*time.Second)
	_, err = conn.ExecContext(t.Context(), `ROLLBACK`)
	require.NoError(t, err)
}
