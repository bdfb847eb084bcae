//go:build race

package sqlquota_test

// raced tells tests that SQLite, which is written in Go, takes ten times as long.
const raced = true
