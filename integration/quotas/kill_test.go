//go:build unix

package quotas_test

import (
	"bufio"
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"text/tabwriter"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/admit-go/admit"
	"github.com/admit-go/admit/integration/servers"
	"github.com/admit-go/admit/sqlquota"
)

const workers = 8

// Eight processes share an account, and are killed, paused and ended at any moment. No more is
// admitted than was sold; what the store counts is what was admitted but for what kills lose,
// which is at most what the killed had taken ahead; and what is exported is what is counted.
// ADMIT_QUOTA_KILLS=2m makes it longer.
func TestKilledProcessesLoseAtMostTheirShares(t *testing.T) {
	f := newFleet(t, 6*time.Second)
	f.run(t, func(w *worker) {
		switch rand.IntN(4) {
		case 0:
			f.pauses++
			require.NoError(t, w.cmd.Process.Signal(syscall.SIGSTOP))
			time.Sleep(rand.N(600 * time.Millisecond)) // also longer than a request waits for the store
			require.NoError(t, w.cmd.Process.Signal(syscall.SIGCONT))
		case 1:
			f.ends++
			require.NoError(t, w.end(t))
			w.start(t)
		default:
			f.kills++
			w.kill()
			w.start(t)
		}
	})
	f.check(t)
	assert.Positive(t, f.kills)
}

// Without kills, all that was sold is admitted, nothing is lost, and each account is told once.
func TestProcessesThatEndWellLoseNothing(t *testing.T) {
	f := newFleet(t, 3*time.Second)
	f.run(t, func(w *worker) {
		f.ends++
		require.NoError(t, w.end(t))
		w.start(t)
	})
	f.check(t)
	for _, a := range f.accounts(t) {
		assert.Equal(t, a.sold, a.admitted, "admitted of what was sold to %s", a.name)
		assert.Equal(t, a.admitted, a.counted, "counted of what %s was admitted", a.name)
		assert.Zero(t, a.held, "held of %s", a.name)
		assert.Equal(t, map[int]int{80: 1, 100: 1}, a.notices, "notices of %s", a.name)
	}
}

// fleet is the worker processes, the database that they share, and what is known of them.
type fleet struct {
	database string
	db       *sql.DB
	journal  string
	sink     *sink
	sinkURL  string
	sold     map[string]int64
	workers  []*worker
	duration time.Duration

	kills, pauses, ends int
}

const sharedAccount = "shared"

func newFleet(t *testing.T, duration time.Duration) *fleet {
	f := &fleet{database: servers.PostgresDatabase(t), journal: filepath.Join(t.TempDir(), "journal"), sink: newSink(), duration: duration}
	if text := os.Getenv("ADMIT_QUOTA_KILLS"); text != "" {
		var err error
		f.duration, err = time.ParseDuration(text)
		require.NoError(t, err)
	}
	// A process that is paused in the middle of a claim does not keep others out for longer.
	f.database += "&idle_in_transaction_session_timeout=500"
	var err error
	f.db, err = sql.Open("pgx", f.database)
	require.NoError(t, err)
	t.Cleanup(func() { _ = f.db.Close() })
	f.exec(t, sqlquota.Schema(sqlquota.PostgreSQL))
	require.NoError(t, os.WriteFile(f.journal, nil, 0o600))
	server := httptest.NewServer(f.sink)
	t.Cleanup(server.Close)
	f.sinkURL = server.URL

	// They ask for a little more than that in all the time.
	const pace = 2 * time.Millisecond
	perWorker := workerCallers * int64(f.duration/pace)
	f.sold = map[string]int64{sharedAccount: perWorker * workers / 4}
	for i := range workers {
		own := fmt.Sprintf("own-%d", i)
		f.sold[own] = perWorker / 12
		f.workers = append(f.workers, &worker{config: workerConfig{
			Database: f.database, Journal: f.journal, Sink: f.sinkURL, Sold: f.sold, Shared: sharedAccount, Own: own, Pause: pace,
		}})
	}
	return f
}

func (f *fleet) exec(t testing.TB, query string) {
	t.Helper()
	_, err := f.db.ExecContext(t.Context(), query)
	require.NoError(t, err)
}

