package admit

import (
	"bufio"
	"io"
	"net/http"
	"reflect"
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
	if body := missing(w, r); body != nil {
		for _, p := range lendPlaces(r.Context(), nil) {
			defer p.reclaim()
		}
		u := &upload{w: w, conn: http.NewResponseController(w), body: body}
		if !u.settle(r) {
			defer u.linger()
			w.Header()["Connection"] = []string{"close"}
		}
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

	big   chan struct{} // closed after settleBytes
	ended chan struct{} // closed when no more is read; nil: nobody has begun to
	whole bool          // the body has ended; valid once ended is closed
}

// missing returns the body of r if the server may wait for more of it, else nil.
func missing(w http.ResponseWriter, r *http.Request) io.Reader {
	body := sourceOf(r)
	if r.ProtoMajor != 1 || r.ContentLength == 0 || body == nil || body == http.NoBody || !canWake(w) {
		return nil
	}
	if b := bodyOf(r.Context()); b != nil && b.failedWith(io.EOF) {
		return nil
	}
	return body
}

// settle waits a short time for the rest of the body. It reports whether that has come, so
// that the connection can be kept.
func (u *upload) settle(r *http.Request) bool {
	ctx := r.Context()
	switch {
	case bodySpoiled(ctx) || bodyBusy(ctx):
		return false // there is nothing to read any more, or somebody else reads
	case strings.EqualFold(r.Header.Get("Expect"), "100-continue"):
		return false // reading might ask the client to begin
	case reflect.TypeOf(u.body) != serverBody:
		return u.settleOthers()
	}
	u.start()
	patience := time.NewTimer(settleTime)
	defer patience.Stop()
	select {
	case <-u.ended:
		return u.whole
	case <-u.big:
	case <-patience.C:
	}
	return false
}

// settleOthers reads a body that others have put in place, here: it may change the
// response, as that of http.MaxBytesReader does, or panic. A deadline ends it, and with it
// all reading.
func (u *upload) settleOthers() bool {
	_ = u.conn.SetReadDeadline(time.Now().Add(settleTime))
	_, err := io.CopyN(io.Discard, u.body, settleBytes)
	if err != io.EOF {
		return false
	}
	_ = u.conn.SetReadDeadline(time.Time{})
	return true
}

// serverBody is the type of the bodies of net/http itself, which any goroutine may read.
var serverBody = func() reflect.Type {
	r, err := http.ReadRequest(bufio.NewReader(strings.NewReader("PUT / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\nx")))
	if err != nil {
		panic(err)
	}
	return reflect.TypeOf(r.Body)
}()

// start reads in a goroutine, because a deadline that passes in the middle of a body
// spoils what comes after it. It ends when linger does, at the latest.
func (u *upload) start() {
	u.big, u.ended = make(chan struct{}), make(chan struct{})
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

// linger sends what has been written. If somebody reads, that goes on until the client has
// closed or had the time to; else the server's own pause before it closes has to do.
func (u *upload) linger() {
	until := longAgo
	// A writer of others without Flush may have thrown the answer away: there is nothing to
	// send then, and so nothing to wait for.
	if f, flushes := u.w.(http.Flusher); flushes {
		f.Flush()
		until = time.Now().Add(lingerTime)
	}
	if u.ended != nil {
		_ = u.conn.SetReadDeadline(until)
		<-u.ended
		if u.whole {
			return
		}
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
			return t.wakes // a handler that is late must not go further
		case interface{ Unwrap() http.ResponseWriter }:
			w = t.Unwrap()
		default:
			_, ok := w.(interface{ SetReadDeadline(time.Time) error })
			return ok
		}
	}
}
