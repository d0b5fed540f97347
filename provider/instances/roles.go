package instances

import (
	"net/netip"
	"slices"

	corev1 "k8s.io/api/core/v1"
)

// roles say what type addresses are of, and in which order they come.
type roles struct {
	internal, external []entry
}

// entry is one element of a list: the name of a virtual network or, if it can
// be read as one, a prefix. A network may be called like a prefix, so that names
// are looked at in any case.
type entry struct {
	network string
	prefix  netip.Prefix // invalid if it is none
}

func newRoles(internal, external []string) roles {
	return roles{internal: entries(internal), external: entries(external)}
}

func entries(list []string) []entry {
	out := make([]entry, len(list))
	for i, text := range list {
		out[i].network = text
		if p, err := netip.ParsePrefix(text); err == nil {
			out[i].prefix = p.Masked()
		}
	}
	return out
}

// match says how closely an entry describes an address: 0 not at all, 1 by its
// network's name, more by a prefix, the longer the more.
func (e entry) match(network string, a netip.Addr) int {
	switch {
	case e.prefix.IsValid() && e.prefix.Contains(a):
		return 2 + e.prefix.Bits()
	case e.network == network:
		return 1
	}
	return 0
}

// of returns the type of an address and its rank among those of the type. The
// closest entry of both lists decides; of two that are equally close the
// external one. Not ok: the address is not the node's.
func (r roles) of(network string, a netip.Addr) (t corev1.NodeAddressType, rank int, ok bool) {
	internal, closest := best(r.internal, network, a)
	external, closer := best(r.external, network, a)
	switch {
	case closer > 0 && closer >= closest:
		return corev1.NodeExternalIP, external, true
	case closest > 0:
		return corev1.NodeInternalIP, internal, true
	}
	return corev1.NodeInternalIP, 0, len(r.internal) == 0
}

// best is the closest entry, the first of several.
func best(list []entry, network string, a netip.Addr) (index, closeness int) {
	matches := make([]int, len(list))
	for i, e := range list {
		matches[i] = e.match(network, a)
	}
	if len(matches) == 0 {
		return 0, 0
	}
	closeness = slices.Max(matches)
	return slices.Index(matches, closeness), closeness
}
