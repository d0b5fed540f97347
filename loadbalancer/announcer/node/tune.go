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
	// processors is how many the agent uses at once, at most. It does little, and that
	// often: at each wakeup Go's runtime wakes more threads, up to half as many as it may
	// use, which find nothing to do. One would cost an idle agent a fifth less still, but
	// then gossip and the collector take their time from the takeover of a thousand
	// addresses, on a node that has little of it.
	processors = 2
)

// Tune makes Go's runtime fit a program of which each node has one. What the environment
// variables GOGC and GOMAXPROCS say counts more.
func Tune() {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(garbage)
	}
	if os.Getenv("GOMAXPROCS") == "" {
		runtime.GOMAXPROCS(min(processors, runtime.GOMAXPROCS(0)))
	}
}
