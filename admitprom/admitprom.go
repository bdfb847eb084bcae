// Package admitprom exports Prometheus metrics of what admit decides: how long requests take
// and how they end, how long they wait for a place, which keys are rejected, how much of rate
// limits and quotas is used, and the state of the parts of a service.
//
// The metrics have the names and labels that OpenTelemetry's Prometheus exporter gives to those
// of package admitotel, so that the same dashboards work for both:
//
//	http_server_request_duration_seconds  histogram: http_request_method, url_scheme,
//	                                      http_response_status_code, http_route,
//	                                      error_type (the code), admit_plan
//	admit_wait_duration_seconds           histogram, only of requests that had to wait for a
//	                                      place: http_route, admit_plan
//	admit_key_refusals_total              counter: admit_key_status (early, expired, revoked),
//	                                      admit_plan
//	admit_limit_usage                     histogram of the fraction of a limit that is used
//	                                      after each decision, 0 to 1: admit_limiter,
//	                                      admit_limit, admit_plan
//	admit_quota_notices_total             counter: admit_quota, admit_percent
//	admit_inflight_running and so on      gauges and counters, one for each admit.Measure of
//	                                      the parts that Watch gets: admit_name
//
// The code is _OTHER for a response that the service has begun and then cut. The route is the
// path of the pattern; the method has a label of its own. A label without a value is empty.
// Clients cannot create label values, and neither the ID nor the owner of a key is a label.
package admitprom

import (
	"errors"
	"fmt"
	"math"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"unicode/utf8"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/admit-go/admit"
)

// Config configures New. The zero value is ready to use.
type Config struct {
	// Registerer registers the metrics. Default: prometheus.DefaultRegisterer.
	Registerer prometheus.Registerer
	// Buckets are the upper bounds of the histograms of durations, in seconds and in ascending
	// order. Default: those of OpenTelemetry's HTTP conventions, 0.005 to 10.
	Buckets []float64
	// Exemplar returns the labels of an exemplar for a request, such as its trace_id, or nil.
	// It is called for each request, and must be safe for concurrent use. An exemplar that
	// Prometheus does not accept, such as one of more than 128 characters, is dropped. Exemplars
	// are sent only if promhttp.HandlerOpts.EnableOpenMetrics is set. Nil means none.
	Exemplar func(*http.Request, admit.Outcome) prometheus.Labels
	// MaxSeries bounds the series of each metric. Beyond that, new series are counted with
	// _OTHER as route, code, plan, limiter, limit and quota. Default: 10,000.
	MaxSeries int
}

// Metrics collects the metrics. It is safe for concurrent use.
type Metrics struct {
	c    Config
	wrap admit.Middleware

	requests *series[admit.Labels, prometheus.Observer]
	waits    *series[waitLabels, prometheus.Observer]
	refusals *series[refusalLabels, prometheus.Counter]
	usage    *series[usageLabels, prometheus.Observer]
	notices  *series[noticeLabels, prometheus.Counter]

	mu      sync.Mutex
	watched map[[2]string]bool // by name and metric
}

type (
	waitLabels    struct{ route, plan string }
	refusalLabels struct {
		status admit.KeyStatus
		plan   string
	}
	usageLabels  struct{ limiter, limit, plan string }
	noticeLabels struct {
		quota   string
		percent int
	}
)

var (
	durations = []float64{0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10}
	fractions = []float64{0.5, 0.8, 0.9, 0.95, 1}
)

