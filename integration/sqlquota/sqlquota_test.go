package sqlquota_test

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"fmt"
	"log/slog"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"modernc.org/sqlite"

	"github.com/admit-go/admit"
	"github.com/admit-go/admit/admittest"
	"github.com/admit-go/admit/integration/servers"
	"github.com/admit-go/admit/internal/testkit"
	"github.com/admit-go/admit/sqlkeys"
	"github.com/admit-go/admit/sqlquota"
)

// database has the tables, empty, and a clock that can be moved.
type database struct {
	*sql.DB
	dialect sqlquota.Dialect
	shift   *atomic.Int64 // of its clock, in nanoseconds
	open    func() *sql.DB
	now     func() time.Time
}

// everywhere runs a test on each database.
func everywhere(t *testing.T, test func(t *testing.T, db database)) {
	t.Parallel()
	t.Run("PostgreSQL", func(t *testing.T) {
		t.Parallel()
		test(t, openPostgres(t, servers.PostgresDatabase(t)))
	})
	t.Run("SQLite", func(t *testing.T) {
		if raced {
			t.Skip("nothing of ours runs beside what runs with PostgreSQL")
		}
		t.Parallel()
		test(t, openSQLite(t))
	})
}

// openPostgres opens a database in which now is that of the schema clock.
func openPostgres(t testing.TB, url string) database {
	t.Helper()
	shift := new(atomic.Int64)
	db := database{dialect: sqlquota.PostgreSQL, shift: shift, now: func() time.Time { return time.Now().Add(time.Duration(shift.Load())) }}.through(t, url)
	db.exec(t, sqlquota.Schema(db.dialect))
	db.exec(t, `CREATE SCHEMA clock; CREATE TABLE clock.shift (by interval NOT NULL); INSERT INTO clock.shift VALUES ('0');
		CREATE FUNCTION clock.now() RETURNS timestamptz LANGUAGE sql STABLE AS 'SELECT pg_catalog.now() + by FROM clock.shift'`)
	db.exec(t, `DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET search_path = clock, public, pg_catalog', current_database()); END $$`)
	require.NoError(t, db.Close()) // what is set holds for new connections
	return db.reopen(t)
}

// through is the database by another URL.
func (db database) through(t testing.TB, url string) database {
	t.Helper()
	db.open = func() *sql.DB {
		db, err := sql.Open("pgx", url)
		require.NoError(t, err)
		return db
	}
	return db.reopen(t)
}

// reopen has connections of its own, until the end of the test.
func (db database) reopen(t testing.TB) database {
	t.Helper()
	opened := db.open()
	t.Cleanup(func() { _ = opened.Close() })
	opened.SetMaxIdleConns(8)
	db.DB = opened
	return db
}

// openSQLite opens a database in which time stands still until it is moved.
func openSQLite(t testing.TB) database {
	t.Helper()
	var d sqlite.Driver
	began, shift := time.Now(), new(atomic.Int64)
	now := func() time.Time { return began.Add(time.Duration(shift.Load())) }
	require.NoError(t, d.RegisterScalarFunction("julianday", 1, func(*sqlite.FunctionContext, []driver.Value) (driver.Value, error) {
		return float64(now().UnixMicro())/86_400_000_000 + 2440587.5, nil
	}))
	to := connector{&d, "file:" + filepath.Join(t.TempDir(), "quotas.db") + "?_pragma=busy_timeout(5000)&_pragma=journal_mode(WAL)&_pragma=synchronous(1)"}
	db := database{dialect: sqlquota.SQLite, shift: shift, now: now, open: func() *sql.DB { return sql.OpenDB(to) }}.reopen(t)
	db.exec(t, sqlquota.Schema(db.dialect))
	return db
}

// connector is a driver that is registered under no name.
type connector struct {
	driver driver.Driver
	name   string
}

func (c connector) Connect(context.Context) (driver.Conn, error) { return c.driver.Open(c.name) }
func (c connector) Driver() driver.Driver                        { return c.driver }

func (db database) store(t testing.TB) *sqlquota.Store {
	t.Helper()
	s, err := sqlquota.New(sqlquota.Config{DB: db.DB, Dialect: db.dialect, Timeout: time.Minute, Logger: slog.New(slog.DiscardHandler)})
	require.NoError(t, err)
	return s
}

