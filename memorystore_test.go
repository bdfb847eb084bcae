package admit_test

import (
	"encoding/binary"
	"fmt"
	"math"
	"math/rand/v2"
	"runtime"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/admit-go/admit"
	"github.com/admit-go/admit/admittest"
	"github.com/admit-go/admit/internal/limitmodel"
)

func newMemoryStore(t testing.TB, maxKeys int) *admit.MemoryStore {
	t.Helper()
	s, err := admit.NewMemoryStore(admit.MemoryStoreConfig{MaxKeys: maxKeys})
	require.NoError(t, err)
	return s
}

// take asks s, which cannot fail.
func take(t testing.TB, s admit.LimitStore, key string, cost int, limits ...admit.Limit) admit.Decision {
	t.Helper()
	d, err := s.Take(t.Context(), key, cost, limits)
	require.NoError(t, err)
	return d
}

func TestMemoryStoreIsALimitStore(t *testing.T) {
	t.Parallel()
	newStore := func(t *testing.T) admit.LimitStore {
		s := newMemoryStore(t, 0)
		t.Cleanup(func() { assert.NoError(t, s.Check()) })
		return s
	}
	t.Run("with a clock that tests move", func(t *testing.T) {
		t.Parallel()
		admittest.TestLimitStore(t, newStore, admittest.LimitStoreOptions{Bubble: true})
	})
	t.Run("with a real clock", func(t *testing.T) {
		t.Parallel()
		admittest.TestLimitStore(t, newStore, admittest.LimitStoreOptions{})
	})
}

func TestNewMemoryStore(t *testing.T) {
	t.Parallel()
	_, err := admit.NewMemoryStore(admit.MemoryStoreConfig{MaxKeys: -1})
	require.ErrorContains(t, err, "MaxKeys is -1")
	assert.Zero(t, newMemoryStore(t, 0).Len())
}

// What is forgotten was full, so that the next request finds no difference.
func TestMemoryStoreForgetsWhatIsFull(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newMemoryStore(t, 0)
		quick, slow := admit.PerSecond(10), admit.PerDay(10)
		const flood, live = 20_000, 500
		for i := range live {
			take(t, s, fmt.Sprint("live ", i), 10, slow)
		}
		for i := range flood {
			take(t, s, fmt.Sprint("once ", i), 5, quick)
		}
		require.Equal(t, flood+live, s.Len())
		require.NoError(t, s.Check())

		time.Sleep(10 * time.Second)
		for range 20_000 {
			take(t, s, fmt.Sprint("live ", rand.IntN(live)), 1, slow)
			time.Sleep(time.Millisecond)
		}
		require.NoError(t, s.Check())
		assert.Equal(t, live, s.Len(), "all that is not full, and nothing else")
		own, _, slots := s.Buckets()
		assert.Equal(t, live, own)
		assert.Less(t, slots, 8*live, "the table is handed back too")
		for i := range live {
			d := take(t, s, fmt.Sprint("live ", i), 0, slow)
			assert.Less(t, d.States[0].Remaining, 10)
		}
	})
}

// After a flood that has gone whole, one caller alone makes the store let go.
func TestMemoryStoreForgetsAFlood(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newMemoryStore(t, 0)
		for i := range 50_000 {
			take(t, s, fmt.Sprint("once ", i), 1, admit.PerMinute(100), admit.PerSecond(3))
		}
		time.Sleep(time.Minute)
		for range 300 {
			take(t, s, "one", 1, admit.PerHour(1000))
			time.Sleep(time.Second)
		}
		assert.Equal(t, 1, s.Len())
		own, _, slots := s.Buckets()
		assert.Equal(t, 1, own)
		assert.Less(t, slots, 10)
	})
}

func TestMemoryStoreIsBounded(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const maxKeys = 200
		s := newMemoryStore(t, maxKeys)
		limits := []admit.Limit{admit.PerHour(10), admit.PerDay(20)}
		name := func(what string, i int) string {
			if i < maxKeys/4 {
				return fmt.Sprint("key:", what, i) // who have a quarter of it
			}
			return fmt.Sprint(what, i)
		}
		for i := range maxKeys {
			take(t, s, name("live ", i), 10, limits...)
		}
		var admitted int
		for i := range 50_000 {
			if take(t, s, fmt.Sprint("flood ", i), 1, limits...).Allowed {
				admitted++
			}
			if take(t, s, fmt.Sprint("key:flood ", i), 1, limits...).Allowed {
				admitted++
			}
		}
		assert.Equal(t, maxKeys, s.Len())
		own, shared, _ := s.Buckets()
		assert.Equal(t, len(limits)*maxKeys, own)
		assert.Equal(t, len(limits)*2*1024, shared)
		assert.Equal(t, 10*2*1024, admitted, "each overflow bucket is a bucket")
		for i := range maxKeys {
			require.False(t, take(t, s, name("live ", i), 1, limits...).Allowed, "a flood resets nobody")
		}

		time.Sleep(48 * time.Hour)
		for i := range maxKeys {
			d := take(t, s, name("new ", i), 10, limits...)
			require.True(t, d.Allowed, "there is room again")
			require.Equal(t, 10, d.States[1].Remaining)
		}
		assert.Equal(t, maxKeys, s.Len())
		require.NoError(t, s.Check())
	})
}

