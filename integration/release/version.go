package main

import (
	"errors"
	"fmt"
	"slices"

	"golang.org/x/mod/module"
	"golang.org/x/mod/semver"
)

// tagOf returns the tag under which the go command finds the module in dir.
func tagOf(dir, version string) string {
	if dir == "." {
		return version
	}
	return dir + "/" + version
}

// previous returns the highest version of the root module among tags, and the highest one that
// is not a prerelease. Each is empty if there is none.
func previous(tags []string) (last, stable string) {
	for _, tag := range tags {
		if !semver.IsValid(tag) {
			continue
		}
		if last == "" || semver.Compare(tag, last) > 0 {
			last = tag
		}
		if semver.Prerelease(tag) == "" && (stable == "" || semver.Compare(tag, stable) > 0) {
			stable = tag
		}
	}
	return last, stable
}

// checkVersion reports why a release of the module path cannot have this version.
func checkVersion(version, path string, dirs, tags []string) error {
	if semver.Canonical(version) != version {
		return fmt.Errorf("%q is not a version: give one like v0.1.0 or v0.1.0-rc.1", version)
	}
	if _, major, _ := module.SplitPathVersion(path); module.CheckPathMajor(version, major) != nil {
		return fmt.Errorf("%s does not fit the module path %s: from v2 on, the path ends with the major version", version, path)
	}
	var problems []error
	for _, dir := range dirs {
		if tag := tagOf(dir, version); slices.Contains(tags, tag) {
			problems = append(problems, fmt.Errorf("the tag %s exists: choose a higher version, or delete the tag if it was never pushed (git tag --delete %s)", tag, tag))
		}
	}
	if last, _ := previous(tags); len(problems) == 0 && last != "" && semver.Compare(version, last) < 0 {
		problems = append(problems, fmt.Errorf("%s is not above the last tag: choose a version above %s", version, last))
	}
	return errors.Join(problems...)
}

// mayBreak reports whether semantic versioning allows incompatible changes between two versions.
func mayBreak(before, version string) bool {
	if semver.Major(before) == "v0" {
		return semver.MajorMinor(before) != semver.MajorMinor(version)
	}
	return semver.Major(before) != semver.Major(version)
}
