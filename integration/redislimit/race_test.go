//go:build race

package redislimit_test

// raced tells tests that a Redis which is written in Go takes ten times as long.
const raced = true