// Callers with a key have overflow buckets of their own.
func TestMemoryStoreKeepsKeysApartFromAddresses(t *testing.T) {
	t.Parallel()
	s := newMemoryStore(t, 1)
	limit := admit.PerHour(10)
	take(t, s, "addr:one", 1, limit)
	for i := range 40_000 {
		take(t, s, fmt.Sprint("addr:", i), 1, limit)
	}
	assert.False(t, take(t, s, "addr:new", 1, limit).Allowed, "addresses have used up theirs")
	for i := range 100 {
		require.True(t, take(t, s, fmt.Sprint("key:", i), 1, limit).Allowed)
	}
}

// Strangers cannot fill the room of callers with a key, who get all of theirs, also at the
// end of a flood.
func TestMemoryStoreKeepsRoomForKeys(t *testing.T) {
	t.Parallel()
	s := newMemoryStore(t, 2000)
	slow, limit := admit.Limit{Requests: 1, Per: 1000 * time.Hour}, admit.PerHour(60)
	for i := range 20_000 {
		take(t, s, fmt.Sprint("addr:", i), 1, slow)
	}
	assert.Equal(t, 1500, s.Len())
	admitted := 0
	for i := range 500 {
		for range 70 {
			if take(t, s, fmt.Sprint("key:", i), 1, limit).Allowed {
				admitted++
			}
		}
	}
	assert.Equal(t, 500*60, admitted)
	assert.Equal(t, 2000, s.Len())
	require.NoError(t, s.Check())

	keys := newMemoryStore(t, 2000)
	for i := range 3000 {
		take(t, keys, fmt.Sprint("key:", i), 1, limit)
	}
	assert.Equal(t, 2000, keys.Len(), "without strangers, keys have all of it")
	take(t, keys, "addr:one", 1, limit)
	assert.Equal(t, 2000, keys.Len())
	require.NoError(t, keys.Check())
}

// A caller that gets a bucket of its own brings along what it has spent of a shared one.
func TestMemoryStoreHoldsTheBoundOutOfOverflow(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newMemoryStore(t, 1)
		limit := admit.PerHour(100)
		quick := admit.PerSecond(1)
		take(t, s, "first", 1, quick)
		require.True(t, take(t, s, "second", 80, limit).Allowed, "in an overflow bucket")
		take(t, s, "second", -10, limit)
		require.Equal(t, 30, take(t, s, "second", 0, limit).States[0].Remaining)
		require.Equal(t, 1, s.Len())

		time.Sleep(time.Minute) // now the first is as good as gone
		d := take(t, s, "second", 1, limit)
		require.True(t, d.Allowed)
		require.Equal(t, 30, d.States[0].Remaining, "30 and 1.67 that came back, less 1")
		require.Equal(t, d.States, take(t, s, "second", 0, limit).States, "and so it stays")
		own, shared, _ := s.Buckets()
		assert.Equal(t, []int{1, 1}, []int{own, shared})
		require.False(t, take(t, s, "second", 31, limit).Allowed)
		require.True(t, take(t, s, "second", 30, limit).Allowed)
	})
}

// Overflow buckets that are full again go too, while others stay.
func TestMemoryStoreForgetsOverflow(t *testing.T) {
	t.Parallel()
	s := newMemoryStore(t, 1)
	var now time.Duration
	s.SetClock(func() time.Duration { return now })
	slow, quick := admit.PerDay(1000), admit.PerSecond(1)
	take(t, s, "first", 1000, slow)
	for i := range 10 {
		take(t, s, fmt.Sprint("more ", i), 1, quick)
	}
	_, shared, _ := s.Buckets()
	require.NotZero(t, shared)
	for range 100 {
		now += time.Second
		take(t, s, "first", 0, slow)
	}
	own, shared, _ := s.Buckets()
	assert.Equal(t, []int{1, 0}, []int{own, shared})
}

