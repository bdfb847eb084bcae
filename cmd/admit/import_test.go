package main_test

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/admit-go/admit"
)

// feed runs a command with a standard input.
func feed(t *testing.T, input string, args ...string) result {
	t.Helper()
	c := command(t, args...)
	var stdout, stderr bytes.Buffer
	c.Stdin, c.Stdout, c.Stderr = strings.NewReader(input), &stdout, &stderr
	_ = c.Run()
	return result{stdout.String(), stderr.String(), c.ProcessState.ExitCode()}
}

const firstToken, secondToken = "a-token-from-elsewhere", "another-from-elsewhere"

func TestImport(t *testing.T) {
	everywhere(t, func(t *testing.T, p place) {
		lines := `{"id":"a","token":"` + firstToken + `","owner":"ACME","plan":"pro","scopes":["x"],"meta":{"n":"1"},"expires_at":"2090-01-01T00:00:00Z"}` + "\n" +
			`{"digest":"` + admit.DigestOf(secondToken).String() + `"}` + "\n"
		r := feed(t, lines, "keys", "import", "--keys", p.keys)
		require.Zero(t, r.code, r.stderr)
		assert.Equal(t, "2 imported, 0 already there, 0 in conflict\n", r.stderr)
		assert.Empty(t, r.stdout)
		assert.Equal(t, "a", verify(t, p.open(t), firstToken))
		assert.Regexp(t, `^k-[a-z2-7]{12}$`, verify(t, p.open(t), secondToken))
		assert.Equal(t, map[string]any{
			"state": "valid", "owner": "ACME", "plan": "pro", "scopes": []any{"x"}, "meta": map[string]any{"n": "1"}, "expires_at": "2090-01-01T00:00:00Z",
		}, show(t, p, "a"))

		require.Zero(t, run(t, "keys", "update", "a", "--plan", "max", "--keys", p.keys).code)
		r = feed(t, lines, "keys", "import", "-", "--keys", p.keys)
		require.Zero(t, r.code, r.stderr)
		assert.Equal(t, "0 imported, 2 already there, 0 in conflict\n", r.stderr)
		assert.Equal(t, "max", show(t, p, "a")["plan"], "what is there stays")

		path := filepath.Join(t.TempDir(), "in.csv")
		require.NoError(t, os.WriteFile(path, []byte("id,token\na,token-number-three\nb,"+firstToken+"\nc,token-number-four\n"), 0o600))
		r = run(t, "keys", "import", path, "--json", "--keys", p.keys)
		assert.Equal(t, 4, r.code)
		assert.Contains(t, r.stderr, "conflict in line 2: a: a key with this id has another token\nconflict in line 3: b: its token belongs to ")
		assert.Contains(t, r.stderr, "\n1 imported, 0 already there, 2 in conflict\n")
		assert.Equal(t, `{"imported":1,"there_already":0,"conflicts":["a","b"]}`+"\n", r.stdout)
		assert.Equal(t, "c", verify(t, p.open(t), "token-number-four"), "the others are imported")
		for _, secret := range []string{"token-number", firstToken} {
			assert.NotContains(t, r.stderr, secret)
		}
	})
}

// Nothing is written where something is wrong.
func TestImportChecksFirst(t *testing.T) {
	everywhere(t, func(t *testing.T, p place) {
		require.Zero(t, run(t, "keys", "mint", "--keys", p.keys, "--id", "there").code)
		r := feed(t, "id,token\na,"+firstToken+"\nb,short\nc,"+firstToken+"\n", "keys", "import", "--keys", p.keys)
		assert.Equal(t, 1, r.code)
		assert.Equal(t, "admit: standard input:3: the token is shorter than 16 characters, so it could be guessed from its SHA-256; mint a new key instead\n"+
			"admit: standard input:4: the token or digest is a duplicate of line 2\n", r.stderr)
		assert.Equal(t, 1, strings.Count(run(t, "keys", "list", "--json", "--keys", p.keys).stdout, "\n"))

		assert.Equal(t, 1, run(t, "keys", "import", filepath.Join(t.TempDir(), "none"), "--keys", p.keys).code)
		assert.Equal(t, 1, feed(t, "", "keys", "import", "--keys", p.keys).code)
		assert.Equal(t, 2, feed(t, "", "keys", "import", "--format", "xml", "--keys", p.keys).code)
	})
}

// Keys move from one store to another by list and import.
func TestImportOfAList(t *testing.T) {
	everywhere(t, func(t *testing.T, p place) {
		token := strings.TrimSpace(run(t, "keys", "mint", "--keys", p.keys, "--id", "a", "--owner", "AC\u202eME", "--scope", "x", "--expires", "2090-01-01T00:00:00Z").stdout)
		require.Zero(t, run(t, "keys", "mint", "--keys", p.keys, "--id", "b").code)
		require.Zero(t, run(t, "keys", "revoke", "b", "--at", "2080-01-01T00:00:00Z", "--keys", p.keys).code)
		list := run(t, "keys", "list", "--json", "--keys", p.keys).stdout
		r := feed(t, list, "keys", "import", "--keys", filepath.Join(t.TempDir(), "moved.json"))
		require.Equal(t, 1, r.code)
		require.Contains(t, r.stderr, `"state" is not a known member`)
		var lines []string
		for line := range strings.Lines(list) {
			line = strings.Replace(line, `"state":"valid",`, "", 1)
			if i := strings.Index(line, `"created_at":"`); i >= 0 {
				line = line[:i] + line[i+strings.IndexByte(line[i:], ',')+1:]
			}
			lines = append(lines, line)
		}
		moved := place{keys: filepath.Join(t.TempDir(), "moved.json")}
		r = feed(t, strings.Join(lines, ""), "keys", "import", "--keys", moved.keys)
		require.Zero(t, r.code, r.stderr)
		keys, err := admit.ReadKeyFile(moved.keys)
		require.NoError(t, err)
		assert.Equal(t, "a", verify(t, keys, token))
		for _, id := range []string{"a", "b"} {
			assert.Equal(t, show(t, p, id), show(t, moved, id))
		}
	})
}

