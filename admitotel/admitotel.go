// Package admitotel exports what admit decides to OpenTelemetry, as metrics and as attributes of
// the span of a request.
//
//	http.server.request.duration  histogram in s: http.request.method, url.scheme,
//	                              http.response.status_code, http.route, error.type (the
//	                              code), admit.plan
//	admit.wait.duration           histogram in s, only of requests that had to wait for a
//	                              place: http.route, admit.plan
//	admit.key.refusals            counter: admit.key.status (early, expired, revoked),
//	                              admit.plan
//	admit.limit.usage             histogram of the fraction of a limit that is used after each
//	                              decision, 0 to 1: admit.limiter, admit.limit, admit.plan
//	admit.quota.notices           counter: admit.quota, admit.percent
//	admit.inflight.running etc.   gauges and counters, one for each admit.Measure of the
//	                              parts that Watch gets: admit.name
//
// The code is _OTHER for a response that the service has begun and then cut. The route is the
// path of the pattern. An attribute without a value is left out. Clients cannot create values of
// the attributes of metrics, and neither the ID nor the owner of a key is one. Each metric has at
// most 10,000 series; new ones then have the values _OTHER. The SDK has a limit of its own,
// 2,000 by default.
//
// # With and without otelhttp
//
// If the context of a request has a span that records, as inside otelhttp, the span gets
// attributes that otelhttp does not know:
//
//	http.route                       also if a mux inside has found it
//	admit.error.code                 the code of a refusal or of an error
//	error.type                       if the status of the span is Error: the code, or else the
//	                                 status of the response
//	admit.plan, admit.key.id, admit.key.owner
//	admit.key.status                 of a rejected key: early, expired or revoked
//	admit.wait.duration              the seconds that the request waited for a place
//
// The status of the span is Error for a response of 500 or above, as in otelhttp, and also if a
// handler has failed after the response had begun, or has cut the connection. For a refusal,
// such as 401 or 429, and for a client that has left, the status stays unset.
//
// Both otelhttp and this package measure http.server.request.duration. With Config.NoDuration,
// only otelhttp does: it has the address of the server and the protocol, but neither the code nor
// the plan. To have these, leave NoDuration false, and give otelhttp a MeterProvider of package
// metric/noop. Without otelhttp, or outside it, there is no span, and the metrics are the same.
package admitotel

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"sync"
	"unicode/utf8"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/trace"

	"github.com/admit-go/admit"
)

// Config configures New. The zero value is ready to use.
type Config struct {
	// MeterProvider creates the instruments. Default: the global one, which may be set later.
	MeterProvider metric.MeterProvider
	// NoDuration leaves http.server.request.duration to otelhttp.
	NoDuration bool
}

