package lab_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/onelb/onelb/test/lab"
	"github.com/onelb/onelb/test/lab/labtest"
	"github.com/vishvananda/netlink"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

var errStill = errors.New("still the old state")

// linkOf is a link that is healed with the test.
func linkOf(t *testing.T, l *lab.Lab, host, network string) *lab.Link {
	t.Helper()
	link, err := l.Link(host, network)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := link.Clear(); err != nil {
			t.Errorf("clear the faults of %s: %v", host, err)
		}
	})
	return link
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// once pings a single time; half a second without an answer counts as silence.
func once(t *testing.T, from *lab.Host, to netip.Addr) (time.Duration, bool) {
	t.Helper()
	return ping(t, from, to, 500*time.Millisecond)
}

func ping(t *testing.T, from *lab.Host, to netip.Addr, within time.Duration) (time.Duration, bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), within)
	defer cancel()
	d, err := from.Ping(ctx, to)
	return d, err == nil
}

func TestCut(t *testing.T) {
	l := labtest.Shared(t)
	node := l.Nodes()[0]
	to := node.Addrs(lab.Private)[0]
	link := linkOf(t, l, "node-1", lab.Private)
	prober := lab.Probe(t.Context(), 10*time.Millisecond, func(ctx context.Context) error {
		_, err := l.LAN().Ping(ctx, to)
		return err
	})
	must(t, prober.WaitAnswer(t.Context()))
	must(t, link.Cut())
	for range 3 {
		if _, ok := once(t, l.LAN(), to); ok {
			t.Error("a cut link lets an echo through")
		}
	}
	if !pings(t, l.Control(), node.Addrs(lab.Management)[0]) {
		t.Error("the management link is cut as well")
	}
	if state, err := carrier(node.Host, "eth0"); err != nil || !state {
		t.Errorf("the host notices the cut: carrier %v, %v", state, err)
	}
	must(t, link.Heal())
	must(t, prober.WaitAnswer(t.Context()))
	result := prober.Stop()
	if result.Failed == 0 || result.Longest.Duration < time.Second || result.Longest.Open {
		t.Errorf("the prober saw %v; want an outage of more than a second that ended", result)
	}
}

func carrier(h *lab.Host, dev string) (bool, error) {
	nl, err := h.Netlink()
	if err != nil {
		return false, err
	}
	defer nl.Close()
	link, err := nl.LinkByName(dev)
	if err != nil {
		return false, err
	}
	return link.Attrs().OperState == netlink.OperUp, nil
}

func TestDelay(t *testing.T) {
	l := labtest.Shared(t)
	pods := workload(t, l, lab.Workload{Name: "delay", Nodes: []string{"node-1"}})
	to := l.Nodes()[0].Addrs(lab.Private)[0]
	link := linkOf(t, l, "node-1", lab.Private)
	must(t, link.Delay(50*time.Millisecond, 0))
	pings(t, l.LAN(), to) // address resolution
	if d, ok := ping(t, l.LAN(), to, time.Minute); !ok || d < 100*time.Millisecond {
		t.Errorf("round trip over 50 ms each way: %v, answered %v", d, ok)
	}
	must(t, link.Delay(5*time.Millisecond, 20*time.Millisecond))
	var least, most time.Duration
	for range 20 {
		d, ok := ping(t, l.LAN(), to, time.Minute)
		if !ok {
			t.Fatal("no answer over a link with jitter")
		}
		if least == 0 || d < least {
			least = d
		}
		most = max(most, d)
	}
	if least < 10*time.Millisecond || most-least < 2*time.Millisecond {
		t.Errorf("jitter of 20 ms each way: round trips from %v to %v", least, most)
	}
	// Segmentation and checksum offload must survive the way through user space.
	must(t, link.Delay(time.Millisecond, 0))
	const size = 4 << 20
	if n, err := download(t.Context(), l.Nodes()[2].Host, pods[0].PodIPs()[0], size); err != nil || n != size {
		t.Errorf("%d of %d bytes over an impaired link: %v", n, size, err)
	}
	must(t, link.Clear())
	eventually(t, "a round trip after Clear is short", func(context.Context) error {
		if d, ok := once(t, l.LAN(), to); !ok || d > 50*time.Millisecond {
			return fmt.Errorf("%v, answered %v", d, ok)
		}
		return nil
	})
}

