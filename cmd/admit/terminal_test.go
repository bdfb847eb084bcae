package main_test

import (
	"bufio"
	"bytes"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/admit-go/admit"
)

// hostile moves the cursor, reverses the order of the line, and looks like another line.
const hostile = "AC\x1b[2J\u202eM\u2066E\u200f\u061c\x7f\u009b\u2028\nadmit: all is well"

// What is in a store or an argument does not reach the terminal as it is, from no command.
func TestNothingMovesTheCursor(t *testing.T) {
	everywhere(t, func(t *testing.T, p place) {
		unprintable := regexp.MustCompile(`[\x00-\x08\x0b-\x1f\x7f-\x{9f}\x{202a}-\x{202e}\x{2066}-\x{2069}\x{200e}\x{200f}\x{061c}\x{2028}\x{2029}]|\nadmit: all is well`)
		in := filepath.Join(t.TempDir(), "in.json")
		require.NoError(t, os.WriteFile(in, []byte(`{"owner\u001b[2J":"a"}`), 0o600))
		for _, args := range [][]string{
			{"mint", "--id", "a", "--owner", hostile, "--plan", hostile, "--meta", hostile + "=" + hostile},
			{"mint", "--id", "b", "--owner", hostile, "--json"},
			{"mint", "--id", hostile},
			{"mint", "--scope", hostile},
			{"mint", "--network", hostile},
			{"mint", "--limit", hostile},
			{"mint", "--expires", hostile},
			{"list"},
			{"list", "--json"},
			{"show", "a"},
			{"show", "a", "--json"},
			{"show", hostile},
			{"update", "a", "--plan", hostile},
			{"update", "a", "--plan", "x", "--json"},
			{"update", hostile, "--plan", "x"},
			{"rotate", "a", "--id", "c"},
			{"rotate", "a", "--json"},
			{"rotate", hostile},
			{"revoke", "a", "--json"},
			{"revoke", hostile},
			{"import", in},
			{"import", in + hostile},
			{"schema", hostile},
			{hostile},
			{"list", "--" + hostile},
			{"list", "--keys", hostile},
			{"list", "--keys", "./" + hostile},
			{"list", "--keys", "x:" + hostile},
			{"list", "--keys", "sqlite:" + hostile},
		} {
			args = append([]string{"keys"}, args...)
			if !strings.Contains(strings.Join(args, " "), "--keys") {
				args = append(args, "--keys", p.keys)
			}
			r := run(t, args...)
			assert.Empty(t, unprintable.FindAllString(r.stdout, -1), "%q: %q", args, r.stdout)
			assert.Empty(t, unprintable.FindAllString("\n"+r.stderr, -1), "%q: %q", args, r.stderr)
			assert.NotEmpty(t, r.stdout+r.stderr)
		}
		assert.Contains(t, run(t, "keys", "show", "a", "--keys", p.keys).stdout, "AC?[2J?M?E")
	})
}

// A reader that has seen enough, such as head, is no failure.
func TestReaderThatGoes(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("there a pipe ends in another way")
	}
	everywhere(t, func(t *testing.T, p place) {
		require.Zero(t, run(t, "keys", "mint", "--id", "a", "--keys", p.keys).code)
		for _, args := range []string{"list", "list --json", "show a", "show a --json", "update a --plan x", "revoke a --json", "schema sqlite"} {
			read, write, err := os.Pipe()
			require.NoError(t, err)
			require.NoError(t, read.Close())
			c := command(t, append([]string{"keys", "--keys", p.keys}, strings.Fields(args)...)...)
			var stderr bytes.Buffer
			c.Stdout, c.Stderr = write, &stderr
			require.NoError(t, c.Run(), "%s: %s", args, stderr.String())
			require.NoError(t, write.Close())
			assert.NotContains(t, stderr.String(), "admit:")
		}
	})
}

// What may have been meant as the address of a database is not taken for a file, and no
// password is repeated.
func TestAddressesThatAreNone(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	const url = "postgres://USER:PASSWORD@HOST:PORT/DATABASE"
	for where, says := range map[string]string{
		"host=db user=u password=secret dbname=d": url,
		"application_name=x password = secret":    url,
		" PASSWORD=secret":                        url,
		"u:secret@db/d":                           url,
		"postgres//u:secret@db/d":                 url,
		"postgres:/u:secret@db/d":                 url,
		"postgresql:user=u password=secret":       url,
		"POSTGRES://u:secret@db/d":                url,
		"postgres://u:sec ret@127.0.0.1:1/d":      "is not a URL",
		"postgres://u:secret%@127.0.0.1:1/d":      "is not a URL",
		"postgres://u:secret@127.0.0.1:secret/d":  "is not a URL",
		"mysql://secret":                          "mysql is not supported",
		"sqlite3:secret":                          "sqlite3 is not supported",
		"file:secret":                             "./NAME",
	} {
		c := command(t, "keys", "mint", "--keys", where)
		c.Dir = dir
		var stderr bytes.Buffer
		c.Stderr = &stderr
		require.Error(t, c.Run())
		assert.Equal(t, 2, c.ProcessState.ExitCode(), where)
		assert.Contains(t, stderr.String(), says, where)
		assert.NotContains(t, stderr.String(), "secret", where)
	}
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	assert.Empty(t, entries, "nothing is made")
	if runtime.GOOS != "windows" {
		require.Zero(t, run(t, "keys", "mint", "--keys", dir+"/a:b=c@d").code, "a path is a path")
	}
}

func TestVersion(t *testing.T) {
	t.Parallel()
	r := run(t, "--version")
	require.Zero(t, r.code, r.stderr)
	assert.Regexp(t, `\Aadmit (\(devel\)|v\d\S*)(, commit [0-9a-f]{40}( with changes)?)?, `+regexp.QuoteMeta(runtime.Version())+`\n\z`, r.stdout)
}

// Messages have the name of the command once, and the lines of one that has more.
func TestMessages(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "keys.json")
	require.NoError(t, os.WriteFile(path, []byte("{\"keys\": [{\"id\": \"a\"},\n{\"digest\": \""+admit.DigestOf("x").String()+"\"}]}"), 0o600))
	r := run(t, "keys", "list", "--keys", path)
	assert.Equal(t, 1, r.code)
	lines := 0
	for in := bufio.NewScanner(strings.NewReader(r.stderr)); in.Scan(); lines++ {
		assert.True(t, strings.HasPrefix(in.Text(), "admit: "+path+":"), "%q", in.Text())
	}
	assert.Equal(t, 2, lines, r.stderr)
}
