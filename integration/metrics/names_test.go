// Package metrics holds admitprom and admitotel against each other, and against otelhttp.
package metrics_test

import (
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	exporter "go.opentelemetry.io/otel/exporters/prometheus"
	sdk "go.opentelemetry.io/otel/sdk/metric"

	"github.com/admit-go/admit"
	"github.com/admit-go/admit/admitotel"
	"github.com/admit-go/admit/admitprom"
)

// family is what a dashboard sees of a metric.
type family struct {
	kind, help string
	series     map[string]any // by labels
}

// families are those of a registry, without what only OpenTelemetry has, and without labels
// that are empty: to Prometheus they are the same as none.
func families(t *testing.T, registry *prometheus.Registry) map[string]family {
	t.Helper()
	gathered, err := registry.Gather()
	require.NoError(t, err)
	all := map[string]family{}
	for _, f := range gathered {
		if f.GetName() == "target_info" {
			continue
		}
		series := map[string]any{}
		for _, m := range f.GetMetric() {
			var labels []string
			for _, l := range m.GetLabel() {
				if l.GetValue() != "" && !strings.HasPrefix(l.GetName(), "otel_scope_") {
					labels = append(labels, l.GetName()+"="+l.GetValue())
				}
			}
			series[strings.Join(labels, ",")] = value(m)
		}
		assert.Len(t, series, len(f.GetMetric()), f.GetName())
		all[f.GetName()] = family{f.GetType().String(), f.GetHelp(), series}
	}
	return all
}

// value is that of a series.
func value(m *dto.Metric) any {
	switch {
	case m.GetCounter() != nil:
		return m.GetCounter().GetValue()
	case m.GetGauge() != nil:
		return m.GetGauge().GetValue()
	}
	buckets := map[float64]uint64{}
	for _, b := range m.GetHistogram().GetBucket() {
		buckets[b.GetUpperBound()] = b.GetCumulativeCount()
	}
	return []any{m.GetHistogram().GetSampleCount(), m.GetHistogram().GetSampleSum(), buckets}
}

// One dashboard fits both: the names, labels and values are the same for the same requests.
func TestNamesAreThoseOfTheExporter(t *testing.T) {
	t.Parallel()
	ofProm, ofOTel := prometheus.NewRegistry(), prometheus.NewRegistry()
	counts, err := admitprom.New(admitprom.Config{Registerer: ofProm})
	require.NoError(t, err)
	reader, err := exporter.New(exporter.WithRegisterer(ofOTel))
	require.NoError(t, err)
	measures, err := admitotel.New(admitotel.Config{MeterProvider: sdk.NewMeterProvider(sdk.WithReader(reader))})
	require.NoError(t, err)

	observe := func(r *http.Request, o admit.Outcome) {
		counts.Observe(r, o)
		measures.Observe(r, o)
	}
	h := service(t, observe, func(r *http.Request, e admit.LimitEvent) {
		counts.ObserveLimit(r, e)
		measures.ObserveLimit(r, e)
	}, counts.Watch, measures.Watch)
	for _, target := range []string{"/pairs/a", "/pairs/b", "/pairs/broken", "/pairs/a", "/none", "/pairs/a"} {
		for _, key := range []string{"", "Bearer " + h.token, "Bearer " + h.revoked, "Bearer none"} {
			r := httptest.NewRequest("GET", target, nil)
			r.Header.Set("Authorization", key)
			h.ServeHTTP(httptest.NewRecorder(), r)
		}
	}
	for _, o := range []admit.Outcome{
		{Status: 200, Duration: 20 * time.Second, Waited: 30 * time.Millisecond, Plan: "pro", Route: "POST host/pairs"},
		{Status: 500, Route: "/x\xff", Code: "x\xff", Plan: "x\xff"},
		{Status: 401, KeyStatus: admit.KeyEarly, Duration: 5 * time.Millisecond, Waited: 5 * time.Millisecond},
	} {
		observe(httptest.NewRequest("MADE-UP", "/", nil), o)
	}
	for _, percent := range []int{80, 100} {
		counts.NotifyQuota(admit.QuotaNotice{Quota: "month", Percent: percent})
		measures.NotifyQuota(admit.QuotaNotice{Quota: "month", Percent: percent})
	}

	want, got := families(t, ofProm), families(t, ofOTel)
	assert.Equal(t, want, got)
	for _, name := range []string{
		"http_server_request_duration_seconds", "admit_wait_duration_seconds", "admit_key_refusals_total", "admit_limit_usage", "admit_quota_notices_total",
		"admit_inflight_running", "admit_shedder_admitted_total", "admit_limiter_callers", "admit_keycache_lookups_total", "admit_quotas_store_down", "admit_memorystore_callers",
	} {
		assert.NotEmpty(t, want[name].series, name)
	}
}

