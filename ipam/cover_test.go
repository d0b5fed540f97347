package ipam

import (
	"net/netip"
	"testing"
)

func TestCovers(t *testing.T) {
	a := netip.MustParseAddr
	n := Network{Ranges: []Range{
		{ID: 1, First4: a("10.0.0.20"), Size: 10},
		{ID: 0, First4: a("10.0.0.10"), First6: a("fd00::1"), Size: 10},
		{ID: 2, First4: a("255.255.255.250"), Size: 6},
		{ID: 3, Size: 5},
	}}
	for _, tt := range []struct{ start, end, missing string }{
		{"10.0.0.10", "10.0.0.29", ""}, // two ranges that touch
		{"10.0.0.15", "10.0.0.15", ""},
		{"10.0.0.9", "10.0.0.12", "10.0.0.9"},
		{"10.0.0.25", "10.0.0.31", "10.0.0.30"},
		{"10.0.1.1", "10.0.1.2", "10.0.1.1"},
		{"fd00::1", "fd00::a", ""},
		{"fd00::1", "fd00::b", "fd00::b"},
		{"255.255.255.250", "255.255.255.255", ""},
	} {
		missing, all := n.Covers(AddressRange{a(tt.start), a(tt.end)})
		if all != (tt.missing == "") || !all && missing != a(tt.missing) {
			t.Errorf("%s-%s: %s %v, want %q", tt.start, tt.end, missing, all, tt.missing)
		}
	}
}

func TestUserOfAnAddress(t *testing.T) {
	a := netip.MustParseAddr
	n := Network{Ranges: []Range{{Leases: []Lease{{IP4: a("10.0.0.1"), User: "VM 3"}, {IP4: a("10.0.0.2"), IP6: a("fd00::2"), Held: true}}}}}
	for address, want := range map[string]string{"10.0.0.1": "VM 3", "10.0.0.2": "a hold", "fd00::2": "a hold", "10.0.0.3": ""} {
		if got := n.User(a(address)); got != want {
			t.Errorf("%s: %q, want %q", address, got, want)
		}
	}
}
