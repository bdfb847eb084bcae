//go:build !race

package sqlquota_test

const raced = false
