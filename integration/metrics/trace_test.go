package metrics_test

import (
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/contrib/instrumentation/net/http/otelhttp"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	sdk "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"

	"github.com/admit-go/admit"
	"github.com/admit-go/admit/admitotel"
)

// telemetry is all that OpenTelemetry gets.
type telemetry struct {
	spans  *tracetest.InMemoryExporter
	traces *sdktrace.TracerProvider
	reader *sdk.ManualReader
	meters *sdk.MeterProvider
}

func newTelemetry() telemetry {
	spans, reader := tracetest.NewInMemoryExporter(), sdk.NewManualReader()
	return telemetry{spans, sdktrace.NewTracerProvider(sdktrace.WithSyncer(spans)), reader, sdk.NewMeterProvider(sdk.WithReader(reader))}
}

// around puts otelhttp around h.
func (o telemetry) around(h http.Handler) http.Handler {
	return otelhttp.NewHandler(h, "", otelhttp.WithTracerProvider(o.traces), otelhttp.WithMeterProvider(o.meters))
}

// durations are the attributes of http.server.request.duration, by who has measured it.
func (o telemetry) durations(t *testing.T) map[string]attribute.Set {
	t.Helper()
	var found metricdata.ResourceMetrics
	require.NoError(t, o.reader.Collect(t.Context(), &found))
	all := map[string]attribute.Set{}
	for _, scope := range found.ScopeMetrics {
		for _, m := range scope.Metrics {
			if m.Name == "http.server.request.duration" {
				points := m.Data.(metricdata.Histogram[float64]).DataPoints
				require.Len(t, points, 1)
				all[scope.Scope.Name[strings.LastIndexByte(scope.Scope.Name, '/')+1:]] = points[0].Attributes
			}
		}
	}
	return all
}

// What a trace says of each request, through otelhttp and over a socket.
func TestTraces(t *testing.T) {
	t.Parallel()
	o := newTelemetry()
	metrics, err := admitotel.New(admitotel.Config{MeterProvider: o.meters})
	require.NoError(t, err)
	api := service(t, func(*http.Request, admit.Outcome) {}, nil, metrics.Watch)
	mux := http.NewServeMux()
	mux.Handle("/", api)
	mux.HandleFunc("GET /cut", func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) })
	mux.HandleFunc("GET /cut/begun", func(w http.ResponseWriter, _ *http.Request) {
		_ = http.NewResponseController(w).Flush()
		panic(http.ErrAbortHandler)
	})
	s := httptest.NewUnstartedServer(o.around(metrics.Wrap(mux)))
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	s.Start()
	defer s.Close()
	once := &http.Transport{DisableKeepAlives: true} // on a connection of before, it would try again what is cut

	for _, c := range []struct {
		path, key string
		name      string
		status    codes.Code
		want      string // those that otelhttp has of every request left out
	}{
		{"/pairs/a", api.token, "GET /pairs/{id}", codes.Unset, "admit.key.id=id-1 admit.key.owner=owner-1 admit.plan=pro http.response.status_code=200 http.route=/pairs/{id} url.path=/pairs/a"},
		{
			"/pairs/broken", api.token, "GET /pairs/{id}", codes.Error,
			"admit.error.code=bad_gateway admit.key.id=id-1 admit.key.owner=owner-1 admit.plan=pro error.type=bad_gateway http.response.status_code=502 http.route=/pairs/{id} url.path=/pairs/broken",
		},
		{"/pairs/a", "", "GET /pairs/{id}", codes.Unset, "admit.error.code=key_missing http.response.status_code=401 http.route=/pairs/{id} url.path=/pairs/a"},
		{
			"/pairs/a", api.revoked, "GET /pairs/{id}", codes.Unset,
			"admit.error.code=key_invalid admit.key.id=id-2 admit.key.status=revoked admit.plan=pro http.response.status_code=401 http.route=/pairs/{id} url.path=/pairs/a",
		},
		{"/none", "", "GET", codes.Unset, "admit.error.code=not_found http.response.status_code=404 http.route=/ url.path=/none"},
		{"/cut", "", "GET", codes.Error, "error.type=500 http.route=/cut url.path=/cut"},
		{"/cut/begun", "", "GET", codes.Error, "error.type=_OTHER http.route=/cut/begun url.path=/cut/begun"},
	} {
		o.spans.Reset()
		r, err := http.NewRequestWithContext(t.Context(), "GET", s.URL+c.path, nil)
		require.NoError(t, err)
		if c.key != "" {
			r.Header.Set("Authorization", "Bearer "+c.key)
		}
		if res, err := once.RoundTrip(r); err == nil {
			_, _ = io.Copy(io.Discard, res.Body)
			_ = res.Body.Close()
		}
		require.Eventually(t, func() bool { return len(o.spans.GetSpans()) == 1 }, 10*time.Second, time.Millisecond, c.path)
		span := o.spans.GetSpans()[0]
		var got []string
		for _, a := range span.Attributes {
			switch key := string(a.Key); {
			case strings.HasPrefix(key, "network."), strings.HasPrefix(key, "server."), strings.HasPrefix(key, "client."), strings.HasPrefix(key, "user_agent."):
			case key == "http.request.method", key == "url.scheme", key == "http.response.body.size":
			default:
				got = append(got, key+"="+a.Value.String())
			}
		}
		slices.Sort(got)
		assert.Equal(t, c.want, strings.Join(got, " "), c.path)
		assert.Equal(t, c.name, span.Name, c.path)
		assert.Equal(t, sdktrace.Status{Code: c.status}, span.Status, c.path)
		assert.Equal(t, trace.SpanKindServer, span.SpanKind)
	}
}

