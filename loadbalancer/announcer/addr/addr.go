// Package addr keeps addresses in the kernel for as long as somebody renews them.
//
// An address is added as a host prefix (/32, /128) without a prefix route and
// with a lifetime: if the program that holds it dies or hangs, the kernel drops
// the address by itself, 0 to 1 s after the lifetime has run out.
//
// Our addresses carry a mark (see Protocol), so that what an earlier run left is
// recognised. Addresses without the mark are never changed or removed.
//
// All calls are answered by the kernel at once; a Table may be used by several
// goroutines.
package addr

import (
	"fmt"
	"net"
	"net/netip"
	"regexp"
	"slices"
	"time"
)

// Protocol marks our addresses (IFA_PROTO, Linux 5.18 and newer). `ip -d addr`
// shows it.
const Protocol = 111

// Interface is a network interface that could hold addresses.
type Interface struct {
	Name  string
	Index int
	MAC   net.HardwareAddr
	// Up is true if the interface is up and has a carrier.
	Up bool
	// Networks are the networks of the interface's own addresses, sorted.
	Networks []netip.Prefix
	// Own are the interface's addresses that are not ours, sorted.
	Own []netip.Addr
}

// Entry is one address of ours in the kernel.
type Entry struct {
	Address netip.Addr
	// Index of the interface.
	Index int
	// Valid is how long the kernel will still keep it. Negative: forever.
	Valid time.Duration
}

// Has reports whether a is an own address of the interface.
func (i Interface) Has(a netip.Addr) bool {
	_, found := slices.BinarySearchFunc(i.Own, a, netip.Addr.Compare)
	return found
}

// Contains reports whether a is in one of the interface's networks.
func (i Interface) Contains(a netip.Addr) bool { return i.match(a) >= 0 }

// match is the length of the longest network of the interface that contains a,
// -1 if none does.
func (i Interface) match(a netip.Addr) int {
	best := -1
	for _, p := range i.Networks {
		if p.Contains(a) {
			best = max(best, p.Bits())
		}
	}
	return best
}

// Patterns are compiled names of interfaces.
type Patterns []*regexp.Regexp

// Compile compiles names, or regular expressions that match whole names.
func Compile(names []string) (Patterns, error) {
	var ps Patterns
	for _, n := range names {
		p, err := regexp.Compile("^(?:" + n + ")$")
		if err != nil {
			return nil, fmt.Errorf("interface %q: %w", n, err)
		}
		ps = append(ps, p)
	}
	return ps, nil
}

// Choose returns the interface that should hold a: among those that match
// patterns (all, if there are none) the one with the longest network that
// contains a. An interface that was named may also hold addresses of no network
// of its own; then interfaces that are up come first, then by name.
func Choose(interfaces []Interface, a netip.Addr, patterns Patterns) (Interface, bool) {
	var best Interface
	found, bestMatch := false, -1
	for _, i := range interfaces {
		if len(i.MAC) != 6 || !patterns.admit(i.Name) {
			continue
		}
		m := i.match(a)
		if m < 0 && len(patterns) == 0 {
			continue
		}
		if !found || m > bestMatch || m == bestMatch && before(i, best) {
			best, bestMatch, found = i, m, true
		}
	}
	return best, found
}

// Primary returns the interface that has one of the host's own addresses, the first
// that counts: of the family of a, or else of the other one. It is for addresses that
// are in no network of the host's.
func Primary(interfaces []Interface, own []netip.Addr, a netip.Addr) (Interface, bool) {
	for _, same := range []bool{true, false} {
		for _, o := range own {
			if (o.Is4() == a.Is4()) != same {
				continue
			}
			for _, i := range interfaces {
				if len(i.MAC) == 6 && i.Has(o) {
					return i, true
				}
			}
		}
	}
	return Interface{}, false
}

func (ps Patterns) admit(name string) bool {
	return len(ps) == 0 || slices.ContainsFunc(ps, func(p *regexp.Regexp) bool { return p.MatchString(name) })
}

func before(a, b Interface) bool {
	if a.Up != b.Up {
		return a.Up
	}
	return a.Name < b.Name
}
