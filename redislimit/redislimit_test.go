package redislimit_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/admit-go/admit"
	"github.com/admit-go/admit/admittest"
	"github.com/admit-go/admit/redislimit"
)

// server does what the script does on a Redis whose clock is the time package, which is
// enough to test what is around it. The nested module integration tests the script.
type server struct {
	mu    sync.Mutex
	full  map[string][2]int64
	calls atomic.Int64
	keys  []string // of the last call
	args  []any
	fails atomic.Pointer[func(context.Context) error]
}

func (s *server) eval(ctx context.Context, keys []string, args ...any) (any, error) {
	s.calls.Add(1)
	if fails := s.fails.Load(); fails != nil {
		return nil, (*fails)(ctx)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.keys, s.args = keys, args
	if s.full == nil {
		s.full = map[string][2]int64{}
	}
	later := func(a, b [2]int64) bool { return a[0] > b[0] || a[0] == b[0] && a[1] > b[1] }
	now := [2]int64{time.Now().UnixMicro(), 0}
	before, after := make([][2]int64, len(keys)), make([][2]int64, len(keys))
	admitted := int64(1)
	for i, key := range keys {
		number := func(at int) int64 {
			n, _ := strconv.ParseInt(args[at].(string), 10, 64)
			return n
		}
		most, cost, unit := [2]int64{now[0] + number(2*i), 0}, [2]int64{number(2*i + 1), 0}, int64(1)
		if fractions := 2*len(keys) + 3*i; fractions < len(args) {
			unit, most[1], cost[1] = number(fractions), number(fractions+1), number(fractions+2)
		}
		at, known := s.full[key]
		if !known || !later(at, now) {
			at = now
		}
		if later(at, most) {
			at = most
		}
		before[i] = at
		at[0], at[1] = at[0]+cost[0], at[1]+cost[1]
		if at[1] >= unit {
			at[0], at[1] = at[0]+1, at[1]-unit
		}
		if after[i] = at; later(at, most) {
			admitted = 0
		}
		if later(now, at) {
			after[i] = now
		}
	}
	if admitted == 0 {
		after = before
	}
	reply := []any{admitted, now[0]}
	for i, key := range keys {
		s.full[key] = after[i]
		reply = append(reply, after[i][0], after[i][1])
	}
	return reply, nil
}

// fail makes all calls fail, or work again.
func (s *server) fail(f func(context.Context) error) {
	if f == nil {
		s.fails.Store(nil)
		return
	}
	s.fails.Store(&f)
}

var errDown = errors.New("connection refused")

func refuse(context.Context) error { return errDown }

// hang is a client that keeps the deadline, and deaf one that does not.
func hang(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }

func deaf(context.Context) error { time.Sleep(5 * time.Second); return errDown }

func newStore(t testing.TB, s *server, c redislimit.Config) *redislimit.Store {
	t.Helper()
	store, err := redislimit.New(s.eval, c)
	require.NoError(t, err)
	return store
}

func take(t testing.TB, s *redislimit.Store, key string, cost int, limits ...admit.Limit) admit.Decision {
	t.Helper()
	d, err := s.Take(t.Context(), key, cost, limits)
	require.NoError(t, err)
	return d
}

// bubble runs a test with a clock of its own, not at a whole second.
func bubble(t *testing.T, test func(*testing.T)) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		time.Sleep(123_456_789 * time.Nanosecond)
		test(t)
	})
}

func TestStoreIsALimitStore(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]redislimit.Config{
		"that remembers refusals": {},
		"that remembers a few":    {MaxRefusals: 2},
		"that asks each time":     {MaxRefusals: -1},
		"that asks directly":      {Direct: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			newStore := func(t *testing.T) admit.LimitStore { return newStore(t, new(server), c) }
			admittest.TestLimitStore(t, newStore, admittest.LimitStoreOptions{Bubble: true, Precision: 2 * time.Microsecond, Slow: true})
		})
	}
}

