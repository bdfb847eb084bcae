package metrics_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-chi/chi/v5"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/contrib/instrumentation/net/http/otelhttp"
	"go.opentelemetry.io/otel"
	sdk "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"

	"github.com/admit-go/admit"
	"github.com/admit-go/admit/admitprom"
	"github.com/admit-go/admit/integration/guides/metrics"
	"github.com/admit-go/admit/integration/internal/markdown"
	"github.com/admit-go/admit/integration/servers"
)

// blocks are those of the page that have a language.
func blocks(t *testing.T, lang string) []string {
	t.Helper()
	page, err := markdown.Read("../../../docs/metrics.md")
	require.NoError(t, err)
	var all []string
	for _, block := range page.Blocks {
		if block.Lang == lang {
			all = append(all, block.Text)
		}
	}
	require.NotEmpty(t, all)
	return all
}

type service struct {
	http.Handler
	scrape http.Handler
	log    *bytes.Buffer
}

func newService(t *testing.T) service {
	t.Helper()
	var log bytes.Buffer
	logger := slog.New(metrics.Traced{Handler: slog.NewJSONHandler(&log, nil)})
	store := admit.KeyMap{
		admit.DigestOf("pro"):  {ID: "k1", Owner: "ACME", Plan: "pro", Quotas: []admit.Quota{{Requests: 10, Every: admit.Month}}},
		admit.DigestOf("gone"): {ID: "k2", Owner: "ACME", Plan: "pro", RevokedAt: time.Unix(1, 0)},
	}
	handler, scrape, err := metrics.NewService(store, logger)
	require.NoError(t, err)
	return service{handler, scrape, &log}
}

func (s service) get(t *testing.T, path, key string) {
	t.Helper()
	r := httptest.NewRequestWithContext(t.Context(), "GET", path, nil)
	if key != "" {
		r.Header.Set("X-API-Key", key)
	}
	r.Header.Set("X-Request-Id", "r1")
	s.ServeHTTP(httptest.NewRecorder(), r)
}

func scraped(h http.Handler, accept string) string {
	w, r := httptest.NewRecorder(), httptest.NewRequest("GET", "/metrics", nil)
	r.Header.Set("Accept", accept)
	h.ServeHTTP(w, r)
	return w.Body.String()
}

// The lines of the page are those that are logged, but for what differs from run to run.
func TestLog(t *testing.T) {
	t.Parallel()
	s := newService(t)
	s.get(t, "/items/1?api_key=secret", "gone")
	s.get(t, "/items/0", "pro")
	assert.NotContains(t, s.log.String(), "secret")
	assert.NotContains(t, s.log.String(), "gone")
	changing := regexp.MustCompile(`"(time|http.server.request.duration)":[^,]+,`)
	clean := func(lines []string) []string {
		var all []string
		for _, line := range lines {
			var compact bytes.Buffer
			require.NoError(t, json.Compact(&compact, []byte(line)))
			all = append(all, changing.ReplaceAllString(compact.String(), ""))
		}
		return all
	}
	lines := strings.Split(strings.TrimSpace(s.log.String()), "\n")
	assert.Equal(t, clean(lines), clean(blocks(t, "json")))
}

// What the page shows of a scrape is there.
func TestScrape(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newService(t)
		for range 9 { // 80% of ten
			s.get(t, "/items/1", "pro")
		}
		s.get(t, "/items/1", "")
		s.get(t, "/items/1", "gone")
		time.Sleep(2 * time.Minute) // Notify is told in a goroutine
		scrape := scraped(s.scrape, "text/plain")
		for _, line := range strings.Split(strings.TrimSpace(blocks(t, "text")[0]), "\n") {
			assert.Contains(t, scrape, line+"\n")
		}
		assert.NotContains(t, scrape, "ACME")
		assert.NotContains(t, scrape, `"k1"`)
	})
}

// Within a trace, a line of the log and an exemplar have its id.
func TestTraces(t *testing.T) {
	t.Parallel()
	spans := tracetest.NewInMemoryExporter()
	s := newService(t)
	traced := otelhttp.NewHandler(s.Handler, "", otelhttp.WithTracerProvider(sdktrace.NewTracerProvider(sdktrace.WithSyncer(spans))))
	service{traced, s.scrape, s.log}.get(t, "/items/0", "pro")
	require.Len(t, spans.GetSpans(), 1)
	id := spans.GetSpans()[0].SpanContext.TraceID().String()
	lines := strings.Split(strings.TrimSpace(s.log.String()), "\n")
	require.Len(t, lines, 2)
	for _, line := range lines {
		assert.Contains(t, line, `"trace_id":"`+id+`"`)
	}
	assert.Contains(t, scraped(s.scrape, "application/openmetrics-text"), `# {trace_id="`+id+`"}`)
}

func TestTracedKeepsAttributes(t *testing.T) {
	t.Parallel()
	var log bytes.Buffer
	logger := slog.New(metrics.Traced{Handler: slog.NewTextHandler(&log, nil)})
	logger.With("a", 1).WithGroup("g").InfoContext(context.Background(), "m", "b", 2)
	assert.Contains(t, log.String(), "a=1 g.b=2")
}

// What waited for a place is not slow.
func TestSlowRequests(t *testing.T) {
	t.Parallel()
	var log bytes.Buffer
	observe := metrics.SlowRequests(slog.New(slog.NewTextHandler(&log, nil)), time.Second)
	r := httptest.NewRequest("GET", "/items/1", nil)
	observe(r, admit.Outcome{Duration: 3 * time.Second, Waited: 2 * time.Second})
	assert.Empty(t, log.String())
	observe(r, admit.Outcome{Route: "GET /items/{id}", Duration: 3 * time.Second, Waited: time.Second})
	assert.Contains(t, log.String(), "worked=2s")
}

