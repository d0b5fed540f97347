package lab

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// wipeLink removes the addresses that the lab has not given and the neighbours.
func wipeLink(nl *netlink.Handle, k *Link) error {
	link, err := nl.LinkByName(k.dev)
	if err != nil {
		return fmt.Errorf("interface %s of %s: %w", k.dev, k.host.ShortName(), err)
	}
	addrs, err := nl.AddrList(link, netlink.FAMILY_ALL)
	if err != nil {
		return fmt.Errorf("addresses of %s: %w", k.host.ShortName(), err)
	}
	var errs []error
	for _, a := range addrs {
		ip, _ := netip.AddrFromSlice(a.IP)
		if ip = ip.Unmap(); ip.IsLinkLocalUnicast() || slices.Contains(k.addrs, ip) {
			continue
		}
		errs = append(errs, gone(nl.AddrDel(link, &a)))
	}
	neighbours, err := nl.NeighList(link.Attrs().Index, netlink.FAMILY_ALL)
	errs = append(errs, err)
	for _, n := range neighbours {
		if !net.IP(n.IP).IsMulticast() {
			errs = append(errs, gone(nl.NeighDel(&n)))
		}
	}
	return errors.Join(errs...)
}

// gone drops the error for something that went by itself.
func gone(err error) error {
	for _, errno := range []error{unix.ESRCH, unix.ENOENT, unix.EADDRNOTAVAIL} {
		if errors.Is(err, errno) {
			return nil
		}
	}
	return err
}

// wipeConntrack empties the connection tracking table of the namespace.
func wipeConntrack(nl *netlink.Handle) error {
	if err := nl.ConntrackTableFlush(netlink.ConntrackTable); err != nil {
		return fmt.Errorf("flush connection tracking: %w", err)
	}
	return nil
}