func (db database) exec(t testing.TB, query string, args ...any) {
	t.Helper()
	_, err := db.ExecContext(t.Context(), query, args...)
	require.NoError(t, err)
}

func (db database) sleep(t testing.TB, d time.Duration) {
	t.Helper()
	db.shift.Add(int64(d))
	if db.dialect == sqlquota.PostgreSQL {
		db.exec(t, `UPDATE clock.shift SET by = make_interval(secs => $1)`, time.Duration(db.shift.Load()).Seconds())
	}
}

// rows is how many there are in a table.
func (db database) rows(t testing.TB, table string) (n int) {
	t.Helper()
	require.NoError(t, db.QueryRowContext(t.Context(), `SELECT count(*) FROM `+table).Scan(&n))
	return n
}

// conforms runs the tests of every store, on a database through which admin empties the tables.
func conforms(t *testing.T, db, admin database) {
	t.Helper()
	if raced && db.DB != admin.DB {
		t.Skip("what differs is in the database, and not in Go")
	}
	admittest.TestQuotaStore(t, func(t *testing.T) admit.QuotaStore {
		admin.withoutRows(t)
		admin.sleep(t, -time.Duration(admin.shift.Load()))
		return db.store(t)
	}, admittest.QuotaStoreOptions{Slow: true, Now: admin.now, Sleep: func(d time.Duration) { admin.sleep(t, d) }})
}

func TestConforms(t *testing.T) {
	everywhere(t, func(t *testing.T, db database) { conforms(t, db, db) })
}

// What others have set for a database or a role makes no difference.
func TestConformsAtIsolationLevels(t *testing.T) {
	t.Parallel()
	for _, level := range []string{"repeatable read", "serializable"} {
		t.Run(level, func(t *testing.T) {
			t.Parallel()
			url := servers.PostgresDatabase(t)
			admin := openPostgres(t, url)
			strict := admin.through(t, url+"&default_transaction_isolation="+strings.ReplaceAll(level, " ", "%20"))
			var got string
			require.NoError(t, strict.QueryRowContext(t.Context(), `SHOW transaction_isolation`).Scan(&got))
			require.Equal(t, level, got)
			conforms(t, strict, admin)
		})
	}
}

func TestConformsThroughPgBouncer(t *testing.T) {
	t.Parallel()
	for _, mode := range []string{"exec", "simple_protocol"} {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			url := servers.PostgresDatabase(t)
			admin := openPostgres(t, url)
			conforms(t, admin.through(t, servers.StartPgBouncer(t, url, 4)+"&default_query_exec_mode="+mode), admin)
		})
	}
}

func TestFaults(t *testing.T) {
	t.Parallel()
	s, err := sqlquota.New(sqlquota.Config{Timeout: -1})
	assert.Nil(t, s)
	for _, want := range []string{"DB is nil", "Dialect(0)", "Timeout is -1ns"} {
		assert.ErrorContains(t, err, want)
	}
	assert.Panics(t, func() { sqlquota.Schema(0) })
	assert.Equal(t, sqlkeys.PostgreSQL, sqlquota.PostgreSQL)
}

func TestMissingTable(t *testing.T) {
	everywhere(t, func(t *testing.T, db database) {
		for _, table := range []string{"admit_quota_usage", "admit_quota_shares", "admit_quota_counts"} {
			db.exec(t, `DROP TABLE `+table)
		}
		s := db.store(t)
		_, settled := s.Settle(t.Context(), []admit.QuotaClaim{claim("account", "process", 1)})
		_, looked := s.Settle(t.Context(), []admit.QuotaClaim{claim("account", "", 0)})
		_, offered := s.Offer(t.Context(), 1)
		var listed error
		for _, listed = range s.List(t.Context(), "") {
			assert.Error(t, listed)
		}
		for _, err := range []error{settled, looked, offered, listed, s.Acknowledge(t.Context(), []string{"x"})} {
			assert.ErrorContains(t, err, "create it with the output of `admit quotas schema "+strings.ToLower(db.dialect.String())+"`")
		}
	})
}

