package redislimit

import "github.com/admit-go/admit"

// Stats are the counters and the state of a Store. Calls and Failures only grow.
type Stats struct {
	Calls    uint64 // calls of Redis
	Failures uint64 // calls that failed, except those whose request was canceled
	Refused  int    // rejected callers that are remembered, so that Redis is not asked about them
	Open     bool   // the last calls have failed; Redis is not asked until a probe succeeds
}

// Stats returns the counters and the state of the Store.
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
		{Name: "admit.redislimit.failures", Unit: "{call}", Help: "calls of Redis that failed", Total: true, Value: int64(st.Failures)},
		{Name: "admit.redislimit.refused", Unit: "{caller}", Help: "rejected callers that Redis is not asked about, since they have to wait", Value: int64(st.Refused)},
		{Name: "admit.redislimit.open", Help: "1 while Redis is not asked, since the last calls have failed; else 0", Value: open},
	}
}
