package admitprom_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"log/slog"
	"math"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"regexp"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/admit-go/admit"
	"github.com/admit-go/admit/admitprom"
)

// made returns Metrics in a registry of their own.
func made(t testing.TB, c admitprom.Config) (*admitprom.Metrics, *prometheus.Registry) {
	t.Helper()
	registry := prometheus.NewPedanticRegistry()
	c.Registerer = registry
	m, err := admitprom.New(c)
	require.NoError(t, err)
	return m, registry
}

// page is what Prometheus reads, without comments and buckets.
func page(t testing.TB, registry *prometheus.Registry) (lines []string) {
	t.Helper()
	for line := range strings.Lines(openMetrics(t, registry)) {
		if !strings.HasPrefix(line, "#") && !strings.Contains(line, "_bucket{") && !strings.Contains(line, "_sum{") && !strings.Contains(line, "_created{") {
			lines = append(lines, strings.TrimSpace(line))
		}
	}
	return lines
}

func openMetrics(t testing.TB, registry *prometheus.Registry) string {
	t.Helper()
	w, r := httptest.NewRecorder(), get("/metrics")
	r.Header.Set("Accept", "application/openmetrics-text; version=1.0.0")
	promhttp.HandlerFor(registry, promhttp.HandlerOpts{EnableOpenMetrics: true}).ServeHTTP(w, r)
	require.Equal(t, 200, w.Code, w.Body.String())
	return w.Body.String()
}

func get(target string) *http.Request { return httptest.NewRequest("GET", target, nil) }

// ended is a request that has ended like this.
func ended(m *admitprom.Metrics, o admit.Outcome) { m.Observe(get("/"), o) }

var silent = &admit.ErrorWriter{Logger: slog.New(slog.DiscardHandler)}

func TestRequests(t *testing.T) {
	t.Parallel()
	m, registry := made(t, admitprom.Config{})
	token, digest, _ := admit.Mint("test")
	auth, err := admit.NewAuth(admit.AuthConfig{Store: admit.KeyMap{digest: {ID: "id-1", Owner: "owner-1", Plan: "pro"}}})
	require.NoError(t, err)
	mux := http.NewServeMux()
	mux.Handle("GET /pairs/{id}", admit.Policy{Auth: auth, Errors: silent}.Wrap(admit.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) error {
		if r.PathValue("id") == "none" {
			return errors.New("broken")
		}
		return nil
	})))
	h := m.Wrap(admit.Mux(mux))
	for _, path := range []string{"/pairs/a", "/pairs/b", "/pairs/none", "/other"} {
		r := get(path)
		r.Header.Set("Authorization", "Bearer "+token)
		h.ServeHTTP(httptest.NewRecorder(), r)
	}
	h.ServeHTTP(httptest.NewRecorder(), get("/pairs/a"))
	const name = `http_server_request_duration_seconds_count{admit_plan="%s",error_type="%s",http_request_method="GET",http_response_status_code="%d",http_route="%s",url_scheme="http"} %d`
	assert.ElementsMatch(t, []string{
		fmt.Sprintf(name, "pro", "", 200, "/pairs/{id}", 2),
		fmt.Sprintf(name, "pro", "internal", 500, "/pairs/{id}", 1),
		fmt.Sprintf(name, "", "key_missing", 401, "/pairs/{id}", 1),
		fmt.Sprintf(name, "", "not_found", 404, "", 1),
	}, only(page(t, registry), "http_server"))
	text := openMetrics(t, registry)
	assert.NotContains(t, text, "id-1")
	assert.NotContains(t, text, "owner-1")
}

func only(lines []string, prefix string) (found []string) {
	for _, line := range lines {
		if strings.HasPrefix(line, prefix) {
			found = append(found, line)
		}
	}
	return found
}

