package sqlkeys_test

import (
	"context"
	"database/sql"
	"encoding/hex"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/admit-go/admit"
	"github.com/admit-go/admit/integration/servers"
	"github.com/admit-go/admit/internal/testkit"
	"github.com/admit-go/admit/sqlkeys"
)

// emptyEverywhere runs a test on each database, without a table.
func emptyEverywhere(t *testing.T, test func(t *testing.T, db database)) {
	t.Parallel()
	t.Run("PostgreSQL", func(t *testing.T) {
		t.Parallel()
		test(t, connect(t, sqlkeys.PostgreSQL, "pgx", servers.PostgresDatabase(t)))
	})
	t.Run("SQLite", func(t *testing.T) {
		t.Parallel()
		test(t, connect(t, sqlkeys.SQLite, "sqlite", sqliteURL(t)))
	})
}

// oldEverywhere runs a test on each database, with the table of version 1, filled.
func oldEverywhere(t *testing.T, test func(t *testing.T, db database)) {
	emptyEverywhere(t, func(t *testing.T, db database) {
		db.exec(t, testdata(t, strings.ToLower(db.dialect.String())+"_1.sql"))
		digest, at := `X'%s'`, fmt.Sprint(old.UnixMicro())
		if db.dialect == sqlkeys.PostgreSQL {
			digest, at = `'\x%s'`, "'"+old.Format(time.RFC3339Nano)+"'"
		}
		of := func(token string) string {
			d := admit.DigestOf(token)
			return fmt.Sprintf(digest, hex.EncodeToString(d[:]))
		}
		db.exec(t, strings.NewReplacer("{full}", of("full"), "{bare}", of("bare"), "{at}", at).Replace(testdata(t, "keys_1.sql")))
		test(t, db)
	})
}

var (
	old     = time.Date(2031, 2, 3, 4, 5, 6, 789_000, time.UTC)
	oldFull = admit.Key{
		ID: "full", Owner: "ACME \u2603 'x'", Plan: "pro", Scopes: []string{"orders:read", `a"b`}, Meta: map[string]string{"hint": "acme_1..."},
		NotBefore: old, ExpiresAt: old, RevokedAt: old,
	}
	office  = []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24"), netip.MustParsePrefix("2001:db8::/32")}
	tenADay = []admit.Limit{{Requests: 1, Per: time.Second, Burst: 5}, {Name: "day", Requests: 10, Per: 24 * time.Hour}}
	aMonth  = []admit.Quota{{Requests: 999_999_999_999_999, Every: admit.Week}, {Name: "sold", Requests: 20_000, Every: admit.Month, Soft: true}}
)

func testdata(t testing.TB, name string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("testdata", name))
	require.NoError(t, err)
	return string(text)
}

// upgrade does what the command prints, as its comment asks for.
func (db database) upgrade(t testing.TB) {
	t.Helper()
	tx, err := db.BeginTx(t.Context(), nil)
	require.NoError(t, err)
	defer tx.Rollback()
	_, err = tx.ExecContext(t.Context(), sqlkeys.SchemaFrom(db.dialect, 1))
	require.NoError(t, err)
	require.NoError(t, tx.Commit())
}

func (db database) columns(t testing.TB) (names []string) {
	t.Helper()
	rows, err := db.QueryContext(t.Context(), `SELECT * FROM admit_keys LIMIT 0`)
	require.NoError(t, err)
	defer rows.Close()
	names, err = rows.Columns()
	require.NoError(t, err)
	require.NoError(t, rows.Err())
	return names
}

func TestSchemaFromPanics(t *testing.T) {
	t.Parallel()
	for _, version := range []int{-1, 0, 3} {
		assert.Panics(t, func() { sqlkeys.SchemaFrom(sqlkeys.SQLite, version) }, version)
	}
	assert.Panics(t, func() { sqlkeys.SchemaFrom(0, 1) })
	assert.Panics(t, func() { sqlkeys.SchemaFrom(0, 2) })
	assert.Empty(t, sqlkeys.SchemaFrom(sqlkeys.PostgreSQL, 2))
}

