package v1alpha1

import (
	"net/netip"
	"strings"
)

// VirtualIPName returns the name of the VirtualIP of an address: the address
// itself for IPv4, all eight groups with "-" for ":" for IPv6, for example
// 2001-0db8-0000-0000-0000-0000-0000-0007. It is one-to-one, and a valid object
// name for every address without a zone.
func VirtualIPName(a netip.Addr) string {
	a = a.Unmap()
	if a.Is4() {
		return a.String()
	}
	return strings.ReplaceAll(a.WithZone("").StringExpanded(), ":", "-")
}
