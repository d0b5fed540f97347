package bench

import (
	"context"
	"fmt"

	"github.com/onelb/onelb/test/crash"
)

const (
	crashPoints = 1000
	crashWorlds = 3
	crashSeed   = 20260701
)

// measureCrash kills the cloud-controller-manager before and after its calls.
// What it counts is either 0 or a bug; the note has the seeds to repeat it with.
func measureCrash(ctx context.Context, b *bench) error {
	if err := b.closeShared(); err != nil {
		return err
	}
	o := crash.Options{Points: crashPoints, Processes: crashPoints / 30, Seeds: make([]uint64, crashWorlds)}
	o.Seeds[0] = crashSeed // the others are drawn
	r, err := crash.Run(ctx, o)
	if err != nil {
		return err
	}
	b.add("crash_points", float64(r.Points))
	b.note("crash_points", "%s", r)
	b.add("crash_duplicates", float64(r.Duplicates+r.Foreign))
	b.note("crash_duplicates", "%d of them published without being given", r.Foreign)
	b.add("crash_leaks", float64(r.Leaks+r.Unserved))
	b.note("crash_leaks", "%d of them Services without their addresses", r.Unserved)
	if err := r.Err(); err != nil {
		return fmt.Errorf("seeds %d: %w", r.Seeds, err)
	}
	return nil
}
