package provider

import (
	"os"
	"runtime/debug"
)

// gcPercent trades a little time for memory: most of what the program has are
// copies of the cluster's objects, which stay, and by default as much again is
// kept for garbage. While a burst made Services, with 8,100 there, collecting took
// 8.5 % of a core, more than half of it idle time; at rest there is nothing to collect.
const gcPercent = 30

// LimitGarbage sets how much memory is kept for garbage, for the whole program.
// GOGC in the environment overrides it.
func LimitGarbage() {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(gcPercent)
	}
}
