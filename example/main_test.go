package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// instance is the example as a user starts it.
type instance struct {
	greeting, url string
	tokens        map[string]string // by the name of the key; none if the keys were there
	stop          func() error      // as a signal does
}

func start(t *testing.T, args ...string) *instance {
	t.Helper()
	return startLogged(t, io.Discard, args...)
}

func startLogged(t *testing.T, log io.Writer, args ...string) *instance {
	t.Helper()
	args = append([]string{"-addr", "127.0.0.1:0", "-keys", filepath.Join(t.TempDir(), "keys.json"), "-metrics", "127.0.0.1:0"}, args...)
	ctx, cancel := context.WithCancel(t.Context())
	greeted, done := make(chan string, 1), make(chan error, 1)
	go func() {
		done <- run(ctx, args, writerFunc(func(p []byte) (int, error) {
			greeted <- string(p)
			return len(p), nil
		}), log)
	}()
	s := &instance{tokens: map[string]string{}}
	s.stop = sync.OnceValue(func() error {
		cancel()
		return <-done
	})
	t.Cleanup(func() { assert.NoError(t, s.stop()) })
	select {
	case s.greeting = <-greeted:
	case err := <-done:
		done <- err
		t.Fatal(err)
	}
	s.url = regexp.MustCompile(`http://[0-9.:]+`).FindString(s.greeting)
	for _, m := range regexp.MustCompile(`(?m)^([A-Z]+)=(demo_\w+)$`).FindAllStringSubmatch(s.greeting, -1) {
		s.tokens[strings.ToLower(m[1])] = m[2]
	}
	return s
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }

// call sends a request with the key of a name, if one is given.
func (s *instance) call(t *testing.T, key, method, path, body string) (*http.Response, string) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, s.url+path, strings.NewReader(body))
	require.NoError(t, err)
	if key != "" {
		r.Header.Set("X-API-Key", s.tokens[key])
	}
	if body != "" {
		r.Header.Set("Content-Type", "application/json")
	}
	return s.do(t, r)
}

// A start that fails says what to do, and makes no keys.
func TestPortInUse(t *testing.T) {
	t.Parallel()
	keys := filepath.Join(t.TempDir(), "keys.json")
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer taken.Close()
	for args, want := range map[[4]string]string{
		{"-addr", taken.Addr().String(), "-metrics", ""}:            "choose another address, such as -addr 127.0.0.1:8081",
		{"-addr", "127.0.0.1:0", "-metrics", taken.Addr().String()}: "choose another address, such as -metrics 127.0.0.1:9465, or none with -metrics=",
	} {
		err := run(t.Context(), append(args[:], "-keys", keys), io.Discard, io.Discard)
		require.ErrorContains(t, err, taken.Addr().String())
		require.ErrorContains(t, err, want)
	}
	assert.NoFileExists(t, keys)
}

