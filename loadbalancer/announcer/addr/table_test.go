package addr_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/onelb/onelb/loadbalancer/announcer/addr"
	"github.com/onelb/onelb/test/lab/ns"
)

const prefix = "onelb-addr-"

func TestMain(m *testing.M) {
	left, _ := ns.Named(prefix) // of a run that was interrupted
	for _, n := range left {
		_ = ns.DeleteNamed(n)
	}
	os.Exit(m.Run())
}

// host is a namespace with eth0 (198.51.100.10/24, 2001:db8::10/64) whose peer
// eth1 has no address.
func host(t *testing.T) (*ns.Namespace, *addr.Table) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("network namespaces need root")
	}
	n, err := ns.New(fmt.Sprintf("%s%d", prefix, time.Now().UnixNano()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = n.Delete() })
	err = n.Do(func() error {
		if err := netlink.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "eth0"}, PeerName: "eth1"}); err != nil {
			return err
		}
		for _, name := range []string{"eth0", "eth1"} {
			l, err := netlink.LinkByName(name)
			if err != nil {
				return err
			}
			if err := netlink.LinkSetUp(l); err != nil {
				return err
			}
		}
		l, _ := netlink.LinkByName("eth0")
		for _, a := range []string{"198.51.100.10/24", "2001:db8::10/64"} {
			parsed, _ := netlink.ParseAddr(a)
			if err := netlink.AddrAdd(l, parsed); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	table, err := addr.Open(addr.Options{Enter: n.Do})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = table.Close() })
	return n, table
}

func eth0(t *testing.T, table *addr.Table) addr.Interface {
	t.Helper()
	all, err := table.Interfaces()
	if err != nil {
		t.Fatal(err)
	}
	for _, i := range all {
		if i.Name == "eth0" {
			return i
		}
	}
	t.Fatalf("no eth0 in %+v", all)
	return addr.Interface{}
}

func never(netip.Addr) bool { return false }

func show(t *testing.T, n *ns.Namespace, a netip.Addr) string {
	t.Helper()
	var out []byte
	err := n.Do(func() (err error) {
		out, err = exec.CommandContext(t.Context(), "ip", "-d", "-o", "addr", "show", "to", a.String()).CombinedOutput()
		return err
	})
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return string(out)
}

func TestInterfaces(t *testing.T) {
	_, table := host(t)
	i := eth0(t, table)
	if !i.Up || len(i.MAC) != 6 || i.Index == 0 {
		t.Errorf("got %+v", i)
	}
	got := fmt.Sprint(i.Networks)
	for _, want := range []string{"198.51.100.0/24", "2001:db8::/64"} {
		if !strings.Contains(got, want) {
			t.Errorf("networks %s lack %s", got, want)
		}
	}
	if !i.Has(netip.MustParseAddr("198.51.100.10")) || i.Has(netip.MustParseAddr("198.51.100.11")) {
		t.Errorf("own addresses %v", i.Own)
	}
}

func TestAddRenewExpire(t *testing.T) {
	for _, text := range []string{"198.51.100.77", "2001:db8::77"} {
		t.Run(text, func(t *testing.T) {
			t.Parallel()
			n, table := host(t)
			a, on := netip.MustParseAddr(text), eth0(t, table)
			if err := table.Add(a, on, time.Second); err != nil {
				t.Fatal(err)
			}
			if err := table.Add(a, on, 30*time.Second); err != nil {
				t.Fatalf("adding our own address again: %v", err)
			}
			got := show(t, n, a)
			wants := []string{fmt.Sprintf("/%d", a.BitLen()), "noprefixroute", "valid_lft"}
			if a.Is6() {
				wants = append(wants, "preferred_lft 0sec", "nodad")
			} else {
				wants = append(wants, "eth0:lb")
			}
			for _, want := range wants {
				if !strings.Contains(got, want) {
					t.Errorf("%q lacks %q", got, want)
				}
			}
			if i := eth0(t, table); i.Has(a) {
				t.Error("our address counts as the interface's own")
			}
			held(t, table, a, true)
			// Renewed, it has the lifetime anew.
			await(t, "some of its lifetime has passed", func() bool { return left(t, table) < 29*time.Second })
			for _, lifetime := range []time.Duration{30 * time.Second, 2 * time.Second} {
				if err := table.Renew([]addr.Entry{{Address: a, Index: on.Index}}, lifetime); err != nil {
					t.Fatal(err)
				}
				if got := left(t, table); got > lifetime || lifetime > 2*time.Second && got < 10*time.Second {
					t.Errorf("renewed for %v, it has %v", lifetime, got)
				}
			}
			// No longer renewed, it goes.
			await(t, "it is gone", func() bool {
				ours, err := table.Ours(never)
				if err != nil {
					t.Fatal(err)
				}
				return len(ours) == 0
			})
		})
	}
}

