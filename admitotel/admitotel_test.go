package admitotel_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/metric/noop"
	sdk "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"

	"github.com/admit-go/admit"
	"github.com/admit-go/admit/admitotel"
)

// made returns Metrics, and what reads them.
func made(t testing.TB, c admitotel.Config) (*admitotel.Metrics, *sdk.ManualReader) {
	t.Helper()
	reader := sdk.NewManualReader()
	c.MeterProvider = sdk.NewMeterProvider(sdk.WithReader(reader), sdk.WithCardinalityLimit(0))
	m, err := admitotel.New(c)
	require.NoError(t, err)
	return m, reader
}

func read(t testing.TB, reader *sdk.ManualReader) (all []metricdata.Metrics) {
	t.Helper()
	var found metricdata.ResourceMetrics
	require.NoError(t, reader.Collect(context.Background(), &found))
	for _, scope := range found.ScopeMetrics {
		assert.Equal(t, "github.com/admit-go/admit/admitotel", scope.Scope.Name)
		all = append(all, scope.Metrics...)
	}
	return all
}

// points are all that is measured: how often, for a histogram.
func points(t testing.TB, reader *sdk.ManualReader) (lines []string) {
	t.Helper()
	line := func(m metricdata.Metrics, attributes attribute.Set, n any) {
		lines = append(lines, fmt.Sprintf("%s{%s} %v", m.Name, attributes.Encoded(attribute.DefaultEncoder()), n))
	}
	for _, m := range read(t, reader) {
		switch data := m.Data.(type) {
		case metricdata.Histogram[float64]:
			for _, p := range data.DataPoints {
				line(m, p.Attributes, p.Count)
			}
		case metricdata.Sum[int64]:
			assert.True(t, data.IsMonotonic)
			for _, p := range data.DataPoints {
				line(m, p.Attributes, p.Value)
			}
		case metricdata.Gauge[int64]:
			for _, p := range data.DataPoints {
				line(m, p.Attributes, p.Value)
			}
		default:
			t.Errorf("%s is a %T", m.Name, data)
		}
	}
	slices.Sort(lines)
	return lines
}

func get(target string) *http.Request { return httptest.NewRequest("GET", target, nil) }

func ended(m *admitotel.Metrics, o admit.Outcome) { m.Observe(get("/"), o) }

// everything uses each instrument once.
func everything(m *admitotel.Metrics, name string) {
	ended(m, admit.Outcome{
		Status: 401, Route: "GET /" + name, Code: name, Plan: name, KeyID: "id-1", Owner: "owner-1",
		KeyStatus: admit.KeyRevoked, Duration: 2 * time.Second, Waited: time.Second, Err: errors.New("secret"),
	})
	m.ObserveLimit(get("/"), admit.LimitEvent{Limiter: name, Cost: 1, Decision: admit.Decision{
		States: []admit.LimitState{{Remaining: 1}}, Limits: []admit.Limit{{Name: name, Requests: 4, Burst: 4}},
	}})
	m.NotifyQuota(admit.QuotaNotice{Account: "owner-1", Quota: name, Percent: 80})
}

func TestMetrics(t *testing.T) {
	t.Parallel()
	m, reader := made(t, admitotel.Config{})
	everything(m, "pro")
	ended(m, admit.Outcome{Status: 200})
	assert.Equal(t, []string{
		"admit.key.refusals{admit.key.status=revoked,admit.plan=pro} 1",
		"admit.limit.usage{admit.limit=pro,admit.limiter=pro} 1",
		"admit.quota.notices{admit.percent=80,admit.quota=pro} 1",
		"admit.wait.duration{admit.plan=pro,http.route=/pro} 1",
		"http.server.request.duration{admit.plan=pro,error.type=pro,http.request.method=GET,http.response.status_code=401,http.route=/pro,url.scheme=http} 1",
		"http.server.request.duration{http.request.method=GET,http.response.status_code=200,url.scheme=http} 1",
	}, points(t, reader))
	units, sums := map[string]string{}, map[string]float64{}
	for _, m := range read(t, reader) {
		units[m.Name] = m.Unit
		assert.NotEmpty(t, m.Description, m.Name)
		if h, ok := m.Data.(metricdata.Histogram[float64]); ok {
			want := []float64{0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10}
			if m.Name == "admit.limit.usage" {
				want = []float64{0.5, 0.8, 0.9, 0.95, 1}
			}
			assert.Equal(t, want, h.DataPoints[0].Bounds, m.Name)
			sums[m.Name] = 0
			for _, p := range h.DataPoints {
				sums[m.Name] += p.Sum
			}
		}
	}
	assert.Equal(t, map[string]string{
		"http.server.request.duration": "s", "admit.wait.duration": "s", "admit.key.refusals": "{request}", "admit.limit.usage": "1", "admit.quota.notices": "{notice}",
	}, units)
	assert.Equal(t, map[string]float64{"http.server.request.duration": 2, "admit.wait.duration": 1, "admit.limit.usage": 0.75}, sums)
}

