package admit

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"net/http"
	"os"
	"time"
)

// ahead reads the body of a request while the request waits: over HTTP/1, net/http notices that a
// client has left only once the body has been read. The reader ends when the client has sent the
// body or has left, or with stop.
type ahead struct {
	source  io.ReadCloser
	w       http.ResponseWriter // for the connection
	arrived chan struct{}       // closed when nothing more is read
	rest    []byte              // what no Read has returned yet; valid then, as is err
	err     error               // what Read returns after rest; io.EOF after a whole body
}

// aheadRest is how long a request waits for the rest of its body after the response, where no
// BodyTimeout bounds that.
const aheadRest = 10 * time.Second

// stop ends the reading. Before that it waits for the rest of the body, for at most patience. The
// server may reuse the buffers of a connection once the handler has returned or panicked, or the
// connection is hijacked, and a Read that went on would take bytes of another request. It reports
// whether the body has not arrived: then the Read was woken, which spoils the connection. It may
// be called again.
func (a *ahead) stop(patience time.Duration) (spoiled bool) {
	timer := time.NewTimer(patience)
	defer timer.Stop()
	select {
	case <-a.arrived:
		return false
	case <-timer.C:
	}
	_ = http.NewResponseController(a.w).SetReadDeadline(longAgo)
	<-a.arrived
	return true
}

// unread puts what was read ahead, and not returned by a Read, in front of what is buffered of a
// hijacked connection.
func (a *ahead) unread(buffered *bufio.ReadWriter) {
	if len(a.rest) == 0 {
		return
	}
	n := len(a.rest) + buffered.Reader.Buffered()
	all := bufio.NewReaderSize(io.MultiReader(bytes.NewReader(a.rest), buffered.Reader), max(n, 4096))
	_, _ = all.Peek(n) // fills the buffer: many handlers use Buffered, and then read the connection
	buffered.Reader, a.rest = all, nil
}

// brokeOff reports whether the client has left before the body was whole. A client that is too
// slow for Server.ReadTimeout has not left.
func (a *ahead) brokeOff() bool {
	return a.err != io.EOF && !errors.Is(a.err, os.ErrDeadlineExceeded)
}

var errBrokeOff = errors.New("admit: the client has left while it sent the body")

// Read waits until the reader has ended.
func (a *ahead) Read(p []byte) (int, error) {
	<-a.arrived
	if len(a.rest) == 0 {
		return 0, a.err
	}
	n := copy(p, a.rest)
	a.rest = a.rest[n:]
	return n, nil
}

// Close implements io.Closer.
func (a *ahead) Close() error { return a.source.Close() }
