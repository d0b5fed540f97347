// Package ndp builds and reads the Ethernet frames with which a holder of an
// IPv6 address makes itself known and with which a candidate asks who has it.
//
// It does no I/O. Parse checks the ICMPv6 checksum and the hop limit, never
// panics and never keeps a reference to its input.
package ndp

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/mdlayher/ndp"
)

// EtherType is the Ethernet protocol of IPv6.
const EtherType = 0x86dd

// ICMPv6 types, for packet filters.
const (
	TypeSolicitation  = 135
	TypeAdvertisement = 136
)

const (
	ethernetLen = 14
	ipLen       = 40
	hwLen       = 6
	protocol    = 58  // ICMPv6
	hopLimit    = 255 // RFC 4861: proof that no router forwarded it
)

// ErrFrame is returned for a frame that is no valid neighbour solicitation or
// advertisement.
var ErrFrame = errors.New("not a neighbour solicitation or advertisement")

var allNodes = netip.MustParseAddr("ff02::1")

// Message is what a neighbour discovery frame says.
type Message struct {
	// Advertisement is true for an advertisement, false for a solicitation.
	Advertisement bool
	// Target is the address advertised or asked for.
	Target netip.Addr
	// MAC is the hardware address in the target option of an advertisement, or
	// else the source of the frame.
	MAC net.HardwareAddr
}

// Unsolicited returns the frame to all nodes by which mac announces that it
// has a, with the override flag set.
func Unsolicited(a netip.Addr, mac net.HardwareAddr) ([]byte, error) {
	m := &ndp.NeighborAdvertisement{
		Override:      true,
		TargetAddress: a,
		Options:       []ndp.Option{&ndp.LinkLayerAddress{Direction: ndp.Target, Addr: mac}},
	}
	return frame(m, mac, multicastMAC(allNodes), a, allNodes)
}

// Probe returns the frame by which mac asks who has a without claiming
// anything, as duplicate address detection does: the source address is
// unspecified and the holder answers to all nodes. The frame goes to the
// hardware address to, or if to is nil to that of all nodes: other hosts that want a
// are to hear of it, not only those that have it. The IP destination is a's
// solicited-node group either way, since nothing else is valid.
func Probe(a netip.Addr, mac, to net.HardwareAddr) ([]byte, error) {
	group, err := ndp.SolicitedNodeMulticast(a)
	if err != nil {
		return nil, fmt.Errorf("solicitation for %s: %w", a, err)
	}
	if to == nil {
		to = multicastMAC(allNodes)
	}
	return frame(&ndp.NeighborSolicitation{TargetAddress: a}, mac, to, netip.IPv6Unspecified(), group)
}

func frame(m ndp.Message, mac, to net.HardwareAddr, source, destination netip.Addr) ([]byte, error) {
	if len(mac) != hwLen || len(to) != hwLen {
		return nil, fmt.Errorf("neighbour frame to %s: hardware address is not %d bytes", destination, hwLen)
	}
	if !source.Is6() || source.Is4In6() || source.Zone() != "" {
		return nil, fmt.Errorf("neighbour frame from %s: not a plain IPv6 address", source)
	}
	payload, err := ndp.MarshalMessageChecksum(m, source, destination)
	if err != nil {
		return nil, fmt.Errorf("neighbour frame from %s: %w", source, err)
	}
	b := make([]byte, 0, ethernetLen+ipLen+len(payload))
	b = append(b, to...)
	b = append(b, mac...)
	b = binary.BigEndian.AppendUint16(b, EtherType)
	b = append(b, 0x60, 0, 0, 0)
	b = binary.BigEndian.AppendUint16(b, uint16(len(payload))) // #nosec G115 -- a few dozen bytes
	b = append(b, protocol, hopLimit)
	b = append(b, source.AsSlice()...)
	b = append(b, destination.AsSlice()...)
	return append(b, payload...), nil
}

// multicastMAC is the Ethernet group of an IPv6 group (RFC 2464).
func multicastMAC(group netip.Addr) net.HardwareAddr {
	g := group.As16()
	return net.HardwareAddr{0x33, 0x33, g[12], g[13], g[14], g[15]}
}

// Parse reads an Ethernet frame. It returns ErrFrame for anything but an
// untagged, valid neighbour solicitation or advertisement without extension
// headers.
func Parse(b []byte) (Message, error) {
	if len(b) < ethernetLen+ipLen || binary.BigEndian.Uint16(b[12:]) != EtherType {
		return Message{}, ErrFrame
	}
	ip := b[ethernetLen:]
	length := int(binary.BigEndian.Uint16(ip[4:]))
	if ip[0]>>4 != 6 || ip[6] != protocol || ip[7] != hopLimit || len(ip) < ipLen+length {
		return Message{}, ErrFrame
	}
	payload := ip[ipLen : ipLen+length]
	if !checksumOK(ip[8:ipLen], payload) {
		return Message{}, ErrFrame
	}
	m, err := ndp.ParseMessage(payload)
	if err != nil {
		return Message{}, fmt.Errorf("%w: %w", ErrFrame, err)
	}
	source := append(net.HardwareAddr(nil), b[6:12]...)
	switch m := m.(type) {
	case *ndp.NeighborAdvertisement:
		return Message{Advertisement: true, Target: m.TargetAddress, MAC: targetMAC(m.Options, source)}, nil
	case *ndp.NeighborSolicitation:
		return Message{Target: m.TargetAddress, MAC: source}, nil
	}
	return Message{}, ErrFrame
}

func targetMAC(options []ndp.Option, otherwise net.HardwareAddr) net.HardwareAddr {
	for _, o := range options {
		if l, ok := o.(*ndp.LinkLayerAddress); ok && l.Direction == ndp.Target && len(l.Addr) == hwLen {
			return append(net.HardwareAddr(nil), l.Addr...)
		}
	}
	return otherwise
}

// checksumOK verifies the sum over the pseudo header (both addresses, length,
// protocol) and the payload.
func checksumOK(addresses, payload []byte) bool {
	sum := uint32(len(payload)) + protocol // #nosec G115 -- at most 65535
	sum = add(add(sum, addresses), payload)
	for sum>>16 != 0 {
		sum = sum&0xffff + sum>>16
	}
	return sum == 0xffff
}

func add(sum uint32, b []byte) uint32 {
	for ; len(b) >= 2; b = b[2:] {
		sum += uint32(b[0])<<8 | uint32(b[1])
	}
	if len(b) == 1 {
		sum += uint32(b[0]) << 8
	}
	return sum
}
