package main

import (
	"context"
	"log"
	"net/http"

	"go.opentelemetry.io/contrib/instrumentation/net/http/otelhttp"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/exporters/stdout/stdoutmetric" // in a service: otlpmetrichttp
	"go.opentelemetry.io/otel/exporters/stdout/stdouttrace"  // otlptracehttp
	"go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/trace"

	"github.com/admit-go/admit"
	"github.com/admit-go/admit/admitotel"
)

func main() {
	spans, err := stdouttrace.New()
	if err != nil {
		log.Fatal(err)
	}
	measures, err := stdoutmetric.New()
	if err != nil {
		log.Fatal(err)
	}
	traces := trace.NewTracerProvider(trace.WithBatcher(spans))
	defer func() { _ = traces.Shutdown(context.Background()) }()
	meters := metric.NewMeterProvider(metric.WithReader(metric.NewPeriodicReader(measures)))
	defer func() { _ = meters.Shutdown(context.Background()) }()
	otel.SetTracerProvider(traces)
	otel.SetMeterProvider(meters)

	metrics, err := admitotel.New(admitotel.Config{NoDuration: true}) // otelhttp measures the duration
	if err != nil {
		log.Fatal(err)
	}
	limiter, err := admit.NewLimiter(admit.LimiterConfig{
		Name: "api", Limits: []admit.Limit{admit.PerMinute(100)}, Observe: metrics.ObserveLimit,
	})
	if err != nil {
		log.Fatal(err)
	}
	if err := metrics.Watch("api", limiter); err != nil { // and every other part with a method Measures
		log.Fatal(err)
	}

	mux := http.NewServeMux()
	mux.Handle("GET /hello", admit.Policy{Limiter: limiter}.Wrap(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = w.Write([]byte("hello\n"))
	})))
	handler := otelhttp.NewHandler(metrics.Wrap(admit.Mux(mux)), "") // outside, so that there is a span
	log.Println(http.ListenAndServe("127.0.0.1:8080", handler))
}
