package explain

import (
	"fmt"
	"io"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/onelb/onelb/cmd/onelbctl/term"
	"github.com/onelb/onelb/loadbalancer/path"
)

var marks = map[path.State]term.Cell{
	path.OK:      {Text: "ok  ", Colour: term.Green},
	path.Unknown: {Text: "?   ", Colour: term.Grey},
	path.Warning: {Text: "WARN", Colour: term.Yellow},
	path.Down:    {Text: "DOWN", Colour: term.Red},
}

// lines writes lines and remembers the first error.
type lines struct {
	term.Painter
	w   io.Writer
	err error
}

func (l *lines) add(format string, args ...any) {
	if l.err == nil {
		_, l.err = fmt.Fprintf(l.w, format+"\n", args...)
	}
}

// Print writes the report as text; now is what ages are counted to.
func (r *Report) Print(w io.Writer, p term.Painter, now time.Time) error {
	l := &lines{Painter: p, w: w}
	l.add("Service %s, class %s, externalTrafficPolicy %s", l.Paint(term.Bold, r.Service), r.Class, r.Policy)
	for _, c := range r.Pools {
		r.pools(l, c)
	}
	if len(r.Pending) > 0 {
		l.add("\n%s", l.Paint(term.Red, "Waiting, because"))
		for _, p := range r.Pending {
			l.add("  %s", p.Why)
			if p.Remedy != "" {
				l.add("    -> %s", p.Remedy)
			}
		}
	}
	if len(r.Pending) == 0 && len(r.Ways) == 0 {
		l.add("\nNothing stands in the way: it should get its address in a moment. If it does not, the last events say more.")
	}
	for _, way := range r.Ways {
		r.way(l, way, now)
	}
	r.events(l, now)
	for _, g := range r.Gaps {
		l.add("%s not read: %s", g.What, l.Paint(term.Yellow, g.Why))
	}
	return l.err
}

func (r *Report) pools(l *lines, c Choice) {
	asked := ""
	if c.Asked != "" {
		asked = ", " + c.Asked + " is asked for"
	}
	l.add("Pools for %s, in the order in which they are tried%s:", c.Family, asked)
	for _, k := range c.Candidates {
		current := ""
		if k.Current {
			current = ", has its address of it"
		}
		l.add("  %s: %d of %d used%s", k.Pool, k.Used, k.Total, current)
		if k.Refuses != "" {
			l.add("    %s", l.Paint(term.Red, k.Refuses))
		}
	}
}

func (r *Report) way(l *lines, way path.Way, now time.Time) {
	l.add("\n%s, from outside to the pods:", l.Paint(term.Bold, way.Address))
	for _, h := range way.Hops {
		name := h.Kind
		if h.Name != "" {
			name += " " + h.Name
		}
		since := ""
		if h.Since != nil && !h.Since.IsZero() {
			since = " (for " + term.Age(now, *h.Since) + ")"
		}
		l.add("  %s  %s: %s%s", l.Paint(marks[h.State].Colour, marks[h.State].Text), name, h.Detail, since)
		if h.Remedy != "" {
			l.add("        -> %s", h.Remedy)
		}
	}
}

func (r *Report) events(l *lines, now time.Time) {
	if len(r.Events) == 0 {
		return
	}
	l.add("\nLast events:")
	for _, e := range r.Events {
		colour := term.Plain
		if e.Type == corev1.EventTypeWarning {
			colour = term.Yellow
		}
		times := ""
		if e.Count > 1 {
			times = fmt.Sprintf(" (%d times)", e.Count)
		}
		l.add("  %4s  %s  %s: %s%s", term.Age(now, e.Time), l.Paint(colour, e.Reason), e.About, e.Message, times)
	}
}