func TestNewReportsEveryFault(t *testing.T) {
	t.Parallel()
	_, err := redislimit.New(nil, redislimit.Config{Timeout: -1, Failures: -1, ProbeEvery: -1})
	require.Error(t, err)
	for _, want := range []string{"has no eval", "Config.Timeout is -1ns", "Config.Failures is -1", "Config.ProbeEvery is -1ns"} {
		assert.ErrorContains(t, err, want)
	}
	_, err = redislimit.New(new(server).eval, redislimit.Config{Timeout: 50, ProbeEvery: 1})
	require.ErrorContains(t, err, "Config.Timeout is 50ns; a number alone is nanoseconds: give it a unit, such as 100*time.Millisecond")
	require.ErrorContains(t, err, "Config.ProbeEvery is 1ns")
}

func TestWhatRedisIsAsked(t *testing.T) {
	t.Parallel()
	var redis server
	s := newStore(t, &redis, redislimit.Config{})
	const secret = "key:api:customer-4711"
	take(t, s, secret, 1, admit.PerSecond(10), admit.Limit{Name: "a {name}", Requests: 3, Per: time.Minute, Burst: 7}, admit.PerHour(1), admit.PerDay(5))
	assert.EqualValues(t, 1, redis.calls.Load(), "one call, however many limits")

	require.Len(t, redis.keys, 4)
	slot := redis.keys[0][:strings.Index(redis.keys[0], "}")+1]
	assert.Regexp(t, `^admit:\{[A-Za-z0-9_-]{22}\}$`, slot)
	for i, end := range []string{":second:10/1s", ":a {name}:3/1m0s+7", ":hour:1/1h0m0s", ":day:5/24h0m0s"} {
		assert.Equal(t, slot+end, redis.keys[i], "one slot for a caller, and nobody can read who that is")
	}
	for _, arg := range redis.args {
		assert.IsType(t, "", arg)
	}
	first := redis.args
	take(t, s, secret, 1, admit.PerSecond(10))
	assert.Equal(t, slot+":second:10/1s", redis.keys[0])
	assert.Equal(t, []any{"1000000", "100000"}, redis.args)
	assert.Equal(t, first[:2], redis.args)
	take(t, s, secret, 1, admit.PerSecond(3))
	assert.Equal(t, []any{"1000000", "333333", "3000", "0", "1000"}, redis.args)
	take(t, s, secret+"1", 1, admit.PerSecond(10))
	assert.NotContains(t, redis.keys[0], slot)
}

// Lua has no whole numbers above 2^53.
func TestArgumentsStayExact(t *testing.T) {
	t.Parallel()
	const century = 100 * 365 * 24 * time.Hour
	for _, l := range []admit.Limit{
		{Requests: 1_000_000_000, Per: time.Second},
		{Requests: 1_000_000_000, Per: century},
		{Requests: 999_999_937, Per: century, Burst: 999_999_937},
		{Requests: 1, Per: century},
		{Requests: 10, Per: century / 1_000_000_000, Burst: 999_999_999},
		{Requests: 7, Per: time.Second + time.Nanosecond, Burst: 1},
	} {
		var redis server
		s := newStore(t, &redis, redislimit.Config{})
		d := take(t, s, "caller", 1, l)
		burst := l.Burst
		if burst == 0 {
			burst = l.Requests
		}
		assert.True(t, d.Allowed)
		assert.Equal(t, burst-1, d.States[0].Remaining, "%+v", l)
		for _, cost := range []int{1, burst, -burst, math.MinInt, math.MaxInt} {
			take(t, s, "another", cost, l)
			now := time.Date(2150, 1, 1, 0, 0, 0, 0, time.UTC).UnixMicro()
			for i, arg := range redis.args {
				n, err := strconv.ParseInt(arg.(string), 10, 64)
				require.NoError(t, err)
				assert.Less(t, n, int64(1)<<53)
				assert.Less(t, now+n, int64(1)<<53, "as a time, argument %d of %+v", i, l)
				assert.Greater(t, n, -int64(1)<<53)
			}
		}
	}
}

