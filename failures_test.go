package admit_test

import (
	"net/http"
	"runtime"
	"strconv"
	"sync"
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
			assert.Equal(t, "rate_limited", e.Code)
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

// However many try at once, the store is asked for as many as the limit lets through,
// and those that were under way when it was reached.
func TestFailuresAtOnce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := newRemote()
		store.takes = time.Millisecond
		h := newAuth(t, admit.AuthConfig{Store: store, Failures: tenFailures}).Wrap(ok)
		var all sync.WaitGroup
		const strangers = 8
		for g := range strangers {
			all.Go(func() {
				for i := range 100 {
					r := tryFrom("192.0.2.1:1", strconv.Itoa(g*1000+i))
					h.ServeHTTP(newDiscard(), r)
				}
			})
		}
		all.Wait()
		assert.GreaterOrEqual(t, store.asked.Load(), int64(10))
		assert.LessOrEqual(t, store.asked.Load(), int64(10+strangers-1))
	})
}

// A flood from addresses without end holds a bounded memory.
func TestFailuresMemory(t *testing.T) {
	if raceDetector {
		t.Skip("heap figures are of normal builds")
	}
	a := newAuth(t, admit.AuthConfig{Store: newRemote(), Failures: tenFailures})
	h := a.Wrap(ok)
	heap := func() int {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return int(m.HeapAlloc)
	}
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
