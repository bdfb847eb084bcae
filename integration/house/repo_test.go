package house_test

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func read(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(root, name))
	require.NoError(t, err)
	return string(text)
}

// all returns what the group of an expression has matched, ordered.
func all(expression, text string) []string {
	var found []string
	for _, m := range regexp.MustCompile(expression).FindAllStringSubmatch(text, -1) {
		found = append(found, m[1])
	}
	slices.Sort(found)
	return found
}

// A tag of an action can be moved to other code, a commit cannot. The comment tells people, and
// Dependabot, which version it is.
func TestActionsArePinned(t *testing.T) {
	t.Parallel()
	workflows, err := filepath.Glob(filepath.Join(root, ".github/workflows/*.y*ml"))
	require.NoError(t, err)
	require.NotEmpty(t, workflows)
	for _, workflow := range workflows {
		text := read(t, filepath.Join(".github/workflows", filepath.Base(workflow)))
		uses := all(`\buses:[ \t]*(.*)`, text)
		assert.NotEmpty(t, uses, workflow)
		for _, action := range uses {
			assert.Regexp(t, `^[\w-]+/[\w./-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+$`, action, workflow)
		}
		assert.Regexp(t, `(?m)^permissions:\n  contents: read$`, text, workflow)
		assert.Len(t, all(`(?m)^    (timeout-minutes): \d+$`, text), len(all(`(?m)^    (runs-on):`, text)), "a job without a timeout in %s", workflow)
	}
}

// Dependabot looks at the modules that it is told of.
func TestDependabotKnowsAllModules(t *testing.T) {
	t.Parallel()
	_, list, found := strings.Cut(read(t, ".github/dependabot.yml"), "package-ecosystem: gomod\n    directories:\n")
	require.True(t, found)
	list, _, _ = strings.Cut(list, "    schedule:")
	var want []string
	for _, directory := range all(`(?m)^\t(\.\S*)$`, read(t, "go.work")) {
		want = append(want, "/"+strings.TrimPrefix(strings.TrimPrefix(directory, "."), "/"))
	}
	require.Contains(t, want, "/cmd/admit")
	assert.Equal(t, want, all(`(?m)^      - (/\S*)$`, list))
}

// Each command of CONTRIBUTING.md that begins with make has a target.
func TestTargetsExist(t *testing.T) {
	t.Parallel()
	targets := all(`(?m)^([a-z-]+):`, read(t, "Makefile"))
	named := all("(?:`|    )make ([a-z-]+)", read(t, "CONTRIBUTING.md"))
	require.NotEmpty(t, named)
	for _, target := range named {
		assert.Contains(t, targets, target)
	}
}

func TestFilesOfTheForgeAreYAML(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob(filepath.Join(root, ".github/*/*.yml"))
	require.NoError(t, err)
	require.NotEmpty(t, files)
	for _, file := range append(files, filepath.Join(root, ".github/dependabot.yml")) {
		text, err := os.ReadFile(file)
		require.NoError(t, err)
		assert.YAMLEq(t, string(text), string(text), file)
	}
}