// The table of version 1 goes on working as long as no new column is used, and the
// command is named once one is.
func TestOldTable(t *testing.T) {
	oldEverywhere(t, func(t *testing.T, db database) {
		s := db.store(t)
		ctx := t.Context()
		command := "upgrade it with the output of `admit keys schema " + strings.ToLower(db.dialect.String()) + " --from 1`"

		k, err := s.LookupKey(ctx, admit.DigestOf("full"))
		require.NoError(t, err)
		assert.Equal(t, &oldFull, k)
		insert(t, s, "new", admit.Key{ID: "new", Owner: "ACME"})
		r, err := s.Update(ctx, "new", func(k *admit.Key) error { k.Plan = "pro"; return nil })
		require.NoError(t, err)
		assert.Equal(t, admit.Key{ID: "new", Owner: "ACME", Plan: "pro"}, r.Key)
		require.NoError(t, s.Rotate(ctx, "new", time.Now().Add(time.Hour), admit.DigestOf("next"), &admit.Key{ID: "next"}))
		_, err = s.Revoke(ctx, "next", time.Time{})
		require.NoError(t, err)
		var ids []string
		for r, err := range s.List(ctx, "") {
			require.NoError(t, err)
			ids = append(ids, r.ID)
		}
		assert.Equal(t, []string{"bare", "full", "new", "next"}, ids)

		for column, with := range map[string]admit.Key{
			"networks": {ID: "with", Networks: office},
			"limits":   {ID: "with", Limits: tenADay},
			"quotas":   {ID: "with", Quotas: aMonth},
		} {
			change := func(k *admit.Key) error {
				k.Networks, k.Limits, k.Quotas = with.Networks, with.Limits, with.Quotas
				return nil
			}
			_, updated := s.Update(ctx, "new", change)
			for _, err := range []error{
				s.Insert(ctx, admit.DigestOf("with"), &with),
				s.Rotate(ctx, "new", time.Now(), admit.DigestOf("with"), &with),
				updated,
			} {
				require.Error(t, err, column)
				assert.ErrorContains(t, err, command)
				assert.ErrorContains(t, err, "has no column ")
			}
			assert.ErrorContains(t, updated, "has no column "+column)
		}
		_, err = s.Get(ctx, "with")
		assert.ErrorIs(t, err, admit.ErrKeyNotFound)
		r, err = s.Get(ctx, "new")
		require.NoError(t, err)
		assert.Equal(t, admit.KeyValid, r.Status(time.Now()), "both or neither")
	})
}

// A filled table of version 1 becomes the one of Schema, whole, and may do so twice.
func TestUpgrade(t *testing.T) {
	oldEverywhere(t, func(t *testing.T, db database) {
		db.upgrade(t)
		twice := func() {
			_, err := db.ExecContext(t.Context(), sqlkeys.SchemaFrom(db.dialect, 1))
			if db.dialect == sqlkeys.PostgreSQL {
				require.NoError(t, err)
			} else {
				require.ErrorContains(t, err, "networks")
			}
		}
		twice()
		s := db.store(t)
		r, err := s.Get(t.Context(), "full")
		require.NoError(t, err)
		assert.Equal(t, &sqlkeys.Record{Key: oldFull, Digest: admit.DigestOf("full"), CreatedAt: old, LastUsedAt: old}, r)
		_, err = s.Update(t.Context(), "bare", func(k *admit.Key) error {
			k.Networks, k.Limits, k.Quotas = office, tenADay, aMonth
			return nil
		})
		require.NoError(t, err)
		twice()
		k, err := s.LookupKey(t.Context(), admit.DigestOf("bare"))
		require.NoError(t, err)
		assert.Equal(t, &admit.Key{ID: "bare", Networks: office, Limits: tenADay, Quotas: aMonth}, k)
		var version int
		require.NoError(t, db.QueryRowContext(t.Context(), `SELECT version FROM admit_keys WHERE id = 'bare'`).Scan(&version))
		assert.Equal(t, 2, version, "by the trigger, once")
		for _, column := range []string{"networks", "limits", "quotas"} {
			db.exec(t, `UPDATE admit_keys SET `+column+` = '[]' WHERE id = 'bare'`)
		}
		require.NoError(t, db.QueryRowContext(t.Context(), `SELECT version FROM admit_keys WHERE id = 'bare'`).Scan(&version))
		assert.Equal(t, 5, version, "the trigger looks at the new columns")
		d, before := admit.DigestOf("other"), admit.DigestOf("bare")
		db.exec(t, `UPDATE admit_keys SET digest = ? WHERE id = 'bare'`, d[:])
		var former []byte
		require.NoError(t, db.QueryRowContext(t.Context(), `SELECT former FROM admit_keys WHERE id = 'bare'`).Scan(&former))
		assert.Equal(t, before[:], former)

		for _, bad := range []string{`{}`, `null`, `"192.0.2.0/24"`} {
			for _, column := range []string{"networks", "limits", "quotas"} {
				_, err := db.ExecContext(t.Context(), `UPDATE admit_keys SET `+column+` = '`+bad+`' WHERE id = 'bare'`)
				assert.Error(t, err, bad)
			}
		}
		fresh := openSQLite(t)
		if db.dialect == sqlkeys.PostgreSQL {
			fresh = openDatabase(t, sqlkeys.PostgreSQL, "pgx", servers.PostgresDatabase(t))
		}
		assert.ElementsMatch(t, fresh.columns(t), db.columns(t))
	})
}

