//go:build race

package ipam

// raceDetector says that this is a build with the race detector.
const raceDetector = true