// What each arrangement gives.
func TestArrangements(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		noDuration bool
		around     func(telemetry, *admitotel.Metrics, http.Handler) http.Handler
		spans      int
		route      bool // on the span
		measuredBy []string
	}{
		"alone":   {around: func(_ telemetry, m *admitotel.Metrics, h http.Handler) http.Handler { return m.Wrap(h) }, measuredBy: []string{"admitotel"}},
		"inside":  {around: func(o telemetry, m *admitotel.Metrics, h http.Handler) http.Handler { return o.around(m.Wrap(h)) }, spans: 1, route: true, measuredBy: []string{"admitotel", "otelhttp"}},
		"outside": {around: func(o telemetry, m *admitotel.Metrics, h http.Handler) http.Handler { return m.Wrap(o.around(h)) }, spans: 1, measuredBy: []string{"admitotel", "otelhttp"}},
		"inside, no duration": {
			noDuration: true, around: func(o telemetry, m *admitotel.Metrics, h http.Handler) http.Handler { return o.around(m.Wrap(h)) },
			spans: 1, route: true, measuredBy: []string{"otelhttp"},
		},
	} {
		o := newTelemetry()
		m, err := admitotel.New(admitotel.Config{MeterProvider: o.meters, NoDuration: c.noDuration})
		require.NoError(t, err)
		mux := http.NewServeMux()
		mux.Handle("GET /pairs/{id}", admit.RateLimit(admit.PerMinute(1))(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})))
		c.around(o, m, mux).ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("GET", "/pairs/a", nil))

		var by []string
		for scope, set := range o.durations(t) {
			by = append(by, scope)
			route, _ := set.Value("http.route")
			assert.Equal(t, "/pairs/{id}", route.AsString(), "%s by %s", name, scope)
			assert.Equal(t, scope == "otelhttp", set.HasValue("server.address"), "%s by %s", name, scope)
		}
		slices.Sort(by)
		assert.Equal(t, c.measuredBy, by, name)
		require.Len(t, o.spans.GetSpans(), c.spans, name)
		for _, span := range o.spans.GetSpans() {
			set := attribute.NewSet(span.Attributes...)
			assert.Equal(t, c.route, set.HasValue("http.route"), name)
		}
	}
}
