package client_test

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/admit-go/admit"
	"github.com/admit-go/admit/example/service"
	"github.com/admit-go/admit/integration/client"
)

// faults stands before a service, and fails attempts as X-Faults says, the first word for
// the first attempt: a status, drop (the connection ends, and the service has seen nothing),
// lost (the service has answered, and nobody hears), maintenance (for a second), or pass.
type faults struct {
	service http.Handler
	mu      sync.Mutex
	seen    map[string]int
}

func (f *faults) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	who := r.Header.Get("X-Client")
	f.mu.Lock()
	n := f.seen[who]
	f.seen[who]++
	f.mu.Unlock()
	fault := "pass"
	if words := strings.Fields(r.Header.Get("X-Faults")); n < len(words) {
		fault = words[n]
	}
	switch fault {
	case "pass":
		f.service.ServeHTTP(w, r)
	case "lost":
		f.service.ServeHTTP(httptest.NewRecorder(), r)
		cut(w)
	case "drop":
		cut(w)
	case "maintenance":
		m := new(admit.Maintenance)
		m.On(time.Now().Add(time.Second))
		m.Wrap(f.service).ServeHTTP(w, r)
	default:
		var status int
		_, _ = fmt.Sscan(fault, &status)
		admit.WriteError(w, r, admit.NewError(status, ""))
	}
}

// cut ends the connection within the first line of the answer: net/http sends a request
// again by itself if a connection that it has used before ends without a byte.
func cut(w http.ResponseWriter) {
	conn, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		panic(err)
	}
	_, _ = io.WriteString(conn, "HTTP/1.1 2")
	_ = conn.Close()
}

