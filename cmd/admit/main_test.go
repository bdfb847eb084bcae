package main_test

import (
	"bytes"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	_ "modernc.org/sqlite" // the driver "sqlite"

	"github.com/admit-go/admit"
	"github.com/admit-go/admit/internal/testkit"
	"github.com/admit-go/admit/sqlkeys"
)

// Programs are tested as a user has them: built.
var bin string

func TestMain(m *testing.M) {
	os.Exit(func() int {
		dir, err := os.MkdirTemp("", "admit-command-")
		if err != nil {
			panic(err)
		}
		defer os.RemoveAll(dir)
		bin = dir
		for _, build := range []*exec.Cmd{
			exec.Command("go", "build", "-o", filepath.Join(dir, "admit"), "."),
			exec.Command("go", "build", "-C", "../..", "-o", filepath.Join(dir, "example"), "./example"),
		} {
			if out, err := build.CombinedOutput(); err != nil {
				panic(fmt.Sprintf("%v\n%s", err, out))
			}
		}
		return m.Run()
	}())
}

// result is what a command leaves behind.
type result struct {
	stdout, stderr string
	code           int
}

func command(t testing.TB, args ...string) *exec.Cmd {
	c := exec.CommandContext(t.Context(), filepath.Join(bin, "admit"), args...)
	c.Env = append(os.Environ(), "ADMIT_KEYS=")
	return c
}

func run(t testing.TB, args ...string) result {
	t.Helper()
	c := command(t, args...)
	var stdout, stderr bytes.Buffer
	c.Stdout, c.Stderr = &stdout, &stderr
	err := c.Run()
	var exit *exec.ExitError
	if !errors.As(err, &exit) {
		require.NoError(t, err)
	}
	return result{stdout.String(), stderr.String(), c.ProcessState.ExitCode()}
}

// place is one kind of store.
type place struct {
	keys string // for --keys
	open func(t *testing.T) admit.KeyStore
}

func everywhere(t *testing.T, test func(t *testing.T, p place)) {
	t.Parallel()
	t.Run("file", func(t *testing.T) {
		t.Parallel()
		path := filepath.Join(t.TempDir(), "keys.json")
		test(t, place{path, func(t *testing.T) admit.KeyStore {
			keys, err := admit.ReadKeyFile(path)
			require.NoError(t, err)
			return keys
		}})
	})
	t.Run("SQLite", func(t *testing.T) {
		t.Parallel()
		path := filepath.Join(t.TempDir(), "keys #1?.db")
		p := place{"sqlite:" + path, nil}
		r := run(t, "keys", "list", "--keys", p.keys)
		assert.Equal(t, 1, r.code, "a mistyped path is no new database")
		assert.NoFileExists(t, path)

		schema := run(t, "keys", "schema", "sqlite")
		require.Zero(t, schema.code, schema.stderr)
		require.NoError(t, os.WriteFile(path, nil, 0o600))
		db, err := sql.Open("sqlite", "file:"+strings.NewReplacer("#", "%23", "?", "%3f", " ", "%20").Replace(path))
		require.NoError(t, err)
		t.Cleanup(func() { _ = db.Close() })
		_, err = db.ExecContext(t.Context(), schema.stdout)
		require.NoError(t, err)
		p.open = func(t *testing.T) admit.KeyStore {
			s, err := sqlkeys.New(sqlkeys.Config{DB: db, Dialect: sqlkeys.SQLite})
			require.NoError(t, err)
			t.Cleanup(func() { _ = s.Close() })
			return s
		}
		test(t, p)
	})
}

// verify says what a service answers to a token.
func verify(t *testing.T, s admit.KeyStore, token string) string {
	t.Helper()
	a, err := admit.NewAuth(admit.AuthConfig{Store: s})
	require.NoError(t, err)
	k, err := a.Verify(t.Context(), token)
	var refused *admit.Error
	if errors.As(err, &refused) {
		return refused.Message
	}
	require.NoError(t, err)
	return k.ID
}

