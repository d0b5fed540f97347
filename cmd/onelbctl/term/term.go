// Package term writes for people: colours where there is a terminal and nowhere
// else, tables, bars, ages. It keeps no state and is safe for concurrent use;
// errors of the writer come back to the caller.
package term

import (
	"fmt"
	"io"
	"os"
	"strings"
	"time"
	"unicode/utf8"

	"golang.org/x/sys/unix"
)

// Colour is what a text is painted with.
type Colour string

// The colours.
const (
	Plain  Colour = ""
	Bold   Colour = "\x1b[1m"
	Green  Colour = "\x1b[32m"
	Yellow Colour = "\x1b[33m"
	Red    Colour = "\x1b[31m"
	Grey   Colour = "\x1b[90m"

	reset = "\x1b[0m"
	// Clear empties the screen and puts the cursor into its corner.
	Clear = "\x1b[H\x1b[2J"
)

// Terminal reports whether the writer is a terminal.
func Terminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	_, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS) //nolint:gosec // a file descriptor is an int
	return err == nil
}

// Painter paints texts if Colours is set.
type Painter struct{ Colours bool }

// For paints on a terminal, unless the user has set NO_COLOR or it is a dumb one.
func For(w io.Writer) Painter {
	return Painter{Colours: Terminal(w) && os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb"}
}

// Paint returns the text in a colour.
func (p Painter) Paint(c Colour, text string) string {
	if !p.Colours || c == Plain || text == "" {
		return text
	}
	return string(c) + text + reset
}

// Bar shows how much of a whole is used, in ten characters.
func Bar(used, total int64) string {
	const width = 10
	full := int64(0)
	if total > 0 {
		full = min(width, (used*width+total-1)/total) // one that is used shows
	}
	return "[" + strings.Repeat("#", int(full)) + strings.Repeat(".", int(width-full)) + "]"
}

// Age is how long ago something was, in one or two units; empty for the zero time.
func Age(now, then time.Time) string {
	if then.IsZero() {
		return ""
	}
	d := max(0, now.Sub(then))
	switch {
	case d < 2*time.Minute:
		return fmt.Sprintf("%ds", int(d.Seconds()))
	case d < 2*time.Hour:
		return fmt.Sprintf("%dm", int(d.Minutes()))
	case d < 48*time.Hour:
		return fmt.Sprintf("%dh", int(d.Hours()))
	}
	return fmt.Sprintf("%dd", int(d.Hours()/24))
}

// Cell is one field of a table.
type Cell struct {
	Text   string
	Colour Colour
}

// Text makes a cell without colour; an empty one shows as a dash.
func Text(s string) Cell {
	if s == "" {
		s = "-"
	}
	return Cell{Text: s}
}

// Table writes rows below a header, in columns as wide as they need. The last
// column is not padded. Without rows it writes nothing.
func (p Painter) Table(w io.Writer, header []string, rows [][]Cell) error {
	if len(rows) == 0 {
		return nil
	}
	head := make([]Cell, len(header))
	for i, h := range header {
		head[i] = Cell{Text: h, Colour: Bold}
	}
	rows = append([][]Cell{head}, rows...)
	width := make([]int, len(header))
	for _, r := range rows {
		for i, c := range r {
			width[i] = max(width[i], utf8.RuneCountInString(c.Text))
		}
	}
	for _, r := range rows {
		var line strings.Builder
		for i, c := range r {
			line.WriteString(p.Paint(c.Colour, c.Text))
			if i < len(r)-1 {
				line.WriteString(strings.Repeat(" ", width[i]-utf8.RuneCountInString(c.Text)+2))
			}
		}
		if _, err := fmt.Fprintln(w, line.String()); err != nil {
			return err
		}
	}
	return nil
}
