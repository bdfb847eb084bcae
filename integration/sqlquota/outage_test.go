package sqlquota_test

import (
	"bytes"
	"context"
	"database/sql"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/admit-go/admit"
	"github.com/admit-go/admit/integration/servers"
	"github.com/admit-go/admit/sqlquota"
)

// spender is a process that takes shares of a quota ahead and spends them.
type spender struct {
	store  *sqlquota.Store
	claim  admit.QuotaClaim
	hold   int64
	dry    int // how often it has got nothing, one after the other
	failed atomic.Int64
	heard  atomic.Int64
}

func newSpender(store *sqlquota.Store, process string, limit int64) *spender {
	s := &spender{store: store, claim: claim("account", process, 0)}
	s.claim.Fresh, s.claim.Limit = true, limit
	return s
}

// spend spends what it holds, and claims more.
func (s *spender) spend(ctx context.Context, want int64) error {
	n := s.hold
	if n > 0 {
		n = rand.Int64N(n + 1)
	}
	s.claim.Used += n
	s.claim.Want = want
	s.claim.Seq++
	balances, err := s.store.Settle(ctx, []admit.QuotaClaim{s.claim})
	if err != nil {
		s.hold -= n
		s.failed.Add(1)
		return err
	}
	s.hold, s.claim.Heard, s.claim.Fresh = balances[0].MyHeld, s.claim.Seq, false
	if s.dry++; s.hold > 0 {
		s.dry = 0
	}
	s.heard.Add(1)
	return nil
}

// Replicas go on while the server hangs, dies, and cuts their connections. In the end each
// use is counted once, and is in one record.
func TestOutages(t *testing.T) {
	t.Parallel()
	server := servers.StartPostgres(t)
	db := openPostgres(t, server.URL())
	store, err := sqlquota.New(sqlquota.Config{DB: db.DB, Dialect: db.dialect, Timeout: 300 * time.Millisecond, Logger: slog.New(slog.DiscardHandler)})
	require.NoError(t, err)
	const limit = 1_000_000_000
	var spenders []*spender
	var all sync.WaitGroup
	var done atomic.Bool
	for i := range 4 {
		s := newSpender(store, fmt.Sprint("process ", i), limit)
		spenders = append(spenders, s)
		all.Go(func() {
			for !done.Load() {
				if s.spend(t.Context(), 50) != nil {
					time.Sleep(time.Millisecond) // who finds no server there fails at once
				}
			}
		})
	}
	t.Cleanup(func() {
		done.Store(true)
		all.Wait()
	})
	each := func(what string, of func(*spender) *atomic.Int64) {
		t.Helper()
		before := make([]int64, len(spenders))
		for i, s := range spenders {
			before[i] = of(s).Load()
		}
		require.Eventually(t, func() bool {
			for i, s := range spenders {
				if of(s).Load() < before[i]+2 {
					return false
				}
			}
			return true
		}, 30*time.Second, time.Millisecond, what)
	}
	well := func() { t.Helper(); each("it works", func(s *spender) *atomic.Int64 { return &s.heard }) }
	ill := func() { t.Helper(); each("it fails", func(s *spender) *atomic.Int64 { return &s.failed }) }

	for range 5 {
		well()
		server.Hang(t)
		ill()
		server.Resume(t)
		well()
		server.Stop()
		ill()
		server.Start(t)
		well()
		for range 20 {
			_, _ = db.ExecContext(t.Context(), `SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND datname = current_database()`)
		}
	}
	well()
	done.Store(true)
	all.Wait()

	used, failed := int64(0), int64(0)
	for _, s := range spenders {
		require.Eventually(t, func() bool { return s.spend(t.Context(), 0) == nil }, 10*time.Second, time.Millisecond)
		used, failed = used+s.claim.Used, failed+s.failed.Load()
	}
	assert.Equal(t, admit.QuotaBalance{Used: used}, settle(t, store, claim("account", "", 0))[0])
	db.sleep(t, time.Hour)
	records, err := store.Offer(t.Context(), 1000)
	require.NoError(t, err)
	recorded := int64(0)
	for _, r := range records {
		recorded += r.Requests
	}
	assert.Equal(t, used, recorded)
	t.Logf("%d used in %d claims that were heard of and %d that failed", used, spenders[0].heard.Load()*int64(len(spenders)), failed)
}

