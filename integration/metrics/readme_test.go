package metrics_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	_ "go.opentelemetry.io/otel/exporters/stdout/stdoutmetric" // that of the program
	_ "go.opentelemetry.io/otel/exporters/stdout/stdouttrace"
)

// The programs of the READMEs build.
func TestProgramsBuild(t *testing.T) {
	t.Parallel()
	for _, module := range []string{"admitprom", "admitotel"} {
		page, err := os.ReadFile(filepath.Join("../..", module, "README.md"))
		require.NoError(t, err)
		_, program, found := strings.Cut(string(page), "```go\n")
		require.True(t, found)
		program, _, _ = strings.Cut(program, "```")
		file := filepath.Join(t.TempDir(), "main.go")
		require.NoError(t, os.WriteFile(file, []byte(program), 0o600))
		out, err := exec.CommandContext(t.Context(), "go", "vet", file).CombinedOutput()
		require.NoError(t, err, "%s: %s", module, out)
	}
}