// A service that runs while the table is brought up sees the networks of a key as soon as
// they are there, on each connection, however its driver or a pool prepares statements; and
// it refuses no request for it.
func TestUpgradeUnderService(t *testing.T) {
	t.Parallel()
	test := func(t *testing.T, db, admin database) {
		service := db.store(t)
		const conns = 4
		db.SetMaxIdleConns(conns)
		db.SetMaxOpenConns(conns)
		ctx := t.Context()
		lookups := func() (keys []*admit.Key) {
			var all sync.WaitGroup
			var mu sync.Mutex
			for range conns {
				all.Go(func() {
					for range 10 {
						k, err := service.LookupKey(ctx, admit.DigestOf("bare"))
						assert.NoError(t, err)
						mu.Lock()
						keys = append(keys, k)
						mu.Unlock()
					}
				})
			}
			all.Wait()
			return keys
		}
		lookups() // so that each connection has prepared what it prepares
		var seen forgotten
		watching, stop := context.WithCancel(ctx)
		var w sync.WaitGroup
		w.Go(func() { service.Watch(watching, seen.forget) })
		defer w.Wait()
		defer stop()
		require.Eventually(t, func() bool { return seen.count(admit.DigestOf("bare")) == 1 }, soon, 10*time.Millisecond)

		admin.upgrade(t)
		_, err := admin.store(t).Update(ctx, "bare", func(k *admit.Key) error { k.Networks = office; return nil })
		require.NoError(t, err)
		for _, k := range lookups() {
			require.NotNil(t, k)
			require.Equal(t, office, k.Networks)
		}
		require.Eventually(t, func() bool { return seen.count(admit.DigestOf("bare")) == 2 }, soon, 10*time.Millisecond)

		if db.dialect == sqlkeys.SQLite {
			return
		}
		// What a connection has prepared does not fit any more, or is gone.
		admin.exec(t, `DROP TRIGGER admit_keys_changed ON admit_keys; ALTER TABLE admit_keys ALTER COLUMN owner TYPE varchar(200)`)
		admin.upgrade(t)
		lookups()
		for _, do := range []string{`DISCARD ALL`, `DEALLOCATE ALL`} {
			held := make([]*sql.Conn, conns)
			for i := range held {
				held[i], err = db.Conn(ctx)
				require.NoError(t, err)
				_, err = held[i].ExecContext(ctx, do)
				require.NoError(t, err)
			}
			for _, c := range held {
				require.NoError(t, c.Close())
			}
			lookups()
		}
		_, err = service.Update(ctx, "bare", func(k *admit.Key) error { k.Plan = "pro"; return nil })
		require.NoError(t, err)
	}
	fill := func(t *testing.T, db database) {
		db.exec(t, testdata(t, strings.ToLower(db.dialect.String())+"_1.sql"))
		insert(t, db.store(t), "bare", admit.Key{ID: "bare"})
	}
	t.Run("SQLite", func(t *testing.T) {
		t.Parallel()
		url := sqliteURL(t)
		db := connect(t, sqlkeys.SQLite, "sqlite", url)
		fill(t, db)
		test(t, db, connect(t, sqlkeys.SQLite, "sqlite", url))
	})
	for _, mode := range modes {
		t.Run(mode.String(), func(t *testing.T) {
			t.Parallel()
			url := servers.PostgresDatabase(t)
			admin := connect(t, sqlkeys.PostgreSQL, "pgx", url)
			fill(t, admin)
			test(t, connectMode(t, url, mode), admin)
		})
	}
}