// The fraction is of what a decision has left; one that only looks, or was made while the
// store fails, says nothing about it.
func TestLimitUsage(t *testing.T) {
	t.Parallel()
	m, reader := made(t, admitotel.Config{})
	r := get("/")
	r = r.WithContext(admit.WithKey(r.Context(), &admit.Key{ID: "id-1", Plan: "pro"}))
	limiter, err := admit.NewLimiter(admit.LimiterConfig{Name: "api", Limits: []admit.Limit{{Name: "day", Requests: 4, Per: 24 * time.Hour}}, Observe: m.ObserveLimit})
	require.NoError(t, err)
	for _, cost := range []int{1, 0, -1, 1} {
		_, err := limiter.Take(r, cost)
		require.NoError(t, err)
	}
	says := func(remaining int, err error, limits ...admit.Limit) {
		m.ObserveLimit(r, admit.LimitEvent{Limiter: "odd", Cost: 1, Err: err, Decision: admit.Decision{States: []admit.LimitState{{Remaining: remaining}}, Limits: limits}})
	}
	four := admit.Limit{Name: "four", Burst: 4}
	says(-5, nil, four, admit.PerDay(1)) // a store that says nothing of the second
	says(99, nil, four)
	says(0, nil, admit.Limit{Name: "none"})
	says(1, errors.New("down"), four)
	got := map[string]float64{}
	for _, m := range read(t, reader) {
		for _, p := range m.Data.(metricdata.Histogram[float64]).DataPoints {
			limit, _ := p.Attributes.Value("admit.limit")
			of, _ := p.Attributes.Value("admit.limiter")
			plan, _ := p.Attributes.Value("admit.plan")
			got[fmt.Sprint(of.AsString(), " ", limit.AsString(), " ", plan.AsString(), " ", p.Count)] = p.Sum
		}
	}
	assert.Equal(t, map[string]float64{"api day pro 2": 0.5, "odd four pro 2": 1, "odd none pro 1": 0}, got)
}

func TestNoDuration(t *testing.T) {
	t.Parallel()
	m, reader := made(t, admitotel.Config{NoDuration: true})
	everything(m, "pro")
	lines := strings.Join(points(t, reader), "\n")
	assert.NotContains(t, lines, "http.server.request.duration")
	assert.Contains(t, lines, "admit.wait.duration{")
}

// What a service makes up has no more than 10,000 series, and what is no UTF-8, which an
// exporter would refuse together with all other metrics, is made so.
func TestAttributesOfCarelessServices(t *testing.T) {
	t.Parallel()
	m, reader := made(t, admitotel.Config{})
	everything(m, "x\xff")
	for i := range 10_100 {
		everything(m, fmt.Sprint(i))
	}
	series, sums := map[string]int{}, map[string]int{}
	for _, line := range points(t, reader) {
		assert.True(t, strings.ToValidUTF8(line, "") == line, "%q", line)
		name, _, _ := strings.Cut(line, "{")
		series[name]++
		var n int
		_, err := fmt.Sscan(line[strings.LastIndexByte(line, ' ')+1:], &n)
		require.NoError(t, err)
		sums[name] += n
	}
	assert.Len(t, series, 5)
	for name, n := range series {
		assert.Equal(t, 10_001, n, name)
		assert.Equal(t, 10_101, sums[name], name)
	}
}

