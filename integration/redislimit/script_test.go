package redislimit_test

import (
	"context"
	"fmt"
	"strconv"
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

func take(t testing.TB, s admit.LimitStore, key string, cost int, limits ...admit.Limit) admit.Decision {
	t.Helper()
	d, err := s.Take(t.Context(), key, cost, limits)
	require.NoError(t, err)
	return d
}

// A key is there until its bucket is full, and no longer: one that goes early lets in
// what it should not.
func TestExpiry(t *testing.T) {
	t.Parallel()
	client := newClient(t, servers.StartRedis(t).Addr)
	s := newStore(t, evalWith(client), patient)
	for i := range 200 {
		l := admit.Limit{Name: "limit", Requests: 1 + i%7, Per: time.Duration(1+i) * 100_001 * time.Microsecond, Burst: 1 + i%11}
		d := take(t, s, fmt.Sprint("caller ", i), 1+i%l.Burst, l)
		require.True(t, d.Allowed)
		keys, err := client.Keys(t.Context(), "*").Result()
		require.NoError(t, err)
		require.Len(t, keys, 1)
		text, err := client.Get(t.Context(), keys[0]).Result()
		require.NoError(t, err)
		whole, part := parse(t, text)
		expires, err := client.Do(t.Context(), "PEXPIRETIME", keys[0]).Int64()
		require.NoError(t, err)
		// Redis lets go of a key once its clock shows a later millisecond.
		early := time.UnixMicro(whole).Sub(time.UnixMilli(expires + 1))
		assert.Negative(t, early+min(time.Duration(part), 1)*time.Microsecond, "%s expires %v early", text, early)
		assert.Greater(t, early, -3*time.Millisecond, "%s expires late", text)

		take(t, s, fmt.Sprint("caller ", i), -100, l)
		size, err := client.DBSize(t.Context()).Result()
		require.NoError(t, err)
		require.Zero(t, size, "a bucket that is full needs no key")
	}
}

func parse(t *testing.T, text string) (whole, part int64) {
	t.Helper()
	n, err := fmt.Sscanf(text, "%d:%d", &whole, &part)
	if n == 1 {
		err = nil
	}
	require.NoError(t, err)
	return whole, part
}

// What somebody else has written is no bucket, and a bucket never lacks more than it can
// hold: a clock that was set back locks nobody out.
func TestForeignValues(t *testing.T) {
	t.Parallel()
	client := newClient(t, servers.StartRedis(t).Addr)
	c := patient
	c.MaxRefusals = -1
	s := newStore(t, evalWith(client), c)
	l := admit.Limit{Name: "limit", Requests: 1, Per: time.Hour, Burst: 3}
	take(t, s, "caller", 1, l)
	keys, err := client.Keys(t.Context(), "*").Result()
	require.NoError(t, err)
	for _, value := range []string{"", "x", "1:2:3", "-5", "1", ":", "12:", ":12", "1e3", "nan"} {
		require.NoError(t, client.Set(t.Context(), keys[0], value, 0).Err())
		d := take(t, s, "caller", 1, l)
		assert.Equal(t, 2, d.States[0].Remaining, "%q", value)
	}
	later := strconv.FormatInt(time.Now().Add(1000*time.Hour).UnixMicro(), 10)
	for _, value := range []string{later, later + ":1", "9007199254740991", "1e300", "inf"} {
		require.NoError(t, client.Set(t.Context(), keys[0], value, 0).Err())
		d := take(t, s, "caller", 1, l)
		assert.False(t, d.Allowed, "%q", value)
		assert.Equal(t, time.Hour, d.RetryAfter, "%q", value)
		d = take(t, s, "caller", 1, l)
		assert.Less(t, d.RetryAfter, time.Hour, "the time goes on: %q", value)
		assert.Greater(t, d.RetryAfter, 59*time.Minute)
		left, err := client.PTTL(t.Context(), keys[0]).Result()
		require.NoError(t, err)
		assert.Positive(t, left)
	}
}

// counting counts the calls that go to the server.
type counting struct{ trips atomic.Int64 }

func (c *counting) DialHook(next redis.DialHook) redis.DialHook { return next }

func (c *counting) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		if name := cmd.Name(); name != "hello" && name != "client" { // of a new connection
			c.trips.Add(1)
		}
		return next(ctx, cmd)
	}
}

func (c *counting) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return next
}

func TestRoundTrips(t *testing.T) {
	t.Parallel()
	client := newClient(t, servers.StartRedis(t).Addr)
	var count counting
	client.AddHook(&count)
	s := newStore(t, evalWith(client), patient)
	take(t, s, "first", 1, admit.PerSecond(1))
	assert.EqualValues(t, 2, count.trips.Load(), "once, the server has to learn the script")
	one := []admit.Limit{admit.PerHour(10)}
	four := []admit.Limit{admit.PerMinute(10), admit.PerHour(20), admit.PerDay(30), {Requests: 1, Per: 1000 * time.Hour, Burst: 40}}
	for i, limits := range [][]admit.Limit{one, four} {
		key := fmt.Sprint("caller ", i)
		count.trips.Store(0)
		for range 10 {
			require.True(t, take(t, s, key, 1, limits...).Allowed)
		}
		assert.EqualValues(t, 10, count.trips.Load(), "one for each decision of %d limits", len(limits))
		require.False(t, take(t, s, key, 1, limits...).Allowed)
		for range 1000 {
			require.False(t, take(t, s, key, 1, limits...).Allowed)
		}
		assert.EqualValues(t, 11, count.trips.Load(), "none for a known refusal")
	}
}

// Two stores are two replicas: what one has let in is gone for the other.
func TestReplicasShare(t *testing.T) {
	t.Parallel()
	addr := servers.StartRedis(t).Addr
	l := admit.Limit{Name: "limit", Requests: 1, Per: time.Hour, Burst: 100}
	admitted := 0
	var replicas []*redislimit.Store
	for range 8 {
		replicas = append(replicas, newStore(t, evalWith(newClient(t, addr)), patient))
	}
	for i := range 200 {
		if take(t, replicas[i%8], "caller", 1, l).Allowed {
			admitted++
		}
	}
	assert.Equal(t, 100, admitted)
}
