package bench

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/vishvananda/netlink"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/onelb/onelb/api/v1alpha1"
	"github.com/onelb/onelb/test/lab"
	"github.com/onelb/onelb/test/lab/bgprouter"
)

const (
	bgpPool     = "routed"
	bgpNetwork  = "NAME=\"routed\"\nVN_MAD=\"dummy\"\nBRIDGE=\"br-routed\"\nAR=[TYPE=\"IP4\",IP=\"192.0.2.1\",SIZE=\"100\"]\n"
	nodesASN    = 65001
	routerASN   = 64512
	spreadAsked = 1500
	// bgpProbeEvery and bgpProbeLimit are of the requests that look for an outage,
	// each from a port of its own: a third of them goes to the lost node.
	bgpProbeEvery = 10 * time.Millisecond
	bgpProbeLimit = time.Second
	bgpHold       = 3 * time.Second
)

// bgpLab is a lab of its own whose router-1 runs FRR, with a Service that all nodes
// announce, and answer for with the pod that they have.
type bgpLab struct {
	*datacenter
	frr  *bgprouter.FRR
	addr netip.Addr
}

func (b *bench) startBGP(ctx context.Context) (_ *bgpLab, err error) {
	if err := b.closeShared(); err != nil {
		return nil, err
	}
	d, err := startLab(ctx, lab.Options{Name: "benchbgp"})
	if err != nil {
		return nil, err
	}
	x := &bgpLab{datacenter: d}
	defer func() {
		if err != nil {
			_ = d.Close() // the error before it says more
		}
	}()
	if _, err := d.OneSim().AddVNet("", bgpNetwork); err != nil {
		return nil, err
	}
	if err := errors.Join(x.startRouter(ctx), x.uplink(), x.configure(ctx)); err != nil {
		return nil, err
	}
	if x.pods, err = d.StartWorkload(ctx, workload); err != nil {
		return nil, err
	}
	s := service("bgp", bgpPool)
	s.Spec.ExternalTrafficPolicy = corev1.ServiceExternalTrafficPolicyLocal
	if _, err := d.CreateService(ctx, s); err != nil {
		return nil, err
	}
	addrs, err := d.WaitAddress(ctx, namespace, "bgp")
	if err != nil {
		return nil, err
	}
	x.addr = addrs[0]
	return x, x.waitHops(ctx, len(d.Nodes()))
}

func (x *bgpLab) startRouter(ctx context.Context) (err error) {
	router := x.Router(1).Host
	if x.frr, err = x.FRR(context.WithoutCancel(ctx), router); err != nil {
		return err
	}
	return errors.Join(x.frr.Configure(ctx, x.routerLines()...), router.Sysctl("net/ipv4/fib_multipath_hash_policy", "1"))
}

// routerLines are the router's configuration, which ends in that of BGP.
func (x *bgpLab) routerLines() []string {
	lines := []string{
		fmt.Sprintf("router bgp %d", routerASN), "bgp router-id 10.20.0.1", "no bgp ebgp-requires-policy",
		"address-family ipv4 unicast", "maximum-paths 64", "exit-address-family",
		"neighbor nodes peer-group", fmt.Sprintf("neighbor nodes remote-as %d", nodesASN),
	}
	for _, n := range x.Nodes() {
		lines = append(lines, fmt.Sprintf("neighbor %s peer-group nodes", n.Addrs(lab.Private)[0]))
	}
	return lines
}

// uplink gives the internet its way to the network.
func (x *bgpLab) uplink() error {
	nl, err := x.Internet().Netlink()
	if err != nil {
		return err
	}
	defer nl.Close()
	link, err := nl.LinkByName("eth0")
	if err != nil {
		return err
	}
	to := &net.IPNet{IP: net.IPv4(192, 0, 2, 0), Mask: net.CIDRMask(24, 32)}
	return nl.RouteAdd(&netlink.Route{LinkIndex: link.Attrs().Index, Dst: to, Gw: x.Router(1).Addrs(lab.Public)[0].AsSlice()})
}

func (x *bgpLab) configure(ctx context.Context) error {
	peer := &v1alpha1.BGPPeer{
		ObjectMeta: metav1.ObjectMeta{Name: "rack"},
		Spec: v1alpha1.BGPPeerSpec{
			Address: x.Router(1).Addrs(lab.Private)[0].String(), ASN: routerASN,
			HoldTime: &metav1.Duration{Duration: bgpHold}, ConnectRetryTime: &metav1.Duration{Duration: bgpConnectRetry},
		},
	}
	config := &v1alpha1.BGPConfiguration{ObjectMeta: metav1.ObjectMeta{Name: v1alpha1.BGPConfigurationName}, Spec: v1alpha1.BGPConfigurationSpec{ASN: nodesASN}}
	_, err1 := x.onelb.BGPConfigurations().Create(ctx, config, metav1.CreateOptions{})
	_, err2 := x.onelb.BGPPeers().Create(ctx, peer, metav1.CreateOptions{})
	p := pool(bgpPool, "routed", "192.0.2.1", "192.0.2.100")
	p.Spec.Exposure = v1alpha1.ExposureBGP
	return errors.Join(err1, err2, x.addPools(ctx, p))
}

// waitHops waits until the router spreads over so many nodes, and all answer.
func (x *bgpLab) waitHops(ctx context.Context, want int) error {
	return until(ctx, fmt.Sprintf("%d next hops", want), func(ctx context.Context) error {
		got, err := x.share(ctx, 20*want)
		if err == nil && len(got) != want {
			err = fmt.Errorf("%d of %d nodes answer", len(got), want)
		}
		return err
	})
}

