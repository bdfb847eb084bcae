package metrics

import (
	"net/http"

	"go.opentelemetry.io/contrib/instrumentation/net/http/otelhttp"

	"github.com/admit-go/admit"
	"github.com/admit-go/admit/admitotel"
)

// WithOpenTelemetry measures and traces a handler by the global providers.
func WithOpenTelemetry(limiter *admit.Limiter, handler http.Handler) (http.Handler, error) {
	metrics, err := admitotel.New(admitotel.Config{NoDuration: true}) // otelhttp measures that
	if err != nil {
		return nil, err
	}
	if err := metrics.Watch("api", limiter); err != nil {
		return nil, err
	}
	return otelhttp.NewHandler(metrics.Wrap(handler), ""), nil
}
