package main

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/admit-go/admit"
	"github.com/admit-go/admit/admitprom"
)

// newLogger returns the log of the process, and of each request.
func newLogger(format string, w io.Writer) (*slog.Logger, error) {
	switch format {
	case "text":
		return slog.New(slog.NewTextHandler(w, nil)), nil
	case "json":
		return slog.New(slog.NewJSONHandler(w, nil)), nil
	}
	return nil, fmt.Errorf("-log is %q; it is text or json", format)
}

// metrics are served on a port of their own, which callers do not reach.
type metrics struct {
	*admitprom.Metrics
	server *http.Server
	url    string
}

func serveMetrics(addr string, logger *slog.Logger) (*metrics, error) {
	registry := prometheus.NewRegistry()
	registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	of, err := admitprom.New(admitprom.Config{Registerer: registry, Exemplar: traceOf})
	if err != nil {
		return nil, err
	}
	listener, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("%w; choose another address, such as -metrics 127.0.0.1:9465, or none with -metrics=", err)
	}
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(registry, promhttp.HandlerOpts{
		Registry: registry, EnableOpenMetrics: true, MaxRequestsInFlight: 4, Timeout: 5 * time.Second,
	}))
	m := &metrics{Metrics: of, url: urlOf(listener.Addr()) + "/metrics", server: &http.Server{
		Handler: mux, ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 10 * time.Second, WriteTimeout: 20 * time.Second,
		IdleTimeout: 2 * time.Minute, MaxHeaderBytes: 16 << 10, ErrorLog: slog.NewLogLogger(logger.Handler(), slog.LevelWarn),
	}}
	go func() {
		if err := m.server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
			logger.Error("example: metrics are not served any more", slog.Any("error", err))
		}
	}()
	return m, nil
}

// close ends it at once: who scrapes does so again elsewhere.
func (m *metrics) close() { _ = m.server.Close() }

// traceOf links a slow request to its trace, if a proxy or a client has said which it is part of
// (W3C Trace Context, version 00).
func traceOf(r *http.Request, _ admit.Outcome) prometheus.Labels {
	parent := r.Header.Get("Traceparent")
	if len(parent) != 55 || parent[:3] != "00-" || parent[35] != '-' {
		return nil
	}
	id := parent[3:35]
	for i := range len(id) {
		if c := id[i]; (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return nil
		}
	}
	return prometheus.Labels{"trace_id": id}
}