func TestLifeOfAKey(t *testing.T) {
	everywhere(t, func(t *testing.T, p place) {
		r := run(t, "keys", "mint", "--keys", p.keys, "--id", "acme-1", "--owner", "ACME", "--plan", "pro",
			"--scope", "orders:read", "--scope", "orders:write", "--prefix", "acme_live", "--meta", "team=x", "--expires", "90d")
		require.Zero(t, r.code, r.stderr)
		require.Regexp(t, `\Aacme_live_[0-9A-Za-z]{33}\n\z`, r.stdout, "the token alone")
		first := strings.TrimSpace(r.stdout)
		assert.NotContains(t, r.stderr, first)
		assert.Contains(t, r.stderr, "the key acme-1 of ACME")
		k, err := p.open(t).LookupKey(t.Context(), admit.DigestOf(first))
		require.NoError(t, err)
		assert.Equal(t, []string{"orders:read", "orders:write"}, k.Scopes)
		assert.Equal(t, "pro", k.Plan)
		assert.Equal(t, map[string]string{"team": "x", "hint": first[:14] + "..."}, k.Meta)
		assert.WithinDuration(t, time.Now().Add(90*24*time.Hour), k.ExpiresAt, time.Minute)

		r = run(t, "keys", "rotate", "acme-1", "--keys", p.keys, "--id", "acme-2", "--overlap", "1h")
		require.Zero(t, r.code, r.stderr)
		require.Regexp(t, `\Aacme_live_[0-9A-Za-z]{33}\n\z`, r.stdout, "with the prefix of the old one")
		second := strings.TrimSpace(r.stdout)
		assert.Equal(t, "acme-1", verify(t, p.open(t), first), "both are valid")
		assert.Equal(t, "acme-2", verify(t, p.open(t), second))
		k, err = p.open(t).LookupKey(t.Context(), admit.DigestOf(second))
		require.NoError(t, err)
		assert.Equal(t, "ACME", k.Owner)
		assert.Equal(t, "pro", k.Plan)
		assert.Equal(t, []string{"orders:read", "orders:write"}, k.Scopes)
		assert.Equal(t, "x", k.Meta["team"])
		k, err = p.open(t).LookupKey(t.Context(), admit.DigestOf(first))
		require.NoError(t, err)
		assert.WithinDuration(t, time.Now().Add(time.Hour), k.ExpiresAt, time.Minute)

		r = run(t, "keys", "revoke", "acme-1", "--keys", p.keys)
		require.Zero(t, r.code, r.stderr)
		assert.Empty(t, r.stdout)
		assert.Contains(t, r.stderr, "the key acme-1 of ACME is revoked as of 20")
		assert.Equal(t, "The API key has been revoked.", verify(t, p.open(t), first))
		assert.Equal(t, "acme-2", verify(t, p.open(t), second))

		require.Zero(t, run(t, "keys", "mint", "--keys", p.keys, "--owner", "Other\x1b[2J").code)
		r = run(t, "keys", "list", "--keys", p.keys)
		require.Zero(t, r.code, r.stderr)
		lines := strings.Split(strings.TrimSpace(r.stdout), "\n")
		require.Len(t, lines, 4)
		assert.Regexp(t, `^ID +OWNER +PLAN +STATE +EXPIRES +LAST USED +HINT +SCOPES +LIMITS +QUOTAS +NETWORKS$`, lines[0])
		assert.Regexp(t, `^acme-1 +ACME +pro +revoked +20.* +acme_live_....\.\.\. +orders:read orders:write +- +- +-$`, lines[1])
		assert.Regexp(t, `^acme-2 +ACME +pro +valid +- +- +acme_live_....\.\.\. `, lines[2])
		assert.Regexp(t, `^k-[a-z2-7]{12} +Other\?\[2J +- +valid `, lines[3], "nothing moves the cursor")
		for _, token := range []string{first, second} {
			assert.NotContains(t, r.stdout, token)
		}
		r = run(t, "keys", "list", "--keys", p.keys, "--owner", "ACME", "--json")
		assert.Equal(t, 2, strings.Count(r.stdout, "\n"))
		r = run(t, "keys", "show", "--keys", p.keys, "acme-1")
		require.Zero(t, r.code, r.stderr)
		assert.Regexp(t, `(?m)^state +revoked$`, r.stdout)
		assert.Regexp(t, `(?m)^digest +`+admit.DigestOf(first).String()+`$`, r.stdout)
		assert.Regexp(t, `(?m)^meta team +x$`, r.stdout)
	})
}

func TestJSON(t *testing.T) {
	everywhere(t, func(t *testing.T, p place) {
		read := func(args ...string) (v map[string]any) {
			t.Helper()
			r := run(t, append(args, "--keys", p.keys, "--json")...)
			require.Zero(t, r.code, r.stderr)
			require.Equal(t, 1, strings.Count(r.stdout, "\n"), "%s", r.stdout)
			require.NoError(t, json.Unmarshal([]byte(r.stdout), &v))
			return v
		}
		minted := read("keys", "mint", "--owner", "ACME")
		assert.Equal(t, admit.DigestOf(minted["token"].(string)).String(), minted["digest"])
		id := minted["id"].(string)
		rotated := read("keys", "rotate", id)
		assert.NotEmpty(t, rotated["token"])
		assert.NotEqual(t, id, rotated["id"])
		shown := read("keys", "show", id)
		assert.Equal(t, "valid", shown["state"])
		assert.NotContains(t, shown, "token")
		assert.NotEmpty(t, shown["expires_at"])
		revoked := read("keys", "revoke", id)
		assert.Equal(t, "revoked", revoked["state"])
	})
}

