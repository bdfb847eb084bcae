package main

import (
	"bufio"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/admit-go/admit"
	"github.com/admit-go/admit/integration/internal/markdown"
)

const root = "../../.."

// blocks are the code of README in a language, in order.
func blocks(t *testing.T, lang string) []string {
	t.Helper()
	page, err := markdown.Read(filepath.Join(root, "README.md"))
	require.NoError(t, err)
	var texts []string
	for _, b := range page.Blocks {
		if b.Lang == lang {
			texts = append(texts, b.Text)
		}
	}
	return texts
}

// What README says under "Start" is done in an empty folder beside a clone.
func TestStart(t *testing.T) {
	t.Parallel()
	clone, err := filepath.Abs(root)
	require.NoError(t, err)
	beside := t.TempDir()
	require.NoError(t, os.Symlink(clone, filepath.Join(beside, "admit")))
	hello := filepath.Join(beside, "hello")
	require.NoError(t, os.Mkdir(hello, 0o700))

	free, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	require.NoError(t, free.Close())
	const address = "127.0.0.1:8080"
	program := blocks(t, "go")[0]
	require.Contains(t, program, address)
	program = strings.ReplaceAll(program, address, free.Addr().String())
	require.NoError(t, os.WriteFile(filepath.Join(hello, "main.go"), []byte(program), 0o600))

	commands, runs := strings.CutSuffix(blocks(t, "sh")[0], "go run .\n")
	require.True(t, runs, "the commands end with the start of the program")
	shell(t, hello, commands+"go build -o hello .\n") // what go run does, but its process is ours to end

	c := exec.CommandContext(t.Context(), filepath.Join(hello, "hello"))
	stderr, err := c.StderrPipe()
	require.NoError(t, err)
	require.NoError(t, c.Start())
	t.Cleanup(func() { _ = c.Process.Kill(); _ = c.Wait() })
	line, err := bufio.NewReader(stderr).ReadString('\n')
	require.NoError(t, err)
	curl := regexp.MustCompile(`curl .*`).FindString(line)
	require.NotEmpty(t, curl, line)
	require.Eventually(t, func() bool {
		conn, err := net.Dial("tcp", free.Addr().String())
		return err == nil && conn.Close() == nil
	}, 10*time.Second, 10*time.Millisecond)

	three := shell(t, hello, strings.Repeat(curl+"\n", 3))
	assert.Equal(t, []string{"200 OK", "200 OK", "429 Too Many Requests"}, statuses(three))
	assert.Contains(t, three, `{"result":"success","data":"Hello, ACME"}`)
	shown := blocks(t, "text")[1] // but for numbers, times and ids
	changes := regexp.MustCompile(`[0-9a-f]{32}|t=\d+|r=\d+`)
	for _, header := range strings.Split(strings.TrimSpace(shown), "\n") {
		assert.Contains(t, changes.ReplaceAllString(strings.ReplaceAll(three, "\r", ""), "…"), changes.ReplaceAllString(header, "…"))
	}

	without, _, _ := strings.Cut(curl, " -H")
	rest := shell(t, hello, without+"\n"+without+" -X POST\n"+strings.Replace(without, "/hello", "/nowhere", 1)+"\n")
	assert.Equal(t, []string{"401 Unauthorized", "405 Method Not Allowed", "404 Not Found"}, statuses(rest))
	assert.Equal(t, 3, strings.Count(rest, `{"result":"error","message":"`))
}

func shell(t *testing.T, dir, commands string) string {
	t.Helper()
	c := exec.CommandContext(t.Context(), "sh", "-e")
	c.Dir = dir
	c.Env = append(os.Environ(), "GOWORK=off", "GOFLAGS=")
	c.Stdin = strings.NewReader(commands)
	var stderr strings.Builder
	c.Stderr = &stderr
	output, err := c.Output()
	require.NoError(t, err, "%s%s", commands, &stderr)
	return string(output)
}

func statuses(responses string) []string {
	var all []string
	for _, m := range regexp.MustCompile(`(?m)^HTTP/1\.1 ([^\r\n]*)`).FindAllStringSubmatch(responses, -1) {
		all = append(all, m[1])
	}
	return all
}

// The picture has the fields of a Policy in their order, each with the statuses that clients meet most.
func TestPicture(t *testing.T) {
	t.Parallel()
	answers := map[string][]string{}
	for _, a := range whole(t).Answers() {
		answers[a.Field] = append(answers[a.Field], strconv.Itoa(a.Status))
	}
	policy, at := reflect.TypeFor[admit.Policy](), -1
	row := regexp.MustCompile(`├─ (\w+) +.*?((?:  \d{3}(?:, \d{3})*)?)\n`)
	rows := row.FindAllStringSubmatch(blocks(t, "text")[0], -1)
	require.Greater(t, len(rows), 15)
	for _, m := range rows {
		field, ok := policy.FieldByName(m[1])
		if assert.True(t, ok, m[1]) {
			assert.Greater(t, field.Index[0], at, "%s stands too late", m[1])
			at = field.Index[0]
		}
		stated := regexp.MustCompile(`\d+`).FindAllString(m[2], -1)
		assert.Subset(t, answers[m[1]], stated, m[1])
		assert.Equal(t, len(answers[m[1]]) == 0, len(stated) == 0, m[1])
	}
}

