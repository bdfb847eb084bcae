package main

import (
	"log"
	"net/http"

	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/admit-go/admit"
	"github.com/admit-go/admit/admitprom"
)

func main() {
	metrics, err := admitprom.New(admitprom.Config{}) // in prometheus.DefaultRegisterer
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
	go func() { log.Fatal(http.ListenAndServe("127.0.0.1:9464", promhttp.Handler())) }() // not for clients
	log.Fatal(http.ListenAndServe("127.0.0.1:8080", metrics.Wrap(admit.Mux(mux))))
}
