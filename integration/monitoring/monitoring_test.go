// Package monitoring holds what the example is watched with against a real Prometheus: each
// query of the dashboard shows something, and each alert fires for its fault and no other.
package monitoring_test

import (
	"bytes"
	"context"
	"io"
	"maps"
	"net/http"
	"net/url"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/admit-go/admit/integration/servers"
)

// fault is something that goes wrong, and who is told.
type fault struct {
	name    string
	fires   []string // these alerts, and no others
	begin   func(*testing.T, *watched) (end func())
	lasts   time.Duration // at least
	forever bool          // there is no way back, so that it is the last
}

// calls is a fault that requests bring about.
func calls(aSecond int, kind, path string) func(*testing.T, *watched) func() {
	return func(t *testing.T, s *watched) func() {
		return often(t, aSecond, func(ctx context.Context) { s.call(ctx, kind, path) })
	}
}

// burst sends requests at once, again and again.
func burst(n int, every time.Duration, path string) func(*testing.T, *watched) func() {
	return func(t *testing.T, s *watched) func() {
		return often(t, int(time.Second/every), func(ctx context.Context) {
			var all sync.WaitGroup
			for range n {
				all.Go(func() { s.call(ctx, "pro", path) })
			}
			all.Wait()
		})
	}
}

var faults = []fault{
	{name: "nothing is wrong", lasts: 2 * time.Second, begin: func(*testing.T, *watched) func() { return func() {} }},
	{name: "a handler panics, once", fires: []string{"AdmitPanicsOrFails"}, begin: func(t *testing.T, s *watched) func() {
		s.call(t.Context(), "pro", "/v1/panic")
		return func() {}
	}},
	{name: "an upstream is down", fires: []string{"AdmitErrors"}, begin: calls(40, "pro", "/v1/upstream?as=refused")},
	{name: "the key store is down", fires: []string{"AdmitStoreDown keycache", "AdmitStoreRefuses"}, begin: func(_ *testing.T, s *watched) func() {
		s.keysDown.Store(true)
		return func() { s.keysDown.Store(false) }
	}},
	{name: "Redis is down", fires: []string{"AdmitStoreDown limiter", "AdmitStoreDown redislimit"}, begin: func(_ *testing.T, s *watched) func() {
		s.redis.Set(servers.Weather{Cut: true})
		return func() { s.redis.Set(servers.Weather{}) }
	}},
	{name: "the quota store is down", fires: []string{"AdmitStoreDown quotas", "AdmitStoreRefuses"}, begin: func(_ *testing.T, s *watched) func() {
		s.quotasDown.Store(true)
		return func() { s.quotasDown.Store(false) }
	}},
	{name: "bursts have to wait", fires: []string{"AdmitWaits"}, begin: burst(100, 400*time.Millisecond, "/v1/slow?d=40ms")},
	{name: "there is more to do than places", fires: []string{"AdmitShedsPaying", "AdmitWaits"}, begin: burst(140, 500*time.Millisecond, "/v1/slow?d=700ms")},
	{name: "a client loops", fires: []string{"AdmitPlanNearItsLimit"}, begin: calls(40, "busy", "/v1/prices/btc-usd")},
	{name: "revoked and expired keys are tried", fires: []string{"AdmitRefusedKeysStillTried expired", "AdmitRefusedKeysStillTried revoked"}, begin: func(t *testing.T, s *watched) func() {
		revoked := calls(40, "revoked", "/v1/prices/btc-usd")(t, s)
		expired := calls(40, "expired", "/v1/prices/btc-usd")(t, s)
		return func() { revoked(); expired() }
	}},
	{name: "keys are guessed", fires: []string{"AdmitKeysAreGuessed"}, begin: calls(40, "unknown", "/v1/prices/btc-usd")},
	{name: "an account uses up its quota", fires: []string{"AdmitQuotaUsedUp"}, begin: func(t *testing.T, s *watched) func() {
		end := calls(20, "spent", "/v1/prices/btc-usd")(t, s)
		return func() { end(); s.tokens["spent"] = s.tokens["spent"][:len(s.tokens["spent"])-1] }
	}},
	{name: "clients do not wait", fires: []string{"AdmitClientsLeave"}, begin: func(t *testing.T, s *watched) func() {
		return often(t, 40, func(ctx context.Context) {
			ctx, cancel := context.WithTimeout(ctx, 20*time.Millisecond)
			defer cancel()
			s.call(ctx, "pro", "/v1/slow?d=200ms")
		})
	}},
	{name: "metrics cannot be scraped", fires: []string{"AdmitTargetDown"}, begin: func(_ *testing.T, s *watched) func() {
		s.metrics.Close()
		return func() {}
	}, forever: true},
}