// spans returns what m tells of one request with this outcome.
func spans(t testing.TB, ctx context.Context, o admit.Outcome) tracetest.SpanStub {
	t.Helper()
	m, err := admitotel.New(admitotel.Config{MeterProvider: noop.NewMeterProvider()})
	require.NoError(t, err)
	exporter := tracetest.NewInMemoryExporter()
	ctx, span := sdktrace.NewTracerProvider(sdktrace.WithSyncer(exporter)).Tracer("").Start(ctx, "request")
	m.Observe(get("/").WithContext(ctx), o)
	span.End()
	require.Len(t, exporter.GetSpans(), 1)
	return exporter.GetSpans()[0]
}

func TestSpans(t *testing.T) {
	t.Parallel()
	failed := errors.New("secret")
	for name, c := range map[string]struct {
		o    admit.Outcome
		left bool
		code codes.Code
		want string
	}{
		"nothing": {o: admit.Outcome{Status: 200}},
		"all": {
			o: admit.Outcome{
				Status: 401, Route: "GET host/pairs/{id}", Code: "key_invalid", KeyID: "id-1", Owner: "owner-1", Plan: "pro",
				KeyStatus: admit.KeyExpired, Waited: 1500 * time.Millisecond, Err: failed,
			},
			want: "admit.error.code=key_invalid,admit.key.id=id-1,admit.key.owner=owner-1,admit.key.status=expired,admit.plan=pro,admit.wait.duration=1.5,http.route=/pairs/{id}",
		},
		"failed":       {o: admit.Outcome{Status: 503, Code: "handler_timeout", Err: failed}, code: codes.Error, want: "admit.error.code=handler_timeout,error.type=handler_timeout"},
		"plain 502":    {o: admit.Outcome{Status: 502}, code: codes.Error, want: "error.type=502"},
		"cut":          {o: admit.Outcome{Status: 500, Err: failed}, code: codes.Error, want: "error.type=500"},
		"cut later":    {o: admit.Outcome{Status: 200, Err: failed}, code: codes.Error, want: "error.type=_OTHER"},
		"failed later": {o: admit.Outcome{Status: 200, Code: "internal", Err: failed}, code: codes.Error, want: "admit.error.code=internal,error.type=internal"},
		"left":         {o: admit.Outcome{Status: 499, Err: context.Canceled}},
		"left later":   {o: admit.Outcome{Status: 200, Err: failed}, left: true},
		"no text":      {o: admit.Outcome{Status: 404, Code: "x\xff"}, want: "admit.error.code=x\uFFFD"},
	} {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		if c.left {
			cancel()
		}
		span := spans(t, ctx, c.o)
		set := attribute.NewSet(span.Attributes...)
		assert.Equal(t, c.want, set.Encoded(attribute.DefaultEncoder()), name)
		assert.Equal(t, sdktrace.Status{Code: c.code}, span.Status, name)
		assert.Empty(t, span.Events, name)
	}
}

// Without a span, and with one that is not recorded, the metrics are the same.
func TestWithoutASpan(t *testing.T) {
	t.Parallel()
	m, reader := made(t, admitotel.Config{})
	ctx, span := sdktrace.NewTracerProvider(sdktrace.WithSampler(sdktrace.NeverSample())).Tracer("").Start(t.Context(), "request")
	defer span.End()
	h := m.Wrap(m.Wrap(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(204) })))
	h.ServeHTTP(httptest.NewRecorder(), get("/").WithContext(ctx))
	h.ServeHTTP(httptest.NewRecorder(), get("/"))
	assert.Equal(t, []string{"http.server.request.duration{http.request.method=GET,http.response.status_code=204,url.scheme=http} 2"}, points(t, reader))
}

// measures are those of a part.
type measures []admit.Measure

func (m *measures) Measures() []admit.Measure { return *m }