// What a client, and a service behind a proxy, make up is in no label.
func TestHostileRequests(t *testing.T) {
	t.Parallel()
	const madeUp = "made-up"
	m, registry := made(t, admitprom.Config{})
	upstream := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Code", madeUp)
		var status int
		if _, err := fmt.Sscanf(r.URL.Query().Get("status"), "%d", &status); err == nil {
			w.WriteHeader(status)
		}
		_, _ = io.WriteString(w, `{"result":"error","code":"made-up"}`)
	}))
	defer upstream.Close()
	target, err := url.Parse(upstream.URL)
	require.NoError(t, err)
	mux := http.NewServeMux()
	mux.Handle("/proxied/{rest...}", &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) { r.SetURL(target) }, ErrorHandler: admit.ProxyError, ErrorLog: log.New(io.Discard, "", 0),
	})
	mux.Handle("/pairs/{id}", admit.Policy{Methods: []string{"GET"}, Errors: silent}.Wrap(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})))
	s := httptest.NewUnstartedServer(m.Wrap(admit.Mux(mux)))
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	s.Start()
	defer s.Close()

	sent := 0
	for _, method := range []string{"GET", "MADE-UP", "get", "G3T", "QUERY", "MADE-UP2"} {
		for _, path := range []string{
			"/pairs/made-up", "/pairs/%ff%fe", "/made-up", "/made-up%0ahttp_server_x%7b%7d%201", "/pairs/made-up/made-up", "//made-up", "/pairs/%22%7d",
			"/proxied/made-up?status=200", "/proxied/?status=299", "/proxied/?status=599", "/proxied/?status=799", "/proxied/?status=999",
		} {
			r, err := http.NewRequestWithContext(t.Context(), method, s.URL+path, nil)
			require.NoError(t, err)
			for _, header := range []string{"Authorization", "X-Request-Id", "X-Forwarded-Proto", "X-Forwarded-For", "Forwarded", "Traceparent", "User-Agent", "X-Http-Method-Override", "Accept"} {
				r.Header.Set(header, madeUp)
			}
			r.Host = madeUp
			res, err := http.DefaultTransport.RoundTrip(r)
			require.NoError(t, err, "%s %s", method, path)
			_, _ = io.Copy(io.Discard, res.Body)
			_ = res.Body.Close()
			sent++
		}
	}
	s.Close() // all have ended
	text := openMetrics(t, registry)
	assert.NotContains(t, strings.ToLower(text), madeUp)
	known := regexp.MustCompile(`^http_server_request_duration_seconds_count\{admit_plan="",error_type="(|not_found|method_not_allowed|not_implemented|bad_gateway)",` +
		`http_request_method="(GET|QUERY|_OTHER)",http_response_status_code="\d{3}",http_route="(|/pairs/\{id\}|/proxied/\{rest\.\.\.\})",url_scheme="http"\} (\d+)$`)
	counted := 0
	for _, line := range only(page(t, registry), "http_server") {
		found := known.FindStringSubmatch(line)
		require.NotNil(t, found, line)
		var n int
		_, err := fmt.Sscan(found[4], &n)
		require.NoError(t, err)
		counted += n
	}
	assert.Equal(t, sent, counted)
}

// However many values a service makes up, there are no more series, and none is lost.
func TestMaxSeries(t *testing.T) {
	t.Parallel()
	m, registry := made(t, admitprom.Config{MaxSeries: 3})
	for i := range 50 {
		name := fmt.Sprint("n", i)
		ended(m, admit.Outcome{Status: 200, Route: "/" + name})
		ended(m, admit.Outcome{Status: 429, Route: "/" + name, Code: name, Plan: name, Waited: time.Second})
		ended(m, admit.Outcome{Status: 401, KeyStatus: admit.KeyRevoked, Plan: name})
		m.ObserveLimit(get("/"), admit.LimitEvent{Limiter: name, Cost: 1, Decision: admit.Decision{
			States: []admit.LimitState{{Remaining: 1}}, Limits: []admit.Limit{{Name: name, Burst: 2}},
		}})
		m.NotifyQuota(admit.QuotaNotice{Quota: name, Percent: 80})
	}
	lines := page(t, registry)
	for metric, most := range map[string]int{
		"http_server_request_duration_seconds": 3 + 3, "admit_wait_duration_seconds": 3 + 1, "admit_key_refusals_total": 3 + 1,
		"admit_limit_usage": 3 + 1, "admit_quota_notices_total": 3 + 1,
	} {
		found := only(lines, metric)
		assert.Len(t, found, most, metric)
		sum := 0
		for _, line := range found {
			var n int
			_, err := fmt.Sscan(line[strings.LastIndexByte(line, ' ')+1:], &n)
			require.NoError(t, err)
			sum += n
		}
		want := 50
		if strings.HasPrefix(metric, "http_") {
			want = 150
		}
		assert.Equal(t, want, sum, metric)
	}
	assert.Contains(t, lines, `http_server_request_duration_seconds_count{admit_plan="_OTHER",error_type="_OTHER",http_request_method="GET",http_response_status_code="429",http_route="_OTHER",url_scheme="http"} 49`)
	assert.Contains(t, lines, `http_server_request_duration_seconds_count{admit_plan="",error_type="",http_request_method="GET",http_response_status_code="200",http_route="_OTHER",url_scheme="http"} 49`,
		"what has no code keeps none")
}

