package admit_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"runtime"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/admit-go/admit"
)

// tryFrom makes a request with a key from an address.
func tryFrom(addr, token string) *http.Request {
	r := get("/", "X-API-Key", token)
	r.RemoteAddr = addr
	return r
}

var tenFailures = admit.Limit{Requests: 10, Per: time.Minute}

func TestFailuresAreThrottled(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := newRemote("good", "cold")
		h := newAuth(t, admit.AuthConfig{Store: newCache(t, store, admit.KeyCacheConfig{}), Failures: tenFailures}).Wrap(ok)
		const stranger = "192.0.2.1:1234"
		allowed(t, h, tryFrom("192.0.2.1:1", "good"))
		for i := range 10 {
			e, _ := refused(t, h, tryFrom(stranger, "guess "+strconv.Itoa(i)), 401)
			assert.Equal(t, "key_invalid", e.Code)
		}
		asked := store.asked.Load()
		for i := range 100 {
			e, header := refused(t, h, tryFrom(stranger, "more "+strconv.Itoa(i)), 429)
			assert.Equal(t, "key_throttled", e.Code)
			assert.EqualValues(t, 6, e.RetryAfter)
			assert.Equal(t, "6", header.Get("Retry-After"))
			assert.Empty(t, header["Www-Authenticate"], "nothing is known of the key")
		}
		assert.Equal(t, asked, store.asked.Load(), "the store is not asked")

		allowed(t, h, tryFrom(stranger, "good"))
		e, _ := refused(t, h, tryFrom(stranger, "guess 9"), 401)
		assert.Equal(t, "key_invalid", e.Code, "what is known to be unknown needs no look-up")
		refused(t, h, tryFrom(stranger, ""), 401)
		allowed(t, h, tryFrom("192.0.2.2:1", "cold"))
		allowed(t, h, tryFrom(stranger, "cold"))

		time.Sleep(6*time.Second - 1)
		refused(t, h, tryFrom(stranger, "yet another"), 429)
		time.Sleep(time.Nanosecond)
		refused(t, h, tryFrom(stranger, "yet another"), 401)
		refused(t, h, tryFrom(stranger, "and another"), 429)
	})
}

// A client behind the same NAT as a stranger keeps its key: past the TTL, and when the
// key has changed, the store is asked again.
func TestFailuresLockNobodyOut(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := newRemote("good")
		cache := newCache(t, store, admit.KeyCacheConfig{TTL: time.Second, NegativeTTL: time.Hour})
		h := newAuth(t, admit.AuthConfig{Store: cache, Failures: admit.Limit{Requests: 1, Per: time.Hour}}).Wrap(ok)
		allowed(t, h, tryFrom("192.0.2.1:1", "good"))
		refused(t, h, tryFrom("192.0.2.1:1", "guess"), 401)
		refused(t, h, tryFrom("192.0.2.1:1", "guess again"), 429)
		time.Sleep(time.Second)
		allowed(t, h, tryFrom("192.0.2.1:1", "good"))
		cache.Forget(admit.DigestOf("good"))
		allowed(t, h, tryFrom("192.0.2.1:1", "good"))

		store.set(func(s *remote) { clear(s.keys) })
		cache.Forget(admit.DigestOf("good"))
		refused(t, h, tryFrom("192.0.2.1:1", "good"), 401)
		refused(t, h, tryFrom("192.0.2.1:1", "good"), 401)
		assert.EqualValues(t, 5, store.asked.Load())
	})
}

