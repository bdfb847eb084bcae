package admittest

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/admit-go/admit"
	"github.com/admit-go/admit/internal/published"
)

// exchange is a request of Provoke, made in this process without a server, and its response.
type exchange struct {
	*http.Request
	to published.Route
	as caller

	standIn     http.Handler // replaces the handler of to; nil: does not replace it
	times       int          // how often it is sent at most until it gets the right response; 0: once
	crowd       crowd        // other requests at the same time; zero: none
	late        bool         // the deadline of its context is in the past
	maintenance any          // that is on meanwhile; nil: none
	stalled     net.Conn     // its body, of which nothing arrives; nil: an ordinary body

	status int // of the response; 0: none
	code   string
}

// crowd is how many requests come at once, and how many of them certainly get a response while
// the others wait.
type crowd struct {
	size, answered int
	oneAddress     bool
}

type exchangeKey struct{}

func exchangeOf(ctx context.Context) *exchange {
	q, _ := ctx.Value(exchangeKey{}).(*exchange)
	return q
}

// standIn returns what serves a request instead of the handler, or nil.
func standIn(r *http.Request) http.Handler {
	if q := exchangeOf(r.Context()); q != nil {
		return q.standIn
	}
	return nil
}

// target is where to send a request.
type target struct {
	route published.Route
	path  string // "": that of the route
}

// exchange returns a request that is admitted, to a handler that does nothing.
func (p *provoker) exchange(to target) *exchange {
	route := to.route
	r, err := http.NewRequest(methodOf(route), cmp.Or(to.path, p.pathOf(route)), nil)
	if err != nil {
		panic(fmt.Sprintf("admittest: Credentials.Values: %v", err))
	}
	r.Host = cmp.Or(route.Host, "example.com")
	r.RemoteAddr = p.address()
	if offers := route.Chain.Offers; len(offers) > 0 {
		r.Header.Set("Accept", offers[0])
	}
	if types := route.Chain.Types; len(types) > 0 {
		r.Header.Set("Content-Type", typeOf(types[0]))
	}
	return &exchange{Request: r, to: route, as: anyone, standIn: nothing}
}

// address returns an address in another network for documentation (RFC 3849) each time, so that
// two requests never share a limit by address.
func (p *provoker) address() string {
	n := p.addresses.Add(1)
	a := netip.MustParseAddr("2001:db8::1").As16()
	for i := range 4 {
		a[7-i] = byte(n >> (8 * i))
	}
	return netip.AddrPortFrom(netip.AddrFrom16(a), 1024).String()
}

// methodOf returns a method that the route takes, one of those given if possible.
func methodOf(route published.Route, rather ...string) string {
	rather = append(rather, http.MethodGet)
	if len(route.Methods) == 0 {
		return rather[0]
	}
	for _, m := range rather {
		if slices.Contains(route.Methods, m) {
			return m
		}
	}
	return route.Methods[0]
}

// typeOf returns a media type that a pattern matches.
func typeOf(pattern string) string {
	name, _, _ := strings.Cut(pattern, ";")
	kind, sub, _ := strings.Cut(strings.TrimSpace(name), "/")
	if kind == "*" {
		kind = "application"
	}
	return kind + "/" + strings.Replace(sub, "*", "x-admittest", 1)
}

// pathOf returns a path that the pattern of a route matches.
func (p *provoker) pathOf(route published.Route) string {
	if route.Pattern == "" {
		return "/admittest-" + p.run // that no route has
	}
	segments := strings.Split(strings.TrimSuffix(route.Path, "{$}"), "/")
	for i, s := range segments {
		name, wild := strings.CutPrefix(s, "{")
		if !wild {
			continue
		}
		name, rest := strings.CutSuffix(strings.TrimSuffix(name, "}"), "...")
		value, given := p.with.Values[name]
		switch {
		case !given:
			value = "admittest"
		case rest: // escape each of its segments
			value = strings.ReplaceAll(url.PathEscape(value), "%2F", "/")
		default:
			value = url.PathEscape(value)
		}
		segments[i] = value
	}
	return strings.Join(segments, "/")
}

// send sends the request to the service, and returns when the service has answered. The client
// leaves as soon as the response begins, so that streams end.
func (p *provoker) send(q *exchange, begun func()) {
	ctx, leave := context.WithCancel(context.WithValue(p.t.Context(), exchangeKey{}, q))
	defer leave()
	patience := time.AfterFunc(2*p.with.Patience, leave) // if a handler never answers
	defer patience.Stop()
	if q.late {
		late, cancel := context.WithDeadline(ctx, time.Now().Add(-time.Second))
		defer cancel()
		ctx = late
	}
	if q.stalled != nil {
		defer q.stalled.Close()
		defer context.AfterFunc(ctx, func() { _ = q.stalled.Close() })()
	}
	if m := q.maintenance; m != nil {
		before := published.SwitchMaintenance(m, new(time.Time))
		defer func() { published.SwitchMaintenance(m, before) }()
	}
	defer func() {
		v := recover()
		if p, ok := v.(*admit.HandlerPanic); ok {
			v = p.Value
		}
		if v != nil && v != http.ErrAbortHandler && v != errPanic {
			panic(v)
		}
	}()
	r := q.WithContext(ctx)
	r.RequestURI = cmp.Or(r.RequestURI, r.URL.RequestURI())
	p.ServeHTTP(&recorder{header: make(http.Header), stalled: q.stalled, begun: func() { begun(); leave() }}, r)
}

// recorder is the ResponseWriter of an exchange. It drops what is written.
type recorder struct {
	header  http.Header
	stalled net.Conn
	begun   func() // is called once; the response waits for it
	once    sync.Once
}

func (w *recorder) Header() http.Header { return w.header }

func (w *recorder) WriteHeader(status int) {
	if status >= 200 {
		w.once.Do(w.begun)
	}
}

func (w *recorder) Write(b []byte) (int, error) {
	w.once.Do(w.begun)
	return len(b), nil
}

func (w *recorder) Flush() { w.once.Do(w.begun) }

// SetReadDeadline wakes a Read of a body that stalls.
func (w *recorder) SetReadDeadline(t time.Time) error {
	if w.stalled == nil {
		return nil
	}
	return w.stalled.SetReadDeadline(t)
}

// SetWriteDeadline does nothing: no Write waits.
func (w *recorder) SetWriteDeadline(time.Time) error { return nil }

// with sets the body of the request, and its Content-Length, which need not be true.
func (q *exchange) with(body io.Reader, length int64) {
	q.Body, q.ContentLength = io.NopCloser(body), length
}

// stall gives the request a body of which nothing arrives.
func (q *exchange) stall() {
	_, q.stalled = net.Pipe()
	q.with(q.stalled, 1)
}

// errPanic is what Provoke panics with, so that a Recover answers with 500.
var errPanic = errors.New("admittest: a panic, to see how it is answered")

// These replace handlers.
var (
	nothing = http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) })
	panics  = http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic(errPanic) })
	waits   = http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	tooLate = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { admit.WriteError(w, r, context.DeadlineExceeded) })
	reads   = admit.HandlerFunc(func(w http.ResponseWriter, r *http.Request) error {
		_, err := io.Copy(io.Discard, r.Body)
		return err
	})
)

// broken is a body that fails.
type broken struct{ err error }

func (b broken) Read([]byte) (int, error) { return 0, b.err }

// panicky is a body whose first Read panics.
type panicky struct{ done bool }

func (b *panicky) Read([]byte) (int, error) {
	if b.done {
		return 0, io.EOF
	}
	b.done = true
	panic(errPanic)
}