func claim(account, process string, seq int64) admit.QuotaClaim {
	return admit.QuotaClaim{
		Account: account, Quota: "month", Period: "2026-01-31/P1M", Ends: time.Now().Add(time.Hour),
		Process: process, Seq: seq, Limit: 1_000_000_000,
	}
}

func settle(t testing.TB, s *sqlquota.Store, claims ...admit.QuotaClaim) []admit.QuotaBalance {
	t.Helper()
	balances, err := s.Settle(t.Context(), claims)
	require.NoError(t, err)
	return balances
}

// A Settle is all claims or none, also of more than one statement.
func TestAllOrNone(t *testing.T) {
	everywhere(t, func(t *testing.T, db database) {
		s := db.store(t)
		claims := make([]admit.QuotaClaim, 1201)
		for i := range claims {
			claims[i] = claim(fmt.Sprint("account ", i), "process", 1)
			claims[i].Want = 5
		}
		for _, b := range settle(t, s, claims...) {
			require.Equal(t, admit.QuotaBalance{Held: 5, MyHeld: 5}, b)
		}
		if db.dialect == sqlquota.SQLite {
			db.exec(t, `CREATE TRIGGER refuse BEFORE INSERT ON admit_quota_usage WHEN NEW.account = 'account 600' BEGIN SELECT RAISE(ABORT, 'refused'); END`)
		} else {
			db.exec(t, `ALTER TABLE admit_quota_usage ADD CONSTRAINT refused CHECK (account <> 'account 600')`)
		}
		for i := range claims {
			claims[i].Seq, claims[i].Used = 2, 3
		}
		_, err := s.Settle(t.Context(), claims)
		require.ErrorContains(t, err, "refused")
		for i := range claims {
			claims[i].Process = ""
		}
		for _, b := range settle(t, s, claims...) {
			require.Equal(t, admit.QuotaBalance{Held: 5}, b)
		}
		assert.Zero(t, db.rows(t, "admit_quota_usage"))
	})
}

func TestList(t *testing.T) {
	everywhere(t, func(t *testing.T, db database) {
		s := db.store(t)
		list := func(account string) (all []sqlquota.Count) {
			for c, err := range s.List(t.Context(), account) {
				require.NoError(t, err)
				all = append(all, c)
			}
			return all
		}
		assert.Empty(t, list(""))
		const many = 1100 // more than a page, beside each other in the index
		long := strings.Repeat("x", 300)
		var claims []admit.QuotaClaim
		for i := range many {
			claims = append(claims, claim(fmt.Sprint(long, i), "process", 1), claim(fmt.Sprintf("account %04d", i), "process", 1))
		}
		odd := claim("\xff\x00\\", "process", 1)
		odd.Want = 7
		weekly := claim("account 0001", "process", 1)
		weekly.Quota, weekly.Period = "week", "2026-02-02/P1W"
		settle(t, s, append(claims, odd, weekly)...)
		odd.Seq, odd.Used, odd.Want = 2, 5, 6
		settle(t, s, odd)

		all := list("")
		assert.Len(t, all, 2*many+2)
		accounts := make(map[string]int)
		for _, c := range all {
			accounts[c.Account]++
		}
		assert.Len(t, accounts, 2*many+1)
		assert.True(t, slices.IsSortedFunc(all[:many+2], func(a, b sqlquota.Count) int { return strings.Compare(a.Account, b.Account) }) ||
			all[0].Account == odd.Account, "in order of the account")
		assert.Len(t, list("account 0001"), 2)
		assert.Len(t, list(long+"7"), 1)
		assert.Empty(t, list(long))
		assert.Empty(t, list("account"))
		got := list(odd.Account)
		require.Len(t, got, 1)
		assert.WithinDuration(t, odd.Ends, got[0].Ends, time.Millisecond)
		got[0].Ends = time.Time{}
		assert.Equal(t, sqlquota.Count{Account: odd.Account, Quota: "month", Period: "2026-01-31/P1M", Used: 5, Held: 6}, got[0])
		for range s.List(t.Context(), "") {
			break // which has to work too
		}
	})
}

