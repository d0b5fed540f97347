package wire

import (
	"encoding/binary"
	"net"
	"net/netip"
)

// Kind is the kind of an announcement.
type Kind string

// The frames that announce an address to everyone.
const (
	GratuitousRequest Kind = "gratuitous ARP request" // sender and target are the announced address
	GratuitousReply   Kind = "gratuitous ARP reply"
	UnsolicitedNA     Kind = "unsolicited neighbour advertisement"
)

// Sizes and numbers of RFC 826, RFC 4861 and RFC 8200.
const (
	ethernetHeader = 14
	arpLength      = 28
	ipv6Header     = 40
	typeARP        = 0x0806
	typeIPv6       = 0x86dd
	protoICMPv6    = 58
	icmpNS, icmpNA = 135, 136
	flagSolicited  = 0x40
	optionSource   = 1
	optionTarget   = 2
)

// arpPacket is an ARP packet over Ethernet and IPv4.
type arpPacket struct {
	operation            uint16
	senderMAC, targetMAC net.HardwareAddr
	sender, target       netip.Addr
}

// parseARP reads an Ethernet frame that carries ARP.
func parseARP(frame []byte) (arpPacket, bool) {
	if len(frame) < ethernetHeader+arpLength || binary.BigEndian.Uint16(frame[12:]) != typeARP {
		return arpPacket{}, false
	}
	b := frame[ethernetHeader:]
	if binary.BigEndian.Uint16(b) != 1 || binary.BigEndian.Uint16(b[2:]) != 0x0800 || b[4] != 6 || b[5] != 4 {
		return arpPacket{}, false
	}
	return arpPacket{
		operation: binary.BigEndian.Uint16(b[6:]),
		senderMAC: net.HardwareAddr(b[8:14:14]), sender: netip.AddrFrom4([4]byte(b[14:18])),
		targetMAC: net.HardwareAddr(b[18:24:24]), target: netip.AddrFrom4([4]byte(b[24:28])),
	}, true
}

// whoHas is an ARP request frame from src with the given address.
func whoHas(src net.HardwareAddr, from, target netip.Addr) []byte {
	frame := make([]byte, ethernetHeader+arpLength)
	copy(frame, broadcast)
	copy(frame[6:], src)
	binary.BigEndian.PutUint16(frame[12:], typeARP)
	b := frame[ethernetHeader:]
	copy(b, []byte{0, 1, 8, 0, 6, 4, 0, 1})
	sender, asked := from.As4(), target.As4()
	copy(b[8:], src)
	copy(b[14:], sender[:])
	copy(b[24:], asked[:])
	return frame
}

// advertisement is a neighbour advertisement.
type advertisement struct {
	target    netip.Addr
	mac       net.HardwareAddr // from the target link-layer option, else the frame's sender
	solicited bool
}

// parseNA reads an Ethernet frame that carries a neighbour advertisement.
func parseNA(frame []byte) (advertisement, bool) {
	const icmp = ethernetHeader + ipv6Header
	if len(frame) < icmp+24 || binary.BigEndian.Uint16(frame[12:]) != typeIPv6 {
		return advertisement{}, false
	}
	ip := frame[ethernetHeader:]
	// A hop limit of 255 proves that no router has passed it on.
	if ip[6] != protoICMPv6 || ip[7] != 255 || frame[icmp] != icmpNA {
		return advertisement{}, false
	}
	b := frame[icmp:]
	na := advertisement{
		target: netip.AddrFrom16([16]byte(b[8:24])), mac: net.HardwareAddr(frame[6:12:12]),
		solicited: b[4]&flagSolicited != 0,
	}
	for options := b[24:]; len(options) >= 8; {
		length := int(options[1]) * 8
		if length == 0 || length > len(options) {
			return advertisement{}, false
		}
		if options[0] == optionTarget {
			na.mac = net.HardwareAddr(options[2:8:8])
		}
		options = options[length:]
	}
	return na, true
}

// solicitation is a neighbour solicitation frame from src with the given address.
func solicitation(src net.HardwareAddr, from, target netip.Addr) []byte {
	const icmpLength = 32
	frame := make([]byte, ethernetHeader+ipv6Header+icmpLength)
	asked := target.As16()
	group := [16]byte{0xff, 0x02, 11: 0x01, 12: 0xff, 13: asked[13], 14: asked[14], 15: asked[15]}
	copy(frame, []byte{0x33, 0x33, group[12], group[13], group[14], group[15]})
	copy(frame[6:], src)
	binary.BigEndian.PutUint16(frame[12:], typeIPv6)
	ip := frame[ethernetHeader:]
	ip[0] = 6 << 4
	binary.BigEndian.PutUint16(ip[4:], icmpLength)
	ip[6], ip[7] = protoICMPv6, 255
	sender := from.As16()
	copy(ip[8:], sender[:])
	copy(ip[24:], group[:])
	b := ip[ipv6Header:]
	b[0] = icmpNS
	copy(b[8:], asked[:])
	b[24], b[25] = optionSource, 1
	copy(b[26:], src)
	binary.BigEndian.PutUint16(b[2:], icmpChecksum(ip[8:40], b))
	return frame
}

// icmpChecksum is the checksum over the pseudo header and the message.
func icmpChecksum(addresses, message []byte) uint16 {
	sum := uint32(len(message)) + protoICMPv6
	for _, part := range [][]byte{addresses, message} {
		for i := 0; i+1 < len(part); i += 2 {
			sum += uint32(binary.BigEndian.Uint16(part[i:]))
		}
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}

var broadcast = net.HardwareAddr{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}
