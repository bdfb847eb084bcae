package admit

import (
	"bufio"
	"context"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"runtime/debug"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/admit-go/admit/internal/mediatype"
)

// timedRun is one run of a handler in its own goroutine: the context that the handler
// has, and the response writer. The goroutine of the server waits until it is settled
// who answers: the handler that has ended, or the server because the time is over.
type timedRun struct {
	context.Context
	w       http.ResponseWriter
	request *http.Request
	body    *body // nil: none
	tracker responseWriter

	began            time.Time
	firstByte, total time.Duration

	settled chan struct{} // closed when ended or over is set, whichever comes first
	panic   any           // of a handler that has ended

	mu        sync.Mutex
	timer     *time.Timer
	header    http.Header // the handler's, until the answer begins
	committed atomic.Bool // the answer has begun; set under mu
	unbounded atomic.Bool // StopTimeout, or a hijack; set under mu
	decided   bool        // the handler is about to answer with an error
	ended     bool        // the handler has returned in time
	over      bool        // the handler is late: nothing that it does may reach w
}

type runKey struct{}

// Value implements context.Context.
func (run *timedRun) Value(key any) any {
	if key == (runKey{}) {
		return run
	}
	return run.Context.Value(key)
}

func (run *timedRun) serve(next http.Handler, w http.ResponseWriter) {
	returned := false
	defer func() {
		v := recover()
		if v == nil && !returned {
			v = http.ErrAbortHandler // runtime.Goexit
		}
		if v != nil && v != any(http.ErrAbortHandler) {
			if _, nested := v.(*HandlerPanic); !nested {
				v = &HandlerPanic{v, debug.Stack()}
			}
		}
		run.panic = v
		run.mu.Lock()
		run.ended = !run.over
		run.mu.Unlock()
		releasePlaces(run)
		if run.ended {
			close(run.settled)
		} else {
			run.cleanUp()
		}
	}()
	next.ServeHTTP(w, run.request)
	returned = true
}

// cleanUp does, for a handler that ends late, what nobody waits for any more.
func (run *timedRun) cleanUp() {
	if p, ok := run.panic.(*HandlerPanic); ok {
		errorWriterOf(run).log(run.request, slog.LevelError, "admit: a handler panicked after it had overrun",
			slog.Any("panic", p.Value), slog.String("stack", string(p.Stack)))
	}
	if form := run.request.MultipartForm; form != nil {
		_ = form.RemoveAll()
	}
}

// finish ends a run that was in time.
func (run *timedRun) finish(r *http.Request) {
	handBack(r, run.request)
	if run.panic != nil {
		panic(run.panic)
	}
	run.mu.Lock()
	defer run.mu.Unlock()
	if !run.committed.Load() {
		run.commit()
		return
	}
	// Trailers are set after the answer has begun.
	real := run.w.Header()
	for name, values := range run.header {
		if strings.HasPrefix(name, http.TrailerPrefix) || mediatype.ListContains(real["Trailer"], name) {
			real[name] = values
		}
	}
}

// expire is called by the timer.
func (run *timedRun) expire() {
	if run.committed.Load() && run.total > 0 && !run.unbounded.Load() && time.Since(run.began) >= run.total {
		// A write that waits for the client must not keep the lock from us.
		_ = http.NewResponseController(run.w).SetWriteDeadline(longAgo)
	}
	run.mu.Lock()
	defer run.mu.Unlock()
	limit := run.firstByte
	if run.committed.Load() || run.decided {
		limit = run.total
	}
	// The answer may have begun, or ended, while the timer was on its way here.
	if run.ended || run.over || run.unbounded.Load() || limit == 0 || time.Since(run.began) < limit {
		return
	}
	run.over = true
	close(run.settled)
}

// commit begins the answer.
func (run *timedRun) commit() {
	run.committed.Store(true)
	run.timer.Stop()
	if run.total > 0 && !run.unbounded.Load() {
		run.timer.Reset(run.total - time.Since(run.began))
	}
	real := run.w.Header()
	clear(real)
	maps.Copy(real, run.header)
}

func (run *timedRun) Header() http.Header { return run.header }

func (run *timedRun) WriteHeader(status int) {
	run.mu.Lock()
	defer run.mu.Unlock()
	switch {
	case run.over:
		return
	case status < 200 && status != http.StatusSwitchingProtocols:
		// It is sent with the header as it is now, and begins nothing.
		real := run.w.Header()
		outside := maps.Clone(real)
		maps.Copy(real, run.header)
		run.w.WriteHeader(status)
		clear(real)
		maps.Copy(real, outside)
		return
	case !run.committed.Load():
		run.commit()
	}
	run.w.WriteHeader(status)
}

