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

// Outcome is how a request has ended: values, nothing of which is shared.
type Outcome struct {
	// Route is the pattern that has matched, as Request.Pattern or SetRoute has it; "" for
	// none. Where a mux is mounted in another, it is that of the inner one.
	Route string
	// Status is that of the answer as it was sent. It is 101 for a connection that was
	// hijacked, 499 where the client was gone before the answer began, or had closed its half of
	// the connection, which looks the same, and 500 where the connection was cut before that.
	// An answer that is cut later keeps its status, and Err says so.
	Status int
	// Code is that of the error that ended the request, or "": of an Error that was sent, or
	// one that came too late to be, so that the connection was cut.
	Code string
	// KeyID, Owner and Plan are those of the key, also of one that was refused; "" where no
	// key was found.
	KeyID, Owner, Plan string
	// KeyStatus is why a key was refused with 401: KeyEarly, KeyExpired or KeyRevoked.
	KeyStatus KeyStatus
	// Start is when the request came, and Duration how long it took until its handlers had
	// returned. Of that it has Waited for a place in an InFlight or a Shedder.
	Start            time.Time
	Duration, Waited time.Duration
	// Written is how many bytes of the answer's body were handed to the server.
	Written int64
	// Err is the error that ended the request, with its cause; nil for none.
	Err error
}

// Labels are what requests are counted by. None is made up by a client, and each has few
// values, so that they may tell series of metrics apart; but Route, Code and Plan are as the
// service has them.
type Labels struct {
	Route  string // the path of the pattern: the method is beside it
	Method string // one of RFC 9110 or RFC 5789, or QUERY, else _OTHER
	Scheme string // http or https, as this server has the connection
	Status int
	Code   string
	Plan   string
}

// Labels returns what the Outcome of r is counted by. An answer that the service has cut, without
// an Error, has the Code _OTHER.
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

// pathOf is what OpenTelemetry's HTTP conventions have of a pattern: neither method nor host.
func pathOf(pattern string) string {
	if i := strings.IndexByte(pattern, '/'); i > 0 {
		return pattern[i:]
	}
	return pattern
}

const other = "_OTHER" // as OpenTelemetry has it

func knownMethod(method string) string {
	switch method {
	case "GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH", "QUERY":
		return method
	}
	return other
}

// Observe calls f once for each request, when it has ended, whatever ends it: an answer, a
// panic, a connection that is cut or hijacked, a client that has left. The request is the one
// that next got, for its context; f must not keep it. F may be called by any number of
// goroutines, and what it does adds to the time of the request. It stands outside of a Timeout:
// inside, it would hear what a handler that is late has tried to answer. A handler that is late
// inside http.TimeoutHandler may still write to the header of the request, so that f must not
// read that; inside a Timeout of this package it has one of its own.
//
// Within a request the outermost Observe reports. One inside of it is not called, and the log
// says so once. AccessLog, and what is made by ObserveAs, report beside it.
func Observe(f func(*http.Request, Outcome)) Middleware {
	if f == nil {
		panic("admit: Observe: the function is nil")
	}
	return observeAs("Observe", f)
}

// ObserveAs is Observe for a package that reports beside others, under a name that tells it
// apart, such as that of the package: of the same name the outermost reports. There may be 60
// names in a process.
func ObserveAs(name string, f func(*http.Request, Outcome)) Middleware {
	switch {
	case f == nil:
		panic("admit: ObserveAs: the function is nil")
	case name == "" || name == "Observe" || name == "AccessLog":
		panic("admit: ObserveAs: the name " + strconv.Quote(name) + " tells nobody apart; give it that of the package")
	}
	return observeAs(name, f)
}

func observeAs(name string, f func(*http.Request, Outcome)) Middleware {
	kind := observers.kind(name)
	return func(next http.Handler) http.Handler {
		return observed(name, kind, next, func(e ending) { f(e.r, e.outcome()) })
	}
}

// SetRoute says which pattern a request has matched, for routers that do not set
// Request.Pattern where those around can see it: in a copy of the request, as one has that went
// through a Timeout which was over, the pattern is seen only where a HandlerFunc or a wrapper of
// this package is the handler. The one that is said last wins, so that the innermost router
// does. Give it the pattern, never the path. Some routers, such as chi, know the whole pattern
// only when their handler has returned: call it in a defer there, since the handler may panic.
func SetRoute(r *http.Request, pattern string) { setRoute(r, &pattern) }

// setRoute keeps the pointer, so that a request allocates nothing for it.
func setRoute(r *http.Request, pattern *string) {
	eachObserved(r.Context(), func(o *outcome) { o.route.Store(pattern) })
}

// kinds are those of observers, each of which reports a request once.
type kinds struct {
	mu     sync.Mutex
	byName map[string]uint64
}

var observers kinds

// kind returns a bit of its own for each name.
func (k *kinds) kind(name string) uint64 {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.byName == nil {
		k.byName = make(map[string]uint64)
	}
	if k.byName[name] == 0 {
		if len(k.byName) == 64 {
			panic("admit: ObserveAs: there are 64 names already; a name is that of a package, not of a request")
		}
		k.byName[name] = 1 << len(k.byName)
	}
	return k.byName[name]
}

// observedAs reports whether an observer of that kind is around.
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

	// What the request came with. A handler may change it, also when next has returned: one
	// inside http.TimeoutHandler that is late.
	method, path, agent, pattern string
}

// observed returns a handler that calls next, and then f once for each request that none of
// the same kind is around; kind 0 is none.
func observed(name string, kind uint64, next http.Handler, f func(ending)) http.Handler {
	var told atomic.Bool
	return wrap(name, next, func(in inside, w http.ResponseWriter, r *http.Request) {
		if observedAs(r.Context(), kind) {
			if told.CompareAndSwap(false, true) {
				errorWriterOf(r.Context()).log(r, slog.LevelWarn, "admit: "+name+" is inside another, which reports; this one is not called")
			}
			in.ServeHTTP(w, r)
			return
		}
		e := ending{start: time.Now(), method: r.Method, agent: r.UserAgent(), pattern: r.Pattern}
		if r.URL != nil { // as it is from a server
			e.path = r.URL.Path
		}
		e.s, w, e.r = in.fill(w, r, 0)
		defer e.s.leave(r, e.r)
		e.s.filled |= slotOutcome // those of one chain share it
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

// outcome returns how the request has ended, by now.
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

// key returns the key that was found last inside, else the one of an Auth or WithKey around.
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

// failure returns what was left of an error, unless the answer is not that of the error: a
// handler of others has got it, and has answered something else. It may also have ended a
// context of its own, for which the client was gone.
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

// outcomes calls next, and then f if an answer has begun.
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