// Metrics collects the metrics. It is safe for concurrent use.
type Metrics struct {
	c     Config
	meter metric.Meter
	wrap  admit.Middleware

	duration, wait, limitUsage metric.Float64Histogram
	keyRefusals, quotaNotices  metric.Int64Counter
	requests                   *series[admit.Labels, []metric.RecordOption]
	waits                      *series[waitLabels, []metric.RecordOption]
	refusals                   *series[refusalLabels, []metric.AddOption]
	usage                      *series[usageLabels, []metric.RecordOption]
	notices                    *series[noticeLabels, []metric.AddOption]

	mu      sync.Mutex
	watched map[[2]string]bool // by name and measure
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

const maxSeries = 10_000

// New returns Metrics. It fails if the MeterProvider does not create the instruments.
func New(c Config) (*Metrics, error) {
	if c.MeterProvider == nil {
		c.MeterProvider = otel.GetMeterProvider()
	}
	m := &Metrics{c: c, meter: c.MeterProvider.Meter("github.com/admit-go/admit/admitotel"), watched: map[[2]string]bool{}}
	m.wrap = admit.ObserveAs("admitotel", m.Observe)
	m.series()
	if err := m.instruments(); err != nil {
		return nil, fmt.Errorf("admitotel: Config.MeterProvider does not create the instruments; check its views: %w", err)
	}
	return m, nil
}

// instruments creates the instruments, except those of Watch.
func (m *Metrics) instruments() error {
	var faults []error
	histogram := func(name, unit, help string, bounds ...float64) metric.Float64Histogram {
		h, err := m.meter.Float64Histogram(name, metric.WithUnit(unit), metric.WithDescription(help), metric.WithExplicitBucketBoundaries(bounds...))
		faults = append(faults, err)
		return h
	}
	counter := func(name, unit, help string) metric.Int64Counter {
		n, err := m.meter.Int64Counter(name, metric.WithUnit(unit), metric.WithDescription(help))
		faults = append(faults, err)
		return n
	}
	seconds := []float64{0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10}
	if !m.c.NoDuration {
		m.duration = histogram("http.server.request.duration", "s", "Duration of HTTP server requests.", seconds...)
	}
	m.wait = histogram("admit.wait.duration", "s", "Time that requests have waited for a place.", seconds...)
	m.keyRefusals = counter("admit.key.refusals", "{request}", "Requests with a known key that is not valid.")
	m.limitUsage = histogram("admit.limit.usage", "1", "Fraction of a limit that is used after a decision.", 0.5, 0.8, 0.9, 0.95, 1)
	m.quotaNotices = counter("admit.quota.notices", "{notice}", "Quotas that have reached a percentage.")
	return errors.Join(faults...)
}

// series creates the caches of attribute sets.
func (m *Metrics) series() {
	m.requests = newSeries(maxSeries,
		func(l admit.Labels) admit.Labels {
			l.Route, l.Code, l.Plan = fold(l.Route), fold(l.Code), fold(l.Plan)
			return l
		},
		func(l admit.Labels) []metric.RecordOption {
			var a attributes
			a.text("http.request.method", l.Method)
			a.text("url.scheme", l.Scheme)
			a.add(attribute.Int("http.response.status_code", l.Status))
			a.text("http.route", l.Route)
			a.text("error.type", l.Code)
			a.text("admit.plan", l.Plan)
			return []metric.RecordOption{a.set()}
		})
	m.waits = newSeries(maxSeries,
		func(l waitLabels) waitLabels { return waitLabels{fold(l.route), fold(l.plan)} },
		func(l waitLabels) []metric.RecordOption {
			var a attributes
			a.text("http.route", l.route)
			a.text("admit.plan", l.plan)
			return []metric.RecordOption{a.set()}
		})
	m.refusals = newSeries(maxSeries,
		func(l refusalLabels) refusalLabels { return refusalLabels{l.status, fold(l.plan)} },
		func(l refusalLabels) []metric.AddOption {
			var a attributes
			a.text("admit.key.status", l.status.String())
			a.text("admit.plan", l.plan)
			return []metric.AddOption{a.set()}
		})
	m.usage = newSeries(maxSeries,
		func(l usageLabels) usageLabels { return usageLabels{fold(l.limiter), fold(l.limit), fold(l.plan)} },
		func(l usageLabels) []metric.RecordOption {
			var a attributes
			a.text("admit.limiter", l.limiter)
			a.text("admit.limit", l.limit)
			a.text("admit.plan", l.plan)
			return []metric.RecordOption{a.set()}
		})
	m.notices = newSeries(maxSeries,
		func(l noticeLabels) noticeLabels { return noticeLabels{fold(l.quota), l.percent} },
		func(l noticeLabels) []metric.AddOption {
			var a attributes
			a.text("admit.quota", l.quota)
			a.add(attribute.Int("admit.percent", l.percent))
			return []metric.AddOption{a.set()}
		})
}

// attributes is a list of attributes, without those that are empty.
type attributes []attribute.KeyValue

func (a *attributes) add(kv attribute.KeyValue) { *a = append(*a, kv) }

func (a *attributes) text(key attribute.Key, value string) {
	if value != "" {
		a.add(key.String(text(value)))
	}
}

func (a attributes) set() metric.MeasurementOption {
	return metric.WithAttributeSet(attribute.NewSet(a...))
}

// Wrap is an admit.Middleware that counts each request when it has ended, and adds attributes to
// its span. It may stand anywhere inside otelhttp; outside, there is no span. If a request passes
// more than one Wrap, the outermost counts it: see admit.ObserveAs.
func (m *Metrics) Wrap(next http.Handler) http.Handler { return m.wrap(next) }

// Observe counts a request, and adds attributes to its span. Use it as admit.Policy.Observe, or
// call it from an Observe of your own. Do not use it together with Wrap, or requests count twice.
func (m *Metrics) Observe(r *http.Request, o admit.Outcome) {
	ctx, l := r.Context(), o.Labels(r)
	if !m.c.NoDuration {
		m.duration.Record(ctx, o.Duration.Seconds(), m.requests.of(l)...)
	}
	if o.Waited > 0 {
		m.wait.Record(ctx, o.Waited.Seconds(), m.waits.of(waitLabels{l.Route, l.Plan})...)
	}
	if o.KeyStatus != admit.KeyValid {
		m.keyRefusals.Add(ctx, 1, m.refusals.of(refusalLabels{o.KeyStatus, o.Plan})...)
	}
	if span := trace.SpanFromContext(ctx); span.IsRecording() {
		tell(span, ctx, l.Route, o)
	}
}

// tell adds to the span how the request has ended.
func tell(span trace.Span, ctx context.Context, route string, o admit.Outcome) {
	a := make(attributes, 0, 8)
	a.text("http.route", route)
	a.text("admit.error.code", o.Code)
	a.text("admit.plan", o.Plan)
	a.text("admit.key.id", o.KeyID)
	a.text("admit.key.owner", o.Owner)
	if o.KeyStatus != admit.KeyValid {
		a.text("admit.key.status", o.KeyStatus.String())
	}
	if o.Waited > 0 {
		a.add(attribute.Float64("admit.wait.duration", o.Waited.Seconds()))
	}
	if kind := failure(ctx, o); kind != "" {
		a.text("error.type", kind)
		span.SetStatus(codes.Error, "") // without a description, as in the conventions: error.type has the reason
	}
	span.SetAttributes(a...)
}

// failure returns the error.type of a request by OpenTelemetry's conventions for servers, or ""
// for none. An error of the client is none.
func failure(ctx context.Context, o admit.Outcome) string {
	cut := o.Err != nil && o.Status < 400 && ctx.Err() == nil
	switch {
	case o.Status < 500 && !cut:
		return ""
	case o.Code != "":
		return o.Code
	case o.Status >= 500:
		return strconv.Itoa(o.Status)
	default:
		return other
	}
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
		m.limitUsage.Record(r.Context(), min(max(used, 0), 1), m.usage.of(usageLabels{e.Limiter, limit.Name, plan})...)
	}
}

