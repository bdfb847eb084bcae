package quotas_test

import (
	"database/sql"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/admit-go/admit"
	"github.com/admit-go/admit/integration/servers"
	"github.com/admit-go/admit/sqlkeys"
	"github.com/admit-go/admit/sqlquota"
)

// atOnce is how soon all replicas know of another quota: they look for changes of keys each second.
// The test allows for a machine that is busy, and logs what it has seen.
const atOnce = 3 * time.Second

// What somebody changes of a key's quota, in the middle of a period, holds in all replicas at once,
// whether it is more or less.
func TestChangedQuotaHoldsAtOnce(t *testing.T) {
	url := servers.PostgresDatabase(t)
	db, err := sql.Open("pgx", url)
	require.NoError(t, err)
	t.Cleanup(func() { _ = db.Close() })
	for _, schema := range []string{sqlkeys.Schema(sqlkeys.PostgreSQL), sqlquota.Schema(sqlquota.PostgreSQL)} {
		_, err = db.ExecContext(t.Context(), schema)
		require.NoError(t, err)
	}
	keys, err := sqlkeys.New(sqlkeys.Config{DB: db, Dialect: sqlkeys.PostgreSQL})
	require.NoError(t, err)
	t.Cleanup(func() { _ = keys.Close() })
	require.NoError(t, keys.Insert(t.Context(), admit.DigestOf("token"), caller("acme", 100)))
	sell := func(n int64) {
		_, err := keys.Update(t.Context(), "acme", func(k *admit.Key) error {
			k.Quotas[0].Requests = n
			return nil
		})
		require.NoError(t, err)
	}

	var replicas []func() int
	for range 3 {
		replicas = append(replicas, startReplica(t, url))
	}
	// spend asks all replicas in turn until all refuse, and returns how often one has not.
	spend := func() (admitted int64) {
		for refused := 0; refused < len(replicas); {
			for _, get := range replicas {
				if get() == http.StatusOK {
					admitted++
					refused = 0
				} else {
					refused++
				}
			}
		}
		return admitted
	}
	// until returns when each replica answers with a status, from now on.
	until := func(status int) (after []time.Duration) {
		began := time.Now()
		for _, get := range replicas {
			require.Eventually(t, func() bool { return get() == status }, 2*atOnce, 5*time.Millisecond)
			after = append(after, time.Since(began).Round(time.Millisecond))
		}
		return after
	}

	admitted, sold := spend(), int64(100)
	require.Equal(t, sold, admitted)
	for range 3 {
		sold *= 2
		sell(sold)
		after := until(http.StatusOK)
		t.Logf("raised to %d: lets in after %v", sold, after)
		assert.Less(t, after[len(after)-1], atOnce)
		time.Sleep(atOnce) // what others gave back may be had
		admitted += int64(len(replicas)) + spend()
		assert.LessOrEqual(t, admitted, sold)
		assert.GreaterOrEqual(t, admitted, sold*95/100)
	}
	sell(10 * sold)
	until(http.StatusOK)
	sell(sold)
	after := until(http.StatusTooManyRequests)
	t.Logf("lowered to %d: refuses after %v", sold, after)
	assert.Less(t, after[len(after)-1], atOnce)
}

// startReplica starts a service with connections and caches of its own, and returns what calls it.
func startReplica(t *testing.T, url string) (get func() int) {
	db, err := sql.Open("pgx", url)
	require.NoError(t, err)
	t.Cleanup(func() { _ = db.Close() })
	keys, err := sqlkeys.New(sqlkeys.Config{DB: db, Dialect: sqlkeys.PostgreSQL})
	require.NoError(t, err)
	t.Cleanup(func() { _ = keys.Close() })
	cache, err := admit.NewKeyCache(keys, admit.KeyCacheConfig{TTL: time.Hour})
	require.NoError(t, err)
	go keys.Watch(t.Context(), cache.Forget)
	store, err := sqlquota.New(sqlquota.Config{DB: db, Dialect: sqlquota.PostgreSQL})
	require.NoError(t, err)
	auth, err := admit.NewAuth(admit.AuthConfig{Store: cache})
	require.NoError(t, err)
	service, err := admit.Policy{Auth: auth, Quotas: newQuotas(t, store)}.Chain()
	require.NoError(t, err)
	h := service.ThenFunc(func(http.ResponseWriter, *http.Request) {})
	return func() int {
		r := httptest.NewRequest(http.MethodGet, "/", nil)
		r.Header.Set("Authorization", "Bearer token")
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		return w.Code
	}
}
