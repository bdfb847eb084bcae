// Package goproxy publishes modules of a git repository into a folder that the go command can
// use as a GOPROXY. With it, tests do what users do, with versions that are not public yet.
package goproxy

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/mod/modfile"
	"golang.org/x/mod/module"
	"golang.org/x/mod/zip"
)

// Module is one module of a repository at a commit, and the version to publish it as.
type Module struct {
	Dir     string // the folder of its go.mod, with slashes; "." is the root of the repository
	Ref     string // a tag, a branch or a commit
	Version string
}

// Publish adds modules of the git repository in the folder repo to the folder proxy, which it
// makes if needed. The zips are equal to those that the go command makes from the same commits.
func Publish(ctx context.Context, repo, proxy string, modules ...Module) error {
	clone, remove, err := shared(ctx, repo)
	if err != nil {
		return err
	}
	defer remove()
	for _, m := range modules {
		commit, err := resolve(ctx, repo, m.Ref)
		if err != nil {
			return err
		}
		if err := publish(ctx, clone, commit, proxy, m); err != nil {
			return fmt.Errorf("publish %s of %s: %w", m.Dir, m.Ref, err)
		}
	}
	return nil
}

// PublishAll adds every published module of the commit ref to the folder proxy, as a release of
// version would: the nested modules require the root at version, without replace lines.
func PublishAll(ctx context.Context, repo, proxy, ref, version string) error {
	clone, remove, err := shared(ctx, repo)
	if err != nil {
		return err
	}
	defer remove()
	commit, err := resolve(ctx, repo, ref)
	if err != nil {
		return err
	}
	if _, err := git(ctx, clone, "checkout", "--quiet", "--detach", commit); err != nil {
		return err
	}
	dirs, err := Published(clone)
	if err != nil {
		return err
	}
	for _, dir := range dirs {
		if err := Require(clone, dir, version); err != nil {
			return err
		}
	}
	if _, err := git(ctx, clone, "-c", "user.name=goproxy", "-c", "user.email=goproxy@example.com", "-c", "commit.gpgsign=false",
		"commit", "--quiet", "--no-verify", "--allow-empty", "--all", "--message", version); err != nil {
		return err
	}
	for _, dir := range dirs {
		if err := publish(ctx, clone, "HEAD", proxy, Module{dir, ref, version}); err != nil {
			return fmt.Errorf("publish %s of %s: %w", dir, ref, err)
		}
	}
	return nil
}

// unpublished are the modules of the workspace that no user imports.
var unpublished = []string{"example", "integration"}

// Published returns the folders of the modules that a release publishes, the root "." first:
// all modules of the go.work in the folder repo, except example and integration.
func Published(repo string) ([]string, error) {
	name := filepath.Join(repo, "go.work")
	text, err := os.ReadFile(name)
	if err != nil {
		return nil, err
	}
	work, err := modfile.ParseWork(name, text, nil)
	if err != nil {
		return nil, err
	}
	var dirs []string
	for _, use := range work.Use {
		if dir := path.Clean(use.Path); !slices.Contains(unpublished, dir) {
			dirs = append(dirs, dir)
		}
	}
	slices.Sort(dirs)
	if len(dirs) == 0 || dirs[0] != "." {
		return nil, fmt.Errorf("%s does not use the root module", name)
	}
	return dirs, nil
}

// Require changes the go.mod of the module in dir as a release does: it requires the root module
// of the folder repo at version, and removes the replace line for the root. It does not change
// the go.mod of the root itself.
func Require(repo, dir, version string) error {
	if dir == "." {
		return nil
	}
	root, err := modulePath(repo)
	if err != nil {
		return err
	}
	name := filepath.Join(repo, filepath.FromSlash(dir), "go.mod")
	text, err := os.ReadFile(name)
	if err != nil {
		return err
	}
	file, err := modfile.Parse(name, text, nil)
	if err != nil {
		return err
	}
	if err := errors.Join(file.AddRequire(root, version), file.DropReplace(root, "")); err != nil {
		return err
	}
	file.Cleanup()
	if len(file.Replace) > 0 {
		return fmt.Errorf("%s replaces %s: a published module can only replace %s", name, file.Replace[0].Old.Path, root)
	}
	text, err = file.Format()
	if err != nil {
		return err
	}
	return os.WriteFile(name, text, 0o644)
}

