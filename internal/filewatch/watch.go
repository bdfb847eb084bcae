// Package filewatch follows a file: it hands each whole new version of its text to a
// function, and learns whether it was taken.
//
// The file is looked at once a second, as poll is the one thing that works on every file
// system. What cannot be seen is a write so soon after another that both leave the same
// time and size, so the file is read again for a few seconds after a change: longer than
// the coarsest clock of a file system, which counts by two seconds. And it is read each
// minute, for a tool that sets the time back.
package filewatch

import (
	"crypto/sha256"
	"errors"
	"os"
	"sync"
	"time"
)

const (
	every     = time.Second
	readAgain = 3                      // further reads after a change was seen
	readOnce  = 60                     // looks, after which it is read though it looks the same
	patience  = 200 * time.Millisecond // of Close, with a system call that may hang
)

// Config says what becomes of what is seen. Its functions are called by one goroutine,
// one after the other.
type Config struct {
	// Take gets a text that differs from the one in use, or why there is none, and returns
	// what is wrong with it; nil means that it is in use now. The same fault may be met
	// again and again.
	Take func(text []byte, err error) error
	// Report gets each fault once, after it has been seen twice: what a writer has only
	// half written is not worth a line. It gets nil when a text has been taken, and when
	// the one in use is back after a fault.
	Report func(error)
}

// Watch follows a file until Close.
type Watch struct {
	Config
	path string
	read func(path string) (Version, error)

	stop  chan struct{}
	ended chan struct{}

	mu     sync.Mutex // held while Take runs, but never while something is waited for
	closed bool

	// What the goroutine of follow knows of the file.
	taken [sha256.Size]byte // of the text in use
	seen  os.FileInfo       // as of the last read
	again int               // how often to read it though it looks the same
	looks int               // since the last read
	doubt [sha256.Size]byte // of what was wrong at the last look
	told  [sha256.Size]byte // of what was wrong and has been reported
}

// Follow follows the file at path, of which v is in use.
func Follow(path string, v Version, c Config) *Watch {
	return follow(path, v, c, readRegular)
}

func follow(path string, v Version, c Config, read func(string) (Version, error)) *Watch {
	w := &Watch{
		Config: c, path: path, read: read, stop: make(chan struct{}), ended: make(chan struct{}),
		taken: sha256.Sum256(v.Text), seen: v.info, again: readAgain,
	}
	go w.follow()
	return w
}

// Close stops. Once it has returned, nothing is taken any more, and but for a call of
// the system or of Report that hangs the goroutine has ended; Close does not wait for
// such a call, after which the goroutine ends.
func (w *Watch) Close() {
	w.mu.Lock()
	if !w.closed {
		w.closed = true
		close(w.stop)
	}
	w.mu.Unlock()
	waited := time.NewTimer(patience)
	defer waited.Stop()
	select {
	case <-w.ended:
	case <-waited.C:
	}
}

func (w *Watch) follow() {
	defer close(w.ended)
	ticks := time.NewTicker(every)
	defer ticks.Stop()
	for {
		select {
		case <-w.stop:
			return
		case <-ticks.C:
			w.look()
		}
	}
}

// look takes the version that is there now, if it is another and can be taken.
func (w *Watch) look() {
	info, err := os.Stat(w.path)
	if err == nil && w.seen != nil && same(info, w.seen) {
		w.looks++
		if w.again == 0 && w.looks < readOnce {
			return
		}
		w.again = max(w.again-1, 0)
	} else {
		w.again = readAgain
	}
	w.looks = 0
	v, err := w.read(w.path)
	w.seen = v.info
	if errors.Is(err, ErrWrittenTo) {
		w.seen = nil
		return
	}
	if err != nil {
		w.refuse(sha256.Sum256([]byte(err.Error())), w.take(nil, err))
		return
	}
	text := sha256.Sum256(v.Text)
	if text == w.taken {
		w.accept(false)
		return
	}
	if text == w.told {
		return
	}
	if err := w.take(v.Text, nil); err != nil {
		w.refuse(text, err)
		return
	}
	w.taken = text
	w.accept(true)
}

// take calls Take, unless Close has been called.
func (w *Watch) take(text []byte, err error) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed {
		return os.ErrClosed
	}
	return w.Take(text, err)
}

func (w *Watch) accept(changed bool) {
	bad := w.told != [sha256.Size]byte{}
	w.doubt, w.told = [sha256.Size]byte{}, [sha256.Size]byte{}
	if changed || bad {
		w.report(nil)
	}
}

func (w *Watch) refuse(what [sha256.Size]byte, err error) {
	if w.doubt != what {
		w.doubt = what
		return
	}
	if w.told == what {
		return
	}
	w.told = what
	w.report(err)
}

// report calls Report, unless Close has been called: a log may hang too, so that the lock
// is not held.
func (w *Watch) report(err error) {
	select {
	case <-w.stop:
	default:
		w.Report(err)
	}
}
