package admitprom_test

import (
	"fmt"
	"log"
	"net/http"
	"net/http/httptest"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/admit-go/admit"
	"github.com/admit-go/admit/admitprom"
)

// A service exports its requests, and how full it is.
func Example() {
	registry := prometheus.NewRegistry() // without a Registerer below: the one of promhttp.Handler
	metrics, err := admitprom.New(admitprom.Config{Registerer: registry})
	if err != nil {
		log.Fatal(err)
	}
	limiter, err := admit.NewLimiter(admit.LimiterConfig{
		Name: "api", Limits: []admit.Limit{admit.PerMinute(2)}, Observe: metrics.ObserveLimit,
	})
	if err != nil {
		log.Fatal(err)
	}
	inFlight, err := admit.NewInFlight(admit.InFlightConfig{Max: 100})
	if err != nil {
		log.Fatal(err)
	}
	if err := metrics.Watch("api", limiter, inFlight); err != nil {
		log.Fatal(err)
	}

	mux := http.NewServeMux()
	policy := admit.Policy{InFlight: inFlight, Limiter: limiter}
	mux.Handle("GET /pairs/{id}", policy.Wrap(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})))
	handler := metrics.Wrap(admit.Mux(mux)) // outermost, so that no request is missed

	for range 3 {
		handler.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("GET", "/pairs/btc-usd", nil))
	}
	families, err := registry.Gather()
	if err != nil {
		log.Fatal(err)
	}
	for _, family := range families {
		for _, m := range family.GetMetric() {
			if family.GetName() == "http_server_request_duration_seconds" {
				for _, l := range m.GetLabel() {
					fmt.Printf("%s=%q ", l.GetName(), l.GetValue())
				}
				fmt.Println(m.GetHistogram().GetSampleCount())
			}
		}
	}
	series, err := testutil.GatherAndCount(registry, "admit_inflight_running", "admit_limit_usage")
	fmt.Println(series, err)
	// Output:
	// admit_plan="" error_type="" http_request_method="GET" http_response_status_code="200" http_route="/pairs/{id}" url_scheme="http" 2
	// admit_plan="" error_type="rate_limited" http_request_method="GET" http_response_status_code="429" http_route="/pairs/{id}" url_scheme="http" 1
	// 2 <nil>
}

// An exemplar links a point of a dashboard to a trace. The id must come from the tracer,
// which has checked it.
func ExampleConfig_exemplar() {
	traceID := func(*http.Request) string { return "4bf92f3577b34da6a3ce929d0e0e4736" } // such as trace.SpanContextFromContext
	_, err := admitprom.New(admitprom.Config{
		Registerer: prometheus.NewRegistry(),
		Exemplar: func(r *http.Request, _ admit.Outcome) prometheus.Labels {
			if id := traceID(r); id != "" {
				return prometheus.Labels{"trace_id": id}
			}
			return nil
		},
	})
	fmt.Println(err)
	// Output: <nil>
}

// Parts of the same kind need different names.
func ExampleMetrics_Watch() {
	registry := prometheus.NewRegistry()
	metrics, err := admitprom.New(admitprom.Config{Registerer: registry})
	if err != nil {
		log.Fatal(err)
	}
	for _, name := range []string{"api", "admin"} {
		places, err := admit.NewInFlight(admit.InFlightConfig{Max: 100})
		if err != nil {
			log.Fatal(err)
		}
		if err := metrics.Watch(name, places); err != nil {
			log.Fatal(err)
		}
	}
	series, err := testutil.GatherAndCount(registry, "admit_inflight_running")
	fmt.Println(series, err)
	// Output: 2 <nil>
}
