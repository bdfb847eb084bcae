package admit

import "context"

// Around counts the runs of a Timeout, and the places in an InFlight, that the request of
// ctx is inside of, be they given back or not.
func Around(ctx context.Context) (runs, places int) {
	runsOf(ctx, func(*timedRun) { runs++ })
	for s := find(ctx, slotPlace); s != nil; s = s.outer {
		if s.filled&slotPlace != 0 {
			places++
		}
	}
	return runs, places
}