func TestWatch(t *testing.T) {
	t.Parallel()
	m, reader := made(t, admitotel.Config{})
	cache := &measures{
		{Name: "cache.size", Help: "keys in memory", Unit: "{key}", Value: 7},
		{Name: "cache.hits", Help: "look-ups", Unit: "{lookup}", Total: true, Value: 9},
	}
	queue := &measures{{Name: "queue.length", Value: 3}}
	require.NoError(t, m.Watch("api", cache, queue))
	require.NoError(t, m.Watch("admin", cache))
	*queue = append(*queue, admit.Measure{Name: "queue.new"})
	want := []string{"cache.hits{admit.name=admin} 9", "cache.hits{admit.name=api} 9", "cache.size{admit.name=admin} 7", "cache.size{admit.name=api} 7", "queue.length{admit.name=api} 3"}
	assert.Equal(t, want, points(t, reader))
	for _, found := range read(t, reader) {
		_, total := found.Data.(metricdata.Sum[int64])
		assert.Equal(t, found.Name == "cache.hits", total, found.Name)
		if found.Name == "cache.size" {
			assert.Equal(t, []string{"{key}", "keys in memory"}, []string{found.Unit, found.Description})
		}
	}

	other := &measures{{Name: "other.size"}}
	for want, err := range map[string]error{
		`the name is ""; give the name of what the parts belong to`:                       m.Watch("", other),
		`the name is "\xff"; give the name`:                                               m.Watch("\xff", other),
		`Watch("api"): part 2 is nil; create it first`:                                    m.Watch("api", other, nil),
		`Watch("api"): there is nothing to watch; give the parts`:                         m.Watch("api"),
		`Watch("api"): cache.size is watched already; watch each part once, and parts of`: m.Watch("api", other, cache),
		`Watch("twice"): cache.size is watched already`:                                   m.Watch("twice", cache, cache),
		`Watch("x"): the MeterProvider does not create an instrument for "1x"`:            m.Watch("x", &measures{{Name: "1x"}}),
	} {
		assert.ErrorContains(t, err, want)
	}
	assert.Equal(t, want, points(t, reader), "what fails leaves nothing")
	(*cache)[0].Value = 8
	assert.Contains(t, points(t, reader), "cache.size{admit.name=api} 8")
}

// faulty makes no counters.
type faulty struct{ metric.MeterProvider }

func (f faulty) Meter(name string, o ...metric.MeterOption) metric.Meter {
	return faultyMeter{f.MeterProvider.Meter(name, o...)}
}

type faultyMeter struct{ metric.Meter }

func (faultyMeter) Int64Counter(string, ...metric.Int64CounterOption) (metric.Int64Counter, error) {
	return nil, errors.New("no counters")
}

func TestNewFails(t *testing.T) {
	t.Parallel()
	_, err := admitotel.New(admitotel.Config{MeterProvider: faulty{noop.NewMeterProvider()}})
	require.ErrorContains(t, err, "admitotel: Config.MeterProvider does not create the instruments")
	require.ErrorContains(t, err, "no counters")
}

func TestConcurrently(t *testing.T) {
	t.Parallel()
	m, reader := made(t, admitotel.Config{})
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			for j := range 100 {
				everything(m, fmt.Sprint(j%10))
			}
		})
	}
	all.Wait()
	lines := points(t, reader)
	assert.Len(t, lines, 50)
	for _, line := range lines {
		assert.True(t, strings.HasSuffix(line, "} 80"), line)
	}
}

// A request makes one allocation at most, in the SDK.
func TestAllocations(t *testing.T) {
	m, _ := made(t, admitotel.Config{})
	r := get("/")
	f := func() { m.Observe(r, admit.Outcome{Status: 200, Route: "GET /pairs/{id}", Plan: "pro"}) }
	f()
	assert.LessOrEqual(t, testing.AllocsPerRun(100, f), 1.0)
}

func BenchmarkObserve(b *testing.B) {
	m, _ := made(b, admitotel.Config{})
	r, o := get("/"), admit.Outcome{Status: 200, Route: "GET /pairs/{id}", Plan: "pro", Duration: 30 * time.Millisecond}
	b.ReportAllocs()
	for b.Loop() {
		m.Observe(r, o)
	}
}

// BenchmarkRecord is what the SDK takes of that, for attributes that are held.
func BenchmarkRecord(b *testing.B) {
	h, err := sdk.NewMeterProvider(sdk.WithReader(sdk.NewManualReader())).Meter("").Float64Histogram("x")
	require.NoError(b, err)
	held := []metric.RecordOption{metric.WithAttributeSet(attribute.NewSet(
		attribute.String("http.request.method", "GET"), attribute.String("url.scheme", "http"), attribute.Int("http.response.status_code", 200),
		attribute.String("http.route", "/pairs/{id}"), attribute.String("admit.plan", "pro"),
	))}
	b.ReportAllocs()
	for b.Loop() {
		h.Record(b.Context(), 0.03, held...)
	}
}
