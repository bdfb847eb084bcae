package admit

import "context"

// Around counts the runs of a Timeout, and the places in an InFlight, that the request of
// ctx is inside of.
func Around(ctx context.Context) (runs, places int) {
	runsOf(ctx, func(*timedRun) { runs++ })
	held := holdPlaces(ctx, nil)
	for _, p := range held {
		p.release()
	}
	return runs, len(held)
}
