//go:build !race

package monitoring_test

const raced = false