func download(ctx context.Context, from *lab.Host, pod netip.Addr, size int) (int64, error) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	url := fmt.Sprintf("http://%s/bytes?n=%d", netip.AddrPortFrom(pod, lab.TargetPort), size)
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return 0, err
	}
	transport := &http.Transport{DialContext: from.DialContext, DisableKeepAlives: true}
	resp, err := transport.RoundTrip(req)
	if err != nil {
		return 0, err
	}
	defer func() { _ = resp.Body.Close() }()
	return io.Copy(io.Discard, resp.Body)
}

func TestDrop(t *testing.T) {
	l := labtest.Shared(t)
	to := l.Nodes()[1].Addrs(lab.Private)[0]
	link := linkOf(t, l, "node-2", lab.Private)
	if !pings(t, l.LAN(), to) {
		t.Fatal("no answer before the fault")
	}
	must(t, link.Drop(30))
	var answered atomic.Int32
	var all sync.WaitGroup
	for range 10 {
		all.Go(func() {
			for range 10 {
				if _, ok := ping(t, l.LAN(), to, time.Second); ok {
					answered.Add(1)
				}
			}
		})
	}
	all.Wait()
	// 0.7 × 0.7 of the round trips: 49 in the mean, standard deviation 5.
	if n := answered.Load(); n < 20 || n > 78 {
		t.Errorf("%d of 100 answered with 30 percent lost each way", n)
	}
	must(t, link.Drop(100))
	if _, ok := once(t, l.LAN(), to); ok {
		t.Error("answered with all frames lost")
	}
	if err := link.Drop(101); err == nil {
		t.Error("a loss of 101 percent: no error")
	}
}

// TestKnock holds that a connection counts as lost if its first SYN was.
func TestKnock(t *testing.T) {
	l := labtest.Shared(t)
	pods := workload(t, l, lab.Workload{Name: "knock", Nodes: []string{"node-1"}})
	from, to := l.Nodes()[1].Host, netip.AddrPortFrom(pods[0].PodIPs()[0], lab.TargetPort)
	link := linkOf(t, l, "node-1", lab.Private)
	knock := func() error {
		conn, err := from.Knock(t.Context(), to)
		if err == nil {
			err = conn.Close()
		}
		return err
	}
	eventually(t, "the pod answers", func(context.Context) error { return knock() })
	must(t, link.Cut())
	lost := make(chan error, 1)
	go func() { lost <- knock() }()
	time.Sleep(500 * time.Millisecond)
	must(t, link.Heal())
	if err := <-lost; !errors.Is(err, lab.ErrLost) {
		t.Errorf("a connection over a link that was cut: %v", err)
	}
	must(t, knock())
}

func TestPartition(t *testing.T) {
	l := labtest.Shared(t)
	n := l.Nodes()
	addr := func(i int) netip.Addr { return n[i].Addrs(lab.Private)[0] }
	t.Cleanup(func() { must(t, l.Partition(lab.Private)) })
	must(t, l.Partition(lab.Private, []string{"node-1", "lan"}, []string{"node-2"}))
	if !pings(t, l.LAN(), addr(0)) || !pings(t, n[2].Host, l.Router(1).Addrs(lab.Private)[0]) {
		t.Error("hosts of one side do not reach each other")
	}
	for _, pair := range [][2]int{{0, 1}, {0, 2}, {1, 2}} {
		if _, ok := once(t, n[pair[0]].Host, addr(pair[1])); ok {
			t.Errorf("node %d reaches node %d across the partition", pair[0]+1, pair[1]+1)
		}
	}
	if err := l.Partition(lab.Private, []string{"node-1"}, []string{"node-1"}); err == nil {
		t.Error("a node in two groups: no error")
	}
	must(t, l.Partition(lab.Private))
	for _, pair := range [][2]int{{0, 1}, {0, 2}, {1, 2}} {
		if !pings(t, n[pair[0]].Host, addr(pair[1])) {
			t.Errorf("node %d does not reach node %d after the partition", pair[0]+1, pair[1]+1)
		}
	}
}

