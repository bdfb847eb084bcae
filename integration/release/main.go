// Command release makes a release in a clone of the repository: commits and tags for every
// published module. It pushes nothing. From the root of a clone, on main:
//
//	make release VERSION=v0.1.0
//
// It refuses a clone that is shallow, has uncommitted changes, lacks a tag of origin or is on
// another branch, a version that is not above the last tag, a CHANGELOG.md whose section
// "Unreleased" has no entries, a missing LICENSE, and pages that say what holds until a version
// is tagged.
// Then it works in a temporary folder:
//
//   - It prints how the API differs from the last release that is not a prerelease. An
//     incompatible change needs a new major version, or in v0 a new minor version. The command
//     admit has no Go API: compare its flags yourself.
//   - It builds and vets each published module, and runs its Examples.
//   - It commits a CHANGELOG.md with the entries of "Unreleased" below the version and today's
//     date. This commit gets the tag of the root module.
//   - It commits go.mod and go.sum files in which the nested modules require the root at this
//     version, without replace lines, and vets the modules. This commit gets their tags.
//   - It commits the replace lines again, for development.
//
// If everything succeeds, the clone gets the commits and the tags. If a step fails, the clone
// stays as it was. At the end the program prints the command that pushes the release and the
// command that undoes it.
//
// The published modules are the modules of go.work, except example and integration.
package main

import (
	"context"
	"errors"
	"os"

	"github.com/admit-go/admit/integration/internal/cli"
)

func main() {
	cli.Main("release", func(ctx context.Context, args []string) error {
		if len(args) != 1 || args[0] == "" {
			return errors.New("name the version: make release VERSION=v0.1.0")
		}
		return run(ctx, ".", args[0], os.Stdout)
	})
}
