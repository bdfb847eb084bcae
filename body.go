package admit

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"sync"
	"time"
)

// MaxBody bounds the body of a request in bytes. A Content-Length above is refused at
// once with 413; without one, the handler reads up to the bound and then gets an
// *http.MaxBytesError, which WriteError sends as 413. It panics if bytes is less than
// 1. Decode has no bound of its own inside it.
func MaxBody(bytes int64) Middleware {
	if bytes < 1 {
		panic(fmt.Sprintf("admit: MaxBody(%d): the bound is at least 1 byte; leave MaxBody out for none", bytes))
	}
	return func(next http.Handler) http.Handler {
		mustWrap("MaxBody", next)
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.ContentLength > bytes {
				WriteError(w, r, errBodyTooLarge)
				return
			}
			if !hasBody(r) {
				next.ServeHTTP(w, r)
				return
			}
			inner, b, mine := withBody(w, r)
			if mine {
				defer b.detach()
			}
			if !b.limited || bytes < b.limit { // the smallest bound holds
				b.limited, b.limit, b.left = true, bytes, bytes
			}
			defer handBack(r, inner)
			next.ServeHTTP(w, inner)
		})
	}
}

// BodyTimeout refuses clients whose body does not come, with 408: when a Read has
// waited for Grace without a byte, when the body comes slower than MinRate bytes a
// second after the first Grace, or when it takes longer than Max. Only the time spent
// waiting inside Read counts, so that a slow handler is never taken for a slow client.
// Read then returns an *Error whose cause is os.ErrDeadlineExceeded, and keeps returning
// it. Zero MinRate and Max: no bound. What the handler does not read must come within
// Grace too. An inner BodyTimeout replaces an outer one; Server.ReadTimeout holds beside.
type BodyTimeout struct {
	Grace, Max time.Duration // Grace is required
	MinRate    int64
}

func (t BodyTimeout) check() error {
	switch {
	case t.Grace <= 0:
		return fmt.Errorf("BodyTimeout.Grace is %v; it is the time to wait for a first byte, such as 5s", t.Grace)
	case t.Max < 0 || t.Max > 0 && t.Max < t.Grace:
		return fmt.Errorf("BodyTimeout.Max is %v; it is 0 for no bound, or at least Grace (%v)", t.Max, t.Grace)
	case t.MinRate < 0:
		return fmt.Errorf("BodyTimeout.MinRate is %d; it is a number of bytes a second, or 0 for no bound", t.MinRate)
	}
	return nil
}

// Wrap bounds the time for the bodies of requests to next. It panics if t is not valid.
// Nothing is set on a request without a body.
func (t BodyTimeout) Wrap(next http.Handler) http.Handler {
	mustWrap("BodyTimeout.Wrap", next)
	if err := t.check(); err != nil {
		panic("admit: " + err.Error())
	}
	var warned sync.Once
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !hasBody(r) {
			next.ServeHTTP(w, r)
			return
		}
		wakes := canWake(w)
		if !wakes {
			warned.Do(func() {
				errorWriterOf(r.Context()).log(r, slog.LevelWarn, "admit: BodyTimeout cannot end a Read that waits: a ResponseWriter outside of it has no Unwrap")
			})
		}
		inner, b, mine := withBody(w, r)
		if mine {
			defer b.detach()
		}
		b.timeout = t
		defer handBack(r, inner)
		next.ServeHTTP(w, inner)
		if wakes {
			b.boundRest()
		}
	})
}

// canWake reports whether the connection can be reached through w.
func canWake(w http.ResponseWriter) bool {
	_, ok := innermost(w).(interface{ SetReadDeadline(time.Time) error })
	return ok
}

func hasBody(r *http.Request) bool {
	return r.Body != nil && r.Body != http.NoBody && r.ContentLength != 0
}

// withBody returns a request whose body is one of ours: a copy of r, or r where a
// wrapper outside has made one. MaxBody, BodyTimeout and Timeout share it; the one
// whose it is must detach it when next has returned.
func withBody(w http.ResponseWriter, r *http.Request) (inner *http.Request, b *body, mine bool) {
	if b, ok := r.Body.(*body); ok && b.fresh() {
		return r, b, false
	}
	ctx := r.Context()
	s := stateOf(ctx)
	if s == nil {
		s = newState(r, nil)
		r = r.WithContext(s)
	} else if s.copied.Load() != r {
		r = r.WithContext(ctx)
	}
	b = &body{source: r.Body, w: w}
	r.Body = b
	s.body.Store(b)
	return r, b, true
}