// Without a table, each error says how to make it.
func TestNoTable(t *testing.T) {
	emptyEverywhere(t, func(t *testing.T, db database) {
		var log testkit.Buffer
		s, err := sqlkeys.New(sqlkeys.Config{DB: db.DB, Dialect: db.dialect, Logger: slog.New(slog.NewTextHandler(&log, nil))})
		require.NoError(t, err)
		defer s.Close()
		ctx := t.Context()
		_, looked := s.LookupKey(ctx, admit.DigestOf("a"))
		_, got := s.Get(ctx, "a")
		_, updated := s.Update(ctx, "a", func(*admit.Key) error { return nil })
		_, revoked := s.Revoke(ctx, "a", time.Time{})
		errs := []error{looked, got, updated, revoked, s.Insert(ctx, admit.DigestOf("a"), &admit.Key{ID: "a"}), s.Rotate(ctx, "a", time.Time{}, admit.DigestOf("b"), &admit.Key{ID: "b"})}
		for r, err := range s.List(ctx, "") {
			assert.Nil(t, r)
			errs = append(errs, err)
		}
		assert.Len(t, errs, 7)
		want := "admit keys schema " + strings.ToLower(db.dialect.String())
		for i, err := range errs {
			require.Error(t, err, i)
			assert.ErrorContains(t, err, "there is no table admit_keys; create it with the output of `"+want+"`:", i)
			assert.NotErrorIs(t, err, admit.ErrKeyNotFound)
		}
		watching, stop := context.WithCancel(ctx)
		var w sync.WaitGroup
		w.Go(func() { s.Watch(watching, func(admit.Digest) {}) })
		require.Eventually(t, func() bool { return strings.Contains(log.String(), want) }, soon, 10*time.Millisecond)
		stop()
		w.Wait()
	})
}

func TestNetworksLimitsAndQuotas(t *testing.T) {
	everywhere(t, func(t *testing.T, db database) {
		s := db.store(t)
		ctx := t.Context()
		full := admit.Key{ID: "k1", Networks: office, Limits: tenADay, Quotas: aMonth}
		insert(t, s, "1", full)
		k, err := s.LookupKey(ctx, admit.DigestOf("1"))
		require.NoError(t, err)
		assert.Equal(t, &full, k)
		next := full
		next.ID = "k2"
		require.NoError(t, s.Rotate(ctx, "k1", time.Now().Add(time.Hour), admit.DigestOf("2"), &next))
		for i, want := range []admit.Key{full, next} {
			r, err := s.Get(ctx, want.ID)
			require.NoError(t, err)
			assert.Equal(t, want.Networks, r.Networks, i)
			assert.Equal(t, want.Limits, r.Limits, i)
			assert.Equal(t, want.Quotas, r.Quotas, i)
		}
		var text string
		require.NoError(t, db.QueryRowContext(ctx, `SELECT limits FROM admit_keys WHERE id = 'k2'`).Scan(&text))
		assert.JSONEq(t, `[{"requests": 1, "per": "1s", "burst": 5}, {"name": "day", "requests": 10, "per": "24h"}]`, text)
		require.NoError(t, db.QueryRowContext(ctx, `SELECT quotas FROM admit_keys WHERE id = 'k2'`).Scan(&text))
		assert.JSONEq(t, `[{"requests": 999999999999999, "every": "week"}, {"name": "sold", "requests": 20000, "every": "month", "soft": true}]`, text)
		require.NoError(t, db.QueryRowContext(ctx, `SELECT networks FROM admit_keys WHERE id = 'k2'`).Scan(&text))
		assert.JSONEq(t, `["192.0.2.0/24", "2001:db8::/32"]`, text)

		// One of them at a time, and none again.
		for _, want := range []admit.Key{
			{ID: "k2", Networks: office[:1], Limits: tenADay, Quotas: aMonth},
			{ID: "k2", Networks: office[:1]},
			{ID: "k2", Limits: tenADay[1:]},
			{ID: "k2", Quotas: aMonth[1:]},
			{ID: "k2", Quotas: []admit.Quota{{Name: "sold", Requests: 20_000, Every: admit.Month}}}, // the last one, not soft
			{ID: "k2"},
		} {
			r, err := s.Update(ctx, "k2", func(k *admit.Key) error {
				k.Networks, k.Limits, k.Quotas = want.Networks, want.Limits, want.Quotas
				return nil
			})
			require.NoError(t, err)
			assert.Equal(t, want, r.Key)
		}

		for text, want := range map[string]string{
			"192.0.2.7/24":           "write 192.0.2.0/24 for the network or 192.0.2.7/32 for the address",
			"2001:db8::1/32":         "write 2001:db8::/32",
			"::ffff:192.0.2.0/120":   "write 192.0.2.0/24",
			"::ffff:192.0.2.7/128":   "write 192.0.2.7/32",
			"::ffff:255.0.0.0/90":    "write ::ffc0:0:0/90", // within ::/0, of IPv6 alone
			"invalid (a zero value)": "not valid",
		} {
			n, _ := netip.ParsePrefix(text)
			bad := admit.Key{ID: "bad", Networks: append([]netip.Prefix{office[0]}, n)}
			assert.ErrorContains(t, s.Insert(ctx, admit.DigestOf("bad"), &bad), want)
			assert.ErrorContains(t, s.Rotate(ctx, "k2", time.Now(), admit.DigestOf("bad"), &bad), want)
			_, err := s.Update(ctx, "k2", func(k *admit.Key) error { k.Networks = bad.Networks; return nil })
			assert.ErrorContains(t, err, want)
		}
		assert.ErrorContains(t, s.Insert(ctx, admit.DigestOf("bad"), &admit.Key{ID: "bad", Limits: []admit.Limit{admit.PerDay(0)}}), "Requests is 0")
		assert.ErrorContains(t, s.Insert(ctx, admit.DigestOf("bad"), &admit.Key{ID: "bad", Quotas: []admit.Quota{{Requests: 1}}}), "Quotas[0].Every")
		_, err = s.Get(ctx, "bad")
		assert.ErrorIs(t, err, admit.ErrKeyNotFound)
	})
}

