package redislimit

// Known is how many refused callers are remembered.
func (s *Store) Known() int {
	s.refusals.mu.Lock()
	defer s.refusals.mu.Unlock()
	return len(s.refusals.known)
}
