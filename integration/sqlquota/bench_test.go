package sqlquota_test

import (
	"fmt"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/admit-go/admit"
	"github.com/admit-go/admit/integration/servers"
	"github.com/admit-go/admit/sqlquota"
)

// BenchmarkSettle settles 1 and 100 claims, of accounts of its own and of one that all have in
// common, beside an UPDATE of one row.
func BenchmarkSettle(b *testing.B) {
	for name, open := range map[string]func() database{
		"PostgreSQL": func() database { return openPostgres(b, servers.PostgresDatabase(b)) },
		"SQLite":     func() database { return openSQLite(b) },
	} {
		b.Run(name, func(b *testing.B) {
			db := open()
			store := db.store(b)
			b.Run("UPDATE", func(b *testing.B) {
				settle(b, store, claim("account", "process", 1))
				for b.Loop() {
					_, err := db.ExecContext(b.Context(), `UPDATE admit_quota_counts SET used = used + 1 WHERE account = 'account'`)
					require.NoError(b, err)
				}
			})
			for _, n := range []int{1, 100} {
				b.Run(fmt.Sprint(n, " claims"), func(b *testing.B) { settles(b, store, n, "") })
				b.Run(fmt.Sprint(n, " claims, of 8 processes"), func(b *testing.B) {
					b.SetParallelism(4) // times two processors
					settles(b, store, n, "parallel")
				})
			}
			b.Run("one account, of 8 processes", func(b *testing.B) {
				b.SetParallelism(4)
				settles(b, store, 1, "shared")
			})
		})
	}
}

var processes atomic.Int64

func settles(b *testing.B, store *sqlquota.Store, n int, how string) {
	work := func(next func() bool) {
		process := fmt.Sprint("process ", processes.Add(1))
		claims := make([]admit.QuotaClaim, n)
		for i := range claims {
			account := "shared"
			if how != account {
				account = fmt.Sprint(process, " account ", i)
			}
			claims[i] = claim(account, process, 0)
		}
		for next() {
			for i := range claims {
				claims[i].Seq++
				claims[i].Used += 100
				claims[i].Want = 100
			}
			settle(b, store, claims...)
		}
	}
	if how == "" {
		work(b.Loop)
	} else {
		b.RunParallel(func(pb *testing.PB) { work(pb.Next) })
	}
	b.ReportMetric(float64(b.N*n)/b.Elapsed().Seconds(), "claims/s")
}