func TestDefaultMaxSeries(t *testing.T) {
	t.Parallel()
	m, registry := made(t, admitprom.Config{})
	for i := range 10_002 {
		m.NotifyQuota(admit.QuotaNotice{Quota: fmt.Sprint("n", i), Percent: 80})
	}
	lines := page(t, registry)
	assert.Len(t, lines, 10_001)
	assert.Contains(t, lines, `admit_quota_notices_total{admit_percent="80",admit_quota="_OTHER"} 2.0`)
}

// A label that is no UTF-8 is no reason to stop serving, or to lose all other metrics.
func TestLabelsThatAreNoText(t *testing.T) {
	t.Parallel()
	const no = "/x\xff"
	m, registry := made(t, admitprom.Config{})
	ended(m, admit.Outcome{Status: 500, Route: "GET " + no, Code: no, Plan: no, Waited: time.Second, KeyStatus: admit.KeyEarly})
	ended(m, admit.Outcome{Status: 500, Route: "/x\xfe", Code: "/x\xfe", Plan: "/x\xfe"}) // the same text
	m.ObserveLimit(get("/"), admit.LimitEvent{Limiter: no, Cost: 1, Decision: admit.Decision{States: make([]admit.LimitState, 1), Limits: []admit.Limit{{Name: no, Burst: 1}}}})
	m.NotifyQuota(admit.QuotaNotice{Quota: no, Percent: 100})
	const is = "/x\uFFFD"
	assert.ElementsMatch(t, []string{
		`http_server_request_duration_seconds_count{admit_plan="` + is + `",error_type="` + is + `",http_request_method="GET",http_response_status_code="500",http_route="` + is + `",url_scheme="http"} 2`,
		`admit_wait_duration_seconds_count{admit_plan="` + is + `",http_route="` + is + `"} 1`,
		`admit_key_refusals_total{admit_key_status="early",admit_plan="` + is + `"} 1.0`,
		`admit_limit_usage_count{admit_limit="` + is + `",admit_limiter="` + is + `",admit_plan=""} 1`,
		`admit_quota_notices_total{admit_percent="100",admit_quota="` + is + `"} 1.0`,
		"",
	}, append(page(t, registry), ""))
}

func TestExemplars(t *testing.T) {
	t.Parallel()
	var labels prometheus.Labels
	m, registry := made(t, admitprom.Config{Exemplar: func(*http.Request, admit.Outcome) prometheus.Labels { return labels }})
	for i, wrong := range []prometheus.Labels{
		nil, {}, {"": "x"}, {"__reserved": "x"}, {"x": "\xff"}, {"\xff": "x"}, {"x": strings.Repeat("x", 128)},
	} {
		labels = wrong
		ended(m, admit.Outcome{Status: 200})
		text := openMetrics(t, registry)
		assert.NotContains(t, text, " # {", "%v", wrong)
		assert.Contains(t, text, fmt.Sprintf(`url_scheme="http"} %d`+"\n", i+1))
	}
	labels = prometheus.Labels{"trace_id": strings.Repeat("é", 120)} // 128 in all
	ended(m, admit.Outcome{Status: 200, Duration: 30 * time.Millisecond})
	assert.Regexp(t, `le="0.05"} 8 # {trace_id="é{120}"} 0.03 `, openMetrics(t, registry))
}

