package redislimit_test

import (
	"context"
	"crypto/tls"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/assert"

	"github.com/admit-go/admit"
	"github.com/admit-go/admit/integration/servers"
	"github.com/admit-go/admit/redislimit"
)

// options are those of the README for go-redis.
func options(addr string, secure *tls.Config) *redis.Options {
	return &redis.Options{Addr: addr, TLSConfig: secure, ContextTimeoutEnabled: true, MaxRetries: -1}
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
					client := redis.NewClient(options(proxy.Addr, config))
					t.Cleanup(func() { _ = client.Close() })
					s := newStore(t, evalWith(client), redislimit.Config{Direct: true, Timeout: test.timeout})

					const long = 6 * time.Second
					var answered, failed [2]atomic.Int64 // in each half of it
					began := time.Now()
					var sending sync.WaitGroup
					for caller := range callers {
						sending.Go(func() {
							for time.Since(began) < long {
								half := int(2 * time.Since(began) / long)
								_, err := s.Take(context.Background(), fmt.Sprint("caller ", caller), 1, []admit.Limit{admit.PerHour(1000)})
								if err == nil {
									answered[half].Add(1)
								} else {
									failed[half].Add(1)
								}
								time.Sleep(test.away)
							}
						})
					}
					sending.Wait()
					t.Logf("answered %d and %d, failed %d and %d", answered[0].Load(), answered[1].Load(), failed[0].Load(), failed[1].Load())
					// A machine that is busy is late for some.
					assert.Greater(t, answered[0].Load()+answered[1].Load(), failed[0].Load()+failed[1].Load(), "most are answered")
					assert.Greater(t, answered[1].Load(), 2*failed[1].Load(), "nearly all once it is connected")
				})
			}
		}
	}
}