func TestRoutes(t *testing.T) {
	t.Parallel()
	s := start(t)
	const order = `{"pair":"btc-usd","side":"buy","quantity":"0.5","client_id":"c1"}`
	for _, test := range []struct {
		key, method, path, body string
		status                  int
		want                    string // a part of the body
	}{
		{"", "GET", "/healthz", "", 200, `"status":"up"`},
		{"free", "GET", "/v1/prices/btc-usd", "", 200, `"pair":"btc-usd"`},
		{"", "GET", "/v1/prices/btc-usd", "", 401, "key_missing"},
		{"free", "GET", "/v1/prices/doge-usd", "", 404, "There is no such pair"},
		{"free", "POST", "/v1/prices/btc-usd", "", 405, "method_not_allowed"},
		{"free", "BREW", "/v1/prices/btc-usd", "", 501, "not_implemented"},
		{"free", "GET", "/v1/history/btc-usd", "", 402, "https://example.com/plans/pro"},
		{"pro", "GET", "/v1/history/btc-usd", "", 200, `"pair":"btc-usd"`},
		{"", "GET", "/v1/usage", "", 401, "key_missing"},
		{"pro", "POST", "/v1/orders", order, 403, "scope_required"},
		{"trader", "POST", "/v1/orders", order, 201, `"client_id":"c1"`},
		{"trader", "POST", "/v1/orders", order, 409, "conflict"},
		{"trader", "POST", "/v1/orders", `{`, 400, "bad_request"},
		{"trader", "POST", "/v1/orders", `{"pair":1,"colour":"red"}`, 422, `"path":"colour"`},
		{"trader", "POST", "/v1/orders", `{"pair":"x","side":"buy","quantity":"0.0","client_id":"c2"}`, 422, `"path":"quantity"`},
		{"trader", "POST", "/v1/orders", `{"pair":"` + strings.Repeat("x", 64<<10) + `"}`, 413, "body_too_large"},
		{"pro", "GET", "/v1/slow?d=1ms", "", 200, "1ms"},
		{"pro", "GET", "/v1/slow?d=2s", "", 503, "handler_timeout"},
		{"pro", "GET", "/v1/slow?d=1h", "", 400, "must be a duration"},
		{"pro", "GET", "/v1/panic", "", 500, "internal"},
		{"pro", "GET", "/v1/upstream?as=refused", "", 502, "bad_gateway"},
		{"pro", "GET", "/v1/upstream?as=slow", "", 504, "gateway_timeout"},
		{"pro", "GET", "/v1/upstream", "", 400, "as must be"},
		{"", "GET", "/nowhere", "", 404, "not_found"},
	} {
		res, body := s.call(t, test.key, test.method, test.path, test.body)
		assert.Equal(t, test.status, res.StatusCode, "%s %s: %s", test.method, test.path, body)
		assert.Contains(t, body, test.want)
		assert.True(t, json.Valid([]byte(body)), body)
	}
}

func TestLimitsByPlan(t *testing.T) {
	t.Parallel()
	s := start(t)
	res, _ := s.call(t, "pro", "GET", "/v1/prices/btc-usd", "")
	assert.Equal(t, `"second";q=50;w=1, "minute";q=5000;w=60`, res.Header.Get("RateLimit-Policy"))
	assert.Regexp(t, `^"month";q=1000000;w=2[4-7][0-9]{5}$`, res.Header.Values("RateLimit-Policy")[1])
	for range 30 { // more than 5 in any second
		res, body := s.call(t, "free", "GET", "/v1/prices/btc-usd", "")
		assert.Equal(t, `"second";q=5;w=1, "minute";q=100;w=60`, res.Header.Get("RateLimit-Policy"))
		if res.StatusCode == http.StatusTooManyRequests {
			assert.Equal(t, "1", res.Header.Get("Retry-After"))
			assert.Contains(t, body, "rate_limited")
			return
		}
	}
	t.Error("the free plan has no limit")
}

// A caller sees what is left of the month, and to look costs nothing of it.
func TestUsage(t *testing.T) {
	t.Parallel()
	s := start(t)
	for _, path := range []string{"/v1/prices/btc-usd", "/v1/prices/doge-usd", "/v1/history/btc-usd"} { // 402 is not counted
		s.call(t, "free", "GET", path, "")
	}
	for range 2 {
		res, body := s.call(t, "free", "GET", "/v1/usage", "")
		require.Equal(t, 200, res.StatusCode, body)
		assert.Regexp(t, `^\{"result":"success","data":\{"quotas":\[\{"name":"month","limit":10000,"used":2,"remaining":9998,"resets_at":"2[0-9-]+-01T00:00:00Z"\}\]\}\}`, body)
		assert.Len(t, res.Header.Values("RateLimit"), 1, "of the limits alone")
	}
	s.call(t, "pro", "GET", "/v1/prices/btc-usd", "")
	_, body := s.call(t, "trader", "GET", "/v1/usage", "")
	assert.Contains(t, body, `"limit":1000000,"used":1,`, "both keys are of one account")
}

// do sends a request as it is.
func (s *instance) do(t *testing.T, r *http.Request) (*http.Response, string) {
	t.Helper()
	res, err := http.DefaultClient.Do(r.WithContext(t.Context()))
	require.NoError(t, err)
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	require.NoError(t, err)
	return res, string(text)
}