// Who was refused needs no call until RetryAfter is over.
func TestKnownRefusals(t *testing.T) {
	bubble(t, func(t *testing.T) {
		var redis server
		s := newStore(t, &redis, redislimit.Config{})
		limits := []admit.Limit{admit.PerSecond(5), admit.PerMinute(6)}
		for range 5 {
			require.True(t, take(t, s, "caller", 1, limits...).Allowed)
		}
		refused := take(t, s, "caller", 1, limits...)
		require.False(t, refused.Allowed)
		require.Equal(t, 200*time.Millisecond, refused.RetryAfter)
		asked := redis.calls.Load()

		time.Sleep(50 * time.Millisecond)
		d := take(t, s, "caller", 1, limits...)
		assert.False(t, d.Allowed)
		assert.Equal(t, 150*time.Millisecond, d.RetryAfter, "what is left of it")
		assert.Equal(t, 150*time.Millisecond, d.States[0].Reset)
		assert.True(t, d.States[0].Exceeded)
		assert.False(t, d.States[1].Exceeded)
		assert.Equal(t, 1, d.States[1].Remaining)
		time.Sleep(149*time.Millisecond + 999*time.Microsecond)
		assert.False(t, take(t, s, "caller", 1, limits...).Allowed)
		assert.Equal(t, time.Microsecond, take(t, s, "caller", 1, limits...).RetryAfter)
		assert.Equal(t, asked, redis.calls.Load(), "without a call")

		time.Sleep(time.Microsecond)
		assert.True(t, take(t, s, "caller", 1, limits...).Allowed)
		assert.Equal(t, asked+1, redis.calls.Load())
		assert.True(t, take(t, s, "another", 1, limits...).Allowed)
		assert.Equal(t, asked+2, redis.calls.Load(), "who was not refused is asked for")
	})
}

// What was given back counts at once, and so does what another cost has taken.
func TestKnownRefusalsAreForgotten(t *testing.T) {
	bubble(t, func(t *testing.T) {
		var redis server
		s := newStore(t, &redis, redislimit.Config{})
		l := admit.PerHour(5)
		require.True(t, take(t, s, "caller", 3, l).Allowed)
		require.False(t, take(t, s, "caller", 3, l).Allowed)
		asked := redis.calls.Load()
		assert.False(t, take(t, s, "caller", 4, l).Allowed, "more is refused too")
		assert.Equal(t, asked, redis.calls.Load())
		assert.True(t, take(t, s, "caller", 2, l).Allowed, "less is not")
		d := take(t, s, "caller", 1, l)
		assert.False(t, d.Allowed)
		assert.Equal(t, 12*time.Minute, d.RetryAfter)
		assert.False(t, take(t, s, "caller", 1, admit.PerHour(5), admit.PerDay(9)).Allowed)
		assert.True(t, take(t, s, "caller", 1, admit.PerHour(6)).Allowed, "of other limits nothing is known")
		take(t, s, "caller", -1, l)
		assert.True(t, take(t, s, "caller", 1, l).Allowed)
		assert.Zero(t, s.Known())
	})
}

// A refusal that was asked for before something was given back says nothing of what is there now.
func TestKnownRefusalsAreNotOlderThanWhatWasGivenBack(t *testing.T) {
	bubble(t, func(t *testing.T) {
		var redis server
		slow := time.Duration(0)
		s, err := redislimit.New(func(ctx context.Context, keys []string, args ...any) (any, error) {
			wait := slow
			reply, err := redis.eval(ctx, keys, args...)
			time.Sleep(wait)
			return reply, err
		}, redislimit.Config{})
		require.NoError(t, err)
		l := admit.PerHour(1)
		require.True(t, take(t, s, "caller", 1, l).Allowed)
		slow = 20 * time.Millisecond
		late := make(chan admit.Decision)
		go func() { late <- take(t, s, "caller", 1, l) }()
		synctest.Wait()
		slow = 0
		take(t, s, "caller", -1, l)
		require.False(t, (<-late).Allowed)
		assert.Zero(t, s.Known())
		assert.True(t, take(t, s, "caller", 1, l).Allowed)
		assert.False(t, take(t, s, "caller", 1, l).Allowed)
		assert.Equal(t, 1, s.Known(), "one that is asked for later is known")
	})
}

