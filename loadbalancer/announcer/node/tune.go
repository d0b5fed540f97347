package node

import (
	"os"
	"runtime"
	"runtime/debug"
)

const (
	// garbage is how much of it may lie about, in percent of what is in use. What is
	// in use is some 10 MiB with a thousand addresses, so to collect it often costs
	// little, and each node of the cluster pays for what lies about.
	garbage = 40
	// processors is how many the agent uses at once. It does little, and that often:
	// with more, each of a hundred wakeups a second wakes a second thread, which finds
	// nothing to do and costs as much as what there is to do.
	processors = 1
)

// Tune makes Go's runtime fit a program of which each node has one. What the environment
// variables GOGC and GOMAXPROCS say counts more.
func Tune() {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(garbage)
	}
	if os.Getenv("GOMAXPROCS") == "" {
		runtime.GOMAXPROCS(processors)
	}
}
