//go:build !race

package testkit

func (c *counter) add(n int64) int64 { return c.n.Add(n) }
