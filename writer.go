package admit

import (
	"bufio"
	"context"
	"io"
	"math"
	"net"
	"net/http"
	"os"
	"slices"

	"github.com/admit-go/admit/internal/mediatype"
)

// responseWriter is the response writer wrapper of this package. It knows whether a response has
// begun, and can replace an error that a handler of others writes by the envelope. It is used by
// one goroutine at a time, like the http.ResponseWriter inside it.
type responseWriter struct {
	http.ResponseWriter
	status   int  // of the response that has begun; 0: none has
	hijacked bool // whether the connection was hijacked
	replaced bool // whether what the handler writes is discarded
	gone     bool // whether the client had left when the response began

	// encoding is the Content-Encoding before the handler, which a compressor outside has set.
	encoding []string

	sent         int64           // bytes of the body, for observers
	client       context.Context // ends when the client leaves; nil: this is not needed
	state        *state          // whose writer this is; nil: none
	written      int             // bytes, as long as the server may hold all of them back
	held         int             // bytes that the server may hold back, and the header with them
	interception interception    // of Intercept; nil: nothing is replaced
}

// interception replaces what a handler writes by an error.
type interception interface {
	takes(w *responseWriter, status int) bool // whether to replace the response that begins with status
	write(w *responseWriter)                  // writes the error
	log(status int, text string)              // logs what is discarded
}

// maxReplacedText is how many bytes of a discarded text are logged.
const maxReplacedText = 512

// track returns a writer that knows whether the response has begun: w if it is one, or else a new
// one around it. A tracking writer further outside is not enough, since a writer between the two
// may hold back what the handler has written.
func track(w http.ResponseWriter) http.ResponseWriter {
	if _, ok := w.(interface{ tracked() *responseWriter }); ok {
		return w
	}
	return (&responseWriter{ResponseWriter: w}).expose()
}

// tracker finds the responseWriter in w, through response writer wrappers of others.
func tracker(w http.ResponseWriter) *responseWriter {
	for {
		switch t := w.(type) {
		case interface{ tracked() *responseWriter }:
			return t.tracked()
		case interface{ Unwrap() http.ResponseWriter }:
			w = t.Unwrap()
		default:
			return nil
		}
	}
}

func (w *responseWriter) tracked() *responseWriter { return w }

// stopInterceptions lets the response that w begins pass unchanged.
func stopInterceptions(w http.ResponseWriter) {
	for t := tracker(w); t != nil; t = tracker(t.ResponseWriter) {
		t.interception = nil
	}
}

// expose adds the optional methods that the inner writer has, and no others, since handlers look
// for them with type assertions. Each of these types is one pointer, which an interface holds
// without an allocation. Hijack is offered if http.ResponseController would find it further
// inside, past this response writer.
func (w *responseWriter) expose() http.ResponseWriter { return w.exposeAs(w.ResponseWriter) }

func (w *responseWriter) exposeAs(like http.ResponseWriter) http.ResponseWriter {
	w.encoding = w.Header()["Content-Encoding"]
	_, flushes := like.(http.Flusher)
	hijacks := canHijack(like)
	switch {
	case flushes && hijacks:
		return flushHijackWriter{w}
	case flushes:
		return flushWriter{w}
	case hijacks:
		return hijackWriter{w}
	default:
		return w
	}
}

// restoreEncoding undoes the Content-Encoding of a handler whose response is replaced.
func (w *responseWriter) restoreEncoding() {
	if h := w.Header(); len(w.encoding) > 0 {
		h["Content-Encoding"] = w.encoding
	} else {
		delete(h, "Content-Encoding")
	}
}

func canHijack(w http.ResponseWriter) bool {
	for {
		switch t := w.(type) {
		case http.Hijacker:
			return true
		case interface{ Unwrap() http.ResponseWriter }:
			w = t.Unwrap()
		default:
			return false
		}
	}
}

type (
	flushWriter       struct{ *responseWriter }
	hijackWriter      struct{ *responseWriter }
	flushHijackWriter struct{ *responseWriter }
)

func (w flushWriter) Flush()       { _ = w.FlushError() }
func (w flushHijackWriter) Flush() { _ = w.FlushError() }

func (w hijackWriter) Hijack() (net.Conn, *bufio.ReadWriter, error)      { return w.hijack() }
func (w flushHijackWriter) Hijack() (net.Conn, *bufio.ReadWriter, error) { return w.hijack() }

