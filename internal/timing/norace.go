//go:build !race

package timing

// raceDetector says whether the race detector is on.
const raceDetector = false
