// Package lists caches values that are computed from short lists, such as the limits of a caller.
package lists

import (
	"slices"
	"sync"
)

// most bounds the lists in a cache. Beyond that, the cache is emptied.
const most = 10_000

// Cache keeps a value for each list. The zero Cache is empty. It is safe for concurrent
// use.
type Cache[E comparable, V any] struct {
	mu   sync.RWMutex
	root node[E, V]
	n    int // lists that have a value
}

// node represents a list: the list of its parent and one more element.
type node[E comparable, V any] struct {
	longer map[E]*node[E, V]
	made   bool
	value  V
}

// Get returns the value of a list, which it computes unless it is cached. Errors are not cached.
func (c *Cache[E, V]) Get(list []E, make func([]E) (V, error)) (V, error) {
	if v, made := c.find(list); made {
		return v, nil
	}
	list = slices.Clone(list)
	v, err := make(list)
	if err != nil {
		return v, err
	}
	return c.put(list, v), nil
}

func (c *Cache[E, V]) find(list []E) (v V, made bool) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	at := &c.root
	for _, e := range list {
		if at = at.longer[e]; at == nil {
			return v, false
		}
	}
	return at.value, at.made
}

// put caches v, unless another goroutine was faster, and returns the cached value.
func (c *Cache[E, V]) put(list []E, v V) V {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.n == most {
		c.root, c.n = node[E, V]{}, 0
	}
	at := &c.root
	for _, e := range list {
		next := at.longer[e]
		if next == nil {
			if at.longer == nil {
				at.longer = map[E]*node[E, V]{}
			}
			next = new(node[E, V])
			at.longer[e] = next
		}
		at = next
	}
	if !at.made {
		at.made, at.value = true, v
		c.n++
	}
	return at.value
}