// Who finds no room makes some where there was a flood that is over: one caller looks
// through half of so small a store.
func TestMemoryStoreMakesRoomElsewhere(t *testing.T) {
	t.Parallel()
	for range 50 {
		s := newMemoryStore(t, 200)
		var now time.Duration
		s.SetClock(func() time.Duration { return now })
		for i := range 200 {
			take(t, s, fmt.Sprint("addr:", i), 1, admit.PerSecond(1))
		}
		now += time.Hour
		var shared [3]int
		for i := range shared {
			take(t, s, fmt.Sprint("key:", i), 1, admit.PerDay(1000))
			_, shared[i], _ = s.Buckets()
		}
		require.Equal(t, shared[1], shared[2], "there is room for the third")
		require.LessOrEqual(t, s.Len(), 200)
		require.NoError(t, s.Check())
	}
}

// A caller who is known by one limit gets the buckets of others where the first is.
func TestMemoryStoreWithLimitsThatChange(t *testing.T) {
	t.Parallel()
	s := newMemoryStore(t, 2)
	s.SetClock(func() time.Duration { return 0 })
	hour, day, minute := admit.PerHour(10), admit.PerDay(10), admit.PerMinute(10)
	for range 2 {
		require.True(t, take(t, s, "one", 1, hour).Allowed)
		require.True(t, take(t, s, "one", 1, hour, day).Allowed)
		require.True(t, take(t, s, "one", 1, day, minute).Allowed)
		require.True(t, take(t, s, "one", 1, minute, hour).Allowed)
		take(t, s, "two", 0, hour)
		take(t, s, "two", 11, hour)
	}
	assert.Equal(t, 1, s.Len(), "who looks, or is refused, has no bucket")
	own, shared, _ := s.Buckets()
	assert.Equal(t, []int{3, 0}, []int{own, shared})
	require.NoError(t, s.Check())
	for i, left := range []int{4, 6, 6} {
		d := take(t, s, "one", 0, hour, day, minute)
		assert.Equal(t, left, d.States[i].Remaining)
	}
}

func TestMemoryStoreWhenTimeGoesBackwards(t *testing.T) {
	t.Parallel()
	s := newMemoryStore(t, 0)
	now := time.Hour
	s.SetClock(func() time.Duration { return now })
	limit := admit.PerHour(100)
	left := func() int { return take(t, s, "caller", 0, limit).States[0].Remaining }
	require.True(t, take(t, s, "caller", 40, limit).Allowed)
	for i := range 50 {
		now = time.Duration(rand.Int64N(int64(time.Hour)))
		require.True(t, take(t, s, "caller", 1, limit).Allowed)
		require.Equal(t, 59-i, left())
		now = time.Hour // which has been already
		require.Equal(t, 59-i, left())
	}
	now += 3 * time.Minute
	require.Equal(t, 15, left())
	now -= 2 * time.Minute
	require.Equal(t, 15, left())
	now += 2 * time.Minute
	require.Equal(t, 15, left(), "the same time twice gives nothing twice")
}

// Limits so large and slow that the rounding of floating point shows. The exact time of
// RetryAfter is enough even then.
func TestMemoryStoreRetryAfterOfLongLimits(t *testing.T) {
	t.Parallel()
	for range 5000 {
		s := newMemoryStore(t, 1)
		var now time.Duration
		s.SetClock(func() time.Duration { return now })
		limit := admit.Limit{
			Requests: 100 + rand.IntN(1000), Burst: 1 + rand.IntN(50_000),
			Per: time.Hour + time.Duration(rand.Int64N(int64(60*24*time.Hour))),
		}
		cost := 1 + rand.IntN(limit.Burst)
		d := take(t, s, "caller", cost, limit)
		for ; d.Allowed; d = take(t, s, "caller", cost, limit) {
			now += time.Duration(rand.Int64N(int64(limit.Per) / int64(limit.Requests)))
		}
		now += d.RetryAfter
		require.GreaterOrEqual(t, take(t, s, "caller", 0, limit).States[0].Remaining, cost, "of %+v", limit)
		require.True(t, take(t, s, "caller", cost, limit).Allowed, "%d of %+v", cost, limit)
	}
}

// heap is what is in use, once the garbage is gone, and what goroutines of tests before hold
// until they end.
func heap() int {
	var m runtime.MemStats
	last := uint64(math.MaxUint64)
	for same := 0; same < 3; {
		runtime.GC()
		runtime.GC()
		runtime.ReadMemStats(&m)
		if same++; m.HeapAlloc+64<<10 < last {
			last, same = m.HeapAlloc, 0
		}
		time.Sleep(10 * time.Millisecond)
	}
	return int(m.HeapAlloc)
}

