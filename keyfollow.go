package admit

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"time"
)

// A key file is looked at once a second, as poll is the one thing that works on every
// file system. What cannot be seen is a write so soon after another that both leave
// the same time and size, so the file is read again for a few seconds after a change:
// longer than the coarsest clock of a file system, which counts by two seconds.
const (
	followEvery = time.Second
	followAgain = 3 // further reads after a change was seen
)

// version is a key file as it was read once.
type version struct {
	info os.FileInfo
	text []byte
}

// readVersion follows symbolic links, as os.Open does.
func readVersion(path string) (version, error) {
	file, err := os.Open(path)
	if err != nil {
		return version{}, err
	}
	defer file.Close()
	before, err := file.Stat()
	if err != nil {
		return version{}, err
	}
	var b bytes.Buffer
	b.Grow(int(min(max(before.Size(), 0), 1<<26)) + bytes.MinRead)
	if _, err := io.Copy(&b, file); err != nil {
		return version{}, err
	}
	after, err := file.Stat()
	if err == nil && !sameVersion(before, after) {
		err = errWrittenTo
	}
	return version{info: before, text: b.Bytes()}, err
}

var errWrittenTo = errors.New("it is being written to")

func sameVersion(a, b os.FileInfo) bool {
	return os.SameFile(a, b) && a.Size() == b.Size() && a.ModTime().Equal(b.ModTime())
}

// follower is what follow knows of the file.
type follower struct {
	file  *KeyFile
	taken Digest      // of the text that the keys are from
	seen  os.FileInfo // as of the last read
	again int         // how often to read it though it looks the same
	doubt Digest      // of what was wrong at the last look; it counts once it is seen twice
	told  Digest      // of what was wrong and has been reported
}

func (f *KeyFile) follow(ctx context.Context, v version) {
	defer close(f.stopped)
	fw := &follower{file: f, taken: sha256.Sum256(v.text), seen: v.info, again: followAgain}
	ticks := time.NewTicker(followEvery)
	defer ticks.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticks.C:
			fw.look()
		}
	}
}

// look takes the version that is there now, if it is another and can be taken.
func (fw *follower) look() {
	info, err := os.Stat(fw.file.path)
	if err == nil && fw.seen != nil && sameVersion(info, fw.seen) {
		if fw.again == 0 {
			return
		}
		fw.again--
	} else {
		fw.again = followAgain
	}
	v, err := readVersion(fw.file.path)
	if errors.Is(err, errWrittenTo) {
		fw.seen = nil
		return
	}
	if err != nil {
		fw.seen = nil
		fw.refuse(DigestOf(err.Error()), fmt.Errorf("admit: read the key file: %w", err))
		return
	}
	fw.seen = v.info
	text := Digest(sha256.Sum256(v.text))
	if text == fw.taken {
		fw.accept(nil)
		return
	}
	if text == fw.told {
		return
	}
	keys, err := parseKeyFile(fw.file.path, v.text)
	if err != nil {
		fw.refuse(text, err)
		return
	}
	fw.taken = text
	fw.accept(&keys)
}

// accept takes new keys; nil are those that are in use.
func (fw *follower) accept(keys *KeyMap) {
	fw.doubt, fw.told = Digest{}, Digest{}
	if keys != nil {
		fw.file.keys.Store(keys)
	}
	if old := fw.file.fault.Swap(nil); old != nil || keys != nil {
		slog.Default().Info("admit: the key file has changed", slog.String("path", fw.file.path), slog.Int("keys", len(*fw.file.keys.Load())))
	}
}

// refuse keeps the keys. What a writer has only half written is not worth a line, so
// the same has to be there twice.
func (fw *follower) refuse(what Digest, err error) {
	if fw.doubt != what {
		fw.doubt = what
		return
	}
	if fw.told == what {
		return
	}
	fw.told = what
	fw.file.fault.Store(&err)
	slog.Default().Error("admit: the key file cannot be taken; the last good keys stay", slog.String("path", fw.file.path), slog.Any("error", err))
}
