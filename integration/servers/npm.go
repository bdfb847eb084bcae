package servers

import (
	"fmt"
	"os"
	"os/exec"
	"testing"

	"github.com/stretchr/testify/require"
)

// InstallNPM copies a folder that has a package.json and a package-lock.json into a directory
// of the test, installs there what these name, and returns the directory. Where that cannot be,
// the test is skipped: see Missing.
func InstallNPM(t testing.TB, folder string) string {
	t.Helper()
	npm := Program(t, "npm")
	dir := t.TempDir()
	require.NoError(t, os.CopyFS(dir, os.DirFS(folder)))
	// Scripts of packages are not run: they would run as who runs the tests.
	install := exec.CommandContext(t.Context(), npm, "ci", "--no-audit", "--no-fund", "--ignore-scripts", "--prefer-offline")
	install.Dir = dir
	if out, err := install.CombinedOutput(); err != nil {
		Missing(t, fmt.Sprintf("what %s/package.json names (npm ci: %v, %s)", folder, err, out))
	}
	return dir
}
