package crash_test

import (
	"flag"
	"os"
	"testing"

	"github.com/onelb/onelb/test/crash"
)

var (
	points    = flag.Int("crash.points", 0, "kills in all; 0: a short run")
	processes = flag.Int("crash.processes", -1, "how many of them are SIGKILLs of the real program; -1: one in thirty")
	seed      = flag.Uint64("crash.seed", 0, "seed of the first cluster; 0: a fixed one")
	logFile   = flag.String("crash.log", "", "file for what the instances log")
	worlds    = flag.Int("crash.worlds", 2, "clusters side by side, each with a share of the kills; all but the first have random seeds")
	keep      = flag.Bool("crash.keep", false, "keep the directory with the logs of the programs")
)

// fixedSeed is the plan that every run goes through.
const fixedSeed = 20260701

func TestKilledAtEveryCall(t *testing.T) {
	n := *points
	if n == 0 {
		n = 60
	}
	seeds := []uint64{fixedSeed}
	if *seed != 0 {
		seeds = []uint64{*seed}
	}
	for len(seeds) < *worlds {
		seeds = append(seeds, 0)
	}
	o := crash.Options{Points: n, Processes: *processes, Seeds: seeds, Progress: os.Stderr, KeepDir: *keep}
	if o.Processes < 0 {
		o.Processes = max(1, n/30)
	}
	if *logFile != "" {
		f, err := os.Create(*logFile)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = f.Close() }()
		o.Log = f
	}
	report, err := crash.Run(t.Context(), o)
	t.Logf("%s\n%s", report, report.Table())
	if err != nil {
		t.Fatal(err)
	}
	if err := report.Err(); err != nil {
		t.Error(err)
	}
	if report.Points < n {
		t.Errorf("%d kills, want %d", report.Points, n)
	}
}
