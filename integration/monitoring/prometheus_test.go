package monitoring_test

import (
	"encoding/json"
	"math"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/common/model"
	"github.com/stretchr/testify/require"

	"github.com/admit-go/admit/integration/servers"
)

// speed is how much faster time goes in the test than at night, for all alike: a window has as
// many scrapes as it is shipped with, and an alert waits for as many.
const speed = 250

var (
	scrapeInterval = regexp.MustCompile(`scrape_interval: (\w+)`)
	intervals      = regexp.MustCompile(`(?:scrape|evaluation)_interval: (\w+)`)
	window         = regexp.MustCompile(`(?:\[|offset )(\d+[smhd])\b`)
	waiting        = regexp.MustCompile(`\bfor: (\w+)`)
	target         = regexp.MustCompile(`"127\.0\.0\.1:\d+"`)
)

// faster divides each duration that a pattern finds. There must be as many as are expected.
func faster(t *testing.T, text string, find *regexp.Regexp, expected int) string {
	t.Helper()
	found := 0
	text = find.ReplaceAllStringFunc(text, func(match string) string {
		found++
		was := find.FindStringSubmatch(match)[1]
		return strings.Replace(match, was, model.Duration(duration(t, was)/speed).String(), 1)
	})
	require.Equal(t, expected, found, "%v", find)
	return text
}

// server is a Prometheus that scrapes one address, with what is shipped.
type server struct {
	url  string
	step time.Duration // between scrapes
}

func startPrometheus(t *testing.T, scrapes string) *server {
	t.Helper()
	dir := t.TempDir()
	rules := read(t, "rules.yml")
	rules = faster(t, rules, window, len(regexp.MustCompile(`\[\d|\soffset\s`).FindAllString(rules, -1)))
	rules = faster(t, rules, waiting, strings.Count(rules, "- alert:"))
	config := faster(t, read(t, "prometheus.yml"), intervals, 2)
	step := duration(t, scrapeInterval.FindStringSubmatch(config)[1])
	require.Len(t, target.FindAllString(config, -1), 1)
	config = target.ReplaceAllString(config, strconv.Quote(scrapes))
	for name, text := range map[string]string{"rules.yml": rules, "prometheus.yml": config} {
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600))
	}
	return &server{url: servers.StartPrometheus(t, filepath.Join(dir, "prometheus.yml")), step: step}
}

// get asks the API.
func (s *server) get(t *testing.T, path string, query url.Values, into any) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, s.url+"/api/v1/"+path+"?"+query.Encode(), nil)
	require.NoError(t, err)
	res, err := http.DefaultClient.Do(r)
	require.NoError(t, err)
	defer res.Body.Close()
	var answer struct {
		Error string
		Data  json.RawMessage
	}
	require.NoError(t, json.NewDecoder(res.Body).Decode(&answer))
	require.Empty(t, answer.Error, "%s %v", path, query)
	require.NoError(t, json.Unmarshal(answer.Data, into))
}

// rule is an alert of rules.yml.
type rule struct {
	Name, Health, LastError string
	Duration                float64
	Labels, Annotations     map[string]string
	Alerts                  []struct {
		State               string
		Labels, Annotations map[string]string
	}
}

// rules are all, each of which can be evaluated.
func (s *server) rules(t *testing.T) []rule {
	t.Helper()
	var found struct{ Groups []struct{ Rules []rule } }
	s.get(t, "rules", nil, &found)
	var all []rule
	for _, g := range found.Groups {
		for _, r := range g.Rules {
			require.NotEqual(t, "err", r.Health, "%s: %s", r.Name, r.LastError)
			all = append(all, r)
		}
	}
	return all
}

// alerts are those in one of the states, each with its annotations as they are sent. Where a rule
// is for several stores or kinds of keys, the name ends with that: AdmitStoreDown keycache.
func (s *server) alerts(t *testing.T, states ...string) map[string]map[string]string {
	t.Helper()
	all := map[string]map[string]string{}
	for _, r := range s.rules(t) {
		for _, a := range r.Alerts {
			if slices.Contains(states, a.State) {
				all[strings.TrimSpace(r.Name+" "+a.Labels["store"]+a.Labels["admit_key_status"])] = a.Annotations
			}
		}
	}
	return all
}

// seen is what a query has shown.
type seen struct {
	series int
	max    float64
	nan    bool // or infinite
	labels map[string]bool
}

// over asks a query for each step of a time.
func (s *server) over(t *testing.T, expr string, from, to time.Time) seen {
	t.Helper()
	var found struct {
		Result []struct {
			Metric map[string]string
			Values [][2]any
		}
	}
	at := func(v time.Time) string { return strconv.FormatFloat(float64(v.UnixMilli())/1000, 'f', 3, 64) }
	s.get(t, "query_range", url.Values{"query": {expr}, "start": {at(from)}, "end": {at(to)}, "step": {s.step.String()}}, &found)
	is := seen{series: len(found.Result), labels: map[string]bool{}}
	for _, series := range found.Result {
		for label := range series.Metric {
			is.labels[label] = true
		}
		for _, v := range series.Values {
			value, err := strconv.ParseFloat(v[1].(string), 64)
			require.NoError(t, err)
			is.nan = is.nan || math.IsNaN(value) || math.IsInf(value, 0)
			is.max = max(is.max, value)
		}
	}
	return is
}