func modulePath(dir string) (string, error) {
	name := filepath.Join(dir, "go.mod")
	text, err := os.ReadFile(name)
	if err != nil {
		return "", err
	}
	if found := modfile.ModulePath(text); found != "" {
		return found, nil
	}
	return "", fmt.Errorf("%s has no module line", name)
}

// Env returns an environment for the go command. It looks for modules in the folder proxy, then
// in the module cache of the user, then at the GOPROXY of the user. It keeps modules in the folder
// cache, so that none of the versions in proxy stay in the module cache of the user. Both folders
// are absolute paths. Builds have -trimpath, so that the build cache serves any folder.
//
// The checksum database is not asked for modules of admit. For other modules it is, unless a
// go.sum has them: add GOSUMDB=off to build a new module without a network.
//
// GONOPROXY is empty, not "none": with "none", go get asks the module cache first, and does not
// find a nested module there if it finds the root.
func Env(ctx context.Context, proxy, cache string) ([]string, error) {
	out, err := exec.CommandContext(ctx, "go", "env", "-json", "GOFLAGS", "GOMODCACHE", "GOPROXY").Output()
	if err != nil {
		return nil, fmt.Errorf("go env: %w", err)
	}
	var user struct{ GOFLAGS, GOMODCACHE, GOPROXY string }
	if err := json.Unmarshal(out, &user); err != nil {
		return nil, err
	}
	return append(os.Environ(),
		"GOFLAGS="+strings.TrimSpace(user.GOFLAGS+" -modcacherw -trimpath"),
		"GOMODCACHE="+cache,
		"GOPROXY=file://"+filepath.ToSlash(proxy)+",file://"+filepath.ToSlash(filepath.Join(user.GOMODCACHE, "cache", "download"))+","+user.GOPROXY,
		"GONOPROXY=", "GOPRIVATE=", "GONOSUMDB=github.com/admit-go/admit",
		"GOWORK=off",
	), nil
}

// publish writes the files that the go command requests from a proxy.
func publish(ctx context.Context, clone, commit, proxy string, m Module) error {
	goMod, err := git(ctx, clone, "cat-file", "blob", commit+":"+path.Join(m.Dir, "go.mod"))
	if err != nil {
		return err
	}
	version := module.Version{Path: modfile.ModulePath(goMod), Version: m.Version}
	escaped, err := module.EscapePath(version.Path)
	if err != nil {
		return err
	}
	when, err := git(ctx, clone, "log", "-1", "--format=%cI", commit)
	if err != nil {
		return err
	}
	info, err := json.Marshal(map[string]string{"Version": m.Version, "Time": strings.TrimSpace(string(when))})
	if err != nil {
		return err
	}
	var zipped bytes.Buffer
	if err := zip.CreateFromVCS(&zipped, version, clone, commit, strings.TrimPrefix(m.Dir, ".")); err != nil {
		return err
	}
	dir := filepath.Join(proxy, filepath.FromSlash(escaped), "@v")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	list, err := os.OpenFile(filepath.Join(dir, "list"), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintln(list, m.Version)
	return errors.Join(err, list.Close(),
		os.WriteFile(filepath.Join(dir, m.Version+".info"), info, 0o644),
		os.WriteFile(filepath.Join(dir, m.Version+".mod"), goMod, 0o644),
		os.WriteFile(filepath.Join(dir, m.Version+".zip"), zipped.Bytes(), 0o644))
}

// shared makes a temporary clone that shares the objects of repo. It is needed because repo may
// be a linked work tree, from which package zip does not read.
func shared(ctx context.Context, repo string) (clone string, remove func(), err error) {
	repo, err = filepath.Abs(repo)
	if err != nil {
		return "", nil, err
	}
	clone, err = os.MkdirTemp("", "goproxy")
	if err != nil {
		return "", nil, err
	}
	remove = func() { os.RemoveAll(clone) }
	if _, err := git(ctx, repo, "clone", "--quiet", "--shared", "--no-checkout", repo, clone); err != nil {
		remove()
		return "", nil, err
	}
	return clone, remove, nil
}

func resolve(ctx context.Context, repo, ref string) (string, error) {
	out, err := git(ctx, repo, "rev-parse", "--verify", ref+"^{commit}")
	return strings.TrimSpace(string(out)), err
}

func git(ctx context.Context, dir string, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, "git", args...)
	cmd.Dir = dir
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("git %s: %w: %s", strings.Join(args, " "), err, bytes.TrimSpace(stderr.Bytes()))
	}
	return out, nil
}
