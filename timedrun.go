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

// timedRun is one run of a handler in a goroutine of its own. It is the context and the response
// writer of the handler. The goroutine of the server waits until it is settled who responds: the
// handler, which has ended, or the server, because the time is over.
//
// The timer only sets a flag. The goroutine of the server then changes the response or the
// connection, since it alone knows that the request still exists. It waits until the handler has
// left w, and nothing that the handler does later reaches w.
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
	held         []*place // in each InFlight and Shedder outside, kept while the handler runs
	few          [2]*place
	values       [6]string // of header

	began            time.Time
	firstByte, total time.Duration
	alarm            *alarm.Alarm
	wait             alarm.Wait

	settled sync.WaitGroup // done when ended or over is set, whichever comes first
	panic   any            // of a handler that has ended

	mu        sync.Mutex
	header    http.Header   // the handler's, until the response begins
	quiet     chan struct{} // closed after the last call; nil: none was under way when over was set
	calls     int32         // of the handler, under way in w
	deciding  int32         // responses of this package that are about to begin
	committed bool          // the response has begun
	trailers  bool          // its header has trailers, or announces some
	unbounded bool          // StopTimeout, or a hijack
	ended     bool          // the handler has returned in time
	over      bool          // the handler is late
}

// start runs what is inside, for r, in a goroutine of its own. Writers of others may panic in
// start, so it first sets what leave needs.
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
	in.open = nil // the handler is in another goroutine, and this one goes on
	go run.serve(in, run.tracker.exposeAs(w))
}

// ownRequest makes the request of the handler. A late handler may still change it, so it has a
// header and a URL that nobody else reads, and no body but one of ours. A header that the chain
// has made is given to the handler, unless somebody observes the request: an observer reads it.
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

// headerForErrors returns the fields by which the 503 is written. The rest of the header belongs
// to the handler, which may be changing it by then.
func headerForErrors(h http.Header) [3][]string {
	return [3][]string{h["Accept"], h["Expect"], h["User-Agent"]}
}

// leave ends what the run uses outside.
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

// Deadline returns when the handler is late, as known now. Until the response has begun, this is
// the end of FirstByte; waiting for the client's body moves it.
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

// limit returns how long after its beginning the run is over, as known now; 0 means never.
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

// growStack makes the stack of a new goroutine as large as a handler needs to read and write. At
// this point there is almost nothing to copy. Later, the stack would grow twice in the middle of
// a Read, which costs more than everything else in a Timeout. Only the size of its frame matters;
// use is false.
//
//go:noinline
func growStack(use bool) (n int) {
	var room [4 << 10]byte
	if use {
		n = copy(room[:], debug.Stack())
	}
	return n
}

// cleanUp logs the panic of a handler that ends late, and removes the files of its form.
func (run *timedRun) cleanUp() {
	if p, ok := run.panic.(*HandlerPanic); ok {
		errorWriterOf(run).log(run.request, slog.LevelError, "admit: a handler panicked after its timeout",
			slog.Any("panic", p.Value), slog.String("stack", string(p.Stack)))
	}
	if form := run.request.MultipartForm; form != nil {
		_ = form.RemoveAll()
	}
}

// finish ends a run that was in time; r is the request before ownRequest.
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

// addTrailers copies what was set after the response began: the trailers that were announced, and
// those with http.TrailerPrefix.
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

// Wake is called when the time may be over: by the alarm, and by endAnswer.
func (run *timedRun) Wake() {
	run.mu.Lock()
	defer run.mu.Unlock()
	limit := run.limit()
	// The response may have begun, or ended, before the alarm got here.
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

// readTick is how often the time of a handler is checked that waits for its client, since that
// moves the end of the time.
const readTick = 10 * time.Millisecond

// cutAfter is how long the write of a 1xx may still take that was under way when the time was
// over.
const cutAfter = 100 * time.Millisecond

// vacate waits, in the goroutine of the server, until a late handler has left w. It reports
// whether another response can still be sent. A call that waits for the client is cut, and the
// connection with it.
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

// enter begins a call of the handler in w; with answers, the response begins. It reports false if
// the handler may not use w any more. Calls may wait for the client, so they do not hold the
// lock.
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

// commit begins the response.
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
		header = header.Clone() // the handler may still become late, and change its own
	}
	real := run.w.Header()
	for name, values := range header {
		real[name] = values
		run.trailers = run.trailers || name == "Trailer" || strings.HasPrefix(name, http.TrailerPrefix)
	}
	retain(real, header)
}

// copyOf returns a copy of h that is never nil. Single values are kept in room, while there is
// some.
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

// replace makes h equal to by.
func replace(h, by http.Header) {
	maps.Copy(h, by)
	retain(h, by)
}

// retain removes from h what by does not have. All that by has must be in h.
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

// ReadFrom lets the server send whole files, unless Total may end in the middle of one, or the
// first byte has not been written.
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

// FlushError begins the response.
func (run *timedRun) FlushError() error {
	if !run.enter(true) {
		return http.ErrHandlerTimeout
	}
	defer run.exit()
	return http.NewResponseController(run.w).Flush()
}

// Hijack ends the Timeout and gives the connection to the handler. The server may first read the
// rest of the body.
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
	if run.over { // meanwhile, so that the deadlines of the connection have passed
		_ = conn.Close()
		return nil, nil, http.ErrHandlerTimeout
	}
	run.committed, run.unbounded = true, true
	run.alarm.Unset(&run.wait)
	return conn, buffered, nil
}

// The methods that follow reach the connection, on which another request may already be under way
// when the handler is late. So there is no Unwrap, which would hand out the outer writer for good:
// every method that http.ResponseController looks for is here.

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

// runsOf calls f with each run around the request of ctx.
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

// beginAnswer notes that the handler of ctx is about to respond, which may take a moment. It
// reports false for a late handler; otherwise endAnswer must follow.
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

// endAnswer checks the time again: the response may have gone to a writer of others, which has
// not passed it on.
func endAnswer(ctx context.Context) {
	runsOf(ctx, func(run *timedRun) {
		run.mu.Lock()
		run.deciding--
		run.mu.Unlock()
		run.Wake()
	})
}

// HandlerPanic is the value of a panic that passes on from another goroutine: that of a handler
// inside a Timeout, or one in which a ResponseWriter of others panicked while a response was
// written to a client that was still sending.
type HandlerPanic struct {
	Value any
	Stack []byte
}

// withStack returns what to pass on for v, which was recovered in this goroutine. It adds the
// stack, which is lost in the next goroutine.
func withStack(v any) any {
	if v == nil || v == any(http.ErrAbortHandler) {
		return v
	}
	if _, nested := v.(*HandlerPanic); nested {
		return v
	}
	return &HandlerPanic{v, debug.Stack()}
}

// Error returns the value and the stack, which a server without Recover logs.
func (p *HandlerPanic) Error() string { return fmt.Sprintf("%v\n\n%s", p.Value, p.Stack) }

// Unwrap returns the value if it is an error.
func (p *HandlerPanic) Unwrap() error {
	err, _ := p.Value.(error)
	return err
}
