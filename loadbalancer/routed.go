package loadbalancer

import (
	"net/netip"

	"github.com/onelb/onelb/loadbalancer/router"
)

// holders returns the name of the group of the nodes that may hold an address with
// forward Route. The router finds out for itself which of them does; what it has to
// know is on which network they are. A node without an address of the family holds the
// public one on the interface of the other, so nodes of that one will do as well.
func (b *documentBuilder) holders(is4 bool) string {
	name := holdersName(is4)
	for _, family := range []bool{is4, !is4} {
		other := holdersName(family)
		if _, made := b.groups[other]; made {
			return other
		}
		if members := b.members(family, nil); len(members) > 0 {
			for i := range members {
				members[i].CheckAddress = netip.Addr{} // nobody checks: the agents on the nodes do
			}
			b.groups[other] = router.Group{Name: other, Members: members}
			return other
		}
	}
	b.groups[name] = router.Group{Name: name}
	return name
}

func holdersName(is4 bool) string {
	if is4 {
		return "holders-ipv4"
	}
	return "holders-ipv6"
}
