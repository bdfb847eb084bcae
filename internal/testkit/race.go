//go:build race

package testkit

import "runtime"

func (c *counter) add(n int64) int64 {
	runtime.RaceDisable()
	defer runtime.RaceEnable()
	return c.n.Add(n)
}
