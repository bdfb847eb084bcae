package admit_test

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// Each code that a wrapper sends is in the overview and in README: clients rely on them.
func TestCodesAreDocumented(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob("*.go")
	require.NoError(t, err)
	code := regexp.MustCompile(`Code:\s+"([a-z_]+)"|refusal\(http\.Status\w+, "([a-z_]+)"`)
	codes := map[string]bool{}
	for _, file := range files {
		if strings.HasSuffix(file, "_test.go") {
			continue
		}
		text, err := os.ReadFile(file)
		require.NoError(t, err)
		for _, m := range code.FindAllStringSubmatch(string(text), -1) {
			codes[m[1]+m[2]] = true
		}
	}
	require.GreaterOrEqual(t, len(codes), 10, "%v", codes)
	overview, err := os.ReadFile("doc.go")
	require.NoError(t, err)
	readme, err := os.ReadFile("README.md")
	require.NoError(t, err)
	for code := range codes {
		assert.Regexp(t, `(?m)^//\t.*\b`+code+`\b`, string(overview))
		assert.Contains(t, string(readme), "`"+code+"`")
	}
}
