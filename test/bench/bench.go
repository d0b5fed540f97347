package bench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"time"
)

// Options of a run.
type Options struct {
	// Select chooses rows by name; nil means all.
	Select *regexp.Regexp
	// Quick shortens faults that last for minutes and repeats the others less often;
	// the notes say so. What the targets are about needs the full lengths.
	Quick bool
	// Progress gets lines for people; nil discards them.
	Progress io.Writer
}

// errNoRow: Select matches no row, or a measurement gave none.
var errNoRow = errors.New("no figure")

// measurement is what makes one or several rows.
type measurement struct {
	rows []column
	// limit bounds it, the start of its lab included.
	limit time.Duration
	run   func(ctx context.Context, b *bench) error
}

// column is the name and the unit of a row.
type column struct{ name, unit string }

func (m measurement) wanted(sel *regexp.Regexp) bool {
	return slices.ContainsFunc(m.rows, func(c column) bool { return matches(sel, c.name) })
}

func matches(sel *regexp.Regexp, name string) bool { return sel == nil || sel.MatchString(name) }

// bench is one run.
type bench struct {
	opts    Options
	begin   time.Time
	shared  *datacenter // of the measurements that can share one; nil before its start
	samples map[string][]float64
	notes   map[string][]string
}

// Run measures. It returns the rows that it got, also beside an error. It needs
// root and leaves nothing behind.
func Run(ctx context.Context, o Options) (rows []Row, err error) {
	if o.Progress == nil {
		o.Progress = io.Discard
	}
	b := &bench{opts: o, begin: time.Now()}
	defer func() { err = errors.Join(err, b.closeShared()) }()
	var errs []error
	found := false
	for _, m := range measurements() {
		if !m.wanted(o.Select) {
			continue
		}
		found = true
		got, err := b.measure(ctx, m)
		rows = append(rows, got...)
		errs = append(errs, err)
		if ctx.Err() != nil {
			return rows, errors.Join(append(errs, context.Cause(ctx))...)
		}
	}
	if !found {
		return nil, fmt.Errorf("%q matches no row: %w", o.Select, errNoRow)
	}
	return rows, errors.Join(errs...)
}

// measure runs one measurement.
func (b *bench) measure(ctx context.Context, m measurement) ([]Row, error) {
	b.samples, b.notes = map[string][]float64{}, map[string][]string{}
	b.say("measuring %s", m.rows[0].name)
	ctx, cancel := context.WithTimeout(ctx, m.limit)
	defer cancel()
	load := watchLoad(ctx)
	err := m.run(ctx, b)
	during := load.stop()
	if err != nil {
		// The next measurement gets a lab that nothing went wrong in.
		err = errors.Join(fmt.Errorf("%s: %w", m.rows[0].name, err), b.closeShared())
		b.say("failed: %v", err)
	}
	var rows []Row
	for _, c := range m.rows {
		if !matches(b.opts.Select, c.name) {
			continue
		}
		if len(b.samples[c.name]) == 0 {
			err = errors.Join(err, fmt.Errorf("%s: %w", c.name, errNoRow))
			continue
		}
		r := newRow(c.name, c.unit, b.samples[c.name], append(b.notes[c.name], during))
		b.say("%s", r)
		rows = append(rows, r)
	}
	return rows, err
}

// add records samples of a row.
func (b *bench) add(name string, samples ...float64) {
	b.samples[name] = append(b.samples[name], samples...)
}

// note adds to a row's note.
func (b *bench) note(name, format string, args ...any) {
	b.notes[name] = append(b.notes[name], fmt.Sprintf(format, args...))
}

// times is how often something is repeated.
func (b *bench) times(full int) int {
	if b.opts.Quick {
		return max(full/4, 1)
	}
	return full
}

// lasting is how long something lasts.
func (b *bench) lasting(full time.Duration) time.Duration {
	if b.opts.Quick {
		return full / 10
	}
	return full
}

func (b *bench) say(format string, args ...any) {
	_, _ = fmt.Fprintf(b.opts.Progress, "[%6.1f s] "+format+"\n", append([]any{time.Since(b.begin).Seconds()}, args...)...)
}