// Only who had to wait has waited, and for how long.
func TestWaits(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m, registry := made(t, admitprom.Config{})
		inFlight, err := admit.NewInFlight(admit.InFlightConfig{Max: 1, Queue: 1, Wait: time.Minute})
		require.NoError(t, err)
		require.NoError(t, m.Watch("api", inFlight))
		let := make(chan struct{})
		h := m.Wrap(inFlight.Wrap(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { <-let })))
		var both sync.WaitGroup
		for range 2 {
			both.Go(func() { h.ServeHTTP(httptest.NewRecorder(), get("/")) })
			synctest.Wait()
		}
		lines := page(t, registry)
		assert.Contains(t, lines, `admit_inflight_running{admit_name="api"} 1.0`)
		assert.Contains(t, lines, `admit_inflight_waiting{admit_name="api"} 1.0`)
		time.Sleep(3 * time.Second)
		close(let)
		both.Wait()
		text := openMetrics(t, registry)
		assert.Contains(t, text, `admit_wait_duration_seconds_sum{admit_plan="",http_route=""} 3.0`+"\n")
		assert.Contains(t, text, `admit_wait_duration_seconds_count{admit_plan="",http_route=""} 1`+"\n")
		assert.Contains(t, text, `admit_inflight_running{admit_name="api"} 0.0`+"\n")
	})
}

func TestKeyRefusals(t *testing.T) {
	t.Parallel()
	m, registry := made(t, admitprom.Config{})
	keys, tokens := admit.KeyMap{}, map[string]string{}
	for name, key := range map[string]*admit.Key{
		"expired": {ExpiresAt: time.Unix(1, 0)}, "revoked": {RevokedAt: time.Unix(1, 0)}, "early": {NotBefore: time.Now().Add(time.Hour)}, "good": {},
	} {
		token, digest, _ := admit.Mint("test")
		key.ID, key.Plan = name, "pro"
		keys[digest], tokens[name] = key, token
	}
	auth, err := admit.NewAuth(admit.AuthConfig{Store: keys})
	require.NoError(t, err)
	h := m.Wrap(auth.Wrap(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})))
	tokens["unknown"], _, _ = admit.Mint("test")
	for name, token := range tokens {
		r := get("/")
		r.Header.Set("Authorization", "Bearer "+token)
		for range len(name) {
			h.ServeHTTP(httptest.NewRecorder(), r)
		}
	}
	assert.ElementsMatch(t, []string{
		`admit_key_refusals_total{admit_key_status="early",admit_plan="pro"} 5.0`,
		`admit_key_refusals_total{admit_key_status="expired",admit_plan="pro"} 7.0`,
		`admit_key_refusals_total{admit_key_status="revoked",admit_plan="pro"} 7.0`,
	}, only(page(t, registry), "admit_key"))
}

func TestLimitUsage(t *testing.T) {
	t.Parallel()
	m, registry := made(t, admitprom.Config{})
	limiter, err := admit.NewLimiter(admit.LimiterConfig{
		Name: "api", Limits: []admit.Limit{{Name: "few", Requests: 20, Per: 24 * time.Hour}, {Name: "many", Requests: 1000, Per: 24 * time.Hour}}, Observe: m.ObserveLimit,
	})
	require.NoError(t, err)
	h := limiter.Wrap(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	r := get("/")
	r = r.WithContext(admit.WithKey(r.Context(), &admit.Key{ID: "id-1", Plan: "pro"}))
	for range 25 {
		h.ServeHTTP(httptest.NewRecorder(), r)
	}
	for _, cost := range []int{0, -1} {
		_, err := limiter.Take(r, cost)
		require.NoError(t, err)
	}
	m.ObserveLimit(r, admit.LimitEvent{Limiter: "api", Cost: 1, Decision: admit.Decision{Limits: []admit.Limit{admit.PerDay(1)}}})
	text := openMetrics(t, registry)
	for bound, n := range map[string]int{"0.5": 10, "0.8": 16, "0.9": 18, "0.95": 19, "1.0": 25, "+Inf": 25} {
		assert.Contains(t, text, fmt.Sprintf(`admit_limit_usage_bucket{admit_limit="few",admit_limiter="api",admit_plan="pro",le="%s"} %d`+"\n", bound, n))
	}
	assert.Contains(t, text, `admit_limit_usage_bucket{admit_limit="many",admit_limiter="api",admit_plan="pro",le="0.5"} 25`+"\n")
	assert.NotContains(t, text, `admit_limit="day"`)
	assert.NotContains(t, text, "id-1")
}

// What a store of others says is held to what a fraction can be, and a share while the store
// fails is none.
func TestLimitUsageOfStores(t *testing.T) {
	t.Parallel()
	m, registry := made(t, admitprom.Config{})
	for _, remaining := range []int{-5, 99} {
		m.ObserveLimit(get("/"), admit.LimitEvent{Limiter: "odd", Cost: 1, Decision: admit.Decision{
			States: []admit.LimitState{{Remaining: remaining}}, Limits: []admit.Limit{{Name: "day", Requests: 4, Burst: 4}},
		}})
	}
	m.ObserveLimit(get("/"), admit.LimitEvent{Limiter: "odd", Cost: 1, Decision: admit.Decision{
		States: []admit.LimitState{{}}, Limits: []admit.Limit{{Name: "none"}},
	}})
	limiter, err := admit.NewLimiter(admit.LimiterConfig{
		Name: "api", Limits: []admit.Limit{admit.PerDay(100)}, Store: downStore{}, Replicas: 4, Observe: m.ObserveLimit,
	})
	require.NoError(t, err)
	limiter.Wrap(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})).ServeHTTP(httptest.NewRecorder(), get("/"))
	text := openMetrics(t, registry)
	assert.Contains(t, text, `admit_limit_usage_sum{admit_limit="day",admit_limiter="odd",admit_plan=""} 1.0`+"\n")
	assert.Contains(t, text, `admit_limit_usage_sum{admit_limit="none",admit_limiter="odd",admit_plan=""} 0.0`+"\n")
	assert.NotContains(t, text, `admit_limiter="api"`)
}

