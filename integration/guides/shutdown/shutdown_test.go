package shutdown_test

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.yaml.in/yaml/v3"

	"github.com/admit-go/admit"
	"github.com/admit-go/admit/integration/guides/shutdown"
	"github.com/admit-go/admit/integration/internal/markdown"
)

// events notes what happens, in order.
type events struct {
	mu  sync.Mutex
	all []string
}

func (e *events) note(what string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.all = append(e.all, what)
}

func (e *events) list() []string {
	e.mu.Lock()
	defer e.mu.Unlock()
	return append([]string(nil), e.all...)
}

// quotaStore notes what it is told.
type quotaStore struct {
	admit.QuotaStore
	*events
}

func (s quotaStore) Settle(ctx context.Context, claims []admit.QuotaClaim) ([]admit.QuotaBalance, error) {
	for _, c := range claims {
		if c.Used > 0 && c.Want == 0 {
			s.note("the quotas are settled")
		}
	}
	return s.QuotaStore.Settle(ctx, claims)
}

// limitStore notes what is given back. It is not a MemoryStore for the Limiter, which would
// take nothing ahead of one.
type limitStore struct {
	admit.LimitStore
	*events
}

func (s limitStore) Take(ctx context.Context, key string, cost int, limits []admit.Limit) (admit.Decision, error) {
	if cost < 0 {
		s.note("the lease goes back")
	}
	return s.LimitStore.Take(ctx, key, cost, limits)
}

type closer func() error

func (c closer) Close() error { return c() }

// running is a service that runs, with routes that take as long as the test wants.
type running struct {
	*shutdown.Service
	*events
	url     string
	signal  func()
	ended   chan error
	began   chan string   // by the handler of a request
	release chan struct{} // lets handlers end
	ticks   chan string
}

func start(t *testing.T, finish time.Duration) *running {
	t.Helper()
	s := &running{
		events: new(events), ended: make(chan error, 1), began: make(chan string, 10), release: make(chan struct{}), ticks: make(chan string),
	}
	memory, err1 := admit.NewMemoryStore(admit.MemoryStoreConfig{})
	inFlight, err2 := admit.NewInFlight(admit.InFlightConfig{Max: 100})
	limiter, err3 := admit.NewLimiter(admit.LimiterConfig{
		Name: "test", Limits: []admit.Limit{admit.PerHour(1_000_000)}, Store: limitStore{memory, s.events},
		Replicas: 1, Lease: admit.Lease{Share: 0.5, For: time.Hour},
	})
	plans, err4 := admit.NewPlans(admit.Plan{Name: "pro", Quotas: []admit.Quota{{Requests: 10_000, Every: admit.Month}}})
	quotas, err5 := admit.NewQuotas(admit.QuotasConfig{Plans: plans, Store: quotaStore{admit.NewMemoryQuotaStore(), s.events}})
	auth, err6 := admit.NewAuth(admit.AuthConfig{Store: admit.KeyMap{admit.DigestOf("token"): {ID: "k1", Plan: "pro"}}})
	file := filepath.Join(t.TempDir(), "keys.json")
	err7 := admit.WriteKeyFile(file, admit.KeyMap{})
	keys, err8 := admit.OpenKeyFile(file)
	require.NoError(t, errors.Join(err1, err2, err3, err4, err5, err6, err7, err8))

	mux := http.NewServeMux()
	server := &http.Server{Handler: admit.Policy{InFlight: inFlight}.Wrap(admit.Mux(mux))}
	s.Service = &shutdown.Service{
		Server: server, InFlight: inFlight, Limiter: limiter, Quotas: quotas,
		Stores: []io.Closer{keys, closer(func() error { s.note("the stores are closed"); return nil })},
		Drain:  200 * time.Millisecond, Finish: finish, Settle: 5 * time.Second,
	}
	keyed := admit.Policy{Auth: auth, Limiter: limiter, Quotas: quotas}
	mux.Handle("GET /quick", keyed.Wrap(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})))
	mux.Handle("GET /slow", keyed.Wrap(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		s.began <- "slow"
		<-s.release
		s.note("a handler has ended")
	})))
	late := keyed
	late.Timeout = 50 * time.Millisecond
	mux.Handle("GET /late", late.Wrap(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		<-s.release
		s.note("a late handler has ended")
	})))
	mux.Handle("GET /events", keyed.Wrap(shutdown.Events(server, s.ticks)))
	mux.HandleFunc("GET /healthz", s.Health)

	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	s.url = "http://" + listener.Addr().String()
	ctx, cancel := context.WithCancel(t.Context())
	s.signal = cancel
	go func() { s.ended <- s.Serve(ctx, listener) }()
	return s
}

// get returns the status and the body, or 0 and the error.
func (s *running) get(path string) (int, string) {
	r, err := http.NewRequest(http.MethodGet, s.url+path, nil)
	if err != nil {
		return 0, err.Error()
	}
	r.Header.Set("X-API-Key", "token")
	res, err := http.DefaultClient.Do(r)
	if err != nil {
		return 0, err.Error()
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		return 0, err.Error()
	}
	return res.StatusCode, string(body)
}