// New returns Metrics and registers them. It fails if the Config is not valid, or if the
// Registerer already has metrics of these names.
func New(c Config) (*Metrics, error) {
	if err := c.complete(); err != nil {
		return nil, err
	}
	histogram := func(name, help string, buckets []float64, labels ...string) *prometheus.HistogramVec {
		return prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: name, Help: help, Buckets: buckets}, labels)
	}
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, labels)
	}
	requests := histogram("http_server_request_duration_seconds", "Duration of HTTP server requests.", c.Buckets,
		"http_request_method", "url_scheme", "http_response_status_code", "http_route", "error_type", "admit_plan")
	waits := histogram("admit_wait_duration_seconds", "Time that requests have waited for a place.", c.Buckets, "http_route", "admit_plan")
	refusals := counter("admit_key_refusals_total", "Requests with a known key that is not valid.", "admit_key_status", "admit_plan")
	usage := histogram("admit_limit_usage", "Fraction of a limit that is used after a decision.", fractions, "admit_limiter", "admit_limit", "admit_plan")
	notices := counter("admit_quota_notices_total", "Quotas that have reached a percentage.", "admit_quota", "admit_percent")

	m := &Metrics{
		c: c,
		requests: newSeries(c.MaxSeries,
			func(l admit.Labels) admit.Labels {
				l.Route, l.Code, l.Plan = fold(l.Route), fold(l.Code), fold(l.Plan)
				return l
			},
			func(l admit.Labels) prometheus.Observer {
				return requests.WithLabelValues(l.Method, l.Scheme, strconv.Itoa(l.Status), text(l.Route), text(l.Code), text(l.Plan))
			}),
		waits: newSeries(c.MaxSeries,
			func(l waitLabels) waitLabels { return waitLabels{fold(l.route), fold(l.plan)} },
			func(l waitLabels) prometheus.Observer {
				return waits.WithLabelValues(text(l.route), text(l.plan))
			}),
		refusals: newSeries(c.MaxSeries,
			func(l refusalLabels) refusalLabels { return refusalLabels{l.status, fold(l.plan)} },
			func(l refusalLabels) prometheus.Counter {
				return refusals.WithLabelValues(l.status.String(), text(l.plan))
			}),
		usage: newSeries(c.MaxSeries,
			func(l usageLabels) usageLabels { return usageLabels{fold(l.limiter), fold(l.limit), fold(l.plan)} },
			func(l usageLabels) prometheus.Observer {
				return usage.WithLabelValues(text(l.limiter), text(l.limit), text(l.plan))
			}),
		notices: newSeries(c.MaxSeries,
			func(l noticeLabels) noticeLabels { return noticeLabels{fold(l.quota), l.percent} },
			func(l noticeLabels) prometheus.Counter {
				return notices.WithLabelValues(text(l.quota), strconv.Itoa(l.percent))
			}),
		watched: map[[2]string]bool{},
	}
	m.wrap = admit.ObserveAs("admitprom", m.Observe)
	if err := c.Registerer.Register(collectors{requests, waits, refusals, usage, notices}); err != nil {
		return nil, fmt.Errorf("admitprom: Config.Registerer does not accept the metrics; make only one Metrics for each registry, "+
			"or distinguish them with prometheus.WrapRegistererWith: %w", err)
	}
	return m, nil
}

// complete sets the defaults, or returns every problem.
func (c *Config) complete() error {
	var faults []error
	fault := func(field, format string, args ...any) {
		faults = append(faults, &admit.ConfigError{Field: "admitprom.Config." + field, Reason: fmt.Sprintf(format, args...)})
	}
	if c.Registerer == nil {
		c.Registerer = prometheus.DefaultRegisterer
	}
	c.Buckets = slices.Clone(c.Buckets) // the caller may change its list
	if c.Buckets == nil {
		c.Buckets = durations
	}
	if len(c.Buckets) == 0 {
		fault("Buckets", "is empty; give upper bounds in seconds, or leave it nil")
	}
	for i, bound := range c.Buckets {
		if math.IsNaN(bound) || i > 0 && bound <= c.Buckets[i-1] {
			fault(fmt.Sprintf("Buckets[%d]", i), "is %v; each bound must be greater than the one before", bound)
		}
	}
	switch {
	case c.MaxSeries < 0:
		fault("MaxSeries", "is %d; give the number of series that a metric may have, or 0 for 10,000", c.MaxSeries)
	case c.MaxSeries == 0:
		c.MaxSeries = 10_000
	}
	return errors.Join(faults...)
}

// collectors are collectors that are registered together or not at all.
type collectors []prometheus.Collector

func (all collectors) Describe(ch chan<- *prometheus.Desc) {
	for _, c := range all {
		c.Describe(ch)
	}
}

func (all collectors) Collect(ch chan<- prometheus.Metric) {
	for _, c := range all {
		c.Collect(ch)
	}
}

// Wrap is an admit.Middleware that counts each request when it has ended. It may stand anywhere;
// outermost, around the mux, it counts all requests. If a request passes more than one Wrap, the
// outermost counts it: see admit.ObserveAs.
func (m *Metrics) Wrap(next http.Handler) http.Handler { return m.wrap(next) }

// Observe counts a request. Use it as admit.Policy.Observe, or call it from an Observe of your
// own. Do not use it together with Wrap, or requests count twice.
func (m *Metrics) Observe(r *http.Request, o admit.Outcome) {
	l := o.Labels(r)
	m.duration(m.requests.of(l), r, o)
	if o.Waited > 0 {
		m.waits.of(waitLabels{l.Route, l.Plan}).Observe(o.Waited.Seconds())
	}
	if o.KeyStatus != admit.KeyValid {
		m.refusals.of(refusalLabels{o.KeyStatus, o.Plan}).Inc()
	}
}

