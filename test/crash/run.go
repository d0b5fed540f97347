package crash

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"time"

	"k8s.io/klog/v2"
)

const (
	// serveTime and settleTime are generous: what counts is that it comes to pass.
	serveTime  = 2 * time.Minute
	settleTime = 4 * time.Minute
	// settleEvery is after how many kills the whole balance is drawn.
	settleEvery = 100
	// patience is how long a call is waited for after an operation, and tries
	// after how many operations any call will do.
	patience = 250 * time.Millisecond
	tries    = 4
	// lateness is how long a late call stays behind its successor.
	lateness = 200 * time.Millisecond
)

// Run kills Options.Points times. The error says what kept it from working;
// broken promises are in the report.
func Run(ctx context.Context, o Options) (report Report, err error) {
	if o.Points == 0 {
		o.Points = 1000
	}
	if len(o.Seeds) == 0 {
		o.Seeds = []uint64{0}
	}
	if o.Progress == nil {
		o.Progress = io.Discard
	}
	if o.Log == nil {
		o.Log = io.Discard
	}
	o.Progress, o.Log = &lines{to: o.Progress}, &lines{to: o.Log}
	defer redirect(o.Log)()
	begin := time.Now()
	reports, errs := make([]Report, len(o.Seeds)), make([]error, len(o.Seeds))
	var all sync.WaitGroup
	for i, seed := range o.Seeds {
		if seed == 0 {
			seed = rand.Uint64()
		}
		part := o
		part.Points, part.Processes = share(o.Points, i, len(o.Seeds)), share(o.Processes, i, len(o.Seeds))
		all.Go(func() { reports[i], errs[i] = runWorld(ctx, part, seed) })
	}
	all.Wait()
	report = Report{Hits: map[Point]int{}, Duration: time.Since(begin)}
	for _, r := range reports {
		report.add(r)
	}
	return report, errors.Join(errs...)
}

// share is the i-th of n parts of a whole.
func share(whole, i, n int) int { return (i+1)*whole/n - i*whole/n }

// lines writes whole lines of several worlds one after the other.
type lines struct {
	mu sync.Mutex
	to io.Writer
}

// Write implements io.Writer.
func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.to.Write(p)
}

// runWorld makes a cluster, works on it, and takes it down.
func runWorld(ctx context.Context, o Options, seed uint64) (report Report, err error) {
	begin := time.Now()
	w, err := newWorld(ctx, o, seed)
	if err != nil {
		return Report{Seeds: []uint64{seed}}, err
	}
	defer func() { err = errors.Join(err, w.close()) }()
	w.say("crash: seed %d: %d kills, API server is ready after %s", seed, o.Points, time.Since(begin).Round(time.Second))
	d := &driver{world: w, told: map[string]bool{}, begin: begin}
	err = d.drive(ctx)
	w.report.Duration = time.Since(begin)
	if err != nil {
		err = fmt.Errorf("seed %d, after %d kills: %w", seed, w.report.Points, err)
	}
	return w.report, err
}

// redirect has all logging of this process go to a writer, until undo.
func redirect(to io.Writer) (undo func()) {
	flags := flag.NewFlagSet("klog", flag.ContinueOnError)
	klog.InitFlags(flags)
	threshold := flags.Lookup("stderrthreshold").Value.String()
	_ = flags.Set("stderrthreshold", "FATAL") // the names and values are klog's own
	klog.LogToStderr(false)
	klog.SetOutput(to)
	return func() {
		klog.Flush()
		_ = flags.Set("stderrthreshold", threshold)
		klog.LogToStderr(true)
	}
}

// driver leads through a run.
type driver struct {
	*world
	now   *instance // the one that leads
	trail []string  // what happened last, for the text of a violation
	told  map[string]bool
	begin time.Time
}

func (d *driver) drive(ctx context.Context) (err error) {
	if err := d.script.setup(ctx); err != nil {
		return err
	}
	if d.now, err = d.startInstance(nil); err != nil {
		return err
	}
	defer func() { d.now.end() }()
	if err := d.converge(ctx, serveTime, d.served); err != nil {
		return err
	}
	next := settleEvery
	for d.report.Points < d.o.Points {
		if err := d.round(ctx); err != nil {
			return err
		}
		if d.report.Points >= next {
			next += settleEvery
			if err := d.converge(ctx, settleTime, d.settledBy(ctx)); err != nil {
				return err
			}
			d.report.Duration = time.Since(d.begin)
			d.say("crash: %s", d.report)
		}
	}
	if err := d.converge(ctx, settleTime, d.settledBy(ctx)); err != nil {
		return err
	}
	if err := d.script.end(ctx); err != nil {
		return err
	}
	return d.converge(ctx, settleTime, d.nothing)
}

