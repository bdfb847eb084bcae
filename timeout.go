package admit

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"runtime/debug"
	"strings"
	"sync"
	"time"
)

// Timeout answers 503 handler_timeout when the handler has not begun its answer in d.
// What has begun is not bounded, so that streams, downloads and upgrades pass: see
// NewTimeout for a bound of the whole. It panics if d is not positive.
func Timeout(d time.Duration) Middleware {
	t, err := NewTimeout(TimeoutConfig{FirstByte: d})
	if err != nil {
		panic("admit: Timeout: " + err.Error())
	}
	return t.Wrap
}

// TimeoutConfig configures NewTimeout.
type TimeoutConfig struct {
	// FirstByte is the time to the first byte of the answer. Required.
	FirstByte time.Duration
	// Total is the time to its end: what goes on for longer is cut. 0: no bound.
	Total time.Duration
}

// HandlerTimeout bounds the time of handlers. It is safe for concurrent use.
type HandlerTimeout struct{ c TimeoutConfig }

// NewTimeout reports every fault of the configuration at once.
func NewTimeout(c TimeoutConfig) (*HandlerTimeout, error) {
	var faults []error
	if c.FirstByte <= 0 {
		faults = append(faults, fmt.Errorf("admit: TimeoutConfig.FirstByte is %v; it is the time to the first byte of the answer, such as 10s", c.FirstByte))
	}
	if c.Total < 0 || c.Total > 0 && c.Total < c.FirstByte {
		faults = append(faults, fmt.Errorf("admit: TimeoutConfig.Total is %v; it is 0 for no bound, or at least FirstByte (%v)", c.Total, c.FirstByte))
	}
	if len(faults) > 0 {
		return nil, errors.Join(faults...)
	}
	return &HandlerTimeout{c}, nil
}

// StopTimeout ends the Timeout around a handler, for a long poll; the client then waits
// for as long as the handler does. It reports whether it came in time.
func StopTimeout(ctx context.Context) bool {
	run, ok := ctx.Value(runKey{}).(*timedRun)
	if !ok {
		return true
	}
	run.mu.Lock()
	defer run.mu.Unlock()
	if !run.over {
		run.unbounded = true
		run.timer.Stop()
	}
	return !run.over
}

// Wrap runs next in a goroutine of its own, whose context ends when the time is over.
// Nothing is buffered. After the time is over, what next writes is thrown away with
// http.ErrHandlerTimeout, what it reads from the body fails, and its panic is logged; a
// panic before passes on, as a *HandlerPanic with the stack.
func (t *HandlerTimeout) Wrap(next http.Handler) http.Handler {
	mustWrap("Timeout", next)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ctx, cancel := context.WithCancelCause(r.Context())
		defer cancel(nil)
		run := &timedRun{Context: ctx, w: w, header: w.Header().Clone(), total: t.c.Total, done: make(chan struct{})}
		if run.header == nil {
			run.header = http.Header{}
		}
		run.tracker.ResponseWriter = run
		run.request = r.WithContext(run)
		if hasBody(r) {
			run.request, run.body = withBody(w, run.request)
		}
		run.began = time.Now()
		run.deadline = run.began.Add(t.c.FirstByte)
		run.timer = timers.Get().(*time.Timer)
		run.timer.Reset(t.c.FirstByte)
		defer timers.Put(run.timer)
		defer run.timer.Stop()

		go run.serve(next, run.tracker.exposeAs(w))
		for {
			select {
			case <-run.done:
				run.finish(r)
				return
			case <-run.timer.C:
				if !run.expire() {
					continue
				}
				cancel(context.DeadlineExceeded)
				if run.committed {
					panic(http.ErrAbortHandler)
				}
				if run.body != nil {
					run.body.interrupt(http.ErrHandlerTimeout)
				}
				WriteError(w, r, errHandlerTimeout)
				return
			}
		}
	})
}

// HandlerPanic is the panic of a handler inside a Timeout, as it passes on from the
// goroutine of the handler to that of the server.
type HandlerPanic struct {
	Value any
	Stack []byte
}

