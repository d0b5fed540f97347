package one

import (
	"context"
	"encoding/xml"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/onelb/onelb/ipam"
)

// TestAddressesOfMACs: what OpenNebula itself showed, and the other way round.
func TestAddressesOfMACs(t *testing.T) {
	for _, c := range []struct{ prefix, mac, want string }{
		// Recorded: ranges, their ends, and leases.
		{"2001:db8:12:1::", "02:00:0a:0c:01:0a", "2001:db8:12:1:0:aff:fe0c:10a"},
		{"2001:db8:12:1::", "02:00:0a:0c:01:0c", "2001:db8:12:1:0:aff:fe0c:10c"},
		{"2001:db8:12:1::", "02:00:0a:0c:01:13", "2001:db8:12:1:0:aff:fe0c:113"},
		{"fd00:12:1::", "02:00:0a:0c:01:0c", "fd00:12:1::aff:fe0c:10c"},
		{"fe80::", "02:00:0a:0c:01:0c", "fe80::aff:fe0c:10c"},
		{"2001:db8:14::", "02:00:30:90:20:7e", "2001:db8:14::30ff:fe90:207e"},
		{"2001:db8:14::", "02:00:30:90:20:85", "2001:db8:14::30ff:fe90:2085"},
		// RFC 4291, appendix A: the universal/local bit is inverted.
		{"2001:db8::", "34:56:78:9a:bc:de", "2001:db8::3656:78ff:fe9a:bcde"},
		{"2001:db8:1:2:3:4:5:6", "ff:ff:ff:ff:ff:ff", "2001:db8:1:2:fdff:ffff:feff:ffff"},
	} {
		mac, err := parseMAC(c.mac)
		if err != nil {
			t.Fatal(err)
		}
		a := slaacAddress(addr(c.prefix), mac)
		if a != addr(c.want) {
			t.Errorf("%s and %s: %s, want %s", c.prefix, c.mac, a, c.want)
		}
		if back, ok := macOf(a); !ok || back.String() != c.mac {
			t.Errorf("%s: made of %s, %v; want %s", a, back, ok, c.mac)
		}
	}
	for _, a := range []string{"2001:db8::10", "10.0.0.1", "2001:db8::ff:fe00", "2001:db8::ff:fd00:1"} {
		if mac, ok := macOf(addr(a)); ok {
			t.Errorf("%s: made of %s", a, mac)
		}
	}
	for _, s := range []string{"", "02:00:0a:0c:01", "02:00:0a:0c:01:0a:0b:0c", "x2:00:0a:0c:01:0a", "0200.0a0c.01"} {
		if mac, err := parseMAC(s); err == nil {
			t.Errorf("%q: %s", s, mac)
		}
	}
}

func slaacRange(kind string, size int, elements string) string {
	return fmt.Sprintf("<AR><AR_ID>3</AR_ID><TYPE>%s</TYPE><SIZE>%d</SIZE>%s</AR>", kind, size, elements)
}