func TestFailuresThatAreNone(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := newRemote("good", "expired")
		store.keys[admit.DigestOf("expired")].ExpiresAt = time.Now()
		one := admit.Limit{Requests: 1, Per: time.Hour}
		h := newAuth(t, admit.AuthConfig{Store: store, Failures: one, MintedPrefixes: []string{"acme"}}).Wrap(ok)
		const addr = "192.0.2.1:1"
		for range 5 {
			refused(t, h, tryFrom(addr, ""), 401)
			refused(t, h, tryFrom(addr, "expired"), 401)
			refused(t, h, tryFrom(addr, "acme_mistyped"), 401)
			refused(t, h, get("/", "X-API-Key", "a", "Authorization", "Bearer b"), 400)
			allowed(t, h, tryFrom(addr, "good"))
		}
		store.down()
		for range 5 {
			refused(t, h, tryFrom(addr, "unknown"), 503)
		}
		store.up()
		refused(t, h, tryFrom(addr, "unknown"), 401)
		refused(t, h, tryFrom(addr, "unknown"), 429)
		refused(t, h, tryFrom(addr, "acme_mistyped"), 401)

		h = newAuth(t, admit.AuthConfig{Store: newRemote(), Failures: one}).Wrap(ok)
		for range 5 {
			refused(t, h, tryFrom("@", "unknown"), 401) // a Unix socket: it would be everybody's address
		}
		h = newAuth(t, admit.AuthConfig{Store: newRemote()}).Wrap(ok)
		for i := range 1000 {
			refused(t, h, tryFrom(addr, strconv.Itoa(i)), 401) // off unless configured
		}
		for name, local := range map[string]admit.KeyStore{"KeyMap": oneKey, "KeyFile": openKeyFile(t)} {
			h = newAuth(t, admit.AuthConfig{Store: local, Failures: one}).Wrap(ok)
			for range 5 {
				refused(t, h, tryFrom(addr, name), 401) // nobody is asked
			}
			allowed(t, h, tryFrom(addr, "good"))
		}
	})
}

func openKeyFile(t testing.TB) *admit.KeyFile {
	t.Helper()
	f, err := admit.OpenKeyFile(writeFile(t, string(keyFileOf("good"))))
	require.NoError(t, err)
	t.Cleanup(func() { _ = f.Close() })
	return f
}

func TestFailuresByNetwork(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		first, second string
		same          bool
	}{
		"IPv4":            {"192.0.2.1:1", "192.0.2.2:1", false},
		"ports":           {"192.0.2.1:1", "192.0.2.1:2", true},
		"one /64":         {"[2001:db8::1]:1", "[2001:db8::ffff:1:2:3]:1", true},
		"two /64":         {"[2001:db8::1]:1", "[2001:db8:0:1::1]:1", false},
		"mapped IPv4":     {"[::ffff:192.0.2.1]:1", "192.0.2.1:9", true},
		"zones of a link": {"[fe80::1%eth0]:1", "[fe80::2%eth1]:1", true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newAuth(t, admit.AuthConfig{Store: newRemote(), Failures: admit.Limit{Requests: 1, Per: time.Hour}}).Wrap(ok)
			refused(t, h, tryFrom(test.first, "a"), 401)
			refused(t, h, tryFrom(test.first, "b"), 429)
			want := 401
			if test.same {
				want = 429
			}
			refused(t, h, tryFrom(test.second, "c"), want)
		})
	}
}

func TestFailuresFaults(t *testing.T) {
	t.Parallel()
	_, err := admit.NewAuth(admit.AuthConfig{Failures: admit.Limit{Requests: -1, Per: time.Minute}})
	assert.ErrorContains(t, err, "AuthConfig.Failures.Requests is -1")
	assert.ErrorContains(t, err, "AuthConfig.Store is nil")
}

// A flood from addresses without end holds a bounded memory.
func TestFailuresMemory(t *testing.T) {
	if raceDetector {
		t.Skip("heap figures are of normal builds")
	}
	a := newAuth(t, admit.AuthConfig{Store: newRemote(), Failures: tenFailures})
	h := a.Wrap(ok)
	begin := heap()
	r := tryFrom("", "guess")
	for i := range 300_000 {
		r.RemoteAddr = "10." + strconv.Itoa(i>>16) + "." + strconv.Itoa(i>>8&255) + "." + strconv.Itoa(i&255) + ":1"
		h.ServeHTTP(newDiscard(), r)
	}
	held := heap() - begin
	runtime.KeepAlive(h)
	assert.Less(t, held, 24<<20)
	t.Logf("%d KiB are held for 300,000 addresses", held>>10)
}

