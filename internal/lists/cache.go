// Package lists keeps what was made from short lists, such as the limits of a caller, so
// that the same list again costs nothing.
package lists

import (
	"slices"
	"sync"
)

// most bounds the lists of a cache. Who has more of them makes some again.
const most = 10_000

// Cache keeps a value for each list. The zero Cache is empty. It is safe for concurrent
// use.
type Cache[E comparable, V any] struct {
	mu     sync.RWMutex
	values map[head[E]][]entry[E, V]
	n      int
}

// head tells most lists apart, and needs no allocation to be looked up.
type head[E comparable] struct {
	length int
	first  [4]E
}

type entry[E comparable, V any] struct {
	list  []E
	value V
}

// Get returns the value of a list, which it makes unless it is there. An error is not kept.
func (c *Cache[E, V]) Get(list []E, make func([]E) (V, error)) (V, error) {
	h := head[E]{length: len(list)}
	copy(h.first[:], list)
	c.mu.RLock()
	e := find(c.values[h], list)
	c.mu.RUnlock()
	if e != nil {
		return e.value, nil
	}
	list = slices.Clone(list)
	v, err := make(list)
	if err != nil {
		return v, err
	}
	return c.put(h, list, v), nil
}

// put keeps v, unless somebody else was faster, and returns what is kept.
func (c *Cache[E, V]) put(h head[E], list []E, v V) V {
	c.mu.Lock()
	defer c.mu.Unlock()
	if e := find(c.values[h], list); e != nil {
		return e.value
	}
	if c.values == nil || c.n == most {
		c.values, c.n = map[head[E]][]entry[E, V]{}, 0
	}
	c.values[h] = append(c.values[h], entry[E, V]{list, v})
	c.n++
	return v
}

func find[E comparable, V any](entries []entry[E, V], list []E) *entry[E, V] {
	for i := range entries {
		if slices.Equal(entries[i].list, list) {
			return &entries[i]
		}
	}
	return nil
}