// What is left of a refusal is told from when its answer came: it was decided before that.
func TestKnownRefusalsBeginWithTheirAnswer(t *testing.T) {
	bubble(t, func(t *testing.T) {
		var redis server
		s, err := redislimit.New(func(ctx context.Context, keys []string, args ...any) (any, error) {
			time.Sleep(10 * time.Millisecond)
			reply, err := redis.eval(ctx, keys, args...)
			time.Sleep(10 * time.Millisecond)
			return reply, err
		}, redislimit.Config{})
		require.NoError(t, err)
		l := admit.PerHour(1)
		require.True(t, take(t, s, "caller", 1, l).Allowed)
		first := take(t, s, "caller", 1, l)
		require.False(t, first.Allowed)
		assert.Equal(t, first.RetryAfter, take(t, s, "caller", 1, l).RetryAfter)
		time.Sleep(5 * time.Millisecond)
		assert.Equal(t, first.RetryAfter-5*time.Millisecond, take(t, s, "caller", 1, l).RetryAfter)
		assert.EqualValues(t, 2, redis.calls.Load())
	})
}

// A call that fails at once is no reason to look whether a connection is slow to make.
func TestAFailureAtOnceIsNotProbed(t *testing.T) {
	bubble(t, func(t *testing.T) {
		var redis server
		s := newStore(t, &redis, redislimit.Config{})
		redis.fail(func(context.Context) error { time.Sleep(time.Millisecond); return errDown })
		_, err := s.Take(t.Context(), "caller", 1, []admit.Limit{admit.PerHour(1)})
		require.ErrorIs(t, err, errDown)
		time.Sleep(500 * time.Millisecond)
		assert.EqualValues(t, 1, redis.calls.Load())
	})
}

func TestKnownRefusalsAreBounded(t *testing.T) {
	bubble(t, func(t *testing.T) {
		var redis server
		s := newStore(t, &redis, redislimit.Config{MaxRefusals: 100})
		refuse := func(key string, l admit.Limit) {
			take(t, s, key, 1, l)
			require.False(t, take(t, s, key, 1, l).Allowed)
		}
		for i := range 1000 {
			refuse(fmt.Sprint("flood ", i), admit.PerSecond(1))
		}
		assert.Equal(t, 100, s.Known())
		time.Sleep(time.Minute)
		for i := range 100 {
			refuse(fmt.Sprint("later ", i), admit.PerHour(1))
		}
		assert.LessOrEqual(t, s.Known(), 100)
		assert.Greater(t, s.Known(), 80)
		asked := redis.calls.Load()
		for i := range 100 {
			take(t, s, fmt.Sprint("later ", i), 1, admit.PerHour(1))
		}
		assert.Less(t, redis.calls.Load(), asked+50, "what is over goes first, as far as it is seen")

		off := newStore(t, &redis, redislimit.Config{MaxRefusals: -1})
		asked = redis.calls.Load()
		take(t, off, "later 1", 1, admit.PerHour(1))
		take(t, off, "later 1", 1, admit.PerHour(1))
		assert.Equal(t, asked+2, redis.calls.Load())
	})
}

