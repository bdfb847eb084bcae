package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/admit-go/admit/integration/internal/goproxy"
	"github.com/admit-go/admit/integration/internal/markdown"
)

const modulePath = "github.com/admit-go/admit"

// A release of the commit that is checked out serves a user who has nothing but its tags: the
// command can be installed, and new services can be built on the modules.
func TestUserGetsRelease(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("it builds every module")
	}
	clone := cloneOfThis(t)
	var out strings.Builder
	require.NoError(t, run(t.Context(), clone, "v0.1.0", &out), &out)
	t.Log(&out)
	assert.Empty(t, must(t, clone, nil, "git", "diff", "v0.1.0", "HEAD"), "main is as before, but for the changelog")

	tags, proxy := []string{"."}, t.TempDir()
	for tag := range strings.FieldsSeq(must(t, clone, nil, "git", "tag", "--list", "*/v0.1.0")) {
		tags = append(tags, strings.TrimSuffix(tag, "/v0.1.0"))
	}
	require.ElementsMatch(t, []string{".", "admitotel", "admitprom", "cmd/admit"}, tags)
	for _, dir := range tags {
		require.NoError(t, goproxy.Publish(t.Context(), clone, proxy, goproxy.Module{Dir: dir, Ref: tagOf(dir, "v0.1.0"), Version: "v0.1.0"}))
	}
	home := t.TempDir()
	env, err := goproxy.Env(t.Context(), proxy, filepath.Join(home, "modules"))
	require.NoError(t, err)
	env = append(env, "GOSUMDB=off", "GOBIN="+home)

	page, err := markdown.Read(filepath.Join(clone, "README.md"))
	require.NoError(t, err)
	blocks := func(lang string) (texts []string) {
		for _, b := range page.Blocks {
			if b.Lang == lang {
				texts = append(texts, b.Text)
			}
		}
		return texts
	}
	install := blocks("sh")[1] // it makes a key, too
	must(t, home, append(slices.Clone(env), "PATH="+home+":"+os.Getenv("PATH")), "sh", "-e", "-c", install)
	assert.Contains(t, must(t, home, env, "./admit", "--version"), "v0.1.0")
	minted, err := os.ReadFile(filepath.Join(home, "token"))
	require.NoError(t, err)
	token := strings.TrimSpace(string(minted))

	t.Run("hello", func(t *testing.T) {
		t.Parallel()
		service := start(t, home, "hello", env, modulePath+"@v0.1.0")
		status, body := get(t, service+"/hello", "")
		assert.Equal(t, http.StatusUnauthorized, status, body)
		status, body = get(t, service+"/hello", token)
		assert.Equal(t, http.StatusOK, status, body)
		assert.Contains(t, body, "Hello, ACME")
	})
	t.Run("metrics", func(t *testing.T) {
		t.Parallel()
		service := start(t, home, "metrics", env, modulePath+"@v0.1.0", modulePath+"/admitprom@v0.1.0")
		status, body := get(t, service+"/hello", "")
		assert.Equal(t, http.StatusUnauthorized, status, body)
		status, body = get(t, service+"/hello", token)
		assert.Equal(t, http.StatusOK, status, body)
		_, body = get(t, service+"/metrics", "")
		assert.Regexp(t, `http_server_request_duration_seconds_count\{[^}]*http_response_status_code="401"[^}]*\} 1\n`, body)
	})
	t.Run("README", func(t *testing.T) {
		t.Parallel()
		dir := t.TempDir()
		require.NoError(t, os.WriteFile(filepath.Join(dir, "main.go"), []byte(blocks("go")[0]), 0o600))
		commands, runs := strings.CutSuffix(blocks("sh")[0], "go run .\n") // which readme tests with a clone
		require.True(t, runs)
		must(t, dir, env, "sh", "-e", "-c", commands+"go build .")
		assert.Contains(t, must(t, dir, env, "go", "list", "-m", modulePath), "v0.1.0")
	})
	// What Go makes of the tags themselves has the hashes that are in the go.sum of the tags.
	t.Run("git", func(t *testing.T) {
		t.Parallel()
		direct := append(slices.Clone(env), "GOPROXY=direct", "GOMODCACHE="+t.TempDir(), "GIT_CONFIG_COUNT=1",
			"GIT_CONFIG_KEY_0=url.file://"+clone+".insteadOf", "GIT_CONFIG_VALUE_0=https://"+modulePath)
		for _, dir := range tags {
			module := strings.TrimSuffix(modulePath+"/"+dir, "/.") + "@v0.1.0"
			var fromProxy, fromTag struct{ Sum, GoModSum string }
			require.NoError(t, json.Unmarshal([]byte(must(t, home, env, "go", "mod", "download", "-json", module)), &fromProxy))
			require.NoError(t, json.Unmarshal([]byte(must(t, home, direct, "go", "mod", "download", "-json", module)), &fromTag))
			assert.Equal(t, fromTag, fromProxy, module)
			if dir == "." {
				sums := must(t, clone, nil, "git", "show", "cmd/admit/v0.1.0:cmd/admit/go.sum")
				assert.Contains(t, sums, modulePath+" v0.1.0 "+fromTag.Sum+"\n"+modulePath+" v0.1.0/go.mod "+fromTag.GoModSum+"\n")
			}
		}
	})
}

