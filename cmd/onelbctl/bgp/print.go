package bgp

import (
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/onelb/onelb/api/v1alpha1"
	"github.com/onelb/onelb/cmd/onelbctl/term"
)

// Print writes a report as text; wide with more columns.
func (r *Report) Print(w io.Writer, p term.Painter, wide bool) error {
	t := printer{Painter: p, r: r, wide: wide}
	for _, part := range []func(io.Writer) error{t.sessions, t.routes, t.rest} {
		if err := part(w); err != nil {
			return err
		}
	}
	return nil
}

type printer struct {
	term.Painter
	r    *Report
	wide bool
}

func (t printer) sessions(w io.Writer) error {
	if len(t.r.Sessions) == 0 {
		text := "No node has a BGP session to show."
		if !t.r.configured && len(t.r.Gaps) == 0 {
			text = "No node speaks BGP: that takes a BGPConfiguration and a BGPPeer (docs/how-to/bgp.md)."
		}
		_, err := fmt.Fprintln(w, text)
		return err
	}
	columns := []string{"NODE", "PEER", "ADDRESS", "ASN", "STATE", "FOR", "ANNOUNCED", "BFD"}
	if t.wide {
		columns = append(columns, "LOCAL-ASN", "ROUTER-ID", "RECEIVED", "FAMILIES", "HOLD-TIME", "RESTART")
	}
	var rows [][]term.Cell
	for _, s := range t.r.Sessions {
		rows = append(rows, t.session(s))
	}
	if err := t.heading(w, "Sessions"); err != nil {
		return err
	}
	if err := t.Table(w, columns, rows); err != nil {
		return err
	}
	for _, s := range t.r.Sessions {
		if s.LastError != "" {
			if _, err := fmt.Fprintf(w, "  %s, %s: %s\n", s.Node, s.Peer, t.Paint(term.Red, s.LastError)); err != nil {
				return err
			}
		}
	}
	return nil
}

func (t printer) session(s Session) []term.Cell {
	state, bfd, since := term.Cell{Text: s.State, Colour: term.Green}, term.Text(s.BFD), ""
	if s.State != v1alpha1.BGPEstablished {
		state.Colour = term.Red
	}
	if s.BFD != "" && s.BFD != "Up" {
		bfd.Colour = term.Yellow
	}
	if s.Since != nil {
		since = term.Age(t.r.Time, *s.Since)
	}
	row := []term.Cell{term.Text(s.Node), term.Text(s.Peer), term.Text(s.Address), term.Text(number(s.ASN)), state, term.Text(since), {Text: fmt.Sprint(s.Announced)}, bfd}
	if !t.wide {
		return row
	}
	restart := term.Text("no")
	if s.GracefulRestart {
		restart.Text = "yes"
	}
	return append(row, term.Text(number(s.LocalASN)), term.Text(s.RouterID), term.Cell{Text: fmt.Sprint(s.Received)},
		term.Text(strings.Join(s.Families, ",")), term.Text(s.HoldTime), restart)
}

// number is empty for 0.
func number(n int64) string {
	if n == 0 {
		return ""
	}
	return fmt.Sprint(n)
}

func (t printer) heading(w io.Writer, text string) error {
	_, err := fmt.Fprintln(w, t.Paint(term.Bold, text))
	return err
}

func (t printer) routes(w io.Writer) error {
	if len(t.r.Routes) == 0 {
		return nil
	}
	var rows [][]term.Cell
	for _, r := range t.r.Routes {
		by := term.Cell{Text: "nobody", Colour: term.Red}
		if len(r.Announcers) > 0 {
			by = term.Text(t.announcers(r.Announcers))
		}
		rows = append(rows, []term.Cell{term.Text(r.Address), term.Text(r.Pool), term.Text(strings.Join(r.Services, ",")), by})
	}
	if _, err := fmt.Fprintln(w); err != nil {
		return err
	}
	if err := t.heading(w, "Routes"); err != nil {
		return err
	}
	return t.Table(w, []string{"ADDRESS", "POOL", "SERVICE", "ANNOUNCED BY"}, rows)
}

// announcers names the nodes; wide with the peers of each.
func (t printer) announcers(all []Announcer) string {
	var names []string
	for _, a := range all {
		name := a.Node
		if t.wide {
			name += " (" + strings.Join(a.Peers, ",") + ")"
		}
		names = append(names, name)
	}
	return strings.Join(names, ", ")
}

// rest are problems, and what could not be read.
func (t printer) rest(w io.Writer) error {
	var lines []string
	for _, p := range t.r.Problems {
		lines = append(lines, fmt.Sprintf("%s cannot follow: %s", p.Node, t.Paint(term.Yellow, p.Text)))
	}
	for _, g := range t.r.Gaps {
		if strings.HasPrefix(g.What, "BGP") {
			lines = append(lines, fmt.Sprintf("%s not read: %s", g.What, t.Paint(term.Yellow, g.Why)))
		}
	}
	if len(lines) > 0 {
		lines = slices.Insert(lines, 0, "")
	}
	for _, line := range lines {
		if _, err := fmt.Fprintln(w, line); err != nil {
			return err
		}
	}
	return nil
}
