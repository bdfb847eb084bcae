package main

import (
	"context"
	"fmt"
	"go/types"
	"io"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/exp/apidiff"
	"golang.org/x/tools/go/packages"

	"github.com/admit-go/admit/integration/internal/goproxy"
)

// compareAPI prints how the API of each published module differs between two work trees, and
// reports whether a change is incompatible.
func compareAPI(ctx context.Context, before, after string, out io.Writer) (breaks bool, err error) {
	dirsBefore, err := goproxy.Published(before)
	if err != nil {
		return false, err
	}
	dirsAfter, err := goproxy.Published(after)
	if err != nil {
		return false, err
	}
	for _, dir := range dirsBefore {
		if !slices.Contains(dirsAfter, dir) {
			fmt.Fprintf(out, "%s: the module is gone\n", dir)
			breaks = true
			continue
		}
		old, err := api(ctx, filepath.Join(before, dir))
		if err != nil {
			return false, err
		}
		now, err := api(ctx, filepath.Join(after, dir))
		if err != nil {
			return false, err
		}
		changes := apidiff.ModuleChanges(old, now).Changes
		slices.SortFunc(changes, func(a, b apidiff.Change) int { return strings.Compare(a.Message, b.Message) })
		switch {
		case len(changes) > 0:
			fmt.Fprintf(out, "%s: changed\n%s", old.Path, apidiff.Report{Changes: changes})
		case len(now.Packages) > 0:
			fmt.Fprintf(out, "%s: unchanged\n", old.Path)
		}
		breaks = breaks || slices.ContainsFunc(changes, func(c apidiff.Change) bool { return !c.Compatible })
	}
	return breaks, nil
}

// api returns what other modules can import of the module in dir.
func api(ctx context.Context, dir string) (*apidiff.Module, error) {
	loaded, err := packages.Load(&packages.Config{
		Context:    ctx,
		Mode:       packages.NeedName | packages.NeedModule | packages.NeedImports | packages.NeedTypes | packages.NeedTypesSizes,
		Dir:        dir,
		Env:        alone(),
		BuildFlags: []string{"-trimpath"},
	}, "./...")
	if err != nil {
		return nil, err
	}
	if len(loaded) == 0 {
		return nil, fmt.Errorf("no packages in %s", dir)
	}
	var public []*types.Package
	for _, p := range loaded {
		if len(p.Errors) > 0 {
			return nil, fmt.Errorf("%s: %w", p.PkgPath, p.Errors[0])
		}
		if p.Name != "main" && !slices.Contains(strings.Split(p.PkgPath, "/"), "internal") {
			public = append(public, p.Types)
		}
	}
	return &apidiff.Module{Path: loaded[0].Module.Path, Packages: public}, nil
}
