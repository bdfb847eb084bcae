package main

import (
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// small returns a clone of a small repository: a root module, a module that uses it, and an
// example that is not published.
func small(t *testing.T) string {
	dir := t.TempDir()
	origin, clone := filepath.Join(dir, "origin"), filepath.Join(dir, "clone")
	must(t, dir, nil, "git", "init", "--quiet", "--bare", "--initial-branch", "main", origin)
	must(t, dir, nil, "git", "init", "--quiet", "--initial-branch", "main", clone)
	must(t, clone, nil, "git", "remote", "add", "origin", origin)
	identify(t, clone)
	text := func(s string) *fstest.MapFile { return &fstest.MapFile{Data: []byte(s)} }
	require.NoError(t, os.CopyFS(clone, fstest.MapFS{
		"LICENSE":        text("Anybody may use this.\n"),
		"CHANGELOG.md":   text("# Changelog\n\n## Unreleased\n\n- `Limit`.\n"),
		"go.work":        text("go 1.25.0\n\nuse (\n\t.\n\t./other\n\t./example\n)\n"),
		"go.mod":         text("module " + modulePath + "\n\ngo 1.25.0\n"),
		"admit.go":       text("package admit\n\nfunc Limit() int { return 1 }\n"),
		"admit_test.go":  text("package admit_test\n\nimport (\n\t\"fmt\"\n\n\t\"" + modulePath + "\"\n)\n\nfunc ExampleLimit() {\n\tfmt.Println(admit.Limit())\n\t// Output: 1\n}\n"),
		"other/go.mod":   text("module " + modulePath + "/other\n\ngo 1.25.0\n\nrequire " + modulePath + " v0.0.0\n\nreplace " + modulePath + " => ../\n"),
		"other/other.go": text("package other\n\nimport \"" + modulePath + "\"\n\nfunc Double() int { return 2 * admit.Limit() }\n"),
		"example/go.mod": text("module " + modulePath + "/example\n\ngo 1.25.0\n"),
	}))
	commitAll(t, clone)
	return clone
}

func identify(t *testing.T, clone string) {
	for _, setting := range []string{"user.name=test", "user.email=test@example.com", "commit.gpgsign=false", "tag.gpgsign=false"} {
		key, value, _ := strings.Cut(setting, "=")
		must(t, clone, nil, "git", "config", key, value)
	}
}

func commitAll(t *testing.T, clone string) {
	must(t, clone, nil, "git", "add", "--all")
	must(t, clone, nil, "git", "commit", "--quiet", "--allow-empty", "--message", "A change")
}

func write(t *testing.T, clone, name, text string) {
	require.NoError(t, os.WriteFile(filepath.Join(clone, name), []byte(text), 0o644))
}

// state returns everything that a release may change in a clone.
func state(t *testing.T, clone string) string {
	return must(t, clone, nil, "sh", "-c", "git for-each-ref; git worktree list; git status --porcelain --branch --ignored")
}

func TestRelease(t *testing.T) {
	t.Parallel()
	clone := small(t)
	git := func(args ...string) string { return must(t, clone, nil, "git", args...) }
	before := state(t, clone)
	var out strings.Builder
	require.NoError(t, run(t.Context(), clone, "v0.1.0", &out))

	assert.Equal(t, "The nested modules use the root module beside them again\n"+
		"The nested modules require the root module at v0.1.0\n"+
		"The changelog has a section for v0.1.0\nA change", git("log", "--format=%s"))
	assert.Equal(t, git("rev-parse", "HEAD~2"), git("rev-parse", "v0.1.0^{commit}"))
	assert.Equal(t, git("rev-parse", "HEAD~1"), git("rev-parse", "other/v0.1.0^{commit}"))
	assert.Empty(t, git("diff", "HEAD~2", "HEAD"))
	assert.Empty(t, git("status", "--porcelain"))
	assert.Regexp(t, "^# Changelog\n\n## Unreleased\n\n## v0.1.0 - [0-9]{4}-[0-9]{2}-[0-9]{2}\n\n- `Limit`\\.$", git("show", "HEAD:CHANGELOG.md"))
	assert.Equal(t, "module "+modulePath+"/other\n\ngo 1.25.0\n\nrequire "+modulePath+" v0.1.0", git("show", "other/v0.1.0:other/go.mod"))
	assert.Regexp(t, "^"+modulePath+" v0.1.0 h1:.{44}\n"+modulePath+" v0.1.0/go.mod h1:.{44}$", git("show", "other/v0.1.0:other/go.sum"))
	assert.Contains(t, out.String(), "No release is tagged before this one")

	// The commands that it prints undo the release, and push it.
	printed := regexp.MustCompile(`(?m)^\t(git .*)$`).FindAllStringSubmatch(out.String(), -1)
	require.Len(t, printed, 2, &out)
	push, undo := printed[0][1], printed[1][1]
	assert.Equal(t, "git push --atomic origin main v0.1.0 other/v0.1.0", push)
	must(t, clone, nil, "sh", "-c", undo)
	assert.Equal(t, before, state(t, clone))
	require.NoError(t, run(t.Context(), clone, "v0.1.0", io.Discard))
	must(t, clone, nil, "sh", "-c", push)
	assert.Equal(t, 3, strings.Count(git("ls-remote", "--refs", "origin"), "\n")+1)
}

func TestIncompatibleChange(t *testing.T) {
	t.Parallel()
	clone := small(t)
	require.NoError(t, run(t.Context(), clone, "v0.1.0", io.Discard))
	write(t, clone, "admit.go", "package admit\n\nfunc Limit() int { return 1 }\n\nfunc Quota() int { return 2 }\n")
	write(t, clone, "CHANGELOG.md", "## Unreleased\n\n- `Quota`.\n")
	commitAll(t, clone)
	var out strings.Builder
	require.NoError(t, run(t.Context(), clone, "v0.1.1", &out), "an addition")
	assert.Contains(t, out.String(), "The API since v0.1.0:")
	assert.Contains(t, out.String(), modulePath+": changed\nCompatible changes:\n- Quota: added\n"+modulePath+"/other: unchanged\n")

	write(t, clone, "admit.go", "package admit\n\nfunc Limit() int64 { return 1 }\n")
	write(t, clone, "other/other.go", "package other\n\nimport \""+modulePath+"\"\n\nfunc Double() int { return 2 * int(admit.Limit()) }\n")
	write(t, clone, "CHANGELOG.md", "## Unreleased\n\n- `Limit` is an int64.\n")
	commitAll(t, clone)
	before := state(t, clone)
	out.Reset()
	err := run(t.Context(), clone, "v0.1.2", &out)
	require.ErrorContains(t, err, "v0.1.2 must have an API that is compatible with v0.1.1")
	assert.Contains(t, out.String(), "Incompatible changes:\n- Limit: changed from func() int to func() int64\n- Quota: removed\n")
	assert.Equal(t, before, state(t, clone))
	require.NoError(t, run(t.Context(), clone, "v0.2.0-rc.1", io.Discard))

	write(t, clone, "CHANGELOG.md", "## Unreleased\n\n- Nothing else.\n")
	commitAll(t, clone)
	out.Reset()
	require.NoError(t, run(t.Context(), clone, "v0.2.0", &out))
	assert.Contains(t, out.String(), "The API since v0.1.1:", "a prerelease promises nothing")
}

func TestRefusals(t *testing.T) {
	t.Parallel()
	for name, refusal := range map[string]struct {
		arrange func(t *testing.T, clone string)
		version string
		wants   []string
	}{
		"a change": {
			arrange: func(t *testing.T, clone string) { write(t, clone, "admit.go", "package admit\n") },
			wants:   []string{"the clone has changes: commit them", "M admit.go"},
		},
		"a new file": {
			arrange: func(t *testing.T, clone string) { write(t, clone, "new.go", "package admit\n") },
			wants:   []string{"?? new.go"},
		},
		"no version":     {version: "1.0", wants: []string{`"1.0" is not a version: give one like v0.1.0`}},
		"a short one":    {version: "v1", wants: []string{`"v1" is not a version`}},
		"a major one":    {version: "v2.0.0", wants: []string{"v2.0.0 does not fit the module path"}},
		"build metadata": {version: "v0.1.0+1", wants: []string{"is not a version"}},
		"an existing tag": {
			arrange: func(t *testing.T, clone string) { must(t, clone, nil, "git", "tag", "v0.1.0") },
			wants:   []string{"the tag v0.1.0 exists: choose a higher version"},
		},
		"an existing tag of a nested module": {
			arrange: func(t *testing.T, clone string) { must(t, clone, nil, "git", "tag", "other/v0.1.0") },
			wants:   []string{"the tag other/v0.1.0 exists"},
		},
		"a higher tag": {
			arrange: func(t *testing.T, clone string) { must(t, clone, nil, "git", "tag", "v0.10.0") },
			wants:   []string{"choose a version above v0.10.0"},
		},
		"a tag that only origin has": {
			arrange: func(t *testing.T, clone string) {
				must(t, clone, nil, "git", "push", "--quiet", "origin", "HEAD:refs/tags/v0.0.9")
			},
			wants: []string{"origin has the tag v0.0.9, which this clone does not have: git fetch --tags"},
		},
		"a shallow clone": {
			arrange: func(t *testing.T, clone string) {
				commitAll(t, clone)
				must(t, clone, nil, "sh", "-c", "git rev-parse HEAD >.git/shallow")
			},
			wants: []string{"the clone is shallow: git fetch --unshallow --tags"},
		},
		"a prerelease after the release": {
			arrange: func(t *testing.T, clone string) { must(t, clone, nil, "git", "tag", "v0.1.0") },
			version: "v0.1.0-rc.1",
			wants:   []string{"choose a version above v0.1.0"},
		},
		"no entries": {
			arrange: func(t *testing.T, clone string) {
				write(t, clone, "CHANGELOG.md", "## Unreleased\n\n## v0.0.1 - 2020-01-01\n\n- It begins.\n")
				commitAll(t, clone)
			},
			wants: []string{`the section "Unreleased" of CHANGELOG.md has no entries`},
		},
		"no licence, no changelog, another branch: all at once": {
			arrange: func(t *testing.T, clone string) {
				must(t, clone, nil, "git", "switch", "--quiet", "--create", "topic")
				must(t, clone, nil, "git", "rm", "--quiet", "LICENSE", "CHANGELOG.md")
				require.NoError(t, os.WriteFile(filepath.Join(clone, "README.md"), []byte("Until v0.1.0 is tagged, wait.\ngo mod edit -replace "+modulePath+"=../admit\n"), 0o644))
				must(t, clone, nil, "git", "add", "README.md")
				commitAll(t, clone)
			},
			wants: []string{"LICENSE is missing", "README.md:1:Until v0.1.0 is tagged", "README.md:2:go mod edit", "CHANGELOG.md", "git switch main"},
		},
		"an Example that fails": {
			arrange: func(t *testing.T, clone string) {
				write(t, clone, "admit.go", "package admit\n\nfunc Limit() int { return 3 }\n")
				commitAll(t, clone)
			},
			wants: []string{"--- FAIL: ExampleLimit"},
		},
		"a module that does not build": {
			arrange: func(t *testing.T, clone string) {
				write(t, clone, "other/other.go", "package other\n\nvar Wrong int = \"\"\n")
				commitAll(t, clone)
			},
			wants: []string{"other: go build", "other.go:3"},
		},
		"a replace line that users would not have": {
			arrange: func(t *testing.T, clone string) {
				goMod := must(t, clone, nil, "cat", "other/go.mod")
				write(t, clone, "other/go.mod", goMod+"\n\nreplace "+modulePath+"/example => ../example\n")
				commitAll(t, clone)
			},
			wants: []string{"replaces " + modulePath + "/example"},
		},
		"a hook that stops the second commit": {
			arrange: func(t *testing.T, clone string) {
				hook := filepath.Join(clone, ".git", "hooks", "commit-msg")
				require.NoError(t, os.WriteFile(hook, []byte("#!/bin/sh\n! grep -q 'require the root' \"$1\"\n"), 0o755))
			},
			wants: []string{"git commit"},
		},
		"a second tag that cannot be": {
			arrange: func(t *testing.T, clone string) { must(t, clone, nil, "git", "tag", "other") },
			wants:   []string{"other/v0.1.0"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			clone := small(t)
			if refusal.arrange != nil {
				refusal.arrange(t, clone)
			}
			if refusal.version == "" {
				refusal.version = "v0.1.0"
			}
			before := state(t, clone)
			err := run(t.Context(), clone, refusal.version, io.Discard)
			for _, want := range refusal.wants {
				assert.ErrorContains(t, err, want)
			}
			assert.Equal(t, before, state(t, clone), "the clone is as it was")
		})
	}
}

func TestMayBreak(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		before, version string
		may             bool
	}{
		{"v0.1.0", "v0.1.1", false},
		{"v0.1.0", "v0.2.0-rc.1", true},
		{"v0.1.0", "v1.0.0", true},
		{"v1.1.0", "v1.2.0", false},
		{"v1.1.0", "v2.0.0", true},
	} {
		assert.Equal(t, c.may, mayBreak(c.before, c.version), c)
	}
}

func TestPrevious(t *testing.T) {
	t.Parallel()
	last, stable := previous([]string{"v0.9.0", "v0.10.0-rc.1", "v0.2.0", "other/v3.0.0", "nightly"})
	assert.Equal(t, []string{"v0.10.0-rc.1", "v0.9.0"}, []string{last, stable})
	last, stable = previous(nil)
	assert.Empty(t, last+stable)
}

func TestDated(t *testing.T) {
	t.Parallel()
	changed, err := dated("# Log\n\n## Unreleased\n\n- A\n\n## v0.1.0 - 2026-01-01\n\n- B\n", "v0.2.0", "2026-02-03")
	require.NoError(t, err)
	assert.Equal(t, "# Log\n\n## Unreleased\n\n## v0.2.0 - 2026-02-03\n\n- A\n\n## v0.1.0 - 2026-01-01\n\n- B\n", changed)
	for _, none := range []string{"", "## unreleased\n\n- A\n", "### Unreleased\n\n- A\n", "## Unreleased\n", "## Unreleased\n\n## v0.1.0\n\n- B\n"} {
		_, err := dated(none, "v0.2.0", "2026-02-03")
		assert.Error(t, err, none)
	}
}