// An outage costs the timeout for a few requests, then nothing.
func TestBreaker(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name   string
		fails  func(context.Context) error
		direct bool
		probes int // in ten seconds: one that hangs takes three
	}{
		{"refuses", refuse, false, 10},
		{"hangs", hang, false, 3},
		{"hangs for long", deaf, false, 3},
		{"refuses, direct", refuse, true, 10},
		{"hangs, direct", hang, true, 3},
	} {
		t.Run(test.name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				var redis server
				s := newStore(t, &redis, redislimit.Config{Direct: test.direct})
				l := admit.Limit{Requests: 1, Per: time.Hour, Burst: 1000}
				take(t, s, "caller", 1, l)
				redis.fail(test.fails)
				redis.calls.Store(0)

				spent := time.Duration(0)
				for i := range 1000 {
					began := time.Now()
					_, err := s.Take(t.Context(), fmt.Sprint("caller ", i), 1, []admit.Limit{l})
					require.Error(t, err)
					took := time.Since(began)
					assert.LessOrEqual(t, took, 50*time.Millisecond)
					if spent += took; i >= 5 {
						assert.Zero(t, took, "nobody waits any more")
						assert.ErrorContains(t, err, "not asked")
					}
					time.Sleep(100 * time.Microsecond)
				}
				assert.LessOrEqual(t, spent, 250*time.Millisecond)
				assert.LessOrEqual(t, redis.calls.Load(), int64(10), "five, and a probe for each that was late")

				// One probe in a second, beside the requests.
				for i := range 10_000 {
					began := time.Now()
					_, err := s.Take(t.Context(), fmt.Sprint("caller ", i), 1, []admit.Limit{l})
					require.Error(t, err)
					assert.Zero(t, time.Since(began))
					time.Sleep(time.Millisecond)
				}
				assert.LessOrEqual(t, redis.calls.Load(), int64(10+1+test.probes))

				redis.fail(nil)
				time.Sleep(4100 * time.Millisecond)
				_, err := s.Take(t.Context(), "caller", 1, []admit.Limit{l})
				assert.Error(t, err, "the one that sends the probe does not wait for it")
				synctest.Wait()
				d := take(t, s, "caller", 1, l)
				assert.Equal(t, 998, d.States[0].Remaining, "a probe takes nothing")
				time.Sleep(10 * time.Second) // the deaf come back
			})
		})
	}
}

// A Redis that takes no writes, but answers what only reads, is down for all but a few: the
// probe writes too, and finds it well soon after it is.
func TestBreakerOfAServerThatTakesNoWrites(t *testing.T) {
	bubble(t, func(t *testing.T) {
		var redis server
		l := admit.PerHour(1000)
		errReadOnly := errors.New("READONLY You can't write against a read only replica")
		var readOnly atomic.Bool
		s, err := redislimit.New(func(ctx context.Context, keys []string, args ...any) (any, error) {
			if readOnly.Load() && args[1] != "0" {
				return nil, errReadOnly
			}
			return redis.eval(ctx, keys, args...)
		}, redislimit.Config{MaxRefusals: -1})
		require.NoError(t, err)
		failed := func() bool {
			_, err := s.Take(t.Context(), "caller", 1, []admit.Limit{l})
			return errors.Is(err, errReadOnly) && !strings.Contains(err.Error(), "not asked")
		}
		readOnly.Store(true)
		seen := 0
		for range 5000 {
			if failed() {
				seen++
			}
			_, _ = s.Take(t.Context(), "looks", 0, []admit.Limit{l}) // which works, and says nothing
			time.Sleep(time.Millisecond)
		}
		assert.LessOrEqual(t, seen, 5)
		readOnly.Store(false)
		time.Sleep(time.Second)
		_, _ = s.Take(t.Context(), "caller", 1, []admit.Limit{l})
		synctest.Wait()
		take(t, s, "caller", 1, l)
	})
}

// A Redis that is too slow stays left alone, though a probe has the time to wait for it. One
// that was slow to connect does not.
func TestBreakerOfAServerThatIsSlow(t *testing.T) {
	for name, test := range map[string]struct {
		connect, answer time.Duration
		failures        int
	}{
		"always":     {0, 200 * time.Millisecond, 200},
		"to connect": {400 * time.Millisecond, 20 * time.Millisecond, 9}, // 50 ms each until it is there
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				var redis server
				var connected atomic.Bool
				s, err := redislimit.New(func(ctx context.Context, keys []string, args ...any) (any, error) {
					wait := test.answer
					if !connected.Load() {
						wait += test.connect
					}
					select {
					case <-time.After(wait):
						connected.Store(true)
						return redis.eval(ctx, keys, args...)
					case <-ctx.Done():
						return nil, ctx.Err()
					}
				}, redislimit.Config{Direct: true, MaxRefusals: -1})
				require.NoError(t, err)
				failures, waited := 0, time.Duration(0)
				for range 200 {
					began := time.Now()
					if _, err := s.Take(t.Context(), "caller", 1, []admit.Limit{admit.PerHour(1000)}); err != nil {
						failures++
						waited += time.Since(began)
					}
					time.Sleep(50 * time.Millisecond)
				}
				assert.LessOrEqual(t, failures, test.failures)
				if test.failures == 200 {
					assert.Equal(t, 200, failures)
				}
				assert.LessOrEqual(t, waited, 5*50*time.Millisecond, "five wait")
				time.Sleep(time.Minute)
			})
		})
	}
}

