// Package house holds the root package against ARCHITECTURE.md.
package house_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"go/ast"
	"go/importer"
	"go/parser"
	"go/token"
	"go/types"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

const root = "../.."

// The files of the core are one machine, each of which needs the others; all other files
// stand above it or below it. Who adds one to it either can do without or has to say so.
func TestCoreIsWhatTheArchitectureSays(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile(filepath.Join(root, "ARCHITECTURE.md"))
	require.NoError(t, err)
	_, core, found := strings.Cut(string(page), "\n## The core\n")
	require.True(t, found)
	core, _, _ = strings.Cut(core, "\n## ")
	var said []string
	for _, m := range regexp.MustCompile("(?m)^\\| `([a-z]+\\.go)`").FindAllStringSubmatch(core, -1) {
		said = append(said, m[1])
	}
	slices.Sort(said)

	var cycles [][]string
	for _, c := range components(dependencies(t, root)) {
		if len(c) > 1 {
			cycles = append(cycles, c)
		}
	}
	require.NotEmpty(t, cycles)
	assert.Equal(t, said, cycles[0])
	for _, c := range cycles[1:] {
		assert.LessOrEqual(t, len(c), 3, "%v", c)
	}
}

// What is built is not kept.
func TestNoBinaries(t *testing.T) {
	t.Parallel()
	files := exec.Command("git", "ls-files", "-z")
	files.Dir = root
	listed, err := files.Output()
	if _, none := os.Stat(filepath.Join(root, ".git")); none != nil {
		t.Skip("this is no clone of the repository")
	}
	require.NoError(t, err)
	names := strings.Split(strings.TrimSuffix(string(listed), "\x00"), "\x00")
	assert.Greater(t, len(names), 100)
	for _, name := range names {
		info, err := os.Stat(filepath.Join(root, name))
		if err == nil {
			assert.Less(t, info.Size(), int64(1<<20), name)
		}
	}
}

// Each file that the page names is there.
func TestFilesOfTheArchitectureExist(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile(filepath.Join(root, "ARCHITECTURE.md"))
	require.NoError(t, err)
	named := regexp.MustCompile(`[a-z_/]+\.(?:go|md)`).FindAllString(string(page), -1)
	require.NotEmpty(t, named)
	for _, name := range named {
		assert.FileExists(t, filepath.Join(root, name))
	}
	_, parts, _ := strings.Cut(string(page), "+--")
	parts, _, _ = strings.Cut(parts, "+--")
	require.Contains(t, parts, "middleware")
	files, err := filepath.Glob(filepath.Join(root, "*.go"))
	require.NoError(t, err)
	for _, file := range files {
		name := strings.TrimSuffix(filepath.Base(file), ".go")
		if !strings.HasSuffix(name, "_test") && name != "doc" {
			assert.Regexp(t, `\b`+name+`\b`, parts, "it is in no box")
		}
	}
}

// dependencies returns which files of a package use what others declare: types, functions,
// methods, variables and constants, by name or through a value.
func dependencies(t *testing.T, dir string) map[string]map[string]bool {
	t.Helper()
	list := exec.CommandContext(t.Context(), "go", "list", "-export", "-deps", "-json=ImportPath,Export,GoFiles,Dir,DepOnly", ".")
	list.Dir = dir
	list.Env = append(os.Environ(), "GOWORK=off")
	out, err := list.Output()
	require.NoError(t, err)
	type listed struct {
		ImportPath, Export, Dir string
		GoFiles                 []string
		DepOnly                 bool
	}
	exports := map[string]string{}
	var pkg listed
	for dec := json.NewDecoder(bytes.NewReader(out)); ; {
		var p listed
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			break
		} else {
			require.NoError(t, err)
		}
		exports[p.ImportPath] = p.Export
		if !p.DepOnly {
			pkg = p
		}
	}

	fset := token.NewFileSet()
	var files []*ast.File
	for _, name := range pkg.GoFiles {
		f, err := parser.ParseFile(fset, filepath.Join(pkg.Dir, name), nil, 0)
		require.NoError(t, err)
		files = append(files, f)
	}
	info := &types.Info{Uses: map[*ast.Ident]types.Object{}, Selections: map[*ast.SelectorExpr]*types.Selection{}}
	conf := types.Config{Importer: importer.ForCompiler(fset, "gc", func(path string) (io.ReadCloser, error) { return os.Open(exports[path]) })}
	checked, err := conf.Check(pkg.ImportPath, fset, files, info)
	require.NoError(t, err)

	fileOf := func(pos token.Pos) string { return filepath.Base(fset.Position(pos).Filename) }
	uses := map[string]map[string]bool{}
	for _, name := range pkg.GoFiles {
		uses[name] = map[string]bool{}
	}
	for id, obj := range info.Uses {
		if obj.Pkg() != checked || !obj.Pos().IsValid() {
			continue
		}
		if v, isVar := obj.(*types.Var); isVar && !v.IsField() && obj.Parent() != checked.Scope() {
			continue // a local one
		}
		if from, to := fileOf(id.Pos()), fileOf(obj.Pos()); from != to {
			uses[from][to] = true
		}
	}
	return uses
}

// components returns the strongly connected components of a graph, the largest first
// (Kosaraju).
func components(uses map[string]map[string]bool) [][]string {
	var order []string
	seen := map[string]bool{}
	var visit func(string)
	visit = func(at string) {
		if seen[at] {
			return
		}
		seen[at] = true
		for to := range uses[at] {
			visit(to)
		}
		order = append(order, at)
	}
	for at := range uses {
		visit(at)
	}
	users := map[string][]string{}
	for from, all := range uses {
		for to := range all {
			users[to] = append(users[to], from)
		}
	}
	var found [][]string
	taken := map[string]bool{}
	var collect func(string, *[]string)
	collect = func(at string, into *[]string) {
		if taken[at] {
			return
		}
		taken[at] = true
		*into = append(*into, at)
		for _, from := range users[at] {
			collect(from, into)
		}
	}
	for _, at := range slices.Backward(order) {
		var c []string
		collect(at, &c)
		if len(c) > 0 {
			slices.Sort(c)
			found = append(found, c)
		}
	}
	slices.SortStableFunc(found, func(a, b []string) int { return len(b) - len(a) })
	return found
}
