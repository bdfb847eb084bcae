package quotas_test

import (
	"bytes"
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"

	"github.com/admit-go/admit"
	"github.com/admit-go/admit/sqlquota"
)

// workerConfig is what a worker process is told.
type workerConfig struct {
	Database string
	Journal  string // where admissions and notices are written
	Sink     string // the URL that usage is exported to
	Sold     map[string]int64
	Shared   string // the account of all workers
	Own      string // the account of this one
	Pause    time.Duration
}

const workerCallers = 4 // goroutines

// work serves callers of its own until SIGTERM, and then closes its Quotas. It ends too when its
// parent is gone.
func work(text string) error {
	var c workerConfig
	if err := json.Unmarshal([]byte(text), &c); err != nil {
		return err
	}
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		os.Exit(1)
	}()
	slog.SetDefault(slog.New(slog.DiscardHandler)) // a line for each request that is refused in an outage
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()

	db, err := sql.Open("pgx", c.Database)
	if err != nil {
		return err
	}
	defer db.Close()
	db.SetMaxOpenConns(4)
	db.SetMaxIdleConns(4)
	store, err := sqlquota.New(sqlquota.Config{DB: db, Dialect: sqlquota.PostgreSQL})
	if err != nil {
		return err
	}
	journal, err := os.OpenFile(c.Journal, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer journal.Close()
	q, err := admit.NewQuotas(admit.QuotasConfig{
		Plans: freePlans(), Store: store, StoreDown: admit.RefuseAll, Cost: costOf,
		Notify: func(n admit.QuotaNotice) { note(journal, entry{Notice: n.Percent, Account: n.Account}) },
	})
	if err != nil {
		return err
	}
	// What is admitted is on record before it is answered: one write, which a SIGKILL cannot take
	// back. One in ten fails, and costs nothing.
	handler := q.Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if rand.IntN(10) == 0 {
			w.WriteHeader(http.StatusInternalServerError)
			return
		}
		key, _ := admit.KeyFrom(r.Context())
		note(journal, entry{Account: key.Owner, Cost: costOf(r)})
	}))

	if _, err := fmt.Println(); err != nil { // ready: see worker.start
		return err
	}
	var running sync.WaitGroup
	running.Go(func() {
		for ctx.Err() == nil {
			_ = q.Export(ctx, exportTo(c.Sink)) // the sink fails now and then
			pause(ctx, 100*time.Millisecond)
		}
	})
	for range workerCallers {
		running.Go(func() {
			for ctx.Err() == nil {
				account, cost := c.Shared, 1
				if rand.IntN(4) == 0 {
					account = c.Own
				}
				if rand.IntN(20) == 0 {
					cost = 1 + rand.IntN(5)
				}
				if call(handler, caller(account, c.Sold[account]), cost) != http.StatusOK {
					pause(ctx, 5*c.Pause)
				}
				pause(ctx, rand.N(2*c.Pause))
			}
		})
	}
	running.Wait()
	// A paused neighbour may hold a row: what could not be told is told a second later.
	for tries := 0; ; tries++ {
		err := q.Close(context.Background())
		if err == nil || tries == 10 {
			return err
		}
		time.Sleep(time.Second)
	}
}

func pause(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

// entry is a line of the journal: an admission, or a notice.
type entry struct {
	Account      string
	Cost, Notice int `json:",omitempty"`
}

func note(journal *os.File, e entry) {
	line, err := json.Marshal(e)
	if err == nil {
		_, err = journal.Write(append(line, '\n'))
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "worker: the journal:", err)
		os.Exit(2)
	}
}

// exportTo sends usage to a sink.
func exportTo(url string) func(context.Context, []admit.UsageRecord) error {
	return func(ctx context.Context, records []admit.UsageRecord) error {
		body, err := json.Marshal(records)
		if err != nil {
			return err
		}
		r, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(body))
		if err != nil {
			return err
		}
		res, err := http.DefaultClient.Do(r)
		if err != nil {
			return err
		}
		defer res.Body.Close()
		if res.StatusCode != http.StatusNoContent {
			return errors.New("the sink answers " + res.Status)
		}
		return nil
	}
}