// Policy.Observe, a Wrap of admitprom and an AccessLog report beside one another; of two
// functions for Observe the outer one is told.
func TestWhoReports(t *testing.T) {
	t.Parallel()
	var told []string
	observe := func(name string) func(*http.Request, admit.Outcome) {
		return func(*http.Request, admit.Outcome) { told = append(told, name) }
	}
	inner := admit.Policy{Observe: observe("inner")}.Wrap(http.NotFoundHandler())
	s := admit.Policy{Observe: observe("outer")}.Wrap(admit.ObserveAs("package", observe("package"))(inner))
	s.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("GET", "/", nil))
	assert.ElementsMatch(t, []string{"package", "outer"}, told)
}

// A route of chi is known with its middleware, and not without it.
func TestRoutes(t *testing.T) {
	t.Parallel()
	for _, with := range []bool{false, true} {
		router := chi.NewRouter()
		if with {
			router.Use(metrics.Routes)
		}
		router.Get("/items/{id}", func(http.ResponseWriter, *http.Request) {})
		route := "none"
		h := admit.Observe(func(_ *http.Request, o admit.Outcome) { route = o.Route })(router)
		h.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("GET", "/items/7", nil))
		assert.Equal(t, map[bool]string{false: "", true: "/items/{id}"}[with], route)
	}
}

func TestOpenTelemetry(t *testing.T) { // not parallel: it sets the global providers
	reader, spans := sdk.NewManualReader(), tracetest.NewInMemoryExporter()
	otel.SetMeterProvider(sdk.NewMeterProvider(sdk.WithReader(reader)))
	otel.SetTracerProvider(sdktrace.NewTracerProvider(sdktrace.WithSyncer(spans)))
	limiter, err1 := admit.NewLimiter(admit.LimiterConfig{Limits: []admit.Limit{admit.PerMinute(1)}})
	mux := http.NewServeMux()
	mux.Handle("GET /items/{id}", limiter.Wrap(http.NotFoundHandler()))
	h, err2 := metrics.WithOpenTelemetry(limiter, admit.Mux(mux))
	require.NoError(t, errors.Join(err1, err2))
	for range 2 {
		h.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("GET", "/items/7", nil))
	}
	require.Len(t, spans.GetSpans(), 2)
	assert.Equal(t, "GET /items/{id}", spans.GetSpans()[1].Name)
	var found metricdata.ResourceMetrics
	require.NoError(t, reader.Collect(t.Context(), &found))
	names := map[string]int{}
	for _, scope := range found.ScopeMetrics {
		for _, m := range scope.Metrics {
			names[m.Name]++
		}
	}
	assert.Equal(t, 1, names["http.server.request.duration"])
	assert.Equal(t, 1, names["admit.limiter.callers"])
}

// Prometheus understands the expressions of the page, which ask for metrics that a service has.
func TestExpressions(t *testing.T) {
	t.Parallel()
	var rules strings.Builder
	rules.WriteString("groups:\n- name: guide\n  rules:\n")
	expressions := blocks(t, "promql")[0]
	for line := range strings.Lines(expressions) {
		if !strings.HasPrefix(line, "#") {
			rules.WriteString("  - alert: Guide" + strconv.Itoa(rules.Len()) + "\n    expr: " + strconv.Quote(strings.TrimSpace(line)) + "\n")
		}
	}
	file := filepath.Join(t.TempDir(), "rules.yml")
	require.NoError(t, os.WriteFile(file, []byte(rules.String()), 0o600))
	out, err := exec.CommandContext(t.Context(), servers.Program(t, "promtool"), "check", "rules", file).CombinedOutput()
	require.NoError(t, err, "%s", out)

	s := newService(t)
	s.get(t, "/items/1", "pro")
	s.get(t, "/items/1", "gone")
	scrape := scraped(s.scrape, "text/plain")
	for _, name := range []string{"http_server_request_duration_seconds_count", "admit_key_refusals_total", "admit_limit_usage_bucket"} {
		assert.Contains(t, scrape, "\n"+name+"{")
		assert.Contains(t, expressions, name)
	}
	for _, name := range []string{"admit_limiter_store_down", "admit_quotas_store_down"} {
		assert.Contains(t, scrape, "\n"+name+"{")
	}
}

// The last request that a limit admits and one that it rejects both use all of it.
func TestLimitUsage(t *testing.T) {
	t.Parallel()
	registry := prometheus.NewRegistry()
	prom, err := admitprom.New(admitprom.Config{Registerer: registry})
	require.NoError(t, err)
	limiter, err := admit.NewLimiter(admit.LimiterConfig{Name: "api", Limits: []admit.Limit{admit.PerHour(4)}, Observe: prom.ObserveLimit})
	require.NoError(t, err)
	h := prom.Wrap(limiter.Wrap(http.NotFoundHandler()))
	for range 6 {
		h.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("GET", "/", nil))
	}
	scrape := scraped(promhttp.HandlerFor(registry, promhttp.HandlerOpts{}), "text/plain")
	assert.Contains(t, scrape, `admit_limit_usage_bucket{admit_limit="hour",admit_limiter="api",admit_plan="",le="0.95"} 3`)
	assert.Contains(t, scrape, `admit_limit_usage_count{admit_limit="hour",admit_limiter="api",admit_plan=""} 6`)
	assert.Regexp(t, `http_server_request_duration_seconds_count\{admit_plan="",error_type="rate_limited",[^}]*\} 2`, scrape)
}