// However many ask at the same time, no more unknown keys are asked for than one after the
// other would be, and good keys among them get in.
func TestFailuresAtOnce(t *testing.T) {
	t.Parallel()
	for name, cached := range map[string]bool{"store": false, "cache": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				remote := manyKeys(100)
				remote.takes = 50 * time.Millisecond
				unknown := new(atomic.Int64)
				var store admit.KeyStore = storeFunc(func(ctx context.Context, d admit.Digest) (*admit.Key, error) {
					key, err := remote.LookupKey(ctx, d)
					if errors.Is(err, admit.ErrKeyNotFound) {
						unknown.Add(1)
					}
					return key, err
				})
				if cached {
					store = newCache(t, store, admit.KeyCacheConfig{})
				}
				h := newAuth(t, admit.AuthConfig{Store: store, Failures: admit.PerMinute(30)}).Wrap(ok)
				var all sync.WaitGroup
				var statuses [600]atomic.Int64
				ask := func(token string) {
					all.Go(func() { statuses[status(h, tryFrom("192.0.2.1:1", token))].Add(1) })
				}
				for i := range 100 {
					ask("k" + strconv.Itoa(i))
				}
				all.Wait()
				assert.EqualValues(t, 100, statuses[200].Load(), "good keys alone pay nothing, and wait for one another")
				for burst := range 4 {
					for i := range 1000 {
						ask(fmt.Sprint("guess ", burst, i))
					}
					all.Wait()
				}
				assert.EqualValues(t, 30, unknown.Load())
				assert.EqualValues(t, 30, statuses[401].Load())
				assert.EqualValues(t, 3970, statuses[429].Load())
				time.Sleep(time.Minute)
				synctest.Wait()
				for i := range 29 {
					ask(fmt.Sprint("another ", i))
				}
				for i := range 100 {
					ask("k" + strconv.Itoa(i))
				}
				all.Wait()
				assert.EqualValues(t, 200, statuses[200].Load(), "beside guesses that do not use it up")
				assert.EqualValues(t, 3970, statuses[429].Load())
			})
		})
	}
}

// What is taken is given back or kept, whatever the store says, in any order, and by callers
// who leave: the model is a count of those who have paid.
func FuzzFailures(f *testing.F) {
	f.Add(int64(1), byte(10), byte(100))
	f.Add(int64(2), byte(1), byte(255))
	f.Add(int64(3), byte(255), byte(3))
	f.Fuzz(func(t *testing.T, seed int64, burst, callers byte) {
		burst = max(burst, 1)
		synctest.Test(t, func(t *testing.T) {
			random := rand.New(rand.NewPCG(uint64(seed), 0))
			var mu sync.Mutex // of random
			upTo := func(n int) int { mu.Lock(); defer mu.Unlock(); return random.IntN(n) }
			var unknown, underWay, most atomic.Int64
			var over atomic.Bool
			store := storeFunc(func(context.Context, admit.Digest) (*admit.Key, error) {
				for n := underWay.Add(1); ; {
					if m := most.Load(); n <= m || most.CompareAndSwap(m, n) {
						break
					}
				}
				defer underWay.Add(-1)
				time.Sleep(time.Duration(upTo(20)) * time.Millisecond)
				answer := upTo(3)
				if over.Load() {
					answer = 0
				}
				switch answer {
				case 0:
					unknown.Add(1)
					return nil, admit.ErrKeyNotFound
				case 1:
					return nil, errDown
				default:
					return &admit.Key{ID: "a"}, nil
				}
			})
			h := newAuth(t, admit.AuthConfig{Store: store, Failures: admit.Limit{Requests: int(burst), Per: 1000 * time.Hour}}).Wrap(ok)
			var all sync.WaitGroup
			var paid, left atomic.Int64
			for i := range int(callers) {
				all.Go(func() {
					time.Sleep(time.Duration(upTo(20)) * time.Millisecond)
					ctx, cancel := context.WithCancel(t.Context())
					defer cancel()
					if i%5 == 0 {
						leaves := time.AfterFunc(time.Duration(1+upTo(30))*time.Millisecond, func() { left.Add(1); cancel() })
						defer leaves.Stop()
					}
					r := tryFrom("192.0.2.1:1", strconv.Itoa(i)).WithContext(ctx)
					switch status(h, r) {
					case 401:
						paid.Add(1)
					case 429:
						assert.GreaterOrEqual(t, unknown.Load()+left.Load(), int64(burst), "nobody is refused for what others have not spent")
					}
				})
			}
			all.Wait()
			assert.LessOrEqual(t, most.Load(), int64(burst))
			assert.LessOrEqual(t, unknown.Load(), int64(burst))
			over.Store(true)
			spent := int64(burst)
			for i := 0; status(h, tryFrom("192.0.2.1:1", "over "+strconv.Itoa(i))) == 401; i++ {
				spent--
			}
			assert.LessOrEqual(t, paid.Load(), spent)
			assert.LessOrEqual(t, spent, paid.Load()+left.Load(), "one who left may have paid, or not")
		})
	})
}

