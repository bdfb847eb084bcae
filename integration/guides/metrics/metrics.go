// Package metrics has the code of docs/metrics.md.
package metrics

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"go.opentelemetry.io/otel/trace"

	"github.com/admit-go/admit"
	"github.com/admit-go/admit/admitprom"
)

// NewService returns a service that is measured, and the handler of its metrics, which is
// served on a port of its own.
func NewService(keys admit.KeyStore, logger *slog.Logger) (service, scrape http.Handler, err error) {
	registry := prometheus.NewRegistry()
	registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	metrics, err := admitprom.New(admitprom.Config{Registerer: registry, Exemplar: traceID})
	if err != nil {
		return nil, nil, err
	}

	plans, err1 := admit.NewPlans(admit.Plan{
		Name:   "pro",
		Limits: []admit.Limit{admit.PerMinute(100)},
		Quotas: []admit.Quota{{Requests: 10_000, Every: admit.Month}},
	})
	auth, err2 := admit.NewAuth(admit.AuthConfig{Store: keys})
	limiter, err3 := admit.NewLimiter(admit.LimiterConfig{
		Name:    "api",
		Plans:   plans,
		Limits:  []admit.Limit{admit.PerMinute(10)},
		Observe: metrics.ObserveLimit, // how full limits are
	})
	quotas, err4 := admit.NewQuotas(admit.QuotasConfig{
		Plans:  plans,
		Store:  admit.NewMemoryQuotaStore(),
		Notify: metrics.NotifyQuota, // 80% and 100% of a quota
	})
	shedder, err5 := admit.NewShedder(admit.ShedderConfig{Max: 64, Plans: plans})
	if err := errors.Join(err1, err2, err3, err4, err5); err != nil {
		return nil, nil, err
	}
	if err := metrics.Watch("api", limiter, quotas, shedder); err != nil {
		return nil, nil, err
	}

	keyed := admit.Policy{Auth: auth, Limiter: limiter, Quotas: quotas, Shedder: shedder}
	mux := http.NewServeMux()
	mux.Handle("GET /items/{id}", keyed.Wrap(admit.HandlerFunc(getItem)))
	outer := admit.Policy{Errors: &admit.ErrorWriter{Logger: logger}, Observe: SlowRequests(logger, time.Second)}
	handler := outer.Wrap(admit.Mux(mux))
	handler = admit.AccessLog(logger)(metrics.Wrap(handler)) // outermost, so that no request is missed
	return handler, promhttp.HandlerFor(registry, promhttp.HandlerOpts{EnableOpenMetrics: true}), nil
}

func getItem(w http.ResponseWriter, r *http.Request) error {
	if r.PathValue("id") == "0" {
		return errors.New("the database does not answer")
	}
	return admit.Success(w, r, http.StatusOK, r.PathValue("id"))
}

// SlowRequests logs requests whose handler takes longer than most.
func SlowRequests(logger *slog.Logger, most time.Duration) func(*http.Request, admit.Outcome) {
	return func(r *http.Request, o admit.Outcome) {
		if worked := o.Duration - o.Waited; worked > most {
			logger.WarnContext(r.Context(), "slow request", slog.String("route", o.Route), slog.Duration("worked", worked))
		}
	}
}

// traceID links a bar of a histogram to a trace.
func traceID(r *http.Request, _ admit.Outcome) prometheus.Labels {
	if span := trace.SpanContextFromContext(r.Context()); span.IsSampled() {
		return prometheus.Labels{"trace_id": span.TraceID().String()}
	}
	return nil
}

// Traced adds the id of the trace to each line that is logged with the context of a request.
type Traced struct{ slog.Handler }

func (h Traced) Handle(ctx context.Context, r slog.Record) error {
	if span := trace.SpanContextFromContext(ctx); span.IsValid() {
		r.AddAttrs(slog.String("trace_id", span.TraceID().String()))
	}
	return h.Handler.Handle(ctx, r)
}

func (h Traced) WithAttrs(attrs []slog.Attr) slog.Handler { return Traced{h.Handler.WithAttrs(attrs)} }

func (h Traced) WithGroup(name string) slog.Handler { return Traced{h.Handler.WithGroup(name)} }
