package admit

import (
	"container/list"
	"context"
	"io"
	"log/slog"
	"net/http"
	"net/netip"
	"reflect"
	"sync"
	"time"
)

// InFlightConfig configures NewInFlight. Only Max is required.
type InFlightConfig struct {
	// Max is how many requests may be in flight at once. Required.
	Max int
	// PerAddress is how many of them, including those that wait, may come from one client
	// address, IPv6 by /64. Zero means no bound.
	PerAddress int
	// Queue is how many more requests may wait for a place, in order. Zero means none: a
	// request is rejected at once if all places are taken. A client that leaves gives up its
	// wait. Over HTTP/1, a request with a body notices this only if the body is not chunked and
	// has at most 16 KiB, which are read and kept meanwhile.
	Queue int
	// Wait is how long a request may wait before it is rejected. Required with Queue.
	Wait time.Duration
	// RetryAfter is sent with rejections, in seconds, rounded up. Default: 1 s.
	RetryAfter time.Duration
	// Skip exempts a request, such as a health check: it needs no place.
	Skip func(*http.Request) bool
}

// InFlight limits how many requests are in flight. It is safe for concurrent use, and all
// handlers that it wraps share its places.
//
// It is a cheap bound on what a service holds in memory. It stands outside Auth, so that a
// flood of requests without a key costs no look-up. Set Max to as many requests, including
// streams, as the process can hold. A Shedder is for as many as the service can work on: it
// knows the plans, and rejects by how long requests wait, so its Max need not be exact.
type InFlight struct {
	c        InFlightConfig
	overload *Error
	made     made
	bodies   unbounded

	mu      sync.Mutex
	running int
	queue   list.List          // of chan struct{}, closed when the waiter gets its place
	shares  map[netip.Addr]int // for PerAddress: running and waiting
}

// MaxInFlight lets n requests be in flight at once, and rejects more with 429 overloaded and
// Retry-After. All handlers that one MaxInFlight wraps share the n places. It panics if n is
// less than 1. See NewInFlight for a queue.
func MaxInFlight(n int) Middleware {
	f, err := NewInFlight(InFlightConfig{Max: n})
	must(renamed("InFlightConfig.Max", "MaxInFlight", err))
	return f.Wrap
}

// NewInFlight returns an InFlight. The error lists every problem of the configuration; the
// InFlight that is returned with it cannot serve.
func NewInFlight(c InFlightConfig) (*InFlight, error) {
	var f faults
	check := func(ok bool, field, format string, args ...any) {
		if !ok {
			f.add("InFlightConfig."+field, format, args...)
		}
	}
	check(c.Max >= 1, "Max", "is %d; it needs at least 1", c.Max)
	check(c.PerAddress >= 0, "PerAddress", "is %d; it must be a number of requests, or 0 for no bound", c.PerAddress)
	check(c.Queue >= 0, "Queue", "is %d; it must be a number of requests, or 0 for none", c.Queue)
	check(c.Wait >= 0, "Wait", "is %v; it must not be negative", c.Wait)
	check((c.Queue == 0) == (c.Wait == 0), "Queue", "is %d and Wait is %v; one needs the other", c.Queue, c.Wait)
	check(c.RetryAfter >= 0, "RetryAfter", "is %v; it must be a time, or 0 for 1s", c.RetryAfter)
	f.time("InFlightConfig.Wait", c.Wait)
	f.time("InFlightConfig.RetryAfter", c.RetryAfter)
	if err := f.err(); err != nil {
		return &InFlight{made: made{err: err}}, err
	}
	overload := *errOverloaded
	if c.RetryAfter > 0 {
		overload.RetryAfter = c.RetryAfter
	}
	return &InFlight{c: c, overload: &overload, shares: make(map[netip.Addr]int), made: made{ok: true}}, nil
}

func (f *InFlight) fault() error {
	if f == nil {
		return (*made)(nil).fault("InFlight")
	}
	return f.made.fault("InFlight")
}

// Wrap lets a request in to next once it has a place, and otherwise rejects it with 429
// overloaded and Retry-After. The request keeps its place until next returns or panics, also
// after a hijack. With a Timeout inside, it keeps the place while a handler that has overrun
// still runs; http.TimeoutHandler does not do this. While an error is written to a client that
// still sends, the place is free: a handler that goes on after that may exceed Max, so return.
// A request that has a place in f already passes.
func (f *InFlight) Wrap(next http.Handler) http.Handler {
	must(f.fault())
	return wrap("InFlight.Wrap", next, func(in inside, w http.ResponseWriter, r *http.Request) {
		if around(r.Context(), f) || f.c.Skip != nil && f.c.Skip(r) {
			in.ServeHTTP(w, r)
			return
		}
		var from netip.Addr
		if f.c.PerAddress > 0 {
			from = clientNetwork(r)
		}
		body, err := f.enter(w, r, from)
		rest := settleTime // after a refusal, or a panic
		if body != nil {
			defer func() {
				if body.stop(rest) {
					closeAfterReply(w)
				}
			}()
		}
		switch {
		case err == errBrokeOff:
			errorWriterOf(r.Context()).log(r, slog.LevelDebug, "admit: the client is gone", slog.Any("error", body.err))
			abort(w)
			return
		case err != nil:
			WriteError(w, r, err)
			return
		}
		s, tracked, inner := in.fill(w, r, slotPlace)
		defer s.leave(r, inner)
		if body != nil {
			inner.Body, s.ahead = body, body
		}
		s.place.take(f)
		s.place.from = from
		defer s.place.release()
		in.ServeHTTP(tracked, inner)
		rest = s.restOfBody()
		f.bodies.look(s, inner)
	})
}

