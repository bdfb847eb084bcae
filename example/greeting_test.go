package main

import (
	"bufio"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/admit-go/admit/internal/testkit"
)

// TestMain runs the example itself where a test starts this program anew.
func TestMain(m *testing.M) {
	if os.Getenv("EXAMPLE_OF_A_TEST") != "" {
		main()
		return
	}
	os.Exit(m.Run())
}

// process returns a command that starts the example in a process of its own.
func process(t *testing.T) *exec.Cmd {
	t.Helper()
	program, err := os.Executable()
	require.NoError(t, err)
	c := exec.Command(program, "-addr", "127.0.0.1:0", "-metrics", "", "-keys", filepath.Join(t.TempDir(), "keys.json"))
	c.Env = append(os.Environ(), "EXAMPLE_OF_A_TEST=1")
	return c
}

// The tour does what its comments say, on the first start and, with new keys, on the second.
func TestTour(t *testing.T) {
	t.Parallel()
	for _, program := range []string{"sh", "curl", "grep"} {
		if _, err := exec.LookPath(program); err != nil {
			if os.Getenv("ADMIT_REQUIRE_SERVICES") != "" {
				t.Fatal(err)
			}
			t.Skip(err)
		}
	}
	keys := filepath.Join(t.TempDir(), "it's keys.json")
	first := start(t, "-keys", keys)
	assert.Len(t, first.tokens, 3)
	take(t, first)
	require.NoError(t, first.stop())

	if testing.Short() {
		t.Skip("the second start builds cmd/admit")
	}
	second := start(t, "-keys", keys)
	assert.Empty(t, second.tokens)
	take(t, second)
}

// take runs the tour, and compares the statuses with those that are in the comments.
func take(t *testing.T, s *instance) {
	t.Helper()
	assert.NotRegexp(t, `[^ -~\n]`, s.greeting, "plain text, without colours")
	assert.NotRegexp(t, `(?m)^#.*['"()*?$!\x60[\]<>|&;~{}=]`, s.greeting, "zsh expands it")
	for _, m := range regexp.MustCompile(`(?m)^curl[^|\n]*? (-[^ ]+)`).FindAllStringSubmatch(s.greeting, -1) {
		assert.Contains(t, []string{"-i", "-s", "-H", "-d"}, m[1], "old versions of curl do not have it")
	}
	_, script, found := strings.Cut(s.greeting, ":\n\n")
	require.True(t, found)
	script = regexp.MustCompile(`(?m)^# (.*)$`).ReplaceAllString(script, "echo '@ $1'")
	sh := exec.CommandContext(t.Context(), "sh", "-c", script)
	sh.Env = append(os.Environ(), "GOWORK=") // cmd/admit is in the workspace
	out, err := sh.Output()
	require.NoError(t, err, "%s", out)

	sections := strings.Split(string(out), "@ ")[1:]
	require.Len(t, sections, 7)
	for _, section := range sections[:6] {
		said, does, _ := strings.Cut(section, "\n")
		want, got := regexp.MustCompile(`\b[2-5]\d\d\b`).FindAllString(said, -1), []string(nil)
		for _, m := range regexp.MustCompile(`(?m)^HTTP/1\.1 (\d+)`).FindAllStringSubmatch(does, -1) {
			if !slices.Contains(got, m[1]) {
				got = append(got, m[1])
			}
		}
		assert.Equal(t, want, got, section)
		for _, code := range regexp.MustCompile(`[a-z]+_[a-z]+`).FindAllString(said, -1) {
			if code != "rate_limited" { // the bodies are not printed
				assert.Contains(t, does, `"code":"`+code+`"`)
			}
		}
	}
	assert.Contains(t, sections[5], "Retry-After: 1")
	assert.Regexp(t, `(?m)^admit_limiter_callers\{.*\} 3$`, sections[6])
}

// What the first line names is the contract, as a page.
func TestBrowserSeesTheContract(t *testing.T) {
	t.Parallel()
	s := start(t)
	assert.True(t, strings.HasPrefix(s.greeting, "Open "+s.url+" in a browser: "))
	r, err := http.NewRequest(http.MethodGet, s.url, nil)
	require.NoError(t, err)
	r.Header.Set("Accept", "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8")
	res, body := s.do(t, r)
	assert.Equal(t, 200, res.StatusCode)
	assert.Equal(t, "text/html; charset=utf-8", res.Header.Get("Content-Type"))
	assert.Contains(t, body, "/v1/prices/{pair}")
}

func TestURLOf(t *testing.T) {
	t.Parallel()
	for addr, want := range map[string]string{
		"127.0.0.1:8080": "http://127.0.0.1:8080",
		"[::1]:8080":     "http://[::1]:8080",
		"0.0.0.0:8080":   "http://localhost:8080",
		"[::]:8080":      "http://localhost:8080",
	} {
		tcp, err := net.ResolveTCPAddr("tcp", addr)
		require.NoError(t, err)
		assert.Equal(t, want, urlOf(tcp), addr)
	}
}

// Ctrl-C ends the process with 0. A second one ends it though a request is under way.
func TestCtrlC(t *testing.T) {
	t.Parallel()
	if runtime.GOOS == "windows" {
		t.Skip("a process cannot send Ctrl-C to another")
	}
	testkit.StartProgram(t, process(t)) // it interrupts the process at the end, and wants 0

	c := process(t)
	stdout, err := c.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, c.Start())
	defer func() { _ = c.Process.Kill() }()
	var addr, token string
	for lines := bufio.NewScanner(stdout); token == "" && lines.Scan(); {
		if m := regexp.MustCompile(`http://([0-9.:]+)`).FindStringSubmatch(lines.Text()); m != nil {
			addr = m[1]
		}
		_, token, _ = strings.Cut(lines.Text(), "TRADER=")
	}
	conn, err := net.Dial("tcp", addr)
	require.NoError(t, err)
	defer conn.Close()
	fmt.Fprintf(conn, "POST /v1/orders HTTP/1.1\r\nHost: x\r\nX-API-Key: %s\r\nContent-Type: application/json\r\nContent-Length: 9\r\nExpect: 100-continue\r\n\r\n", token)
	line, err := bufio.NewReader(conn).ReadString('\n') // once the handler reads the body
	require.NoError(t, err)
	require.Equal(t, "HTTP/1.1 100 Continue\r\n", line)

	require.NoError(t, c.Process.Signal(os.Interrupt))
	require.Eventually(t, func() bool {
		more, err := net.Dial("tcp", addr)
		if err == nil {
			_ = more.Close()
		}
		return err != nil
	}, 10*time.Second, 10*time.Millisecond)
	require.NoError(t, c.Process.Signal(os.Interrupt))
	assert.ErrorContains(t, c.Wait(), "signal: interrupt")
}
