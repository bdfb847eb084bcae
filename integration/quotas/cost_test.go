package quotas_test

import (
	"context"
	"database/sql"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"text/tabwriter"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/admit-go/admit"
	"github.com/admit-go/admit/integration/servers"
	"github.com/admit-go/admit/sqlquota"
)

// countingStore counts the calls of a store.
type countingStore struct {
	admit.QuotaStore
	calls atomic.Int64
}

func (s *countingStore) Settle(ctx context.Context, claims []admit.QuotaClaim) ([]admit.QuotaBalance, error) {
	s.calls.Add(1)
	return s.QuotaStore.Settle(ctx, claims)
}

// openStore returns a store in a database.
func openStore(t *testing.T, url string) admit.QuotaStore {
	t.Helper()
	db, err := sql.Open("pgx", url)
	require.NoError(t, err)
	t.Cleanup(func() { _ = db.Close() })
	db.SetMaxIdleConns(4)
	store, err := sqlquota.New(sqlquota.Config{DB: db, Dialect: sqlquota.PostgreSQL})
	require.NoError(t, err)
	_, err = store.Settle(t.Context(), []admit.QuotaClaim{{Account: "warm", Quota: "up", Period: "it", Process: "p", Seq: 1}})
	require.NoError(t, err)
	return store
}

// What Quotas add to a request, at 1,000 requests a second of one account: next to nothing,
// wherever the store is, as long as there is much left. ADMIT_QUOTA_REQUESTS=5000 measures it.
func TestCostOfARequest(t *testing.T) {
	requests := measured(t)
	database := servers.PostgresDatabase(t)
	db, err := sql.Open("pgx", database)
	require.NoError(t, err)
	defer db.Close()
	_, err = db.ExecContext(t.Context(), sqlquota.Schema(sqlquota.PostgreSQL))
	require.NoError(t, err)
	far, err := url.Parse(database)
	require.NoError(t, err)
	proxy := servers.StartProxy(t, far.Host)
	proxy.Set(servers.Weather{Delay: 5 * time.Millisecond})
	far.Host = proxy.Addr

	table, print := newTable(t, "store\ta month\trequests\tp50\tp90\tp99\tlongest\tcalls a request")
	for _, place := range []struct {
		name  string
		store admit.QuotaStore
	}{
		{"none", nil},
		{"memory", admit.NewMemoryQuotaStore()},
		{"PostgreSQL", openStore(t, database)},
		{"PostgreSQL, 5 ms away", openStore(t, far.String())}, // a claim is five round trips of 10 ms
	} {
		for _, sold := range []int64{1_000_000, 10_000} {
			h, counting := http.Handler(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})), new(countingStore)
			if place.store != nil {
				counting.QuotaStore = place.store
				h = newQuotas(t, counting, func(c *admit.QuotasConfig) { c.StoreDown, c.Replicas = admit.LimitLocally, 8 }).Wrap(h)
			}
			took := measure(t, h, caller(fmt.Sprint(place.name, sold), sold), requests)
			p := func(percent int) time.Duration { return took[(len(took)-1)*percent/100] }
			calls := float64(counting.calls.Load()) / float64(requests)
			fmt.Fprintf(table, "%s\t%d\t%d\t%v\t%v\t%v\t%v\t%.4f\t\n", place.name, sold, requests, p(50), p(90), p(99), p(100), calls)
			assert.Less(t, calls, 0.1, "%s, %d", place.name, sold)
		}
	}
	print()
}

// measured returns how many requests are to be measured. Nobody asks for that in CI.
func measured(t *testing.T) int {
	t.Helper()
	text := os.Getenv("ADMIT_QUOTA_REQUESTS")
	if text == "" {
		t.Skip("it measures: see ADMIT_QUOTA_REQUESTS")
	}
	requests, err := strconv.Atoi(text)
	require.NoError(t, err)
	return requests
}

