//go:build race

package admit_test

// raceDetector tells the allocation tests that the race detector allocates too.
const raceDetector = true
