package announcer_test

import (
	"net"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/onelb/onelb/loadbalancer/announcer"
	"github.com/onelb/onelb/loadbalancer/announcer/arpfilter"
)

func TestFilterIsTold(t *testing.T) {
	told := func(w *world) arpfilter.State {
		w.mu.Lock()
		defer w.mu.Unlock()
		return w.filter
	}
	for _, ipvs := range []bool{false, true} {
		bubble(t, func(w *world) { w.ipvs, w.ipvsOwn, w.answerer = ipvs, []netip.Addr{vip4}, stranger }, func(w *world) {
			w.SetCluster(wanted())
			after(time.Second)
			if s := told(w); slices.Contains(s.Known, vip4) != ipvs || len(s.Held) != 0 {
				t.Errorf("kube-ipvs0 %v, not held: %+v", ipvs, s)
			}
			w.set(func() { w.answerer = nil })
			after(time.Second)
			if s := told(w); !slices.Equal(s.Known, []netip.Addr{vip4}) || !slices.Equal(s.Held, []arpfilter.Place{{Address: vip4, Index: eth.Index}}) {
				t.Errorf("kube-ipvs0 %v, held: %+v", ipvs, s)
			}
			w.SetCluster(&announcer.Cluster{Nodes: wanted().Nodes})
			after(10 * time.Second)
			if s := told(w); len(s.Held) != 0 || slices.Contains(s.Known, vip4) != ipvs || s.Elsewhere != ipvs {
				t.Errorf("kube-ipvs0 %v, gone, but not from there: %+v", ipvs, s)
			}
			w.set(func() { w.ipvsOwn = nil })
			after(10 * time.Second)
			if s := told(w); len(s.Held) != 0 || len(s.Known) != 0 {
				t.Errorf("kube-ipvs0 %v, gone: %+v", ipvs, s)
			}
		})
	}
}

// second gives the host another interface on the same switch, which is the worst
// case: without a filter the kernel answers on both.
func (h *host) second() {
	t, l := h.lan.t, h.lan
	t.Helper()
	must(t, l.bridge.Do(func() error {
		br, err := netlink.LinkByName("br0")
		if err != nil {
			return err
		}
		return netlink.LinkAdd(&netlink.Veth{
			LinkAttrs: netlink.LinkAttrs{Name: h.port + "b", MasterIndex: br.Attrs().Index, Flags: net.FlagUp},
			PeerName:  "eth1", PeerNamespace: netlink.NsFd(h.FD()),
		})
	}))
	must(t, h.Do(func() error {
		eth1, err := netlink.LinkByName("eth1")
		if err != nil {
			return err
		}
		return netlink.LinkSetUp(eth1)
	}))
}

// ipvs gives the host what kube-proxy in IPVS mode gives it.
func (h *host) ipvs(addresses ...netip.Addr) {
	h.lan.t.Helper()
	must(h.lan.t, h.Do(func() error {
		dummy := &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "kube-ipvs0"}} // not every kernel has dummies
		if err := netlink.LinkAdd(dummy); err != nil {
			return err
		}
		for _, a := range addresses {
			x := &netlink.Addr{IPNet: &net.IPNet{IP: a.AsSlice(), Mask: net.CIDRMask(a.BitLen(), a.BitLen())}}
			if a.Is6() {
				x.Flags = unix.IFA_F_NODAD
			}
			if err := netlink.AddrAdd(dummy, x); err != nil {
				return err
			}
		}
		return nil
	}))
}

// Only the holder answers, and only on its interface, although all nodes have the
// address on kube-ipvs0 and two interfaces on the network.
func TestOnlyTheHolderAnswers(t *testing.T) {
	l := newLAN(t)
	var hosts []*host
	for range 2 {
		h := l.host()
		h.second()
		h.ipvs(vip4, vip6)
		hosts = append(hosts, h)
	}
	client := l.host()
	bare := client.watch(vip4)
	eventually(t, "all interfaces answer without the agents", func() bool { return len(bare.macs()) > 2 })
	bare.stop()

	var agents []*agent
	for _, h := range hosts {
		agents = append(agents, h.start(nil, lasting))
	}
	set(agents, cluster(hosts, vip4, vip6))
	answers := func(x netip.Addr) map[string]bool {
		w := client.watch(x)
		w.more(t)
		w.stop()
		return w.macs()
	}
	for _, x := range []netip.Addr{vip4, vip6} {
		eventually(t, "it is held", func() bool { return len(holders(hosts, x)) == 1 })
		eventually(t, "one answers", func() bool { return len(answers(x)) == 1 })
		holder := holders(hosts, x)[0]
		if got := answers(x); len(got) != 1 || !got[interfaceOf(t, holder).MAC.String()] {
			t.Errorf("%s: %v answer, want %s alone", x, got, holder.name)
		}
	}

	first := holders(hosts, vip4)[0]
	first.cable(false)
	must(t, first.lan.bridge.Do(func() error {
		port, err := netlink.LinkByName(first.port + "b")
		if err != nil {
			return err
		}
		return netlink.LinkSetDown(port)
	}))
	second := hosts[0]
	if second == first {
		second = hosts[1]
	}
	eventually(t, "the other node takes it", func() bool { return second.has(vip4) })
	eventually(t, "and answers", func() bool { return answers(vip4)[interfaceOf(t, second).MAC.String()] })
	if got := answers(vip4); len(got) != 1 {
		t.Errorf("%v answer after the failover", got)
	}
}

// An agent that is gone leaves the address on kube-ipvs0, and must not go on to
// answer for it: nobody could take over.
func TestHolderEndsWhereAllHaveTheAddress(t *testing.T) {
	l := newLAN(t)
	hosts := []*host{l.host(), l.host()}
	var agents []*agent
	for _, h := range hosts {
		h.ipvs(vip4)
		agents = append(agents, h.start(nil, 5*time.Second))
	}
	client := l.host()
	set(agents, cluster(hosts, vip4))
	eventually(t, "it is held", func() bool { return len(holders(hosts, vip4)) == 1 })
	ended, next := agents[0], agents[1]
	if !ended.has(vip4) {
		ended, next = next, ended
	}
	ended.stop()
	w := client.watch(vip4)
	defer w.stop()
	eventually(t, "the other node takes it", func() bool { return next.has(vip4) && !ended.has(vip4) })
	w.stop()
	w = client.watch(vip4)
	w.more(t)
	w.stop()
	if got := w.macs(); len(got) != 1 || !got[interfaceOf(t, next.host).MAC.String()] {
		t.Errorf("%v answer, want %s alone", got, next.name)
	}
}