// measure sends requests, one each millisecond, and returns how long they took, in order.
func measure(t *testing.T, h http.Handler, key *admit.Key, requests int) []time.Duration {
	took := make([]time.Duration, requests)
	ticks := time.NewTicker(time.Millisecond)
	defer ticks.Stop()
	var wg sync.WaitGroup
	for i := range requests {
		<-ticks.C
		r := httptest.NewRequest(http.MethodGet, "/?1", nil)
		r = r.WithContext(admit.WithKey(r.Context(), key))
		w := httptest.NewRecorder()
		wg.Go(func() {
			began := time.Now()
			h.ServeHTTP(w, r)
			took[i] = time.Since(began)
			assert.Equal(t, http.StatusOK, w.Code)
		})
	}
	wg.Wait()
	slices.Sort(took)
	return took
}

// The calls of the store for each request, over the whole of a quota: all that was sold is
// admitted, by one process or by eight.
func TestCallsOfTheStore(t *testing.T) {
	table, print := newTable(t, "a month\tprocesses\tadmitted\tcalls\tcalls a request\trequests a call")
	months := []int64{10_000, 1_000_000}
	if os.Getenv("ADMIT_QUOTA_REQUESTS") == "" {
		months = months[:1] // the rest takes a minute with the race detector
	}
	for _, sold := range months {
		for _, processes := range []int{1, 8} {
			store := &countingStore{QuotaStore: admit.NewMemoryQuotaStore()}
			var all []http.Handler
			for range processes {
				all = append(all, newQuotas(t, store).Wrap(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})))
			}
			r := httptest.NewRequest(http.MethodGet, "/?1", nil)
			r = r.WithContext(admit.WithKey(r.Context(), caller("acme", sold)))
			admitted := int64(0)
			for refused := 0; refused < processes; {
				for _, h := range all {
					w := httptest.NewRecorder()
					if h.ServeHTTP(w, r); w.Code == http.StatusOK {
						admitted++
						refused = 0
					} else {
						refused++
					}
				}
			}
			calls := store.calls.Load()
			fmt.Fprintf(table, "%d\t%d\t%d\t%d\t%.4f\t%d\t\n", sold, processes, admitted, calls, float64(calls)/float64(admitted), admitted/calls)
			assert.Equal(t, sold, admitted)
			if sold >= 1_000_000 {
				assert.Less(t, calls, sold/100)
			}
		}
	}
	print()
}

// What a Policy allocates with Quotas, and without.
func TestAllocationsOfAPolicy(t *testing.T) {
	auth, err := admit.NewAuth(admit.AuthConfig{Store: oneKey{caller("acme", 999_999_999)}})
	require.NoError(t, err)
	limiter, err := admit.NewLimiter(admit.LimiterConfig{Limits: []admit.Limit{{Requests: 999_999_999, Per: time.Second}}})
	require.NoError(t, err)
	count := func(quotas *admit.Quotas) float64 {
		chain, err := admit.Policy{Auth: auth, Limiter: limiter, Quotas: quotas}.Chain()
		require.NoError(t, err)
		h := chain.ThenFunc(func(http.ResponseWriter, *http.Request) {})
		r := httptest.NewRequest(http.MethodGet, "/", nil)
		r.Header.Set("Authorization", "Bearer token")
		w := httptest.NewRecorder()
		return testing.AllocsPerRun(10_000, func() {
			clear(w.Header())
			h.ServeHTTP(w, r)
		})
	}
	without, with := count(nil), count(newQuotas(t, admit.NewMemoryQuotaStore(), func(c *admit.QuotasConfig) { c.Cost = nil }))
	t.Logf("allocations of a request: %v with Auth and Limiter, %v with Quotas too", without, with)
	assert.LessOrEqual(t, with-without, 4.0)
}

// oneKey is a store that has one key, whoever asks.
type oneKey struct{ key *admit.Key }

func (s oneKey) LookupKey(context.Context, admit.Digest) (*admit.Key, error) { return s.key, nil }

// newTable returns where rows are written, and what prints them.
func newTable(t *testing.T, head string) (w *tabwriter.Writer, print func()) {
	var text strings.Builder
	w = tabwriter.NewWriter(&text, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, head+"\t")
	return w, func() {
		require.NoError(t, w.Flush())
		t.Logf("\n%s", &text)
	}
}
