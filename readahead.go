package admit

import (
	"errors"
	"io"
	"net/http"
	"os"
	"reflect"
)

// ahead reads the body of a request while that waits: over HTTP/1 net/http looks whether a
// client has left only once the body has been read. The reader ends when the client has sent
// the body, or left, or with the connection.
type ahead struct {
	source  io.ReadCloser
	arrived chan struct{} // closed when nothing more is read
	rest    []byte        // what nobody has got yet; valid then, as is err
	err     error         // that follows; io.EOF after a whole body
}

// aheadBytes is the longest body that is kept for that. There may be as many of them as
// requests that wait.
const aheadBytes = 16 << 10

// readAhead begins to read the body of r, or returns nil: there is none, or it is too long, or
// it is not the server's, or to read it would ask the client to send it.
func readAhead(r *http.Request) *ahead {
	n := r.ContentLength
	if r.ProtoMajor != 1 || n <= 0 || n > aheadBytes || reflect.TypeOf(r.Body) != serverBody || r.Header["Expect"] != nil || r.Header["Upgrade"] != nil {
		return nil
	}
	a := &ahead{source: r.Body, arrived: make(chan struct{})}
	go func() {
		defer close(a.arrived)
		body := make([]byte, n)
		got, err := io.ReadFull(a.source, body)
		a.rest, a.err = body[:got], err
		if err == nil {
			a.err = io.EOF
		}
	}()
	return a
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