func TestExitCodes(t *testing.T) {
	everywhere(t, func(t *testing.T, p place) {
		require.Zero(t, run(t, "keys", "mint", "--keys", p.keys, "--id", "a").code)
		require.Zero(t, run(t, "keys", "mint", "--keys", p.keys, "--id", "dead").code)
		require.Zero(t, run(t, "keys", "revoke", "--keys", p.keys, "dead").code)
		for name, test := range map[string]struct {
			args string
			code int
			says string
		}{
			"no command":            {"", 2, "admit needs a command"},
			"no command of keys":    {"keys", 2, "admit keys needs a command"},
			"unknown command":       {"keys mnit", 2, "mnit"},
			"unknown flag":          {"keys mint --nope", 2, "--nope"},
			"no such id":            {"keys show none KEYS", 3, "admit: there is no key none\n"},
			"rotate none":           {"keys rotate none KEYS", 3, "admit: there is no key none\n"},
			"revoke none":           {"keys revoke none KEYS", 3, "admit: there is no key none\n"},
			"no id":                 {"keys revoke KEYS", 2, "give at least one ID"},
			"id taken":              {"keys mint --id a KEYS", 4, "exists"},
			"rotate a dead one":     {"keys rotate dead KEYS", 4, "revoked"},
			"rotate to a taken one": {"keys rotate a --id dead KEYS", 4, "exists"},
			"bad prefix":            {"keys mint --prefix A KEYS", 2, "--prefix"},
			"bad scope":             {`keys mint --scope a\b KEYS`, 2, "a scope has only"},
			"bad time":              {"keys mint --expires tomorrow KEYS", 2, "RFC 3339"},
			"time that has passed":  {"keys mint --expires 2020-01-01T00:00:00Z KEYS", 2, "is not in the future"},
			"times reversed":        {"keys mint --expires 1h --not-before 2h KEYS", 2, "before it becomes valid"},
			"negative time":         {"keys revoke a --at -1h KEYS", 2, "negative"},
			"no keys":               {"keys list", 2, "ADMIT_KEYS"},
			"other database":        {"keys list --keys mysql://x", 2, "mysql"},
			"unknown schema":        {"keys schema oracle", 2, "oracle"},
			"file is not there":     {"keys list --keys /none/keys.json", 1, "no such file"},
			"database is down":      {"keys list --keys postgres://127.0.0.1:1/x", 1, "connect"},
		} {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				var args []string
				for _, arg := range strings.Fields(test.args) {
					if arg == "KEYS" {
						args = append(args, "--keys", p.keys)
						continue
					}
					args = append(args, arg)
				}
				r := run(t, args...)
				assert.Equal(t, test.code, r.code, r.stderr)
				assert.Contains(t, r.stderr, test.says)
				assert.Empty(t, r.stdout)
			})
		}
	})
}

func TestHelp(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"mint", "list", "show", "rotate", "revoke", "schema"} {
		r := run(t, "keys", name, "--help")
		assert.Zero(t, r.code)
		assert.Contains(t, r.stdout, "Examples:\n  admit keys "+name)
		assert.Equal(t, name != "schema", strings.Contains(r.stdout, "--keys FILE or URL"), "schema uses no store")
		if name == "rotate" {
			assert.Regexp(t, `--prefix PREFIX +PREFIX of [^"]*\(default: the prefix of the old key,`, r.stdout, "and not key, whatever the old one has")
		}
	}
	for _, name := range []string{"set", "show", "schema"} {
		r := run(t, "quotas", name, "--help")
		assert.Zero(t, r.code)
		assert.Contains(t, r.stdout, "Examples:\n  admit quotas "+name)
		assert.Equal(t, name != "schema", strings.Contains(r.stdout, "--json  "), "schema uses no store")
	}
}

func TestEnvironment(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "keys.json")
	c := command(t, "keys", "mint")
	c.Env = append(os.Environ(), "ADMIT_KEYS="+path)
	require.NoError(t, c.Run())
	assert.FileExists(t, path)
}

