//go:build race

package calendar_test

// raceDetector tells the model that all takes ten times as long.
const raceDetector = true