// nothing is what is left when all is deleted.
func (w *world) nothing(s *state) []violation {
	out := w.settled(s)
	for _, v := range s.vips {
		out = append(out, violation{leaks, v.Name + " is still there"})
	}
	for name := range s.pools {
		out = append(out, violation{leaks, "AddressPool " + name + " is still there"})
	}
	return out
}

// round has an instance die once, or several in a row.
func (d *driver) round(ctx context.Context) error {
	kill := d.crash
	switch n := d.rng.IntN(20); {
	case d.report.Processes < d.o.Processes && d.rng.IntN(d.o.Points) < 2*d.o.Processes:
		kill = d.process
	case d.o.Points-d.report.Points <= d.o.Processes-d.report.Processes:
		kill = d.process
	case n < 2:
		kill = d.leaderChange
	case n < 4:
		kill = d.overlap
	}
	if err := kill(ctx); err != nil {
		return err
	}
	for d.now.armed() || d.now.isDead() {
		if err := d.startup(ctx); err != nil {
			return err
		}
	}
	return d.converge(ctx, serveTime, d.served)
}

// target draws the call to die at: any, or the kind and phase that was hit least.
func (d *driver) target(fit func(kind string) bool) target {
	t := target{n: 1 + d.rng.IntN(12), phase: []Phase{Before, After}[d.rng.IntN(2)]}
	if d.rng.IntN(2) == 0 {
		return t
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	var kinds []string
	least := -1
	for k := range d.seen {
		n := d.report.Hits[Point{k, t.phase}]
		switch {
		case !fit(k):
		case least < 0 || n < least:
			kinds, least = []string{k}, n
		case n == least:
			kinds = append(kinds, k)
		}
	}
	if len(kinds) == 0 {
		return t
	}
	slices.Sort(kinds)
	return target{kind: kinds[d.rng.IntN(len(kinds))], n: 1, phase: t.phase}
}

// provoke does things until the instance is dead.
func (d *driver) provoke(ctx context.Context, i *instance, t target) error {
	i.arm(t)
	for n := 0; !i.isDead(); n++ {
		if n == tries { // what it is to die at does not come
			i.arm(target{n: 1 + d.rng.IntN(3), phase: t.phase})
		}
		op := d.script.pick(t.kind)
		d.note("%s", op.name)
		if err := op.run(ctx); err != nil {
			return fmt.Errorf("%s: %w", op.name, err)
		}
		select {
		case <-i.dead:
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(patience):
		}
	}
	return nil
}

// crash kills the one that leads.
func (d *driver) crash(ctx context.Context) error {
	if err := d.provoke(ctx, d.now, d.target(later)); err != nil {
		return err
	}
	return d.bury(ctx, d.now, true)
}

// startup is about one that was started to die while it starts.
func (d *driver) startup(ctx context.Context) error {
	select {
	case <-d.now.dead:
	case <-time.After(2 * patience):
		if err := d.provoke(ctx, d.now, target{n: 1 + d.rng.IntN(3), phase: After}); err != nil {
			return err
		}
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	return d.bury(ctx, d.now, true)
}

// doomed is the call at which the next instance dies while it starts; nil if it may live.
func (d *driver) doomed() *target {
	if d.report.Points >= d.o.Points-d.o.Processes || d.rng.IntN(2) > 0 {
		return nil
	}
	t := d.target(atStart)
	if t.kind == "" {
		t.n = 1 + d.rng.IntN(40)
	}
	return &t
}

// atStart says whether a kind of call is made at the start of an instance only,
// or then for certain.
func atStart(kind string) bool {
	verb, _, _ := strings.Cut(kind, " ")
	return slices.Contains([]string{"WATCH", "LIST", "GET", "PUT", "one.system.version", "one.vnpool.info", "one.vn.info"}, verb)
}

func later(kind string) bool { return !atStart(kind) }

// overlap kills one while its successor works already.
func (d *driver) overlap(ctx context.Context) (err error) {
	old := d.now
	if d.now, err = d.startInstance(nil); err != nil {
		return err
	}
	if err := d.provoke(ctx, old, d.target(later)); err != nil {
		return err
	}
	old.end()
	return d.bury(ctx, old, false)
}

// leaderChange freezes one at a call that arrives when its successor has done the work.
func (d *driver) leaderChange(ctx context.Context) error {
	t := d.target(later)
	t.phase = Late
	old := d.now
	if err := d.provoke(ctx, old, t); err != nil {
		return err
	}
	if err := d.bury(ctx, old, true); err != nil {
		return err
	}
	if err := d.converge(ctx, serveTime, d.served); err != nil {
		return err
	}
	// The world goes on before the late call arrives.
	op := d.script.pick("")
	d.note("%s", op.name)
	if err := op.run(ctx); err != nil {
		return fmt.Errorf("%s: %w", op.name, err)
	}
	select {
	case <-time.After(time.Duration(d.rng.Int64N(int64(2 * lateness)))):
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	close(old.late)
	d.note("late call arrives")
	return nil
}

// process kills the real program with SIGKILL.
func (d *driver) process(ctx context.Context) error {
	d.now.end()
	t := d.target(func(string) bool { return true })
	if t.kind == "" {
		t.n = 1 + d.rng.IntN(90)
	}
	var err error
	if d.now, err = d.startProcess(t); err != nil {
		return err
	}
	for n := range 10 {
		op := d.script.pick(t.kind)
		d.note("%s", op.name)
		if err := op.run(ctx); err != nil {
			return fmt.Errorf("%s: %w", op.name, err)
		}
		select {
		case <-d.now.dead:
			d.now.end()
			d.report.Processes++
			return d.bury(ctx, d.now, true)
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(2 * time.Second):
		}
		if n == 4 {
			d.now.arm(target{n: 1, phase: t.phase})
		}
	}
	return errors.New("the program makes no calls, see ccm.log")
}

// bury counts a death, looks at what it left, and starts a successor.
func (d *driver) bury(ctx context.Context, i *instance, succeed bool) error {
	d.report.Points++
	d.report.Hits[i.hit]++
	d.note("#%d %s died %s %s", d.report.Points, i.name, i.hit.Phase, i.hit.Kind)
	quiet := func(context.Context) error {
		if i.quiet() {
			return nil
		}
		return errors.New("calls are under way")
	}
	cctx, cancel := context.WithTimeout(ctx, serveTime)
	defer cancel()
	if err := poll(cctx, time.Millisecond, "the last calls of "+i.name, quiet); err != nil {
		return err
	}
	s, err := d.read(ctx)
	if err != nil {
		return err
	}
	d.blame(d.safety(s))
	i.end()
	if !succeed {
		return nil
	}
	var armed *target
	if i.hit.Phase != Late { // its successor is to work before the late call arrives
		armed = d.doomed()
	}
	d.now, err = d.startInstance(armed)
	return err
}

// converge waits until nothing is wrong any more, and counts what stays wrong.
func (d *driver) converge(ctx context.Context, limit time.Duration, check func(*state) []violation) error {
	end := time.Now().Add(limit)
	for {
		s, err := d.read(ctx)
		if err != nil {
			return err
		}
		d.blame(d.safety(s))
		wrong := check(s)
		if len(wrong) == 0 {
			d.note("converged")
			return nil
		}
		klog.InfoS("Crash test", "seed", d.seed, "wrong", wrong[0].text)
		if time.Now().After(end) {
			d.blame(wrong)
			return nil
		}
		select {
		case <-time.After(25 * time.Millisecond):
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// blame counts violations, each once.
func (d *driver) blame(wrong []violation) {
	for _, v := range wrong {
		if d.told[v.text] {
			continue
		}
		d.told[v.text] = true
		*v.count(&d.report)++
		text := fmt.Sprintf("%s (seed %d; %s)", v.text, d.seed, strings.Join(d.trail, ", "))
		d.report.Violations = append(d.report.Violations, text)
		d.say("crash: VIOLATION: %s", text)
	}
}

func (d *driver) note(format string, args ...any) {
	d.trail = append(d.trail, fmt.Sprintf(format, args...))
	klog.InfoS("Crash test", "seed", d.seed, "step", d.trail[len(d.trail)-1])
	d.trail = d.trail[max(0, len(d.trail)-12):]
}
