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

// ahead reads the body of a request while that waits: over HTTP/1 net/http looks whether a
// client has left only once the body has been read. The reader ends when the client has sent
// the body, or left, or with stop.
type ahead struct {
	source  io.ReadCloser
	w       http.ResponseWriter // for the connection
	arrived chan struct{}       // closed when nothing more is read
	rest    []byte              // what nobody has got yet; valid then, as is err
	err     error               // that follows; io.EOF after a whole body
}

// aheadRest is how long a request that has been answered waits for the rest of its body, where
// no BodyTimeout says it.
const aheadRest = 10 * time.Second

// stop ends the reading, and waits for the rest of the body first, for as long as patience. The
// server may put the buffers of a connection to another use once the handler has returned or
// panicked, or when the connection is hijacked: a Read that went on would take bytes of somebody
// else. It reports whether the body has not come: what wakes the Read spoils the connection. It
// may be called again.
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

// unread puts in front of what is buffered of a hijacked connection what was read ahead of it
// and nobody has got, as if it had not been.
func (a *ahead) unread(buffered *bufio.ReadWriter) {
	if len(a.rest) == 0 {
		return
	}
	n := len(a.rest) + buffered.Reader.Buffered()
	all := bufio.NewReaderSize(io.MultiReader(bytes.NewReader(a.rest), buffered.Reader), max(n, 4096))
	_, _ = all.Peek(n) // which is there: many look at Buffered, and then read the connection
	buffered.Reader, a.rest = all, nil
}

// brokeOff reports whether the client has left before the body was whole. One that is too slow
// for Server.ReadTimeout has not.
func (a *ahead) brokeOff() bool {
	return a.err != io.EOF && !errors.Is(a.err, os.ErrDeadlineExceeded)
}

var errBrokeOff = errors.New("admit: the client has left while it sent the body")

// Read waits for what is under way.
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
