package admit_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/admit-go/admit"
)

// network is the way to a store that processes share: it takes a time, and counts.
type network struct {
	admit.LimitStore
	takes time.Duration
	calls atomic.Int64
	down  atomic.Bool
}

func (n *network) Take(ctx context.Context, key string, cost int, limits []admit.Limit) (admit.Decision, error) {
	n.calls.Add(1)
	time.Sleep(n.takes)
	if n.down.Load() {
		return admit.Decision{}, errors.New("no route to the store")
	}
	return n.LimitStore.Take(ctx, key, cost, limits)
}

// fleet are processes with limits in one store.
type fleet struct {
	network
	processes []*admit.Limiter
	admitted  []time.Duration
	mu        sync.Mutex
	began     time.Time
}

func newFleet(t *testing.T, n int, lease admit.Lease, limits ...admit.Limit) *fleet {
	f := &fleet{network: network{LimitStore: newMemoryStore(t, 0), takes: time.Millisecond}, began: time.Now()}
	for range n {
		f.processes = append(f.processes, newLimiter(t, admit.LimiterConfig{Name: "api", Limits: limits, Store: &f.network, Replicas: n, Lease: lease}))
	}
	return f
}

// send has a caller send a request to one of the processes, and notes when it was let in.
func (f *fleet) send(t *testing.T, process int, r *http.Request, cost int) admit.Decision {
	d, err := f.processes[process].Take(r, cost)
	require.NoError(t, err)
	if d.Allowed {
		f.mu.Lock()
		defer f.mu.Unlock()
		for range cost {
			f.admitted = append(f.admitted, time.Since(f.began))
		}
	}
	return d
}

// most returns how many were let in in any one period.
func (f *fleet) most(per time.Duration) (most int) {
	first := 0
	for i, at := range f.admitted {
		for at-f.admitted[first] >= per {
			first++
		}
		most = max(most, i-first+1)
	}
	return most
}

// close gives all back, after which nothing may be left that goes on.
func (f *fleet) close(t *testing.T) {
	for _, l := range f.processes {
		require.NoError(t, l.Close(t.Context()))
	}
}

// What a lease spares: eight processes, one caller whose requests come by chance, and a store that
// is a millisecond away.
func TestLeaseSparesTrips(t *testing.T) {
	t.Parallel()
	var table strings.Builder
	fmt.Fprintf(&table, "%-34s %5s %9s %9s %8s %9s\n", "limit, lease", "load", "requests", "admitted", "of limit", "calls/req")
	for _, c := range []struct {
		limit admit.Limit
		lease admit.Lease
		calls [4]float64 // for each request, at most
	}{
		{admit.PerSecond(1000), admit.Lease{Share: 0.25, For: time.Second}, [4]float64{0.15, 0.1, 0.4, 0.1}},
		{admit.PerMinute(6000), admit.Lease{Share: 0.1, For: 2 * time.Second}, [4]float64{0.15, 0.1, 0.4, 0.1}},
		{admit.PerSecond(100), admit.Lease{Share: 0.5, For: time.Second}, [4]float64{0.4, 0.3, 0.4, 0.1}}, // six ahead are few
		{admit.PerSecond(1000), admit.Lease{}, [4]float64{1, 1, 1, 1}},
	} {
		for i, load := range []float64{0.5, 0.9, 2, 10} {
			name := fmt.Sprintf("%d/%v, %v of it for %v", c.limit.Requests, c.limit.Per, c.lease.Share, c.lease.For)
			synctest.Test(t, func(t *testing.T) {
				f := newFleet(t, 8, c.lease, c.limit)
				rate := load * float64(c.limit.Requests) / c.limit.Per.Seconds()
				lasts := time.Duration(float64(10*time.Second) * load * 1000 / rate)
				rnd := rand.New(rand.NewPCG(1, 2))
				// A full bucket is no part of the long run.
				_, _ = f.LimitStore.Take(t.Context(), "addr:api:192.0.2.1", c.limit.Requests, []admit.Limit{c.limit})
				sent, r := 0, get("/")
				for time.Since(f.began) < lasts {
					time.Sleep(time.Duration(rnd.ExpFloat64() / rate * float64(time.Second)))
					sent++
					process := rnd.IntN(8)
					go f.send(t, process, r, 1)
				}
				time.Sleep(10 * time.Second)
				f.close(t)
				calls := float64(f.calls.Load()) / float64(sent)
				of := float64(len(f.admitted)) / min(float64(sent), rate/load*lasts.Seconds())
				fmt.Fprintf(&table, "%-34s %4.1fx %9d %9d %8.3f %9.3f\n", name, load, sent, len(f.admitted), of, calls)
				assert.LessOrEqual(t, calls, c.calls[i], "%s, %.1fx: calls for each request", name, load)
				assert.GreaterOrEqual(t, of, 0.9, "%s, %.1fx: let in, of the limit", name, load)
				assert.LessOrEqual(t, of, 1.001+c.lease.Share, "%s, %.1fx: let in, of the limit", name, load)
				assert.LessOrEqual(t, float64(f.most(c.limit.Per)), float64(2*c.limit.Requests)*(1+c.lease.Share/2), "%s, %.1fx: in any one period", name, load)
			})
		}
	}
	t.Logf("\n%s", &table)
}
