package addr_test

import (
	"net"
	"net/netip"
	"testing"

	"github.com/onelb/onelb/loadbalancer/announcer/addr"
)

func TestChoose(t *testing.T) {
	mac := net.HardwareAddr{2, 0, 0, 0, 0, 1}
	interfaces := []addr.Interface{
		{Name: "cni0", MAC: mac, Up: true, Networks: []netip.Prefix{netip.MustParsePrefix("10.244.1.0/24")}},
		{Name: "eth0", MAC: mac, Up: true, Networks: []netip.Prefix{netip.MustParsePrefix("10.20.0.0/16")}},
		{Name: "eth1", MAC: mac, Up: true, Networks: []netip.Prefix{netip.MustParsePrefix("10.20.30.0/24"), netip.MustParsePrefix("fd00:20::/64")}},
		{Name: "eth2", MAC: mac},
		{Name: "eth3", MAC: mac, Up: true},
		{Name: "lo", Up: true, Networks: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}},
	}
	for _, c := range []struct {
		address  string
		patterns []string
		want     string
	}{
		{"10.20.1.7", nil, "eth0"},
		{"10.20.30.7", nil, "eth1"},
		{"10.20.30.7", []string{"eth0"}, "eth0"},
		{"fd00:20::7", nil, "eth1"},
		{"192.0.2.7", nil, ""},
		{"192.0.2.7", []string{"eth[23]"}, "eth3"},
		{"192.0.2.7", []string{"eth"}, ""},
		{"127.0.0.7", nil, ""},
		{"127.0.0.7", []string{"lo"}, ""},
		{"10.20.30.7", []string{"cni0", "eth1"}, "eth1"},
	} {
		patterns, err := addr.Compile(c.patterns)
		if err != nil {
			t.Fatal(err)
		}
		got, ok := addr.Choose(interfaces, netip.MustParseAddr(c.address), patterns)
		if got.Name != c.want || ok != (c.want != "") {
			t.Errorf("%s %v: got %q, want %q", c.address, c.patterns, got.Name, c.want)
		}
	}
}

func TestPrimary(t *testing.T) {
	mac := net.HardwareAddr{2, 0, 0, 0, 0, 1}
	own := func(texts ...string) (out []netip.Addr) {
		for _, s := range texts {
			out = append(out, netip.MustParseAddr(s))
		}
		return out
	}
	interfaces := []addr.Interface{
		{Name: "eth0", MAC: mac, Own: own("192.0.2.9", "2001:db8::9")},
		{Name: "eth1", MAC: mac, Own: own("10.20.0.11")},
		{Name: "lo", Own: own("127.0.0.1")},
	}
	for _, c := range []struct {
		own           []netip.Addr
		address, want string
	}{
		{own("10.20.0.11", "192.0.2.9"), "203.0.113.7", "eth1"},
		{own("10.20.0.11"), "2001:db8:113::7", "eth1"}, // the node has no other
		{own("10.20.0.11", "2001:db8::9"), "2001:db8:113::7", "eth0"},
		{own("10.20.0.99"), "203.0.113.7", ""},
		{own("127.0.0.1"), "203.0.113.7", ""},
		{nil, "203.0.113.7", ""},
	} {
		got, ok := addr.Primary(interfaces, c.own, netip.MustParseAddr(c.address))
		if got.Name != c.want || ok != (c.want != "") {
			t.Errorf("%s with %v: got %q, want %q", c.address, c.own, got.Name, c.want)
		}
	}
}

func TestCompileNamesTheCulprit(t *testing.T) {
	if _, err := addr.Compile([]string{"eth0", "eth["}); err == nil {
		t.Error("a broken expression was accepted")
	}
}
