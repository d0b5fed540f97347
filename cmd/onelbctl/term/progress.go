package term

import (
	"fmt"
	"io"
	"strings"
	"unicode/utf8"
)

// Progress tells how far long work is: on a terminal, one line that is written
// over; elsewhere nothing, since results alone belong into files and pipes.
// It is for one goroutine.
type Progress struct {
	w     io.Writer
	shown int // characters on the line
}

// NewProgress makes one that writes to w, best to standard error.
func NewProgress(w io.Writer) *Progress {
	if !Terminal(w) {
		w = nil
	}
	return &Progress{w: w}
}

// Show replaces the line. What the terminal does not take is lost: it is no result.
func (p *Progress) Show(format string, args ...any) {
	if p.w == nil {
		return
	}
	text := fmt.Sprintf(format, args...)
	n := utf8.RuneCountInString(text)
	_, _ = fmt.Fprint(p.w, "\r"+text+strings.Repeat(" ", max(0, p.shown-n)))
	p.shown = n
}

// Clear takes the line away, before something else is written.
func (p *Progress) Clear() {
	if p.w == nil || p.shown == 0 {
		return
	}
	_, _ = fmt.Fprint(p.w, "\r"+strings.Repeat(" ", p.shown)+"\r")
	p.shown = 0
}