var silent = &admit.ErrorWriter{Logger: slog.New(slog.DiscardHandler)}

type watch func(name string, parts ...interface{ Measures() []admit.Measure }) error

type served struct {
	http.Handler
	token, revoked string
}

// service has all parts that are measured.
func service(t *testing.T, observe func(*http.Request, admit.Outcome), observeLimit func(*http.Request, admit.LimitEvent), watches ...watch) served {
	t.Helper()
	var s served
	var good, gone admit.Digest
	s.token, good, _ = admit.Mint("test")
	s.revoked, gone, _ = admit.Mint("test")
	plans, err := admit.NewPlans(admit.Plan{Name: "pro", Quotas: []admit.Quota{{Requests: 1000, Every: admit.Month}}})
	require.NoError(t, err)
	store := admit.KeyMap{good: {ID: "id-1", Owner: "owner-1", Plan: "pro"}, gone: {ID: "id-2", Plan: "pro", RevokedAt: time.Unix(1, 0)}}
	cache, err1 := admit.NewKeyCache(store, admit.KeyCacheConfig{TTL: time.Hour})
	auth, err2 := admit.NewAuth(admit.AuthConfig{Store: cache})
	inFlight, err3 := admit.NewInFlight(admit.InFlightConfig{Max: 10})
	shedder, err4 := admit.NewShedder(admit.ShedderConfig{Max: 10})
	memory, err5 := admit.NewMemoryStore(admit.MemoryStoreConfig{})
	limiter, err6 := admit.NewLimiter(admit.LimiterConfig{Name: "api", Limits: []admit.Limit{{Name: "few", Requests: 3, Per: 24 * time.Hour}, admit.PerDay(1000)}, Observe: observeLimit})
	quotas, err7 := admit.NewQuotas(admit.QuotasConfig{Plans: plans, Store: admit.NewMemoryQuotaStore()})
	require.NoError(t, errors.Join(err1, err2, err3, err4, err5, err6, err7))
	for _, w := range watches {
		require.NoError(t, w("api", inFlight, shedder, cache, limiter, quotas))
		require.NoError(t, w("shared", memory))
	}
	mux := http.NewServeMux()
	policy := admit.Policy{Auth: auth, InFlight: inFlight, Shedder: shedder, Limiter: limiter, Quotas: quotas, Errors: silent}
	mux.Handle("GET /pairs/{id}", policy.Wrap(admit.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) error {
		if r.PathValue("id") == "broken" {
			return admit.NewError(http.StatusBadGateway, "upstream")
		}
		return nil
	})))
	s.Handler = admit.Observe(observe)(admit.Mux(mux))
	return s
}

// Both modules have a copy of the same file: they are published apart, and neither may depend
// on what is internal to another.
func TestSeriesAreTheSame(t *testing.T) {
	t.Parallel()
	ofProm, err := os.ReadFile("../../admitprom/series.go")
	require.NoError(t, err)
	ofOTel, err := os.ReadFile("../../admitotel/series.go")
	require.NoError(t, err)
	assert.Equal(t, string(ofProm), strings.Replace(string(ofOTel), "package admitotel", "package admitprom", 1))
}
