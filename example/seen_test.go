package main

import (
	"encoding/json"
	"io"
	"net/http"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/admit-go/admit"
)

// Every request is a line of the log, and counted, on a port that callers do not reach.
func TestIsSeen(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	var log strings.Builder
	s := startLogged(t, writerFunc(func(p []byte) (int, error) {
		mu.Lock()
		defer mu.Unlock()
		return log.Write(p)
	}), "-log", "json")
	url, token := s.url, s.tokens["free"]
	metricsURL := regexp.MustCompile(`curl -s (\S+/metrics)`).FindStringSubmatch(s.greeting)[1]

	ask := func(url, key, accept string) (int, string) {
		r, err := http.NewRequestWithContext(t.Context(), "GET", url, nil)
		require.NoError(t, err)
		r.Header.Set("X-API-Key", key)
		r.Header.Set("Accept", accept)
		r.Header.Set("Traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
		res, err := http.DefaultClient.Do(r)
		require.NoError(t, err)
		defer res.Body.Close()
		body, err := io.ReadAll(res.Body)
		require.NoError(t, err)
		return res.StatusCode, string(body)
	}
	for path, want := range map[string]int{"/v1/prices/btc-usd": 200, "/v1/prices/none": 404, "/v1/history/btc-usd": 402, "/nowhere": 404} {
		status, body := ask(url+path, token, "application/json")
		assert.Equal(t, want, status, body)
	}
	status, _ := ask(url+"/metrics", token, "")
	assert.Equal(t, 404, status, "callers do not see metrics")

	status, found := ask(metricsURL, "", "application/openmetrics-text")
	assert.Equal(t, 200, status)
	for _, want := range []string{
		`http_server_request_duration_seconds_count{admit_plan="free",error_type="",http_request_method="GET",http_response_status_code="200",http_route="/v1/prices/{pair}",url_scheme="http"} 1`,
		`http_server_request_duration_seconds_count{admit_plan="free",error_type="plan_required",http_request_method="GET",http_response_status_code="402",http_route="/v1/history/{pair}",url_scheme="http"} 1`,
		`http_server_request_duration_seconds_count{admit_plan="",error_type="not_found",http_request_method="GET",http_response_status_code="404",http_route="",url_scheme="http"} 2`,
		`admit_limit_usage_count{admit_limit="second",admit_limiter="market-data",admit_plan="free"} 2`,
		`admit_shedder_max{admit_name="api"} 64`, `admit_limiter_callers{admit_name="api"} 1`, `admit_quotas_counters{admit_name="api"} 1`,
		`# {trace_id="0af7651916cd43dd8448eb211c80319c"}`, `go_goroutines`, `process_open_fds`,
	} {
		assert.Contains(t, found, want)
	}
	assert.NotContains(t, found, token)

	require.NoError(t, s.stop())
	mu.Lock()
	defer mu.Unlock()
	seen := map[string]float64{}
	for line := range strings.Lines(log.String()) {
		var l map[string]any
		require.NoError(t, json.Unmarshal([]byte(line), &l), line)
		if l["msg"] == "request" {
			seen[l["url.path"].(string)] = l["http.response.status_code"].(float64)
		}
	}
	assert.Equal(t, map[string]float64{"/v1/prices/btc-usd": 200, "/v1/prices/none": 404, "/v1/history/btc-usd": 402, "/nowhere": 404, "/metrics": 404}, seen)
	assert.NotContains(t, log.String(), token)
	_, err := http.Get(metricsURL)
	assert.Error(t, err, "nothing listens any more")
}

func TestLogFormats(t *testing.T) {
	t.Parallel()
	keys := filepath.Join(t.TempDir(), "keys.json")
	assert.ErrorContains(t, run(t.Context(), []string{"-log", "xml", "-keys", keys}, io.Discard, io.Discard), `-log is "xml"; it is text or json`)
	assert.NoFileExists(t, keys)
}

// What is no trace of ours is no exemplar.
func TestTraceOf(t *testing.T) {
	t.Parallel()
	for parent, want := range map[string]string{
		"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01": "0af7651916cd43dd8448eb211c80319c",
		"":   "",
		"00": "",
		"00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01":      "",
		"00-0af7651916cd43dd8448eb211c80319c\"b7ad6b7169203331-01":     "",
		"00-0af7651916cd43dd8448\xff\xff11c80319c-b7ad6b7169203331-01": "",
		"01-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01":      "",
	} {
		r := &http.Request{Header: http.Header{"Traceparent": {parent}}}
		assert.Equal(t, want, traceOf(r, admit.Outcome{})["trace_id"], "%q", parent)
	}
}
