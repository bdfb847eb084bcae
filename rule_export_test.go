package admit

import "context"

// Around counts the runs of a Timeout, and the places in an InFlight or a Shedder, that the
// request of ctx is inside of, be they given back or not.
func Around(ctx context.Context) (runs, places int) {
	runsOf(ctx, func(*timedRun) { runs++ })
	eachPlace(ctx, func(*place) { places++ })
	return runs, places
}
