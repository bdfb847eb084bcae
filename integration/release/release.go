package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/mod/modfile"

	"github.com/admit-go/admit/integration/internal/goproxy"
)

// release works in a work tree of its own. The clone gets the commits and tags at the end, all
// of them or none.
type release struct {
	clone   string
	head    string // the commit that the clone has checked out
	path    string // the module path of the root
	version string
	stable  string   // the release before this one, if any
	dirs    []string // of the published modules, the root first
	scratch string   // a folder for everything else, removed at the end
	tree    string   // the work tree, in scratch
	out     io.Writer
}

// commits are the commits of a release that tags and the branch point to. Without nested
// modules all three are the same.
type commits struct{ root, nested, last string }

func run(ctx context.Context, dir, version string, out io.Writer) error {
	r, err := prepare(ctx, dir, version)
	if err != nil {
		return err
	}
	r.out = out
	if r.scratch, err = os.MkdirTemp("", "release"); err != nil {
		return err
	}
	defer os.RemoveAll(r.scratch)
	tree, remove, err := r.checkout(ctx, "tree", r.head)
	if err != nil {
		return err
	}
	defer remove()
	r.tree = tree
	if err := r.compare(ctx); err != nil {
		return err
	}
	if err := r.check(ctx); err != nil {
		return err
	}
	made, err := r.commit(ctx)
	if err != nil {
		return err
	}
	if err := r.keep(ctx, made); err != nil {
		return err
	}
	tags := strings.Join(r.tags(), " ")
	fmt.Fprintf(out, "\n%s is ready in this clone, and nothing is pushed. To push it:\n\n\tgit push --atomic origin main %s\n\nTo undo it instead:\n\n\t%s\n", version, tags, r.undo())
	return nil
}

// prepare looks at the clone, and reports all that stands in the way of a release.
func prepare(ctx context.Context, dir, version string) (*release, error) {
	top, err := output(ctx, dir, nil, "git", "rev-parse", "--show-toplevel")
	if err != nil {
		return nil, fmt.Errorf("a release is made in a clone of the repository: %w", err)
	}
	r := &release{clone: top, version: version}
	if r.head, err = r.git(ctx, "rev-parse", "HEAD"); err != nil {
		return nil, err
	}
	if r.dirs, err = goproxy.Published(r.clone); err != nil {
		return nil, err
	}
	goMod, err := os.ReadFile(filepath.Join(r.clone, "go.mod"))
	if err != nil {
		return nil, err
	}
	r.path = modfile.ModulePath(goMod)
	tagged, err := r.git(ctx, "tag", "--list")
	if err != nil {
		return nil, err
	}
	tags := strings.Fields(tagged)
	_, r.stable = previous(tags)

	problems := []error{checkVersion(version, r.path, r.dirs, tags), r.tagsOfOrigin(ctx, tags)}
	if shallow, _ := r.git(ctx, "rev-parse", "--is-shallow-repository"); shallow == "true" {
		problems = append(problems, errors.New("the clone is shallow: git fetch --unshallow --tags"))
	}
	if branch, _ := r.git(ctx, "branch", "--show-current"); branch != "main" {
		problems = append(problems, errors.New("a release is made on main: git switch main"))
	}
	if changes, err := r.git(ctx, "status", "--porcelain"); err != nil {
		problems = append(problems, err)
	} else if changes != "" {
		problems = append(problems, fmt.Errorf("the clone has changes: commit them, or put them away (git stash --include-untracked)\n%s", changes))
	}
	if _, err := r.git(ctx, "var", "GIT_COMMITTER_IDENT"); err != nil {
		problems = append(problems, err)
	}
	if licence, _ := os.ReadFile(filepath.Join(r.clone, "LICENSE")); len(licence) == 0 {
		problems = append(problems, errors.New("LICENSE is missing: without one nobody may use the modules"))
	}
	if places, err := r.git(ctx, "grep", "--line-number", "--ignore-case", "-e", "until v[0-9.]* is tagged", "-e", "^go mod edit -replace "+r.path, "--", "*.md"); err == nil {
		problems = append(problems, fmt.Errorf("pages say what holds until a version is tagged: take that out, and commit\n%s", places))
	}
	if changelog, err := os.ReadFile(filepath.Join(r.clone, "CHANGELOG.md")); err != nil {
		problems = append(problems, err)
	} else if _, err := dated(string(changelog), version, ""); err != nil {
		problems = append(problems, err)
	}
	return r, errors.Join(problems...)
}

