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
	m, err := maxBody(bytes)
	if err != nil {
		panic("admit: MaxBody: " + err.Error())
	}
	return m
}

func maxBody(bytes int64) (Middleware, error) {
	if bytes < 1 {
		return nil, fmt.Errorf("the bound is %d; it is at least 1 byte: leave it out for none", bytes)
	}
	return func(next http.Handler) http.Handler {
		return wrap("MaxBody", next, func(in inside, w http.ResponseWriter, r *http.Request) {
			if r.ContentLength > bytes {
				WriteError(w, r, errBodyTooLarge)
				return
			}
			if !hasBody(r) {
				in.ServeHTTP(w, r)
				return
			}
			u := in.bound(w, r)
			defer u.leave()
			u.body.limitTo(bytes)
			in.ServeHTTP(u.w, u.inner)
		})
	}, nil
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
		return fmt.Errorf("Grace is %v; it is the time to wait for a first byte, such as 5s", t.Grace)
	case t.Max < 0 || t.Max > 0 && t.Max < t.Grace:
		return fmt.Errorf("Max is %v; it is 0 for no bound, or at least Grace (%v)", t.Max, t.Grace)
	case t.MinRate < 0:
		return fmt.Errorf("MinRate is %d; it is a number of bytes a second, or 0 for no bound", t.MinRate)
	}
	return nil
}

// Wrap bounds the time for the bodies of requests to next. It panics if t is not valid.
// Nothing is set on a request without a body.
func (t BodyTimeout) Wrap(next http.Handler) http.Handler {
	if err := t.check(); err != nil {
		panic("admit: BodyTimeout.Wrap: " + err.Error())
	}
	var warned sync.Once
	return wrap("BodyTimeout.Wrap", next, func(in inside, w http.ResponseWriter, r *http.Request) {
		if !hasBody(r) {
			in.ServeHTTP(w, r)
			return
		}
		wakes := canWake(w)
		if !wakes {
			warned.Do(func() {
				errorWriterOf(r.Context()).log(r, slog.LevelWarn, "admit: BodyTimeout cannot end a Read that waits: a ResponseWriter outside of it has no Unwrap")
			})
		}
		u := in.bound(w, r)
		defer u.leave()
		u.body.timeout = t
		in.ServeHTTP(u.w, u.inner)
		if wakes && r.ProtoMajor == 1 && u.body.failedWith(nil) {
			// The server will read on before it answers, and shall not wait for longer than
			// a handler would.
			u.state.root().rest.read.Store(int64(t.Grace))
		}
	})
}

func hasBody(r *http.Request) bool {
	return r.Body != nil && r.Body != http.NoBody && r.ContentLength != 0
}

// bounded is a request whose body is one of ours, for one wrapper.
type bounded struct {
	state    *state
	body     *body
	w        http.ResponseWriter
	r, inner *http.Request
	mine     bool // the body is that of this wrapper, not of one outside
}

// bound returns the request with a body that has bounds, for the caller to set. The
// wrappers of a chain share one: the first replaces the body, in the copy of the request
// that is the chain's. Who calls it defers leave.
func (in *inside) bound(w http.ResponseWriter, r *http.Request) bounded {
	if s := in.open; s != nil && s.body != nil {
		return bounded{s, s.body, w, r, r, false}
	}
	s, w, inner := in.fill(w, r, slotBody)
	s.body = &body{source: inner.Body, w: w}
	inner.Body = s.body
	return bounded{s, s.body, w, r, inner, true}
}

// leave ends the use of the connection by the body, where it is the caller's.
func (u *bounded) leave() {
	if !u.mine {
		return
	}
	if u.body.exceeded() && !u.state.writer.hijacked {
		closeAfterReply(u.state.writer.ResponseWriter)
	}
	u.body.detach()
	u.state.leave(u.r, u.inner)
}

// bodyOf returns the innermost of our bodies that the request of ctx has, or nil: also
// where others have put theirs around it.
func bodyOf(ctx context.Context) *body {
	if s := find(ctx, slotBody); s != nil {
		return s.body
	}
	return nil
}

// bodyLimit returns the smallest bound of the bodies that the request of ctx has.
func bodyLimit(ctx context.Context) (limit int64, limited bool) {
	for s := find(ctx, slotBody); s != nil; s = s.outer {
		if b := s.body; b != nil && b.limited && (!limited || b.limit < limit) {
			limit, limited = b.limit, true
		}
	}
	return limit, limited
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
	w      http.ResponseWriter // for the connection; under mu, and left alone once err is set

	limited     bool
	limit, left int64

	timeout BodyTimeout // zero Grace: none
	got     int64
	waited  time.Duration

	mu       sync.Mutex
	reading  bool // Read is waiting for the source
	detached bool // the source is not ours any more
	err      error
	timer    *time.Timer
	armed    bool      // the timer is running
	giveUp   time.Time // when the Read that waits is to be woken
}

// limitTo bounds the body in bytes, before anybody reads it. The smallest bound holds.
func (b *body) limitTo(bytes int64) {
	if !b.limited || bytes < b.limit {
		b.limited, b.limit, b.left = true, bytes, bytes
	}
}

// Close closes the body as the server knows it, which does so itself in the end.
func (b *body) Close() error {
	b.mu.Lock()
	detached := b.detached
	b.mu.Unlock()
	if detached {
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
	if b.limited && int64(len(p)) > b.left+1 {
		p = p[:b.left+1] // one byte more tells whether the bound is passed
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

// failedWith reports whether err is what Read returns; nil: whether it goes on.
func (b *body) failedWith(err error) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.err == err
}

// exceeded reports whether more came than the bound allows, so that the connection is to
// be closed after the response. Who reads may be a proxy's transport in a goroutine of
// its own, and only notes it: the response is the business of who writes it.
func (b *body) exceeded() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	_, is := b.err.(*http.MaxBytesError)
	return is
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
		}
		b.left -= int64(n)
	}
	if err != nil {
		b.err = err
		b.stopLocked()
	}
	return n, err
}

// detach ends the use of the connection: whoever still reads is late.
func (b *body) detach() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.detached = true
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
