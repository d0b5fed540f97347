package migrate

import (
	"cmp"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"github.com/onelb/onelb/api/v1alpha1"
	"github.com/onelb/onelb/cmd/onelbctl/term"
)

// Print writes the plan for people.
func (p Plan) Print(w io.Writer) error {
	paint := term.For(w)
	var b strings.Builder
	mark := func(kind term.Colour, word string, texts []string) {
		for _, t := range texts {
			fmt.Fprintf(&b, "    %s %s\n", paint.Paint(kind, word), t)
		}
	}
	fmt.Fprintf(&b, "From %s: %d pools, %d Services.\n\n", p.From, len(p.Pools), len(p.Services))
	for _, x := range p.Pools {
		state := "is made"
		if x.There {
			state = "is there, and taken as it is"
		}
		fmt.Fprintf(&b, "%s %s\n    %s\n", paint.Paint(term.Bold, "AddressPool "+x.Name), state, describe(x))
		mark(term.Red, "cannot:", x.Problems)
		mark(term.Yellow, "note:", x.Notes)
	}
	for _, s := range p.Services {
		state := "keeps " + texts(s.Addresses)
		switch {
		case s.Done && len(s.Addresses) > 0:
			state = "is onelb's already, with " + texts(s.Addresses)
		case len(s.Problems) > 0:
			state = "stays where it is"
		case len(s.Addresses) == 0:
			state = "gets an address of onelb"
		}
		fmt.Fprintf(&b, "%s %s\n", paint.Paint(term.Bold, "Service "+s.Key()), state)
		if !s.Done && len(s.Problems) == 0 {
			for _, key := range slices.Sorted(maps.Keys(s.Annotations)) {
				fmt.Fprintf(&b, "    + %s: %q\n", key, s.Annotations[key])
			}
		}
		mark(term.Red, "cannot:", s.Problems)
		mark(term.Yellow, "note:", s.Notes)
	}
	if len(p.Running)+len(p.Answering)+len(p.Problems)+len(p.Notes) > 0 {
		b.WriteString("\n")
	}
	for _, t := range p.Running {
		fmt.Fprintf(&b, "Before Services are moved, end what writes them: %s\n", t)
	}
	for _, t := range p.Answering {
		fmt.Fprintf(&b, "When all are moved, end what answers for the addresses: %s\n", t)
	}
	for _, t := range p.Problems {
		fmt.Fprintf(&b, "%s %s\n", paint.Paint(term.Red, "First:"), t)
	}
	for _, t := range p.Notes {
		fmt.Fprintf(&b, "%s %s\n", paint.Paint(term.Yellow, "Note:"), t)
	}
	open, blocked := p.Left()
	fmt.Fprintf(&b, "\n%d Services to be moved, %d stay where they are, %d are onelb's.\n", open, blocked, len(p.Services)-open-blocked)
	_, err := io.WriteString(w, b.String())
	return err
}

// describe is the pool in one line.
func describe(x Pool) string {
	s := x.Spec
	parts := []string{"network " + cmp.Or(s.Network.Name, "?"), "exposure " + string(s.Exposure)}
	if s.Network.ID != nil {
		parts[0] = fmt.Sprintf("network %d", *s.Network.ID)
	}
	if s.Exposure == v1alpha1.ExposureRouter && s.Router != nil {
		parts[1] += " " + s.Router.Name
	}
	var ranges []string
	for _, r := range s.Ranges {
		ranges = append(ranges, r.Start+"-"+r.End)
	}
	if len(ranges) > 0 {
		parts = append(parts, "addresses "+strings.Join(ranges, ", "))
	}
	switch {
	case x.AutoAssign:
		parts = append(parts, "autoAssign when all Services are there")
	case s.AutoAssign == nil || *s.AutoAssign:
		parts = append(parts, "autoAssign")
	default:
		parts = append(parts, "no autoAssign")
	}
	if s.NamespaceSelector != nil {
		parts = append(parts, "limited to namespaces")
	}
	if s.ServiceSelector != nil {
		parts = append(parts, "limited to Services")
	}
	return strings.Join(parts, "; ")
}