// Error has the value and the stack, which a server without Recover logs.
func (p *HandlerPanic) Error() string { return fmt.Sprintf("%v\n\n%s", p.Value, p.Stack) }

// Unwrap returns the value if it is an error.
func (p *HandlerPanic) Unwrap() error {
	err, _ := p.Value.(error)
	return err
}

// timers are stopped, and have nothing in their channels.
var timers = sync.Pool{New: func() any {
	t := time.NewTimer(time.Hour)
	t.Stop()
	return t
}}

// timedRun is one run of a handler in its own goroutine: the context that the handler
// has, and the response writer. The goroutine of the server waits; the two meet under
// mu only when the answer begins, and when the time is over.
type timedRun struct {
	context.Context
	w       http.ResponseWriter
	request *http.Request
	body    *body // nil: none
	tracker responseWriter
	began   time.Time
	total   time.Duration
	done    chan struct{}
	panic   any // valid once done is closed

	mu        sync.Mutex
	timer     *time.Timer
	deadline  time.Time   // of the first byte, then of the whole
	header    http.Header // the handler's, until the answer begins
	committed bool        // the answer has begun
	unbounded bool        // StopTimeout
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
		late := run.over
		run.mu.Unlock()
		if late {
			run.cleanUp()
		}
		close(run.done)
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
	if run.panic != nil {
		panic(run.panic)
	}
	handBack(r, run.request)
	run.mu.Lock()
	defer run.mu.Unlock()
	if !run.committed {
		run.commit()
		return
	}
	// Trailers are set after the answer has begun.
	real := run.w.Header()
	for name, values := range run.header {
		if strings.HasPrefix(name, http.TrailerPrefix) || listed(real["Trailer"], name) {
			real[name] = values
		}
	}
}

// expire reports whether the time is over for good.
func (run *timedRun) expire() bool {
	if run.total > 0 {
		// A write that waits for the client must not keep the lock from us.
		run.mu.Lock()
		committed := run.committed
		run.mu.Unlock()
		if committed {
			_ = http.NewResponseController(run.w).SetWriteDeadline(longAgo)
		}
	}
	run.mu.Lock()
	defer run.mu.Unlock()
	// Programs of before Go 1.23 semantics may see a timer that was stopped.
	if run.unbounded || run.committed && run.total == 0 || time.Until(run.deadline) > 0 {
		return false
	}
	run.over = true
	return true
}

// commit begins the answer.
func (run *timedRun) commit() {
	run.committed = true
	run.timer.Stop()
	if run.total > 0 && !run.unbounded {
		run.deadline = run.began.Add(run.total)
		run.timer.Reset(time.Until(run.deadline))
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
	case !run.committed:
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
	if !run.committed {
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
	if !run.committed {
		run.commit()
	}
	return io.WriteString(run.w, s)
}

// ReadFrom passes files on to the server whole, unless a total time may end in the
// middle of one.
func (run *timedRun) ReadFrom(src io.Reader) (int64, error) {
	// The first bytes decide whether the answer begins at all.
	buf := make([]byte, 512)
	n, err := io.ReadFull(src, buf)
	written, werr := run.writeSome(buf[:n])
	if werr != nil || err == io.EOF || err == io.ErrUnexpectedEOF {
		return int64(written), werr
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

func (run *timedRun) writeSome(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	return run.Write(p)
}

// FlushError begins the answer.
func (run *timedRun) FlushError() error {
	run.mu.Lock()
	defer run.mu.Unlock()
	if run.over {
		return http.ErrHandlerTimeout
	}
	if !run.committed {
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
		run.committed, run.unbounded = true, true
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

// late reports whether the writer is that of a handler inside a Timeout that has
// answered already.
func (w *responseWriter) late() bool {
	run, ok := w.ResponseWriter.(*timedRun)
	if !ok {
		return false
	}
	run.mu.Lock()
	defer run.mu.Unlock()
	return run.over
}

var errHandlerTimeout = &Error{
	Status:  http.StatusServiceUnavailable,
	Code:    "handler_timeout",
	Message: "The answer took too long. Try again later.",
}
