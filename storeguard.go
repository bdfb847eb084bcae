package admit

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/admit-go/admit/internal/breaker"
	"github.com/admit-go/admit/internal/outage"
)

const (
	// storeWait is how long a request waits for a LimitStore or a QuotaStore. A store that takes
	// longer, or that fails after slowFailure or more, is not asked until a probe succeeds.
	storeWait      = 400 * time.Millisecond
	slowFailure    = 100 * time.Millisecond
	storeProbe     = time.Second     // after the last call, or the last probe
	storeProbeWait = 5 * time.Second // until the next probe, whatever became of this one

	// maxStoreCalls is how many calls may be under way, including those that never return.
	maxStoreCalls = 4096
)

var (
	errStoreLate = fmt.Errorf("no answer in %v: %w", storeWait, context.DeadlineExceeded)
	errStoreBusy = fmt.Errorf("%d calls are under way, and have not been answered", maxStoreCalls)
)

// storeGuard guards a store of a user, which may hang, fail or panic.
//
// A call goes on when the wait for it is over, and what it does then stays done.
type storeGuard struct {
	epoch   time.Time
	breaker breaker.Breaker
	calls   atomic.Int64 // under way, including late ones

	outage outage.Outage
	late   atomic.Int64 // late calls that took something in the outage
}

func (g *storeGuard) begin() {
	g.epoch = time.Now()
	g.breaker.Failures, g.breaker.ProbeEvery = 1, storeProbe
}

func (g *storeGuard) now() time.Duration { return time.Since(g.epoch) }

// storeCall is what is asked of a store.
type storeCall[T any] struct {
	ask   func(context.Context) (T, error)
	probe func(context.Context) (T, error) // changes nothing; no request waits for it
	late  func(T)                          // called with an answer that came too late; nil: not called
}

// in asks, and waits for at most storeWait. It fails at once after a failure, until a probe
// succeeds.
func (c storeCall[T]) in(ctx context.Context, g *storeGuard) (T, error) {
	var none T
	cause, probe := g.breaker.Check(g.now())
	if probe {
		go c.look(g)
	}
	if cause != nil {
		return none, fmt.Errorf("not asked, since it was late: %w", cause)
	}
	began := g.now()
	answer, err := c.wait(ctx, g, storeWait, c.ask)
	switch took := g.now() - began; {
	case err != nil && took >= slowFailure && ctx.Err() == nil:
		g.breaker.Failed(err, began+took)
	case err == nil:
		g.breaker.Worked()
	}
	return answer, err
}

// look probes the store.
func (c storeCall[T]) look(g *storeGuard) {
	began := g.now()
	c.late = nil
	_, err := c.wait(context.Background(), g, storeProbeWait, c.probe)
	if err == nil && g.now()-began > storeWait {
		err = errStoreLate
	}
	g.breaker.Probed(err, g.now())
}

// wait makes the call in a goroutine, which it leaves behind when the wait is over.
func (c storeCall[T]) wait(ctx context.Context, g *storeGuard, wait time.Duration, call func(context.Context) (T, error)) (T, error) {
	var none T
	if g.calls.Add(1) > maxStoreCalls {
		g.calls.Add(-1)
		return none, errStoreBusy
	}
	type outcome struct {
		answer T
		err    error
	}
	bounded, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	done := make(chan outcome, 1)
	var over atomic.Bool // set by the call or by the end of the wait, whichever comes first
	go func() {
		defer g.calls.Add(-1)
		answer, err := caught(bounded, call)
		if over.CompareAndSwap(false, true) {
			done <- outcome{answer, err}
		} else if err == nil && c.late != nil {
			c.late(answer)
		}
	}()
	select {
	case o := <-done:
		return o.answer, o.err
	case <-bounded.Done():
	}
	if !over.CompareAndSwap(false, true) {
		o := <-done
		return o.answer, o.err
	}
	if err := ctx.Err(); err != nil {
		return none, err
	}
	return none, errStoreLate
}

func caught[T any](ctx context.Context, call func(context.Context) (T, error)) (answer T, err error) {
	defer func() {
		if v := recover(); v != nil {
			err = fmt.Errorf("the store panicked: %v", v)
		}
	}()
	return call(ctx)
}

// failed notes a decision without the store. It logs only the first one of an outage; with
// RefuseAll, the ErrorWriter also logs each request that is rejected.
func (g *storeGuard) failed(r *http.Request, err error, attrs ...slog.Attr) {
	tell := g.outage.Failed()
	g.outage.Without()
	if tell {
		attrs = append(attrs, slog.Any("error", err))
		errorWriterOf(r.Context()).log(r, slog.LevelWarn, "admit: the limit store failed", attrs...)
	}
}

// worked notes a decision of the store.
func (g *storeGuard) worked(r *http.Request, attrs ...slog.Attr) {
	away, without, tell := g.outage.Worked()
	if !tell {
		return
	}
	attrs = append(attrs, outage.Away(away), slog.Int64("decisions_without_it", without))
	if late := g.late.Swap(0); late > 0 {
		attrs = append(attrs, slog.Int64("late_takes_that_count", late))
	}
	errorWriterOf(r.Context()).log(r, slog.LevelInfo, "admit: the limit store is back", attrs...)
}