// EnableFullDuplex makes the server write without reading the rest of the body first.
func (w *responseWriter) EnableFullDuplex() error {
	err := http.NewResponseController(w.ResponseWriter).EnableFullDuplex()
	if err == nil {
		w.held = headerHeld
		if w.state != nil && w.state.body != nil {
			w.state.body.enableDuplex()
		}
	}
	return err
}

// Unwrap is for http.ResponseController, which needs it for deadlines.
func (w *responseWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

func (w *responseWriter) WriteHeader(status int) {
	if w.replaced {
		return
	}
	if w.status == 0 && w.interception != nil && w.interception.takes(w, status) {
		w.status, w.replaced, w.gone = status, true, w.clientGone()
		w.interception.write(w)
		return
	}
	w.begin(status)
	w.ResponseWriter.WriteHeader(status)
}

// begin notes that the response begins. A 1xx other than 101 does not begin it.
func (w *responseWriter) begin(status int) {
	if w.status != 0 || status != http.StatusSwitchingProtocols && (status < 200 || status > 999) {
		return
	}
	w.status, w.gone = status, w.clientGone()
	if w.state != nil {
		w.state.begins(status)
	}
}

func (w *responseWriter) clientGone() bool {
	return w.client != nil && w.client.Err() == context.Canceled && !wokeBody(w.client)
}

// statusClientGone is nginx's status for a client that has left. It is never sent.
const statusClientGone = 499

// ended returns the status of the request, for a middleware that has set w.client. It is 500 if the
// handler has panicked before a response began.
func (w *responseWriter) ended(returned bool) int {
	switch {
	case w.hijacked:
		return http.StatusSwitchingProtocols
	case w.gone || w.status == 0 && w.clientGone():
		return statusClientGone
	case w.status != 0:
		return w.status
	case returned:
		return http.StatusOK
	default:
		return http.StatusInternalServerError
	}
}

func (w *responseWriter) Write(p []byte) (int, error) {
	if w.replaced {
		w.interception.log(w.status, string(p[:min(len(p), maxReplacedText)]))
		return len(p), nil
	}
	w.begin(http.StatusOK)
	if place := w.lends(len(p)); place != nil {
		place.await()
		defer place.came()
	}
	b := w.undrained()
	if b == nil { // a case of its own, so that it needs little stack in a new goroutine
		n, err := w.ResponseWriter.Write(p)
		w.sent += int64(n)
		return n, err
	}
	return w.pass(b, len(p), func(from, to int) (int, error) { return w.ResponseWriter.Write(p[from:to]) })
}

func (w *responseWriter) WriteString(s string) (int, error) {
	if w.replaced {
		w.interception.log(w.status, s[:min(len(s), maxReplacedText)])
		return len(s), nil
	}
	w.begin(http.StatusOK)
	if place := w.lends(len(s)); place != nil {
		place.await()
		defer place.came()
	}
	b := w.undrained()
	if b == nil {
		n, err := io.WriteString(w.ResponseWriter, s)
		w.sent += int64(n)
		return n, err
	}
	return w.pass(b, len(s), func(from, to int) (int, error) { return io.WriteString(w.ResponseWriter, s[from:to]) })
}

// lends returns the place to lend while n more bytes wait for the client. It returns nil if there
// is none, or if the server holds the bytes back.
func (w *responseWriter) lends(n int) *place {
	if w.state == nil || w.state.filled&slotWork == 0 {
		return nil
	}
	if w.written = min(w.written+n, headerHeld); w.written < headerHeld {
		return nil
	}
	return &w.state.work
}

// headerHeld is the number of body bytes with which net/http sends the header, at the latest.
// Over HTTP/1, it first reads the rest of the request body.
const headerHeld = 2048 + 1

// undrained returns the body that the server may read to its end in the next call, for longer
// than a BodyTimeout allows, or nil if there is none.
func (w *responseWriter) undrained() *body {
	if w.state == nil || w.held >= headerHeld || w.state.body == nil || !w.state.body.drains() {
		return nil
	}
	return w.state.body
}

// pass writes n bytes. It first writes those with which the header is sent, which may wait for
// the client's body b, so that no other wait is taken for that one.
func (w *responseWriter) pass(b *body, n int, write func(from, to int) (int, error)) (int, error) {
	first := min(n, headerHeld-w.held)
	w.held += first
	written, err := b.drain(w.held == headerHeld, func() (int, error) { return write(0, first) })
	if err == nil && first < n {
		var rest int
		rest, err = write(first, n)
		written += rest
	}
	w.sent += int64(written)
	return written, err
}

// ReadFrom lets the server send files without copying them. The first read of src begins the
// response. If src fails before it returns any data, the response has not begun, and the error
// can still be written.
func (w *responseWriter) ReadFrom(src io.Reader) (int64, error) {
	switch {
	case w.replaced:
		return io.Copy(io.Discard, src)
	case w.status != 0:
		return w.copyRest(src)
	}
	buf := buffers.Get().(*[]byte)
	defer putBuffer(buf)
	n, err := readSome(src, (*buf)[:cap(*buf)])
	var written int64
	if n > 0 {
		first, failed := w.Write((*buf)[:n])
		if written = int64(first); failed != nil {
			return written, failed
		}
	}
	if err == io.EOF {
		return written, nil
	}
	if err != nil {
		return written, err
	}
	rest, err := w.copyRest(src)
	return written + rest, err
}

// copyRest lets the server copy src. The server sends the header with the first data.
func (w *responseWriter) copyRest(src io.Reader) (int64, error) {
	if w.undrained() != nil {
		if err := w.FlushError(); err != nil {
			return 0, err
		}
	}
	if place := w.lends(headerHeld); place != nil {
		if file, _ := fileIn(src); file == nil {
			return io.Copy(struct{ io.Writer }{w}, src) // src may be slow by itself
		}
		place.await()
		defer place.came()
	}
	n, err := io.Copy(w.ResponseWriter, src)
	w.sent += n
	return n, err
}

// readSome reads until it gets data or an error.
func readSome(src io.Reader, p []byte) (n int, err error) {
	for n == 0 && err == nil {
		n, err = src.Read(p)
	}
	return n, err
}

// fileIn returns the regular file that src is, and how much of it src has at most.
func fileIn(src io.Reader) (*os.File, int64) {
	left := int64(math.MaxInt64)
	if l, ok := src.(*io.LimitedReader); ok {
		src, left = l.R, l.N
	}
	f, ok := src.(*os.File)
	if !ok {
		return nil, 0
	}
	if info, err := f.Stat(); err != nil || !info.Mode().IsRegular() {
		return nil, 0
	}
	return f, left
}

// FlushError is what http.ResponseController calls.
func (w *responseWriter) FlushError() error {
	if w.replaced {
		return nil
	}
	if w.status == 0 && w.state != nil {
		w.state.begins(http.StatusOK)
	}
	flush := func() (int, error) { return 0, http.NewResponseController(w.ResponseWriter).Flush() }
	if place := w.lends(headerHeld); place != nil {
		place.await()
		defer place.came()
	}
	var err error
	if b := w.undrained(); b != nil {
		w.held = headerHeld
		_, err = b.drain(true, flush)
	} else {
		_, err = flush()
	}
	if err == nil && w.status == 0 {
		w.status, w.gone = http.StatusOK, w.clientGone()
	}
	return err
}

func (w *responseWriter) hijack() (net.Conn, *bufio.ReadWriter, error) {
	var conn net.Conn
	var buffered *bufio.ReadWriter
	if w.state != nil && w.state.ahead != nil {
		w.state.ahead.stop(settleTime)
	}
	hijack := func() (_ int, err error) {
		conn, buffered, err = http.NewResponseController(w.ResponseWriter).Hijack()
		return 0, err
	}
	var err error
	if b := w.undrained(); b != nil && w.status != 0 { // the header is sent first
		_, err = b.drain(true, hijack)
	} else {
		_, err = hijack()
	}
	if err == nil {
		w.hijacked = true
		if w.state != nil && w.state.filled&slotWork != 0 {
			w.state.work.giveUp()
		}
		if w.state != nil && w.state.body != nil {
			w.state.body.detach() // this package does not touch the connection any more
		}
		if w.state != nil && w.state.ahead != nil {
			w.state.ahead.unread(buffered)
		}
	}
	return conn, buffered, err
}

// addVary adds names to Vary (RFC 9110 §12.5.5), unless they are there, or Vary is *.
func addVary(h http.Header, names ...string) {
	for _, name := range names {
		if !mediatype.ListContains(h["Vary"], name) && !mediatype.ListContains(h["Vary"], "*") {
			h["Vary"] = append(slices.Clip(h["Vary"]), name) // the slice may be shared
		}
	}
}