// Not parallel: it measures what the whole process has on its heap.
func TestMemoryStoreMemory(t *testing.T) {
	if raceDetector {
		t.Skip("the race detector needs memory of its own")
	}
	const n = 100_000
	limits := []admit.Limit{admit.PerHour(100)}
	goroutines := runtime.NumGoroutine()
	s := newMemoryStore(t, 0)
	now := time.Duration(0)
	s.SetClock(func() time.Duration { return now })
	before := heap()
	for i := range n {
		take(t, s, fmt.Sprintf("key:%032d", i), 1, limits...)
	}
	each := (heap() - before) / n
	t.Logf("%d bytes for each caller", each)
	assert.Less(t, each, 135, "README and MemoryStore say about 120")
	assert.Greater(t, each, 80, "otherwise this measures something else")

	now = 2 * time.Hour
	for range 10_000 {
		take(t, s, "key:one", 1, limits...)
	}
	rest := (heap() - before) / n
	t.Logf("%d bytes after all but one have gone", rest)
	assert.LessOrEqual(t, rest, 1)
	assert.LessOrEqual(t, runtime.NumGoroutine(), goroutines)
	runtime.KeepAlive(s)
}

// BenchmarkMemoryStoreSlowestCall reports the slowest of some million calls: while a
// million callers come, while all come again, and while a thousand go on and the rest,
// one half at once and the other bit by bit, are forgotten. The same is done three
// times, and the best time of each call counts: what the machine or the garbage
// collector does in between hits another call each time.
func BenchmarkMemoryStoreSlowestCall(b *testing.B) {
	const n, live = 1_000_000, 1000
	keys := make([]string, n)
	for i := range keys {
		keys[i] = fmt.Sprintf("%032d", i)
	}
	quick, slow := []admit.Limit{admit.PerMinute(1)}, []admit.Limit{admit.PerHour(1)}
	limits := func(i int) []admit.Limit {
		if i%2 == 0 {
			return quick
		}
		return slow
	}
	first := newMemoryStore(b, n)
	for b.Loop() {
		var best [3][]time.Duration
		for run := range 3 {
			s := newMemoryStore(b, n)
			s.SameHashes(first)
			var now time.Duration
			s.SetClock(func() time.Duration { return now })
			call := func(phase, at, i int) {
				now += time.Microsecond
				began := time.Now()
				_, _ = s.Take(b.Context(), keys[i], 1, limits(i))
				took := time.Since(began)
				if run == 0 {
					best[phase] = append(best[phase], took)
				}
				best[phase][at] = min(best[phase][at], took)
			}
			runtime.GC()
			for i := range n {
				call(0, i, i)
			}
			require.Equal(b, n, s.Len())
			for i := range n {
				call(1, i, i)
			}
			for i := range n {
				if i == n/2 {
					now += 2 * time.Hour
				}
				now += 100 * time.Microsecond // a minute and a half for each half
				call(2, i, i%live)
			}
			require.LessOrEqual(b, s.Len(), live)
		}
		for phase, name := range []string{"µs-come", "µs-come-again", "µs-forget"} {
			b.ReportMetric(float64(slices.Max(best[phase]).Nanoseconds())/1000, name)
		}
	}
}

// Any costs at any times, of any limits: a MemoryStore decides as exact numbers do, within
// what a float64 of its tokens can be off.
func FuzzMemoryStoreIsExact(f *testing.F) {
	for seed := range uint64(64) {
		var data []byte
		for r := rand.NewPCG(seed, 0); len(data) < 1500; {
			data = binary.LittleEndian.AppendUint64(data, r.Uint64())
		}
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		source := &limitmodel.Source{Bytes: data}
		r := rand.New(source)
		limits := limitmodel.Limits(r)
		s := newMemoryStore(t, 0)
		var now time.Duration
		s.SetClock(func() time.Duration { return now })
		model := limitmodel.Model{Rounding: func(fill time.Duration) time.Duration { return fill>>50 + 4 }}
		for i := 0; !source.Empty() && i < 500; i++ {
			l := limits[r.IntN(len(limits))]
			key, cost := fmt.Sprint("caller ", r.IntN(2)), limitmodel.Cost(r, l)
			if now += limitmodel.Pause(r, l); now > 1<<62 {
				return
			}
			d := take(t, s, key, cost, limits...)
			if err := model.Check(now, key, cost, limits, d); err != nil {
				t.Fatalf("operation %d at %v: %d of %+v is %+v: %v", i, now, cost, limits, d, err)
			}
		}
	})
}
