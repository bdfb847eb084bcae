// Command shop takes orders.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/signal"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/admit-go/admit"
	"github.com/admit-go/admit/admitprom"
	"github.com/admit-go/admit/contract"
)

var (
	addr    = flag.String("addr", ":8080", "serve callers on `HOST:PORT`")
	opsAddr = flag.String("ops", "127.0.0.1:9464", "serve metrics and the health check on `HOST:PORT`")
	baseURL = flag.String("url", "http://localhost:8080", "publish `URL` as the address of the API")
	keyFile = flag.String("keys", "keys.json", "read keys from `FILE`")
	drain   = flag.Duration("drain", 5*time.Second, "fail the health check for `TIME` before the port closes")
)

// proxies are the networks of the load balancer. A program that connects from one of them, here any
// on this machine, may claim any client address. Without a load balancer, remove ClientIP below.
var proxies = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}

func main() {
	flag.Parse()
	logger := slog.New(slog.NewJSONHandler(os.Stdout, nil))
	slog.SetDefault(logger) // key files, caches and stores log there
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop) // a second signal ends the process at once
	if err := run(ctx, logger); err != nil {
		logger.Error("shop has failed", slog.Any("error", err))
		os.Exit(1)
	}
}

func run(ctx context.Context, logger *slog.Logger) error {
	keys, err := admit.OpenKeyFile(*keyFile)
	if err != nil {
		return err
	}
	defer keys.Close()
	metrics, err1 := admitprom.New(admitprom.Config{})
	inFlight, err2 := admit.NewInFlight(admit.InFlightConfig{Max: 2000, PerAddress: 200})
	if err := errors.Join(err1, err2); err != nil {
		return err
	}
	handler, _, err := newHandler(keys, inFlight, metrics, logger)
	if err != nil {
		return err
	}
	var stopping atomic.Bool
	ops := http.NewServeMux()
	ops.Handle("GET /metrics", promhttp.Handler())
	ops.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) {
		if stopping.Load() {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
	})

	public, private := newServer(*addr, handler, logger), newServer(*opsAddr, ops, logger)
	defer private.Close() // last, so that the health check and the metrics stay until then
	failed := make(chan error, 2)
	for _, server := range []*http.Server{public, private} {
		listener, err := net.Listen("tcp", server.Addr)
		if err != nil {
			return err
		}
		logger.Info("listening", slog.String("url", "http://"+listener.Addr().String()))
		go func() { failed <- server.Serve(listener) }()
	}
	select {
	case err := <-failed:
		return err
	case <-ctx.Done():
	}
	stopping.Store(true)
	time.Sleep(*drain) // requests still come until the load balancer has seen it
	finishing, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	err = public.Shutdown(finishing) // closes the port, and waits for responses
	if err != nil {
		err = errors.Join(fmt.Errorf("requests were cut: %w", err), public.Close())
	}
	// Shutdown waits neither for a handler that went on after its Timeout nor for a WebSocket.
	for inFlight.Stats().Running > 0 && finishing.Err() == nil {
		time.Sleep(10 * time.Millisecond)
	}
	return err
}

func newHandler(keys admit.KeyStore, inFlight *admit.InFlight, metrics *admitprom.Metrics, logger *slog.Logger) (http.Handler, *contract.API, error) {
	plans, err1 := admit.NewPlans(
		admit.Plan{Name: "free", Limits: []admit.Limit{admit.PerSecond(5), admit.PerMinute(100)}},
		admit.Plan{Name: "pro", Limits: []admit.Limit{admit.PerSecond(50)}},
	)
	auth, err2 := admit.NewAuth(admit.AuthConfig{
		Store:          keys,
		MintedPrefixes: []string{"shop"},
		Failures:       admit.PerMinute(30), // for keys in a database: a file needs none
	})
	limiter, err3 := admit.NewLimiter(admit.LimiterConfig{
		Name: "shop", Plans: plans, Limits: []admit.Limit{admit.PerSecond(1)}, Observe: metrics.ObserveLimit,
	})
	shedder, err4 := admit.NewShedder(admit.ShedderConfig{Max: 64, Plans: plans})
	if err := errors.Join(err1, err2, err3, err4); err != nil {
		return nil, nil, err
	}

	outer := admit.Policy{ // around every route
		ClientIP:    admit.ClientIP("X-Forwarded-For", proxies...),
		Errors:      &admit.ErrorWriter{Logger: logger},
		InFlight:    inFlight,
		BodyTimeout: admit.BodyTimeout{Grace: 5 * time.Second, Max: 30 * time.Second, MinRate: 1 << 10}, // bounds every body
		WriteStall:  10 * time.Second,
	}
	orders := admit.Policy{ // one such Policy, or a changed copy, around each route
		Methods:     []string{"POST"},
		Auth:        auth,
		Scopes:      []string{"orders:write"},
		Limiter:     limiter,
		ContentType: []string{"application/json"},
		MaxBody:     64 << 10,
		Shedder:     shedder,
		Timeout:     10 * time.Second,
	}
	api, err := contract.New(contract.Info{Title: "Shop", Version: "1.0", Servers: []string{*baseURL}}, outer)
	if err != nil {
		return nil, nil, err
	}
	mux := http.NewServeMux()
	mux.Handle("GET /{$}", api.Page())
	api.Handle(mux, "/v1/orders", orders, admit.HandlerFunc(createOrder), contract.Decodes()...)

	handler := admit.AccessLog(logger)(metrics.Wrap(api.Wrap(outer.Wrap(admit.Mux(mux)))))
	return handler, api, metrics.Watch("shop", limiter, inFlight, shedder)
}

func newServer(addr string, handler http.Handler, logger *slog.Logger) *http.Server {
	return &http.Server{
		Addr:              addr,
		Handler:           handler,
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       60 * time.Second, // longer than BodyTimeout.Max
		IdleTimeout:       120 * time.Second,
		MaxHeaderBytes:    16 << 10,
		ErrorLog:          slog.NewLogLogger(logger.Handler(), slog.LevelWarn),
	}
}

func createOrder(w http.ResponseWriter, r *http.Request) error {
	order, err := admit.Decode[struct{ Article string }](r)
	if err != nil {
		return err
	}
	return admit.Success(w, r, http.StatusCreated, order)
}
