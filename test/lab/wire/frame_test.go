package wire

import (
	"net"
	"net/netip"
	"testing"

	"github.com/mdlayher/arp"
	"github.com/mdlayher/ethernet"
	"github.com/mdlayher/ndp"
)

var (
	mac = net.HardwareAddr{2, 0, 10, 20, 0, 11}
	v4  = netip.MustParseAddr("10.20.0.11")
	v6  = netip.MustParseAddr("fd00:20::11")
)

// arpFrame encodes an ARP packet with another implementation.
func arpFrame(t *testing.T, op arp.Operation, sender, target netip.Addr) []byte {
	t.Helper()
	p, err := arp.NewPacket(op, mac, sender, broadcast, target)
	if err != nil {
		t.Fatal(err)
	}
	payload, err := p.MarshalBinary()
	if err != nil {
		t.Fatal(err)
	}
	frame, err := (&ethernet.Frame{
		Destination: broadcast, Source: mac, EtherType: ethernet.EtherTypeARP, Payload: payload,
	}).MarshalBinary()
	if err != nil {
		t.Fatal(err)
	}
	return frame
}

// naFrame encodes a neighbour advertisement with another implementation, but for
// the headers.
func naFrame(t *testing.T, na *ndp.NeighborAdvertisement, hopLimit byte) []byte {
	t.Helper()
	message, err := ndp.MarshalMessage(na)
	if err != nil {
		t.Fatal(err)
	}
	frame := make([]byte, ethernetHeader+ipv6Header)
	copy(frame, []byte{0x33, 0x33, 0, 0, 0, 1})
	copy(frame[6:], mac)
	frame[12], frame[13] = 0x86, 0xdd
	ip := frame[ethernetHeader:]
	ip[0], ip[5], ip[6], ip[7] = 0x60, byte(len(message)), protoICMPv6, hopLimit
	return append(frame, message...)
}

func TestAnnounced(t *testing.T) {
	other := net.HardwareAddr{2, 0, 10, 20, 0, 99}
	withOption := func(solicited bool) *ndp.NeighborAdvertisement {
		return &ndp.NeighborAdvertisement{
			Solicited: solicited, Override: true, TargetAddress: v6,
			Options: []ndp.Option{&ndp.LinkLayerAddress{Direction: ndp.Target, Addr: other}},
		}
	}
	zero := netip.IPv4Unspecified()
	tests := []struct {
		name  string
		frame []byte
		want  Kind // "" for none
		mac   net.HardwareAddr
	}{
		{"gratuitous request", arpFrame(t, arp.OperationRequest, v4, v4), GratuitousRequest, mac},
		{"gratuitous reply", arpFrame(t, arp.OperationReply, v4, v4), GratuitousReply, mac},
		{"ordinary request", arpFrame(t, arp.OperationRequest, v4, netip.MustParseAddr("10.20.0.12")), "", nil},
		{"probe", arpFrame(t, arp.OperationRequest, zero, v4), "", nil},
		{"nonsense", arpFrame(t, arp.OperationRequest, zero, zero), "", nil},
		{"unsolicited", naFrame(t, withOption(false), 255), UnsolicitedNA, other},
		{"unsolicited, no option", naFrame(t, &ndp.NeighborAdvertisement{TargetAddress: v6}, 255), UnsolicitedNA, mac},
		{"solicited", naFrame(t, withOption(true), 255), "", nil},
		{"from beyond a router", naFrame(t, withOption(false), 254), "", nil},
		{"short", []byte{1, 2, 3}, "", nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, ok := announced(tt.frame)
			if !ok {
				got = Announcement{}
			}
			if got.Kind != tt.want || got.MAC.String() != tt.mac.String() {
				t.Errorf("got %+v; want kind %q, address %s", got, tt.want, tt.mac)
			}
		})
	}
}

// TestQuestions reads our questions with other implementations.
func TestQuestions(t *testing.T) {
	asked4 := netip.MustParseAddr("10.20.0.99")
	var frame ethernet.Frame
	if err := frame.UnmarshalBinary(whoHas(mac, v4, asked4)); err != nil {
		t.Fatal(err)
	}
	var p arp.Packet
	if err := p.UnmarshalBinary(frame.Payload); err != nil {
		t.Fatal(err)
	}
	if p.Operation != arp.OperationRequest || p.SenderIP != v4 || p.TargetIP != asked4 || p.SenderHardwareAddr.String() != mac.String() {
		t.Errorf("ARP request reads as %+v", p)
	}
	asked6 := netip.MustParseAddr("fd00:20::1:2345")
	b := solicitation(mac, v6, asked6)
	message, err := ndp.ParseMessage(b[ethernetHeader+ipv6Header:])
	if err != nil {
		t.Fatal(err)
	}
	ns, ok := message.(*ndp.NeighborSolicitation)
	if !ok || ns.TargetAddress != asked6 || len(ns.Options) != 1 {
		t.Errorf("solicitation reads as %+v", message)
	}
	group, err := ndp.SolicitedNodeMulticast(asked6)
	if err != nil || netip.AddrFrom16([16]byte(b[ethernetHeader+24:])) != group {
		t.Errorf("solicitation goes to % x; want %s", b[ethernetHeader+24:ethernetHeader+40], group)
	}
}

// FuzzFrame feeds arbitrary frames to the readers.
func FuzzFrame(f *testing.F) {
	f.Add(whoHas(mac, v4, v4))
	f.Add(solicitation(mac, v6, v6))
	f.Fuzz(func(t *testing.T, frame []byte) {
		if a, ok := announced(frame); ok && (!a.Addr.IsValid() || len(a.MAC) != 6) {
			t.Errorf("announcement without address: %+v", a)
		}
		_ = answers(frame, v4)
		_ = answers(frame, v6)
	})
}
