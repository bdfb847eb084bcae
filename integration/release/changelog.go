package main

import (
	"errors"
	"strings"
)

// dated moves the entries of the section "Unreleased" of a changelog into a section for
// version, and leaves an empty one above it.
func dated(changelog, version, date string) (string, error) {
	const heading = "## Unreleased\n"
	before, rest, found := strings.Cut("\n"+changelog, "\n"+heading)
	if !found {
		return "", errors.New(`CHANGELOG.md has no section "## Unreleased": add it, with the changes since the last release`)
	}
	entries, _, _ := strings.Cut(rest, "\n## ")
	if !strings.Contains("\n"+entries, "\n- ") {
		return "", errors.New(`the section "Unreleased" of CHANGELOG.md has no entries: list the changes since the last release`)
	}
	return strings.TrimPrefix(before+"\n", "\n") + heading + "\n## " + version + " - " + date + "\n" + rest, nil
}