// What is old is forgotten after a Settle, once an hour.
func TestForget(t *testing.T) {
	everywhere(t, func(t *testing.T, db database) {
		const many = 1203 // more than a batch
		var claims []admit.QuotaClaim
		for i := range many {
			claims = append(claims, claim(fmt.Sprint("account ", i), "process", 1))
		}
		s := db.store(t)
		settle(t, s, claims...)
		for i := range claims {
			claims[i].Seq, claims[i].Used = 2, 3
		}
		settle(t, s, claims...)
		require.Equal(t, many, db.rows(t, "admit_quota_usage"))
		db.sleep(t, 35*24*time.Hour+59*time.Minute)
		ends := time.Now().Add(50 * 24 * time.Hour)
		synctest.Test(t, func(t *testing.T) { // the time of the service, which says when to look
			db := db.reopen(t)
			s := db.store(t)
			look := func() int {
				next := claim("new", "process", time.Now().Unix())
				next.Ends = ends
				settle(t, s, next)
				synctest.Wait()
				return db.rows(t, "admit_quota_counts")
			}
			for range 61 { // the first time comes within an hour
				require.Equal(t, many+1, look())
				time.Sleep(time.Minute)
			}
			assert.Zero(t, db.rows(t, "admit_quota_usage"), "of 35 days ago")
			db.sleep(t, 2*time.Minute) // of the database
			time.Sleep(time.Hour)      // of the service
			require.Equal(t, 1, look())
			assert.Equal(t, 1, db.rows(t, "admit_quota_shares"))
		})
	})
}

// Where a process comes, shares are forgotten that hold nothing and are a day old.
func TestSharesOfTheDeparted(t *testing.T) {
	everywhere(t, func(t *testing.T, db database) {
		s := db.store(t)
		holder := claim("account", "holder", 1)
		holder.Want = 4
		settle(t, s, holder, claim("account", "gone", 1), claim("other", "gone", 1))
		db.sleep(t, 23*time.Hour)
		settle(t, s, claim("account", "new", 1))
		require.Equal(t, 4, db.rows(t, "admit_quota_shares"))
		db.sleep(t, 2*time.Hour)
		settle(t, s, claim("account", "new", 2))
		require.Equal(t, 4, db.rows(t, "admit_quota_shares"))
		settle(t, s, claim("account", "newest", 1))
		assert.Equal(t, 4, db.rows(t, "admit_quota_shares"), "one has come, and one is forgotten")
		assert.Equal(t, admit.QuotaBalance{Held: 4}, settle(t, s, claim("account", "", 0))[0])
	})
}

// That what is old cannot be forgotten is a line in the log, and nothing to who settles.
func TestForgetFails(t *testing.T) {
	t.Parallel()
	db := openSQLite(t)
	synctest.Test(t, func(t *testing.T) {
		db := db.reopen(t)
		var log testkit.Buffer
		s, err := sqlquota.New(sqlquota.Config{DB: db.DB, Dialect: db.dialect, Logger: slog.New(slog.NewTextHandler(&log, nil))})
		require.NoError(t, err)
		db.exec(t, `ALTER TABLE admit_quota_usage RENAME TO elsewhere`)
		for range 3 {
			time.Sleep(time.Hour)
			settle(t, s, claim("account", "process", time.Now().Unix()))
			synctest.Wait()
		}
		assert.Equal(t, 3, strings.Count(log.String(), "cannot be deleted"), log.String()) // an hour lies between them
		assert.Contains(t, log.String(), "admit quotas schema sqlite")
		db.exec(t, `ALTER TABLE elsewhere RENAME TO admit_quota_usage`)
		time.Sleep(time.Hour)
		settle(t, s, claim("account", "process", time.Now().Unix()))
		synctest.Wait()
		assert.Contains(t, log.String(), "are deleted again")
	})
}

// use makes a new process say what it has used.
func use(t testing.TB, s *sqlquota.Store, account string, n int64) {
	t.Helper()
	process := fmt.Sprint("process ", processes.Add(1))
	first, second := claim(account, process, 1), claim(account, process, 2)
	second.Used = n
	settle(t, s, first, second)
}

