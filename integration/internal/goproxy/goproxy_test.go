package goproxy_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/admit-go/admit/integration/internal/goproxy"
)

// A repository of two modules, the second of which is built from the first by a replace line.
func repository(t *testing.T) string {
	dir := t.TempDir()
	require.NoError(t, os.CopyFS(dir, fstest.MapFS{
		"LICENSE":            {Data: []byte("Anybody may use this.\n")},
		"go.work":            {Data: []byte("go 1.25.0\n\nuse (\n\t.\n\t./cmd/greet\n\t./example\n)\n")},
		"go.mod":             {Data: []byte("module example.com/greet\n\ngo 1.25.0\n")},
		"greet.go":           {Data: []byte("package greet\n\nconst Greeting = \"hello\"\n")},
		"cmd/greet/go.mod":   {Data: []byte("module example.com/greet/cmd/greet\n\ngo 1.25.0\n\nrequire example.com/greet v0.0.0\n\nreplace example.com/greet => ../../\n")},
		"cmd/greet/greet.go": {Data: []byte("package main\n\nimport \"example.com/greet\"\n\nfunc main() { println(greet.Greeting) }\n")},
		"example/go.mod":     {Data: []byte("module example.com/greet/example\n\ngo 1.25.0\n")},
	}))
	commit(t, dir, "init", "--quiet")
	return dir
}

func commit(t *testing.T, dir string, before ...string) {
	for _, args := range [][]string{
		before,
		{"add", "--all"},
		{"-c", "user.name=test", "-c", "user.email=test@example.com", "commit", "--quiet", "--message", "A commit"},
	} {
		cmd := exec.CommandContext(t.Context(), "git", args...)
		cmd.Dir = dir
		out, err := cmd.CombinedOutput()
		require.NoError(t, err, "%s", out)
	}
}

// user runs the go command in an empty folder with an empty module cache.
func user(t *testing.T, proxy string) func(args ...string) string {
	dir := t.TempDir()
	env, err := goproxy.Env(t.Context(), proxy, filepath.Join(dir, "cache"))
	require.NoError(t, err)
	env = append(env, "GOSUMDB=off", "GOPROXY=file://"+proxy, "GOBIN="+dir)
	return func(args ...string) string {
		cmd := exec.CommandContext(t.Context(), args[0], args[1:]...)
		cmd.Dir, cmd.Env = dir, env
		out, err := cmd.CombinedOutput()
		require.NoError(t, err, "%s", out)
		return string(out)
	}
}

func TestPublish(t *testing.T) {
	t.Parallel()
	repo, proxy := repository(t), t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(repo, "greet.go"), []byte("package greet\n\nconst Greeting = \"hello again\"\n"), 0o644))
	commit(t, repo, "tag", "v1.0.0")
	require.NoError(t, goproxy.Publish(t.Context(), repo, proxy,
		goproxy.Module{Dir: ".", Ref: "v1.0.0", Version: "v1.0.0"},
		goproxy.Module{Dir: ".", Ref: "HEAD", Version: "v1.0.1"},
		goproxy.Module{Dir: "cmd/greet", Ref: "HEAD", Version: "v1.0.1"}))

	run := user(t, proxy)
	assert.Equal(t, "example.com/greet v1.0.0 v1.0.1\n", run("go", "list", "-m", "-versions", "example.com/greet"))
	run("go", "mod", "download", "example.com/greet@v1.0.0", "example.com/greet@v1.0.1", "example.com/greet/cmd/greet@v1.0.1")
	cat := func(name string) string { return run("cat", filepath.Join("cache", "example.com", name)) }
	assert.Contains(t, cat("greet@v1.0.0/greet.go"), `"hello"`)
	assert.Contains(t, cat("greet@v1.0.1/greet.go"), `"hello again"`)
	assert.Contains(t, cat("greet/cmd/greet@v1.0.1/go.mod"), "replace")
	assert.Contains(t, cat("greet/cmd/greet@v1.0.1/LICENSE"), "Anybody", "a module below the root has the licence of the root")
	assert.NotContains(t, run("ls", "-R", "cache/example.com/greet@v1.0.1"), "cmd")

	err := goproxy.Publish(t.Context(), repo, proxy, goproxy.Module{Dir: ".", Ref: "v2.0.0", Version: "v2.0.0"})
	assert.ErrorContains(t, err, "v2.0.0^{commit}")
}

// A command can be installed only from a module without replace lines.
func TestPublishAll(t *testing.T) {
	t.Parallel()
	repo, proxy := repository(t), t.TempDir()
	require.NoError(t, goproxy.PublishAll(t.Context(), repo, proxy, "HEAD", "v1.0.0"))
	run := user(t, proxy)
	run("go", "install", "example.com/greet/cmd/greet@latest")
	assert.Equal(t, "hello\n", run("./greet"))
	assert.NoDirExists(t, filepath.Join(proxy, "example.com", "greet", "example"))

	status := exec.CommandContext(t.Context(), "git", "-C", repo, "status", "--porcelain")
	out, err := status.Output()
	require.NoError(t, err)
	assert.Empty(t, out, "the repository is as it was")
}

func TestRequire(t *testing.T) {
	t.Parallel()
	repo := repository(t)
	before, err := os.ReadFile(filepath.Join(repo, "go.mod"))
	require.NoError(t, err)
	require.NoError(t, goproxy.Require(repo, ".", "v1.0.0"))
	after, err := os.ReadFile(filepath.Join(repo, "go.mod"))
	require.NoError(t, err)
	assert.Equal(t, string(before), string(after))

	name := filepath.Join(repo, "cmd", "greet", "go.mod")
	require.NoError(t, goproxy.Require(repo, "cmd/greet", "v1.0.0"))
	after, err = os.ReadFile(name)
	require.NoError(t, err)
	assert.Equal(t, "module example.com/greet/cmd/greet\n\ngo 1.25.0\n\nrequire example.com/greet v1.0.0\n", string(after))

	other := strings.Replace(string(after), "require", "replace example.com/other => ../other\n\nrequire", 1)
	require.NoError(t, os.WriteFile(name, []byte(other), 0o644))
	assert.ErrorContains(t, goproxy.Require(repo, "cmd/greet", "v1.0.0"), "example.com/other")
}
