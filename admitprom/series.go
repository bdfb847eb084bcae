package admitprom

import (
	"strings"
	"sync"
)

// other replaces values for which there is no room, as in OpenTelemetry's conventions for
// methods.
const other = "_OTHER"

// fold returns the label of a series that many values share. An empty label stays empty, so that
// requests with and without an error stay distinct.
func fold(label string) string {
	if label == "" {
		return ""
	}
	return other
}

// text returns a label as valid UTF-8, which storage requires.
func text(label string) string { return strings.ToValidUTF8(label, "\uFFFD") }

// series keeps one handle for each key. Once there are max, a new key shares the handle of its
// folded key. There must be few folded keys.
type series[K comparable, H any] struct {
	max  int
	fold func(K) K
	make func(K) H

	mu   sync.RWMutex
	held map[K]H
}

func newSeries[K comparable, H any](most int, fold func(K) K, makes func(K) H) *series[K, H] {
	return &series[K, H]{max: most, fold: fold, make: makes, held: map[K]H{}}
}

// of returns the handle of k. It allocates only for a new key.
func (s *series[K, H]) of(k K) H {
	s.mu.RLock()
	h, known := s.find(k)
	s.mu.RUnlock()
	if known {
		return h
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if h, known := s.find(k); known {
		return h
	}
	if len(s.held) >= s.max {
		k = s.fold(k)
	}
	h = s.make(k)
	s.held[k] = h
	return h
}

func (s *series[K, H]) find(k K) (H, bool) {
	h, known := s.held[k]
	if !known && len(s.held) >= s.max {
		h, known = s.held[s.fold(k)]
	}
	return h, known
}