func TestFirstOfSLAACRange(t *testing.T) {
	const mac = "<MAC>02:00:30:90:20:7e</MAC>"
	for _, c := range []struct {
		name     string
		size     int
		elements string
		want     string // the first address, or words of why there is none
	}{
		{"global", 8, mac + "<GLOBAL_PREFIX>2001:db8:14::</GLOBAL_PREFIX>", "2001:db8:14::30ff:fe90:207e"},
		{"unique local", 8, mac + "<ULA_PREFIX>fd00:14::</ULA_PREFIX>", "fd00:14::30ff:fe90:207e"},
		{"global goes first", 8, mac + "<ULA_PREFIX>fd00:14::</ULA_PREFIX><GLOBAL_PREFIX>2001:db8:14::</GLOBAL_PREFIX>", "2001:db8:14::30ff:fe90:207e"},
		{"empty global", 8, mac + "<ULA_PREFIX>fd00:14::</ULA_PREFIX><GLOBAL_PREFIX></GLOBAL_PREFIX>", "fd00:14::30ff:fe90:207e"},
		{"zero global", 8, mac + "<GLOBAL_PREFIX>::</GLOBAL_PREFIX><ULA_PREFIX>fd00:14::</ULA_PREFIX>", "fd00:14::30ff:fe90:207e"},
		{"with a length", 8, mac + "<GLOBAL_PREFIX>2001:db8:14::/64</GLOBAL_PREFIX>", "2001:db8:14::30ff:fe90:207e"},
		{"more than 64 bits", 8, mac + "<GLOBAL_PREFIX>2001:db8:14::1</GLOBAL_PREFIX>", "2001:db8:14::30ff:fe90:207e"},
		{"as OpenNebula says", 8, mac + "<GLOBAL_PREFIX>2001:db8:14::</GLOBAL_PREFIX><IP6_GLOBAL>2001:db8:14::30ff:fe90:207e</IP6_GLOBAL>", "2001:db8:14::30ff:fe90:207e"},
		{"to the last MAC", 1 << 24, "<MAC>02:00:30:00:00:00</MAC><GLOBAL_PREFIX>2001:db8:14::</GLOBAL_PREFIX>", "2001:db8:14::30ff:fe00:0"},
		{"over the last MAC", 3, "<MAC>02:00:30:ff:ff:fe</MAC><GLOBAL_PREFIX>2001:db8:14::</GLOBAL_PREFIX>", "not consecutive"},
		{"not as OpenNebula says", 8, mac + "<GLOBAL_PREFIX>2001:db8:14::</GLOBAL_PREFIX><IP6_GLOBAL>2001:db8:14:0:400:30ff:fe90:207e</IP6_GLOBAL>", "OpenNebula calls its first address"},
		{"no prefix", 8, mac, "neither GLOBAL_PREFIX nor ULA_PREFIX"},
		{"no MAC", 8, "<GLOBAL_PREFIX>2001:db8:14::</GLOBAL_PREFIX>", "MAC"},
		{"longer prefix", 8, mac + "<GLOBAL_PREFIX>2001:db8:14::/80</GLOBAL_PREFIX>", "GLOBAL_PREFIX"},
		{"IPv4", 8, mac + "<GLOBAL_PREFIX>10.0.0.0</GLOBAL_PREFIX>", "GLOBAL_PREFIX"},
		{"nonsense", 8, mac + "<ULA_PREFIX>fd00</ULA_PREFIX>", "ULA_PREFIX"},
	} {
		for _, kind := range []string{"IP6", "IP4_6"} {
			body := slaacRange(kind, c.size, c.elements+"<IP>10.0.0.1</IP>")
			var x xmlAR
			if err := xml.Unmarshal([]byte(body), &x); err != nil {
				t.Fatal(err)
			}
			r, err := x.parse()
			if err != nil {
				t.Fatalf("%s: %v", c.name, err)
			}
			if r.First4.IsValid() != (kind == "IP4_6") {
				t.Errorf("%s: IPv4 %s", c.name, r.First4)
			}
			if want, err := netip.ParseAddr(c.want); err == nil {
				if r.First6 != want || r.NoIPv6 != "" {
					t.Errorf("%s: got %s %q, want %s", c.name, r.First6, r.NoIPv6, want)
				}
			} else if r.First6.IsValid() || !strings.Contains(r.NoIPv6, c.want) {
				t.Errorf("%s: got %s, %q", c.name, r.First6, r.NoIPv6)
			}
		}
	}
}

// TestLeasesWithoutPrefix: what is left is the IPv4 half, or nothing.
func TestLeasesWithoutPrefix(t *testing.T) {
	const leases = "<MAC>02:00:0a:00:00:01</MAC><IP>10.0.0.1</IP><USED_LEASES>1</USED_LEASES>" +
		"<LEASES><LEASE><IP>10.0.0.2</IP><MAC>02:00:0a:00:00:02</MAC><VM>-1</VM></LEASE></LEASES>"
	for kind, want := range map[string][]ipam.Lease{"IP6": nil, "IP4_6": {{IP4: addr("10.0.0.2"), Held: true}}} {
		var x xmlAR
		if err := xml.Unmarshal([]byte(slaacRange(kind, 4, leases)), &x); err != nil {
			t.Fatal(err)
		}
		r, err := x.parse()
		if diff := cmp.Diff(want, r.Leases, compareAddrs); err != nil || diff != "" {
			t.Errorf("%s: %v\n%s", kind, err, diff)
		}
	}
	bad := slaacRange("IP6", 4, "<GLOBAL_PREFIX>2001:db8::</GLOBAL_PREFIX>"+strings.ReplaceAll(leases, "00:02<", "00<"))
	var x xmlAR
	if err := xml.Unmarshal([]byte(bad), &x); err != nil {
		t.Fatal(err)
	}
	if r, err := x.parse(); err == nil {
		t.Errorf("a lease of a damaged MAC: %+v", r)
	}
}