// run lets the fleet serve, with something that happens to one of the workers again and again,
// then ends it, spends what is left and exports all.
func (f *fleet) run(t *testing.T, happens func(*worker)) {
	for _, w := range f.workers {
		w.start(t)
		t.Cleanup(w.kill)
	}
	ctx, stop := context.WithCancel(t.Context())
	var hurrying sync.WaitGroup
	hurrying.Go(func() { f.hurry(ctx) })
	for end := time.Now().Add(f.duration); time.Now().Before(end); {
		happens(f.workers[rand.IntN(workers)])
		time.Sleep(rand.N(100 * time.Millisecond))
	}
	stop()
	hurrying.Wait()
	for _, w := range f.workers {
		require.NoError(t, w.end(t))
	}

	store, err := sqlquota.New(sqlquota.Config{DB: f.db, Dialect: sqlquota.PostgreSQL})
	require.NoError(t, err)
	q := newQuotas(t, store, func(c *admit.QuotasConfig) {
		c.Notify = func(n admit.QuotaNotice) { f.note(t, entry{Account: n.Account, Notice: n.Percent}) }
	})
	h := q.Wrap(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		key, _ := admit.KeyFrom(r.Context())
		f.note(t, entry{Account: key.Owner, Cost: 1})
	}))
	for account, sold := range f.sold {
		key := caller(account, sold)
		eventually(t, "the rest of "+account+" is spent", func() bool {
			status := http.StatusOK
			for status == http.StatusOK {
				status = call(h, key, 1)
			}
			return status == http.StatusTooManyRequests // else the database is late, on a busy machine
		})
	}
	eventually(t, "all is told", func() bool { return q.Close(t.Context()) == nil })
	f.sink.fails.Store(false)
	f.makeDue(t.Context())
	require.NoError(t, q.Export(t.Context(), exportTo(f.sinkURL)))
	assert.Zero(t, f.count(t, `SELECT count(*) FROM admit_quota_usage`), "records that are left")
}

func eventually(t *testing.T, what string, done func() bool) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); !done(); time.Sleep(100 * time.Millisecond) {
		require.True(t, time.Now().Before(end), what)
	}
}

func (f *fleet) note(t testing.TB, e entry) {
	journal, err := os.OpenFile(f.journal, os.O_APPEND|os.O_WRONLY, 0)
	require.NoError(t, err)
	defer journal.Close()
	note(journal, e)
}

// hurry makes minutes pass in no time, for usage that nobody has been offered, and offers again
// soon what nobody has acknowledged.
func (f *fleet) hurry(ctx context.Context) {
	for ctx.Err() == nil {
		f.makeDue(ctx)
		pause(ctx, 300*time.Millisecond)
	}
}

func (f *fleet) makeDue(ctx context.Context) {
	for _, query := range []string{
		`UPDATE admit_quota_usage SET minute = minute - floor(random() * 40000 + 10) * interval '1 minute'
			WHERE id IN (SELECT id FROM admit_quota_usage WHERE offered_at IS NULL AND minute > now() - interval '4 minutes' FOR UPDATE SKIP LOCKED)`,
		`UPDATE admit_quota_usage SET offered_at = offered_at - interval '1 hour'
			WHERE id IN (SELECT id FROM admit_quota_usage WHERE offered_at > now() - interval '1 hour' FOR UPDATE SKIP LOCKED)`,
	} {
		_, _ = f.db.ExecContext(ctx, query) // or the next time
	}
}

func (f *fleet) count(t testing.TB, query string, args ...any) (n int64) {
	t.Helper()
	require.NoError(t, f.db.QueryRowContext(t.Context(), query, args...).Scan(&n))
	return n
}

// account is what has become of one.
type account struct {
	name           string
	sold, admitted int64
	counted, held  int64 // by the store; held by processes that are gone
	biggest        int64 // of the shares that are held
	exported       int64
	notices        map[int]int
}

// accounts returns what has become of all. It is for when all workers have ended.
func (f *fleet) accounts(t *testing.T) []*account {
	byName := make(map[string]*account)
	for name, sold := range f.sold {
		byName[name] = &account{name: name, sold: sold, notices: map[int]int{}}
	}
	file, err := os.Open(f.journal)
	require.NoError(t, err)
	defer file.Close()
	for lines := bufio.NewScanner(file); lines.Scan(); {
		var e entry
		require.NoError(t, json.Unmarshal(lines.Bytes(), &e), "%s", lines.Bytes())
		if e.Notice != 0 {
			byName[e.Account].notices[e.Notice]++
		}
		byName[e.Account].admitted += int64(e.Cost)
	}
	for name, a := range byName {
		a.counted = f.count(t, `SELECT COALESCE(sum(used), 0) FROM admit_quota_counts WHERE account = $1`, name)
		a.held = f.count(t, `SELECT COALESCE(sum(s.held), 0) FROM admit_quota_shares AS s JOIN admit_quota_counts AS c ON c.id = s.count_id WHERE account = $1`, name)
		a.biggest = f.count(t, `SELECT COALESCE(max(s.held), 0) FROM admit_quota_shares AS s JOIN admit_quota_counts AS c ON c.id = s.count_id WHERE account = $1`, name)
		a.exported = f.sink.sum[name]
		assert.Equal(t, a.held, f.count(t, `SELECT sum(held) FROM admit_quota_counts WHERE account = $1`, name), "the count of %s knows the shares", name)
		assert.Equal(t, a.counted, f.count(t, `SELECT sum(s.used) FROM admit_quota_shares AS s JOIN admit_quota_counts AS c ON c.id = s.count_id WHERE account = $1`, name), "the count of %s knows the use", name)
	}
	return slices.SortedFunc(maps.Values(byName), func(a, b *account) int { return strings.Compare(a.name, b.name) })
}

