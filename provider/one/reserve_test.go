package one

import (
	"context"
	"errors"
	"net/netip"
	"os"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/onelb/onelb/ipam"
)

func testdata(t testing.TB, name string) string {
	t.Helper()
	b, err := os.ReadFile("testdata/" + name + ".xml")
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// TestReserveStaysInRange: no request that runs over the end of a range may be
// sent. The network has 10.12.0.200+21 (range 0) and 2001:db8:12:2::10+16 (range 2).
func TestReserveStaysInRange(t *testing.T) {
	for _, c := range []struct {
		first string
		rng   ipam.RangeID
		size  int
		want  error // nil: it is sent
	}{
		{"10.12.0.200", 0, 21, nil},
		{"10.12.0.220", 0, 1, nil},
		{"10.12.0.218", 0, 6, ipam.ErrNoSpace},
		{"10.12.0.200", 0, 22, ipam.ErrNoSpace},
		{"10.12.0.221", 0, 1, ipam.ErrNoSpace},
		{"10.12.0.199", 0, 1, ipam.ErrNoSpace},
		{"10.12.0.200", 1, 1, ipam.ErrNoSpace},
		{"10.12.0.200", 7, 1, ipam.ErrNotFound},
		{"2001:db8:12:2::1f", 2, 1, nil},
		{"2001:db8:12:2::1f", 2, 2, ipam.ErrNoSpace},
		{"2001:db8:12:2::10", 0, 1, ipam.ErrNoSpace},
		{"2001:db8:12:1:0:aff:fe0c:10a", 1, 10, nil}, // SLAAC
		{"2001:db8:12:1:0:aff:fe0c:113", 1, 2, ipam.ErrNoSpace},
		{"2001:db8:12:1:0:aff:fe0c:109", 1, 1, ipam.ErrNoSpace},
		{"fd00:12:1::aff:fe0c:10a", 1, 1, ipam.ErrNoSpace}, // its address with the other prefix
		{"10.12.0.200", 2, 1, ipam.ErrNoSpace},
		{"10.12.0.200", 0, 1 << 62, ipam.ErrNoSpace},
	} {
		f := newFrontEnd(t, func(r request) string {
			if r.method == "one.vn.info" {
				return okText(testdata(t, "vnet-mixed"))
			}
			return okID(77)
		})
		id, err := f.client(Options{}).Reserve(context.Background(), ipam.ReserveRequest{
			Parent: 1, Name: "lab-public", Into: ipam.NoNetwork, Size: c.size, Range: c.rng, First: netip.MustParseAddr(c.first),
		})
		sent := len(f.calls("one.vn.reserve"))
		if !errors.Is(err, c.want) || (c.want == nil) != (sent == 1) || c.want == nil && id != 77 {
			t.Errorf("%s+%d in range %d: %d calls, ID %d, %v", c.first, c.size, c.rng, sent, id, err)
		}
	}
}

func TestReserveTemplates(t *testing.T) {
	for _, c := range []struct {
		request ipam.ReserveRequest
		want    map[string]string // nil: refused
	}{
		{
			ipam.ReserveRequest{Name: `a"b`, Into: ipam.NoNetwork, Size: 4, Range: 0},
			map[string]string{"SIZE": "4", "NAME": `a"b`, "AR_ID": "0"},
		},
		{
			ipam.ReserveRequest{Name: "ignored", Into: 8, Size: 1, Range: 2},
			map[string]string{"SIZE": "1", "NETWORK_ID": "8", "AR_ID": "2"},
		},
		{ipam.ReserveRequest{Name: "a", Into: ipam.NoNetwork, Size: 0}, nil},
		{ipam.ReserveRequest{Name: "a", Into: ipam.NoNetwork, Size: 1, Range: -1}, nil},
		{ipam.ReserveRequest{Into: ipam.NoNetwork, Size: 1}, nil},
		{ipam.ReserveRequest{Name: "a", Into: ipam.NoNetwork, Size: 1, First: netip.MustParseAddr("fe80::1%eth0")}, nil},
	} {
		f := newFrontEnd(t, func(request) string { return okID(9) })
		_, err := f.client(Options{}).Reserve(context.Background(), c.request)
		calls := f.calls("one.vn.reserve")
		if c.want == nil {
			if err == nil || len(calls) > 0 {
				t.Errorf("%+v: %v, %d calls", c.request, err, len(calls))
			}
			continue
		}
		if err != nil || len(calls) != 1 {
			t.Fatalf("%+v: %v, %d calls", c.request, err, len(calls))
		}
		if diff := cmp.Diff(c.want, decode(t, calls[0].params[2])); diff != "" {
			t.Error(diff)
		}
	}
}

func TestDistance(t *testing.T) {
	for _, c := range []struct {
		a, b string
		want int
		ok   bool
	}{
		{"10.0.0.1", "10.0.1.0", 255, true},
		{"10.0.0.1", "10.0.0.1", 0, true},
		{"10.0.0.1", "10.0.0.0", 0, false},
		{"10.0.0.1", "::1", 0, false},
		{"2001:db8::ffff", "2001:db8::1:0", 1, true},
		{"2001:db8::", "2001:db8:0:1::", 0, false},
		{"0.0.0.0", "255.255.255.255", 0, false},
	} {
		got, ok := distance(netip.MustParseAddr(c.a), netip.MustParseAddr(c.b))
		if got != c.want || ok != c.ok {
			t.Errorf("%s to %s: %d, %v", c.a, c.b, got, ok)
		}
	}
	if _, ok := distance(netip.Addr{}, netip.MustParseAddr("::")); ok {
		t.Error("from nowhere")
	}
}
