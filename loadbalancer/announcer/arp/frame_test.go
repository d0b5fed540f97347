package arp_test

import (
	"bytes"
	"encoding/hex"
	"errors"
	"net"
	"net/netip"
	"testing"

	"github.com/onelb/onelb/loadbalancer/announcer/arp"
)

var (
	address = netip.MustParseAddr("203.0.113.7")
	mac     = net.HardwareAddr{2, 0, 0, 0, 0, 1}
	other   = net.HardwareAddr{2, 0, 0, 0, 0, 2}
)

func TestFrames(t *testing.T) {
	for _, c := range []struct {
		name  string
		frame func() ([]byte, error)
		want  string
	}{
		{"gratuitous request", func() ([]byte, error) { return arp.Gratuitous(arp.FormRequest, address, mac) },
			"ffffffffffff0200000000010806" + "0001080006040001" + "020000000001cb007107" + "000000000000cb007107"},
		{"gratuitous reply", func() ([]byte, error) { return arp.Gratuitous(arp.FormReply, address, mac) },
			"ffffffffffff0200000000010806" + "0001080006040002" + "020000000001cb007107" + "020000000001cb007107"},
		{"probe", func() ([]byte, error) { return arp.Probe(address, mac, nil) },
			"ffffffffffff0200000000010806" + "0001080006040001" + "02000000000100000000" + "000000000000cb007107"},
		{"probe of one host", func() ([]byte, error) { return arp.Probe(address, mac, other) },
			"0200000000020200000000010806" + "0001080006040001" + "02000000000100000000" + "000000000000cb007107"},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := c.frame()
			if err != nil {
				t.Fatal(err)
			}
			// Ethernet pads short frames.
			want, _ := hex.DecodeString(c.want)
			if !bytes.HasPrefix(got, want) {
				t.Errorf("got  %x\nwant %x", got, want)
			}
			m, err := arp.Parse(got)
			if err != nil {
				t.Fatal(err)
			}
			if m.Target != address || m.SenderMAC.String() != mac.String() {
				t.Errorf("parsed %+v", m)
			}
		})
	}
}

func TestFrameRefusesBadAddresses(t *testing.T) {
	if _, err := arp.Gratuitous(arp.FormReply, netip.MustParseAddr("2001:db8::1"), mac); err == nil {
		t.Error("an IPv6 address was accepted")
	}
	if _, err := arp.Gratuitous(arp.FormRequest, address, net.HardwareAddr{1, 2, 3, 4, 5, 6, 7, 8}); err == nil {
		t.Error("an 8-byte hardware address was accepted")
	}
}

func TestParseRefuses(t *testing.T) {
	good, err := arp.Gratuitous(arp.FormRequest, address, mac)
	if err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func([]byte) []byte{
		"short":          func(b []byte) []byte { return b[:41] },
		"other protocol": func(b []byte) []byte { b[13] = 0; return b },
		"token ring":     func(b []byte) []byte { b[15] = 6; return b },
		"not IPv4":       func(b []byte) []byte { b[16] = 0x86; return b },
		"long hardware":  func(b []byte) []byte { b[18] = 8; return b },
		"long protocol":  func(b []byte) []byte { b[19] = 16; return b },
		"reverse ARP":    func(b []byte) []byte { b[21] = 3; return b },
	} {
		if _, err := arp.Parse(change(bytes.Clone(good))); !errors.Is(err, arp.ErrFrame) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func FuzzParse(f *testing.F) {
	seed, _ := arp.Probe(address, mac, nil)
	f.Add(seed)
	seed, _ = arp.Gratuitous(arp.FormReply, address, mac)
	f.Add(seed)
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := arp.Parse(b)
		if err != nil {
			return
		}
		if !m.Sender.Is4() || !m.Target.Is4() || len(m.SenderMAC) != 6 {
			t.Fatalf("accepted %+v", m)
		}
	})
}
