package admit

import (
	"bufio"
	"io"
	"net/http"
	"reflect"
	"strings"
	"sync"
	"time"
)

// An answer that is written while the client still sends has to reach it. Over HTTP/1
// net/http first reads up to 256 KiB of the body, for as long as it takes, so that a
// client that stalls never gets its answer; and it closes a connection with unread
// bytes in a way that makes the client's system throw the answer away. So reply reads
// for a short time itself. If the body ends, the connection is kept: most bodies have
// arrived already. If not, the answer says that the connection closes, and reading goes on
// for a moment, until the client has had the time to see it. Over HTTP/2 none of this is
// needed: the stream alone is reset.
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
	rest := missing(w, r)
	if rest == nil {
		answerWith(w, r, status, body)
		return
	}
	for _, p := range lendPlaces(r.Context(), nil) {
		defer p.reclaim()
	}
	u := &upload{w: w, r: r, status: status, body: body, rest: rest}
	ctx := r.Context()
	switch {
	case bodySpoiled(ctx) || bodyBusy(ctx), // there is nothing to read any more, or somebody else reads
		strings.EqualFold(r.Header.Get("Expect"), "100-continue"): // reading might ask the client to begin
		u.cut()
		closeAfterReply(w)
	case reflect.TypeOf(rest) == serverBody:
		u.settle()
	case u.settleOthers():
		answerWith(w, r, status, body)
	default:
		u.cut()
		closeAfterReply(w)
	}
}

func answerWith(w http.ResponseWriter, r *http.Request, status int, body []byte) {
	w.WriteHeader(status)
	if len(body) > 0 && r.Method != http.MethodHead {
		_, _ = w.Write(body)
	}
}

// upload is a request that is answered before its body has arrived.
type upload struct {
	w      http.ResponseWriter
	r      *http.Request
	status int
	body   []byte    // of the answer
	rest   io.Reader // of the body of the request

	meanwhile sync.WaitGroup // for cutMeanwhile
	panicked  any            // there
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

// settle answers once the rest of the body has come, or not in a short time.
func (u *upload) settle() {
	whole, cut := u.readRest()
	switch {
	case cut && u.panicked != nil:
		panic(u.panicked)
	case whole && !cut:
		answerWith(u.w, u.r, u.status, u.body)
		return
	case !cut: // it is malformed, or its client has gone
		u.cut()
	}
	if !whole {
		closeAfterReply(u.w)
	}
}

// readRest reads the rest of the body, and reports whether that has come. What has arrived needs
// no other goroutine for it. Where more is waited for, the Read goes on, since a deadline that
// passes in the middle of a body spoils what comes after it; and a timer cuts meanwhile. It has
// the writer to itself, and the deadline that it sets ends the Read, at the latest. For a Timeout
// outside, this is a call of its handler, which it ends before it cuts.
func (u *upload) readRest() (whole, cut bool) {
	var few [2]*timedRun
	entered := few[:0]
	runsOf(u.r.Context(), func(run *timedRun) {
		if run.enter(false) {
			entered = append(entered, run)
		}
	})
	defer func() {
		for _, run := range entered {
			run.exit()
		}
	}()
	u.meanwhile.Add(1)
	patience := time.AfterFunc(settleTime, u.cutMeanwhile)
	defer func() {
		if cut = cut || !patience.Stop(); cut {
			u.meanwhile.Wait()
		}
	}()
	_, err := io.CopyN(io.Discard, u.rest, settleBytes)
	if err != nil {
		return err == io.EOF, false
	}
	if cut = true; patience.Stop() {
		go u.cutMeanwhile() // so much is not waited for
	}
	_, err = io.Copy(io.Discard, u.rest)
	return err == nil, true
}

// cutMeanwhile cuts in a goroutine of its own, while that of the server reads. A panic is for
// the latter, and ends its Read.
func (u *upload) cutMeanwhile() {
	defer u.meanwhile.Done()
	u.panicked = http.ErrAbortHandler // runtime.Goexit
	defer func() {
		if v := recover(); v != nil {
			u.panicked = withStack(v)
		}
		if u.panicked != nil {
			u.endRead()
		}
	}()
	u.readUntil(u.cut())
	u.panicked = nil
}

// settleOthers reads a body that others have put in place, here: it may change the
// response, as that of http.MaxBytesReader does, or panic. A deadline ends it, and with it
// all reading.
func (u *upload) settleOthers() bool {
	u.readUntil(time.Now().Add(settleTime))
	if _, err := io.CopyN(io.Discard, u.rest, settleBytes); err != io.EOF {
		return false
	}
	u.readUntil(time.Time{})
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

// cut answers, says that the connection closes, and sends that. It returns until when reading
// may go on.
func (u *upload) cut() time.Time {
	u.w.Header()["Connection"] = []string{"close"}
	answerWith(u.w, u.r, u.status, u.body)
	f, flushes := u.w.(http.Flusher)
	if !flushes {
		// A writer of others without Flush may have thrown the answer away: there is nothing to
		// send then, and so nothing to wait for.
		return longAgo
	}
	f.Flush()
	return time.Now().Add(lingerTime)
}

func (u *upload) readUntil(t time.Time) {
	_ = http.NewResponseController(u.w).SetReadDeadline(t)
}

// endRead ends the Read past the writers of others: it may be one of them that panics where a
// deadline is set, and nobody recovers from a second panic.
func (u *upload) endRead() {
	defer func() { _ = recover() }()
	w := u.w
	for {
		outer, wraps := w.(interface{ Unwrap() http.ResponseWriter })
		if !wraps {
			break
		}
		w = outer.Unwrap()
	}
	_ = http.NewResponseController(w).SetReadDeadline(longAgo)
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