// left is what is left of the lifetime of the only address.
func left(t *testing.T, table *addr.Table) time.Duration {
	t.Helper()
	ours, err := table.Ours(never)
	if err != nil {
		t.Fatal(err)
	}
	if len(ours) == 0 {
		return 0
	}
	return ours[0].Valid
}

func await(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(2 * time.Minute); !ok(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not in time: %s", what)
		}
	}
}

func held(t *testing.T, table *addr.Table, a netip.Addr, want bool) {
	t.Helper()
	ours, err := table.Ours(never)
	if err != nil {
		t.Fatal(err)
	}
	got := len(ours) == 1 && ours[0].Address == a && ours[0].Valid > 0
	if got != want {
		t.Errorf("ours: %+v, want %s held: %v", ours, a, want)
	}
}

func TestRemove(t *testing.T) {
	_, table := host(t)
	a, on := netip.MustParseAddr("198.51.100.77"), eth0(t, table)
	if err := table.Add(a, on, 30*time.Second); err != nil {
		t.Fatal(err)
	}
	for range 2 { // the second one finds nothing
		if err := table.Remove(a, on.Index); err != nil {
			t.Fatal(err)
		}
	}
	held(t, table, a, false)
	if err := table.Remove(a, 4711); err != nil {
		t.Errorf("on an interface that has gone: %v", err)
	}
}

func TestForeignAddressIsLeftAlone(t *testing.T) {
	n, table := host(t)
	a, on := netip.MustParseAddr("198.51.100.78"), eth0(t, table)
	err := n.Do(func() error {
		l, _ := netlink.LinkByName("eth0")
		return netlink.AddrAdd(l, &netlink.Addr{IPNet: &net.IPNet{IP: a.AsSlice(), Mask: net.CIDRMask(32, 32)}})
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := table.Add(a, on, time.Second); !errors.Is(err, addr.ErrForeign) {
		t.Errorf("add: %v", err)
	}
	if got := show(t, n, a); !strings.Contains(got, "valid_lft forever") {
		t.Errorf("the foreign address was given a lifetime: %s", got)
	}
	if ours, _ := table.Ours(func(netip.Addr) bool { return true }); len(ours) != 0 {
		t.Errorf("taken for ours: %+v", ours)
	}
	if !eth0(t, table).Has(a) {
		t.Error("not listed as the interface's own")
	}
}

func TestRenewTellsWhichFailed(t *testing.T) {
	_, table := host(t)
	on := eth0(t, table)
	good, bad := netip.MustParseAddr("198.51.100.79"), netip.MustParseAddr("198.51.100.80")
	err := table.Renew([]addr.Entry{{Address: bad, Index: 4711}, {Address: good, Index: on.Index}}, 30*time.Second)
	var one *addr.EntryError
	if !errors.As(err, &one) || one.Entry.Address != bad {
		t.Fatalf("got %v", err)
	}
	held(t, table, good, true)
	if err := table.Renew([]addr.Entry{{Address: good, Index: on.Index}}, 30*time.Second); err != nil {
		t.Errorf("after a failed batch: %v", err)
	}
}

func TestRenewMany(t *testing.T) {
	_, table := host(t)
	on := eth0(t, table)
	var entries []addr.Entry
	for a := netip.MustParseAddr("10.9.0.1"); len(entries) < 1000; a = a.Next() {
		entries = append(entries, addr.Entry{Address: a, Index: on.Index})
	}
	start := time.Now()
	for range 2 {
		if err := table.Renew(entries, time.Minute); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("adding and renewing 1,000 took %v", time.Since(start))
	ours, err := table.Ours(never)
	if err != nil || len(ours) != len(entries) {
		t.Errorf("%d of %d there, %v", len(ours), len(entries), err)
	}
}

func TestWatchLinks(t *testing.T) {
	n, table := host(t)
	ctx, cancel := context.WithCancel(t.Context())
	changed, done := make(chan struct{}, 100), make(chan error, 1)
	go func() { done <- table.WatchLinks(ctx, func() { changed <- struct{}{} }) }()
	deadline := time.After(2 * time.Minute)
	for up := false; ; up = !up { // until the watch has begun
		if err := setLink(n, "eth1", up); err != nil {
			t.Fatal(err)
		}
		select {
		case <-changed:
			cancel()
			if err := <-done; err != nil {
				t.Error(err)
			}
			return
		case <-deadline:
			t.Fatal("no change was reported")
		case <-time.After(100 * time.Millisecond):
		}
	}
}

func TestCarrier(t *testing.T) {
	n, table := host(t)
	if err := setLink(n, "eth1", false); err != nil {
		t.Fatal(err)
	}
	if eth0(t, table).Up {
		t.Error("up although the other end is down")
	}
}

func setLink(n *ns.Namespace, name string, up bool) error {
	return n.Do(func() error {
		l, err := netlink.LinkByName(name)
		if err != nil {
			return err
		}
		if up {
			return netlink.LinkSetUp(l)
		}
		return netlink.LinkSetDown(l)
	})
}
