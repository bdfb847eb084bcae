package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// Each chain does what it is said to do, over both protocols, and no more.
func TestContestantsAnswer(t *testing.T) {
	t.Parallel()
	for _, c := range contestants {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			url := serveTest(t, c.wrap(handler))
			require.NoError(t, c.check(url))

			var protocols http.Protocols
			protocols.SetUnencryptedHTTP2(true)
			transport := &http.Transport{Protocols: &protocols}
			defer transport.CloseIdleConnections()
			res, err := (&http.Client{Transport: transport}).Do(newRequest(url))
			require.NoError(t, err)
			defer res.Body.Close()
			answer, err := io.ReadAll(res.Body)
			require.NoError(t, err)
			assert.Equal(t, 2, res.ProtoMajor)
			assert.Equal(t, 200, res.StatusCode)
			assert.JSONEq(t, fmt.Sprintf(`{"result":"success","data":%s}`, body), string(answer))
		})
	}
}

func serveTest(t *testing.T, h http.Handler) string {
	s := httptest.NewUnstartedServer(nil)
	s.Config = newServer(h)
	s.Start()
	t.Cleanup(s.Close)
	return s.URL + path
}

// A chain that does less, more or something else than it says is no contestant.
func TestCheckFinds(t *testing.T) {
	t.Parallel()
	bare, policy := contestants[0], contestants[1]
	for name, c := range map[string]struct {
		check contestant
		url   string
		fault string
	}{
		"less":         {contestant{does: everything}, serveTest(t, handler), "401 without a key: said true"},
		"more":         {bare, serveTest(t, policy.wrap(handler)), "406: said false"},
		"wrong status": {bare, serveTest(t, http.NotFoundHandler()), "404"},
		"wrong body":   {bare, serveTest(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "{}") })), `"{}"`},
	} {
		assert.ErrorContains(t, c.check.check(c.url), c.fault, name)
	}
}

// The process that start makes is this function; its input ends with the other.
func TestServe(t *testing.T) {
	t.Parallel()
	stdin, stop := io.Pipe()
	stdout, print := io.Pipe()
	profile := t.TempDir() + "/policy.pprof"
	ended := make(chan error)
	go func() { ended <- serve("policy", profile, stdin, print) }()
	var address string
	_, err := fmt.Fscanln(stdout, &address)
	require.NoError(t, err)
	require.NoError(t, contestants[1].check("http://"+address+path))
	require.NoError(t, stop.Close())
	require.NoError(t, <-ended)
	assert.FileExists(t, profile)

	assert.ErrorAs(t, serve("nobody", "", stdin, print), new(cannotBegin))
}

func TestOptions(t *testing.T) {
	t.Parallel()
	o, err := parseOptions(nil, io.Discard)
	require.NoError(t, err)
	assert.Equal(t, options{rounds: 5, lasts: 3 * time.Second, connections: []int{1, 64, 512}, h2: true}, o)
	assert.Equal(t, []load{wrk{1}, wrk{64}, wrk{512}, h2load{8, 8}}, o.loads())
	o, err = parseOptions([]string{"-connections", "7", "-h2=false"}, io.Discard)
	require.NoError(t, err)
	assert.Equal(t, []load{wrk{7}}, o.loads())
	o, err = parseOptions([]string{"-connections", ""}, io.Discard)
	require.NoError(t, err)
	assert.Equal(t, []load{h2load{8, 8}}, o.loads())

	for _, wrong := range []string{
		"-rounds=0", "-for=500ms", "-for=1500ms", "-connections=", "-connections=0", "-connections=1,,2", "-connections=many", "-nothing", "more",
	} {
		var stderr bytes.Buffer
		assert.Equal(t, 2, command(context.Background(), []string{"-h2=false", wrong}, io.Discard, &stderr), wrong)
		assert.NotEmpty(t, stderr.String(), wrong)
	}
	assert.Equal(t, 0, command(context.Background(), []string{"-help"}, io.Discard, io.Discard))
}

func TestMissingPrograms(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	var stderr bytes.Buffer
	assert.Equal(t, 2, command(t.Context(), nil, io.Discard, &stderr))
	assert.Contains(t, stderr.String(), "apt-get install wrk nghttp2-client\n")
	stderr.Reset()
	assert.Equal(t, 2, command(t.Context(), []string{"-h2=false"}, io.Discard, &stderr))
	assert.Contains(t, stderr.String(), "apt-get install wrk\n")
}

