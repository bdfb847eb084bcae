package filewatch

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
)

// Version is the content of a file at the time that it was read.
type Version struct {
	Text []byte
	info os.FileInfo
}

// ErrWrittenTo is returned, together with the Version, for a file that changed while it was
// read.
var ErrWrittenTo = errors.New("it is being written to")

// Read reads a file. It follows symbolic links, and waits as os.Open does.
func Read(path string) (Version, error) {
	return read(path, func(os.FileInfo) error { return nil })
}

// readRegular is Read for a background goroutine: a pipe or a device, which might block forever,
// is an error.
func readRegular(path string) (Version, error) {
	info, err := os.Stat(path)
	if err == nil {
		err = regular(info) // before opening it, which may block already
	}
	if err != nil {
		return Version{}, err
	}
	return read(path, regular)
}

func regular(info os.FileInfo) error {
	if !info.Mode().IsRegular() {
		return fmt.Errorf("%s is not a regular file", info.Name())
	}
	return nil
}

func read(path string, check func(os.FileInfo) error) (Version, error) {
	file, err := os.Open(path)
	if err != nil {
		return Version{}, err
	}
	defer file.Close()
	before, err := file.Stat()
	if err == nil {
		err = check(before)
	}
	if err != nil {
		return Version{}, err
	}
	var b bytes.Buffer
	b.Grow(int(min(max(before.Size(), 0), 1<<26)) + bytes.MinRead)
	if _, err := io.Copy(&b, file); err != nil {
		return Version{}, err
	}
	after, err := file.Stat()
	if err == nil && !same(before, after) {
		err = ErrWrittenTo
	}
	return Version{Text: b.Bytes(), info: before}, err
}

func same(a, b os.FileInfo) bool {
	return os.SameFile(a, b) && a.Size() == b.Size() && a.ModTime().Equal(b.ModTime())
}