// share asks from as many ports, and counts the answers of each node.
func (x *bgpLab) share(ctx context.Context, times int) (map[string]int, error) {
	count := map[string]int{}
	for range times {
		got, err := x.ask(ctx)
		if err != nil {
			return nil, err
		}
		count[got.Node]++
	}
	return count, nil
}

// ask sends one datagram, which may be lost: then it is no use to wait for long.
func (x *bgpLab) ask(ctx context.Context) (lab.Answer, error) {
	ctx, cancel := context.WithTimeout(ctx, bgpProbeLimit)
	defer cancel()
	return x.Internet().UDP(ctx, x.addr, port)
}

// outage asks all the time while f runs, and for a while after, and returns how long
// after the start of f the last request was sent that had no answer; 0: all had one.
func (x *bgpLab) outage(ctx context.Context, after time.Duration, f func() error) (time.Duration, int, error) {
	var asked sync.WaitGroup
	var mu sync.Mutex // guards failed
	var failed []time.Time
	ask := func() {
		at := time.Now()
		if _, err := x.ask(ctx); err != nil {
			mu.Lock()
			failed = append(failed, at)
			mu.Unlock()
		}
	}
	probing, end := context.WithCancel(ctx)
	asked.Go(func() {
		for pause(probing, bgpProbeEvery) == nil {
			asked.Go(ask)
		}
	})
	begin := time.Now()
	err := f()
	if err == nil {
		err = pause(ctx, after)
	}
	end()
	asked.Wait()
	longest := time.Duration(0)
	for _, at := range failed {
		longest = max(longest, at.Sub(begin))
	}
	return longest, len(failed), err
}

// measureBGP measures all that is about BGP in one lab.
func measureBGP(ctx context.Context, b *bench) (err error) {
	x, err := b.startBGP(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, x.Close()) }()
	for _, part := range []struct {
		row string
		run func(context.Context, *bench) error
	}{
		{"bgp_spread", x.spread},
		{"bgp_restart", x.restart},
		{"bgp_failover_hold", x.failoverHold},
		{"bgp_failover_bfd", x.failoverBFD},
	} {
		if !matches(b.opts.Select, part.row) {
			continue
		}
		if err := part.run(ctx, b); err != nil {
			return fmt.Errorf("%s: %w", part.row, err)
		}
	}
	return nil
}

func (x *bgpLab) failoverHold(ctx context.Context, b *bench) error {
	b.note("bgp_failover_hold", "hold time %v", bgpHold)
	return x.failover(ctx, b, "bgp_failover_hold", 2*bgpHold)
}

// failoverBFD turns BFD on, while the sessions stand.
func (x *bgpLab) failoverBFD(ctx context.Context, b *bench) error {
	if err := x.frr.Configure(ctx, fmt.Sprintf("router bgp %d", routerASN), "neighbor nodes bfd 3 100 100"); err != nil {
		return err
	}
	if _, err := x.Kubectl(ctx, "patch", "bgppeer", "rack", "--type=merge", "-p", `{"spec":{"bfd":{"interval":"100ms","multiplier":3}}}`); err != nil {
		return err
	}
	b.note("bgp_failover_bfd", "3 times 100 ms")
	return x.failover(ctx, b, "bgp_failover_bfd", 2*time.Second)
}

// failover loses a node's machine and has it back, again and again.
func (x *bgpLab) failover(ctx context.Context, b *bench, row string, after time.Duration) (err error) {
	for i := range b.times(20) {
		n := x.Nodes()[i%len(x.Nodes())]
		if row == "bgp_failover_bfd" {
			if err := x.waitBFD(ctx); err != nil {
				return err
			}
		}
		took, lost, err := x.outage(ctx, after, n.PowerOff)
		if err != nil {
			return fmt.Errorf("loss %d: %w", i+1, err)
		}
		b.say("  %s lost: %.0f ms, %d requests without an answer", n.ShortName(), ms(took), lost)
		b.add(row, ms(took))
		if err := n.PowerOn(ctx); err != nil {
			return err
		}
		if err := x.waitHops(ctx, len(x.Nodes())); err != nil {
			return err
		}
	}
	return nil
}

// waitBFD waits until BFD is up on all nodes.
func (x *bgpLab) waitBFD(ctx context.Context) error {
	return until(ctx, "BFD", func(ctx context.Context) error {
		all, err := x.onelb.BGPNodes().List(ctx, metav1.ListOptions{})
		if err != nil {
			return err
		}
		up := 0
		for _, n := range all.Items {
			if slices.ContainsFunc(n.Status.Sessions, func(s v1alpha1.BGPSession) bool { return s.BFD == "Up" }) {
				up++
			}
		}
		if up != len(x.Nodes()) {
			return fmt.Errorf("it is up on %d nodes", up)
		}
		return nil
	})
}

// spread counts how the router spreads.
func (x *bgpLab) spread(ctx context.Context, b *bench) error {
	for range b.times(4) {
		count, err := x.share(ctx, spreadAsked)
		if err != nil {
			return err
		}
		worst := 0
		for _, n := range count {
			worst = max(worst, n)
		}
		b.add("bgp_spread", float64(worst)*float64(len(x.Nodes()))/spreadAsked)
	}
	b.note("bgp_spread", "%d requests from as many ports, over %d nodes", spreadAsked, len(x.Nodes()))
	return nil
}

// restart restarts agents.
func (x *bgpLab) restart(ctx context.Context, b *bench) error {
	for i := range b.times(20) {
		n := x.Nodes()[i%len(x.Nodes())]
		took, lost, err := x.outage(ctx, bgpHold, n.Agent().Restart)
		if err != nil {
			return fmt.Errorf("restart %d: %w", i+1, err)
		}
		b.say("  %s restarted: %d requests without an answer", n.ShortName(), lost)
		b.add("bgp_restart", ms(took))
	}
	return nil
}