// A row that cannot be read is refused with 503, never served from before, hides no other,
// and can be revoked.
func TestUnreadableRows(t *testing.T) {
	everywhere(t, func(t *testing.T, db database) {
		s := db.store(t)
		ctx := t.Context()
		bad := map[string]string{
			"net-word":     `networks = '["office"]'`,
			"net-host":     `networks = '["192.0.2.7/24"]'`,
			"net-mapped":   `networks = '["::ffff:192.0.2.0/120"]'`,
			"net-address":  `networks = '["192.0.2.7"]'`,
			"net-zone":     `networks = '["fe80::1%eth0/64"]'`,
			"net-null":     `networks = '[null]'`,
			"net-object":   `networks = '[{"prefix": "192.0.2.0/24"}]'`,
			"limit-member": `limits = '[{"requests": 1, "per": "1s", "cost": 2}]'`,
			"limit-per":    `limits = '[{"requests": 1, "per": 60}]'`,
			"limit-unit":   `limits = '[{"requests": 1, "per": "60"}]'`,
			"limit-zero":   `limits = '[{"requests": 0, "per": "60s"}]'`,
			"limit-half":   `limits = '[{"requests": 1.5, "per": "60s"}]'`,
			"limit-large":  `limits = '[{"requests": 1e30, "per": "60s"}]'`,
			"limit-null":   `limits = '[null]'`,
			"limit-twice":  `limits = '[{"requests": 1, "per": "60s"}, {"requests": 2, "per": "1m"}]'`,
			"quota-member": `quotas = '[{"requests": 1, "every": "day", "hard": true}]'`,
			"quota-every":  `quotas = '[{"requests": 1, "every": "year"}]'`,
			"quota-none":   `quotas = '[{"requests": 1}]'`,
			"quota-zero":   `quotas = '[{"requests": 0, "every": "day"}]'`,
			"quota-large":  `quotas = '[{"requests": 1000000000000000, "every": "day"}]'`,
			"quota-soft":   `quotas = '[{"requests": 1, "every": "day", "soft": "no"}]'`,
			"quota-null":   `quotas = '[null]'`,
			"quota-twice":  `quotas = '[{"requests": 1, "every": "day"}, {"name": "day", "requests": 2, "every": "month"}]'`,
			"meta":         `meta = '{"customer_id": 42}'`,
			"scopes":       `scopes = '[1]'`,
		}
		if db.dialect == sqlkeys.PostgreSQL {
			bad["infinite"], bad["forever"] = `expires_at = 'infinity'`, `not_before = '-infinity'`
		} else {
			bad["time-text"], bad["time-real"] = `expires_at = 'tomorrow'`, `not_before = 1.5`
		}
		cache, err := admit.NewKeyCache(s, admit.KeyCacheConfig{TTL: time.Millisecond, StaleFor: time.Hour})
		require.NoError(t, err)
		auth, err := admit.NewAuth(admit.AuthConfig{Store: cache})
		require.NoError(t, err)
		good := 0
		for id, set := range bad {
			insert(t, s, id, admit.Key{})
			_, err := auth.Verify(ctx, id)
			require.NoError(t, err)
			db.exec(t, `UPDATE admit_keys SET `+set+` WHERE id = ?`, id)
			insert(t, s, id+"-good", admit.Key{})
			good++
			k, err := s.LookupKey(ctx, admit.DigestOf(id))
			assert.Nil(t, k, id)
			require.Error(t, err, id)
			assert.NotErrorIs(t, err, admit.ErrKeyNotFound, id)
			var fault *admit.ConfigError
			require.ErrorAs(t, err, &fault, id)
			assert.Contains(t, fault.Field, `admit_keys["`+id+`"]`)
			time.Sleep(2 * time.Millisecond) // the TTL
			_, err = auth.Verify(ctx, id)
			var refused *admit.Error
			require.ErrorAs(t, err, &refused, id)
			assert.Equal(t, 503, refused.Status, id)
			_, err = s.Update(ctx, id, func(*admit.Key) error { t.Error("it cannot be changed"); return nil })
			assert.Error(t, err, id)
		}
		list := func() (ids []string, faults int) {
			for r, err := range s.List(ctx, "") {
				if err != nil {
					faults++
					assert.Nil(t, r)
					assert.Regexp(t, `^sqlkeys: list keys: admit: admit_keys\["[a-z-]+"\](\.[a-z_]+)? cannot be read: `, err.Error())
					continue
				}
				ids = append(ids, r.ID)
			}
			return ids, faults
		}
		ids, faults := list()
		assert.Len(t, ids, good)
		assert.Equal(t, len(bad), faults)
		for range s.List(ctx, "") {
			break
		}

		for id := range bad {
			r, err := s.Revoke(ctx, id, time.Time{})
			require.NoError(t, err, id)
			assert.Equal(t, id, r.ID)
			assert.Equal(t, admit.DigestOf(id), r.Digest)
			assert.WithinRange(t, r.RevokedAt, time.Now().Add(-time.Minute), time.Now(), id)
			var revoked bool
			require.NoError(t, db.QueryRowContext(ctx, `SELECT revoked_at IS NOT NULL FROM admit_keys WHERE id = '`+id+`'`).Scan(&revoked))
			assert.True(t, revoked, id)
		}
	})
}

