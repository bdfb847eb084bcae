package integration

import (
	"fmt"
	"math"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/dunglas/httpsfv"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/admit-go/admit"
)

// member is one of a List of Strings whose parameters are whole numbers.
type member struct {
	name   string
	params map[string]int64
}

// parseLimits reads RateLimit or RateLimit-Policy as RFC 9651 says.
func parseLimits(t testing.TB, lines []string) []member {
	t.Helper()
	list, err := httpsfv.UnmarshalList(lines)
	require.NoError(t, err, "%q", lines)
	var members []member
	for _, m := range list {
		item, ok := m.(httpsfv.Item)
		require.True(t, ok, "%q has a list inside", lines)
		name, ok := item.Value.(string)
		require.True(t, ok, "%q has what is no String", lines)
		parsed := member{name, map[string]int64{}}
		for _, key := range item.Params.Names() {
			value, _ := item.Params.Get(key)
			n, ok := value.(int64)
			require.True(t, ok, "%q has a parameter that is no Integer", lines)
			parsed.params[key] = n
		}
		members = append(members, parsed)
	}
	return members
}

// checkLimitHeaders sends requests until one is refused.
func checkLimitHeaders(t testing.TB, limits ...admit.Limit) {
	t.Helper()
	h := admit.RateLimit(limits...)(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	for range 20 {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/", nil))
		policy, state := parseLimits(t, w.Header().Values("RateLimit-Policy")), parseLimits(t, w.Header().Values("RateLimit"))
		require.Len(t, policy, len(limits))
		require.Len(t, state, len(limits))
		for i, l := range limits {
			if l.Burst == 0 {
				l.Burst = l.Requests
			}
			seconds := int64(math.Ceil(float64(l.Per) / float64(time.Second)))
			require.Equal(t, member{l.Name, map[string]int64{"q": int64(l.Requests), "w": seconds}}, policy[i])
			require.Equal(t, l.Name, state[i].name)
			require.Len(t, state[i].params, 2)
			r, reset := state[i].params["r"], state[i].params["t"]
			assert.True(t, r >= 0 && r <= int64(l.Burst), "r=%d of %+v", r, l)
			full := int64(math.Ceil(float64(l.Burst) / float64(l.Requests) * l.Per.Seconds()))
			least := int64(1)
			if w.Code == http.StatusTooManyRequests {
				least = 0 // another limit has refused, and this one was full
			}
			assert.True(t, reset >= least && reset <= full+1, "t=%d of %+v", reset, l)
		}
		if w.Code == http.StatusTooManyRequests {
			return
		}
	}
}

func TestLimitHeadersParseBack(t *testing.T) {
	t.Parallel()
	printable := func(n int) string {
		var b strings.Builder
		for range n {
			b.WriteByte(byte(' ' + rand.IntN('~'-' '+1)))
		}
		return b.String()
	}
	for range 2000 {
		var limits []admit.Limit
		for i := range 1 + rand.IntN(4) {
			limits = append(limits, admit.Limit{
				Name:     fmt.Sprint(i, printable(rand.IntN(60))),
				Requests: 1 + rand.IntN(1<<rand.IntN(30)),
				Per:      time.Second + time.Duration(rand.Int64N(int64(100*24*time.Hour))),
				Burst:    rand.IntN(20),
			})
		}
		checkLimitHeaders(t, limits...)
	}
}

// Whatever name a Limit may have, a client reads the same one.
func FuzzLimitNames(f *testing.F) {
	for _, name := range []string{"minute", `"`, `\`, `\"`, "a b", ";", ",", "~", "", "\x7f", "ä", "\n", `";q=1, "x`} {
		f.Add(name)
	}
	f.Fuzz(func(t *testing.T, name string) {
		limit := admit.Limit{Name: name, Requests: 3, Per: time.Hour}
		if _, err := admit.NewLimiter(admit.LimiterConfig{Limits: []admit.Limit{limit}}); err != nil {
			if strings.Trim(name, "abcdefghijklmnopqrstuvwxyz-_.") == "" && len(name) <= 64 && name != "" {
				t.Errorf("the name %q is refused: %v", name, err)
			}
			return
		}
		if name == "" {
			limit.Name = "1h0m0s"
		}
		checkLimitHeaders(t, limit)
	})
}
