package admit

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/admit-go/admit/internal/alarm"
)

// BodyTimeout rejects a client that sends its body too slowly, with 408: if a Read waits for
// Grace without a byte, if the body comes slower than MinRate bytes a second after the first
// Grace, or if it takes longer than Max. Only time spent waiting inside Read counts, so a slow
// handler is never taken for a slow client. Read then returns an *Error whose cause is
// os.ErrDeadlineExceeded, and keeps returning it. Zero MinRate or Max means no bound.
//
// With a Max, the time spent waiting does not count for a Timeout inside. Without one it does, so
// a Timeout shorter than Grace responds first, with 503.
//
// What the handler does not read must come within Grace too, because over HTTP/1 the server
// reads it before it responds, or when the handler closes the body. An inner BodyTimeout replaces an outer one. Server.ReadTimeout
// applies as well, with the same error.
type BodyTimeout struct {
	Grace, Max time.Duration // Grace is required
	MinRate    int64         // bytes a second
}

func (t BodyTimeout) check() error {
	var f faults
	if t.Grace <= 0 {
		f.add("BodyTimeout.Grace", "is %v; set how long a Read may wait for a byte, such as 5s", t.Grace)
	}
	if t.Max < 0 || t.Max > 0 && t.Max < t.Grace {
		f.add("BodyTimeout.Max", "is %v; it must be 0 for no bound, or at least Grace (%v)", t.Max, t.Grace)
	}
	if t.MinRate < 0 {
		f.add("BodyTimeout.MinRate", "is %d; it must be a number of bytes a second, or 0 for no bound", t.MinRate)
	}
	f.time("BodyTimeout.Grace", t.Grace)
	f.time("BodyTimeout.Max", t.Max)
	return f.err()
}

// body is a request body with bounds of size and time, in which a blocked Read can be
// interrupted. One goroutine should read it; any goroutine may interrupt.
//
// While the client keeps up, only a timer runs and no deadline is set on the connection: a
// deadline that passed after the end of the body would break the next request
// (golang/go#70834), and Server.ReadTimeout would be lost. A deadline in the past interrupts a
// Read, and the connection is then closed.
type body struct {
	source io.ReadCloser
	w      http.ResponseWriter // for the connection; under mu, and left alone once err is set

	limited     bool
	limit, left int64

	lends *place // while a Read or Close waits; nil: none

	timeout BodyTimeout // zero Grace: none
	got     int64       // bytes
	waited  time.Duration

	http1 bool // the server reads what is left before it answers

	mu       sync.Mutex
	reading  int          // Reads that wait for the source
	readEnds chan bool    // closed when they have ended; nil: nobody waits for that
	since    time.Time    // when it began to wait; zero: it is not timed
	draining bool         // the server may be reading the rest
	drained  bool         // the server has read the rest
	duplex   bool         // the server will not read the rest before it responds, but after
	woken    *atomic.Bool // a deadline in the past was set, by this or another body of the request
	ended    bool         // the request is over, its handler late, or the connection hijacked
	err      error
	alarm    *alarm.Alarm // of the chain
	wait     alarm.Wait   // when the Read that waits is to be woken
}

// limitTo bounds the size of the body, before anything reads it. The smallest bound applies.
func (b *body) limitTo(bytes int64) {
	if !b.limited || bytes < b.limit {
		b.limited, b.limit, b.left = true, bytes, bytes
	}
}

// Close closes the body of the server, unless the request has ended. Over HTTP/1 the server reads
// the rest of the body first, which must come within Grace.
func (b *body) Close() error { return b.close(b.http1 && b.timeout.Grace > 0) }

func (b *body) close(timed bool) (err error) {
	b.mu.Lock()
	ended, waits := b.ended, b.http1 && b.err == nil
	b.mu.Unlock()
	if ended {
		return nil
	}
	if b.lends != nil && waits {
		b.lends.await()
		defer b.lends.came()
	}
	if !timed {
		return b.source.Close()
	}
	_, _ = b.drain(true, func() (int, error) {
		if outer, ours := b.source.(*body); ours {
			err = outer.close(false) // an inner BodyTimeout replaces an outer one
		} else {
			err = b.source.Close()
		}
		return 0, err
	})
	return err
}

// Read reads within the bounds. After an error it returns the same error again.
func (b *body) Read(p []byte) (int, error) { return b.read(p, b.timeout.Grace > 0) }