func TestBreakerNeedsFailuresInARow(t *testing.T) {
	bubble(t, func(t *testing.T) {
		var redis server
		s := newStore(t, &redis, redislimit.Config{Failures: 3})
		l := admit.PerHour(1000)
		ask := func() error {
			_, err := s.Take(t.Context(), "caller", 1, []admit.Limit{l})
			return err
		}
		for range 10 {
			redis.fail(refuse)
			require.ErrorIs(t, ask(), errDown)
			require.ErrorIs(t, ask(), errDown)
			redis.fail(nil)
			require.NoError(t, ask())
		}
		redis.fail(refuse)
		for range 3 {
			require.NotContains(t, ask().Error(), "not asked")
		}
		redis.fail(nil)
		err := ask()
		require.ErrorContains(t, err, "not asked")
		require.ErrorIs(t, err, errDown, "why that is, is told")
	})
}

// In an outage it is still known who was refused.
func TestKnownRefusalsOutliveAnOutage(t *testing.T) {
	bubble(t, func(t *testing.T) {
		var redis server
		s := newStore(t, &redis, redislimit.Config{Failures: 1})
		take(t, s, "caller", 1, admit.PerMinute(1))
		take(t, s, "caller", 1, admit.PerMinute(1))
		redis.fail(refuse)
		_, err := s.Take(t.Context(), "another", 1, []admit.Limit{admit.PerMinute(1)})
		require.Error(t, err)
		assert.False(t, take(t, s, "caller", 1, admit.PerMinute(1)).Allowed)
	})
}

// Calls that begin within a sixteenth of the timeout end together; no call has longer.
func TestCallsShareADeadline(t *testing.T) {
	for name, c := range map[string]redislimit.Config{
		"guarded": {Failures: 10, Timeout: 160 * time.Millisecond},
		"direct":  {Failures: 10, Timeout: 160 * time.Millisecond, Direct: true},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				var redis server
				redis.fail(hang)
				s := newStore(t, &redis, c)
				began := time.Now()
				var calls sync.WaitGroup
				for _, call := range []struct{ begins, ends time.Duration }{
					{0, 160}, {9, 160}, {10, 170}, {19, 170}, {500, 660},
				} {
					calls.Go(func() {
						time.Sleep(call.begins * time.Millisecond)
						_, err := s.Take(t.Context(), "caller", 1, []admit.Limit{admit.PerHour(9)})
						assert.ErrorIs(t, err, context.DeadlineExceeded)
						assert.Equal(t, call.ends*time.Millisecond, time.Since(began))
					})
				}
				calls.Wait()
				time.Sleep(time.Minute) // of a probe
			})
		})
	}
}

// A client that is gone is no outage, and cuts no connection to Redis.
func TestClientThatIsGone(t *testing.T) {
	bubble(t, func(t *testing.T) {
		var redis server
		s := newStore(t, &redis, redislimit.Config{Failures: 1})
		type tag struct{}
		var seen atomic.Bool
		redis.fail(func(ctx context.Context) error {
			if ctx.Value(tag{}) != "traced" {
				return errDown
			}
			time.Sleep(20 * time.Millisecond)
			seen.Store(ctx.Err() == nil)
			return nil
		})
		ctx, cancel := context.WithTimeout(context.WithValue(t.Context(), tag{}, "traced"), 10*time.Millisecond)
		defer cancel()
		began := time.Now()
		_, err := s.Take(ctx, "caller", 1, []admit.Limit{admit.PerHour(9)})
		require.ErrorIs(t, err, context.DeadlineExceeded)
		assert.Equal(t, 10*time.Millisecond, time.Since(began))
		time.Sleep(time.Second)
		assert.True(t, seen.Load(), "the call goes on")
		asked := redis.calls.Load()
		_, err = s.Take(ctx, "caller", 1, []admit.Limit{admit.PerHour(9)})
		require.ErrorIs(t, err, context.DeadlineExceeded)
		assert.Equal(t, asked, redis.calls.Load(), "for nobody nothing is asked")
		redis.fail(nil)
		take(t, s, "caller", 1, admit.PerHour(9))
	})
}