// bodyOf returns the newest of our bodies that the request of ctx has, or nil: also
// where others have put theirs around it.
func bodyOf(ctx context.Context) *body {
	for s := stateOf(ctx); s != nil; s = s.outer {
		if b := s.body.Load(); b != nil {
			return b
		}
	}
	return nil
}

// tooSlow reports whether the body of the request of ctx did not come in time.
func tooSlow(ctx context.Context) bool {
	b := bodyOf(ctx)
	return b != nil && b.failedWith(errBodyTooSlow)
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
	w      http.ResponseWriter // for the connection; left alone once err is set

	limited     bool
	limit, left int64

	timeout BodyTimeout // zero Grace: none
	got     int64
	waited  time.Duration

	mu      sync.Mutex
	begun   bool // Read has been called
	reading bool // Read is waiting for the source
	err     error
	timer   *time.Timer
	armed   bool      // the timer is running
	giveUp  time.Time // when the Read that waits is to be woken
}

// fresh reports whether another wrapper may still set bounds.
func (b *body) fresh() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return !b.begun && b.err == nil
}

// Close closes the body as the server knows it.
func (b *body) Close() error { return b.source.Close() }

// Read reads within the bounds. An error stays.
func (b *body) Read(p []byte) (int, error) {
	began, err := b.begin()
	if err != nil {
		return 0, err
	}
	if b.limited && int64(len(p)) > b.left+1 {
		p = p[:b.left+1] // one byte more tells whether the bound is passed
	}
	n, err := b.source.Read(p)
	return b.end(began, n, err)
}

// begin notes that a Read waits, and since when if that is of interest.
func (b *body) begin() (began time.Time, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.begun = true
	if b.err != nil {
		return began, b.err
	}
	if b.timeout.Grace > 0 {
		began = time.Now()
		patience := b.patience()
		if patience <= 0 {
			b.err = errBodyTooSlow
			return began, b.err
		}
		b.giveUp = began.Add(patience)
		if b.timer == nil {
			b.timer = time.AfterFunc(patience, b.expire)
			b.armed = true
		} else if !b.armed {
			b.timer.Reset(patience)
			b.armed = true
		}
	}
	b.reading = true
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
		earned := time.Duration(float64(b.got) / float64(t.MinRate) * float64(time.Second))
		patience = min(patience, t.Grace+earned-b.waited)
	}
	return patience
}

// expire is called by the timer, which is moved here and not in each Read. A timer that
// was set for an earlier Read waits on for the one that is waiting now.
func (b *body) expire() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.armed = false
	if !b.reading {
		return
	}
	if left := time.Until(b.giveUp); left > 0 {
		b.timer.Reset(left)
		b.armed = true
		return
	}
	b.interruptLocked(errBodyTooSlow)
}

// interrupt makes Read, also one that waits, return err from now on.
func (b *body) interrupt(err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.interruptLocked(err)
}

func (b *body) interruptLocked(err error) {
	if b.err != nil {
		return
	}
	b.err = err
	if b.reading {
		_ = http.NewResponseController(b.w).SetReadDeadline(longAgo)
	}
}

// failedWith reports whether err is what Read returns.
func (b *body) failedWith(err error) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.err == err
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
	}
	if b.limited {
		if int64(n) > b.left {
			n = int(b.left)
			err = &http.MaxBytesError{Limit: b.limit}
			closeAfterReply(b.w)
		}
		b.left -= int64(n)
	}
	if err != nil {
		b.err = err
		b.stopLocked()
	}
	return n, err
}

// boundRest is for a handler that has not read its body to the end. The server will
// read on before it answers, and shall not wait for longer than a handler would. The
// server itself takes this deadline back before the next request.
func (b *body) boundRest() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.err == nil {
		_ = http.NewResponseController(b.w).SetReadDeadline(time.Now().Add(b.timeout.Grace))
	}
}

// detach ends the use of the connection: whoever still reads is late.
func (b *body) detach() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.err == nil {
		b.err = http.ErrBodyReadAfterClose
	}
	b.stopLocked()
}

func (b *body) stopLocked() {
	if b.timer != nil {
		b.timer.Stop()
		b.armed = false
	}
}

// longAgo is a deadline that wakes whoever waits.
var longAgo = time.Unix(1, 0)

var errBodyTooSlow = errRequestTimeout.Because(fmt.Errorf("admit: the body did not come in time: %w", os.ErrDeadlineExceeded))