func (b *body) read(p []byte, timed bool) (n int, err error) {
	began, err := b.begin(timed)
	if err != nil {
		return 0, err
	}
	if b.limited {
		b.mu.Lock()
		if int64(len(p))-1 > b.left {
			p = p[:b.left+1] // one byte more tells whether the bound is passed
		}
		b.mu.Unlock()
	}
	if b.lends != nil {
		b.lends.await()
		defer b.lends.came()
	}
	returned := false
	defer func() {
		if !returned { // the source has panicked
			_, _ = b.end(began, 0, http.ErrBodyReadAfterClose)
		}
	}()
	if outer, ours := b.source.(*body); ours && timed {
		n, err = outer.read(p, false) // an inner BodyTimeout replaces an outer one
	} else {
		n, err = b.source.Read(p)
	}
	returned = true
	return b.end(began, n, err)
}

// begin notes that a Read waits, and since when if it is timed.
func (b *body) begin(timed bool) (began time.Time, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.err != nil {
		return began, b.err
	}
	if timed {
		began = time.Now()
		patience := b.patience()
		if patience <= 0 {
			b.err = errBodyTooSlow
			return began, b.err
		}
		b.alarm.Set(&b.wait, b, began, patience)
	}
	b.reading, b.since = b.reading+1, began
	return began, nil
}

// patience is how long the next Read may wait.
func (b *body) patience() time.Duration {
	t := b.timeout
	patience := t.Grace
	if t.Max > 0 {
		patience = min(patience, t.Max-b.waited)
	}
	if t.MinRate > 0 {
		earned := float64(b.got) / float64(t.MinRate) * float64(time.Second)
		if earned < float64(b.waited) { // else it may be more than a Duration holds
			patience = min(patience, t.Grace+time.Duration(earned)-b.waited)
		}
	}
	return patience
}

// Wake is called by the alarm, which may come after the Read that set it has ended. By then
// another Read may wait with a time of its own, or a Read of a BodyTimeout further inside,
// which has its own.
func (b *body) Wake() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if (b.reading > 0 && !b.since.IsZero() || b.draining) && !b.alarm.IsSet(&b.wait) {
		b.interruptLocked(errBodyTooSlow)
	}
}

// interrupt takes the body from a handler that is late. From now on Read returns err, also a
// Read that waits, and Close does nothing.
func (b *body) interrupt(err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.ended = true
	b.interruptLocked(err)
}

func (b *body) interruptLocked(err error) {
	if b.err != nil {
		return
	}
	b.err = err
	if b.reading > 0 || b.draining {
		b.wakeLocked()
	}
}

func (b *body) wakeLocked() {
	b.woken.Store(true)
	_ = http.NewResponseController(b.w).SetReadDeadline(longAgo)
}

// awaited returns how long the handler has waited for the client, at most the Max of its
// BodyTimeout. It is 0 without one.
func (b *body) awaited() time.Duration {
	if outer, ours := b.source.(*body); ours && b.timeout.Grace == 0 {
		return outer.awaited()
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	waited := b.waited
	if b.reading > 0 && !b.since.IsZero() {
		waited += time.Since(b.since)
	}
	return min(waited, b.timeout.Max)
}

// drains reports whether the server may wait for the rest of the body before it responds.
func (b *body) drains() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.http1 && b.timeout.Grace > 0 && b.err == nil && !b.drained
}

// remains reports whether the server may wait for the rest of the body after the handler. It reads
// the rest before the header, unless it has decided by then to close the connection.
func (b *body) remains(closes bool) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.http1 && b.timeout.Grace > 0 && b.err == nil && (closes || !b.drained)
}

// enableDuplex notes that the handler has enabled full duplex.
func (b *body) enableDuplex() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.duplex = true
}

// readsLate reports whether the server reads the rest of the body only after the response. It keeps
// the connection even if that fails, and takes what comes later for the next request.
func (b *body) readsLate() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.duplex
}

// drain calls write, during which the server may read the rest of the body; after the last
// write it has. The rest must come within Grace.
func (b *body) drain(last bool, write func() (int, error)) (int, error) {
	b.mu.Lock()
	if b.err == nil && b.reading == 0 { // else the alarm of the Read is set
		b.draining = true
		b.alarm.Set(&b.wait, b, time.Now(), b.timeout.Grace)
	}
	b.mu.Unlock()
	defer func() {
		b.mu.Lock()
		b.draining = false
		b.drained = b.drained || last
		b.mu.Unlock()
	}()
	return write()
}

