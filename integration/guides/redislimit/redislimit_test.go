package redislimit_test

import (
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/admit-go/admit/integration/guides/redislimit"
	"github.com/admit-go/admit/integration/servers"
)

// Two replicas share a limit while Redis is there. Without it each has its share, which is at
// least 1.
func TestReplicasShareALimit(t *testing.T) {
	t.Parallel()
	server := servers.StartRedis(t)
	replica := func() func() int {
		limiter, err := redislimit.NewLimiter(server.Addr)
		require.NoError(t, err)
		h := limiter.Wrap(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
		return func() int {
			w := httptest.NewRecorder()
			h.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/", nil))
			return w.Code
		}
	}
	a, b := replica(), replica()
	began := time.Now()
	admitted := 0
	for refused := false; !refused; {
		first, second := a(), b()
		for _, status := range []int{first, second} {
			if status == http.StatusOK {
				admitted++
			}
		}
		refused = first == http.StatusTooManyRequests && second == http.StatusTooManyRequests
	}
	// One share of each replica comes on top if Redis is late.
	assert.GreaterOrEqual(t, admitted, 10)
	assert.LessOrEqual(t, float64(admitted), 10+2+10*time.Since(began).Seconds())

	server.Stop()
	c := replica()
	assert.Equal(t, 200, c())
	assert.Equal(t, 429, c())
}
