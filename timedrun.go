package admit

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"net/url"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/admit-go/admit/internal/alarm"
	"github.com/admit-go/admit/internal/lazyctx"
	"github.com/admit-go/admit/internal/mediatype"
)

// timedRun is one run of a handler in its own goroutine: the context that the handler
// has, and the response writer. The goroutine of the server waits until it is settled
// who answers: the handler that has ended, or the server because the time is over.
//
// The timer only takes note. What is to be done to the response or the connection then,
// the goroutine of the server does, which alone knows that the request is still there. It
// waits until the handler has left w, and nothing that the handler does later gets there.
type timedRun struct {
	lazyctx.Context
	w            http.ResponseWriter
	wakes        bool // canWake(w)
	sharesHeader bool // the request has a header that is not the handler's
	request      *http.Request
	url          url.URL
	forErrors    [3][]string   // of the header, where it is the handler's
	body         *body         // nil: none
	awaited      time.Duration // of body, before
	tracker      responseWriter
	held         []*place // that an InFlight or a Shedder outside must not give away meanwhile
	few          [2]*place
	values       [6]string // of header

	began            time.Time
	firstByte, total time.Duration
	alarm            *alarm.Alarm
	wait             alarm.Wait

	settled sync.WaitGroup // done when ended or over is set, whichever comes first
	panic   any            // of a handler that has ended

	mu        sync.Mutex
	header    http.Header   // the handler's, until the answer begins
	quiet     chan struct{} // closed after the last call; nil: none was when over was set
	calls     int32         // of the handler, under way in w
	deciding  int32         // answers of ours that are about to begin
	committed bool          // the answer has begun
	trailers  bool          // its header has trailers, or announces some
	unbounded bool          // StopTimeout, or a hijack
	ended     bool          // the handler has returned in time
	over      bool          // the handler is late
}

// start runs what is inside, for r, in a goroutine of its own. Others may panic in it, so what
// leave needs comes first.
func (run *timedRun) start(in inside, w http.ResponseWriter, r *http.Request) {
	run.began = time.Now()
	run.Init(r.Context())
	if in.open != nil {
		run.alarm = &in.open.alarm
	} else {
		run.alarm = new(alarm.Alarm)
	}
	if run.body != nil {
		run.awaited = run.body.awaited()
	}
	run.w, run.wakes = w, canWake(w)
	run.header = copyOf(w.Header(), run.values[:])
	run.tracker.ResponseWriter = run
	run.ownRequest(in.open, r)
	run.held = holdPlaces(r.Context(), run.few[:0])
	run.settled.Add(1)
	run.alarm.Set(&run.wait, run, run.began, run.firstByte)
	in.open = nil // inside is another goroutine, and this one goes on
	go run.serve(in, run.tracker.exposeAs(w))
}

// ownRequest makes the request of the handler, which may be late and still change it: with a
// header and a URL that nobody else reads, and no body but one of ours. The header that a chain
// has made is given away, except to a handler that somebody observes: an observer looks at it.
func (run *timedRun) ownRequest(chain *state, r *http.Request) {
	run.request = r.WithContext(run)
	if chain != nil && chain.ownHeader && chain.filled&slotOutcome == 0 {
		run.forErrors = headerForErrors(r.Header)
	} else {
		run.sharesHeader = true
		run.request.Header = maps.Clone(r.Header)
	}
	if r.URL != nil {
		run.url = *r.URL
		run.request.URL = &run.url
	}
	if run.body == nil && r.Body != nil {
		run.request.Body = http.NoBody
	}
}

// headerForErrors is what the 503 is written by. The rest of the header belongs to the
// handler, which may be changing it by then.
func headerForErrors(h http.Header) [3][]string {
	return [3][]string{h["Accept"], h["Expect"], h["User-Agent"]}
}

// leave ends what the run has of the outside.
func (run *timedRun) leave() {
	run.alarm.Unset(&run.wait)
	run.End(false)
}

type runKey struct{}

// Value implements context.Context.
func (run *timedRun) Value(key any) any {
	if key == (runKey{}) {
		return run
	}
	return run.Context.Value(key)
}

