package quotas_test

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	_ "github.com/jackc/pgx/v5/stdlib" // the driver "pgx"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/admit-go/admit"
	"github.com/admit-go/admit/integration/guides/quotas"
	"github.com/admit-go/admit/integration/internal/guide"
	"github.com/admit-go/admit/integration/servers"
)

var (
	keys = admit.KeyMap{
		admit.DigestOf("free"):  {ID: "k-1", Owner: "ACME", Plan: "free"},
		admit.DigestOf("other"): {ID: "k-2", Owner: "ACME", Plan: "free"},
		admit.DigestOf("pro"):   {ID: "k-3", Owner: "BETA", Plan: "pro", Quotas: []admit.Quota{{Requests: 2, Every: admit.Month, Soft: true}}},
	}
	reports = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Query().Has("fail") {
			w.WriteHeader(http.StatusBadGateway)
		}
	})
)

func get(t testing.TB, h http.Handler, path, key string) *http.Response {
	t.Helper()
	r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, path, nil)
	r.Header.Set("X-Request-Id", "7f3a")
	r.Header.Set("X-API-Key", key)
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w.Result()
}

func body(t testing.TB, res *http.Response) string {
	t.Helper()
	text, err := io.ReadAll(res.Body)
	require.NoError(t, err)
	return string(text)
}

// service is the one of the guide, with its counts in memory.
func service(t testing.TB) (http.Handler, *admit.Quotas) {
	t.Helper()
	plans, err := quotas.Plans()
	require.NoError(t, err)
	counts, err := quotas.InMemory(plans)
	require.NoError(t, err)
	h, err := quotas.Service(keys, plans, counts, reports)
	require.NoError(t, err)
	return h, counts
}

func TestMonth(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h, _ := service(t)
		time.Sleep(time.Until(time.Date(2026, time.January, 21, 12, 0, 0, 0, time.UTC)))
		for range 9_999 {
			require.Equal(t, 200, get(t, h, "/reports", "free").StatusCode)
			time.Sleep(200 * time.Millisecond)
		}
		require.Equal(t, 502, get(t, h, "/reports?fail", "free").StatusCode) // is not counted
		time.Sleep(200 * time.Millisecond)
		require.Equal(t, 200, get(t, h, "/reports", "other").StatusCode) // of the same account
		time.Sleep(time.Second)
		guide.Shows(t, "quotas", "http", guide.Dump(t, get(t, h, "/reports", "free")))
		assert.Equal(t, 429, get(t, h, "/reports", "other").StatusCode)
		guide.Shows(t, "quotas", "json", body(t, get(t, h, "/usage", "free")))

		time.Sleep(time.Until(time.Date(2026, time.February, 1, 0, 0, 1, 0, time.UTC)))
		assert.Equal(t, 200, get(t, h, "/reports", "free").StatusCode)
	})
}

func TestSoft(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h, _ := service(t)
		for range 5 {
			require.Equal(t, 200, get(t, h, "/reports", "pro").StatusCode)
		}
		assert.Contains(t, body(t, get(t, h, "/usage", "pro")), `"limit":2,"used":5,"remaining":0`)
	})
}

// A billing system that fails after it has counted gets the same records again, and counts
// each once.
func TestBill(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h, counts := service(t)
		seen, sent, requests := map[string]int64{}, 0, int64(0)
		client := &http.Client{Transport: roundTrip(func(r *http.Request) (*http.Response, error) {
			var events []struct {
				ID, Customer, Meter string
				Requests            int64
			}
			require.NoError(t, json.NewDecoder(r.Body).Decode(&events))
			for _, e := range events {
				assert.Equal(t, "ACME month", e.Customer+" "+e.Meter)
				if n, again := seen[e.ID]; again {
					assert.Equal(t, n, e.Requests)
					continue
				}
				seen[e.ID] = e.Requests
				requests += e.Requests
			}
			if sent++; sent == 1 {
				return nil, errors.New("the response is lost")
			}
			return &http.Response{Status: "204 No Content", StatusCode: 204, Body: http.NoBody}, nil
		})}
		ctx, stop := context.WithCancel(t.Context())
		ended := make(chan struct{})
		go func() { quotas.Bill(ctx, counts, client, "http://billing.example.com/events"); close(ended) }()
		for range 5 {
			require.Equal(t, 200, get(t, h, "/reports", "free").StatusCode)
		}
		time.Sleep(20 * time.Minute)
		stop()
		<-ended
		assert.GreaterOrEqual(t, sent, 2)
		assert.EqualValues(t, 5, requests)
	})
}

type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// The commands and grants of the guide, on PostgreSQL, with a service that counts there.
func TestOnDatabase(t *testing.T) {
	t.Parallel()
	url := servers.PostgresDatabase(t)
	servers.Program(t, "psql")
	shell := guide.NewShell(t, "ADMIT_KEYS=keys.json", "ADMIT_QUOTAS="+url)
	commands := guide.Blocks(t, "quotas", "sh")
	require.Len(t, commands, 3)
	shell.Run(t, commands[0])
	api := guide.Grant(t, open(t, url), url, guide.Blocks(t, "quotas", "sql")[0])

	shell.Run(t, "admit keys mint --owner ACME --plan free --meta billed_since=2024-01-31 >token; admit quotas set ACME --quota 10/month")
	text, err := os.ReadFile(filepath.Join(shell.Dir, "token"))
	require.NoError(t, err)
	token := strings.TrimSpace(string(text))
	file, err := admit.OpenKeyFile(filepath.Join(shell.Dir, "keys.json"))
	require.NoError(t, err)
	t.Cleanup(func() { _ = file.Close() })

	plans, err := quotas.Plans()
	require.NoError(t, err)
	mails := make(chan string, 10)
	counts, err := quotas.OnDatabase(open(t, api), plans, func(to, text string) { mails <- to + ": " + text })
	require.NoError(t, err)
	auth, err := admit.NewAuth(admit.AuthConfig{Store: file})
	require.NoError(t, err)
	h := auth.Wrap(counts.Wrap(reports)) // without the Limiter
	for range 10 {
		require.Equal(t, 200, get(t, h, "/reports", token).StatusCode)
	}
	res := get(t, h, "/reports", token)
	assert.Equal(t, 429, res.StatusCode)
	var refusal struct {
		ResetsAt time.Time `json:"resets_at"`
	}
	require.NoError(t, json.Unmarshal([]byte(body(t, res)), &refusal))
	next := refusal.ResetsAt
	assert.True(t, next.Day() == 31 || next.AddDate(0, 0, 1).Day() == 1, "%v is a 31st, or the last day of a shorter month", next)
	assert.Equal(t, "ACME: You have used 80% of your 10 requests this month.", <-mails)

	stdout, _ := shell.Run(t, commands[1])
	assert.Contains(t, stdout, "of ACME had 10/month and now has 20000/month")
	stdout, _ = shell.Run(t, commands[2])
	assert.Contains(t, stdout, "QUOTA  PERIOD")
	require.Eventually(t, func() bool { return get(t, h, "/reports", token).StatusCode == 200 }, 20*time.Second, 50*time.Millisecond)

	require.NoError(t, quotas.Stop(t.Context(), &http.Server{}, counts))
	stdout, _ = shell.Run(t, "admit quotas show ACME --json")
	assert.Contains(t, stdout, `"quota":"month"`)
	assert.Contains(t, stdout, `"used":11,"held":0`)
}

func open(t testing.TB, url string) *sql.DB {
	t.Helper()
	db, err := sql.Open("pgx", url)
	require.NoError(t, err)
	t.Cleanup(func() { _ = db.Close() })
	return db
}