// TestNameByMAC: an address that OpenNebula makes of a MAC is found by that only,
// in its range; all others are named as they are.
func TestNameByMAC(t *testing.T) {
	for _, c := range []struct {
		network       ipam.NetworkID
		address, want string
		reads         int // without having read before
	}{
		{1, "2001:db8:12:1:0:aff:fe0c:10c", "<MAC>02:00:0a:0c:01:0c</MAC><AR_ID>1</AR_ID>", 1},
		{1, "10.12.1.12", "<IP>10.12.1.12</IP>", 0},
		{1, "2001:db8:12:2::11", "<IP6>2001:db8:12:2::11</IP6>", 0},
		{1, "2001:db8:12:1:0:aff:fe0c:114", "<IP6>2001:db8:12:1:0:aff:fe0c:114</IP6>", 2}, // past the end: asked each time
		{3, "2001:db8:13::ff:fe00:1", "<IP6>2001:db8:13::ff:fe00:1</IP6>", 2},
	} {
		f := networkFrontEnd(t)
		client := f.client(Options{})
		a := addr(c.address)
		if err := errors.Join(client.Hold(t.Context(), c.network, a), client.Release(t.Context(), c.network, a)); err != nil {
			t.Fatal(err)
		}
		want := []string{fmt.Sprint(c.network), "<TEMPLATE><LEASES>" + c.want + "</LEASES></TEMPLATE>"}
		for _, method := range []string{"one.vn.hold", "one.vn.release"} {
			if diff := cmp.Diff(want, f.calls(method)[0].params[1:]); diff != "" {
				t.Errorf("%s %s: %s", method, a, diff)
			}
		}
		if n := len(f.calls("one.vn.info")); n != c.reads {
			t.Errorf("%s: %d reads, want %d", a, n, c.reads)
		}
	}
}

func TestNameByMACNeedsTheNetwork(t *testing.T) {
	f := networkFrontEnd(t)
	err := f.client(Options{}).Release(context.Background(), 99, addr("2001:db8:12:1:0:aff:fe0c:10c"))
	if !errors.Is(err, ipam.ErrNotFound) || len(f.calls("one.vn.release")) > 0 {
		t.Errorf("%v: OpenNebula would call the release of an unknown address a success", err)
	}
}

func TestReserveByMAC(t *testing.T) {
	f := networkFrontEnd(t)
	_, err := f.client(Options{}).Reserve(t.Context(), ipam.ReserveRequest{
		Parent: 1, Into: 8, Size: 2, Range: 1, First: addr("2001:db8:12:1:0:aff:fe0c:10c"),
	})
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]string{"SIZE": "2", "AR_ID": "1", "NETWORK_ID": "8", "MAC": "02:00:0a:0c:01:0c"}
	if diff := cmp.Diff(want, decode(t, f.calls("one.vn.reserve")[0].params[2])); diff != "" {
		t.Error(diff)
	}
}

// TestPrefixesStay: one.vn.update_ar clears a prefix that is left out.
func TestPrefixesStay(t *testing.T) {
	for _, c := range []struct {
		rng        ipam.RangeID
		attributes map[string]string
		want       string
	}{
		{1, nil, "<AR_ID>1</AR_ID><GLOBAL_PREFIX>2001:db8:12:1::</GLOBAL_PREFIX><ULA_PREFIX>fd00:12:1::</ULA_PREFIX>"},
		{1, map[string]string{"RACK": "7", "ULA_PREFIX": "fd00:99::"}, "<AR_ID>1</AR_ID><GLOBAL_PREFIX>2001:db8:12:1::</GLOBAL_PREFIX><RACK>7</RACK><ULA_PREFIX>fd00:99::</ULA_PREFIX>"},
		{0, map[string]string{"RACK": "7"}, "<AR_ID>0</AR_ID><RACK>7</RACK>"},
		{2, nil, "<AR_ID>2</AR_ID>"},
	} {
		f := networkFrontEnd(t)
		client := f.client(Options{})
		for range 2 {
			if err := client.AnnotateRange(t.Context(), 1, c.rng, c.attributes); err != nil {
				t.Fatal(err)
			}
		}
		calls := f.calls("one.vn.update_ar")
		if diff := cmp.Diff("<TEMPLATE><AR>"+c.want+"</AR></TEMPLATE>", calls[1].params[2]); diff != "" {
			t.Error(diff)
		}
		if n := len(f.calls("one.vn.info")); n != 1 {
			t.Errorf("range %d: %d reads", c.rng, n)
		}
	}
}

func FuzzAddressOfMAC(f *testing.F) {
	f.Add("2001:db8:12:1::", "02:00:0a:0c:01:0a")
	f.Fuzz(func(t *testing.T, prefix, mac string) {
		m, err := parseMAC(mac)
		p, perr := netip.ParseAddr(prefix)
		if err != nil || perr != nil || !p.Is6() {
			return
		}
		if back, ok := macOf(slaacAddress(p, m)); !ok || back != m {
			t.Errorf("%s and %s: %s, %v", prefix, mac, back, ok)
		}
	})
}
