package admit

import (
	"context"
	"net/http"
	"time"
)

// Timeout answers 503 handler_timeout when the handler has not begun its answer in d of its
// own time: what it waits in Read for a body does not count where a BodyTimeout around the
// Timeout has a Max, and that bounds it. What has begun is not bounded, so that streams, downloads and upgrades pass: see
// NewHandlerTimeout for a bound of the whole. It panics if d is not positive.
func Timeout(d time.Duration) Middleware {
	t, err := NewHandlerTimeout(HandlerTimeoutConfig{FirstByte: d})
	must(renamed("HandlerTimeoutConfig.FirstByte", "Timeout", err))
	return t.Wrap
}

// HandlerTimeoutConfig configures NewHandlerTimeout.
type HandlerTimeoutConfig struct {
	// FirstByte is the time to the first byte of the answer: see Timeout. Required.
	FirstByte time.Duration
	// Total is the time to its end, waiting for the body included: what goes on for longer is
	// cut. 0: no bound.
	Total time.Duration
}

// HandlerTimeout bounds the time of handlers. It is safe for concurrent use.
type HandlerTimeout struct {
	c    HandlerTimeoutConfig
	made made
}

// NewHandlerTimeout returns a HandlerTimeout. The error has every fault of the
// configuration; the HandlerTimeout that comes with it cannot serve.
func NewHandlerTimeout(c HandlerTimeoutConfig) (*HandlerTimeout, error) {
	var f faults
	if c.FirstByte <= 0 {
		f.add("HandlerTimeoutConfig.FirstByte", "is %v; it is the time to the first byte of the answer, such as 10s", c.FirstByte)
	}
	if c.Total < 0 || c.Total > 0 && c.Total < c.FirstByte {
		f.add("HandlerTimeoutConfig.Total", "is %v; it is 0 for no bound, or at least FirstByte (%v)", c.Total, c.FirstByte)
	}
	f.time("HandlerTimeoutConfig.FirstByte", c.FirstByte)
	f.time("HandlerTimeoutConfig.Total", c.Total)
	err := f.err()
	return &HandlerTimeout{c, made{err == nil, err}}, err
}

func (t *HandlerTimeout) fault() error {
	if t == nil {
		return (*made)(nil).fault("HandlerTimeout")
	}
	return t.made.fault("HandlerTimeout")
}

// StopTimeout ends every Timeout and HandlerTimeout, its Total too, around a handler, for a
// long poll; the client then
// waits for as long as the handler does. It reports whether it came in time.
func StopTimeout(ctx context.Context) bool {
	inTime := true
	runsOf(ctx, func(run *timedRun) {
		run.mu.Lock()
		defer run.mu.Unlock()
		if run.over {
			inTime = false
			return
		}
		run.unbounded = true
		run.alarm.Unset(&run.wait)
	})
	return inTime
}

// Wrap runs next in a goroutine of its own, whose context has the time as its deadline and
// ends with context.DeadlineExceeded when it is over; a context that is derived from it, by
// context.WithCancel say, is canceled with that as its cause. The deadline goes, or becomes that of
// Total, when the answer begins: a handler that streams and wants a time of its own, by
// context.WithTimeout, derives it after its first byte or after StopTimeout.
//
// Nothing is buffered. After the time is over, what next writes is thrown away with
// http.ErrHandlerTimeout, what it reads from the body fails, and its panic is logged; a
// panic before passes on, as a *HandlerPanic with the stack.
func (t *HandlerTimeout) Wrap(next http.Handler) http.Handler {
	must(t.fault())
	return wrap("Timeout", next, func(in inside, w http.ResponseWriter, r *http.Request) {
		run := &timedRun{firstByte: t.c.FirstByte, total: t.c.Total}
		if hasBody(r) {
			u := in.bound(w, r)
			defer u.leave()
			w, r, run.body = u.w, u.inner, u.body
		}
		defer run.leave()
		run.start(in, w, r)
		run.settled.Wait()
		if run.over {
			run.overrun(r)
		} else {
			run.finish(r)
		}
	})
}

// overrun answers instead of a handler that is late, or cuts its answer.
func (run *timedRun) overrun(r *http.Request) {
	if run.body != nil { // before the handler can know that it is late
		run.body.interrupt(http.ErrHandlerTimeout)
	}
	run.End(true)
	if !run.vacate() {
		panic(http.ErrAbortHandler)
	}
	if run.sharesHeader {
		run.forErrors = headerForErrors(r.Header)
	}
	WriteError(run.w, withHeader(r, run.forErrors), errHandlerTimeout)
}

// withHeader returns a copy of r with what headerForErrors has kept of its header.
func withHeader(r *http.Request, kept [3][]string) *http.Request {
	r = r.WithContext(r.Context())
	r.Header = http.Header{}
	for i, name := range []string{"Accept", "Expect", "User-Agent"} {
		if len(kept[i]) > 0 {
			r.Header[name] = kept[i]
		}
	}
	return r
}

var errHandlerTimeout = &Error{
	Status:  http.StatusServiceUnavailable,
	Code:    "handler_timeout",
	Message: "The answer took too long. Try again later.",
}