// check holds all accounts against what was sold, and prints them.
func (f *fleet) check(t *testing.T) {
	t.Helper()
	var table strings.Builder
	w := tabwriter.NewWriter(&table, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintf(w, "account\tsold\tadmitted\tcounted\texported\tlost\tbound of loss\tlargest share\tdoubled\t\n")
	for _, a := range f.accounts(t) {
		lost := a.admitted - a.counted
		fmt.Fprintf(w, "%s\t%d\t%d\t%d\t%d\t%d\t%d\t%d\t%d\t\n", a.name, a.sold, a.admitted, a.counted, a.exported, max(lost, 0), a.held, a.biggest, max(-lost, 0))
		assert.LessOrEqual(t, a.admitted, a.sold, "admitted of what was sold to %s", a.name)
		assert.Equal(t, a.counted, a.exported, "exported of what %s has used", a.name)
		assert.GreaterOrEqual(t, lost, int64(0), "%s has used more than it was admitted", a.name)
		assert.LessOrEqual(t, lost, a.held, "what %s has used and the store does not know, of what the killed had taken ahead", a.name)
		assert.Equal(t, a.sold, a.counted+a.held, "of %s, all is spent but what the killed had taken ahead", a.name)
		assert.LessOrEqual(t, a.biggest, a.sold/100+workerCallers*5, "the largest share of %s", a.name)
		for percent, times := range a.notices {
			assert.Equal(t, 1, times, "how often %s was told of %d%%", a.name, percent)
		}
	}
	require.NoError(t, w.Flush())
	assert.Positive(t, f.sink.again, "nothing was sent again, so that nothing was tried")
	t.Logf("%d kills, %d pauses, %d ended well; %d records, of which %d came again\n%s", f.kills, f.pauses, f.ends, len(f.sink.seen), f.sink.again, &table)
	assert.Empty(t, f.sink.faults)
}

// worker is a process, or a row of processes one after the other.
type worker struct {
	config workerConfig
	cmd    *exec.Cmd
	stdin  io.Closer // it lives as long as this is open
}

func (w *worker) start(t testing.TB) {
	t.Helper()
	self, err := os.Executable()
	require.NoError(t, err)
	text, err := json.Marshal(w.config)
	require.NoError(t, err)
	w.cmd = exec.Command(self)
	w.cmd.Env = append(os.Environ(), workerEnv+"="+string(text))
	w.cmd.Stderr = os.Stderr
	w.stdin, err = w.cmd.StdinPipe()
	require.NoError(t, err)
	ready, err := w.cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, w.cmd.Start())
	_, err = io.ReadFull(ready, make([]byte, 1)) // a SIGTERM before would kill it
	require.NoError(t, err, "a worker does not start")
}

func (w *worker) kill() {
	_ = w.cmd.Process.Kill()
	_ = w.cmd.Wait()
}

// end has a process close its Quotas.
func (w *worker) end(t testing.TB) error {
	t.Helper()
	require.NoError(t, w.cmd.Process.Signal(syscall.SIGTERM))
	return w.cmd.Wait()
}

// sink is a billing system. It counts each ID once, and of five calls fails in the first, after it
// has counted, and in the third, before.
type sink struct {
	fails  atomic.Bool
	calls  atomic.Int64
	mu     sync.Mutex
	seen   map[string]admit.UsageRecord
	sum    map[string]int64
	again  int
	faults []string
}

func newSink() *sink {
	s := &sink{seen: make(map[string]admit.UsageRecord), sum: make(map[string]int64)}
	s.fails.Store(true)
	return s
}

func (s *sink) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	var records []admit.UsageRecord
	call := s.calls.Add(1) % 5
	if err := json.NewDecoder(r.Body).Decode(&records); err != nil || s.fails.Load() && call == 3 {
		w.WriteHeader(http.StatusInternalServerError)
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, record := range records {
		switch old, again := s.seen[record.ID]; {
		case !again:
			s.seen[record.ID] = record
			s.sum[record.Account] += record.Requests
		case old != record:
			s.faults = append(s.faults, fmt.Sprintf("%+v was %+v", record, old))
		default:
			s.again++
		}
	}
	if s.fails.Load() && call == 1 {
		w.WriteHeader(http.StatusInternalServerError)
		return
	}
	w.WriteHeader(http.StatusNoContent)
}