// tagsOfOrigin reports tags of the remote that the clone does not have: a release among them
// would not be compared with. A remote that cannot be asked is no problem here, since pushing
// a tag that it has fails.
func (r *release) tagsOfOrigin(ctx context.Context, tags []string) error {
	listed, err := output(ctx, r.clone, append(os.Environ(), "GIT_TERMINAL_PROMPT=0"), "git", "ls-remote", "--refs", "--tags", "origin")
	if err != nil {
		return nil
	}
	for line := range strings.Lines(listed) {
		_, tag, _ := strings.Cut(strings.TrimSpace(line), "refs/tags/")
		if !slices.Contains(tags, tag) {
			return fmt.Errorf("origin has the tag %s, which this clone does not have: git fetch --tags", tag)
		}
	}
	return nil
}

// compare prints how the API differs from the last release, and refuses incompatible changes
// that the version does not allow.
func (r *release) compare(ctx context.Context) error {
	if r.stable == "" {
		fmt.Fprintln(r.out, "No release is tagged before this one, so the API is not compared. If there should be one: git fetch --tags")
		return nil
	}
	before, remove, err := r.checkout(ctx, "before", r.stable)
	if err != nil {
		return err
	}
	defer remove()
	fmt.Fprintf(r.out, "The API since %s:\n", r.stable)
	breaks, err := compareAPI(ctx, before, r.tree, r.out)
	if err == nil && breaks && !mayBreak(r.stable, r.version) {
		err = fmt.Errorf("%s must have an API that is compatible with %s: take the incompatible changes back, or choose a higher version", r.version, r.stable)
	}
	return err
}

// check builds and vets the published modules as their users do, and runs their Examples.
func (r *release) check(ctx context.Context) error {
	for _, dir := range r.dirs {
		fmt.Fprintf(r.out, "%s: build, vet and Examples\n", path.Join(r.path, dir))
		if err := r.golang(ctx, dir, alone(), build, vet); err != nil {
			return err
		}
		if err := r.golang(ctx, dir, nil, examples); err != nil { // tests may use the example service
			return err
		}
	}
	return nil
}

// commit makes the commits of the release in the work tree.
func (r *release) commit(ctx context.Context) (made commits, err error) {
	if err := r.dateChangelog(); err != nil {
		return made, err
	}
	if made.root, err = r.commitFiles(ctx, "The changelog has a section for "+r.version, "CHANGELOG.md"); err != nil {
		return made, err
	}
	made.nested, made.last = made.root, made.root
	if len(r.dirs) == 1 {
		return made, nil
	}
	if err := r.requireRoot(ctx, made.root); err != nil {
		return made, err
	}
	if made.nested, err = r.commitFiles(ctx, "The nested modules require the root module at "+r.version, r.dirs[1:]...); err != nil {
		return made, err
	}
	if _, err = output(ctx, r.tree, nil, "git", "revert", "--no-commit", "HEAD"); err != nil {
		return made, err
	}
	made.last, err = r.commitFiles(ctx, "The nested modules use the root module beside them again", r.dirs[1:]...)
	return made, err
}

func (r *release) dateChangelog() error {
	name := filepath.Join(r.tree, "CHANGELOG.md")
	text, err := os.ReadFile(name)
	if err != nil {
		return err
	}
	changed, err := dated(string(text), r.version, time.Now().UTC().Format(time.DateOnly))
	if err != nil {
		return err
	}
	return os.WriteFile(name, []byte(changed), 0o644)
}

