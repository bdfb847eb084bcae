package main

import (
	"bufio"
	"encoding/json"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/admit-go/admit"
	"github.com/admit-go/admit/admitprom"
	"github.com/admit-go/admit/admittest"
	"github.com/admit-go/admit/integration/internal/guide"
)

func TestContract(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) { // nobody waits for what is slow
		metrics, err := admitprom.New(admitprom.Config{Registerer: prometheus.NewRegistry()})
		require.NoError(t, err)
		inFlight, err := admit.NewInFlight(admit.InFlightConfig{Max: 2000, PerAddress: 200})
		require.NoError(t, err)
		keys := admit.KeyMap{}
		handler, api, err := newHandler(keys, inFlight, metrics, slog.New(slog.DiscardHandler))
		require.NoError(t, err)
		c := admittest.NewContract(t, api, handler)
		c.Provoke(admittest.Credentials{Keys: keys, Patience: time.Minute})
		c.AllReached()
		admittest.Golden(t, "testdata/CONTRACT.md", api.Markdown())
	})
}

// shop is the program as it runs in production.
type shop struct {
	command     *exec.Cmd
	public, ops string
	token       string
	lines       chan map[string]any // of the log
}

func start(t *testing.T) *shop {
	t.Helper()
	dir := t.TempDir()
	program := filepath.Join(dir, "shop")
	out, err := exec.CommandContext(t.Context(), "go", "build", "-o", program, ".").CombinedOutput()
	require.NoError(t, err, "%s", out)
	token, digest, _ := admit.Mint("shop")
	file := filepath.Join(dir, "keys.json")
	require.NoError(t, admit.WriteKeyFile(file, admit.KeyMap{digest: {ID: "k1", Owner: "ACME", Plan: "pro", Scopes: []string{"orders:write"}}}))

	s := serve(t, program, file)
	s.token = token
	return s
}

// serve runs the program on ports that are free, until the test ends.
func serve(t *testing.T, program, keys string) *shop {
	t.Helper()
	s := &shop{lines: make(chan map[string]any, 100)}
	s.command = exec.CommandContext(t.Context(), program, "-addr", "127.0.0.1:0", "-ops", "127.0.0.1:0", "-keys", keys, "-drain", "1s")
	stdout, err := s.command.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, s.command.Start())
	go func() {
		defer close(s.lines)
		for lines := bufio.NewScanner(stdout); lines.Scan(); {
			var line map[string]any
			if json.Unmarshal(lines.Bytes(), &line) == nil {
				s.lines <- line
			}
		}
	}()
	for _, url := range []*string{&s.public, &s.ops} {
		line := <-s.lines
		require.Equal(t, "listening", line["msg"])
		*url = line["url"].(string)
	}
	return s
}

func (s *shop) do(t *testing.T, method, url, body string, headers ...string) (*http.Response, string) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(body))
	require.NoError(t, err)
	for i := 0; i < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	res, err := http.DefaultClient.Do(r)
	require.NoError(t, err)
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	require.NoError(t, err)
	return res, string(text)
}