// whole is a Policy that has every field of the picture.
func whole(t *testing.T) admit.Policy {
	t.Helper()
	_, digest, _ := admit.Mint("t")
	auth, err := admit.NewAuth(admit.AuthConfig{Store: admit.KeyMap{digest: {ID: "k"}}})
	require.NoError(t, err)
	plans, err := admit.NewPlans(admit.Plan{Name: "free"}, admit.Plan{Name: "pro", Features: []string{"history"}, Quotas: []admit.Quota{{Requests: 1, Every: admit.Month}}})
	require.NoError(t, err)
	limiter, err := admit.NewLimiter(admit.LimiterConfig{Name: "keys", Limits: []admit.Limit{admit.PerSecond(1)}})
	require.NoError(t, err)
	strangers, err := admit.NewLimiter(admit.LimiterConfig{Name: "addresses", Limits: []admit.Limit{admit.PerMinute(1)}})
	require.NoError(t, err)
	quotas, err := admit.NewQuotas(admit.QuotasConfig{Plans: plans, Store: admit.NewMemoryQuotaStore()})
	require.NoError(t, err)
	inFlight, err := admit.NewInFlight(admit.InFlightConfig{Max: 1})
	require.NoError(t, err)
	shedder, err := admit.NewShedder(admit.ShedderConfig{Max: 1})
	require.NoError(t, err)
	p := admit.Policy{
		Maintenance: new(admit.Maintenance), InFlight: inFlight, AddressLimiter: strangers, Methods: []string{"POST"}, Auth: auth, Scopes: []string{"s"},
		Plans: plans, Features: []string{"history"}, Limiter: limiter, Quotas: quotas, Accept: []string{"application/json"},
		ContentType: []string{"application/json"}, MaxBody: 1, Shedder: shedder, BodyTimeout: admit.BodyTimeout{Grace: time.Second}, Timeout: time.Second,
	}
	_, err = p.Chain()
	require.NoError(t, err)
	return p
}

func TestService(t *testing.T) {
	t.Parallel()
	token, digest, _ := admit.Mint("t")
	reader, readers, _ := admit.Mint("t")
	var log strings.Builder
	h, err := newService(admit.KeyMap{
		digest:  {ID: "trader", Owner: "ACME", Plan: "pro", Scopes: []string{"orders:write"}},
		readers: {ID: "reader", Owner: "ACME", Plan: "pro"},
	}, slog.New(slog.NewTextHandler(&log, nil)))
	require.NoError(t, err)
	for _, c := range []struct {
		name, method, path, key, body string
		status                        int
		contains                      string
	}{
		{"a price", "GET", "/v1/prices/btc-usd", reader, "", 200, `"pair":"btc-usd"`},
		{"no key", "GET", "/v1/prices/btc-usd", "", "", 401, "key_missing"},
		{"an order", "POST", "/v1/orders", token, `{"pair":"btc-usd","quantity":1}`, 201, `"quantity":1`},
		{"no scope", "POST", "/v1/orders", reader, `{"pair":"btc-usd","quantity":1}`, 403, "scope_required"},
		{"a wrong field", "POST", "/v1/orders", token, `{"pair":"btc-usd","quantity":"1"}`, 422, `"path":"quantity"`},
		{"sold out", "POST", "/v1/orders", token, `{"pair":"btc-usd","quantity":11}`, 409, "The article is sold out."},
		{"too large", "POST", "/v1/orders", token, strings.Repeat(" ", 65<<10), 413, "body_too_large"},
		{"a method", "PUT", "/v1/orders", token, "", 405, "method_not_allowed"},
		{"nowhere", "GET", "/v1/nowhere", token, "", 404, "not_found"},
	} {
		r := httptest.NewRequest(c.method, c.path, strings.NewReader(c.body))
		if c.body != "" {
			r.Header.Set("Content-Type", "application/json")
		}
		if c.key != "" {
			r.Header.Set("Authorization", "Bearer "+c.key)
		}
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		body, err := io.ReadAll(w.Result().Body)
		require.NoError(t, err)
		assert.Equal(t, c.status, w.Code, "%s: %s", c.name, body)
		assert.Contains(t, string(body), c.contains, c.name)
		assert.NotContains(t, string(body), "warehouse", c.name)
	}
	assert.Contains(t, log.String(), "warehouse 7")
	assert.Contains(t, log.String(), http.MethodPost)
}
