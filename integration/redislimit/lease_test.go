package redislimit_test

import (
	"net/http/httptest"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/admit-go/admit"
	"github.com/admit-go/admit/integration/servers"
	"github.com/admit-go/admit/redislimit"
)

// Four processes with leases share a limit on a Redis, and one caller sends more than it may: few
// requests need a call, all that the limit allows is used, and no more than the lease adds.
func TestLeases(t *testing.T) {
	t.Parallel()
	client := redis.NewClient(options(servers.StartRedis(t).Addr, nil))
	t.Cleanup(func() { _ = client.Close() })
	limit := admit.Limit{Name: "second", Requests: 1000, Per: time.Second, Burst: 400}
	lease := admit.Lease{Share: 0.25, For: 250 * time.Millisecond}
	began := time.Now()
	var requests, admitted, calls atomic.Int64
	var all sync.WaitGroup
	for range 4 {
		store := newStore(t, evalWith(client), redislimit.Config{Timeout: time.Second})
		l, err := admit.NewLimiter(admit.LimiterConfig{Name: "api", Limits: []admit.Limit{limit}, Store: store, StoreDown: admit.RefuseAll, Replicas: 4, Lease: lease})
		require.NoError(t, err)
		all.Go(func() {
			var clients sync.WaitGroup
			for range 4 {
				clients.Go(func() {
					r := httptest.NewRequest("GET", "/", nil)
					for time.Since(began) < 2*time.Second {
						d, err := l.Take(r, 1)
						assert.NoError(t, err)
						requests.Add(1)
						if d.Allowed {
							admitted.Add(1)
						}
						time.Sleep(5 * time.Millisecond)
					}
				})
			}
			clients.Wait()
			assert.NoError(t, l.Close(t.Context()))
			calls.Add(int64(store.Stats().Calls))
		})
	}
	all.Wait()
	may := float64(limit.Burst) + float64(limit.Requests)*time.Since(began).Seconds()
	assert.LessOrEqual(t, float64(admitted.Load()), may+lease.Share*float64(limit.Burst))
	assert.GreaterOrEqual(t, float64(admitted.Load()), 0.8*may)
	assert.LessOrEqual(t, float64(calls.Load()), 0.3*float64(requests.Load()))
	t.Logf("%d requests, %d admitted of %.0f, %d calls", requests.Load(), admitted.Load(), may, calls.Load())
}
