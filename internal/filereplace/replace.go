// Package filereplace replaces a file atomically: a reader sees either the old text or the new.
package filereplace

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"
)

// With writes text to a temporary file in the same directory, and renames it to path, or to the
// file that a link at path leads to. An existing file keeps its owner, group and permissions; if
// they cannot be kept, With replaces nothing. Only its owner can read a new file.
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

// Target returns the file to replace: path, or the file that a link at path leads to. A link to
// a file that does not exist is an error: the link must not be replaced, and its target may only
// be missing because it is not mounted.
func Target(path string) (string, error) {
	real, err := filepath.EvalSymlinks(path)
	if !errors.Is(err, fs.ErrNotExist) {
		return real, err
	}
	info, err := os.Lstat(path)
	if err != nil || info.Mode()&fs.ModeSymlink == 0 {
		return path, nil // a new file; if its directory does not exist, writing it fails
	}
	to, err := os.Readlink(path)
	if err != nil {
		return "", err
	}
	return "", fmt.Errorf("the link %s leads to %s, which does not exist: create that file, or remove the link", path, to)
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

// rename retries for a while if the system does not replace a file that is open. Its error says
// what to do about a file that can never be replaced.
func rename(from, to string, how func(from, to string) error, inUse func(error) bool) error {
	began := time.Now()
	for {
		err := how(from, to)
		switch {
		case mounted(err):
			return fmt.Errorf("%s is itself a mount, which cannot be replaced: mount its directory instead: %w", to, err)
		case err == nil || !inUse(err) || time.Since(began) >= patience:
			return err
		}
		time.Sleep(pause)
	}
}
