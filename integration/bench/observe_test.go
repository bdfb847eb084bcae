package main

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/go-chi/httplog/v3"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"go.opentelemetry.io/contrib/instrumentation/net/http/otelhttp"
	"go.opentelemetry.io/otel/attribute"
	sdk "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
	tracenoop "go.opentelemetry.io/otel/trace/noop"

	"github.com/admit-go/admit"
	"github.com/admit-go/admit/admitotel"
	"github.com/admit-go/admit/admitprom"
)

// BenchmarkObserve has a request that a mux answers, and somebody who measures it or writes a
// line about it. In "floor" nobody does. "admit" is admitprom or AccessLog, "admit.otel" is
// admitotel, and "admit.alone" an Observe that does nothing.
func BenchmarkObserve(b *testing.B) { compare(b, observers()) }

// observer stands around a handler, and has told something of its requests.
type observer struct {
	around func(http.Handler) http.Handler
	told   func() string
}

func observers() []contest {
	return []contest{
		{"case=metrics", []entry{
			observed("floor", unobserved),
			observed("admit", ofAdmitprom),
			observed("admit.otel", ofAdmitotel),
			observed("admit.alone", alone),
			observed("promhttp", ofPromhttp),
			observed("otelhttp", ofOtelhttp),
		}},
		{"case=log", []entry{
			observed("floor", unobserved),
			observed("admit", logged(admit.AccessLog)),
			observed("by-hand", logged(lineByHand)),
			observed("httplog", logged(func(l *slog.Logger) admit.Middleware {
				return httplog.RequestLogger(l, &httplog.Options{Schema: httplog.SchemaOTEL})
			})),
		}},
	}
}

func observed(lib string, made func(io.Writer) observer) entry {
	const pattern = "GET /pairs/{id}"
	ask := func() *http.Request { return newRequest("GET", "/pairs/btc-usd?key=secret") }
	serve := func(o observer, h http.Handler) http.Handler {
		mux := http.NewServeMux()
		mux.Handle(pattern, h)
		return o.around(mux)
	}
	return entry{lib, func(v *verdict) {
		var lines bytes.Buffer
		o := made(&lines)
		h := serve(o, admit.HandlerFunc(func(http.ResponseWriter, *http.Request) error { return admit.NewError(http.StatusConflict, "") }))
		v.ask(h, ask(), 409, "a request")
		if o.told == nil {
			return
		}
		told := o.told() + lines.String()
		for _, is := range []struct{ what, text string }{{"method", "GET"}, {"status", "409"}, {"route", "/pairs/{id}"}, {"code of the error", "conflict"}} {
			if !strings.Contains(told, is.text) && !strings.Contains(told, strings.ToLower(is.text)) {
				v.note("does not tell the %s", is.what)
			}
		}
		if strings.Contains(told, "secret") {
			v.note("tells the query, which may hold a key")
		}
	}, func(b *testing.B) { serially(serve(made(io.Discard), nothing), ask, 200)(b) }}
}

func newRequest(method, target string) *http.Request {
	r := requests(method, "", "User-Agent", "benchmark", "X-Forwarded-For", "198.51.100.7")()
	r.URL = must(r.URL.Parse(target))
	return r
}

func unobserved(io.Writer) observer {
	return observer{around: func(next http.Handler) http.Handler { return next }}
}

func alone(io.Writer) observer {
	return observer{around: admit.Observe(func(*http.Request, admit.Outcome) {})}
}

func ofAdmitprom(io.Writer) observer {
	registry := prometheus.NewRegistry()
	m := must(admitprom.New(admitprom.Config{Registerer: registry}))
	return observer{m.Wrap, func() string { return gathered(registry) }}
}

func ofPromhttp(io.Writer) observer {
	registry := prometheus.NewRegistry()
	durations := prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "http_server_request_duration_seconds"}, []string{"method", "code"})
	registry.MustRegister(durations)
	return observer{func(next http.Handler) http.Handler { return promhttp.InstrumentHandlerDuration(durations, next) }, func() string { return gathered(registry) }}
}

// gathered are the labels of a registry.
func gathered(registry *prometheus.Registry) string {
	var b strings.Builder
	for _, f := range must(registry.Gather()) {
		for _, m := range f.GetMetric() {
			for _, l := range m.GetLabel() {
				b.WriteString(l.GetName() + "=" + l.GetValue() + "\n")
			}
		}
	}
	return b.String()
}

func ofAdmitotel(io.Writer) observer {
	meters, told := reader()
	return observer{must(admitotel.New(admitotel.Config{MeterProvider: meters})).Wrap, told}
}

func ofOtelhttp(io.Writer) observer {
	meters, told := reader()
	return observer{otelhttp.NewMiddleware("", otelhttp.WithMeterProvider(meters), otelhttp.WithTracerProvider(tracenoop.NewTracerProvider())), told}
}

// reader returns a provider, and what it has measured by which attributes.
func reader() (meters *sdk.MeterProvider, told func() string) {
	manual := sdk.NewManualReader()
	return sdk.NewMeterProvider(sdk.WithReader(manual)), func() string {
		var found metricdata.ResourceMetrics
		if err := manual.Collect(context.Background(), &found); err != nil {
			panic(err)
		}
		var b strings.Builder
		for _, scope := range found.ScopeMetrics {
			for _, m := range scope.Metrics {
				if h, ok := m.Data.(metricdata.Histogram[float64]); ok {
					for _, p := range h.DataPoints {
						b.WriteString(p.Attributes.Encoded(attribute.DefaultEncoder()) + "\n")
					}
				}
			}
		}
		return b.String()
	}
}

// logged writes lines in JSON.
func logged(wrap func(*slog.Logger) admit.Middleware) func(io.Writer) observer {
	return func(w io.Writer) observer {
		return observer{wrap(slog.New(slog.NewJSONHandler(w, nil))), func() string { return "" }}
	}
}

// lineByHand is the least that one writes, without what only a writer of one's own can know.
func lineByHand(l *slog.Logger) admit.Middleware {
	return func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			began := time.Now()
			next.ServeHTTP(w, r)
			l.LogAttrs(r.Context(), slog.LevelInfo, "request", slog.String("method", r.Method), slog.String("path", r.URL.Path), slog.String("route", r.Pattern),
				slog.String("client", r.RemoteAddr), slog.String("agent", r.UserAgent()), slog.Float64("duration", time.Since(began).Seconds()))
		})
	}
}
