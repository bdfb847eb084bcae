package admit

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/admit-go/admit/internal/published"
)

// Outcome describes how a request has ended. It is a plain value, and shares nothing with the
// request.
type Outcome struct {
	// Route is the pattern that matched, from Request.Pattern or SetRoute; "" if there is none.
	// If a mux is mounted in another, it is the pattern of the inner one.
	Route string
	// Status is the status of the response that was sent. It is 101 for a hijacked connection.
	// It is 499 if the client had left before the response began, or had closed its half of the
	// connection, which looks the same. It is 500 if the connection was cut before the response
	// began. A response that is cut later keeps its status, and Err has the reason.
	Status int
	// Code is the code of the error that ended the request, or "" if there was none. The error
	// was sent, or it came too late for that and the connection was cut.
	Code string
	// KeyID, Owner and Plan are from the key of the request, even if the key was rejected. They
	// are "" if no key was found.
	KeyID, Owner, Plan string
	// KeyStatus says why the key was rejected with 401: KeyEarly, KeyExpired or KeyRevoked.
	// Otherwise it is KeyValid.
	KeyStatus KeyStatus
	// Start is when the request came. Duration is the time until its handlers had returned, and
	// Waited is the part of it in which the request waited for a place in an InFlight or a
	// Shedder.
	Start            time.Time
	Duration, Waited time.Duration
	// Written is how many bytes of the response body were handed to the server.
	Written int64
	// Err is the error that ended the request, with its cause; nil if there was none.
	Err error
}

// Labels are the values by which metrics count requests. A client cannot invent values, and each
// label has few, so that every combination can be a series. Route, Code and Plan have as many as
// the service defines.
type Labels struct {
	Route  string // the path of the pattern, without method and host
	Method string // a method of RFC 9110 or RFC 5789, or QUERY; otherwise _OTHER
	Scheme string // http or https, by the connection to this server
	Status int
	Code   string
	Plan   string
}

// Labels returns the labels of the Outcome of r. If the service has cut the response without an
// Error, Code is _OTHER.
func (o Outcome) Labels(r *http.Request) Labels {
	l := Labels{Route: pathOf(o.Route), Method: knownMethod(r.Method), Scheme: "http", Status: o.Status, Code: o.Code, Plan: o.Plan}
	if r.TLS != nil {
		l.Scheme = "https"
	}
	if o.Code == "" && o.Err != nil && o.Status < 400 && r.Context().Err() == nil {
		l.Code = other
	}
	return l
}

// pathOf returns the http.route of OpenTelemetry for a pattern, which has neither method nor
// host.
func pathOf(pattern string) string {
	if i := strings.IndexByte(pattern, '/'); i > 0 {
		return pattern[i:]
	}
	return pattern
}

// Observe returns a middleware that calls f once for each request when it has ended, whatever
// ended it: a response, a panic, a connection that was cut or hijacked, or a client that left.
// The request is the one that next got, for its context; f must not keep it. f must be safe for
// concurrent use, and its time is part of the time of the request.
//
// Put Observe outside of a Timeout; inside, f would be told what a late handler has tried to
// send. A late handler inside http.TimeoutHandler may still write to the header of the request,
// so f must not read it there. A handler inside a Timeout of this package has a header of its
// own.
//
// If several Observe are around a request, only the outermost calls its function. An inner one
// does not, and logs that once. AccessLog and the middlewares of [ObserveAs] report in addition.
func Observe(f func(*http.Request, Outcome)) Middleware {
	if f == nil {
		panic("admit: Observe: the function is nil")
	}
	return observeAs("Observe", f)
}

// ObserveAs is [Observe] for a package that reports in addition to others. The name identifies
// the package: of the middlewares with one name, the outermost reports. A process may have 60
// names. ObserveAs panics if f is nil, and on the names "", "Observe" and "AccessLog".
func ObserveAs(name string, f func(*http.Request, Outcome)) Middleware {
	switch {
	case f == nil:
		panic("admit: ObserveAs: the function is nil")
	case name == "" || name == "Observe" || name == "AccessLog":
		panic("admit: ObserveAs: the name " + strconv.Quote(name) + " does not identify a package; use the name of yours")
	}
	return observeAs(name, f)
}

func observeAs(name string, f func(*http.Request, Outcome)) Middleware {
	kind := observers.kind(name)
	return func(next http.Handler) http.Handler {
		return observed(name, kind, next, func(e ending) { f(e.r, e.outcome()) })
	}
}

// SetRoute records the pattern that a request has matched. It is for routers that do not set
// Request.Pattern, or set it where outer middlewares cannot see it. Pass the pattern, never the
// path. The last call wins, so that the innermost router decides.
//
// Some routers, such as chi, know the whole pattern only when their handler has returned. Call
// SetRoute in a defer there, since the handler may panic.
//
// Where the router sets Request.Pattern in a copy of the request, as it does inside a Timeout
// that is over, the pattern is seen without SetRoute only if the handler is a HandlerFunc or a
// middleware of this package.
func SetRoute(r *http.Request, pattern string) { setRoute(r, &pattern) }

