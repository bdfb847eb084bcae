// Package lazyctx has a context that can be canceled and costs nothing until somebody waits
// for that.
package lazyctx

import (
	"context"
	"sync"
	"sync/atomic"
	"time"
)

// Context is a context.Context inside of another one, which End cancels. What tells those who
// wait is made when somebody first asks for Done, as who derives a context from this one does:
// most handlers never do. It must not be copied, and is safe for concurrent use.
type Context struct {
	parent context.Context
	made   atomic.Pointer[cancelable] // nil: nobody has asked

	// ended is the cause given to End, where nobody had asked and parent had not ended; nil: it
	// has not.
	ended atomic.Pointer[error]
	mu    sync.Mutex // while made or ended is set
}

// The causes of an end.
var (
	canceled = context.Canceled
	timedOut = context.DeadlineExceeded
)

type cancelable struct {
	context.Context
	cancel context.CancelCauseFunc
}

// Init sets the parent, before anybody else has the Context.
func (c *Context) Init(parent context.Context) { c.parent = parent }

// End cancels the context, because its time is over or because it is of no more use; Err and
// the cause are context.DeadlineExceeded or context.Canceled. It does nothing where the context
// has ended before. It has to be called: nothing of the context is left in the parent after it.
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
		parent = context.WithoutCancel(parent) // which may have ended since
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
		made = c.make() // which has the end of the parent as it will be told for good
	}
	if context.Cause(made) == context.DeadlineExceeded {
		return context.DeadlineExceeded
	}
	return made.Err()
}

// Deadline implements context.Context.
func (c *Context) Deadline() (time.Time, bool) { return c.parent.Deadline() }

// Value implements context.Context. Package context looks for what Done is of and for the cause
// of the end, by a key of its own: it needs no goroutine then to learn of the end.
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
