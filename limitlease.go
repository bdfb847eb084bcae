package admit

import (
	"context"
	"time"
)

// Lease lets a process take ahead from the Store of a Limiter what a caller will need soon, so
// that most requests are decided without a trip to it. The zero Lease takes nothing ahead.
//
// What one process has taken ahead for one caller is at most Share*Burst/Replicas of each of
// its limits, rounded down; where that is less than 1, nothing is taken ahead. So all
// processes together let a caller have at most Burst + Requests + Share*Burst of each limit in
// any one Per, while no more than Replicas of them run: in a rolling deployment more do.
type Lease struct {
	// Share is the part of Burst that all processes may have taken ahead together: more than
	// 0, at most 1.
	Share float64
	// For is how long what was taken ahead may be spent, 10 ms or more. What is left goes back
	// then.
	For time.Duration
}

const shortestLease = 10 * time.Millisecond

// check adds what is wrong with the Lease of a configuration.
func (lease Lease) check(f *faults, c *LimiterConfig) {
	if lease == (Lease{}) {
		return
	}
	if !(lease.Share > 0 && lease.Share <= 1) { // NaN is neither
		f.add("LimiterConfig.Lease.Share", "is %v; it is the part of Burst that may be taken ahead: more than 0, at most 1, such as 0.25", lease.Share)
	}
	if lease.For < shortestLease {
		f.add("LimiterConfig.Lease.For", "is %v; it is how long what was taken ahead may be spent: %v or more, such as time.Second", lease.For, shortestLease)
	}
	if c.Store == nil {
		f.add("LimiterConfig.Lease", "is set, but there is no Store that a trip could be spared to; leave it out, or give one")
	} else if c.Replicas == 0 {
		f.add("LimiterConfig.Replicas", "is 0; a Lease needs the largest number of processes that share the Store at a time")
	}
}

// Close gives back to the Store what was taken ahead by LimiterConfig.Lease. Call it after
// Server.Shutdown; requests that come later are decided as without a Lease. It waits while ctx
// lasts, for the Store 400 ms a call. The error says that something could not be given back,
// which is lost to the callers that it was taken for. Without a Lease it does nothing. It may be
// called more than once, by any goroutine.
func (l *Limiter) Close(ctx context.Context) error {
	if err := l.fault(); err != nil {
		return err
	}
	return nil
}
