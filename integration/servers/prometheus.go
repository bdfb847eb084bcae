package servers

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

// StartPrometheus starts a Prometheus with a configuration file and returns its URL. It keeps
// its data in a temporary folder, and stops at the end of the test. Without the program the
// test is skipped: see Missing.
func StartPrometheus(t testing.TB, config string) string {
	t.Helper()
	program := Program(t, "prometheus")
	port, err := freePort()
	require.NoError(t, err)
	dir, err := os.MkdirTemp("", "admit-prometheus-")
	require.NoError(t, err)
	addr := fmt.Sprintf("127.0.0.1:%d", port)
	cmd := guarded("KILL", dir, program, "--config.file", config, "--storage.tsdb.path", filepath.Join(dir, "data"),
		"--web.listen-address", addr, "--log.level", "warn")
	log, err := os.Create(filepath.Join(dir, "log"))
	require.NoError(t, err)
	defer log.Close()
	cmd.Stdout, cmd.Stderr = log, log
	lifeline, err := cmd.StdinPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	t.Cleanup(func() {
		_ = lifeline.Close()
		_ = cmd.Wait()
	})
	url := "http://" + addr
	if err := await(func(ctx context.Context) error {
		r, err := http.NewRequestWithContext(ctx, http.MethodGet, url+"/-/ready", nil)
		if err != nil {
			return err
		}
		res, err := http.DefaultClient.Do(r)
		if err != nil {
			return err
		}
		defer res.Body.Close()
		if res.StatusCode != http.StatusOK {
			return fmt.Errorf("it answers %s", res.Status)
		}
		return nil
	}); err != nil {
		text, _ := os.ReadFile(filepath.Join(dir, "log"))
		t.Fatalf("prometheus is not ready: %v\n%s", err, text)
	}
	return url
}