func (s *running) eventually(t *testing.T, path string, status int) {
	t.Helper()
	require.Eventually(t, func() bool {
		got, _ := s.get(path)
		return got == status
	}, 10*time.Second, 5*time.Millisecond, path)
}

// The health check fails first, requests that come meanwhile are served, those under way end,
// and then all that counts them settles, before the stores close.
func TestOrder(t *testing.T) {
	t.Parallel()
	s := start(t, 20*time.Second)
	for range 5 { // a caller that comes often has something taken ahead
		status, body := s.get("/quick")
		require.Equal(t, 200, status, body)
	}
	status, _ := s.get("/healthz")
	require.Equal(t, 200, status)
	answer := make(chan int)
	go func() {
		status, _ := s.get("/slow")
		answer <- status
	}()
	<-s.began
	status, body := s.get("/late")
	require.Equal(t, 503, status)
	require.Contains(t, body, "handler_timeout")

	s.signal()
	s.eventually(t, "/healthz", 503)
	status, _ = s.get("/quick")
	assert.Equal(t, 200, status, "while it drains")
	s.eventually(t, "/healthz", 0) // the port is closed
	assert.Empty(t, s.list(), "nothing ends before the requests")
	close(s.release)
	assert.Equal(t, 200, <-answer)
	require.NoError(t, <-s.ended)
	all := s.list()
	require.Len(t, all, 5)
	assert.ElementsMatch(t, []string{"a handler has ended", "a late handler has ended"}, all[:2])
	assert.Equal(t, []string{"the lease goes back", "the quotas are settled", "the stores are closed"}, all[2:])
	assert.Zero(t, s.Limiter.Stats().Leased)
	assert.Zero(t, s.Quotas.Stats().Held+s.Quotas.Stats().Unreported)
}

// A stream ends by itself, and whole.
func TestStreamsEnd(t *testing.T) {
	t.Parallel()
	s := start(t, 20*time.Second)
	body := make(chan string)
	go func() {
		_, text := s.get("/events")
		body <- text
	}()
	s.ticks <- "1"
	s.signal()
	assert.Equal(t, "data: 1\n\n", <-body)
	assert.NoError(t, <-s.ended)
}

// What does not end in time is cut, and the rest is closed nevertheless.
func TestCut(t *testing.T) {
	t.Parallel()
	s := start(t, 100*time.Millisecond)
	answer := make(chan int)
	go func() {
		status, _ := s.get("/slow")
		answer <- status
	}()
	<-s.began
	s.signal()
	assert.Zero(t, <-answer)
	err := <-s.ended
	assert.ErrorIs(t, err, context.DeadlineExceeded)
	assert.ErrorContains(t, err, "requests were cut")
	assert.Contains(t, s.list(), "the stores are closed")
	close(s.release)
}

// A port that is taken away ends the service, and closes its stores.
func TestServeFails(t *testing.T) {
	t.Parallel()
	s := start(t, time.Second)
	require.NoError(t, s.Server.Close())
	assert.ErrorIs(t, <-s.ended, http.ErrServerClosed)
	assert.Equal(t, []string{"the stores are closed"}, s.list())
}

// A signal ends it in order.
func TestSignal(t *testing.T) { // not parallel: the signal is for the whole process
	s := start(t, time.Second)
	s.signal()
	require.NoError(t, <-s.ended)
	serves := make(chan bool)
	again := &shutdown.Service{InFlight: s.InFlight, Limiter: s.Limiter, Quotas: s.Quotas, Finish: time.Second, Settle: time.Second}
	again.Server = &http.Server{BaseContext: func(net.Listener) context.Context {
		close(serves)
		return t.Context()
	}}
	require.Error(t, shutdown.Main(again, "no address"))
	ended := make(chan error)
	go func() { ended <- shutdown.Main(again, "127.0.0.1:0") }()
	<-serves
	process, err := os.FindProcess(os.Getpid())
	require.NoError(t, err)
	require.NoError(t, process.Signal(syscall.SIGTERM))
	assert.NoError(t, <-ended)
}

// Maintenance rejects what comes while the service drains.
func TestMaintenance(t *testing.T) {
	t.Parallel()
	var m admit.Maintenance
	h := m.Wrap(http.NotFoundHandler())
	m.On(time.Now().Add(30 * time.Second))
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest("GET", "/", nil))
	assert.Equal(t, 503, w.Code)
	assert.Equal(t, "30", w.Header().Get("Retry-After"))
	assert.Contains(t, w.Body.String(), `"code":"maintenance"`)
}

// The times of the page add up: Kubernetes waits for longer than the service takes.
func TestKubernetes(t *testing.T) {
	t.Parallel()
	page, err := markdown.Read("../../../docs/shutdown.md")
	require.NoError(t, err)
	for _, block := range page.Blocks {
		if block.Lang != "yaml" {
			continue
		}
		var pod struct {
			Spec struct {
				Grace int `yaml:"terminationGracePeriodSeconds"`
			}
		}
		require.NoError(t, yaml.Unmarshal([]byte(block.Text), &pod))
		assert.Greater(t, pod.Spec.Grace, 5+20+5)
		return
	}
	t.Error("no YAML")
}
