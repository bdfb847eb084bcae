package admit

import (
	"net/http"

	"github.com/admit-go/admit/internal/published"
)

// outcomes calls next, and then f if an answer has begun.
func outcomes(next http.Handler, f func(*http.Request, published.Outcome)) http.Handler {
	return wrap("Outcomes", next, func(in inside, w http.ResponseWriter, r *http.Request) {
		s, w, inner := in.fill(w, r, slotOutcome)
		defer s.leave(r, inner)
		w = track(w)
		t := tracker(w)
		returned := false
		defer func() {
			status := t.status
			if status == 0 && returned {
				status = http.StatusOK // the server sends it
			}
			if status != 0 && !t.hijacked {
				f(inner, s.outcome.of(inner, status))
			}
		}()
		in.ServeHTTP(w, inner)
		returned = true
	})
}

func (o *outcome) of(r *http.Request, status int) published.Outcome {
	out := published.Outcome{Route: r.Pattern, Status: status}
	if route := o.route.Load(); route != nil {
		out.Route = *route
	}
	if e := o.sent.Load(); e != nil && e.Status == status {
		out.Code = e.Code
	}
	return out
}

// setRoute leaves the pattern that has matched: the innermost is the last one.
func setRoute(r *http.Request, pattern *string) {
	for s := stateOf(r.Context()); s != nil; s = s.outer {
		if s.filled&slotOutcome != 0 {
			s.outcome.route.Store(pattern)
		}
	}
}
