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

// WriteStall returns a middleware that cuts a client that takes too little of the response.
// Writes go out in pieces of at most 32 KiB, and each may wait for the client at most d. Only
// that time counts, so that a stream is not cut because its handler is silent. Over HTTP/1 the
// connection is closed, and over HTTP/2 the stream is reset; the handler gets an error from
// Write.
//
// What the server still sends after the handler has returned, about 4 KiB, has d too, after the
// Grace of a BodyTimeout if there is a body that was not read. A Server.WriteTimeout applies in
// addition, and it alone bounds what comes after the handler. A hijacked connection is left
// alone. WriteStall panics if d is less than 1 ms.
func WriteStall(d time.Duration) Middleware {
	m, err := writeStall(d)
	must(err)
	return m
}

func writeStall(d time.Duration) (Middleware, error) {
	var f faults
	if d <= 0 {
		f.add("WriteStall", "is %v; it is how long a client may take nothing, such as 10s", d)
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

// rest returns how long the server may still send when the handler has returned. Zero means that
// this is not known, because the server first reads the rest of a body that nothing bounds.
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

// maxPiece is the most that is written at a time.
const maxPiece = 32 << 10

// stallWriter wakes a write that waits too long. As with a body, it uses a timer and sets no
// deadline while the client keeps up: a Server.WriteTimeout would be lost.
type stallWriter struct {
	http.ResponseWriter
	tracker  responseWriter
	patience time.Duration
	held     int // bytes that the server may hold back, and the header with them

	mu      sync.Mutex
	waits   bool         // a write is under way
	alarm   *alarm.Alarm // of the chain
	wait    alarm.Wait   // when the write is to be woken
	stalled bool         // a write has been woken: the connection cannot be used any more
	ended   bool         // the handler has returned
}

// piece does a write of at most maxPiece.
func (w *stallWriter) piece(write func() (int64, error)) (n int64, err error) {
	w.mu.Lock()
	if w.stalled {
		w.mu.Unlock()
		return 0, errStalled
	}
	if w.held < headerHeld { // the server may first read the rest of a body, which is no stall
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

// Wake is called by the alarm. If the alarm was set again, another write waits by now, with a
// time of its own.
func (w *stallWriter) Wake() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.waits && !w.ended && !w.alarm.IsSet(&w.wait) {
		w.stalled = true
		_ = http.NewResponseController(w.ResponseWriter).SetWriteDeadline(longAgo)
	}
}

// end is called when the handler has returned or panics. A response with a woken write is
// incomplete, so the connection is cut.
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

// most is the size of the next piece at most.
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

// ReadFrom sends files without copying them. Other sources may be slow themselves, so they are
// read separately.
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

// Hijack ends the bound.
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