func TestDashboardAndAlerts(t *testing.T) {
	if raced {
		t.Skip("the service is too slow for what comes on a good day")
	}
	servers.Program(t, "prometheus")
	s := startService(t)
	p := startPrometheus(t, s.metrics.Listener.Addr().String())
	began := time.Now()

	// Nobody has called yet.
	eventually(t, func() bool { return p.over(t, "up == 1", began, time.Now()).series == 1 }, "it is scraped")
	untouched := p.ask(t, began)
	for expr, is := range untouched {
		assert.False(t, is.nan, "no number without requests: %s", expr)
	}
	require.Empty(t, p.alerts(t, "firing"))

	end := often(t, 150, s.healthy)
	defer end()
	covered := map[string]bool{}
	for _, f := range faults {
		meet(t, p, s, f)
		for _, alert := range f.fires {
			name, _, _ := strings.Cut(alert, " ")
			covered[name] = true
		}
	}
	for _, r := range p.rules(t) {
		assert.True(t, covered[r.Name], "no fault makes %s fire", r.Name)
		assert.Contains(t, []string{"page", "ticket", "info"}, r.Labels["severity"], r.Name)
	}

	shown := p.ask(t, began)
	for _, panel := range panels(t) {
		t.Logf("%s (%s)", panel.Title, panel.Type)
		for _, target := range panel.Targets {
			is := shown[target.Expr]
			t.Logf("    %d series, at most %.4g: %s", is.series, is.max, target.Expr)
			assert.False(t, is.nan, "no number: %s", target.Expr)
			assert.Positive(t, is.max, "%s has shown nothing: %s", panel.Title, target.Expr)
			if panel.FieldConfig.Defaults.Unit == "percentunit" {
				assert.LessOrEqual(t, is.max, 1+1e-9, "%s is a part of a whole: %s", panel.Title, target.Expr)
			}
			for _, m := range legendLabel.FindAllStringSubmatch(target.LegendFormat, -1) {
				assert.True(t, is.labels[m[1]], "%s: no series has the label of %s", panel.Title, target.LegendFormat)
			}
		}
	}
}

// meet wants a fault to make its alerts fire, and no others. A machine that is busy makes faults
// of its own, such as a store that is late, so that the fault has three tries: a rule that
// takes one fault for another does so in each.
func meet(t *testing.T, p *server, s *watched, f fault) {
	t.Helper()
	var others []string
	for range 3 {
		if others = try(t, p, s, f); len(others) == 0 {
			return
		}
		t.Logf("%s: %v fire too", f.name, others)
	}
	t.Errorf("%s: each time others fire than %v, now %v", f.name, f.fires, others)
}

// try begins a fault, waits for its alerts, ends it, and waits for their end. It returns which
// others have fired.
func try(t *testing.T, p *server, s *watched, f fault) (others []string) {
	t.Helper()
	began := time.Now()
	end := f.begin(t, s)
	fired := map[string]map[string]string{}
	told := func() any { return slices.Sorted(maps.Keys(fired)) }
	look := func() {
		now := p.alerts(t, "firing")
		maps.Copy(now, fired) // as it was told first
		fired = now
	}
	eventually(t, func() bool {
		look()
		return !slices.ContainsFunc(f.fires, func(alert string) bool { return fired[alert] == nil }) && time.Since(began) >= f.lasts
	}, f.name, told)
	after := time.Since(began)
	end()
	eventually(t, func() bool {
		look()
		return f.forever || len(p.alerts(t, "firing", "pending")) == 0
	}, "the alerts end after: "+f.name, told)
	for _, alert := range slices.Sorted(maps.Keys(fired)) {
		if !slices.Contains(f.fires, alert) {
			others = append(others, alert)
			continue
		}
		summary, description := fired[alert]["summary"], fired[alert]["description"]
		t.Logf("%s: %s after %.1f s: %s", f.name, alert, after.Seconds(), summary)
		assert.NotEmpty(t, summary, alert)
		assert.NotEmpty(t, description, alert)
		assert.NotContains(t, summary+description, "<no value>", alert)
	}
	return others
}

// ask asks each query of the dashboard, as Grafana does where All is chosen, for each scrape
// since a time.
func (s *server) ask(t *testing.T, since time.Time) map[string]seen {
	t.Helper()
	until := time.Now()
	fill := []string{"$__rate_interval", (4 * s.step).String()}
	for name, v := range variables(t) {
		var offered []string
		s.get(t, "label/"+v.label+"/values", url.Values{"match[]": {strings.ReplaceAll(v.metric, "$job", ".+")}}, &offered)
		require.Len(t, offered, 1, "$%s offers the service", name)
		require.Regexp(t, "^("+v.all+")$", offered[0])
		fill = append(fill, "$"+name, v.all)
	}
	all := map[string]seen{}
	for _, panel := range panels(t) {
		for _, target := range panel.Targets {
			expr := strings.NewReplacer(fill...).Replace(target.Expr)
			require.NotContains(t, expr, "$")
			expr = faster(t, expr, window, len(window.FindAllString(expr, -1)))
			all[target.Expr] = s.over(t, expr, since, until)
		}
	}
	return all
}

var legendLabel = regexp.MustCompile(`{{(\w+)}}`)

func eventually(t *testing.T, is func() bool, what string, found ...func() any) {
	t.Helper()
	for began := time.Now(); !is(); time.Sleep(20 * time.Millisecond) {
		if time.Since(began) > 15*time.Second {
			for _, f := range found {
				t.Logf("found: %v", f())
			}
			t.Fatalf("not in 15 s: %s", what)
		}
	}
}

func TestPromtoolTakesTheMetrics(t *testing.T) {
	program := servers.Program(t, "promtool")
	s := startService(t)
	for range 100 {
		s.healthy(t.Context())
	}
	res, err := http.Get(s.metrics.URL) // without OpenMetrics, which promtool does not read
	require.NoError(t, err)
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	require.NoError(t, err)
	require.Contains(t, string(text), "admit_limit_usage_bucket")
	check := exec.CommandContext(t.Context(), program, "check", "metrics")
	check.Stdin = bytes.NewReader(text)
	output, err := check.CombinedOutput()
	assert.NoError(t, err, "%s", output)
	assert.Empty(t, string(output))
}
