//go:build !race

package admit_test

const raceDetector = false
