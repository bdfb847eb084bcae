package lists

// Len returns how many lists there are, which it counts.
func (c *Cache[E, V]) Len() int {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return c.root.count()
}

func (n *node[E, V]) count() int {
	all := 0
	if n.made {
		all = 1
	}
	for _, longer := range n.longer {
		all += longer.count()
	}
	return all
}
