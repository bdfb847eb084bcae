// Package guide holds the guides in docs against what their code does: it runs their
// commands, and compares the responses that they show.
package guide

import (
	"bytes"
	"database/sql"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/admit-go/admit/integration/internal/markdown"
)

// root is the root of the repository, from a folder of integration/guides.
const root = "../../.."

// Blocks returns the code of a guide that is in a language.
func Blocks(t testing.TB, name, lang string) []string {
	t.Helper()
	var texts []string
	for _, block := range read(t, name) {
		if block.Lang == lang {
			texts = append(texts, block.Text)
		}
	}
	return texts
}

func read(t testing.TB, name string) []markdown.Block {
	t.Helper()
	page, err := markdown.Read(filepath.Join(root, "docs", name+".md"))
	require.NoError(t, err)
	return page.Blocks
}

// Text returns the whole text of a guide.
func Text(t testing.TB, name string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(root, "docs", name+".md"))
	require.NoError(t, err)
	return string(text)
}

// Shows fails the test if no block of a guide in a language is this text.
func Shows(t testing.TB, name, lang, text string) {
	t.Helper()
	assert.Contains(t, Blocks(t, name, lang), strings.TrimRight(text, "\n")+"\n")
}

// Dump returns a response as guides show it: without Date and Content-Length, and with the
// names of headers as they are sent.
func Dump(t testing.TB, res *http.Response) string {
	t.Helper()
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	require.NoError(t, err)
	header := res.Header.Clone()
	header.Del("Date")
	header.Del("Content-Length")
	var b bytes.Buffer
	b.WriteString("HTTP/1.1 " + res.Status + "\n")
	require.NoError(t, header.Write(&b))
	return strings.ReplaceAll(b.String(), "\r\n", "\n") + "\n" + string(body)
}

// Shell runs commands as guides show them: with sh, in one folder, and with the command admit.
type Shell struct {
	Dir string
	Env []string // beside that of the process
	bin string
}

// NewShell builds the command, and makes a folder.
func NewShell(t testing.TB, env ...string) *Shell {
	t.Helper()
	s := &Shell{Dir: t.TempDir(), Env: env, bin: t.TempDir()}
	out, err := exec.CommandContext(t.Context(), "go", "build", "-C", filepath.Join(root, "cmd/admit"), "-o", s.bin, ".").CombinedOutput()
	require.NoError(t, err, "%s", out)
	return s
}

// Run runs commands, which have to succeed, and returns what they print on each stream.
func (s *Shell) Run(t testing.TB, commands string) (stdout, stderr string) {
	t.Helper()
	c := exec.CommandContext(t.Context(), "sh", "-eu", "-c", commands)
	c.Dir = s.Dir
	c.Env = append(append(os.Environ(), s.Env...), "PATH="+s.bin+string(os.PathListSeparator)+os.Getenv("PATH"))
	var out, err bytes.Buffer
	c.Stdout, c.Stderr = &out, &err
	require.NoError(t, c.Run(), "%s\n%s", commands, &err)
	return out.String(), err.String()
}

// Grant runs statements of a guide that give the user api its rights, for a user of the database
// alone, and returns the database's URL for it.
func Grant(t testing.TB, db *sql.DB, database, statements string) string {
	t.Helper()
	u, err := url.Parse(database)
	require.NoError(t, err)
	role := "api_" + strings.TrimPrefix(u.Path, "/") // roles are those of the whole server
	_, err = db.ExecContext(t.Context(), "CREATE ROLE "+role+" LOGIN; "+strings.ReplaceAll(statements, " api", " "+role))
	require.NoError(t, err)
	u.User = url.User(role)
	return u.String()
}
