//go:build race

package srp

// raceDetector tells that tests run under the race detector.
const raceDetector = true