func TestPower(t *testing.T) {
	l := labtest.Shared(t)
	node := l.Nodes()[2]
	w := lab.Workload{Name: "power", Nodes: []string{"node-3"}}
	workload(t, l, w)
	port := uint16(service(t, l, w.Service("power", corev1.ServiceTypeNodePort)).Spec.Ports[0].NodePort)
	to := node.Addrs(lab.Private)[0]
	answers := func(ctx context.Context) error {
		_, err := l.Internet().HTTPGet(ctx, to, port)
		return err
	}
	eventually(t, "the pod answers", answers)
	extra := netip.MustParseAddr("10.20.0.77")
	must(t, addAddress(node.Host, "eth0", extra))
	must(t, node.PowerOff())
	if node.Proxy().Running() {
		t.Error("kube-proxy runs on a node without power")
	}
	_, private := once(t, l.LAN(), to)
	_, management := once(t, l.Control(), node.Addrs(lab.Management)[0])
	if private || management {
		t.Error("a node without power answers")
	}
	must(t, node.PowerOn(t.Context()))
	eventually(t, "the pod answers after the boot", answers)
	if _, ok := once(t, l.LAN(), extra); ok {
		t.Error("an address that was added before the loss of power is still there")
	}
}

func addAddress(h *lab.Host, dev string, a netip.Addr) error {
	nl, err := h.Netlink()
	if err != nil {
		return err
	}
	defer nl.Close()
	link, err := nl.LinkByName(dev)
	if err != nil {
		return err
	}
	return nl.AddrAdd(link, &netlink.Addr{IPNet: &net.IPNet{IP: a.AsSlice(), Mask: net.CIDRMask(a.BitLen(), a.BitLen())}})
}

func TestAPIServerOutage(t *testing.T) {
	l := labtest.Shared(t)
	must(t, l.StopAPIServer())
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	_, err := l.Client().CoreV1().Nodes().List(ctx, metav1.ListOptions{})
	cancel()
	if err == nil {
		t.Error("the API server answers after its stop")
	}
	must(t, l.StartAPIServer(t.Context()))
	nodes, err := l.Client().CoreV1().Nodes().List(t.Context(), metav1.ListOptions{})
	if err != nil || len(nodes.Items) != 3 {
		t.Errorf("nodes after the restart: %v, %v; want the 3 from before", nodes, err)
	}
}

// TestStopAndContinue holds that a stopped program lives on, and that stopping it
// for good works while it is stopped.
func TestStopAndContinue(t *testing.T) {
	l := labtest.Shared(t)
	pods := workload(t, l, lab.Workload{Name: "signal"})
	server, to := pods[0].Server(), pods[0].PodIPs()[0]
	get := func(ctx context.Context) error {
		_, err := l.Nodes()[1].HTTPGet(ctx, to, lab.TargetPort)
		return err
	}
	eventually(t, "the pod answers", get)
	must(t, server.Signal(syscall.SIGSTOP))
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	if get(ctx) == nil {
		t.Error("a stopped server answers")
	}
	cancel()
	if !server.Running() {
		t.Error("a stopped server counts as ended")
	}
	must(t, server.Signal(syscall.SIGCONT))
	eventually(t, "the pod answers again", get)
	must(t, server.Signal(syscall.SIGSTOP))
	must(t, server.Restart())
	eventually(t, "the pod answers after a restart", get)
}
