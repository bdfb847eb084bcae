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
	// storeWait is how long a request waits for a LimitStore, and slowFailure how long for one
	// that then fails. Who exceeds it is left alone until a probe has found it well.
	storeWait      = 400 * time.Millisecond
	slowFailure    = 100 * time.Millisecond
	storeProbe     = time.Second     // after the last call, or the last probe
	storeProbeWait = 5 * time.Second // until the next probe, whatever became of this one

	// maxStoreCalls is how many calls may be under way, with those that never return.
	maxStoreCalls = 4096
)

var (
	errStoreLate = fmt.Errorf("no answer in %v: %w", storeWait, context.DeadlineExceeded)
	errStoreBusy = fmt.Errorf("%d calls are under way, and have not been answered", maxStoreCalls)
)

// guardedStore asks the LimitStore of somebody else, which may hang, fail or panic.
//
// A call that nobody waits for any more goes on. What it takes then stays taken: the
// caller is charged by the store as well as by the share of this process, once each.
type guardedStore struct {
	store   LimitStore
	bounded bool // it guards itself
	epoch   time.Time
	breaker breaker.Breaker
	calls   atomic.Int64 // under way, also those that nobody waits for

	outage outage.Outage
	late   atomic.Int64 // calls that took something after nobody waited for them, in the outage
}

func newGuardedStore(store LimitStore) *guardedStore {
	g := &guardedStore{store: store, epoch: time.Now()}
	if s, ok := store.(interface{ MaxWait() time.Duration }); ok {
		g.bounded = s.MaxWait() <= storeWait
	}
	g.breaker.Failures, g.breaker.ProbeEvery = 1, storeProbe
	return g
}

func (g *guardedStore) now() time.Duration { return time.Since(g.epoch) }

// take is Take, in storeWait at most, and at once while the store is left alone.
func (g *guardedStore) take(ctx context.Context, key string, cost int, limits []Limit) (Decision, error) {
	if err := ctx.Err(); err != nil {
		return Decision{}, err // for nobody nothing is asked
	}
	if g.bounded {
		return g.store.Take(ctx, key, cost, limits)
	}
	cause, probe := g.breaker.Check(g.now())
	if probe {
		go g.probe(key, limits)
	}
	if cause != nil {
		return Decision{}, fmt.Errorf("not asked, since it was late: %w", cause)
	}
	began := g.now()
	d, err := g.ask(ctx, storeWait, key, cost, limits)
	switch took := g.now() - began; {
	case err != nil && took >= slowFailure && ctx.Err() == nil:
		g.breaker.Failed(err, began+took)
	case err == nil:
		g.breaker.Worked()
	}
	return d, err
}

// probe looks at the buckets of a caller who does not wait for it.
func (g *guardedStore) probe(key string, limits []Limit) {
	began := g.now()
	_, err := g.ask(context.Background(), storeProbeWait, key, 0, limits)
	if err == nil && g.now()-began > storeWait {
		err = errStoreLate
	}
	g.breaker.Probed(err, g.now())
}

// ask calls Take in a goroutine that can be left behind.
func (g *guardedStore) ask(ctx context.Context, wait time.Duration, key string, cost int, limits []Limit) (Decision, error) {
	if g.calls.Add(1) > maxStoreCalls {
		g.calls.Add(-1)
		return Decision{}, errStoreBusy
	}
	type outcome struct {
		d   Decision
		err error
	}
	bounded, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	done := make(chan outcome, 1)
	var over atomic.Bool // set by who is first: the call, or the end of the wait
	go func() {
		defer g.calls.Add(-1)
		d, err := g.call(bounded, key, cost, limits)
		if over.CompareAndSwap(false, true) {
			done <- outcome{d, err}
		} else if err == nil && d.Allowed && cost > 0 {
			g.late.Add(1)
		}
	}()
	select {
	case o := <-done:
		return o.d, o.err
	case <-bounded.Done():
	}
	if !over.CompareAndSwap(false, true) {
		o := <-done
		return o.d, o.err
	}
	if err := ctx.Err(); err != nil {
		return Decision{}, err
	}
	return Decision{}, errStoreLate
}

func (g *guardedStore) call(ctx context.Context, key string, cost int, limits []Limit) (d Decision, err error) {
	defer func() {
		if v := recover(); v != nil {
			err = fmt.Errorf("the store panicked: %v", v)
		}
	}()
	return g.store.Take(ctx, key, cost, limits)
}

// failed notes a decision without the store. RefuseAll logs each request that it refuses
// anyway.
func (g *guardedStore) failed(r *http.Request, err error, attrs ...slog.Attr) {
	tell := g.outage.Failed()
	g.outage.Without()
	if tell {
		attrs = append(attrs, slog.Any("error", err))
		errorWriterOf(r.Context()).log(r, slog.LevelWarn, "admit: the limit store failed", attrs...)
	}
}

// worked notes a decision of the store.
func (g *guardedStore) worked(r *http.Request, attrs ...slog.Attr) {
	away, without, tell := g.outage.Worked()
	if !tell {
		return
	}
	attrs = append(attrs, slog.Duration("away", away), slog.Int64("decisions_without_it", without))
	if late := g.late.Swap(0); late > 0 {
		attrs = append(attrs, slog.Int64("late_takes_that_count", late))
	}
	errorWriterOf(r.Context()).log(r, slog.LevelWarn, "admit: the limit store is back", attrs...)
}