// failedWith reports whether Read has failed with err, or, for nil, has not failed.
func (b *body) failedWith(err error) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.err == err
}

// brokeWith reports whether Read has failed with the error that err is, or wraps.
func (b *body) brokeWith(err error) bool {
	b.mu.Lock()
	failed := b.err
	b.mu.Unlock()
	return failed != nil && failed != io.EOF && failed != http.ErrBodyReadAfterClose && errors.Is(err, failed)
}

// spoiled reports whether the connection must be closed after the response: the body was larger
// than its bound, or a Read was interrupted, which the server takes for the end of its client.
// The reader may be the transport of a proxy in a goroutine of its own, so it only notes this;
// the writer of the response closes the connection.
func (b *body) spoiled() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	_, exceeded := b.err.(*http.MaxBytesError)
	return exceeded || b.woken.Load()
}

// refused reports whether the body was too large or too slow.
func (b *body) refused() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	_, exceeded := b.err.(*http.MaxBytesError)
	return exceeded || b.err == errBodyTooSlow
}

// busy reports whether a Read is under way.
func (b *body) busy() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.reading > 0
}

func (b *body) end(began time.Time, n int, err error) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.reading--
	if b.reading == 0 && b.readEnds != nil {
		close(b.readEnds)
		b.readEnds = nil
	}
	if b.err != nil { // it was interrupted
		return 0, b.err
	}
	if !began.IsZero() {
		b.waited += time.Since(began)
		b.got += int64(n)
		if errors.Is(err, os.ErrDeadlineExceeded) { // Server.ReadTimeout was earlier
			err = errBodyTooSlow
		}
	}
	if b.limited {
		if int64(n) > b.left {
			n = int(b.left)
			err = &http.MaxBytesError{Limit: b.limit}
		}
		b.left -= int64(n)
	}
	if err != nil {
		b.err = err
		b.alarm.Unset(&b.wait)
	}
	return n, err
}

// settle ends each Read that is under way when ServeHTTP returns, such as one of a late handler, and
// waits until it has ended. Otherwise net/http wakes it, clears the deadline that it has set for
// that, and then waits without any deadline for the rest of the body. The connection must be
// within reach of w.
func (b *body) settle() {
	b.mu.Lock()
	if b.reading == 0 {
		b.mu.Unlock()
		return
	}
	if b.err == nil { // else another Read may have ended before
		b.err = http.ErrBodyReadAfterClose
	}
	if !b.woken.Load() {
		b.wakeLocked()
	}
	b.readEnds = make(chan bool)
	ends := b.readEnds
	b.mu.Unlock()
	patience := time.NewTimer(wakeTime)
	defer patience.Stop()
	select {
	case <-ends:
	case <-patience.C: // a writer of others has not passed the deadline on
	}
}

// wakeTime is how long a Read may take to end after it was woken.
const wakeTime = time.Second

// detach ends the use of the connection. A Read after it fails.
func (b *body) detach() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.ended = true
	if b.err == nil {
		b.err = http.ErrBodyReadAfterClose
	}
	b.alarm.Unset(&b.wait)
}

// longAgo is a deadline that interrupts a Read or Write that waits.
var longAgo = time.Unix(1, 0)

var errBodyTooSlow = errRequestTimeout.WithCause(fmt.Errorf("admit: the request body did not arrive in time: %w", os.ErrDeadlineExceeded))

// bodyFault returns the *Error for an error of reading the body.
func bodyFault(err error) error {
	var e *Error
	var tooLarge *http.MaxBytesError
	switch {
	case errors.As(err, &e):
		return err
	case errors.As(err, &tooLarge):
		return errBodyTooLarge.WithCause(err)
	case errors.Is(err, os.ErrDeadlineExceeded): // Server.ReadTimeout
		return errRequestTimeout.WithCause(err)
	default:
		return errBodyUnread.WithCause(err)
	}
}

var errBodyUnread = NewError(http.StatusBadRequest, "The request body could not be read to its end.")

func maxBodyAnswers() []Answer {
	return append(bodyAnswers(), answer(errBodyTooLarge, "The body of the request is too large."))
}

// bodyAnswers are the errors for a body that cannot be read. If no BodyTimeout bounds its time,
// Server.ReadTimeout may.
func bodyAnswers() []Answer {
	return []Answer{
		answer(errBodyTooSlow, "The body of the request did not arrive in time."),
		answer(errBodyUnread, "The body of the request is cut short or malformed."),
	}
}
