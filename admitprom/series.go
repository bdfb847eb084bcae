package admitprom

import (
	"strings"
	"sync"
)

// other stands for what there is no room for, as OpenTelemetry has it for methods.
const other = "_OTHER"

// fold returns the label of a series that many share: nothing stays nothing, so that what has
// failed is told from what has not.
func fold(label string) string {
	if label == "" {
		return ""
	}
	return other
}

// text is a label as those take it who store it: as UTF-8.
func text(label string) string { return strings.ToValidUTF8(label, "\uFFFD") }

// series holds a handle for each key, which is made once. Once there are max, what is new
// shares the handle of its folded key; of folded keys there must be few.
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

// of returns the handle of k. It allocates nothing but for what is new.
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