// Deadline returns when the handler is late as of now: the time to the first byte until the
// answer has begun, and what a client is waited for moves it on.
func (run *timedRun) Deadline() (time.Time, bool) {
	outer, bounded := run.Context.Deadline()
	run.mu.Lock()
	limit := run.limit()
	run.mu.Unlock()
	if limit == 0 {
		return outer, bounded
	}
	if mine := run.began.Add(limit); !bounded || mine.Before(outer) {
		return mine, true
	}
	return outer, true
}

// limit is how long after its beginning the run is over, as of now; 0: never.
func (run *timedRun) limit() time.Duration {
	switch {
	case run.unbounded:
		return 0
	case run.committed:
		return run.total
	case run.body == nil:
		return run.firstByte
	}
	limit := run.firstByte + run.body.awaited() - run.awaited
	if run.total > 0 {
		limit = min(limit, run.total)
	}
	return limit
}

func (run *timedRun) serve(in inside, w http.ResponseWriter) {
	returned := false
	defer func() {
		v := recover()
		if v == nil && !returned {
			v = http.ErrAbortHandler // runtime.Goexit
		}
		run.panic = withStack(v)
		for _, p := range run.held {
			p.release()
		}
		run.mu.Lock()
		run.ended = !run.over
		run.mu.Unlock()
		if run.ended {
			run.settled.Done()
		} else {
			run.cleanUp()
		}
	}()
	growStack(false)
	in.ServeHTTP(w, run.request)
	returned = true
}