func TestClientThatIsBroken(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		reply any
		want  string
	}{
		{nil, "returns 4 integers"},
		{[]any{}, "returns 4 integers"},
		{"OK", "returns 4 integers"},
		{[]any{int64(1), int64(2), int64(3)}, "returns 4 integers"},
		{[]any{int64(1), int64(2), int64(3), "4"}, "returns 4 integers"},
		{[]any{int64(1), int64(2), int64(3), int64(4), int64(5)}, "returns 4 integers"},
		{[]any{int64(1), int64(2), int64(3), int64(-4)}, "fraction"},
		{[]any{int64(1), int64(2), int64(3), int64(math.MaxInt64)}, "fraction"},
		{errDown, "panicked: connection refused"},
	} {
		s, err := redislimit.New(func(context.Context, []string, ...any) (any, error) {
			if err, ok := test.reply.(error); ok {
				panic(err)
			}
			return test.reply, nil
		}, redislimit.Config{Timeout: time.Minute, Direct: test.reply == nil})
		require.NoError(t, err)
		_, err = s.Take(t.Context(), "caller", 1, []admit.Limit{admit.PerHour(1)})
		assert.ErrorContains(t, err, test.want, "%v", test.reply)
	}
}

// More lists of limits than a service has are taken too, and not kept.
func TestManyLimits(t *testing.T) {
	t.Parallel()
	var redis server
	s := newStore(t, &redis, redislimit.Config{})
	for i := range 500 {
		d := take(t, s, "caller", 1, admit.PerHour(i+2))
		require.Equal(t, i+1, d.States[0].Remaining)
	}
	for i := range 500 {
		d := take(t, s, "caller", 1, admit.PerHour(i+2))
		require.Equal(t, i, d.States[0].Remaining)
	}
}

// Stats say what Redis was asked for, and whether it is left alone.
func TestStats(t *testing.T) {
	bubble(t, func(t *testing.T) {
		redis := new(server)
		s := newStore(t, redis, redislimit.Config{Failures: 2})
		assert.Equal(t, redislimit.Stats{}, s.Stats())
		for range 3 {
			take(t, s, "a", 1, admit.PerMinute(1))
		}
		assert.Equal(t, redislimit.Stats{Calls: 2, Refused: 1}, s.Stats(), "the third is known to be refused")
		redis.fail(refuse)
		for range 4 {
			_, err := s.Take(t.Context(), "b", 1, []admit.Limit{admit.PerMinute(1)})
			require.ErrorIs(t, err, errDown)
		}
		assert.Equal(t, redislimit.Stats{Calls: 4, Failures: 2, Refused: 1, Open: true}, s.Stats())
		values := map[string]int64{}
		for _, m := range s.Measures() {
			values[m.Name] = m.Value
			assert.NotEmpty(t, m.Help)
			assert.Equal(t, m.Name == "admit.redislimit.calls" || m.Name == "admit.redislimit.failures", m.Total, m.Name)
		}
		assert.Equal(t, map[string]int64{
			"admit.redislimit.calls": 4, "admit.redislimit.failures": 2, "admit.redislimit.refused": 1, "admit.redislimit.open": 1,
		}, values)
		redis.fail(nil)
		time.Sleep(2 * time.Second)
		_, _ = s.Take(t.Context(), "b", 1, []admit.Limit{admit.PerMinute(1)}) // sends the probe
		synctest.Wait()
		assert.False(t, s.Stats().Open)
	})
}
