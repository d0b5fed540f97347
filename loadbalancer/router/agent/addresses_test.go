package agent

import (
	"fmt"
	"maps"
	"net/netip"
	"os"
	"slices"
	"testing"

	"github.com/onelb/onelb/test/lab/ns"
)

// TestKernelForgets: addresses that somebody else took off the interfaces are not announced
// any more by the one that shall not have them.
func TestKernelForgets(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	name := fmt.Sprintf("onelb-forgets-%d", os.Getpid())
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(ns.DeleteNamed(name))
	n, err := ns.New(name)
	must(err)
	t.Cleanup(func() { _ = n.Delete() })
	ip := func(batch string) {
		t.Helper()
		if out, err := ipBatch(t, name, batch); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
	}
	ip("link add eth0 type veth peer name peer0\nlink add eth1 type veth peer name peer1\nlink set eth0 up\nlink set eth1 up\nlink set peer0 up\nlink set peer1 up\n" +
		"addr add 203.0.113.2/24 dev eth0\naddr add 10.20.0.1/24 dev eth1")
	var k *KernelAddresses
	must(n.Do(func() (err error) { k, err = OpenAddresses(nil); return err }))
	t.Cleanup(func() { _ = k.table.Close() })
	turn := func(held []netip.Addr, routed []Routed, announced ...netip.Addr) {
		t.Helper()
		must(n.Do(func() error {
			if err := k.Refresh(); err != nil {
				return err
			}
			if err := k.Hold(t.Context(), held); err != nil {
				return err
			}
			return k.Route(t.Context(), routed)
		}))
		if got := slices.SortedFunc(maps.Keys(k.held), netip.Addr.Compare); !slices.Equal(got, announced) {
			t.Errorf("announced are %v, want %v", got, announced)
		}
	}
	own, passed := netip.MustParseAddr("203.0.113.100"), netip.MustParseAddr("203.0.113.101")
	routed := []Routed{{Address: passed, Through: "eth1"}}
	turn([]netip.Addr{own}, routed, own, passed)
	must(n.Do(func() error { _, err := LetGo(); return err }))
	if out, err := ipCommand(t, name, "-4", "route", "show", "proto", "80"); err != nil || out != "" {
		t.Errorf("routes to holders after letting go: %q, %v", out, err)
	}
	turn(nil, nil)
	turn([]netip.Addr{own}, routed, own, passed)
	must(n.Do(func() error { _, err := LetGo(); return err }))
	turn(nil, routed, passed)
	turn([]netip.Addr{own, passed}, nil, own, passed)
}
