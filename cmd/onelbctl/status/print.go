package status

import (
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/onelb/onelb/cmd/onelbctl/term"
	"github.com/onelb/onelb/loadbalancer/overview"
	"github.com/onelb/onelb/loadbalancer/path"
)

// printer writes a report as text.
type printer struct {
	term.Painter
	r    *overview.Report
	wide bool
}

// Print writes a report as text; wide with more columns.
func Print(r *overview.Report, w io.Writer, p term.Painter, wide bool) error {
	t := printer{Painter: p, r: r, wide: wide}
	for _, part := range []func(io.Writer) error{t.manager, t.pools, t.addresses, t.pending, t.agents, t.routers, t.gaps} {
		if err := part(w); err != nil {
			return err
		}
	}
	return nil
}

func (t printer) manager(w io.Writer) error {
	m := t.r.Manager
	if m == nil {
		return nil
	}
	line := "nobody leads"
	switch {
	case m.Leads:
		line = "led from " + m.Leader
	case m.Leader != "":
		line = "nobody leads, " + m.Leader + " did last"
	}
	if m.Wanted > 0 {
		line += fmt.Sprintf(", %d of %d replicas ready", m.Ready, m.Wanted)
	}
	if m.Version != "" {
		line += ", version " + m.Version
	}
	if !m.Leads {
		line = t.Paint(term.Red, line)
	}
	_, err := fmt.Fprintf(w, "cloud-controller-manager: %s\n", line)
	return err
}

// table writes a heading and a table, unless there are no rows.
func (t printer) table(w io.Writer, heading string, columns []string, rows [][]term.Cell) error {
	if len(rows) == 0 {
		return nil
	}
	if _, err := fmt.Fprintf(w, "\n%s\n", t.Paint(term.Bold, heading)); err != nil {
		return err
	}
	return t.Table(w, columns, rows)
}

func (t printer) pools(w io.Writer) error {
	if len(t.r.Pools) == 0 {
		_, err := fmt.Fprintln(w, "\nThere is no AddressPool: Services get addresses once one is made (docs/how-to/pools.md).")
		return err
	}
	columns := []string{"POOL", "NETWORK", "EXPOSURE", "IPV4", "", "IPV6", "", "READY"}
	if t.wide {
		columns = append(columns, "HELD", "MESSAGE")
	}
	var rows [][]term.Cell
	for _, p := range t.r.Pools {
		exposure := p.Exposure
		if p.Router != "" {
			exposure += " " + p.Router
		}
		row := []term.Cell{term.Text(p.Name), term.Text(p.Network), term.Text(exposure)}
		row = append(append(row, usage(p.IPv4)...), usage(p.IPv6)...)
		ready := term.Cell{Text: "yes", Colour: term.Green}
		if !p.Ready {
			ready = term.Cell{Text: strings.TrimSuffix("no: "+p.Reason, ": "), Colour: term.Red}
		}
		row = append(row, ready)
		if t.wide {
			row = append(row, term.Text(held(p)), term.Text(p.Message))
		}
		rows = append(rows, row)
	}
	return t.table(w, "Pools", columns, rows)
}

// usage is a bar and numbers.
func usage(c *overview.Counts) []term.Cell {
	if c == nil {
		return []term.Cell{term.Text(""), term.Text("")}
	}
	colour := term.Green
	switch {
	case c.Free <= 0:
		colour = term.Red
	case c.Free*5 < c.Total:
		colour = term.Yellow
	}
	return []term.Cell{{Text: term.Bar(c.Used, c.Total), Colour: colour}, {Text: fmt.Sprintf("%d of %d", c.Used, c.Total)}}
}

func held(p overview.Pool) string {
	n := int64(0)
	for _, c := range []*overview.Counts{p.IPv4, p.IPv6} {
		if c != nil {
			n += c.Held
		}
	}
	return fmt.Sprint(n)
}

var healthColour = map[path.State]term.Colour{path.OK: term.Green, path.Unknown: term.Grey, path.Warning: term.Yellow, path.Down: term.Red}