// A server that hangs costs no more than the Timeout.
func TestTimeout(t *testing.T) {
	t.Parallel()
	server := servers.StartPostgres(t)
	db := openPostgres(t, server.URL())
	store, err := sqlquota.New(sqlquota.Config{DB: db.DB, Dialect: db.dialect, Timeout: 200 * time.Millisecond})
	require.NoError(t, err)
	settle(t, store, claim("account", "process", 1))
	server.Hang(t)
	defer server.Resume(t)
	began := time.Now()
	_, err = store.Settle(t.Context(), []admit.QuotaClaim{claim("account", "process", 2)})
	assert.ErrorContains(t, err, "sqlquota: settle quotas: ")
	assert.Less(t, time.Since(began), 3*time.Second)
}

// TestMain is the main of a process that spends too.
func TestMain(m *testing.M) {
	if url := os.Getenv("ADMIT_TEST_SPENDER"); url != "" {
		used, err := spendAll(url, fmt.Sprint("process ", os.Getpid()))
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		fmt.Println(used)
		return
	}
	os.Exit(m.Run())
}

const shared = 3000 // what the processes share

func spendAll(url, process string) (int64, error) {
	db, err := sql.Open("pgx", url)
	if err != nil {
		return 0, err
	}
	defer db.Close()
	store, err := sqlquota.New(sqlquota.Config{DB: db, Dialect: sqlquota.PostgreSQL, Timeout: time.Minute})
	if err != nil {
		return 0, err
	}
	s := newSpender(store, process, shared)
	for s.dry < 3 {
		if err := s.spend(context.Background(), 1+rand.Int64N(30)); err != nil {
			return 0, err
		}
	}
	return s.claim.Used, s.spend(context.Background(), 0)
}

// Eight processes spend what one account has, and no more. One more is killed on its way, and
// takes no more along than it held.
func TestProcesses(t *testing.T) {
	t.Parallel()
	url := servers.PostgresDatabase(t)
	db := openPostgres(t, url)
	self, err := os.Executable()
	require.NoError(t, err)
	start := func() (*exec.Cmd, *bytes.Buffer) {
		c, out := exec.CommandContext(t.Context(), self), new(bytes.Buffer)
		c.Env = append(os.Environ(), "ADMIT_TEST_SPENDER="+url)
		c.Stdout, c.Stderr = out, os.Stderr
		require.NoError(t, c.Start())
		return c, out
	}
	killed, _ := start()
	store := db.store(t)
	require.Eventually(t, func() bool { return settle(t, store, claim("account", "", 0))[0].Used > 0 }, 30*time.Second, time.Millisecond)
	require.NoError(t, killed.Process.Kill())
	_ = killed.Wait()
	after := settle(t, store, claim("account", "", 0))[0]
	require.LessOrEqual(t, after.Held, int64(30))

	var outs []*bytes.Buffer
	var processes []*exec.Cmd
	for range 8 {
		c, out := start()
		processes, outs = append(processes, c), append(outs, out)
	}
	used := after.Used
	for i, c := range processes {
		require.NoError(t, c.Wait())
		n, err := strconv.ParseInt(strings.TrimSpace(outs[i].String()), 10, 64)
		require.NoError(t, err)
		used += n
	}
	assert.Equal(t, admit.QuotaBalance{Used: used, Held: after.Held}, settle(t, store, claim("account", "", 0))[0])
	assert.LessOrEqual(t, used+after.Held, int64(shared))
	assert.Greater(t, used, int64(shared-9*30))
}