// cloneOfThis returns a repository of the sources that are here, which need not be a whole clone
// or a clone at all, on main, without tags, and with something to release.
func cloneOfThis(t *testing.T) string {
	top, err := filepath.Abs("../..")
	require.NoError(t, err)
	clone := filepath.Join(t.TempDir(), "clone")
	if names, err := output(t.Context(), top, nil, "git", "ls-files", "-z"); err == nil {
		for name := range strings.SplitSeq(strings.Trim(names, "\x00"), "\x00") {
			text, err := os.ReadFile(filepath.Join(top, name))
			if errors.Is(err, fs.ErrNotExist) {
				continue // it is about to be removed
			}
			require.NoError(t, err)
			info, err := os.Stat(filepath.Join(top, name))
			require.NoError(t, err)
			to := filepath.Join(clone, name)
			require.NoError(t, os.MkdirAll(filepath.Dir(to), 0o755))
			require.NoError(t, os.WriteFile(to, text, info.Mode().Perm()))
		}
	} else {
		require.NoError(t, os.CopyFS(clone, os.DirFS(top)))
	}
	must(t, clone, nil, "git", "init", "--quiet", "--initial-branch", "main")
	must(t, clone, nil, "git", "add", "--all")
	identify(t, clone)
	untilTagged := regexp.MustCompile(`(?m)^(.*(?i:until) v[0-9.]+ is tagged.*|go mod edit -replace .*)\n`)
	pages, err := filepath.Glob(filepath.Join(clone, "docs", "*.md")) // others do not say what holds until then
	require.NoError(t, err)
	for _, page := range append(pages, filepath.Join(clone, "README.md")) {
		text, err := os.ReadFile(page)
		require.NoError(t, err)
		require.NoError(t, os.WriteFile(page, untilTagged.ReplaceAll(text, nil), 0o644))
	}
	name := filepath.Join(clone, "CHANGELOG.md")
	changelog, err := os.ReadFile(name)
	require.NoError(t, err)
	changed := strings.Replace(string(changelog), "\n## Unreleased\n", "\n## Unreleased\n\n- The entry of a test.\n", 1)
	require.NoError(t, os.WriteFile(name, []byte(changed), 0o644))
	must(t, clone, nil, "git", "commit", "--quiet", "--all", "--message", "There is something to release")
	return clone
}

// start builds a service of testdata in an empty folder, with the versions of modules that it
// needs, and returns its URL.
func start(t *testing.T, home, service string, env []string, modules ...string) string {
	dir := t.TempDir()
	must(t, dir, env, "go", "mod", "init", "example.com/"+service)
	require.NoError(t, os.CopyFS(dir, os.DirFS(filepath.Join("testdata", service))))
	must(t, dir, env, "go", append([]string{"get"}, modules...)...)
	must(t, dir, env, "go", "mod", "tidy")
	must(t, dir, env, "go", "build", "-o", "service", ".")

	cmd := exec.CommandContext(t.Context(), filepath.Join(dir, "service"))
	cmd.Dir, cmd.Stderr = home, t.Output()
	cmd.WaitDelay = 10 * time.Second
	stdout, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	t.Cleanup(func() { _ = cmd.Wait() }) // the context of the test has ended it
	address, err := bufio.NewReader(stdout).ReadString('\n')
	require.NoError(t, err)
	return "http://" + strings.TrimSpace(address)
}

func get(t *testing.T, url, token string) (status int, body string) {
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	require.NoError(t, err)
	if token != "" {
		req.Header.Set("X-API-Key", token)
	}
	res, err := http.DefaultClient.Do(req)
	require.NoError(t, err)
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	require.NoError(t, err)
	return res.StatusCode, string(text)
}

func must(t *testing.T, dir string, env []string, program string, args ...string) string {
	t.Helper()
	out, err := output(t.Context(), dir, env, program, args...)
	require.NoError(t, err)
	return out
}
