package testkit

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"reflect"
	"runtime/debug"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// Guard returns h with a guard under it, for a server of net/http. The test fails when a
// method of the ResponseWriter is called, or still runs, after ServeHTTP has returned; when
// a deadline is set after a hijack; and when the header has changed between then and the end
// of the test. What comes too late does not reach the server.
//
// The guard has the methods of the server's writer. Unwrap returns that writer, since
// http.MaxBytesReader needs it; the guard does not see what is done to it directly.
//
// A call through the guard does not synchronize for the race detector, so that it hides no race.
func Guard(t testing.TB, h http.Handler) http.Handler { return newGuard(t, h, false) }

// GuardAll is Guard, and also fails the test when the body of the request is read or closed after
// ServeHTTP has returned, or a Read still runs then: net/http wakes that Read, and then waits
// without any deadline for the rest of the body. Handlers can see that the body is not that of
// the server.
func GuardAll(t testing.TB, h http.Handler) http.Handler { return newGuard(t, h, true) }

func newGuard(t testing.TB, h http.Handler, bodies bool) http.Handler {
	g := &guard{t: t, next: h, bodies: bodies}
	t.Cleanup(g.checkHeaders)
	return g
}

type guard struct {
	t       testing.TB
	next    http.Handler
	bodies  bool
	running sync.WaitGroup // calls of ServeHTTP

	mu   sync.Mutex
	ends []end
}

// end is what the header was when ServeHTTP returned.
type end struct {
	what           string
	header, before http.Header
}

func (g *guard) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	g.running.Add(1)
	defer g.running.Done()
	c := &call{t: g.t, what: r.Method + " " + r.URL.Path + " over " + r.Proto}
	writer := &guardedWriter{ResponseWriter: w, call: c}
	inner := r.WithContext(r.Context())
	if g.bodies && r.Body != nil && r.Body != http.NoBody {
		inner.Body = &guardedBody{r.Body, c}
	}
	header := w.Header()
	defer func() {
		c.uses.add(returned)
		r.MultipartForm = inner.MultipartForm // the server removes its files
		g.mu.Lock()
		defer g.mu.Unlock()
		g.ends = append(g.ends, end{c.what, header, header.Clone()})
	}()
	if _, hijacks := w.(http.Hijacker); hijacks {
		g.next.ServeHTTP(&guardedHijacker{writer}, inner)
	} else {
		g.next.ServeHTTP(writer, inner)
	}
}

// checkHeaders reads the headers without synchronization, so that the race detector sees a write
// that is undone later.
func (g *guard) checkHeaders() {
	g.running.Wait()
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, e := range g.ends {
		after := e.header.Clone()
		for name := range e.before {
			// The server of HTTP/2 itself adds trailers that have the prefix, without it.
			if trailer, ok := strings.CutPrefix(name, http.TrailerPrefix); ok {
				delete(e.before, http.CanonicalHeaderKey(trailer))
				delete(after, http.CanonicalHeaderKey(trailer))
			}
		}
		if !reflect.DeepEqual(e.before, after) {
			g.t.Errorf("%s: the header has changed after ServeHTTP had returned: it was %v, and is %v", e.what, e.before, after)
		}
	}
}

// call is one call of ServeHTTP.
type call struct {
	t    testing.TB
	what string
	uses counter // methods that run, and what follows
}

// Events, as they are added to uses.
const (
	hijacked = 1 << 32
	returned = 1 << 33 // above all else
)

// begin reports whether a method may run. If so, end must be called.
func (c *call) begin(method string) bool {
	if c.uses.add(1) < returned {
		return true
	}
	c.uses.add(-1)
	c.fail(method, "is called after ServeHTTP has returned")
	return false
}

// end is deferred. The writer of HTTP/2 panics if the request ends in the middle of a method: that
// is one more failure of the test, and must not end the other tests.
func (c *call) end(method string) {
	if c.uses.add(-1) < returned {
		return
	}
	fault := "still ran when ServeHTTP returned"
	if v := recover(); v != nil {
		fault += fmt.Sprintf(", and panicked: %v", v)
	}
	c.fail(method, fault)
}

func (c *call) fail(method, fault string) {
	c.t.Errorf("%s: %s %s\n%s", c.what, method, fault, debug.Stack())
}

