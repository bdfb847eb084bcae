package admit

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/admit-go/admit/internal/alarm"
)

// WriteStall cuts a client that takes too little of the answer: writes go out in pieces
// of at most 32 KiB, and the time for which one of them waits is at most d. Only that time
// counts, so that a stream is not cut which is silent because its handler is. Over HTTP/1
// the connection is closed, over HTTP/2 the stream is reset; the handler gets an error from
// Write. What the server sends after the handler, about 4 KiB, has d too; a body that was
// not read has the Grace of a BodyTimeout first. A Server.WriteTimeout holds beside, and
// alone bounds what comes after the handler. A connection that is hijacked is left alone. It panics if d is
// not positive.
func WriteStall(d time.Duration) Middleware {
	m, err := writeStall(d)
	must(err)
	return m
}

func writeStall(d time.Duration) (Middleware, error) {
	var f faults
	if d <= 0 {
		f.add("WriteStall", "is %v; it is for how long a client may take nothing, such as 10s", d)
	}
	f.time("WriteStall", d)
	if err := f.err(); err != nil {
		return nil, err
	}
	return func(next http.Handler) http.Handler {
		return wrap("WriteStall", next, func(in inside, w http.ResponseWriter, r *http.Request) {
			s, w, inner := in.fill(w, r, 0)
			defer s.leave(r, inner)
			stall := &stallWriter{ResponseWriter: w, patience: d, alarm: &s.alarm}
			if !hasBody(r) || r.ProtoMajor != 1 {
				stall.held = headerHeld // the server does not read before it answers
			}
			stall.tracker.ResponseWriter = stall
			returned := false
			defer func() { stall.end(returned) }()
			in.ServeHTTP(stall.tracker.exposeAs(w), inner)
			returned = true

			if rest := stall.rest(s.body); rest > 0 && canWake(w) { // a recorder holds nothing back from a client
				if server := serverOf(r); server == nil || server.WriteTimeout == 0 { // which holds, else
					s.root().rest.write.Store(int64(rest))
				}
			}
		})
	}, nil
}

// rest is for how long the server may still be sending when the handler has returned; 0:
// that is not known, because it first reads the rest of a body that nobody bounds.
func (w *stallWriter) rest(b *body) time.Duration {
	switch {
	case w.held == headerHeld:
		return w.patience
	case b != nil && b.timeout.Grace > 0:
		return w.patience + b.timeout.Grace
	default:
		return 0
	}
}

// serverOf returns the server of a request, or nil.
func serverOf(r *http.Request) *http.Server {
	server, _ := r.Context().Value(http.ServerContextKey).(*http.Server)
	return server
}

// maxPiece is what goes out at a time.
const maxPiece = 32 << 10

// stallWriter wakes a write that waits for too long. As with a body, a timer does it and
// no deadline is set while the client keeps up: Server.WriteTimeout would be lost.
type stallWriter struct {
	http.ResponseWriter
	tracker  responseWriter
	patience time.Duration
	held     int // bytes that the server may hold back, and the header with them

	mu      sync.Mutex
	waits   bool         // a write is under way
	alarm   *alarm.Alarm // of the chain
	wait    alarm.Wait   // when it is to be woken
	stalled bool         // one has been woken: the connection is of no more use
	ended   bool         // the handler has returned
}

// piece does a write of at most maxPiece.
func (w *stallWriter) piece(write func() (int64, error)) (n int64, err error) {
	w.mu.Lock()
	if w.stalled {
		w.mu.Unlock()
		return 0, errStalled
	}
	if w.held < headerHeld { // the server may read the rest of a body first, which is no stall of who reads
		w.mu.Unlock()
		return write()
	}
	w.waits = true
	w.alarm.Set(&w.wait, w, time.Now(), w.patience)
	w.mu.Unlock()
	defer func() {
		w.mu.Lock()
		w.waits = false
		if w.stalled && err != nil {
			err = errStalled // whatever the connection calls it
		}
		w.mu.Unlock()
	}()
	return write()
}

// Wake is called by the alarm, which goes on when a write has ended: another may wait by now,
// with a time of its own.
func (w *stallWriter) Wake() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.waits && !w.ended && !w.alarm.IsSet(&w.wait) {
		w.stalled = true
		_ = http.NewResponseController(w.ResponseWriter).SetWriteDeadline(longAgo)
	}
}

// end is called when the handler has returned, or panics. What a client has got of an answer
// that was woken is not all of it.
func (w *stallWriter) end(returned bool) {
	w.mu.Lock()
	w.ended = true
	stalled := w.stalled
	w.alarm.Unset(&w.wait)
	w.mu.Unlock()
	if stalled && returned {
		panic(http.ErrAbortHandler)
	}
}

// most is how much the next piece has at most.
func (w *stallWriter) most() int {
	if w.held < headerHeld {
		return headerHeld - w.held
	}
	return maxPiece
}

func (w *stallWriter) Write(p []byte) (written int, err error) {
	for first := true; first || len(p) > 0; first = false {
		next := p[:min(len(p), w.most())]
		p = p[len(next):]
		n, err := w.piece(func() (int64, error) {
			n, err := w.ResponseWriter.Write(next)
			return int64(n), err
		})
		w.held = min(w.held+len(next), headerHeld)
		written += int(n)
		if err != nil {
			return written, err
		}
	}
	return written, nil
}

// ReadFrom sends files without copying them. Other sources may be slow by themselves, so
// they are read apart.
func (w *stallWriter) ReadFrom(src io.Reader) (written int64, err error) {
	file, left := fileIn(src)
	if file == nil {
		return io.Copy(struct{ io.Writer }{w}, src)
	}
	if w.held < headerHeld {
		if err := w.FlushError(); err != nil {
			return 0, err
		}
	}
	for left > 0 {
		part := &io.LimitedReader{R: file, N: min(left, maxPiece)}
		n, err := w.piece(func() (int64, error) { return io.Copy(w.ResponseWriter, part) })
		written += n
		left -= n
		if err != nil || part.N > 0 {
			return written, err
		}
	}
	return written, nil
}

// FlushError is what http.ResponseController calls.
func (w *stallWriter) FlushError() error {
	_, err := w.piece(func() (int64, error) { return 0, http.NewResponseController(w.ResponseWriter).Flush() })
	w.held = headerHeld
	return err
}

// WriteHeader writes a 1xx at once.
func (w *stallWriter) WriteHeader(status int) {
	_, _ = w.piece(func() (int64, error) {
		w.ResponseWriter.WriteHeader(status)
		return 0, nil
	})
}

// Hijack ends it.
func (w *stallWriter) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	conn, buffered, err := http.NewResponseController(w.ResponseWriter).Hijack()
	if err == nil {
		w.mu.Lock()
		w.ended = true
		w.mu.Unlock()
	}
	return conn, buffered, err
}

// Unwrap lets http.ResponseController reach the rest.
func (w *stallWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }
