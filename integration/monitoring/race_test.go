//go:build race

package monitoring_test

// raced tells the test that waits for alerts that a service takes ten times as long.
const raced = true
