package sqlkeys_test

import (
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/admit-go/admit"
	"github.com/admit-go/admit/integration/servers"
	"github.com/admit-go/admit/sqlkeys"
)

// modes are the ways in which pgx sends a query.
var modes = []pgx.QueryExecMode{
	pgx.QueryExecModeCacheStatement, pgx.QueryExecModeCacheDescribe, pgx.QueryExecModeDescribeExec, pgx.QueryExecModeExec, pgx.QueryExecModeSimpleProtocol,
}

func connectMode(t *testing.T, url string, mode pgx.QueryExecMode) database {
	t.Helper()
	config, err := pgx.ParseConfig(url)
	require.NoError(t, err)
	config.DefaultQueryExecMode = mode
	db := stdlib.OpenDB(*config)
	t.Cleanup(func() { _ = db.Close() })
	return database{db, sqlkeys.PostgreSQL}
}

// Look-ups through a pool that gives each query another connection. It knows no prepared
// statement, as PgBouncer before 1.21: what pgx does by default fails, and the error says
// what to do.
func TestPgBouncer(t *testing.T) {
	t.Parallel()
	for _, mode := range modes {
		t.Run(mode.String(), func(t *testing.T) {
			t.Parallel()
			url := servers.PostgresDatabase(t)
			admin := openDatabase(t, sqlkeys.PostgreSQL, "pgx", url)
			const keys = 40
			for i := range keys {
				insert(t, admin.store(t), "key "+strconv.Itoa(i), admit.Key{})
			}
			db := connectMode(t, servers.StartPgBouncer(t, url, 4), mode)
			db.SetMaxIdleConns(16)
			s := db.store(t)
			lookups := func() (failed []error) {
				var all sync.WaitGroup
				var mu sync.Mutex
				for g := range 16 {
					all.Go(func() {
						for i := range 25 {
							_, err := s.LookupKey(t.Context(), admit.DigestOf("key "+strconv.Itoa((g+i)%keys)))
							if err != nil {
								mu.Lock()
								failed = append(failed, err)
								mu.Unlock()
							}
						}
					})
				}
				all.Wait()
				return failed
			}
			failed := lookups()
			if mode == pgx.QueryExecModeCacheStatement {
				require.NotEmpty(t, failed, "or PgBouncer has learned it: this test then has no exception")
				assert.ErrorContains(t, failed[0], "default_query_exec_mode=exec")
				return
			}
			require.Empty(t, failed, "of 400")
			admin.exec(t, `DROP TRIGGER admit_keys_changed ON admit_keys; ALTER TABLE admit_keys ALTER COLUMN owner TYPE varchar(200)`)
			admin.exec(t, sqlkeys.SchemaFrom(sqlkeys.PostgreSQL, 1))
			require.Empty(t, lookups(), "after a change of the table")
			for range 8 {
				db.exec(t, `DISCARD ALL`)
			}
			require.Empty(t, lookups(), "after DISCARD ALL")

			var f forgotten
			watch(t, s, f.forget)
			require.Eventually(t, func() bool { return f.count(admit.DigestOf("key 1")) == 1 }, soon, 10*time.Millisecond)
			_, err := s.Update(t.Context(), "key 1", func(k *admit.Key) error { k.Plan = "pro"; return nil })
			require.NoError(t, err)
			require.Eventually(t, func() bool { return f.count(admit.DigestOf("key 1")) == 2 }, soon, 10*time.Millisecond)
			require.NoError(t, s.Close())
			r, err := admin.store(t).Get(t.Context(), "key 1")
			require.NoError(t, err)
			assert.NotZero(t, r.LastUsedAt)
		})
	}
}