func TestScript(t *testing.T) {
	t.Parallel()
	s := script()
	assert.Contains(t, s, "wrk.method = \"POST\"\n")
	assert.Contains(t, s, `wrk.body = "{\"pair\":\"btc-usd\",`)
	assert.Contains(t, s, `wrk.headers["Authorization"] = "Bearer load_0`)
	assert.Contains(t, s, wrkFormat)
}

// What wrk 4.1.0 prints.
const (
	wrkOK = `Running 1s test @ http://127.0.0.1:34567/v1/orders
  2 threads and 8 connections
  Thread Stats   Avg      Stdev     Max   +/- Stdev
    Latency     1.81ms    2.48ms  19.84ms   87.93%
    Req/Sec     3.78k   635.12     5.19k    75.00%
  7532 requests in 1.00s, 2.41MB read
Requests/sec:   7508.53
Transfer/sec:      2.41MB
load: 7532 requests in 1003126 us, p50 738 us, p99 11562 us; errors: 0 connect, 0 read, 0 write, 0 timeout, 0 status
`
	wrk401 = `Running 1s test @ http://127.0.0.1:33749/
  2 threads and 8 connections
  Thread Stats   Avg      Stdev     Max   +/- Stdev
    Latency     0.96ms  735.67us   8.43ms   86.12%
    Req/Sec     4.53k   646.00     5.87k    65.00%
  9020 requests in 1.00s, 4.11MB read
  Non-2xx or 3xx responses: 9020
Requests/sec:   9005.67
Transfer/sec:      4.11MB
load: 9020 requests in 1001591 us, p50 758 us, p99 4036 us; errors: 0 connect, 0 read, 0 write, 0 timeout, 9020 status
`
)

func TestParseWrk(t *testing.T) {
	t.Parallel()
	s, err := parseWrk(wrkOK)
	require.NoError(t, err)
	assert.InDelta(t, 7508.53, s.perSecond, 0.01)
	assert.Equal(t, 738*time.Microsecond, s.p50)
	assert.Equal(t, 11562*time.Microsecond, s.p99)

	for out, fault := range map[string]string{
		"": "has not said",
		"unable to connect to 127.0.0.1:1 Connection refused\n": "Connection refused",
		wrk401: "has seen errors",
		strings.Replace(wrkOK, "0 timeout", "1 timeout", 1):        "has seen errors",
		strings.Replace(wrkOK, "0 read", "64 read", 1):             "has seen errors",
		strings.Replace(wrkOK, "load: 7532 req", "load: 0 req", 1): "cannot have seen",
		strings.Replace(wrkOK, "p50 738 us", "p50 -nan us", 1):     "expected integer",
		wrkOK[:strings.Index(wrkOK, ", 0 status")]:                 "EOF",
		strings.Replace(wrkOK, "p99 11562", "p99 99999999999", 1):  "integer overflow",
		strings.Replace(wrkOK, "p99 11562", "p99 700", 1):          "cannot have seen",
	} {
		_, err := parseWrk(out)
		assert.ErrorContains(t, err, fault, out)
	}
}

// What h2load 1.52.0 prints, from where it differs.
const (
	h2loadOK = `Stopped all clients for thread #1

finished in 1.00s, 5740.00 req/s, 470.81KB/s
requests: 5740 total, 5748 started, 5740 done, 5740 succeeded, 0 failed, 0 errored, 0 timeout
status codes: 5740 2xx, 0 3xx, 0 4xx, 0 5xx
traffic: 470.81KB (482110) total, 195.97KB (200676) headers (space savings 87.00%), 173.77KB (177940) data
                     min         max         mean         sd        +/- sd
time for request:      184us      8.50ms      1.36ms       878us    83.03%
time for connect:       40us        77us        59us        25us   100.00%
time to 1st byte:     4.66ms      5.60ms      5.13ms       666us   100.00%
req/s           :    2858.59     2876.83     2867.71       12.90   100.00%
`
	h2load401 = `finished in 1.00s, 4986.00 req/s, 1.07MB/s
requests: 4986 total, 4994 started, 4986 done, 0 succeeded, 4986 failed, 0 errored, 0 timeout
status codes: 0 2xx, 0 3xx, 4986 4xx, 0 5xx
`
	h2loadRefused = `finished in 1.00s, 0.00 req/s, 0B/s
requests: 0 total, 0 started, 0 done, 0 succeeded, 0 failed, 0 errored, 0 timeout
status codes: 0 2xx, 0 3xx, 0 4xx, 0 5xx
`
)

