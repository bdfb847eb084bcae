package guides

import (
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/admit-go/admit/integration/internal/markdown"
)

const root = "../.."

// pages are all pages of the repository, by their path from its root.
func pages(t *testing.T) map[string]markdown.Page {
	t.Helper()
	pages := map[string]markdown.Page{}
	err := fs.WalkDir(os.DirFS(root), ".", func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && (d.Name() == "node_modules" || d.Name() == "testdata" || d.Name() == ".git"):
			return fs.SkipDir
		case filepath.Ext(path) == ".md":
			page, err := markdown.Read(filepath.Join(root, path))
			pages[path] = page
			return err
		}
		return nil
	})
	require.NoError(t, err)
	require.Contains(t, pages, "README.md")
	return pages
}

// folder is where the code of a page is, which is compiled and tested as any other.
func folder(page string) string {
	name := strings.TrimSuffix(filepath.Base(page), ".md")
	if name == "README" {
		name = filepath.Base(filepath.Dir(page))
	}
	if name == "." {
		name = "readme"
	}
	return name
}

// Each block of Go in a page stands, line by line, in a file of the folder of the page. So
// what a reader pastes has been compiled, and what the tests there hold is true of it.
func TestCodeOfPagesIsTested(t *testing.T) {
	t.Parallel()
	found := 0
	for path, page := range pages(t) {
		files := map[string][]string{}
		tests := 0
		matches, err := filepath.Glob(filepath.Join(folder(path), "*.go"))
		require.NoError(t, err)
		for _, file := range matches {
			source, err := os.ReadFile(file)
			require.NoError(t, err)
			files[file] = strings.Split(string(source), "\n")
			tests += len(regexp.MustCompile(`(?m)^func (Test|Example)\w*\(`).FindAll(source, -1))
		}
		for _, block := range page.Blocks {
			if block.Lang != "go" {
				continue
			}
			found++
			assert.NotZero(t, tests, "%s has code, and integration/guides/%s has no test", path, folder(path))
			if best, file := match(strings.Split(strings.TrimSuffix(block.Text, "\n"), "\n"), files); best != "" {
				t.Errorf("%s:%d: this code is not in integration/guides/%s; the closest is in %s, up to\n%s", path, block.Line, folder(path), file, best)
			}
		}
	}
	assert.NotZero(t, found)
}

// match is empty if the lines stand one after the other in one of the files, indented or
// not; else it is the first that does not, where most of those before it do.
func match(lines []string, files map[string][]string) (line, file string) {
	line, most := lines[0], -1
	for name, in := range files {
		for at := range in {
			indent, ok := strings.CutSuffix(in[at], lines[0])
			if !ok || strings.Trim(indent, "\t") != "" {
				continue
			}
			n := 1
			for n < len(lines) && at+n < len(in) && in[at+n] == strings.TrimRight(indent+lines[n], "\t") {
				n++
			}
			if n == len(lines) {
				return "", ""
			}
			if n > most {
				line, file, most = lines[n], name, n
			}
		}
	}
	return line, file
}

func TestMatchFindsWhatDiffers(t *testing.T) {
	t.Parallel()
	files := map[string][]string{"a.go": strings.Split("func f() {\n\tif x {\n\t\ty()\n\n\t\tz()\n\t}\n}", "\n")}
	for text, want := range map[string]string{
		"if x {\n\ty()\n\n\tz()\n}": "",
		"func f() {\n\tif x {":      "",
		"if x {\n\ty()\n\tz()\n}":   "\tz()",
		"if x {\n\ty()\n\n\tz(1)":   "\tz(1)",
		"y()\nz()":                  "z()",
		"w()":                       "w()",
		" y()":                      " y()",
	} {
		line, _ := match(strings.Split(text, "\n"), files)
		assert.Equal(t, want, line, "%q", text)
	}
}

// JSON in a page can be parsed, and what is for a shell is right for it.
func TestOtherBlocksOfPages(t *testing.T) {
	t.Parallel()
	for path, page := range pages(t) {
		for _, block := range page.Blocks {
			switch block.Lang {
			case "json":
				assert.True(t, json.Valid([]byte(block.Text)), "%s:%d", path, block.Line)
			case "sh":
				command := exec.CommandContext(t.Context(), "sh", "-n")
				command.Stdin = strings.NewReader(block.Text)
				output, err := command.CombinedOutput()
				assert.NoError(t, err, "%s:%d: %s", path, block.Line, output)
			}
		}
	}
}

// A link to a file, or to a heading of a page, leads there.
func TestLinksOfPages(t *testing.T) {
	t.Parallel()
	pages := pages(t)
	for path, page := range pages {
		for _, link := range page.Links {
			if strings.Contains(link, "://") || strings.HasPrefix(link, "mailto:") {
				continue
			}
			target, anchor, _ := strings.Cut(link, "#")
			to := path
			if target != "" {
				to = filepath.Join(filepath.Dir(path), target)
				_, err := os.Stat(filepath.Join(root, to))
				assert.False(t, errors.Is(err, fs.ErrNotExist), "%s: no file %s", path, link)
			}
			if anchor != "" && filepath.Ext(to) == ".md" {
				assert.True(t, pages[to].Anchors[anchor], "%s: no heading %s", path, link)
			}
		}
	}
}

// docs/README.md leads to every guide; each is one page, and leads to its code.
func TestGuidesAreListed(t *testing.T) {
	t.Parallel()
	pages := pages(t)
	index := pages["docs/README.md"]
	for path, page := range pages {
		if name, ok := strings.CutPrefix(path, "docs/"); ok && name != "README.md" {
			assert.Contains(t, index.Links, name)
			assert.LessOrEqual(t, page.Lines, 220, path)
			if slices.ContainsFunc(page.Blocks, func(b markdown.Block) bool { return b.Lang == "go" }) {
				assert.Contains(t, page.Links, "../integration/guides/"+folder(path), path)
			}
		}
	}
	assert.LessOrEqual(t, pages["README.md"].Lines, 300)
}
