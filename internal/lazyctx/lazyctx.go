// Package lazyctx has a context that can be canceled, and that allocates nothing until something
// waits for that.
package lazyctx

import (
	"context"
	"sync"
	"sync/atomic"
	"time"
)

// Context is a context.Context derived from a parent, which End cancels. It creates its channel
// at the first call of Done, which deriving a context makes too; most handlers do neither. It
// must not be copied, and is safe for concurrent use.
type Context struct {
	parent context.Context
	made   atomic.Pointer[cancelable] // nil: Done has not been called

	// ended is the cause given to End, if made was nil and the parent had not ended then.
	ended atomic.Pointer[error]
	mu    sync.Mutex // held while made or ended is set
}

// The causes that End sets.
var (
	canceled = context.Canceled
	timedOut = context.DeadlineExceeded
)

type cancelable struct {
	context.Context
	cancel context.CancelCauseFunc
}

// Init sets the parent. It must be called before the Context is used.
func (c *Context) Init(parent context.Context) { c.parent = parent }

// End cancels the context, because its time is over or because it is not used any more. Err and
// the cause are then context.DeadlineExceeded or context.Canceled. End does nothing if the
// context has ended before. It must be called, since it removes the context from its parent.
func (c *Context) End(overdue bool) {
	cause := &canceled
	if overdue {
		cause = &timedOut
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if made := c.made.Load(); made != nil {
		made.cancel(*cause)
	} else if c.ended.Load() == nil && c.parent.Err() == nil {
		c.ended.Store(cause)
	}
}

// Done implements context.Context.
func (c *Context) Done() <-chan struct{} { return c.make().Done() }

func (c *Context) make() *cancelable {
	if made := c.made.Load(); made != nil {
		return made
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if made := c.made.Load(); made != nil {
		return made
	}
	parent, ended := c.parent, c.ended.Load()
	if ended != nil {
		parent = context.WithoutCancel(parent) // the parent may have ended since
	}
	made := new(cancelable)
	made.Context, made.cancel = context.WithCancelCause(parent)
	if ended != nil {
		made.cancel(*ended)
	}
	c.made.Store(made)
	return made
}

// Err implements context.Context.
func (c *Context) Err() error {
	if ended := c.ended.Load(); ended != nil {
		return *ended
	}
	made := c.made.Load()
	if made == nil {
		if c.parent.Err() == nil {
			return nil
		}
		made = c.make() // which keeps the error of the parent from now on
	}
	if context.Cause(made) == context.DeadlineExceeded {
		return context.DeadlineExceeded
	}
	return made.Err()
}

// Deadline implements context.Context.
func (c *Context) Deadline() (time.Time, bool) { return c.parent.Deadline() }

// Value implements context.Context. By a key of its own, package context looks for the context
// that Done belongs to, so that it needs no goroutine to learn of the end, and for the cause.
func (c *Context) Value(key any) any {
	made := c.made.Load()
	if made == nil && c.ended.Load() != nil {
		made = c.make()
	}
	if made != nil {
		return made.Value(key)
	}
	return c.parent.Value(key)
}