// growStack makes the stack of a new goroutine as large as a handler needs that reads and
// writes. Nearly nothing has to be copied yet: it would grow twice in the middle of a Read, and
// that costs more than all else that a Timeout does. Its frame is what counts; use is false.
//
//go:noinline
func growStack(use bool) (n int) {
	var room [4 << 10]byte
	if use {
		n = copy(room[:], debug.Stack())
	}
	return n
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

// finish ends a run that was in time, of a handler that was called for r.
func (run *timedRun) finish(r *http.Request) {
	handBack(r, run.request)
	if run.panic != nil {
		panic(run.panic)
	}
	run.mu.Lock()
	defer run.mu.Unlock()
	if run.committed {
		run.addTrailers()
	} else {
		run.commit()
	}
}

// addTrailers takes over what is set after the answer has begun: the trailers that it has
// announced, and those with the prefix.
func (run *timedRun) addTrailers() {
	real := run.w.Header()
	announced := real["Trailer"]
	isTrailer := func(name string) bool {
		return strings.HasPrefix(name, http.TrailerPrefix) || len(announced) > 0 && mediatype.ListContains(announced, name)
	}
	if run.trailers {
		maps.DeleteFunc(real, func(name string, _ []string) bool {
			_, stays := run.header[name]
			return !stays && isTrailer(name)
		})
	}
	for name, values := range run.header {
		if isTrailer(name) {
			real[name] = values
		}
	}
}

// Wake is called by the alarm, and by who has held it up: the time may be over.
func (run *timedRun) Wake() {
	run.mu.Lock()
	defer run.mu.Unlock()
	limit := run.limit()
	// The answer may have begun, or ended, while the alarm was on its way here.
	if run.ended || run.over || limit == 0 || run.deciding > 0 && !run.committed {
		return
	}
	now := time.Now()
	if left := limit - now.Sub(run.began); left > 0 {
		run.alarm.Set(&run.wait, run, now, max(left, readTick))
		return
	}
	run.over = true
	if run.calls > 0 {
		run.quiet = make(chan struct{})
	}
	run.settled.Done()
}

// readTick is how often it is looked at whether the time is over of a handler that waits for
// its client, which moves it on.
const readTick = 10 * time.Millisecond

// cutAfter is how long a 1xx may take that was under way when the time was over.
const cutAfter = 100 * time.Millisecond

// vacate waits, in the goroutine of the server, until a handler that is late has left w.
// It reports whether the answer can still be another one. A call that waits for the client
// is cut, and the connection with it.
func (run *timedRun) vacate() bool {
	if run.quiet == nil {
		if run.committed { // the server reads what is left of a body before it closes, for as long as that takes
			_ = http.NewResponseController(run.w).SetReadDeadline(longAgo)
		}
		return !run.committed
	}
	if !run.committed {
		patience := time.NewTimer(cutAfter)
		defer patience.Stop()
		select {
		case <-run.quiet:
			return true
		case <-patience.C:
		}
	}
	c := http.NewResponseController(run.w)
	_ = c.SetWriteDeadline(longAgo)
	_ = c.SetReadDeadline(longAgo) // the server may be reading what is left of the body, before it writes
	<-run.quiet
	return false
}

// enter begins a call of the handler in w, which the answer may begin with. It reports
// false where there is none any more. Calls may wait for the client, so they do not hold
// the lock.
func (run *timedRun) enter(answers bool) bool {
	run.mu.Lock()
	defer run.mu.Unlock()
	if run.over || run.ended {
		return false
	}
	if answers && !run.committed {
		run.commit()
	}
	run.calls++
	return true
}

func (run *timedRun) exit() {
	run.mu.Lock()
	defer run.mu.Unlock()
	if run.calls--; run.calls == 0 && run.quiet != nil {
		close(run.quiet)
	}
}

// commit begins the answer.
func (run *timedRun) commit() {
	run.committed = true
	if run.total > 0 && !run.unbounded && !run.ended {
		now := time.Now()
		run.alarm.Set(&run.wait, run, now, run.total-now.Sub(run.began))
	} else {
		run.alarm.Unset(&run.wait)
	}
	header := run.header
	if run.total > 0 {
		header = header.Clone() // the handler may be late yet, and go on with its own
	}
	real := run.w.Header()
	for name, values := range header {
		real[name] = values
		run.trailers = run.trailers || name == "Trailer" || strings.HasPrefix(name, http.TrailerPrefix)
	}
	retain(real, header)
}

// copyOf returns a copy of h that is never nil. Values of headers that have one are kept in
// room, as long as there is some.
func copyOf(h http.Header, room []string) http.Header {
	c := make(http.Header, len(h)+1)
	for name, values := range h {
		if len(values) == 1 && len(room) > 0 {
			room[0] = values[0]
			c[name], room = room[:1:1], room[1:]
		} else {
			c[name] = slices.Clone(values)
		}
	}
	return c
}

// replace makes h the same as by.
func replace(h, by http.Header) {
	maps.Copy(h, by)
	retain(h, by)
}

// retain removes from h, which has all that by has, what by has not.
func retain(h, by http.Header) {
	if len(h) == len(by) {
		return
	}
	maps.DeleteFunc(h, func(name string, _ []string) bool {
		_, stays := by[name]
		return !stays
	})
}

func (run *timedRun) Header() http.Header { return run.header }

func (run *timedRun) WriteHeader(status int) {
	informs := status < 200 && status != http.StatusSwitchingProtocols
	if !run.enter(!informs) {
		return
	}
	defer run.exit()
	if informs {
		// It is sent with the header as it is now, and begins nothing.
		real := run.w.Header()
		defer replace(real, maps.Clone(real))
		replace(real, run.header)
	}
	run.w.WriteHeader(status)
}

func (run *timedRun) Write(p []byte) (int, error) {
	if !run.enter(true) {
		return 0, http.ErrHandlerTimeout
	}
	defer run.exit()
	return run.w.Write(p)
}

func (run *timedRun) WriteString(s string) (int, error) {
	if !run.enter(true) {
		return 0, http.ErrHandlerTimeout
	}
	defer run.exit()
	return io.WriteString(run.w, s)
}

// ReadFrom passes files on to the server whole, unless a total time may end in the
// middle of one, or a first byte is still waited for.
func (run *timedRun) ReadFrom(src io.Reader) (int64, error) {
	run.mu.Lock()
	whole := run.committed && run.total == 0
	run.mu.Unlock()
	if !whole {
		return io.Copy(struct{ io.Writer }{run}, src)
	}
	if !run.enter(true) {
		return 0, http.ErrHandlerTimeout
	}
	defer run.exit()
	return io.Copy(run.w, src)
}

// FlushError begins the answer.
func (run *timedRun) FlushError() error {
	if !run.enter(true) {
		return http.ErrHandlerTimeout
	}
	defer run.exit()
	return http.NewResponseController(run.w).Flush()
}

// Hijack takes the connection out of the hands of the Timeout. The server may first read
// the rest of the body.
func (run *timedRun) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	if !run.enter(false) {
		return nil, nil, http.ErrHandlerTimeout
	}
	defer run.exit()
	conn, buffered, err := http.NewResponseController(run.w).Hijack()
	if err != nil {
		return nil, nil, err
	}
	run.mu.Lock()
	defer run.mu.Unlock()
	if run.over { // meanwhile: the deadlines of the connection have passed
		_ = conn.Close()
		return nil, nil, http.ErrHandlerTimeout
	}
	run.committed, run.unbounded = true, true
	run.alarm.Unset(&run.wait)
	return conn, buffered, nil
}