type downStore struct{}

func (downStore) Take(context.Context, string, int, []admit.Limit) (admit.Decision, error) {
	return admit.Decision{}, errors.New("down")
}

func TestNotices(t *testing.T) {
	t.Parallel()
	m, registry := made(t, admitprom.Config{})
	for range 2 {
		m.NotifyQuota(admit.QuotaNotice{Account: "owner-1", Quota: "month", Percent: 80})
	}
	m.NotifyQuota(admit.QuotaNotice{Account: "owner-1", Quota: "month", Percent: 100})
	assert.ElementsMatch(t, []string{
		`admit_quota_notices_total{admit_percent="100",admit_quota="month"} 1.0`,
		`admit_quota_notices_total{admit_percent="80",admit_quota="month"} 2.0`,
	}, only(page(t, registry), "admit_quota"))
}

// measures are those of a part.
type measures []admit.Measure

func (m *measures) Measures() []admit.Measure { return *m }

func TestWatch(t *testing.T) {
	t.Parallel()
	m, registry := made(t, admitprom.Config{})
	cache := &measures{
		{Name: "cache.size", Help: "keys in memory", Unit: "{key}", Value: 7},
		{Name: "cache.hits", Help: "look-ups", Unit: "{lookup}", Total: true, Value: 9},
		{Name: "cache.room", Help: "memory", Unit: "By", Value: 11},
		{Name: "cache.age", Help: "age", Unit: "s", Value: -1},
	}
	queue := &measures{{Name: "queue.length", Value: 3}}
	require.NoError(t, m.Watch("api", cache, queue))
	require.NoError(t, m.Watch("admin", cache))
	*queue = append(*queue, admit.Measure{Name: "queue.new"})
	assert.Equal(t, []string{
		`cache_age_seconds{admit_name="admin"} -1.0`, `cache_age_seconds{admit_name="api"} -1.0`,
		`cache_hits_total{admit_name="admin"} 9.0`, `cache_hits_total{admit_name="api"} 9.0`,
		`cache_room_bytes{admit_name="admin"} 11.0`, `cache_room_bytes{admit_name="api"} 11.0`,
		`cache_size{admit_name="admin"} 7.0`, `cache_size{admit_name="api"} 7.0`,
		`queue_length{admit_name="api"} 3.0`,
	}, page(t, registry))
	(*cache)[0].Value = 8
	assert.Contains(t, page(t, registry), `cache_size{admit_name="api"} 8.0`)

	before := page(t, registry)
	other := &measures{{Name: "other.size"}}
	for want, err := range map[string]error{
		`the name is ""; give the name of what the parts belong to`:                       m.Watch("", other),
		`the name is "\xff"; give the name`:                                               m.Watch("\xff", other),
		`Watch("api"): part 2 is nil; create it first`:                                    m.Watch("api", other, nil),
		`Watch("api"): there is nothing to watch; give the parts`:                         m.Watch("api"),
		`Watch("api"): cache.size is watched already; watch each part once, and parts of`: m.Watch("api", other, cache),
		`Watch("twice"): cache.size is watched already`:                                   m.Watch("twice", cache, cache),
		`Watch("x"): the registry has other metrics of the same name; rename those: a p`:  m.Watch("x", &measures{{Name: "cache.size", Help: "another help"}}),
	} {
		assert.ErrorContains(t, err, want)
	}
	assert.Equal(t, before, page(t, registry), "what fails leaves nothing")
}

