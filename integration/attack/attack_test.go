// Package attack lets slowhttptest loose on the example service, while a normal client
// goes on working.
package attack_test

import (
	"context"
	"encoding/csv"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/admit-go/admit/integration/servers"
	"github.com/admit-go/admit/internal/testkit"
)

const connections = 500

func TestSlowAttackers(t *testing.T) {
	tool := servers.Program(t, "slowhttptest")
	url, tokens := startExample(t)
	for _, attack := range []struct {
		name string
		args []string
		// within is when the last connection must be gone, after the first was made: all
		// are made in about a second.
		within time.Duration
	}{
		// Server.ReadHeaderTimeout, 5 s: no handler has run yet.
		{"slow headers", []string{"-H", "-x", "10"}, 10 * time.Second},
		// Refused for the missing key; the refusal does not wait for the body.
		{"slow bodies of strangers", []string{"-B", "-s", "8192", "-x", "10"}, 6 * time.Second},
		// The tool knows no header of its own choice, but does not look into this one.
		// The limit lets some in, and BodyTimeout ends them after its grace of 5 s: 10
		// bytes a second are fewer than its MinRate.
		{"slow bodies of a caller", []string{"-B", "-s", "8192", "-x", "10", "-m", "*/*\r\nX-API-Key: " + tokens["trader"]}, 12 * time.Second},
	} {
		t.Run(attack.name, func(t *testing.T) {
			stats := filepath.Join(t.TempDir(), "stats")
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			cmd := exec.CommandContext(ctx, tool, append(attack.args, "-g", "-o", stats,
				"-c", fmt.Sprint(connections), "-r", "1000", "-i", "1", "-l", "15", "-p", "3",
				"-t", "POST", "-f", "application/json", "-u", url+"/v1/orders")...)
			var report strings.Builder
			cmd.Stdout = &report
			began := time.Now()
			require.NoError(t, cmd.Start())
			ended := make(chan struct{})
			go func() {
				_ = cmd.Wait()
				close(ended)
			}()
			latencies := normalClient(t, url, tokens["pro"], ended)
			took := time.Since(began)

			slices.Sort(latencies)
			t.Logf("slow connections open at each second: %v, the last one closed after %.1f s; the normal client: %d answers, p50 %v, p99 %v, worst %v",
				readStats(t, stats+".csv"), took.Seconds(), len(latencies), latencies[len(latencies)/2], latencies[len(latencies)*99/100], latencies[len(latencies)-1])
			assert.Contains(t, report.String(), "No open connections left", "the server has closed every one of %d", connections)
			assert.LessOrEqual(t, took, attack.within)
		})
	}
}

// normalClient asks for prices until the attack has ended; each answer must be one.
func normalClient(t *testing.T, url, token string, ended <-chan struct{}) (latencies []time.Duration) {
	t.Helper()
	ticks := time.NewTicker(40 * time.Millisecond) // within the limit of its plan
	defer ticks.Stop()
	for {
		select {
		case <-ended:
			require.NotEmpty(t, latencies)
			return latencies
		case <-ticks.C:
		}
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url+"/v1/prices/btc-usd", nil)
		require.NoError(t, err)
		r.Header.Set("X-API-Key", token)
		began := time.Now()
		res, err := http.DefaultClient.Do(r)
		require.NoError(t, err)
		_, err = io.Copy(io.Discard, res.Body)
		require.NoError(t, err)
		_ = res.Body.Close()
		require.Equal(t, http.StatusOK, res.StatusCode)
		latencies = append(latencies, time.Since(began))
	}
}

// readStats returns how many connections were open at each second.
func readStats(t *testing.T, path string) (connected []int) {
	t.Helper()
	f, err := os.Open(path)
	require.NoError(t, err)
	defer f.Close()
	rows, err := csv.NewReader(f).ReadAll()
	require.NoError(t, err)
	require.Greater(t, len(rows), 1)
	column := slices.Index(rows[0], "Connected")
	require.GreaterOrEqual(t, column, 0, "columns: %q", rows[0])
	for _, row := range rows[1:] {
		n, err := strconv.Atoi(strings.TrimSpace(row[column]))
		require.NoError(t, err)
		connected = append(connected, n)
	}
	return connected
}

// startExample builds and starts the example, and returns its address and its tokens by
// name.
func startExample(t *testing.T) (url string, tokens map[string]string) {
	t.Helper()
	dir := t.TempDir()
	program := filepath.Join(dir, "example")
	out, err := exec.Command("go", "build", "-o", program, "github.com/admit-go/admit/example").CombinedOutput()
	require.NoError(t, err, "%s", out)
	url = testkit.StartProgram(t, exec.Command(program, "-addr", "127.0.0.1:0", "-keys", filepath.Join(dir, "keys.json"), "-tokens", filepath.Join(dir, "tokens"), "-quiet", "-metrics", ""))
	text, err := os.ReadFile(filepath.Join(dir, "tokens"))
	require.NoError(t, err)
	tokens = map[string]string{}
	for line := range strings.Lines(string(text)) {
		name, token, _ := strings.Cut(strings.TrimSpace(line), " ")
		tokens[name] = token
	}
	return url, tokens
}