// What follows reaches the connection, on which another request may be under way already
// when the handler is late. This is why there is no Unwrap, which would give away the writer
// outside for good: all that http.ResponseController knows is here.

func (run *timedRun) SetReadDeadline(t time.Time) error {
	return run.control(func(c *http.ResponseController) error { return c.SetReadDeadline(t) })
}

func (run *timedRun) SetWriteDeadline(t time.Time) error {
	return run.control(func(c *http.ResponseController) error { return c.SetWriteDeadline(t) })
}

func (run *timedRun) EnableFullDuplex() error {
	return run.control((*http.ResponseController).EnableFullDuplex)
}

func (run *timedRun) closeAfterReply() {
	_ = run.control(func(*http.ResponseController) error {
		closeAfterReply(run.w)
		return nil
	})
}

// control calls f, which does not wait, while the handler is in time.
func (run *timedRun) control(f func(*http.ResponseController) error) error {
	run.mu.Lock()
	defer run.mu.Unlock()
	if run.over || run.ended {
		return http.ErrHandlerTimeout
	}
	return f(http.NewResponseController(run.w))
}

// runsOf calls f with each run that the request of ctx is inside of.
func runsOf(ctx context.Context, f func(*timedRun)) {
	for run, ok := ctx.Value(runKey{}).(*timedRun); ok; run, ok = run.Context.Value(runKey{}).(*timedRun) {
		f(run)
	}
}

// late reports whether the handler of ctx has overrun.
func late(ctx context.Context) bool {
	is := false
	runsOf(ctx, func(run *timedRun) {
		run.mu.Lock()
		defer run.mu.Unlock()
		is = is || run.over
	})
	return is
}

// beginAnswer takes note that the handler of ctx knows its answer, though it may take a
// moment until it begins. It reports false for a handler that is late; else endAnswer
// is to follow.
func beginAnswer(ctx context.Context) bool {
	inTime := true
	runsOf(ctx, func(run *timedRun) {
		run.mu.Lock()
		defer run.mu.Unlock()
		run.deciding++
		inTime = inTime && !run.over
	})
	if !inTime {
		endAnswer(ctx)
	}
	return inTime
}

// endAnswer looks at the time again: the answer may have gone to a writer of others, which
// has not passed it on.
func endAnswer(ctx context.Context) {
	runsOf(ctx, func(run *timedRun) {
		run.mu.Lock()
		run.deciding--
		run.mu.Unlock()
		run.Wake()
	})
}

// HandlerPanic is the panic of a handler inside a Timeout, as it passes on from the
// goroutine of the handler to that of the server; or that of a ResponseWriter of others in which
// an answer was written while the client still sent.
type HandlerPanic struct {
	Value any
	Stack []byte
}

// withStack returns what is to be passed on of v, which was recovered in this goroutine: with its
// stack, which is gone in the next one.
func withStack(v any) any {
	if v == nil || v == any(http.ErrAbortHandler) {
		return v
	}
	if _, nested := v.(*HandlerPanic); nested {
		return v
	}
	return &HandlerPanic{v, debug.Stack()}
}

// Error has the value and the stack, which a server without Recover logs.
func (p *HandlerPanic) Error() string { return fmt.Sprintf("%v\n\n%s", p.Value, p.Stack) }

// Unwrap returns the value if it is an error.
func (p *HandlerPanic) Unwrap() error {
	err, _ := p.Value.(error)
	return err
}