// A key file is imported as it is: keys move into another file or a database.
func TestImportOfAKeyFile(t *testing.T) {
	everywhere(t, func(t *testing.T, p place) {
		source := place{keys: filepath.Join(t.TempDir(), "source.json")}
		token := strings.TrimSpace(run(t, "keys", "mint", "--keys", source.keys, "--id", "a", "--owner", "ACME", "--plan", "pro", "--scope", "x", "--meta", "n=1",
			"--not-before", "2020-01-01T00:00:00Z", "--expires", "2090-01-01T00:00:00Z").stdout)
		require.Zero(t, run(t, "keys", "mint", "--keys", source.keys, "--id", "b").code)
		require.Zero(t, run(t, "keys", "revoke", "b", "--at", "2080-01-01T00:00:00Z", "--keys", source.keys).code)
		for format := range 2 {
			if format > 0 { // the first round is a file of format 1
				require.Zero(t, run(t, "keys", "update", "a", "--limit", "day=50000/24h:2000", "--quota", "reports=500/day:soft", "--keys", source.keys).code)
				require.Zero(t, run(t, "keys", "update", "b", "--network", "192.0.2.0/24", "--keys", source.keys).code)
			}
			text, err := os.ReadFile(source.keys)
			require.NoError(t, err)
			require.Equal(t, format > 0, strings.Contains(string(text), `"format": 2`))
			into := place{keys: filepath.Join(t.TempDir(), "moved.json")}
			r := run(t, "keys", "import", source.keys, "--keys", into.keys)
			require.Zero(t, r.code, r.stderr)
			assert.Equal(t, "2 imported, 0 already there, 0 in conflict\n", r.stderr)
			moved, err := os.ReadFile(into.keys)
			require.NoError(t, err)
			assert.Equal(t, string(text), string(moved))
		}
		r := run(t, "keys", "import", source.keys, "--keys", p.keys)
		require.Zero(t, r.code, r.stderr)
		for _, id := range []string{"a", "b"} {
			there := show(t, p, id)
			delete(there, "created_at") // which a file does not have
			assert.Equal(t, show(t, source, id), there)
		}
		assert.Equal(t, "a", verify(t, p.open(t), token))
		assert.Equal(t, "0 imported, 2 already there, 0 in conflict\n", run(t, "keys", "import", source.keys, "--keys", p.keys).stderr)

		require.Zero(t, run(t, "keys", "mint", "--keys", source.keys, "--id", "c").code)
		other := place{keys: filepath.Join(t.TempDir(), "other.json")}
		require.Zero(t, run(t, "keys", "mint", "--keys", other.keys, "--id", "c").code)
		require.Zero(t, run(t, "keys", "import", source.keys, "--keys", p.keys).code)
		r = run(t, "keys", "import", other.keys, "--keys", p.keys)
		assert.Equal(t, 4, r.code)
		assert.Contains(t, r.stderr, "conflict in line 3: c: a key with this id has another token\n0 imported, 0 already there, 1 in conflict\n")
	})
}

// Many keys are one change of a file, not one for each.
func TestImportMany(t *testing.T) {
	t.Parallel()
	const n = 20_000
	var text strings.Builder
	text.WriteString("id,token\n")
	for i := range n {
		fmt.Fprintf(&text, "%d,token-number-%08d\n", i, i)
	}
	path := filepath.Join(t.TempDir(), "keys.json")
	r := feed(t, text.String(), "keys", "import", "--keys", path)
	require.Zero(t, r.code, r.stderr)
	before, err := os.Stat(path)
	require.NoError(t, err)
	r = feed(t, text.String(), "keys", "import", "--keys", path)
	require.Zero(t, r.code, r.stderr)
	assert.Equal(t, fmt.Sprintf("0 imported, %d already there, 0 in conflict\n", n), r.stderr)
	after, err := os.Stat(path)
	require.NoError(t, err)
	assert.True(t, os.SameFile(before, after), "a file is not replaced for nothing")
}

// A command that waits for its input can be interrupted.
func TestImportInterrupted(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("there are no signals")
	}
	t.Parallel()
	c := command(t, "keys", "import", "--keys", filepath.Join(t.TempDir(), "keys.json"))
	in, err := c.StdinPipe()
	require.NoError(t, err)
	defer in.Close()
	require.NoError(t, c.Start())
	_, err = in.Write(append([]byte("token"), bytes.Repeat([]byte("\n"), 300_000)...)) // more than a pipe holds: so it reads
	require.NoError(t, err)
	require.NoError(t, c.Process.Signal(os.Interrupt))
	require.Error(t, c.Wait())
	assert.Equal(t, 1, c.ProcessState.ExitCode())
}
