package admit_test

import (
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/admit-go/admit"
)

// Clients rely on codes. README has each code that admit itself sends. The overview has these, and
// those that NewError derives from a status, for which the page on formats has a table.
func TestCodesAreDocumented(t *testing.T) {
	t.Parallel()
	statuses := map[string]int{} // by the name of the constant
	for status := 400; status <= 599; status++ {
		if text := http.StatusText(status); text != "" {
			statuses["Status"+strings.NewReplacer(" ", "", "-", "").Replace(text)] = status
		}
	}
	files, err := filepath.Glob("*.go")
	require.NoError(t, err)
	code := regexp.MustCompile(`Code:\s+"([a-z_]+)"|refusal\(http\.Status\w+, "([a-z_]+)"`)
	derived := regexp.MustCompile(`(?:NewError|codeOf)\(http\.(Status\w+)`)
	sent := map[string]bool{}
	for _, file := range files {
		if strings.HasSuffix(file, "_test.go") {
			continue
		}
		text := textOf(t, file)
		for _, m := range code.FindAllStringSubmatch(text, -1) {
			sent[m[1]+m[2]] = true
		}
		for _, m := range derived.FindAllStringSubmatch(text, -1) {
			require.Contains(t, statuses, m[1])
			sent[admit.NewError(statuses[m[1]], "").Code] = true
		}
	}
	require.GreaterOrEqual(t, len(sent), 20, "%v", sent)
	require.Contains(t, sent, "unavailable")

	overview, readme, formats := textOf(t, "doc.go"), textOf(t, "README.md"), textOf(t, "docs/formats.md")
	inOverview := func(code string) { assert.Regexp(t, `(?m)^//\t\d{3}  .*\b`+code+`\b`, overview) }
	for code := range sent {
		inOverview(code)
		assert.Contains(t, readme, "`"+code+"`")
	}
	byStatus := regexp.MustCompile(`(?m)^\t(\d{3}): \{"([a-z_]+)"`).FindAllStringSubmatch(textOf(t, "error.go"), -1)
	require.GreaterOrEqual(t, len(byStatus), 15)
	for _, m := range byStatus {
		status, err := strconv.Atoi(m[1])
		require.NoError(t, err)
		require.Equal(t, m[2], admit.NewError(status, "").Code)
		inOverview(m[2])
		assert.Contains(t, formats, "\n| "+m[1]+" | `"+m[2]+"` |\n")
	}
	for status, code := range map[int]string{410: "gone", 412: "precondition_failed", 599: "error"} {
		assert.Equal(t, code, admit.NewError(status, "").Code)
		assert.Contains(t, formats, "`"+code+"`")
	}
}

func textOf(t testing.TB, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	require.NoError(t, err)
	return string(text)
}
