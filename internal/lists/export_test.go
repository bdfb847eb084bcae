package lists

// Len returns how many lists there are.
func (c *Cache[E, V]) Len() int {
	c.mu.RLock()
	defer c.mu.RUnlock()
	n := 0
	for _, entries := range c.values {
		n += len(entries)
	}
	return n
}