func TestParseH2load(t *testing.T) {
	t.Parallel()
	s, err := parseH2load(h2loadOK)
	require.NoError(t, err)
	assert.Equal(t, sample{perSecond: 5740}, s)
	for _, out := range []string{
		"", h2load401, h2loadRefused,
		strings.Replace(h2loadOK, "0 errored", "64 errored", 1),
		strings.Replace(h2loadOK, "5740 2xx, 0 3xx", "5730 2xx, 10 3xx", 1),
		strings.Replace(h2loadOK, "5740 succeeded", "5739 succeeded", 1),
	} {
		_, err := parseH2load(out)
		assert.ErrorContains(t, err, "h2load", out)
	}
}

func TestParseH2loadLog(t *testing.T) {
	t.Parallel()
	p50, p99, err := parseH2loadLog(strings.NewReader("1795352060967412\t200\t4632\n1795352060967413\t200\t4587\n1795352060967414\t200\t4629\n"))
	require.NoError(t, err)
	assert.Equal(t, 4629*time.Microsecond, p50)
	assert.Equal(t, 4632*time.Microsecond, p99)
	for _, log := range []string{"", "1795352061982638\t401\t2077\n", "1795352061982638\t200\n", "1795352061982638\t200\t-1\n", strings.Repeat("1", 1<<17)} {
		_, _, err := parseH2loadLog(strings.NewReader(log))
		assert.Error(t, err, log)
	}
}

// Whatever is taken for a sample can be one: requests were answered, and times are in order.
func FuzzParse(f *testing.F) {
	for _, seed := range []string{wrkOK, wrk401, h2loadOK, h2load401, h2loadRefused, "1795352060967412\t200\t4632\n1795352060967413\t200\t4587\n"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, out string) {
		if s, err := parseWrk(out); err == nil {
			assert.Positive(t, s.perSecond)
			assert.True(t, s.p50 >= 0 && s.p50 <= s.p99, s)
		}
		if s, err := parseH2load(out); err == nil {
			assert.Positive(t, s.perSecond)
		}
		if p50, p99, err := parseH2loadLog(strings.NewReader(out)); err == nil {
			assert.True(t, p50 >= 0 && p50 <= p99, out)
		}
	})
}

func TestReport(t *testing.T) {
	t.Parallel()
	assert.Equal(t, 2.0, median([]float64{3, 1, 2}))
	assert.Equal(t, 2.0, median([]float64{4, 3, 1, 2}), "the lower of the two in the middle")
	assert.Equal(t, []float64{1, 0.25}, ratiosTo([]sample{{perSecond: 2}, {perSecond: 4}}, []sample{{perSecond: 2}, {perSecond: 1}}, perSecond))
	assert.Equal(t, "80.0% (70.0..90.0)", spread([]float64{0.9, 0.7, 0.8}))

	m := newMeasurement(options{rounds: 3, lasts: time.Second}, []load{wrk{64}})
	for i := range contestants {
		for round := range 3 {
			m.samples[0][i] = append(m.samples[0][i], sample{float64((round + 1) * 10_000 / (i + 1)), time.Millisecond, time.Duration(i+2) * time.Millisecond, 50 * time.Microsecond})
		}
	}
	document := m.document("a machine.", m.tables())
	assert.Contains(t, document, "a machine.\n")
	assert.Contains(t, document, "### HTTP/1.1, 64 connections\n")
	assert.Contains(t, document, "| bare | 20.0k | 100.0% (100.0..100.0) | 1.000 ms | 2.000 ms | 50.0 µs |\n")
	assert.Contains(t, document, "| policy | 10.0k | 50.0% (50.0..50.0) | 1.000 ms | 3.000 ms | 50.0 µs |\n")
	assert.Contains(t, document, "\npolicy to peers: 300.0% (300.0..300.1) of the requests a second, 100.0% (100.0..100.0) of the CPU a request.\n")
	assert.Contains(t, document, "- **peers**: key + httprate + chi AllowContentType + elnormous Accept + chi Timeout. Does not do: 405, ")
	assert.Contains(t, machineAndTools(), "go1.")
}

func TestCPUOf(t *testing.T) {
	t.Parallel()
	assert.Equal(t, 1230*time.Millisecond, parseStat("24126 (a) name) S 1 2 3 4 5 6 7 8 9 10 100 23 0 0 20 0 1"))
	for _, wrong := range []string{"", "24126 (name)", "24126 (name) S 1 2 3", "24126 (name) S 1 2 3 4 5 6 7 8 9 10 a b 0 0"} {
		assert.Zero(t, parseStat(wrong), wrong)
	}
}