// A record is offered while a Settle waits to add to it: that makes a new one.
func TestOfferedBeneathASettle(t *testing.T) {
	t.Parallel()
	for _, level := range []string{"read%20committed", "serializable"} {
		t.Run(level, func(t *testing.T) {
			t.Parallel()
			url := servers.PostgresDatabase(t)
			admin := openPostgres(t, url)
			s := admin.through(t, url+"&default_transaction_isolation="+level).store(t)
			admin.toMinute(t)
			use(t, s, "account", 3)
			tx, err := admin.BeginTx(t.Context(), nil)
			require.NoError(t, err)
			defer tx.Rollback()
			_, err = tx.ExecContext(t.Context(), `UPDATE admit_quota_usage SET offered_at = now()`)
			require.NoError(t, err)
			settled := make(chan struct{})
			go func() {
				defer close(settled)
				use(t, s, "account", 4)
			}()
			admin.waiting(t)
			require.NoError(t, tx.Commit())
			<-settled
			rows, err := admin.QueryContext(t.Context(), `SELECT requests FROM admit_quota_usage ORDER BY requests`)
			require.NoError(t, err)
			defer rows.Close()
			var all []int64
			for rows.Next() {
				var n int64
				require.NoError(t, rows.Scan(&n))
				all = append(all, n)
			}
			require.NoError(t, rows.Err())
			assert.Equal(t, []int64{3, 4}, all)
		})
	}
}

// Offer leaves to others what they work at, and waits for nobody.
func TestOfferSkipsWhatIsLocked(t *testing.T) {
	t.Parallel()
	db := openPostgres(t, servers.PostgresDatabase(t))
	s := db.store(t)
	use(t, s, "locked", 3)
	use(t, s, "free", 4)
	db.sleep(t, time.Hour)
	tx, err := db.BeginTx(t.Context(), nil)
	require.NoError(t, err)
	defer tx.Rollback()
	_, err = tx.ExecContext(t.Context(), `UPDATE admit_quota_usage SET requests = requests + 10 WHERE account = 'locked'`)
	require.NoError(t, err)
	offer := func() []admit.UsageRecord {
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		records, err := s.Offer(ctx, 10)
		require.NoError(t, err)
		return records
	}
	records := offer()
	require.Len(t, records, 1)
	assert.Equal(t, "free", records[0].Account)
	require.NoError(t, tx.Commit())
	records = offer()
	require.Len(t, records, 1)
	assert.EqualValues(t, 13, records[0].Requests)
}

// withoutRows empties the tables.
func (db database) withoutRows(t testing.TB) database {
	t.Helper()
	for _, table := range []string{"admit_quota_counts", "admit_quota_shares", "admit_quota_usage"} {
		db.exec(t, `DELETE FROM `+table)
	}
	return db
}

// toMinute moves the clock to the beginning of a minute.
func (db database) toMinute(t testing.TB) {
	t.Helper()
	db.sleep(t, db.now().Truncate(time.Minute).Add(time.Minute+time.Second).Sub(db.now()))
}

// waiting returns when somebody waits for a lock.
func (db database) waiting(t testing.TB) {
	t.Helper()
	require.Eventually(t, func() bool {
		var n int
		err := db.QueryRowContext(t.Context(), `SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()`).Scan(&n)
		return err == nil && n > 0
	}, 30*time.Second, 5*time.Millisecond)
}

// What the database asks to do again begins anew, with nothing left of the first time.
func TestSettleAgain(t *testing.T) {
	t.Parallel()
	db := openPostgres(t, servers.PostgresDatabase(t))
	s := db.store(t)
	use(t, s, "account", 3)
	db.exec(t, `CREATE SEQUENCE tries; CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
		IF nextval('tries') <= 3 THEN RAISE EXCEPTION 'once more' USING ERRCODE = '40001'; END IF; RETURN NEW; END $$;
		CREATE TRIGGER refuse BEFORE INSERT ON admit_quota_usage FOR EACH ROW EXECUTE FUNCTION refuse()`)
	use(t, s, "account", 4)
	assert.Equal(t, admit.QuotaBalance{Used: 7}, settle(t, s, claim("account", "", 0))[0])
	db.sleep(t, time.Hour)
	records, err := s.Offer(t.Context(), 10)
	require.NoError(t, err)
	sum := int64(0)
	for _, r := range records {
		sum += r.Requests
	}
	assert.EqualValues(t, 7, sum)
}
