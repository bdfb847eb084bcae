package lazyctx_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"

	"github.com/admit-go/admit/internal/lazyctx"
)

var errOther = errors.New("other")

type key struct{}

// Everything that can happen to a Context and to its parent, in every order, is what happens to
// the contexts of the standard library.
func TestAsTheStandardLibrary(t *testing.T) {
	t.Parallel()
	type pair struct {
		lazy      *lazyctx.Context
		std       context.Context
		endStd    context.CancelCauseFunc
		endParent context.CancelCauseFunc
		cause     error // of the parent's end
	}
	steps := map[string]func(*pair){
		"ask":            func(p *pair) { p.lazy.Done() },
		"end":            func(p *pair) { p.lazy.End(false); p.endStd(nil) },
		"time out":       func(p *pair) { p.lazy.End(true); p.endStd(context.DeadlineExceeded) },
		"end the parent": func(p *pair) { p.endParent(p.cause) },
	}
	var orders [][]string
	for a := range steps {
		for b := range steps {
			for c := range steps {
				for d := range steps {
					orders = append(orders, []string{a, b, c, d})
				}
			}
		}
	}
	for i, order := range append(orders, orders...) {
		cause := errOther
		if i >= len(orders) {
			cause = context.DeadlineExceeded // as a Timeout further out has it
		}
		p := &pair{cause: cause}
		var parent context.Context
		parent, p.endParent = context.WithCancelCause(context.WithValue(t.Context(), key{}, "value"))
		p.lazy = new(lazyctx.Context)
		p.lazy.Init(parent)
		p.std, p.endStd = context.WithCancelCause(parent)
		for i, step := range order {
			steps[step](p)
			at := fmt.Sprint(order, i)
			wantErr := p.std.Err()
			if context.Cause(p.std) == context.DeadlineExceeded {
				wantErr = context.DeadlineExceeded
			}
			assert.Equal(t, wantErr, p.lazy.Err(), at)
			assert.Equal(t, context.Cause(p.std), context.Cause(p.lazy), at)
			assert.Equal(t, "value", p.lazy.Value(key{}), at)
		}
		derived, cancel := context.WithCancel(p.lazy)
		assert.Equal(t, p.std.Err() != nil, isDone(p.lazy), order)
		assert.Equal(t, p.lazy.Err(), derived.Err(), order)
		assert.Equal(t, context.Cause(p.std), context.Cause(derived), order)
		cancel()
		p.lazy.End(false)
		p.endStd(nil)
		p.endParent(nil)
	}
}

func isDone(ctx context.Context) bool {
	select {
	case <-ctx.Done():
		return true
	default:
		return false
	}
}

// What a Context says of its end does not depend on whether somebody has waited for it, and
// stays: also where its parent has a way of its own to end.
func TestErrStays(t *testing.T) {
	t.Parallel()
	over, cancel := context.WithCancelCause(t.Context())
	cancel(context.DeadlineExceeded)
	canceled, cancel := context.WithCancelCause(t.Context())
	cancel(nil)
	for name, parent := range map[string]context.Context{
		"its time is over":  over,
		"an error of it":    failing{canceled},
		"ends with nothing": canceled,
	} {
		asked, lazy := new(lazyctx.Context), new(lazyctx.Context)
		asked.Init(parent)
		lazy.Init(parent)
		asked.Done()
		assert.Equal(t, asked.Err(), lazy.Err(), name)
		before := lazy.Err()
		lazy.Done()
		assert.Equal(t, before, lazy.Err(), name)
	}
}

// failing is a context of others, with an error of its own.
type failing struct{ context.Context }

func (f failing) Err() error {
	if f.Context.Err() != nil {
		return errOther
	}
	return nil
}

// A context that is derived from one learns of its end without a goroutine.
func TestNoGoroutine(t *testing.T) {
	parent, cancel := context.WithCancel(t.Context())
	defer cancel()
	before := runtime.NumGoroutine()
	c := new(lazyctx.Context)
	c.Init(parent)
	var derived []context.Context
	for range 100 {
		d, cancel := context.WithTimeout(c, time.Hour)
		defer cancel()
		derived = append(derived, d)
	}
	assert.LessOrEqual(t, runtime.NumGoroutine(), before)
	c.End(false)
	for _, d := range derived {
		assert.Equal(t, context.Canceled, d.Err())
	}
}

// One that has ended leaves nothing in its parent: it would, with each request of a connection.
func TestEndLeavesNothing(t *testing.T) {
	parent, cancel := context.WithCancel(t.Context())
	defer cancel()
	for _, ask := range []func(*lazyctx.Context){func(*lazyctx.Context) {}, func(c *lazyctx.Context) { c.Done() }} {
		freed := make(chan struct{})
		func() {
			c := new(lazyctx.Context)
			c.Init(parent)
			ask(c)
			c.End(false)
			c.Done() // by who is late
			runtime.AddCleanup(c, func(freed chan struct{}) { close(freed) }, freed)
		}()
		for range 20 {
			runtime.GC()
		}
		select {
		case <-freed:
		case <-time.After(time.Minute):
			t.Fatal("the parent still has it")
		}
	}
}

func TestAtOnce(t *testing.T) {
	t.Parallel()
	for range 500 {
		parent, cancel := context.WithCancel(t.Context())
		c := new(lazyctx.Context)
		c.Init(parent)
		defer cancel()
		var all sync.WaitGroup
		for i := range 6 {
			all.Go(func() {
				switch i {
				case 0:
					c.End(true)
				case 1:
					cancel()
				default:
					<-c.Done()
					assert.Error(t, c.Err())
					c.Value(t)
				}
			})
		}
		all.Wait()
		first := c.Err()
		c.End(false)
		assert.Equal(t, first, c.Err(), "it does not change")
	}
}

func TestCostsNothing(t *testing.T) {
	parent, cancel := context.WithCancel(t.Context())
	defer cancel()
	c := make([]lazyctx.Context, 101)
	i := 0
	assert.Zero(t, testing.AllocsPerRun(100, func() {
		c[i].Init(parent)
		_, _ = c[i].Err(), c[i].Value(t)
		_, _ = c[i].Deadline()
		c[i].End(false)
		i++
	}))
}
