package admitotel_test

import (
	"context"
	"fmt"
	"log"
	"net/http"
	"net/http/httptest"

	sdk "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"

	"github.com/admit-go/admit"
	"github.com/admit-go/admit/admitotel"
)

// A service measures its requests, and how full it is. With otelhttp, put its handler
// around Wrap.
func Example() {
	reader := sdk.NewManualReader() // in a service: sdk.NewPeriodicReader, or the reader of an exporter
	metrics, err := admitotel.New(admitotel.Config{MeterProvider: sdk.NewMeterProvider(sdk.WithReader(reader))})
	if err != nil {
		log.Fatal(err)
	}
	limiter, err := admit.NewLimiter(admit.LimiterConfig{
		Name: "api", Limits: []admit.Limit{admit.PerMinute(2)}, Observe: metrics.ObserveLimit,
	})
	if err != nil {
		log.Fatal(err)
	}
	if err := metrics.Watch("api", limiter); err != nil {
		log.Fatal(err)
	}

	mux := http.NewServeMux()
	mux.Handle("GET /pairs/{id}", admit.Policy{Limiter: limiter}.Wrap(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})))
	handler := metrics.Wrap(admit.Mux(mux))
	for range 3 {
		handler.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("GET", "/pairs/btc-usd", nil))
	}

	var found metricdata.ResourceMetrics
	if err := reader.Collect(context.Background(), &found); err != nil {
		log.Fatal(err)
	}
	for _, m := range found.ScopeMetrics[0].Metrics {
		if h, ok := m.Data.(metricdata.Histogram[float64]); ok && m.Name == "http.server.request.duration" {
			for _, p := range h.DataPoints {
				status, _ := p.Attributes.Value("http.response.status_code")
				route, _ := p.Attributes.Value("http.route")
				fmt.Println(m.Name, status.AsInt64(), route.AsString(), p.Count)
			}
		}
	}
	// Unordered output:
	// http.server.request.duration 200 /pairs/{id} 2
	// http.server.request.duration 429 /pairs/{id} 1
}

// Inside otelhttp, which measures the duration of requests itself. The MeterProvider is the
// global one, which the service may set later.
func ExampleNew() {
	metrics, err := admitotel.New(admitotel.Config{NoDuration: true})
	if err != nil {
		log.Fatal(err)
	}
	handler := metrics.Wrap(admit.Mux(http.NewServeMux()))
	// handler = otelhttp.NewHandler(handler, "")
	w := httptest.NewRecorder()
	handler.ServeHTTP(w, httptest.NewRequest("GET", "/", nil))
	fmt.Println(w.Code)
	// Output: 404
}