func (run *timedRun) Write(p []byte) (int, error) {
	run.mu.Lock()
	defer run.mu.Unlock()
	if run.over {
		return 0, http.ErrHandlerTimeout
	}
	if !run.committed.Load() {
		run.commit()
	}
	return run.w.Write(p)
}

func (run *timedRun) WriteString(s string) (int, error) {
	run.mu.Lock()
	defer run.mu.Unlock()
	if run.over {
		return 0, http.ErrHandlerTimeout
	}
	if !run.committed.Load() {
		run.commit()
	}
	return io.WriteString(run.w, s)
}

// ReadFrom passes files on to the server whole, unless a total time may end in the
// middle of one.
func (run *timedRun) ReadFrom(src io.Reader) (int64, error) {
	// What comes first begins the answer, as soon as it is there.
	var first [512]byte
	var n int
	var err error
	for n == 0 && err == nil {
		n, err = src.Read(first[:])
	}
	written := 0
	if n > 0 {
		var failed error
		if written, failed = run.Write(first[:n]); failed != nil {
			return int64(written), failed
		}
	}
	if err == io.EOF {
		return int64(written), nil
	}
	if err != nil {
		return int64(written), err
	}
	var dst io.Writer = run.w
	if run.total > 0 {
		dst = struct{ io.Writer }{run}
	}
	rest, err := io.Copy(dst, src)
	return int64(written) + rest, err
}

// FlushError begins the answer.
func (run *timedRun) FlushError() error {
	run.mu.Lock()
	defer run.mu.Unlock()
	if run.over {
		return http.ErrHandlerTimeout
	}
	if !run.committed.Load() {
		run.commit()
	}
	return http.NewResponseController(run.w).Flush()
}

// Hijack takes the connection out of the hands of the Timeout.
func (run *timedRun) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	run.mu.Lock()
	defer run.mu.Unlock()
	if run.over {
		return nil, nil, http.ErrHandlerTimeout
	}
	conn, buffered, err := http.NewResponseController(run.w).Hijack()
	if err == nil {
		run.committed.Store(true)
		run.unbounded.Store(true)
		run.timer.Stop()
	}
	return conn, buffered, err
}

// Deadlines are of the connection, on which another request may be under way already
// when the handler is late.

func (run *timedRun) SetReadDeadline(t time.Time) error {
	return run.control(func(c *http.ResponseController) error { return c.SetReadDeadline(t) })
}

func (run *timedRun) SetWriteDeadline(t time.Time) error {
	return run.control(func(c *http.ResponseController) error { return c.SetWriteDeadline(t) })
}

func (run *timedRun) EnableFullDuplex() error {
	return run.control((*http.ResponseController).EnableFullDuplex)
}

func (run *timedRun) control(f func(*http.ResponseController) error) error {
	run.mu.Lock()
	defer run.mu.Unlock()
	if run.over {
		return http.ErrHandlerTimeout
	}
	return f(http.NewResponseController(run.w))
}

// Unwrap returns the writer outside for as long as the handler is in time.
func (run *timedRun) Unwrap() http.ResponseWriter {
	run.mu.Lock()
	defer run.mu.Unlock()
	if run.over {
		return nowhere{}
	}
	return run.w
}

// nowhere is the writer of a handler that is late.
type nowhere struct{}

func (nowhere) Header() http.Header       { return http.Header{} }
func (nowhere) Write([]byte) (int, error) { return 0, http.ErrHandlerTimeout }
func (nowhere) WriteHeader(int)           {}

// runsOf calls f with each run that the request of ctx is inside of.
func runsOf(ctx context.Context, f func(*timedRun)) {
	for run, ok := ctx.Value(runKey{}).(*timedRun); ok; run, ok = run.Context.Value(runKey{}).(*timedRun) {
		f(run)
	}
}

// decide takes note that the handler of ctx knows its answer, though it may take a
// moment until it begins. It reports false for a handler that is late.
func decide(ctx context.Context) bool {
	inTime := true
	runsOf(ctx, func(run *timedRun) {
		run.mu.Lock()
		defer run.mu.Unlock()
		run.decided = true
		inTime = inTime && !run.over
	})
	return inTime
}
