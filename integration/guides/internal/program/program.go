// Package program runs the programs of pages as a reader does, but on ports that are free.
package program

import (
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/admit-go/admit/internal/testkit"
)

// Start builds the main.go of the folder of the test, in which each address, such as
// 127.0.0.1:8080, is replaced by one that is free. It returns those in the same order, once
// all of them are listened on, and what the program prints. The program is killed when the
// test ends.
func Start(t *testing.T, env []string, addresses ...string) (free []string, printed *testkit.Buffer) {
	t.Helper()
	source, err := os.ReadFile("main.go")
	require.NoError(t, err)
	var listeners []net.Listener
	for _, address := range addresses {
		require.Contains(t, string(source), address)
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		require.NoError(t, err)
		listeners = append(listeners, listener)
		free = append(free, listener.Addr().String())
		source = []byte(strings.ReplaceAll(string(source), address, listener.Addr().String()))
	}
	dir := t.TempDir()
	file := filepath.Join(dir, "main.go")
	require.NoError(t, os.WriteFile(file, source, 0o600))
	out, err := exec.CommandContext(t.Context(), "go", "build", "-o", filepath.Join(dir, "program"), file).CombinedOutput()
	require.NoError(t, err, "%s", out)

	printed = new(testkit.Buffer)
	command := exec.CommandContext(t.Context(), filepath.Join(dir, "program"))
	command.Env = append(os.Environ(), env...)
	command.Stdout, command.Stderr = printed, printed
	for _, listener := range listeners {
		require.NoError(t, listener.Close())
	}
	require.NoError(t, command.Start())
	t.Cleanup(func() {
		_ = command.Process.Kill()
		_ = command.Wait()
	})
	for _, address := range free {
		require.Eventually(t, func() bool {
			conn, err := net.Dial("tcp", address)
			return err == nil && conn.Close() == nil
		}, 10*time.Second, 10*time.Millisecond, "%s: %s", address, printed)
	}
	return free, printed
}

// Get sends a GET, and returns the status and the body of the response.
func Get(t *testing.T, url string) (status int, body string) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	require.NoError(t, err)
	res, err := http.DefaultClient.Do(r)
	require.NoError(t, err)
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	require.NoError(t, err)
	return res.StatusCode, string(text)
}
