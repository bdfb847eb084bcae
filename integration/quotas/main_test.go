package quotas_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"strconv"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/admit-go/admit"
)

// TestMain is the main of a worker too, for tests with processes of their own.
func TestMain(m *testing.M) {
	if text := os.Getenv(workerEnv); text != "" {
		if err := work(text); err != nil {
			fmt.Fprintln(os.Stderr, "worker:", err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

const workerEnv = "ADMIT_TEST_QUOTA_WORKER"

// caller is a key of an account that has bought so much in each month.
func caller(account string, sold int64) *admit.Key {
	return &admit.Key{ID: account, Owner: account, Plan: "free", Quotas: []admit.Quota{{Requests: sold, Every: admit.Month}}}
}

// freePlans is one plan, whose callers have quotas of their keys alone.
func freePlans() *admit.Plans {
	plans, err := admit.NewPlans(admit.Plan{Name: "free"})
	if err != nil {
		panic(err)
	}
	return plans
}

// costOf is the cost that the query says, or 1.
func costOf(r *http.Request) int {
	if cost, err := strconv.Atoi(r.URL.RawQuery); err == nil {
		return cost
	}
	return 1
}

// call sends a request of a key through a handler, and returns the status.
func call(h http.Handler, key *admit.Key, cost int) int {
	r := httptest.NewRequest(http.MethodGet, "/?"+strconv.Itoa(cost), nil)
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r.WithContext(admit.WithKey(r.Context(), key)))
	return w.Code
}

func newQuotas(t testing.TB, store admit.QuotaStore, configure ...func(*admit.QuotasConfig)) *admit.Quotas {
	t.Helper()
	c := admit.QuotasConfig{Plans: freePlans(), Store: store, StoreDown: admit.RefuseAll, Cost: costOf}
	for _, f := range configure {
		f(&c)
	}
	q, err := admit.NewQuotas(c)
	require.NoError(t, err)
	return q
}
