package redislimit_test

import (
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/redis/rueidis"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"github.com/valkey-io/valkey-go"

	"github.com/admit-go/admit"
	"github.com/admit-go/admit/integration/servers"
	"github.com/admit-go/admit/redislimit"
)

// The clients of the examples share one bucket, on a server and on a cluster.
func TestClients(t *testing.T) {
	t.Parallel()
	for name, addrs := range map[string][]string{
		"a server":  {servers.StartRedis(t).Addr},
		"a cluster": servers.StartRedisCluster(t, 3),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			universal := redis.NewUniversalClient(&redis.UniversalOptions{Addrs: addrs, ContextTimeoutEnabled: true})
			t.Cleanup(func() { _ = universal.Close() })
			r, err := rueidis.NewClient(rueidis.ClientOption{InitAddress: addrs, DisableCache: true})
			require.NoError(t, err)
			t.Cleanup(r.Close)
			v, err := valkey.NewClient(valkey.ClientOption{InitAddress: addrs, DisableCache: true})
			require.NoError(t, err)
			t.Cleanup(v.Close)

			limits := []admit.Limit{
				{Name: "three", Requests: 3, Per: 100 * time.Hour, Burst: 7}, // with a fraction of a microsecond
				{Name: "wide", Requests: 9, Per: 1000 * time.Hour},
			}
			left := 7
			var stores []*redislimit.Store
			for _, eval := range []redislimit.Eval{evalWith(universal), evalRueidis(r), evalValkey(v)} {
				stores = append(stores, newStore(t, eval, patient))
			}
			for range 2 {
				for _, s := range stores {
					d := take(t, s, "caller", 1, limits...)
					left--
					assert.True(t, d.Allowed)
					assert.Equal(t, left, d.States[0].Remaining)
					assert.Equal(t, left+2, d.States[1].Remaining)
				}
			}
			for _, s := range stores {
				d := take(t, s, "caller", 2, limits...)
				assert.False(t, d.Allowed)
				assert.InDelta(t, float64(100*time.Hour)/3, float64(d.RetryAfter), float64(time.Minute))
			}
		})
	}
}