func (t printer) addresses(w io.Writer) error {
	columns := []string{"ADDRESS", "POOL", "SERVICE", "HOLDER", "ROUTER", "HEALTH"}
	if t.wide {
		columns = append(columns, "ROLE", "PHASE", "HELD FOR", "WHY")
	}
	var rows [][]term.Cell
	for _, a := range t.r.Addresses {
		services := strings.Join(a.Services, ",")
		if a.KeptFor != "" {
			services = "(kept for " + a.KeptFor + ")"
		}
		health := term.Cell{Text: string(a.Health), Colour: healthColour[a.Health]}
		if a.Health == "" {
			health = term.Cell{Text: strings.ToLower(a.Phase), Colour: term.Grey}
		}
		row := []term.Cell{term.Text(a.Address), term.Text(a.Pool), term.Text(services), term.Text(holder(a)), term.Text(a.Router), health}
		if t.wide {
			since := ""
			if a.Since != nil {
				since = term.Age(t.r.Time, *a.Since)
			}
			row = append(row, term.Text(a.Role), term.Text(a.Phase), term.Text(since), term.Text(a.Why))
		}
		rows = append(rows, row)
	}
	if err := t.table(w, "Addresses", columns, rows); err != nil || t.wide {
		return err
	}
	for _, a := range t.r.Addresses {
		if a.Why != "" {
			if _, err := fmt.Fprintf(w, "  %s: %s\n", a.Address, t.Paint(healthColour[a.Health], a.Why)); err != nil {
				return err
			}
		}
	}
	return nil
}

// holder is who answers for an address.
func holder(a overview.Address) string {
	switch n := len(a.Announcers); {
	case n == 0:
		return a.Holder
	case n == 1:
		return a.Announcers[0] + " (BGP)"
	default:
		return fmt.Sprintf("%d nodes (BGP)", n)
	}
}

func (t printer) pending(w io.Writer) error {
	var rows [][]term.Cell
	for _, p := range t.r.Pending {
		why := "it should get its address in a moment"
		if len(p.Reasons) > 0 {
			why = p.Reasons[0].Why
		}
		if more := len(p.Reasons) - 1; more > 0 {
			why += fmt.Sprintf(" (and %d more: onelbctl explain service %s)", more, p.Service)
		}
		rows = append(rows, []term.Cell{term.Text(p.Service), term.Text(term.Age(t.r.Time, p.Since)), {Text: why, Colour: term.Red}})
	}
	return t.table(w, "Services without an address", []string{"SERVICE", "AGE", "WHY"}, rows)
}

func (t printer) agents(w io.Writer) error {
	var rows [][]term.Cell
	columns := []string{"NODE", "READY", "VERSION", "ADDRESSES"}
	speaks := slices.ContainsFunc(t.r.Agents, func(a overview.Agent) bool { return a.BGP != nil })
	if speaks {
		columns = append(columns, "BGP")
	}
	for _, a := range t.r.Agents {
		ready := term.Cell{Text: "yes", Colour: term.Green}
		if !a.Ready {
			ready = term.Cell{Text: "no: " + a.State, Colour: term.Red}
		}
		version := term.Text(a.Version)
		if a.Behind {
			version = term.Cell{Text: a.Version + " (behind)", Colour: term.Yellow}
		}
		row := []term.Cell{term.Text(a.Node), ready, version, {Text: fmt.Sprint(a.Addresses)}}
		if speaks {
			row = append(row, sessions(a.BGP))
		}
		rows = append(rows, row)
	}
	return t.table(w, "Node agents", columns, rows)
}

// sessions are how many of the BGP sessions stand.
func sessions(s *overview.Sessions) term.Cell {
	if s == nil {
		return term.Text("")
	}
	c := term.Cell{Text: fmt.Sprintf("%d of %d", s.Established, s.Peers), Colour: term.Green}
	if s.Established < s.Peers {
		c.Colour = term.Red
	}
	return c
}

func (t printer) routers(w io.Writer) error {
	var rows [][]term.Cell
	for _, r := range t.r.Routers {
		waiting := term.Cell{Text: fmt.Sprint(r.Waiting)}
		if r.Waiting > 0 {
			waiting.Colour = term.Yellow
		}
		rows = append(rows, []term.Cell{term.Text(r.Name), {Text: fmt.Sprint(r.Addresses)}, waiting, {Text: fmt.Sprint(r.Generation)}})
	}
	return t.table(w, "Routers", []string{"ROUTER", "ADDRESSES", "UNACKNOWLEDGED", "GENERATION"}, rows)
}

func (t printer) gaps(w io.Writer) error {
	for i, g := range t.r.Gaps {
		if i == 0 {
			if _, err := fmt.Fprintln(w); err != nil {
				return err
			}
		}
		if _, err := fmt.Fprintf(w, "%s not read: %s\n", g.What, t.Paint(term.Yellow, g.Why)); err != nil {
			return err
		}
	}
	return nil
}