// NotifyQuota counts a notice. Use it as admit.QuotasConfig.Notify, which one of all replicas
// calls.
func (m *Metrics) NotifyQuota(n admit.QuotaNotice) {
	m.quotaNotices.Add(context.Background(), 1, m.notices.of(noticeLabels{n.Quota, n.Percent})...)
}

// Watch exports the Measures of parts such as an admit.InFlight, an admit.KeyCache or a
// redislimit.Store. It reads them on each collection. The name is the value of the attribute
// admit.name, which distinguishes parts of the same kind: two Limiters need two names. It is an
// error if a measure has the same name twice; then none of the parts is watched.
func (m *Metrics) Watch(name string, parts ...interface{ Measures() []admit.Measure }) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if name == "" || !utf8.ValidString(name) {
		return fmt.Errorf("admitotel: Watch: the name is %q; give the name of what the parts belong to, such as \"api\"", name)
	}
	instruments := map[string]metric.Int64Observable{}
	for i, p := range parts {
		if p == nil {
			return fmt.Errorf("admitotel: Watch(%q): part %d is nil; create it first", name, i+1)
		}
		for _, measure := range p.Measures() {
			if m.watched[[2]string{name, measure.Name}] || instruments[measure.Name] != nil {
				return fmt.Errorf("admitotel: Watch(%q): %s is watched already; watch each part once, and parts of the same kind under different names", name, measure.Name)
			}
			instrument, err := m.observable(measure)
			if err != nil {
				return fmt.Errorf("admitotel: Watch(%q): the MeterProvider does not create an instrument for %q: %w", name, measure.Name, err)
			}
			instruments[measure.Name] = instrument
		}
	}
	if len(instruments) == 0 {
		return fmt.Errorf("admitotel: Watch(%q): there is nothing to watch; give the parts, such as an *admit.InFlight", name)
	}
	parts = slices.Clone(parts) // the caller may change its list
	named := metric.WithAttributeSet(attribute.NewSet(attribute.String("admit.name", name)))
	observe := func(_ context.Context, into metric.Observer) error {
		for _, p := range parts {
			for _, measure := range p.Measures() {
				if instrument := instruments[measure.Name]; instrument != nil { // nil for a measure that the part did not have in Watch
					into.ObserveInt64(instrument, measure.Value, named)
				}
			}
		}
		return nil
	}
	all := make([]metric.Observable, 0, len(instruments))
	for _, instrument := range instruments {
		all = append(all, instrument)
	}
	if _, err := m.meter.RegisterCallback(observe, all...); err != nil {
		return fmt.Errorf("admitotel: Watch(%q): the MeterProvider does not accept the callback: %w", name, err)
	}
	for measure := range instruments {
		m.watched[[2]string{name, measure}] = true
	}
	return nil
}

func (m *Metrics) observable(measure admit.Measure) (metric.Int64Observable, error) {
	if measure.Total {
		return m.meter.Int64ObservableCounter(measure.Name, metric.WithUnit(measure.Unit), metric.WithDescription(measure.Help))
	}
	return m.meter.Int64ObservableGauge(measure.Name, metric.WithUnit(measure.Unit), metric.WithDescription(measure.Help))
}
