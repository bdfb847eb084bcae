package redislimit_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/admit-go/admit/integration/servers"
	"github.com/admit-go/admit/internal/limitmodel"
	"github.com/admit-go/admit/redislimit"
)

// Any costs at any times, of any limits: the script decides on a real server as exact numbers
// do, for a hundred years. The server's clock is a key that the test sets, later than now,
// so that no key expires while the test runs.
func TestScriptIsExact(t *testing.T) {
	t.Parallel()
	client := newClient(t, servers.StartRedis(t).Addr)
	const clock = `{redis.call('HGET', 'clock', 's'), redis.call('HGET', 'clock', 'us')}`
	text := strings.Replace(redislimit.Script, "call('TIME')", clock, 1)
	require.Contains(t, text, clock)
	script := redis.NewScript(text)
	c := patient
	c.MaxRefusals = -1 // which would be told by the clock of this process
	s := newStore(t, func(ctx context.Context, keys []string, args ...any) (any, error) {
		return script.Run(ctx, client, keys, args...).Result()
	}, c)

	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	epoch := time.Now().Add(time.Hour).Truncate(time.Second)
	for round := range 150 {
		limits := limitmodel.Limits(r)
		var model limitmodel.Model
		var now time.Duration
		for i := range 60 {
			l := limits[r.IntN(len(limits))]
			now = (now + limitmodel.Pause(r, l)).Truncate(time.Microsecond)
			if now > 100*365*24*time.Hour {
				break
			}
			at := epoch.Add(now)
			require.NoError(t, client.HSet(t.Context(), "clock", "s", at.Unix(), "us", at.Nanosecond()/1000).Err())
			key, cost := fmt.Sprintf("round %d caller %d", round, r.IntN(2)), limitmodel.Cost(r, l)
			d := take(t, s, key, cost, limits...)
			if err := model.Check(now, key, cost, limits, d); err != nil {
				t.Fatalf("operation %d of round %d at %v: %d of %+v is %+v: %v", i, round, now, cost, limits, d, err)
			}
		}
	}
}