// Each revocation counts, also of the ids after a wrong one.
func TestRevokeSeveral(t *testing.T) {
	everywhere(t, func(t *testing.T, p place) {
		for _, id := range []string{"a", "b"} {
			require.Zero(t, run(t, "keys", "mint", "--keys", p.keys, "--id", id).code)
		}
		r := run(t, "keys", "revoke", "--keys", p.keys, "a", "none", "b")
		assert.Equal(t, 3, r.code)
		r = run(t, "keys", "list", "--keys", p.keys)
		assert.Equal(t, 2, strings.Count(r.stdout, "revoked"), r.stdout)
	})
}

// A token that could not be printed is nobody's, so its key is not left valid.
func TestTokenThatCannotBePrinted(t *testing.T) {
	everywhere(t, func(t *testing.T, p place) {
		read, write, err := os.Pipe()
		require.NoError(t, err)
		require.NoError(t, read.Close())
		c := command(t, "keys", "mint", "--keys", p.keys, "--id", "lost")
		var stderr bytes.Buffer
		c.Stdout, c.Stderr = write, &stderr
		require.Error(t, c.Run())
		require.NoError(t, write.Close())
		assert.Equal(t, 1, c.ProcessState.ExitCode(), stderr.String())
		assert.Contains(t, stderr.String(), "so the key is revoked")
		assert.Contains(t, run(t, "keys", "show", "--keys", p.keys, "lost").stdout, "revoked")
	})
}

// Commands at the same time lose nothing, and leave a file that only its owner reads.
func TestCommandsAtOnce(t *testing.T) {
	everywhere(t, func(t *testing.T, p place) {
		var all sync.WaitGroup
		const n = 12
		for i := range n {
			all.Go(func() {
				r := run(t, "keys", "mint", "--keys", p.keys, "--id", fmt.Sprint(i))
				assert.Zero(t, r.code, r.stderr)
			})
		}
		all.Wait()
		assert.Equal(t, n, strings.Count(run(t, "keys", "list", "--keys", p.keys, "--json").stdout, "\n"))
		if !strings.HasPrefix(p.keys, "sqlite:") && runtime.GOOS != "windows" {
			info, err := os.Stat(p.keys)
			require.NoError(t, err)
			assert.Equal(t, os.FileMode(0o600), info.Mode())
		}
	})
}

// A link to a key file stays a link.
func TestLinkedFile(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	require.Zero(t, run(t, "keys", "mint", "--keys", filepath.Join(dir, "real.json"), "--id", "a").code)
	require.NoError(t, os.Symlink("real.json", filepath.Join(dir, "link.json")))
	require.Zero(t, run(t, "keys", "mint", "--keys", filepath.Join(dir, "link.json"), "--id", "b").code)
	info, err := os.Lstat(filepath.Join(dir, "link.json"))
	require.NoError(t, err)
	assert.NotZero(t, info.Mode()&os.ModeSymlink)
	assert.Contains(t, run(t, "keys", "list", "--keys", filepath.Join(dir, "real.json")).stdout, "b ")
}

// A link that leads nowhere is replaced by no file, and nothing is made beside it.
func TestLinkToNowhere(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	link := filepath.Join(dir, "link.json")
	require.NoError(t, os.Symlink("real.json", link))
	for _, args := range [][]string{{"mint"}, {"list"}, {"revoke", "a"}} {
		r := run(t, append([]string{"keys", "--keys", link}, args...)...)
		assert.Equal(t, 1, r.code)
		assert.Empty(t, r.stdout)
		assert.Contains(t, r.stderr, "leads to real.json, which does not exist")
	}
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	assert.Len(t, entries, 1)
}

// The example service follows what the command does to its key file.
func TestWithTheExample(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	keys := filepath.Join(dir, "keys.json")
	mint := func(args ...string) string {
		t.Helper()
		r := run(t, append(args, "--keys", keys)...)
		require.Zero(t, r.code, r.stderr)
		return strings.TrimSpace(r.stdout)
	}
	first := mint("keys", "mint", "--id", "acme-1", "--owner", "ACME", "--plan", "pro")

	url := testkit.StartProgram(t, exec.Command(filepath.Join(bin, "example"), "-addr", "127.0.0.1:0", "-keys", keys, "-metrics", ""))
	status := func(token string) int { return testkit.Status(t, url+"/v1/history/btc-usd", token) }
	becomes := func(token string, want int) {
		t.Helper()
		require.Eventually(t, func() bool { return status(token) == want }, 20*time.Second, 50*time.Millisecond)
	}
	becomes(first, 200)
	second := mint("keys", "rotate", "acme-1", "--overlap", "1h")
	becomes(second, 200)
	require.Equal(t, 200, status(first), "both at once")
	mint("keys", "revoke", "acme-1")
	becomes(first, 401)
	require.Equal(t, 200, status(second))
}