// All that admit has to be watched can be, side by side.
func TestWatchEveryPart(t *testing.T) {
	t.Parallel()
	m, registry := made(t, admitprom.Config{})
	plans, err := admit.NewPlans(admit.Plan{Name: "pro", Quotas: []admit.Quota{{Requests: 10, Every: admit.Month}}})
	require.NoError(t, err)
	inFlight, err1 := admit.NewInFlight(admit.InFlightConfig{Max: 1})
	shedder, err2 := admit.NewShedder(admit.ShedderConfig{Max: 1})
	cache, err3 := admit.NewKeyCache(admit.KeyMap{}, admit.KeyCacheConfig{TTL: time.Minute})
	limiter, err4 := admit.NewLimiter(admit.LimiterConfig{Limits: []admit.Limit{admit.PerMinute(1)}})
	quotas, err5 := admit.NewQuotas(admit.QuotasConfig{Plans: plans, Store: admit.NewMemoryQuotaStore()})
	require.NoError(t, errors.Join(err1, err2, err3, err4, err5))
	require.NoError(t, m.Watch("api", inFlight, shedder, cache, limiter, quotas))
	problems, err := testutil.GatherAndLint(registry)
	require.NoError(t, err)
	assert.Empty(t, problems)
	want := len(inFlight.Measures()) + len(shedder.Measures()) + len(cache.Measures()) + len(limiter.Measures()) + len(quotas.Measures())
	assert.Len(t, page(t, registry), want)
}

func TestNewFails(t *testing.T) {
	t.Parallel()
	for want, c := range map[string]admitprom.Config{
		"admitprom.Config.Buckets is empty; give upper bounds in seconds":                  {Buckets: []float64{}},
		"admitprom.Config.Buckets[1] is 1; each bound must be greater than the one":        {Buckets: []float64{1, 1}},
		"admitprom.Config.Buckets[0] is NaN":                                               {Buckets: []float64{math.NaN()}},
		"admitprom.Config.MaxSeries is -1; give the number of series that a metric may ha": {MaxSeries: -1},
	} {
		registry := prometheus.NewRegistry()
		c.Registerer = registry
		_, err := admitprom.New(c)
		require.ErrorContains(t, err, want)
		var fault *admit.ConfigError
		require.ErrorAs(t, err, &fault)
		c.Buckets, c.MaxSeries = []float64{0.1, 1}, 1
		_, err = admitprom.New(c)
		require.NoError(t, err, "what fails registers nothing")
		_, err = admitprom.New(c)
		require.ErrorContains(t, err, "make only one Metrics for each registry")
	}
}

// Two services of a process may share a registry, if something tells them apart.
func TestTwoServices(t *testing.T) {
	t.Parallel()
	registry := prometheus.NewPedanticRegistry()
	for i, service := range []string{"a", "b"} {
		m, err := admitprom.New(admitprom.Config{Registerer: prometheus.WrapRegistererWith(prometheus.Labels{"service": service}, registry)})
		require.NoError(t, err)
		require.NoError(t, m.Watch("api", &measures{{Name: "queue.length", Value: int64(i)}}))
		ended(m, admit.Outcome{Status: 200 + i})
	}
	const name = `http_server_request_duration_seconds_count{admit_plan="",error_type="",http_request_method="GET",http_response_status_code="%d",http_route="",service="%s",url_scheme="http"} 1`
	assert.Equal(t, []string{
		fmt.Sprintf(name, 200, "a"), fmt.Sprintf(name, 201, "b"),
		`queue_length{admit_name="api",service="a"} 0.0`, `queue_length{admit_name="api",service="b"} 1.0`,
	}, page(t, registry))
}

