package redislimit_test

import (
	"context"
	"crypto/tls"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/admit-go/admit"
	"github.com/admit-go/admit/integration/servers"
	"github.com/admit-go/admit/redislimit"
)

// options are those of the README for go-redis.
func options(addr string, secure *tls.Config) *redis.Options {
	return &redis.Options{Addr: addr, TLSConfig: secure, ContextTimeoutEnabled: true, MaxRetries: -1}
}

// startCold sends requests for six seconds, and returns what came of them in each half.
func startCold(s *redislimit.Store, callers int, away time.Duration) (answered, failed [2]int64) {
	const long = 6 * time.Second
	var mu sync.Mutex
	began := time.Now()
	var sending sync.WaitGroup
	for caller := range callers {
		sending.Go(func() {
			for time.Since(began) < long {
				half := int(2 * time.Since(began) / long)
				_, err := s.Take(context.Background(), fmt.Sprint("caller ", caller), 1, []admit.Limit{admit.PerHour(1000)})
				mu.Lock()
				if err == nil {
					answered[half]++
				} else {
					failed[half]++
				}
				mu.Unlock()
				time.Sleep(away)
			}
		})
	}
	sending.Wait()
	return answered, failed
}

// A service that starts far away from its Redis has nothing yet: no connection, no TLS
// session, no script in the server. All but the first requests are answered all the same.
func TestColdStart(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		away    time.Duration // there and back
		timeout time.Duration
	}{
		{24 * time.Millisecond, 0},
		{100 * time.Millisecond, 250 * time.Millisecond},
	} {
		for _, secure := range []bool{false, true} {
			for _, callers := range []int{1, 8} {
				name := fmt.Sprintf("%v away, %d at once", test.away, callers)
				if secure {
					name += ", TLS"
				}
				t.Run(name, func(t *testing.T) {
					t.Parallel()
					server, config := servers.StartRedisTLS(t)
					addr := server.Addr
					if secure {
						addr = server.TLSAddr
					} else {
						config = nil
					}
					proxy := servers.StartProxy(t, addr)
					proxy.Set(servers.Weather{Delay: test.away / 2})
					start := func() (answered, failed [2]int64) {
						near := redis.NewClient(options(server.Addr, nil))
						require.NoError(t, near.ScriptFlush(t.Context()).Err())
						require.NoError(t, near.Close())
						client := redis.NewClient(options(proxy.Addr, config))
						defer client.Close()
						return startCold(newStore(t, evalWith(client), redislimit.Config{Direct: true, Timeout: test.timeout}), callers, test.away)
					}
					for tries := 1; ; tries++ {
						answered, failed := start()
						t.Logf("answered %d, failed %d", answered, failed)
						well := answered[0]+answered[1] > failed[0]+failed[1] && // most are answered,
							answered[1] > 2*failed[1] // and nearly all once it is connected
						if well {
							return
						}
						require.Less(t, tries, 3, "a machine that is busy is late for some, but not each time")
					}
				})
			}
		}
	}
}
