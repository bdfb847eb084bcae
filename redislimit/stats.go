package redislimit

import "github.com/admit-go/admit"

// Stats says how a Store does. Calls and Failures only grow.
type Stats struct {
	Calls    uint64 // of Redis
	Failures uint64 // of those, but not where the caller has left
	Refused  int    // callers that are known to have to wait, so that Redis is not asked for them
	Open     bool   // the last calls have failed, and Redis is not asked until a probe works
}

// Stats returns how the Store does.
func (s *Store) Stats() Stats {
	return Stats{Calls: s.calls.Load(), Failures: s.failures.Load(), Refused: s.refusals.len(), Open: s.breaker.Open()}
}

// Measures returns the Stats, for metrics.
func (s *Store) Measures() []admit.Measure {
	st := s.Stats()
	open := int64(0)
	if st.Open {
		open = 1
	}
	return []admit.Measure{
		{Name: "admit.redislimit.calls", Unit: "{call}", Help: "calls of Redis", Total: true, Value: int64(st.Calls)},
		{Name: "admit.redislimit.failures", Unit: "{call}", Help: "calls of Redis that have failed", Total: true, Value: int64(st.Failures)},
		{Name: "admit.redislimit.refused", Unit: "{caller}", Help: "callers that Redis is not asked for, since they have to wait", Value: int64(st.Refused)},
		{Name: "admit.redislimit.open", Help: "1 while Redis is not asked since the last calls have failed, else 0", Value: open},
	}
}
