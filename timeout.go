package admit

import (
	"context"
	"net/http"
	"time"
)

// Timeout returns a middleware that responds with 503 and the code handler_timeout if the handler
// has not begun its response within d. If a BodyTimeout around the Timeout has a Max, the time
// that the handler waits in Read for the body does not count, since Max bounds it. A response
// that has begun is not bounded, so that streams, downloads and upgrades work; see
// [NewHandlerTimeout] for a bound on the whole response. It panics if d is less than 1 ms.
//
// A late handler goes on in its goroutine after the response. Routers that reuse the values of a
// request for the next one, as chi, echo and gin do, would hand it those of another request:
// put Timeout around such a router, not inside it.
func Timeout(d time.Duration) Middleware {
	t, err := NewHandlerTimeout(HandlerTimeoutConfig{FirstByte: d})
	must(renamed("HandlerTimeoutConfig.FirstByte", "Timeout", err))
	return t.Wrap
}

// HandlerTimeoutConfig configures NewHandlerTimeout.
type HandlerTimeoutConfig struct {
	// FirstByte is how long a handler may take to begin its response: see Timeout. A late one
	// gets 503 with the code handler_timeout. Required. Permitted: 1 ms or more.
	FirstByte time.Duration
	// Total is how long a handler may take to end its response, including the time that it waits
	// for the body. A longer one is cut: over HTTP/1 the connection is closed, and over HTTP/2
	// the stream is reset. Zero means no bound. Permitted: 0, or FirstByte or more.
	Total time.Duration
}

// HandlerTimeout is a middleware that bounds the time of handlers: [Timeout] with a
// configuration. It is safe for concurrent use.
type HandlerTimeout struct {
	c    HandlerTimeoutConfig
	made made
}

// NewHandlerTimeout returns a HandlerTimeout. The error has every problem of the configuration;
// the HandlerTimeout returned with it cannot serve.
func NewHandlerTimeout(c HandlerTimeoutConfig) (*HandlerTimeout, error) {
	var f faults
	if c.FirstByte <= 0 {
		f.add("HandlerTimeoutConfig.FirstByte", "is %v; it is the time to the first byte of the response, such as 10s", c.FirstByte)
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

// StopTimeout ends every Timeout and HandlerTimeout around a handler, including Total. It is for
// long polls. The client then waits as long as the handler does. StopTimeout reports false if the
// time of one was over before.
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

// Wrap returns a handler that runs next in a goroutine of its own. The context that next gets has
// the end of the time as its deadline, and ends with context.DeadlineExceeded. A context derived
// from it, such as by context.WithCancel, is canceled with that as its cause. When the response
// begins, the deadline is removed, or becomes the end of Total. A handler that streams and wants
// a timeout of its own should therefore call context.WithTimeout after its first byte or after
// StopTimeout.
//
// Nothing is buffered. After the time is over, writes by next are discarded and return
// http.ErrHandlerTimeout, reads of the body fail, and a panic is logged. A panic before that
// passes on, as a *[HandlerPanic] with the stack.
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

// overrun responds in the place of a late handler, or cuts its response.
func (run *timedRun) overrun(r *http.Request) {
	if run.body != nil { // before the handler can notice that it is late
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

// withHeader returns a copy of r with only the fields of its header that headerForErrors has
// kept.
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
	Message: "The response took too long. Try again later.",
}