// requireRoot makes the nested modules require the root at the version of this release, and
// vets them with it, which compiles them. The root comes from a GOPROXY on this machine, which has the commit that
// gets its tag; go mod download adds its hashes to go.sum.
func (r *release) requireRoot(ctx context.Context, root string) error {
	proxy := filepath.Join(r.scratch, "proxy")
	if err := goproxy.Publish(ctx, r.clone, proxy, goproxy.Module{Dir: ".", Ref: root, Version: r.version}); err != nil {
		return err
	}
	env, err := goproxy.Env(ctx, proxy, filepath.Join(r.scratch, "modules"))
	if err != nil {
		return err
	}
	for _, dir := range r.dirs[1:] {
		fmt.Fprintf(r.out, "%s: vet with %s at %s\n", path.Join(r.path, dir), r.path, r.version)
		if err := goproxy.Require(r.tree, dir, r.version); err != nil {
			return err
		}
		if err := r.golang(ctx, dir, env, []string{"mod", "download", r.path}, vet); err != nil {
			return err
		}
	}
	return nil
}

// keep brings the commits and tags into the clone, all of them or none.
func (r *release) keep(ctx context.Context, made commits) error {
	ctx = context.WithoutCancel(ctx)
	if _, err := r.git(ctx, "merge", "--ff-only", "--quiet", made.last); err != nil {
		return err
	}
	var tags []string
	for i, tag := range r.tags() {
		commit := made.nested
		if i == 0 {
			commit = made.root
		}
		_, err := r.git(ctx, "tag", "--annotate", "--message", tag, tag, commit)
		if err == nil {
			tags = append(tags, tag)
			continue
		}
		_, failed := r.git(ctx, "reset", "--keep", "--quiet", r.head)
		for _, tag := range tags {
			_, kept := r.git(ctx, "tag", "--delete", tag)
			failed = errors.Join(failed, kept)
		}
		if failed != nil {
			return fmt.Errorf("%w\nPart of the release is still in the clone: %w\nTo undo it:\n\n\t%s", err, failed, r.undo())
		}
		return err
	}
	return nil
}

// tags returns the tags of the release in the order of dirs.
func (r *release) tags() []string {
	var tags []string
	for _, dir := range r.dirs {
		tags = append(tags, tagOf(dir, r.version))
	}
	return tags
}

func (r *release) undo() string {
	return "git reset --keep " + r.head + " && git tag --delete " + strings.Join(r.tags(), " ")
}

// checkout makes a work tree of a commit in the scratch folder.
func (r *release) checkout(ctx context.Context, name, commit string) (tree string, remove func(), err error) {
	tree = filepath.Join(r.scratch, name)
	remove = func() { _, _ = r.git(context.WithoutCancel(ctx), "worktree", "remove", "--force", tree) }
	if _, err := r.git(ctx, "worktree", "add", "--quiet", "--detach", tree, commit); err != nil {
		remove()
		return "", nil, err
	}
	return tree, remove, nil
}

// commitFiles commits what has changed in files and folders of the work tree.
func (r *release) commitFiles(ctx context.Context, message string, names ...string) (commit string, err error) {
	for _, args := range [][]string{
		append([]string{"add", "--"}, names...),
		{"commit", "--quiet", "--message", message},
	} {
		if _, err := output(ctx, r.tree, nil, "git", args...); err != nil {
			return "", err
		}
	}
	return output(ctx, r.tree, nil, "git", "rev-parse", "HEAD")
}

func (r *release) git(ctx context.Context, args ...string) (string, error) {
	return output(ctx, r.clone, nil, "git", args...)
}

// With -trimpath, packages that are compiled for one temporary folder are in the build cache for
// the next.
var (
	build    = []string{"build", "-trimpath", "-o", os.DevNull, "./..."}
	vet      = []string{"vet", "-trimpath", "./..."}
	examples = []string{"test", "-trimpath", "-run", "^Example", "./..."}
)

// golang runs the go command in a module of the work tree.
func (r *release) golang(ctx context.Context, dir string, env []string, commands ...[]string) error {
	for _, args := range commands {
		if _, err := output(ctx, filepath.Join(r.tree, dir), env, "go", args...); err != nil {
			return fmt.Errorf("%s: %w", dir, err)
		}
	}
	return nil
}

// alone returns an environment in which the go command ignores the workspace.
func alone() []string { return append(os.Environ(), "GOWORK=off") }

// output runs a program and returns what it prints. An error contains the output too.
func output(ctx context.Context, dir string, env []string, program string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Dir, cmd.Env = dir, env
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("%s %s: %w\n%s", program, strings.Join(args, " "), err, strings.TrimSpace(stdout.String()+stderr.String()))
	}
	return strings.TrimSpace(stdout.String()), nil
}