// The client against the example, with faults between them: what is momentary costs one more
// attempt, what is refused comes in time, and what may have happened does not happen twice.
func TestExampleWithFaults(t *testing.T) {
	before := runtime.NumGoroutine()
	keys := admit.KeyMap{}
	mint := func(id, plan string, scopes ...string) string {
		token, digest, _ := admit.Mint("demo_" + plan)
		keys[digest] = &admit.Key{ID: id, Plan: plan, Scopes: scopes}
		return token
	}
	crowd, free, trader := mint("k1", "free"), mint("k2", "free"), mint("k3", "pro", "orders:write")
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	logger := slog.New(slog.DiscardHandler)
	api, err := service.New(ctx, service.Config{Keys: keys, Logger: logger})
	require.NoError(t, err)

	inside := &arrivals{next: api} // who has reached the service
	outside := &arrivals{next: &faults{service: inside, seen: make(map[string]int)}}
	server := httptest.NewUnstartedServer(nil)
	server.Config = service.NewServer(outside, logger)
	var conns atomic.Int64
	server.Config.ConnState = func(_ net.Conn, s http.ConnState) {
		if s == http.StateNew {
			conns.Add(1)
		}
	}
	server.Start()
	defer server.Close()

	type scenario struct {
		name, method, path, body, token, faults string

		keyed   bool
		status  int   // that the caller gets; 0: an error
		answers []int // of all attempts; 0: none
		served  []int // by the service
	}
	order := func(id string) string {
		return `{"pair":"btc-usd","side":"buy","quantity":"1","client_id":"` + id + `"}`
	}
	scenarios := []scenario{
		{"good", "GET", "/v1/prices/btc-usd", "", trader, "", false, 200, []int{200}, []int{200}},
		{"503 once", "GET", "/v1/prices/btc-usd", "", trader, "503", false, 200, []int{503, 200}, []int{200}},
		{"500 twice", "GET", "/v1/prices/btc-usd", "", trader, "500 500 pass", false, 500, []int{500, 500}, []int{}},
		{"dropped", "GET", "/v1/prices/btc-usd", "", trader, "drop", false, 200, []int{0, 200}, []int{200}},
		{"a panic", "GET", "/v1/panic", "", trader, "", false, 500, []int{500, 500}, []int{500, 500}},
		{"an upstream that is down", "GET", "/v1/upstream?as=refused", "", trader, "", false, 502, []int{502, 502}, []int{502, 502}},
		{"too late", "GET", "/v1/slow?d=3s", "", trader, "", false, 503, []int{503, 503}, []int{503, 503}},
		{"no such pair", "GET", "/v1/prices/doge", "", trader, "", false, 404, []int{404}, []int{404}},
		{"no key", "GET", "/v1/prices/btc-usd", "", "", "", false, 401, []int{401}, []int{401}},
		{"no such plan", "GET", "/v1/history/btc-usd", "", free, "503", false, 402, []int{503, 402}, []int{402}},
		{"order", "POST", "/v1/orders", order("o1"), trader, "", false, 201, []int{201}, []int{201}},
		{"order and 500", "POST", "/v1/orders", order("o2"), trader, "500", false, 500, []int{500}, []int{}},
		{"order whose answer is lost", "POST", "/v1/orders", order("o3"), trader, "lost", false, 0, []int{0}, []int{201}},
		{"order with a key whose answer is lost", "POST", "/v1/orders", order("o4"), trader, "lost", true, 409, []int{0, 409}, []int{201, 409}},
		{"order in maintenance", "POST", "/v1/orders", order("o5"), trader, "maintenance", false, 201, []int{503, 201}, []int{201}},
	}
	do := func(s scenario, transport http.RoundTripper) {
		r, err := http.NewRequestWithContext(ctx, s.method, server.URL+s.path, strings.NewReader(s.body))
		if !assert.NoError(t, err) {
			return
		}
		r.Header.Set("Content-Type", "application/json")
		r.Header.Set("X-Client", s.name)
		r.Header.Set("X-Faults", s.faults)
		r.Header.Set("X-API-Key", s.token)
		if s.token == "" {
			r.Header.Del("X-API-Key")
		}
		if s.keyed {
			r.Header.Set("Idempotency-Key", s.name)
		}
		res, err := (&http.Client{Transport: &client.Transport{Next: transport, Patience: 30 * time.Second}}).Do(r)
		if s.status == 0 {
			assert.Error(t, err, s.name)
			return
		}
		if !assert.NoError(t, err, s.name) {
			return
		}
		defer res.Body.Close()
		_, err = io.Copy(io.Discard, res.Body)
		assert.NoError(t, err)
		assert.Equal(t, s.status, res.StatusCode, s.name)
	}

	// One caller does all of this in turn, while many with one small plan come at once.
	const clients = 12
	transports := make([]*http.Transport, clients+1)
	var all sync.WaitGroup
	for i := range transports {
		transports[i] = &http.Transport{MaxIdleConnsPerHost: 1}
		all.Go(func() {
			defer transports[i].CloseIdleConnections()
			if i < clients {
				name := fmt.Sprint("client ", i)
				do(scenario{name: name, method: "GET", path: "/v1/prices/eth-usd", token: crowd, status: 200}, transports[i])
				return
			}
			for _, s := range scenarios {
				do(s, transports[i])
			}
		})
	}
	all.Wait()

	dropped := int64(0)
	for _, s := range scenarios {
		assert.Equal(t, s.answers, outside.statuses(s.name), s.name)
		assert.Equal(t, s.served, inside.statuses(s.name), s.name)
		dropped += int64(strings.Count(s.faults, "drop") + strings.Count(s.faults, "lost"))
	}
	for i := range clients {
		statuses := inside.statuses(fmt.Sprint("client ", i))
		require.NotEmpty(t, statuses)
		assert.Equal(t, 200, statuses[len(statuses)-1])
		for _, status := range statuses[:len(statuses)-1] {
			assert.Equal(t, 429, status)
		}
	}
	refusals := outside.check(t)
	assert.Positive(t, refusals, "the limit was reached")
	assert.Equal(t, clients+1+dropped, conns.Load(), "connections of refused attempts are used again")
	t.Logf("%d refusals, %d connections", refusals, conns.Load())

	server.Close()
	stop()
	for end := time.Now().Add(10 * time.Second); runtime.NumGoroutine() > before && time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
	}
	if n := runtime.NumGoroutine(); n > before {
		stacks := make([]byte, 1<<20)
		t.Errorf("%d goroutines, of %d before: %s", n, before, stacks[:runtime.Stack(stacks, true)])
	}
}
