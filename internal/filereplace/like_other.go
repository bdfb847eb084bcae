//go:build !unix

package filereplace

import (
	"errors"
	"io/fs"
	"os"
	"syscall"
)

// like does nothing: owner, group and mode are those of POSIX.
func like(*os.File, fs.FileInfo) error { return nil }

// inUse reports whether somebody has the file open: Windows says access denied (5) or
// sharing violation (32).
func inUse(err error) bool {
	var code syscall.Errno
	return errors.As(err, &code) && (code == 5 || code == 32)
}

func mounted(error) bool { return false }