func (m *Metrics) duration(into prometheus.Observer, r *http.Request, o admit.Outcome) {
	if m.c.Exemplar != nil {
		if labels := m.c.Exemplar(r, o); len(labels) > 0 && validExemplar(labels) {
			into.(prometheus.ExemplarObserver).ObserveWithExemplar(o.Duration.Seconds(), labels)
			return
		}
	}
	into.Observe(o.Duration.Seconds())
}

// validExemplar reports whether Prometheus accepts the labels. It panics on others, and clients
// may be able to choose them.
func validExemplar(labels prometheus.Labels) bool {
	runes := 0
	for name, value := range labels {
		if name == "" || strings.HasPrefix(name, "__") || !utf8.ValidString(name) || !utf8.ValidString(value) {
			return false
		}
		runes += utf8.RuneCountInString(name) + utf8.RuneCountInString(value)
	}
	return runes <= prometheus.ExemplarMaxRunes
}

// ObserveLimit records what each decision leaves of the limits. Use it as
// admit.LimiterConfig.Observe. It ignores decisions that only look or give back. It also ignores
// decisions during an outage of the store, since the share of one process is not a fraction of
// the limit. The plan is that of the key of the request; before Auth, there is none.
func (m *Metrics) ObserveLimit(r *http.Request, e admit.LimitEvent) {
	if e.Cost <= 0 || e.Err != nil {
		return
	}
	plan := ""
	if key, ok := admit.KeyFrom(r.Context()); ok {
		plan = key.Plan
	}
	for i, limit := range e.Decision.Limits[:min(len(e.Decision.States), len(e.Decision.Limits))] {
		used := float64(limit.Burst-e.Decision.States[i].Remaining) / float64(max(limit.Burst, 1))
		m.usage.of(usageLabels{e.Limiter, limit.Name, plan}).Observe(min(max(used, 0), 1))
	}
}

// NotifyQuota counts a notice. Use it as admit.QuotasConfig.Notify, which one of all replicas
// calls.
func (m *Metrics) NotifyQuota(n admit.QuotaNotice) {
	m.notices.of(noticeLabels{n.Quota, n.Percent}).Inc()
}

// Watch exports the Measures of parts such as an admit.InFlight, an admit.KeyCache or a
// redislimit.Store. It reads them on each scrape. The name is the value of the label admit_name,
// which distinguishes parts of the same kind: two Limiters need two names. It is an error if a
// measure has the same name twice; then none of the parts is watched.
func (m *Metrics) Watch(name string, parts ...interface{ Measures() []admit.Measure }) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if name == "" || !utf8.ValidString(name) {
		return fmt.Errorf("admitprom: Watch: the name is %q; give the name of what the parts belong to, such as \"api\"", name)
	}
	var all collectors
	added := map[[2]string]bool{}
	for i, p := range parts {
		if p == nil {
			return fmt.Errorf("admitprom: Watch(%q): part %d is nil; create it first", name, i+1)
		}
		w := watched{p, map[string]*prometheus.Desc{}}
		for _, measure := range p.Measures() {
			metric := [2]string{name, metricName(measure)}
			if m.watched[metric] || added[metric] {
				return fmt.Errorf("admitprom: Watch(%q): %s is watched already; watch each part once, and parts of the same kind under different names", name, measure.Name)
			}
			added[metric] = true
			w.descs[measure.Name] = prometheus.NewDesc(metric[1], measure.Help, nil, prometheus.Labels{"admit_name": name})
		}
		all = append(all, w)
	}
	if len(added) == 0 {
		return fmt.Errorf("admitprom: Watch(%q): there is nothing to watch; give the parts, such as an *admit.InFlight", name)
	}
	if err := m.c.Registerer.Register(all); err != nil {
		return fmt.Errorf("admitprom: Watch(%q): the registry has other metrics of the same name; rename those: %w", name, err)
	}
	for metric := range added {
		m.watched[metric] = true
	}
	return nil
}

// metricName returns the name that OpenTelemetry's exporter gives to a measure.
func metricName(m admit.Measure) string {
	name := strings.ReplaceAll(m.Name, ".", "_")
	switch m.Unit {
	case "s":
		name += "_seconds"
	case "By":
		name += "_bytes"
	}
	if m.Total {
		name += "_total"
	}
	return name
}

// watched collects the measures of a part.
type watched struct {
	part  interface{ Measures() []admit.Measure }
	descs map[string]*prometheus.Desc // by the name of the measure
}

func (w watched) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range w.descs {
		ch <- d
	}
}

func (w watched) Collect(ch chan<- prometheus.Metric) {
	for _, m := range w.part.Measures() {
		kind := prometheus.GaugeValue
		if m.Total {
			kind = prometheus.CounterValue
		}
		if d := w.descs[m.Name]; d != nil { // nil for a measure that the part did not have in Watch
			ch <- prometheus.MustNewConstMetric(d, kind, float64(m.Value))
		}
	}
}