// setRoute keeps the pointer, so that it does not allocate for each request.
func setRoute(r *http.Request, pattern *string) {
	eachObserved(r.Context(), func(o *outcome) { o.route.Store(pattern) })
}

// kinds are the names of observers. For each name, one observer reports a request.
type kinds struct {
	mu     sync.Mutex
	byName map[string]uint64
}

var observers kinds

// kind returns the bit of a name.
func (k *kinds) kind(name string) uint64 {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.byName == nil {
		k.byName = make(map[string]uint64)
	}
	if k.byName[name] == 0 {
		if len(k.byName) == 64 {
			panic("admit: ObserveAs: there are 64 names already; use one for each package, not for each request")
		}
		k.byName[name] = 1 << len(k.byName)
	}
	return k.byName[name]
}

// observedAs reports whether an observer of that kind is around the request.
func observedAs(ctx context.Context, kind uint64) bool {
	for s := find(ctx, slotOutcome); s != nil; s = s.outer {
		if s.outcome.kinds&kind != 0 {
			return true
		}
	}
	return false
}

// ending is a request that has ended.
type ending struct {
	s        *state
	w        *responseWriter
	r        *http.Request // as next got it
	start    time.Time
	returned bool // next has

	// What the request came with. A handler may change the request, even after next has returned
	// if it is late inside http.TimeoutHandler.
	method, path, agent, pattern string
}

// observed returns a handler that calls next, and then f once for each request, unless an
// observer of the same kind is around it. Kind 0 has no bit.
func observed(name string, kind uint64, next http.Handler, f func(ending)) http.Handler {
	var told atomic.Bool
	return wrap(name, next, func(in inside, w http.ResponseWriter, r *http.Request) {
		if observedAs(r.Context(), kind) {
			if told.CompareAndSwap(false, true) {
				errorWriterOf(r.Context()).log(r, slog.LevelWarn, "admit: "+name+" is inside another one, which reports instead of it")
			}
			in.ServeHTTP(w, r)
			return
		}
		e := ending{start: time.Now(), method: r.Method, agent: r.UserAgent(), pattern: r.Pattern}
		if r.URL != nil { // always from a server
			e.path = r.URL.Path
		}
		e.s, w, e.r = in.fill(w, r, 0)
		defer e.s.leave(r, e.r)
		e.s.filled |= slotOutcome // the observers of one chain share it
		e.s.outcome.kinds |= kind
		w = track(w)
		e.w = tracker(w)
		e.w.client = e.r.Context()
		defer func() { f(e) }()
		in.ServeHTTP(w, e.r)
		e.returned = true
	})
}

var errCut = errors.New("admit: the connection was cut, or a handler has panicked")

// outcome returns how the request has ended.
func (e ending) outcome() Outcome {
	o := Outcome{
		Route: e.route(), Status: e.w.ended(e.returned), Start: e.start, Duration: time.Since(e.start),
		Waited: time.Duration(e.s.outcome.waited.Load()), Written: e.w.sent,
	}
	if e.method == http.MethodHead {
		o.Written = 0
	}
	if f := e.failure(); f != nil {
		o.Err = f.err
		if f.e != nil {
			o.Code = f.e.Code
		}
	}
	switch {
	case o.Err != nil:
	case !e.returned:
		o.Err = errCut
	case o.Status == statusClientGone:
		o.Err = context.Cause(e.r.Context())
	}
	if key := e.key(); key != nil {
		o.KeyID, o.Owner, o.Plan = key.ID, key.Owner, key.Plan
		if o.Status == http.StatusUnauthorized {
			o.KeyStatus = key.Status(time.Now())
		}
	}
	return o
}

// key returns the key that was found last inside, or else the key of an Auth or WithKey around.
func (e ending) key() *Key {
	if key := e.s.seen.Load(); key != nil {
		return key
	}
	if id := identityOf(e.r.Context()); id != nil {
		return id.key
	}
	return nil
}

func (e ending) route() string {
	if route := e.s.outcome.route.Load(); route != nil {
		return *route
	}
	if e.r.Pattern == e.pattern { // no mux inside has been seen
		if matched := e.s.outcome.matched.Load(); matched != nil {
			return *matched
		}
	}
	return e.r.Pattern
}

// failure returns the error that was noted, unless the response is not that of the error: a
// handler of others may have received it and sent something else. That handler may also have
// ended a context of its own, so that its client seemed to be gone.
func (e ending) failure() *failure {
	f := e.s.outcome.failure.Load()
	switch {
	case f == nil || f.sent && f.e.Status != e.w.status:
		return nil
	case f.e == nil && e.returned && e.r.Context().Err() == nil:
		return nil
	}
	return f
}

// outcomes returns a handler that calls next, and then f if a response has begun.
func outcomes(next http.Handler, f func(*http.Request, published.Outcome)) http.Handler {
	return observed("Outcomes", 0, next, func(e ending) {
		out := published.Outcome{Route: e.route(), Status: e.w.status}
		switch {
		case e.w.hijacked || out.Status == 0 && !e.returned:
			return
		case out.Status == 0:
			out.Status = http.StatusOK // the server sends it
		}
		if f := e.failure(); f != nil && f.sent {
			out.Code = f.e.Code
		}
		f(e.r, out)
	})
}