// counter is atomic. With the race detector, it does not synchronize.
type counter struct{ n atomic.Int64 }

// errLate is what late calls return.
var errLate = fmt.Errorf("testkit: ServeHTTP has returned: %w", http.ErrBodyReadAfterClose)

type guardedWriter struct {
	http.ResponseWriter
	*call
}

func (w *guardedWriter) Header() http.Header {
	if !w.begin("Header") {
		return http.Header{}
	}
	defer w.end("Header")
	return w.ResponseWriter.Header()
}

func (w *guardedWriter) WriteHeader(status int) {
	if w.begin("WriteHeader") {
		defer w.end("WriteHeader")
		w.ResponseWriter.WriteHeader(status)
	}
}

func (w *guardedWriter) Write(p []byte) (int, error) {
	if !w.begin("Write") {
		return 0, errLate
	}
	defer w.end("Write")
	return w.ResponseWriter.Write(p)
}

func (w *guardedWriter) WriteString(s string) (int, error) {
	if !w.begin("WriteString") {
		return 0, errLate
	}
	defer w.end("WriteString")
	return io.WriteString(w.ResponseWriter, s)
}

func (w *guardedWriter) Flush() { _ = w.FlushError() }

func (w *guardedWriter) FlushError() error {
	return w.control("Flush", (*http.ResponseController).Flush)
}

func (w *guardedWriter) EnableFullDuplex() error {
	return w.control("EnableFullDuplex", (*http.ResponseController).EnableFullDuplex)
}

func (w *guardedWriter) SetReadDeadline(at time.Time) error {
	return w.deadline("SetReadDeadline", func(c *http.ResponseController) error { return c.SetReadDeadline(at) })
}

func (w *guardedWriter) SetWriteDeadline(at time.Time) error {
	return w.deadline("SetWriteDeadline", func(c *http.ResponseController) error { return c.SetWriteDeadline(at) })
}

func (w *guardedWriter) deadline(method string, set func(*http.ResponseController) error) error {
	if w.uses.add(0)&hijacked != 0 {
		w.fail(method, "is called after the connection was hijacked")
		return http.ErrHijacked
	}
	return w.control(method, set)
}

func (w *guardedWriter) control(method string, do func(*http.ResponseController) error) error {
	if !w.begin(method) {
		return errLate
	}
	defer w.end(method)
	return do(http.NewResponseController(w.ResponseWriter))
}

// Unwrap returns the writer of the server.
func (w *guardedWriter) Unwrap() http.ResponseWriter {
	if !w.begin("Unwrap") {
		return nowhere{}
	}
	defer w.end("Unwrap")
	return w.ResponseWriter
}

// guardedHijacker is for HTTP/1, whose writer has more methods.
type guardedHijacker struct{ *guardedWriter }

func (w *guardedHijacker) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	if !w.begin("Hijack") {
		return nil, nil, errLate
	}
	defer w.end("Hijack")
	conn, buffered, err := w.ResponseWriter.(http.Hijacker).Hijack()
	if err == nil {
		w.uses.add(hijacked)
	}
	return conn, buffered, err
}

func (w *guardedHijacker) ReadFrom(src io.Reader) (int64, error) {
	if !w.begin("ReadFrom") {
		return 0, errLate
	}
	defer w.end("ReadFrom")
	return w.ResponseWriter.(io.ReaderFrom).ReadFrom(src)
}

// nowhere is the writer for calls that come too late.
type nowhere struct{}

func (nowhere) Header() http.Header       { return http.Header{} }
func (nowhere) Write([]byte) (int, error) { return 0, errLate }
func (nowhere) WriteHeader(int)           {}

type guardedBody struct {
	io.ReadCloser
	*call
}

func (b *guardedBody) Read(p []byte) (int, error) {
	if !b.begin("Body.Read") {
		return 0, errLate
	}
	defer b.end("Body.Read")
	return b.ReadCloser.Read(p)
}

func (b *guardedBody) Close() error {
	if b.uses.add(0) >= returned {
		b.fail("Body.Close", "is called after ServeHTTP has returned")
		return errLate
	}
	return b.ReadCloser.Close()
}
