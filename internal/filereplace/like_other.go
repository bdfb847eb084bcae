//go:build !unix

package filereplace

import (
	"errors"
	"io/fs"
	"os"
	"syscall"
)

// like does nothing: only POSIX has an owner, a group and a mode.
func like(*os.File, fs.FileInfo) error { return nil }

// inUse reports whether the file is open elsewhere: Windows then reports access denied (5) or
// sharing violation (32).
func inUse(err error) bool {
	var code syscall.Errno
	return errors.As(err, &code) && (code == 5 || code == 32)
}

func mounted(error) bool { return false }
