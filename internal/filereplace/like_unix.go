//go:build unix

package filereplace

import (
	"errors"
	"io/fs"
	"os"
	"syscall"
)

func like(f *os.File, model fs.FileInfo) error {
	now, err := f.Stat()
	if err != nil {
		return err
	}
	want, is := model.Sys().(*syscall.Stat_t), now.Sys().(*syscall.Stat_t)
	if want.Uid != is.Uid || want.Gid != is.Gid {
		if err := f.Chown(int(want.Uid), int(want.Gid)); err != nil {
			return err
		}
	}
	if model.Mode().Perm() == now.Mode().Perm() {
		return nil
	}
	return f.Chmod(model.Mode().Perm())
}

func inUse(error) bool { return false }

// mounted reports whether a file cannot be replaced because it is a mount, as a single file in
// a container may be.
func mounted(err error) bool { return errors.Is(err, syscall.EBUSY) }