// A flood from the addresses of a few networks falls on these: customers elsewhere, whose
// keys are not cached, get in.
func TestFailuresOfAFlood(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h := newAuth(t, admit.AuthConfig{Store: manyKeys(1000), Failures: admit.Limit{Requests: 30, Per: time.Hour}}).Wrap(ok)
		flood := make(map[int]int)
		for i := range 180_000 {
			addr := fmt.Sprintf("[2001:db%d:%x:%x::1]:1", i%2, i>>16, i&0xffff)
			flood[status(h, tryFrom(addr, "guess"+strconv.Itoa(i)))]++
		}
		assert.Equal(t, map[int]int{401: 100_060, 429: 79_940}, flood)
		for i := range 1000 {
			addr := fmt.Sprintf("198.%d.%d.%d:1", 18+i%2, i/256, i%256)
			require.Equal(t, 200, status(h, tryFrom(addr, "k"+strconv.Itoa(i))), i)
		}
		refused(t, h, tryFrom("[2001:db1:ffff::1]:1", "k1"), 429)
		time.Sleep(time.Hour)
		allowed(t, h, tryFrom("[2001:db1:ffff::1]:1", "k1"))
	})
}

// Whoever waits for the look-ups of others does not do so for long: not while a store fails
// slowly and each hands its price on, nor while strangers keep one under way at all times, nor
// for one that never ends.
func TestFailuresWaitNotForLong(t *testing.T) {
	t.Parallel()
	type attempt struct {
		status int
		took   time.Duration
	}
	// run makes a request with each of the tokens, a time apart, and returns what came of each.
	run := func(t *testing.T, store admit.KeyStore, l admit.Limit, apart time.Duration, tokens ...string) []attempt {
		h := newAuth(t, admit.AuthConfig{Store: store, Failures: l}).Wrap(ok)
		got := make([]attempt, len(tokens))
		var all sync.WaitGroup
		for i, token := range tokens {
			all.Go(func() {
				began := time.Now()
				got[i].status = status(h, tryFrom("192.0.2.1:1", token))
				got[i].took = time.Since(began)
			})
			time.Sleep(apart)
		}
		all.Wait()
		return got
	}
	guesses := make([]string, 1000)
	for i := range guesses {
		guesses[i] = "guess " + strconv.Itoa(i)
	}
	t.Run("the store fails", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			store := storeFunc(func(context.Context, admit.Digest) (*admit.Key, error) {
				time.Sleep(3 * time.Second)
				return nil, errDown
			})
			for _, a := range run(t, store, admit.Limit{Requests: 2, Per: time.Hour}, 0, guesses...) {
				assert.Equal(t, 503, a.status)
				assert.LessOrEqual(t, a.took, 8*time.Second, "five to wait, and the look-up itself")
			}
		})
	})
	t.Run("guesses without end", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			store := storeFunc(func(context.Context, admit.Digest) (*admit.Key, error) {
				time.Sleep(150 * time.Millisecond)
				return nil, admit.ErrKeyNotFound
			})
			// One more may be made each 100 ms; of those that come each 90 ms some have to wait.
			statuses := map[int]int{}
			for _, a := range run(t, store, admit.Limit{Requests: 600, Per: time.Minute, Burst: 2}, 90*time.Millisecond, guesses...) {
				statuses[a.status]++
				assert.LessOrEqual(t, a.took, 300*time.Millisecond, "one look-up of others, and one's own")
			}
			assert.Greater(t, statuses[401], 800)
			assert.Greater(t, statuses[429], 10)
			assert.Len(t, statuses, 2)
		})
	})
	t.Run("a look-up without end", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			end := make(chan struct{})
			store := storeFunc(func(_ context.Context, d admit.Digest) (*admit.Key, error) {
				switch d {
				case admit.DigestOf("hangs"):
					<-end
					return nil, errDown
				case admit.DigestOf("good"):
					return &admit.Key{ID: "good"}, nil
				}
				return nil, admit.ErrKeyNotFound
			})
			time.AfterFunc(time.Hour, func() { close(end) })
			got := run(t, store, admit.Limit{Requests: 2, Per: 40 * time.Second}, 8*time.Second, "hangs", "guess", "more", "good", "good")
			assert.Equal(t, attempt{503, time.Hour}, got[0])
			assert.Equal(t, attempt{401, 0}, got[1])
			assert.Equal(t, attempt{503, 5 * time.Second}, got[2])
			assert.Equal(t, attempt{200, 0}, got[3])
			assert.Equal(t, attempt{200, 0}, got[4])
		})
	})
}
