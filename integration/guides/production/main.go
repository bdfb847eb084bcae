// Command shop takes orders.
package main

import (
	"context"
	"errors"
	"flag"
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
	keyFile = flag.String("keys", "keys.json", "read keys from `FILE`")
	drain   = flag.Duration("drain", 5*time.Second, "fail the health check for `TIME` before the port closes")
)

// proxies are the networks of the load balancer. Remove ClientIP below if clients connect directly.
var proxies = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}

func main() {
	flag.Parse()
	logger := slog.New(slog.NewJSONHandler(os.Stdout, nil))
	slog.SetDefault(logger) // key files, caches and stores log there
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
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
	metrics, err := admitprom.New(admitprom.Config{})
	if err != nil {
		return err
	}
	handler, _, err := newHandler(keys, metrics, logger)
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

	public, private := newServer(handler, logger), newServer(ops, logger)
	defer private.Close() // last, so that the health check and the metrics stay until then
	failed := make(chan error, 2)
	serve := func(name string, server *http.Server, addr string) error {
		listener, err := net.Listen("tcp", addr)
		if err != nil {
			return err
		}
		logger.Info("listening", slog.String("server", name), slog.String("url", "http://"+listener.Addr().String()))
		go func() { failed <- server.Serve(listener) }()
		return nil
	}
	if err := errors.Join(serve("public", public, *addr), serve("ops", private, *opsAddr)); err != nil {
		return err
	}
	select {
	case err := <-failed:
		return err
	case <-ctx.Done():
	}
	stopping.Store(true)
	time.Sleep(*drain) // until the load balancer has seen it
	within, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	return public.Shutdown(within)
}

func newHandler(keys admit.KeyStore, metrics *admitprom.Metrics, logger *slog.Logger) (http.Handler, *contract.API, error) {
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
	inFlight, err4 := admit.NewInFlight(admit.InFlightConfig{Max: 2000, PerAddress: 200})
	shedder, err5 := admit.NewShedder(admit.ShedderConfig{Max: 64, Plans: plans})
	if err := errors.Join(err1, err2, err3, err4, err5); err != nil {
		return nil, nil, err
	}

	outer := admit.Policy{ // around every route
		ClientIP:   admit.ClientIP("X-Forwarded-For", proxies...),
		Errors:     &admit.ErrorWriter{Logger: logger},
		InFlight:   inFlight,
		WriteStall: 10 * time.Second,
	}
	orders := admit.Policy{ // one such Policy, or a changed copy, around each route
		Methods:     []string{"POST"},
		Auth:        auth,
		Scopes:      []string{"orders:write"},
		Limiter:     limiter,
		ContentType: []string{"application/json"},
		MaxBody:     64 << 10,
		Shedder:     shedder,
		BodyTimeout: admit.BodyTimeout{Grace: 5 * time.Second, Max: 30 * time.Second, MinRate: 1 << 10},
		Timeout:     10 * time.Second,
	}
	api, err := contract.New(contract.Info{Title: "Shop", Version: "1.0"}, outer)
	if err != nil {
		return nil, nil, err
	}
	mux := http.NewServeMux()
	mux.Handle("GET /{$}", api.Page())
	api.Handle(mux, "/v1/orders", orders, admit.HandlerFunc(createOrder), contract.Decodes()...)

	handler := api.Wrap(outer.Wrap(admit.Mux(mux)))
	handler = admit.AccessLog(logger)(metrics.Wrap(handler))
	return handler, api, metrics.Watch("shop", limiter, inFlight, shedder)
}

func newServer(handler http.Handler, logger *slog.Logger) *http.Server {
	return &http.Server{
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
