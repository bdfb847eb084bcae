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

// BodyTimeout refuses clients whose body does not come, with 408: when a Read has
// waited for Grace without a byte, when the body comes slower than MinRate bytes a
// second after the first Grace, or when it takes longer than Max. Only the time spent
// waiting inside Read counts, so that a slow handler is never taken for a slow client.
// Read then returns an *Error whose cause is os.ErrDeadlineExceeded, and keeps returning
// it. Zero MinRate and Max: no bound. What the handler does not read must come within
// Grace too, because over HTTP/1 the server reads it before it answers. An inner
// BodyTimeout replaces an outer one. Server.ReadTimeout holds beside, with the same error.
type BodyTimeout struct {
	Grace, Max time.Duration // Grace is required
	MinRate    int64
}

func (t BodyTimeout) check() error {
	var f faults
	if t.Grace <= 0 {
		f.add("BodyTimeout.Grace", "is %v; it is the time to wait for a first byte, such as 5s", t.Grace)
	}
	if t.Max < 0 || t.Max > 0 && t.Max < t.Grace {
		f.add("BodyTimeout.Max", "is %v; it is 0 for no bound, or at least Grace (%v)", t.Max, t.Grace)
	}
	if t.MinRate < 0 {
		f.add("BodyTimeout.MinRate", "is %d; it is a number of bytes a second, or 0 for no bound", t.MinRate)
	}
	f.time("BodyTimeout.Grace", t.Grace)
	f.time("BodyTimeout.Max", t.Max)
	return f.err()
}

// body is a request's body with bounds of size and time, in which a blocked Read can
// be woken. One goroutine reads it; any may interrupt.
//
// No deadline is set on the connection while the client keeps up, only a timer: one
// that passed after the body had ended would break the next request (golang/go#70834),
// and Server.ReadTimeout would be lost. The deadline, in the past, is what wakes a Read,
// and the connection is then closed.
type body struct {
	source io.ReadCloser
	w      http.ResponseWriter // for the connection; under mu, and left alone once err is set

	limited     bool
	limit, left int64

	lends *place // while a Read waits; nil: none

	timeout BodyTimeout // zero Grace: none
	got     int64
	waited  time.Duration

	http1 bool // the server reads what is left before it answers

	mu       sync.Mutex
	reading  bool         // Read is waiting for the source
	since    time.Time    // when it began to; zero: nobody asks
	draining bool         // the server may be reading
	drained  bool         // it has read what it reads
	woken    *atomic.Bool // a deadline in the past was set, by this or another body of the request
	ended    bool         // the request is over, its handler late, or the connection somebody else's
	err      error
	alarm    *alarm.Alarm // of the chain
	wait     alarm.Wait   // when who waits is to be woken
}

// limitTo bounds the body in bytes, before anybody reads it. The smallest bound holds.
func (b *body) limitTo(bytes int64) {
	if !b.limited || bytes < b.limit {
		b.limited, b.limit, b.left = true, bytes, bytes
	}
}

// Close closes the body as the server knows it, while that is there.
func (b *body) Close() error {
	b.mu.Lock()
	ended := b.ended
	b.mu.Unlock()
	if ended {
		return nil
	}
	return b.source.Close()
}

// Read reads within the bounds. An error stays.
func (b *body) Read(p []byte) (int, error) { return b.read(p, b.timeout.Grace > 0) }

func (b *body) read(p []byte, timed bool) (n int, err error) {
	began, err := b.begin(timed)
	if err != nil {
		return 0, err
	}
	if b.limited && int64(len(p))-1 > b.left {
		p = p[:b.left+1] // one byte more tells whether the bound is passed
	}
	if b.lends != nil {
		b.lends.await()
		defer b.lends.came()
	}
	if outer, ours := b.source.(*body); ours && timed {
		n, err = outer.read(p, false) // an inner BodyTimeout replaces an outer one
	} else {
		n, err = b.source.Read(p)
	}
	return b.end(began, n, err)
}

// begin notes that a Read waits, and since when if that is of interest.
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
	b.reading, b.since = true, began
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

// Wake is called by the alarm, which goes on when a Read has ended: another may wait by now,
// with a time of its own, or in a Read of a BodyTimeout further inside, which has its own.
func (b *body) Wake() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if (b.reading && !b.since.IsZero() || b.draining) && !b.alarm.IsSet(&b.wait) {
		b.interruptLocked(errBodyTooSlow)
	}
}

// interrupt takes the body from a handler that is late: Read, also one that waits, returns
// err from now on, and Close closes nothing.
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
	if b.reading || b.draining {
		b.woken.Store(true)
		_ = http.NewResponseController(b.w).SetReadDeadline(longAgo)
	}
}

// awaited is how long the client has been waited for within the Max of its BodyTimeout,
// which bounds it; 0 without one.
func (b *body) awaited() time.Duration {
	if outer, ours := b.source.(*body); ours && b.timeout.Grace == 0 {
		return outer.awaited()
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	waited := b.waited
	if b.reading && !b.since.IsZero() {
		waited += time.Since(b.since)
	}
	return min(waited, b.timeout.Max)
}

// drains reports whether the server may wait for the rest of the body before it answers.
func (b *body) drains() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.http1 && b.timeout.Grace > 0 && b.err == nil && !b.drained
}

// drain calls write, in which the server may read the rest of the body, and does so in the
// last one. The rest has to come within Grace.
func (b *body) drain(last bool, write func() (int, error)) (int, error) {
	b.mu.Lock()
	if b.err == nil && !b.reading { // else who reads is woken in time
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

// failedWith reports whether err is what Read returns; nil: whether it goes on.
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

// spoiled reports whether the connection is to be closed after the response: more came
// than the bound allows, or a Read was woken, which the server takes for the end of its
// client. Who reads may be a proxy's transport in a goroutine of its own, and only notes it:
// the response is the business of who writes it.
func (b *body) spoiled() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	_, exceeded := b.err.(*http.MaxBytesError)
	return exceeded || b.woken.Load()
}

// refused reports whether it was too large or too slow.
func (b *body) refused() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	_, exceeded := b.err.(*http.MaxBytesError)
	return exceeded || b.err == errBodyTooSlow
}

// busy reports whether somebody is in Read.
func (b *body) busy() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.reading
}

func (b *body) end(began time.Time, n int, err error) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.reading = false
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

// detach ends the use of the connection: whoever still reads is late.
func (b *body) detach() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.ended = true
	if b.err == nil {
		b.err = http.ErrBodyReadAfterClose
	}
	b.alarm.Unset(&b.wait)
}

// longAgo is a deadline that wakes whoever waits.
var longAgo = time.Unix(1, 0)

var errBodyTooSlow = errRequestTimeout.WithCause(fmt.Errorf("admit: the body did not come in time: %w", os.ErrDeadlineExceeded))

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

// bodyAnswers are those to a request whose body cannot be read. Where nothing but
// Server.ReadTimeout bounds its time, that does.
func bodyAnswers() []Answer {
	return []Answer{
		answer(errBodyTooSlow, "The body of the request did not arrive in time."),
		answer(errBodyUnread, "The body of the request is cut short or malformed."),
	}
}
