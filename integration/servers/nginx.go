package servers

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// StartNginx starts an nginx with a configuration of the context http, in which PORT stands for
// the port to listen on, and returns its URL. It keeps its files in a temporary folder, and stops
// at the end of the test. Without the program the test is skipped, also where
// ADMIT_REQUIRE_SERVICES says that everything must be there: nginx is no part of that.
func StartNginx(t testing.TB, config string) string {
	t.Helper()
	program := find("nginx", "/usr/sbin")
	if program == "" {
		t.Skip("nginx is not installed")
	}
	port, err := freePort()
	require.NoError(t, err)
	dir, err := os.MkdirTemp("", "admit-nginx-")
	require.NoError(t, err)
	var temp strings.Builder
	for _, name := range []string{"client_body", "proxy", "fastcgi", "uwsgi", "scgi"} {
		fmt.Fprintf(&temp, "%s_temp_path %s;\n", name, filepath.Join(dir, name))
	}
	file := filepath.Join(dir, "nginx.conf")
	text := fmt.Sprintf("daemon off; master_process off; pid %s/pid; error_log stderr; events {}\nhttp {\naccess_log off;\n%s%s}\n",
		dir, temp.String(), strings.ReplaceAll(config, "PORT", fmt.Sprint(port)))
	require.NoError(t, os.WriteFile(file, []byte(text), 0o600))
	log, err := os.Create(filepath.Join(dir, "log"))
	require.NoError(t, err)
	defer log.Close()

	cmd := guarded("TERM", dir, program, "-c", file, "-p", dir)
	cmd.Stdout, cmd.Stderr = log, log
	lifeline, err := cmd.StdinPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	t.Cleanup(func() {
		if text, _ := os.ReadFile(filepath.Join(dir, "log")); t.Failed() {
			t.Logf("nginx: %s", text)
		}
		_ = lifeline.Close()
		_ = cmd.Wait()
	})
	url := fmt.Sprintf("http://127.0.0.1:%d", port)
	if err := await(func(ctx context.Context) error {
		r, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
		if err != nil {
			return err
		}
		res, err := http.DefaultClient.Do(r)
		if err != nil {
			return err
		}
		return res.Body.Close()
	}); err != nil {
		text, _ := os.ReadFile(filepath.Join(dir, "log"))
		t.Fatalf("nginx is not ready: %v\n%s", err, text)
	}
	return url
}
