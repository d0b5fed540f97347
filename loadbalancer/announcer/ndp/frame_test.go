package ndp_test

import (
	"bytes"
	"encoding/hex"
	"errors"
	"net"
	"net/netip"
	"testing"

	"github.com/onelb/onelb/loadbalancer/announcer/ndp"
)

var (
	address = netip.MustParseAddr("2001:db8:113::107")
	mac     = net.HardwareAddr{2, 0, 0, 0, 0, 1}
	other   = net.HardwareAddr{2, 0, 0, 0, 0, 2}
)

func TestUnsolicited(t *testing.T) {
	b, err := ndp.Unsolicited(address, mac)
	if err != nil {
		t.Fatal(err)
	}
	want := "333300000001" + "020000000001" + "86dd" +
		"60000000" + "0020" + "3a" + "ff" +
		"20010db8011300000000000000000107" + "ff020000000000000000000000000001" +
		"8800"
	if got := hex.EncodeToString(b); got[:len(want)] != want {
		t.Errorf("got  %s\nwant %s…", got, want)
	}
	rest := "20000000" + "20010db8011300000000000000000107" + "0201020000000001"
	if got := hex.EncodeToString(b[58:]); got != rest {
		t.Errorf("got  %s\nwant %s (override flag, target, target's link-layer address)", got, rest)
	}
	m, err := ndp.Parse(b)
	if err != nil || !m.Advertisement || m.Target != address || m.MAC.String() != mac.String() {
		t.Errorf("parsed %+v, %v", m, err)
	}
}

func TestProbe(t *testing.T) {
	for name, c := range map[string]struct {
		to   net.HardwareAddr
		want string
	}{
		"group":    {nil, "333300000001"},
		"one host": {other, "020000000002"},
	} {
		b, err := ndp.Probe(address, mac, c.to)
		if err != nil {
			t.Fatal(err)
		}
		if got := hex.EncodeToString(b[:6]); got != c.want {
			t.Errorf("%s: goes to %s, want %s", name, got, c.want)
		}
		if group := hex.EncodeToString(b[38:54]); group != "ff0200000000000000000001ff000107" {
			t.Errorf("%s: IP destination %s", name, group)
		}
		m, err := ndp.Parse(b)
		if err != nil || m.Advertisement || m.Target != address || m.MAC.String() != mac.String() {
			t.Errorf("%s: parsed %+v, %v", name, m, err)
		}
	}
}

func TestFrameRefusesBadAddresses(t *testing.T) {
	if _, err := ndp.Unsolicited(netip.MustParseAddr("203.0.113.7"), mac); err == nil {
		t.Error("an IPv4 address was accepted")
	}
	if _, err := ndp.Probe(netip.MustParseAddr("203.0.113.7"), mac, nil); err == nil {
		t.Error("a probe for an IPv4 address was made")
	}
	if _, err := ndp.Probe(address, mac[:5], nil); err == nil {
		t.Error("a 5-byte hardware address was accepted")
	}
}

func TestParseRefuses(t *testing.T) {
	good, err := ndp.Unsolicited(address, mac)
	if err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func([]byte) []byte{
		"short":          func(b []byte) []byte { return b[:53] },
		"cut":            func(b []byte) []byte { return b[:len(b)-1] },
		"routed":         func(b []byte) []byte { b[21] = 254; return b },
		"wrong checksum": func(b []byte) []byte { b[70]++; return b },
		"UDP":            func(b []byte) []byte { b[20] = 17; return b },
	} {
		if _, err := ndp.Parse(change(bytes.Clone(good))); !errors.Is(err, ndp.ErrFrame) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func FuzzParse(f *testing.F) {
	seed, _ := ndp.Probe(address, mac, nil)
	f.Add(seed)
	seed, _ = ndp.Unsolicited(address, mac)
	f.Add(seed)
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := ndp.Parse(b)
		if err != nil {
			return
		}
		if !m.Target.Is6() || len(m.MAC) != 6 {
			t.Fatalf("accepted %+v", m)
		}
	})
}