// enter takes a place, for which it may wait. It returns the body if it was read meanwhile. The
// error is the rejection, or says that the client is gone.
func (f *InFlight) enter(w http.ResponseWriter, r *http.Request, from netip.Addr) (*ahead, error) {
	f.mu.Lock()
	full := f.running >= f.c.Max
	if full && f.queue.Len() >= f.c.Queue || f.c.PerAddress > 0 && f.shares[from] >= f.c.PerAddress {
		f.mu.Unlock()
		return nil, f.overload
	}
	if f.c.PerAddress > 0 {
		f.shares[from]++
	}
	if !full {
		f.running++
		f.mu.Unlock()
		return nil, nil
	}
	free := make(chan struct{})
	at := f.queue.PushBack(free)
	f.mu.Unlock()
	body := readAhead(w, r)
	return body, f.wait(r.Context(), from, free, at, body)
}

// wait ends when leave has removed the waiter from the queue and closed free, or when it has
// removed itself.
func (f *InFlight) wait(ctx context.Context, from netip.Addr, free chan struct{}, at *list.Element, body *ahead) error {
	defer noteWaited(ctx, time.Now())
	patience := time.NewTimer(f.c.Wait)
	defer patience.Stop()
	var arrived chan struct{}
	if body != nil {
		arrived = body.arrived
	}
	gone := false
	for waits := true; waits; {
		select {
		case <-free:
			waits = false
		case <-patience.C:
			waits = false
		case <-ctx.Done():
			waits = false
		case <-arrived:
			arrived, gone = nil, body.brokeOff()
			waits = !gone
		}
	}
	err := ctx.Err()
	if err == nil && gone {
		err = errBrokeOff
	}

	f.mu.Lock()
	defer f.mu.Unlock()
	select {
	case <-free:
		if err != nil {
			f.leaveLocked(from) // the client is gone and needs no place
		}
		return err
	default:
		f.queue.Remove(at)
		f.giveUpShare(from)
		if err != nil {
			return err
		}
		return f.overload
	}
}

// leave gives a place to the request that has waited longest, or back.
func (f *InFlight) leave(p *place) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.leaveLocked(p.from)
}

func (f *InFlight) leaveLocked(from netip.Addr) {
	f.giveUpShare(from)
	if at := f.queue.Front(); at != nil && f.running <= f.c.Max {
		close(f.queue.Remove(at).(chan struct{}))
		return
	}
	f.running--
}

// rejoin takes back a place that was lent. If another request has it by now, the number in
// flight exceeds Max until one leaves: a request that has waited for its client goes on at
// once.
func (f *InFlight) rejoin(p *place) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.running++
	if f.c.PerAddress > 0 {
		f.shares[p.from]++
	}
}

func (f *InFlight) giveUpShare(from netip.Addr) {
	if f.c.PerAddress == 0 {
		return
	}
	if f.shares[from]--; f.shares[from] == 0 {
		delete(f.shares, from)
	}
}

var errOverloaded = &Error{
	Status:     http.StatusTooManyRequests,
	Code:       "overloaded",
	Message:    "The server has too many requests at once. Try again.",
	RetryAfter: time.Second,
}

func (f *InFlight) answers() []Answer {
	return []Answer{answer(f.overload, "The service has as many requests as it can handle at once.")}
}

// aheadBytes is the longest body that is read ahead. Each request that waits may have one.
const aheadBytes = 16 << 10

// readAhead begins to read the body of r. It returns nil if there is no body, if it is too long
// or not the server's, if reading would ask the client to send it, or if the Read could not be
// interrupted. The caller calls stop before its ServeHTTP ends.
func readAhead(w http.ResponseWriter, r *http.Request) *ahead {
	n := r.ContentLength
	if r.ProtoMajor != 1 || n <= 0 || n > aheadBytes || reflect.TypeOf(r.Body) != serverBody || r.Header["Expect"] != nil || r.Header["Upgrade"] != nil || !canWake(w) {
		return nil
	}
	a := &ahead{source: r.Body, w: w, arrived: make(chan struct{})}
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