func TestNegotiation(t *testing.T) {
	t.Parallel()
	s := start(t)
	prices := func(accept string) (*http.Response, string) {
		r, err := http.NewRequest(http.MethodGet, s.url+"/v1/prices/eth-usd", nil)
		require.NoError(t, err)
		r.Header.Set("X-API-Key", s.tokens["pro"])
		r.Header.Set("Accept", accept)
		res, body := s.do(t, r)
		assert.Equal(t, "Accept", res.Header.Get("Vary"))
		return res, body
	}
	res, body := prices("text/csv, application/json;q=0.5")
	assert.Equal(t, "text/csv; charset=utf-8; header=present", res.Header.Get("Content-Type"))
	assert.Regexp(t, `^pair,bid,ask,at\r\neth-usd,3120\.55,3120\.95,20`, body)
	res, _ = prices("application/*")
	assert.Equal(t, "application/json", res.Header.Get("Content-Type"))
	res, body = prices("image/png")
	assert.Equal(t, 406, res.StatusCode)
	assert.Contains(t, body, `["application/json","text/csv"]`)

	r, err := http.NewRequest(http.MethodPost, s.url+"/v1/orders", strings.NewReader("pair=btc-usd"))
	require.NoError(t, err)
	r.Header.Set("X-API-Key", s.tokens["trader"])
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	res, _ = s.do(t, r)
	assert.Equal(t, 415, res.StatusCode)
	assert.Equal(t, "application/json", res.Header.Get("Accept-Post"))
}

// A stop ends streams, and lets an answer that is under way arrive.
func TestStopIsGraceful(t *testing.T) {
	t.Parallel()
	s := start(t)
	r, err := http.NewRequest(http.MethodGet, s.url+"/v1/stream", nil)
	require.NoError(t, err)
	r.Header.Set("Authorization", "Bearer "+s.tokens["free"])
	res, err := http.DefaultClient.Do(r)
	require.NoError(t, err)
	defer res.Body.Close()
	events := bufio.NewReader(res.Body)
	line, err := events.ReadString('\n')
	require.NoError(t, err)
	assert.Equal(t, "event: price\n", line)

	began := time.Now()
	require.NoError(t, s.stop())
	assert.Less(t, time.Since(began), stopWithin)
	_, err = io.ReadAll(events)
	assert.NoError(t, err, "the stream ends, and is not cut")
	_, err = net.Dial("tcp", strings.TrimPrefix(s.url, "http://"))
	assert.Error(t, err)
}

func TestFirstAndSecondStart(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	keys, tokens := filepath.Join(dir, "keys.json"), filepath.Join(dir, "tokens")
	begin := func(args ...string) string {
		ctx, cancel := context.WithCancel(t.Context())
		var out bytes.Buffer
		cancel() // it starts, and stops at once
		require.NoError(t, run(ctx, append([]string{"-addr", "127.0.0.1:0", "-metrics", "", "-keys", keys}, args...), &out, io.Discard))
		return out.String()
	}
	first := begin("-tokens", tokens, "-quiet")
	written, err := os.ReadFile(tokens)
	require.NoError(t, err)
	for _, line := range strings.Split(strings.TrimSpace(string(written)), "\n") {
		_, token, _ := strings.Cut(line, " ")
		assert.Regexp(t, `^demo_(free|pro|trader)_[0-9A-Za-z]{33}$`, token)
		assert.NotContains(t, first, token, "-quiet prints none")
		stored, err := os.ReadFile(keys)
		require.NoError(t, err)
		assert.NotContains(t, string(stored), token, "digests only")
	}
	for _, file := range []string{keys, tokens} {
		info, err := os.Stat(file)
		require.NoError(t, err)
		assert.Equal(t, os.FileMode(0o600), info.Mode())
	}
	assert.NotContains(t, begin(), "=demo_", "a second start has no tokens to show")
	again, err := os.ReadFile(tokens)
	require.NoError(t, err)
	assert.Equal(t, written, again)

	require.NoError(t, os.Remove(keys))
	assert.Regexp(t, `(?m)^FREE=demo_free_[0-9A-Za-z]{33}$`, begin())
	require.NoError(t, os.WriteFile(keys, []byte("{"), 0o600))
	assert.ErrorContains(t, run(t.Context(), []string{"-metrics", "", "-keys", keys}, io.Discard, io.Discard), "keys.json:1:2: not well-formed JSON")
	assert.Error(t, run(t.Context(), []string{"-nope"}, io.Discard, io.Discard))
	assert.ErrorContains(t, run(t.Context(), []string{"serve"}, io.Discard, io.Discard), `unexpected argument "serve"`)
}
