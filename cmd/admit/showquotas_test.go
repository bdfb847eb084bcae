package main_test

import (
	"database/sql"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/admit-go/admit"
	"github.com/admit-go/admit/sqlquota"
)

// What is shown is what services have said to the store.
func TestShowQuotas(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "quotas.db")
	where := "sqlite:" + path
	require.NoError(t, os.WriteFile(path, nil, 0o600))
	r := run(t, "quotas", "show", "ACME", "--quotas", where)
	assert.Equal(t, 1, r.code)
	assert.Regexp(t, `\Aadmit: list quotas: there is no table admit_quota_counts; create it with the output of .admit quotas schema sqlite.: [^\n]*\n\z`, r.stderr)

	db, err := sql.Open("sqlite", path)
	require.NoError(t, err)
	defer db.Close()
	_, err = db.ExecContext(t.Context(), run(t, "quotas", "schema", "sqlite").stdout)
	require.NoError(t, err)
	store, err := sqlquota.New(sqlquota.Config{DB: db, Dialect: sqlquota.SQLite, Timeout: time.Minute})
	require.NoError(t, err)
	ends := time.Date(2100, 1, 31, 0, 0, 0, 0, time.UTC)
	for seq := int64(1); seq <= 2; seq++ { // what a process has used it says with a later claim
		claim := func(account, quota, period string, ends time.Time, used, held int64) admit.QuotaClaim {
			return admit.QuotaClaim{
				Account: account, Quota: quota, Period: period, Ends: ends, Process: "p", Seq: seq, Heard: seq - 1,
				Used: used * (seq - 1), Want: held, Limit: 10_000,
			}
		}
		_, err = store.Settle(t.Context(), []admit.QuotaClaim{
			claim("ACME", "month", "2099-12-31/P1M", ends, 640, 10),
			claim("ACME", "month", "2099-11-30/P1M", ends.AddDate(0, -1, 0), 1000, 0),
			claim("ACME", "day\x1b[2J", "2099-12-31/P1D", ends, 7, 1),
			claim("Other", "month", "2099-12-31/P1M", ends, 1, 1),
		})
		require.NoError(t, err)
	}

	r = run(t, "quotas", "show", "ACME", "--quotas", where)
	require.Zero(t, r.code, r.stderr)
	assert.Equal(t, `QUOTA    PERIOD          ENDS                  USED  HELD
day?[2J  2099-12-31/P1D  2100-01-31T00:00:00Z  7     1
month    2099-12-31/P1M  2100-01-31T00:00:00Z  640   10
month    2099-11-30/P1M  2099-12-31T00:00:00Z  1000  0
`, r.stdout)
	assert.Equal(t, "QUOTA  PERIOD  ENDS  USED  HELD\n", run(t, "quotas", "show", "nobody", "--quotas", where).stdout)

	r = run(t, "quotas", "show", "Other", "--json", "--keys", where)
	require.Zero(t, r.code, "the database of the keys is that of the quotas where no other is named: %s", r.stderr)
	assert.Equal(t, `{"account":"Other","quota":"month","period":"2099-12-31/P1M","ends_at":"2100-01-31T00:00:00Z","used":1,"held":1}`+"\n", r.stdout)
	c := command(t, "quotas", "show", "Other", "--keys", "keys.json")
	c.Env = append(c.Env, "ADMIT_QUOTAS="+where)
	require.NoError(t, c.Run(), "the keys may be in a file")

	for name, args := range map[string][]string{
		"no account":     {"--quotas", where},
		"an empty one":   {"", "--quotas", where},
		"no database":    {"ACME"},
		"a file":         {"ACME", "--quotas", path},
		"keys in a file": {"ACME", "--keys", "keys.json"},
	} {
		r := run(t, append([]string{"quotas", "show"}, args...)...)
		assert.Equal(t, 2, r.code, "%s: %s", name, r.stderr)
		assert.Empty(t, r.stdout)
	}
	assert.Contains(t, run(t, "quotas", "schema", "postgresql").stdout, "CREATE TABLE admit_quota_counts")
	for _, args := range [][]string{{}, {"mysql"}, {"sqlite", "postgresql"}} {
		assert.Equal(t, 2, run(t, append([]string{"quotas", "schema"}, args...)...).code, args)
	}
}
