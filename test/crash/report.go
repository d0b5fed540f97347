package crash

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"
)

// Options of a run.
type Options struct {
	// Points is how many kills there are in all. Default 1,000.
	Points int
	// Processes is how many of them are SIGKILLs of the real program.
	Processes int
	// Seeds of the plans, one for each world: a cluster of its own, with its
	// share of the kills. Worlds are worked on side by side, since most of the
	// time is waiting. 0 draws a seed; default is one that is drawn.
	Seeds []uint64
	// Progress gets lines for people; nil discards them.
	Progress io.Writer
	// Log gets what the instances inside this process log; nil discards it.
	Log io.Writer
	// KeepDir leaves the directory with logs in place and says where it is.
	KeepDir bool
}

// Report is the outcome of a run.
type Report struct {
	Seeds      []uint64 // of the plans, also those that were drawn
	Points     int      // kills
	Processes  int      // of them SIGKILLs of the real program
	Duplicates int      // addresses that two had at once
	Foreign    int      // published, and not ours or another's
	Leaks      int      // lost: reserved, held or recorded for nobody, or not recorded
	Unserved   int      // Services without their addresses when the time was up
	SetAside   int      // addresses about which a person had to decide, which is no broken promise
	Hits       map[Point]int
	Duration   time.Duration
	Violations []string // what the figures above count, in order
}

// Err is an error that tells all violations, nil without any.
func (r Report) Err() error {
	errs := make([]error, 0, len(r.Violations))
	for _, v := range r.Violations {
		errs = append(errs, errors.New(v))
	}
	return errors.Join(errs...)
}

// add takes in what happened in another world.
func (r *Report) add(o Report) {
	r.Seeds = append(r.Seeds, o.Seeds...)
	r.Points += o.Points
	r.Processes += o.Processes
	r.Duplicates += o.Duplicates
	r.Foreign += o.Foreign
	r.Leaks += o.Leaks
	r.Unserved += o.Unserved
	r.SetAside += o.SetAside
	r.Violations = append(r.Violations, o.Violations...)
	for p, n := range o.Hits {
		r.Hits[p] += n
	}
}

// Table shows which calls were hit, and how often in each phase.
func (r Report) Table() string {
	rows := map[string][3]int{}
	for p, n := range r.Hits {
		row := rows[p.Kind]
		row[slices.Index([]Phase{Before, After, Late}, p.Phase)] += n
		rows[p.Kind] = row
	}
	kinds := make([]string, 0, len(rows))
	for k := range rows {
		kinds = append(kinds, k)
	}
	slices.SortFunc(kinds, func(a, b string) int {
		return cmp.Or(strings.Compare(a[strings.LastIndex(a, " ")+1:], b[strings.LastIndex(b, " ")+1:]), strings.Compare(a, b))
	})
	var b strings.Builder
	fmt.Fprintf(&b, "%-40s %7s %7s %7s\n", "call", "before", "after", "late")
	for _, k := range kinds {
		fmt.Fprintf(&b, "%-40s %7d %7d %7d\n", k, rows[k][0], rows[k][1], rows[k][2])
	}
	return b.String()
}

// String is the summary in one line.
func (r Report) String() string {
	return fmt.Sprintf("seeds %d: %d kills (%d of them SIGKILL) at %d points in %s: %d duplicates, %d foreign, %d leaks, %d unserved; %d set aside",
		r.Seeds, r.Points, r.Processes, len(r.Hits), r.Duration.Round(time.Second), r.Duplicates, r.Foreign, r.Leaks, r.Unserved, r.SetAside)
}