func TestOverTheWire(t *testing.T) {
	t.Parallel()
	s := start(t)
	order := []string{"X-API-Key", s.token, "Content-Type", "application/json", "X-Forwarded-For", "198.51.100.1, 203.0.113.7", "X-Request-Id", "r1"}

	res, body := s.do(t, "POST", s.public+"/v1/orders", `{"Article":"tea"}`, order...)
	assert.Equal(t, 201, res.StatusCode, body)
	assert.Equal(t, `"second";q=50;w=1`, res.Header.Get("RateLimit-Policy"))
	line := <-s.lines
	for name, want := range map[string]any{
		"msg": "request", "http.route": "/v1/orders", "http.response.status_code": 201.0, "client.address": "203.0.113.7",
		"request_id": "r1", "admit.key.id": "k1", "admit.key.owner": "ACME", "admit.plan": "pro",
	} {
		assert.Equal(t, want, line[name], name)
	}
	assert.NotContains(t, line, s.token)

	res, body = s.do(t, "POST", s.public+"/v1/orders", `{}`)
	assert.Equal(t, 401, res.StatusCode)
	assert.Regexp(t, `^\{"result":"error","message":"[^"]+","code":"key_missing","request_id":"[0-9a-f]{32}"\}\n?$`, body)
	assert.Equal(t, "key_missing", (<-s.lines)["error.type"])

	res, _ = s.do(t, "GET", s.public+"/", "")
	assert.Equal(t, 200, res.StatusCode, "the contract")
	res, _ = s.do(t, "GET", s.public+"/metrics", "")
	assert.Equal(t, 404, res.StatusCode, "metrics are not public")

	// What net/http refuses itself has no envelope, and no line in the log.
	res, body = s.do(t, "GET", s.public+"/", "", "X-Long", strings.Repeat("a", 24<<10))
	assert.Equal(t, 431, res.StatusCode)
	assert.Equal(t, "431 Request Header Fields Too Large", body)
	conn, err := net.Dial("tcp", strings.TrimPrefix(s.public, "http://"))
	require.NoError(t, err)
	defer conn.Close()
	_, err = io.WriteString(conn, "GET / HTTP/1.1\r\nno colon\r\n\r\n")
	require.NoError(t, err)
	answer, err := io.ReadAll(conn)
	require.NoError(t, err)
	assert.Regexp(t, `^HTTP/1\.1 400 Bad Request\r\nContent-Type: text/plain; charset=utf-8\r\n`, string(answer))

	_, scrape := s.do(t, "GET", s.ops+"/metrics", "")
	for _, want := range []string{
		`http_server_request_duration_seconds_count{admit_plan="pro",error_type="",http_request_method="POST",http_response_status_code="201",http_route="/v1/orders",url_scheme="http"} 1`,
		`admit_inflight_running{admit_name="shop"} 0`, "go_goroutines", "admit_shedder_admitted_total",
	} {
		assert.Contains(t, scrape, want)
	}

	// After SIGTERM the health check fails first, and requests are still served.
	res, _ = s.do(t, "GET", s.ops+"/healthz", "")
	assert.Equal(t, 200, res.StatusCode)
	require.NoError(t, s.command.Process.Signal(syscall.SIGTERM))
	require.Eventually(t, func() bool {
		res, _ := s.do(t, "GET", s.ops+"/healthz", "")
		return res.StatusCode == 503
	}, time.Second, time.Millisecond)
	res, _ = s.do(t, "POST", s.public+"/v1/orders", `{"Article":"tea"}`, order...)
	assert.Equal(t, 201, res.StatusCode)
	for range s.lines {
		continue // until the program ends
	}
	assert.NoError(t, s.command.Wait())
}

// A key file that is not there stops the start.
func TestStartFails(t *testing.T) {
	t.Parallel()
	*keyFile = filepath.Join(t.TempDir(), "keys.json")
	assert.ErrorIs(t, run(t.Context(), slog.New(slog.DiscardHandler)), os.ErrNotExist)
}

// The commands of the page, in an empty folder beside a clone, make a program that serves.
func TestStart(t *testing.T) {
	t.Parallel()
	clone, err := filepath.Abs("../../..")
	require.NoError(t, err)
	shell := guide.NewShell(t, "GOWORK=off", "GOFLAGS=")
	beside := t.TempDir()
	require.NoError(t, os.Symlink(clone, filepath.Join(beside, "admit")))
	shell.Dir = filepath.Join(beside, "shop")
	require.NoError(t, os.Mkdir(shell.Dir, 0o700))
	require.NoError(t, os.WriteFile(filepath.Join(shell.Dir, "main.go"), []byte(guide.Blocks(t, "production", "go")[0]), 0o600))

	blocks := guide.Blocks(t, "production", "sh")
	commands, runs := strings.CutSuffix(blocks[0], "go run . -addr 127.0.0.1:8080\n")
	require.True(t, runs, "the commands end with the start of the program")
	shell.Run(t, commands+"go build -o shop .\n") // what go run does, but its process is ours to end
	s := serve(t, filepath.Join(shell.Dir, "shop"), filepath.Join(shell.Dir, "keys.json"))

	// A client that announces a body which no handler reads is let go after the Grace of the outer Policy.
	conn, err := net.Dial("tcp", strings.TrimPrefix(s.public, "http://"))
	require.NoError(t, err)
	defer conn.Close()
	_, err = io.WriteString(conn, "GET / HTTP/1.1\r\nHost: h\r\nContent-Length: 1000\r\n\r\nabc")
	require.NoError(t, err)

	printed, _ := shell.Run(t, strings.ReplaceAll(blocks[1], "http://127.0.0.1:8080", s.public))
	assert.Contains(t, printed, "HTTP/1.1 201 Created")
	assert.Contains(t, printed, `{"result":"success","data":{"Article":"tea"}}`)

	require.NoError(t, conn.SetReadDeadline(time.Now().Add(30*time.Second)), "half of ReadTimeout")
	_, err = io.ReadAll(conn)
	assert.NoError(t, err)
}
