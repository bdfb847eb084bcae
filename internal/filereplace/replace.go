// Package filereplace replaces a file as a whole: a reader sees the old text or the new.
package filereplace

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"
)

// With writes text beside the file, and puts it in its place; that of a link is the file
// that it leads to. A file that is there keeps its owner, group and permissions, so that
// whoever reads it still can; where they cannot be kept, nothing is replaced. A new file is
// for its owner alone.
func With(path string, text []byte) (err error) {
	path, err = Target(path)
	if err != nil {
		return err
	}
	temp, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*") // 0600
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = os.Remove(temp.Name())
		}
	}()
	if _, err = temp.Write(text); err == nil {
		err = temp.Sync()
	}
	if err == nil {
		err = Like(temp, path)
	}
	if err = errors.Join(err, temp.Close()); err != nil {
		return err
	}
	return rename(temp.Name(), path, os.Rename, inUse)
}

// Target returns the file that is to be replaced: path, or where that leads as a link. A
// link that leads nowhere is an error: nobody who made it wants a file in its place, and
// what it leads to may only not be mounted.
func Target(path string) (string, error) {
	real, err := filepath.EvalSymlinks(path)
	if !errors.Is(err, fs.ErrNotExist) {
		return real, err
	}
	info, err := os.Lstat(path)
	if err != nil || info.Mode()&fs.ModeSymlink == 0 {
		return path, nil // a new file, or nowhere to write it: that shows
	}
	to, err := os.Readlink(path)
	if err != nil {
		return "", err
	}
	return "", fmt.Errorf("the link %s leads to %s, which is not there: make that file, or remove the link", path, to)
}

// Like gives f the owner, the group and the permissions of the file at path, if there is
// one.
func Like(f *os.File, path string) error {
	model, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err == nil {
		err = like(f, model)
	}
	if err != nil {
		return fmt.Errorf("the owner, group and mode of %s cannot be kept, so run this as its owner or as root: %w", path, err)
	}
	return nil
}

const (
	patience = 2 * time.Second
	pause    = 20 * time.Millisecond
)

// rename waits a while where the system does not replace a file that somebody has open, and
// says what to do about one that it never replaces.
func rename(from, to string, how func(from, to string) error, inUse func(error) bool) error {
	began := time.Now()
	for {
		err := how(from, to)
		switch {
		case mounted(err):
			return fmt.Errorf("%s is a mount of its own, which cannot be replaced: mount its directory instead: %w", to, err)
		case err == nil || !inUse(err) || time.Since(began) >= patience:
			return err
		}
		time.Sleep(pause)
	}
}
