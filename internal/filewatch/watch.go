// Package filewatch follows a file: it passes each new version of its text to a function, which
// accepts or rejects it.
//
// It polls the file once a second, since only polling works on every file system. Polling does
// not see two writes that leave the same time and size, so the file is read again for a few
// seconds after a change: longer than the coarsest clock of a file system, which counts in steps
// of two seconds. The file is also read every minute, for tools that set its time back.
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
	readAgain = 3                      // further reads after a change
	readOnce  = 60                     // polls after which the file is read though it looks unchanged
	patience  = 200 * time.Millisecond // of Close, with a system call that may hang
)

// Config has the functions that a Watch calls. One goroutine calls them, one at a time.
type Config struct {
	// Take gets a text that differs from the one in use, or the error of reading it. It returns
	// what is wrong; nil means that the text is now in use. It may get the same wrong text
	// repeatedly.
	Take func(text []byte, err error) error
	// Report gets each error once, after it has occurred twice in a row, so that a file that is
	// only half written is not reported. It gets nil when Take has accepted a text, and when the
	// text in use is back after an error.
	Report func(error)
}

// Watch follows a file until Close.
type Watch struct {
	Config
	path string
	read func(path string) (Version, error)

	stop  chan struct{}
	ended chan struct{}

	mu     sync.Mutex // held while Take runs, but never during a system call
	closed bool

	// State of the goroutine of follow.
	taken [sha256.Size]byte // hash of the text in use
	seen  os.FileInfo       // as of the last read
	again int               // how often to read the file though it looks unchanged
	looks int               // polls since the last read
	doubt [sha256.Size]byte // hash of the wrong text or error of the last poll
	told  [sha256.Size]byte // hash of the wrong text or error that has been reported
}

// Follow follows the file at path, whose version v is in use.
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

// Close stops the Watch. After it has returned, Take is not called any more, and the goroutine
// has ended. If a system call or Report hangs, Close does not wait for it; the goroutine then
// ends after that call.
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

// look passes the current version to Take, if it has changed.
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

// report calls Report, unless Close has been called. It does not hold the lock, since a log may
// hang.
func (w *Watch) report(err error) {
	select {
	case <-w.stop:
	default:
		w.Report(err)
	}
}
