package admit

import (
	"io"
	"net/http"
	"strings"
	"time"
)

// An answer that is written while the client still sends has to reach it. Over HTTP/1
// net/http first reads up to 256 KiB of the body, for as long as it takes, so that a
// client that stalls never gets its answer; and it closes a connection with unread
// bytes in a way that makes the client's system throw the answer away. So reply reads
// for a short time itself. If the body ends, the connection is kept. If not, the answer
// says that the connection closes, and reading goes on for a moment, until the client has
// had the time to see it. Over HTTP/2 none of this is needed: the stream alone is reset.
//
// A place in an InFlight is given back before any of that: who is refused must not hold
// what others wait for.
const (
	settleBytes = 256 << 10
	settleTime  = 300 * time.Millisecond
	lingerTime  = 500 * time.Millisecond
)

// reply answers with a status, and a body unless the method is HEAD, in a way that a
// client sees which is still sending.
func reply(w http.ResponseWriter, r *http.Request, status int, body []byte) {
	if rest := settle(w, r); rest != nil {
		defer rest.linger()
		w.Header()["Connection"] = []string{"close"}
	}
	w.WriteHeader(status)
	if len(body) > 0 && r.Method != http.MethodHead {
		_, _ = w.Write(body)
	}
}

// upload is the body of a request that is answered before it has arrived.
type upload struct {
	w    http.ResponseWriter
	conn *http.ResponseController
	body io.Reader

	started bool
	big     chan struct{} // closed after settleBytes
	ended   chan struct{} // closed when no more is read
	whole   bool          // the body has ended; valid once ended is closed
}

// settle waits a short time for the rest of the body. It returns nil if there is none,
// and the connection can be kept.
func settle(w http.ResponseWriter, r *http.Request) *upload {
	body := sourceOf(r)
	if r.ProtoMajor != 1 || r.ContentLength == 0 || body == nil || body == http.NoBody {
		return nil
	}
	if !canWake(w) {
		return nil // not a connection, or one that others hide
	}
	if b := bodyOf(r.Context()); b != nil && b.failedWith(io.EOF) {
		return nil // it has been read
	}
	givePlacesBack(r.Context())
	u := &upload{w: w, conn: http.NewResponseController(w), body: body, big: make(chan struct{}), ended: make(chan struct{})}
	if strings.EqualFold(r.Header.Get("Expect"), "100-continue") {
		return u // reading might ask the client to begin
	}
	u.start()
	patience := time.NewTimer(settleTime)
	defer patience.Stop()
	select {
	case <-u.ended:
		if u.whole {
			return nil
		}
	case <-u.big:
	case <-patience.C:
	}
	return u
}

// start reads in a goroutine, because a deadline that passes in the middle of a body
// spoils what comes after it. It ends when linger does, at the latest.
func (u *upload) start() {
	u.started = true
	go func() {
		defer close(u.ended)
		_, err := io.CopyN(io.Discard, u.body, settleBytes)
		if err == nil {
			close(u.big)
			_, err = io.Copy(io.Discard, u.body)
			u.whole = err == nil
			return
		}
		u.whole = err == io.EOF
	}()
}

// linger sends what has been written, and goes on reading until the client has closed
// or had the time to.
func (u *upload) linger() {
	_ = u.conn.Flush()
	_ = u.conn.SetReadDeadline(time.Now().Add(lingerTime))
	if !u.started {
		u.start()
	}
	<-u.ended
	if u.whole {
		return
	}
	// The deadline has passed, or the body is malformed: the server, which reads the rest
	// when it closes the body, does not wait for it.
	closeAfterReply(u.w)
}

// closeAfterReply makes the server close the connection after the response: first its
// writing side, and the other after a pause. http.MaxBytesReader can tell it to, but
// only through the server's own writer. It is for the goroutine that writes the response.
func closeAfterReply(w http.ResponseWriter) {
	for {
		switch t := w.(type) {
		case *timedRun:
			t.closeAfterReply()
			return
		case interface{ Unwrap() http.ResponseWriter }:
			w = t.Unwrap()
		default:
			_, _ = http.MaxBytesReader(w, io.NopCloser(strings.NewReader("x")), 0).Read(make([]byte, 1))
			return
		}
	}
}

// canWake reports whether the connection can be reached through w.
func canWake(w http.ResponseWriter) bool {
	for {
		switch t := w.(type) {
		case *timedRun:
			return t.wakes
		case interface{ Unwrap() http.ResponseWriter }:
			w = t.Unwrap()
		default:
			_, ok := w.(interface{ SetReadDeadline(time.Time) error })
			return ok
		}
	}
}

// sourceOf returns the body as it was outside of the wrappers of this package.
func sourceOf(r *http.Request) io.Reader {
	if s := stateOf(r.Context()); s != nil && s.source != nil {
		return s.source
	}
	return r.Body
}
