// Package arp builds and reads the Ethernet frames with which a holder of an
// IPv4 address makes itself known and with which a candidate asks who has it.
//
// It does no I/O. Parse never panics and never keeps a reference to its input.
package arp

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/mdlayher/arp"
	"github.com/mdlayher/ethernet"
)

// EtherType is the Ethernet protocol of ARP.
const EtherType = 0x0806

const (
	headerLen = 14 // destination, source, type
	packetLen = 28 // RFC 826 with Ethernet and IPv4 addresses
	hwLen     = 6
)

// Form is one of the two shapes of a gratuitous ARP.
type Form uint16

// Some stacks update their cache from requests only, some from replies only:
// a holder sends both.
const (
	FormRequest Form = Form(arp.OperationRequest)
	FormReply   Form = Form(arp.OperationReply)
)

// ErrFrame is returned for a frame that is not an Ethernet/IPv4 ARP frame.
var ErrFrame = errors.New("not an ARP frame for IPv4 over Ethernet")

var zeroMAC = net.HardwareAddr{0, 0, 0, 0, 0, 0}

// Message is what an ARP frame says.
type Message struct {
	// Request is true for a request, false for a reply.
	Request bool
	// Sender is the address the sender claims; 0.0.0.0 in a probe.
	Sender netip.Addr
	// SenderMAC is the hardware address that is claimed for Sender.
	SenderMAC net.HardwareAddr
	// Target is the address that is asked for.
	Target netip.Addr
}

// Gratuitous returns the broadcast frame by which mac announces that it has a.
// Linux believes the reply form only if its target is mac itself.
func Gratuitous(form Form, a netip.Addr, mac net.HardwareAddr) ([]byte, error) {
	target := zeroMAC
	if form == FormReply {
		target = mac
	}
	return frame(arp.Operation(form), mac, a, target, a, ethernet.Broadcast)
}

// Probe returns the frame by which mac asks who has a without claiming
// anything: the sender address is zero (RFC 5227), so no cache is changed.
// It goes to the hardware address to, or to everybody if to is nil.
func Probe(a netip.Addr, mac, to net.HardwareAddr) ([]byte, error) {
	if to == nil {
		to = ethernet.Broadcast
	}
	return frame(arp.OperationRequest, mac, netip.IPv4Unspecified(), zeroMAC, a, to)
}

func frame(op arp.Operation, mac net.HardwareAddr, sender netip.Addr, targetMAC net.HardwareAddr, target netip.Addr, to net.HardwareAddr) ([]byte, error) {
	if len(mac) != hwLen || len(to) != hwLen {
		return nil, fmt.Errorf("ARP frame for %s: hardware address is not %d bytes", target, hwLen)
	}
	p, err := arp.NewPacket(op, mac, sender, targetMAC, target)
	if err != nil {
		return nil, fmt.Errorf("ARP frame for %s: %w", target, err)
	}
	payload, err := p.MarshalBinary()
	if err != nil {
		return nil, fmt.Errorf("ARP frame for %s: %w", target, err)
	}
	f := ethernet.Frame{Destination: to, Source: mac, EtherType: ethernet.EtherTypeARP, Payload: payload}
	b, err := f.MarshalBinary()
	if err != nil {
		return nil, fmt.Errorf("ARP frame for %s: %w", target, err)
	}
	return b, nil
}

// Parse reads an Ethernet frame. It returns ErrFrame for anything but
// untagged ARP of IPv4 over Ethernet.
func Parse(b []byte) (Message, error) {
	if len(b) < headerLen+packetLen || binary.BigEndian.Uint16(b[12:]) != EtherType {
		return Message{}, ErrFrame
	}
	p := b[headerLen:]
	op := binary.BigEndian.Uint16(p[6:])
	switch {
	case binary.BigEndian.Uint16(p) != 1, binary.BigEndian.Uint16(p[2:]) != 0x0800, p[4] != hwLen, p[5] != 4:
		return Message{}, ErrFrame
	case op != uint16(arp.OperationRequest) && op != uint16(arp.OperationReply):
		return Message{}, ErrFrame
	}
	return Message{
		Request:   op == uint16(arp.OperationRequest),
		SenderMAC: append(net.HardwareAddr(nil), p[8:14]...),
		Sender:    netip.AddrFrom4([4]byte(p[14:18])),
		Target:    netip.AddrFrom4([4]byte(p[24:28])),
	}, nil
}