// More than a page of rows, with one that the driver cannot read in each.
func TestListPagesPastUnreadableRows(t *testing.T) {
	everywhere(t, func(t *testing.T, db database) {
		s := db.store(t)
		n := 1500
		for i := range n {
			insert(t, s, fmt.Sprintf("k%04d", i), admit.Key{Owner: "ACME"})
		}
		// In SQLite this is a text.
		db.exec(t, `UPDATE admit_keys SET expires_at = 'infinity' WHERE id IN ('k0000', 'k0999', 'k1499')`)
		for _, owner := range []string{"", "ACME"} {
			seen, faults := 0, 0
			for _, err := range s.List(t.Context(), owner) {
				if err != nil {
					faults++
				} else {
					seen++
				}
			}
			assert.Equal(t, n-3, seen)
			assert.Equal(t, 3, faults)
		}
	})
}

// A column that somebody has added is none of ours, and one of ours may be written in
// capitals.
func TestForeignColumns(t *testing.T) {
	everywhere(t, func(t *testing.T, db database) {
		s := db.store(t)
		insert(t, s, "a", admit.Key{ID: "a", Networks: office})
		db.exec(t, `ALTER TABLE admit_keys ADD COLUMN note TEXT`)
		if db.dialect == sqlkeys.SQLite {
			db.exec(t, `ALTER TABLE admit_keys RENAME COLUMN networks TO Networks`)
		}
		k, err := s.LookupKey(t.Context(), admit.DigestOf("a"))
		require.NoError(t, err)
		assert.Equal(t, &admit.Key{ID: "a", Networks: office}, k)
	})
}
