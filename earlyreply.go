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

// A response that is written while the client still sends must reach it. Over HTTP/1, net/http
// first reads up to 256 KiB of the body, however long that takes, so a client that stalls never
// gets its response. It also closes a connection with unread bytes in a way that makes the
// client's system discard the response. So reply reads for a short time itself. If the body
// ends, the connection is kept: most bodies have arrived already. If not, the response
// announces that the connection closes, and reading goes on for a moment, so that the client
// has time to see it.
//
// Over HTTP/2 none of this is needed: only the stream is reset. A client that still sends gets
// the status, and may discard the body of the response.
//
// The places that the request holds in an InFlight or a Shedder are lent meanwhile: a rejected
// request must not keep others waiting.
const (
	settleBytes = 256 << 10
	settleTime  = 300 * time.Millisecond
	lingerTime  = 500 * time.Millisecond
)

// reply responds with a status, and with a body unless the method is HEAD, so that a client
// that is still sending gets it.
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
	case bodySpoiled(ctx) || bodyBusy(ctx): // there is nothing more to read, or another goroutine reads
		u.cut()
		closeAfterReply(w)
	case strings.EqualFold(r.Header.Get("Expect"), "100-continue"): // a Read might tell the client to send
		u.readUntil(u.cut()) // the server reads before it closes, also what no client was told to send
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

// upload is a request that gets its response before its body has arrived.
type upload struct {
	w      http.ResponseWriter
	r      *http.Request
	status int
	body   []byte    // of the response
	rest   io.Reader // of the body of the request

	meanwhile sync.WaitGroup // for cutMeanwhile
	panicked  any            // in cutMeanwhile
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

// settle responds when the rest of the body has come, or after settleTime.
func (u *upload) settle() {
	whole, cut := u.readRest()
	switch {
	case cut && u.panicked != nil:
		panic(u.panicked)
	case whole && !cut:
		answerWith(u.w, u.r, u.status, u.body)
		return
	case !cut: // the body is malformed, or the client is gone
		u.cut()
	}
	if !whole {
		closeAfterReply(u.w)
	}
}

// readRest reads the rest of the body, and reports whether all of it has come. A body that has
// arrived needs no other goroutine. Otherwise the Read goes on, since a deadline that passes in
// the middle of a body breaks what follows, and a timer cuts meanwhile. The timer's goroutine
// is then the only user of the writer, and its deadline ends the Read at the latest. To a
// Timeout outside, this is a call of its handler, which it lets end before it cuts.
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
		go u.cutMeanwhile() // the rest is too large to wait for
	}
	_, err = io.Copy(io.Discard, u.rest)
	return err == nil, true
}

// cutMeanwhile cuts in a goroutine of its own while the server's goroutine reads. A panic ends
// that Read, and is passed on to the server's goroutine.
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

// settleOthers reads a body that other code has put in place. It does so in this goroutine,
// because the Read may change the response, as that of http.MaxBytesReader does, or panic. A
// deadline ends it, and all reading with it.
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

// cut sends the response and announces that the connection closes. It returns until when
// reading may go on.
func (u *upload) cut() time.Time {
	u.w.Header()["Connection"] = []string{"close"}
	answerWith(u.w, u.r, u.status, u.body)
	f, flushes := u.w.(http.Flusher)
	if !flushes {
		// A foreign writer without Flush may have discarded the response: then there is nothing to
		// send, and nothing to wait for.
		return longAgo
	}
	f.Flush()
	return time.Now().Add(lingerTime)
}

func (u *upload) readUntil(t time.Time) {
	_ = http.NewResponseController(u.w).SetReadDeadline(t)
}

// endRead ends the Read without calling foreign writers: one of them may panic when a deadline
// is set, and nothing recovers from a second panic.
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

// closeAfterReply makes the server close the connection after the response: first the writing
// side, then, after a pause, the reading side. Only http.MaxBytesReader can tell the server to
// do so, and only through the server's own writer. Only the goroutine that writes the response
// may call it.
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
			return t.wakes // a handler that is late must not reach the connection
		case interface{ Unwrap() http.ResponseWriter }:
			w = t.Unwrap()
		default:
			_, ok := w.(interface{ SetReadDeadline(time.Time) error })
			return ok
		}
	}
}