// Buckets are those of the durations; what is beyond the last is counted too.
func TestBuckets(t *testing.T) {
	t.Parallel()
	bounds := []float64{0.1, 1}
	m, registry := made(t, admitprom.Config{Buckets: bounds})
	bounds[0] = 99 // the list is the caller's
	ended(m, admit.Outcome{Status: 200, Duration: 500 * time.Millisecond, Waited: 2 * time.Second})
	text := openMetrics(t, registry)
	for line, n := range map[string]int{
		`_seconds_bucket{admit_plan="",error_type="",http_request_method="GET",http_response_status_code="200",http_route="",url_scheme="http",le="0.1"}`: 0,
		`_seconds_bucket{admit_plan="",error_type="",http_request_method="GET",http_response_status_code="200",http_route="",url_scheme="http",le="1.0"}`: 1,
		`admit_wait_duration_seconds_bucket{admit_plan="",http_route="",le="1.0"}`:                                                                        0,
		`admit_wait_duration_seconds_bucket{admit_plan="",http_route="",le="+Inf"}`:                                                                       1,
	} {
		assert.Contains(t, text, fmt.Sprint(line, " ", n, "\n"))
	}
}

func TestDefaultBuckets(t *testing.T) {
	t.Parallel()
	m, registry := made(t, admitprom.Config{})
	ended(m, admit.Outcome{Status: 200, Waited: time.Second})
	families, err := registry.Gather()
	require.NoError(t, err)
	got := map[string][]float64{}
	for _, f := range families {
		for _, b := range f.GetMetric()[0].GetHistogram().GetBucket() {
			got[f.GetName()] = append(got[f.GetName()], b.GetUpperBound())
		}
	}
	want := []float64{0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10}
	assert.Equal(t, map[string][]float64{"http_server_request_duration_seconds": want, "admit_wait_duration_seconds": want}, got)
}

func TestWrapTwiceCountsOnce(t *testing.T) {
	t.Parallel()
	m, registry := made(t, admitprom.Config{})
	observed := 0
	observe := admit.Observe(func(*http.Request, admit.Outcome) { observed++ })
	h := silent.Wrap(m.Wrap(observe(m.Wrap(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})))))
	h.ServeHTTP(httptest.NewRecorder(), get("/"))
	assert.Equal(t, 1, observed, "others report beside it")
	assert.Regexp(t, `\} 1$`, strings.Join(page(t, registry), "\n"))
}

// Any number of requests count at once, also what is new.
func TestConcurrently(t *testing.T) {
	t.Parallel()
	m, registry := made(t, admitprom.Config{MaxSeries: 5})
	var all sync.WaitGroup
	for i := range 8 {
		all.Go(func() {
			for j := range 100 {
				ended(m, admit.Outcome{Status: 200, Route: fmt.Sprint("/", i*j%10)})
			}
		})
	}
	all.Wait()
	sum := 0
	for _, line := range page(t, registry) {
		var n int
		_, err := fmt.Sscan(line[strings.LastIndexByte(line, ' ')+1:], &n)
		require.NoError(t, err)
		sum += n
	}
	assert.Equal(t, 800, sum)
}

// A request costs nothing but time, once its series is there.
func TestAllocations(t *testing.T) {
	m, _ := made(t, admitprom.Config{MaxSeries: 2})
	r := get("/")
	r = r.WithContext(admit.WithKey(r.Context(), &admit.Key{ID: "k", Plan: "pro"}))
	event := admit.LimitEvent{Limiter: "api", Cost: 1, Decision: admit.Decision{States: []admit.LimitState{{Remaining: 1}}, Limits: []admit.Limit{{Name: "day", Burst: 2}}}}
	for name, f := range map[string]func(){
		"one of two series": func() { m.Observe(r, admit.Outcome{Status: 200, Route: "GET /pairs/{id}", Plan: "pro"}) },
		"one that has to wait": func() {
			m.Observe(r, admit.Outcome{Status: 401, Code: "key_invalid", Plan: "pro", Waited: time.Second, KeyStatus: admit.KeyExpired})
		},
		"one of many": func() { m.Observe(r, admit.Outcome{Status: 200, Route: "/other", Plan: "pro"}) },
		"a limit":     func() { m.ObserveLimit(r, event) },
		"a notice":    func() { m.NotifyQuota(admit.QuotaNotice{Quota: "month", Percent: 80}) },
	} {
		f()
		assert.Zero(t, testing.AllocsPerRun(100, f), name)
	}
}

func BenchmarkObserve(b *testing.B) {
	m, _ := made(b, admitprom.Config{})
	r, o := get("/"), admit.Outcome{Status: 200, Route: "GET /pairs/{id}", Plan: "pro", Duration: 30 * time.Millisecond}
	b.ReportAllocs()
	for b.Loop() {
		m.Observe(r, o)
	}
}
