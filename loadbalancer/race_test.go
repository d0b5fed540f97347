//go:build race

package loadbalancer

// raceDetector says that this is a build with the race detector.
const raceDetector = true
