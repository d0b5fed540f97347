package bench

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sync/errgroup"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/onelb/onelb/api/v1alpha1"
	"github.com/onelb/onelb/test/lab"
	"github.com/onelb/onelb/test/lab/proc"
)

const (
	bgpAddresses = 10_000
	// bgpSpeakers are all nodes together: those of the lab, and those that only speak.
	bgpSpeakers     = 10
	bgpConnectRetry = 2 * time.Second
)

// measureBGPScale announces 10,000 addresses from ten nodes to one router. Three are
// nodes of the lab; of the others there is the BGP half only, in one process.
func measureBGPScale(ctx context.Context, b *bench) (err error) {
	x, err := b.startBGP(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, x.Close()) }()
	// What else runs on nodes and control plane is not what is measured.
	if err := x.CCM().Stop(); err != nil {
		return err
	}
	for _, n := range x.Nodes() {
		if err := n.Proxy().Stop(); err != nil {
			return err
		}
	}
	begin := time.Now()
	if err := x.addMany(ctx); err != nil {
		return err
	}
	b.say("  %d VirtualIPs after %v", bgpAddresses, time.Since(begin).Round(time.Millisecond))
	speakers, end, err := x.addSpeakers(ctx)
	if err != nil {
		return err
	}
	defer end()
	if err := x.waitPrefixes(ctx); err != nil {
		return err
	}
	if err := pause(ctx, settle); err != nil {
		return err
	}
	if err := x.oneChange(ctx, b); err != nil {
		return err
	}
	if err := x.converge(ctx, b); err != nil {
		return err
	}
	for _, n := range x.Nodes() {
		m, err := residentMiB(n.Agent().PID())
		if err != nil {
			return err
		}
		b.add("bgp_rss_10000", m.now)
		b.note("bgp_rss_10000", "%s at most %.0f", n.ShortName(), m.peak)
	}
	m, err := residentMiB(speakers.PID())
	if err == nil {
		b.note("bgp_rss_10000", "the %d that only speak, in one process: %.0f together", bgpSpeakers-len(x.Nodes()), m.now)
	}
	return err
}

// addMany makes the VirtualIPs, as the cloud-controller-manager does.
func (x *bgpLab) addMany(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(creators)
	for _, a := range manyAddresses(bgpAddresses) {
		g.Go(func() error { return x.addVirtualIP(ctx, a) })
	}
	return g.Wait()
}

func (x *bgpLab) addVirtualIP(ctx context.Context, a netip.Addr) error {
	_, err := x.onelb.VirtualIPs().Create(ctx, &v1alpha1.VirtualIP{
		ObjectMeta: metav1.ObjectMeta{Name: v1alpha1.VirtualIPName(a)},
		Spec: v1alpha1.VirtualIPSpec{
			Address: a.String(), Pool: bgpPool, Role: v1alpha1.RoleBGP, TrafficPolicy: v1alpha1.TrafficPolicyCluster,
			Services: []v1alpha1.ServiceReference{{Namespace: namespace, Name: "of-" + v1alpha1.VirtualIPName(a), UID: "1"}},
		},
	}, metav1.CreateOptions{})
	return err
}

// speakerAddress is that of node i, from 0, of those that only speak.
func speakerAddress(i int) string { return fmt.Sprintf("10.20.0.%d", 230+i) }

// addSpeakers starts the nodes that only speak, on a host of their network.
func (x *bgpLab) addSpeakers(ctx context.Context) (*proc.Unit, func(), error) {
	host := x.LAN()
	nl, err := host.Netlink()
	if err != nil {
		return nil, nil, err
	}
	defer nl.Close()
	link, err := nl.LinkByName("eth0")
	if err != nil {
		return nil, nil, err
	}
	lines := []string{fmt.Sprintf("router bgp %d", routerASN)}
	var own []string
	for i := len(x.Nodes()); i < bgpSpeakers; i++ {
		a := speakerAddress(i)
		parsed, err := netlink.ParseAddr(a + "/24")
		if err != nil {
			return nil, nil, err
		}
		if err := nl.AddrAdd(link, parsed); err != nil {
			return nil, nil, fmt.Errorf("address %s of %s: %w", a, host.ShortName(), err)
		}
		own, lines = append(own, a), append(lines, fmt.Sprintf("neighbor %s peer-group nodes", a))
	}
	if err := x.frr.Configure(ctx, lines...); err != nil {
		return nil, nil, err
	}
	program, err := os.Executable()
	if err != nil {
		return nil, nil, err
	}
	spawner := proc.NewSpawner(x.Name(), os.Environ())
	u := spawner.NewUnit(host, proc.Spec{
		Name: SpeakersCommand, Path: program, Log: x.Dir() + "/" + SpeakersCommand + ".log",
		Args: []string{SpeakersCommand, x.Router(1).Addrs(lab.Private)[0].String(), fmt.Sprint(bgpAddresses), strings.Join(own, ",")},
	})
	if err := u.Start(); err != nil {
		spawner.Close()
		return nil, nil, err
	}
	return u, func() { _ = u.Kill(); spawner.Close() }, nil
}

// prefixes are how many each neighbour of the router has sent, sorted.
func (x *bgpLab) prefixes(ctx context.Context) ([]int, error) {
	var s struct {
		Peers map[string]struct {
			State    string `json:"state"`
			Prefixes int    `json:"pfxRcd"`
		}
	}
	if err := x.frr.ShowJSON(ctx, "show bgp ipv4 unicast summary json", &s); err != nil {
		return nil, err
	}
	var out []int
	for _, p := range s.Peers {
		if p.State == "Established" {
			out = append(out, p.Prefixes)
		}
	}
	slices.Sort(out)
	return out, nil
}

// waitPrefixes waits until each of the ten has sent all of them.
func (x *bgpLab) waitPrefixes(ctx context.Context) error {
	return until(ctx, "all routes", func(ctx context.Context) error {
		got, err := x.prefixes(ctx)
		if err == nil && (len(got) != bgpSpeakers || got[0] < bgpAddresses) {
			err = fmt.Errorf("%d neighbours have sent %v", len(got), got)
		}
		return err
	})
}

// converge starts the router's BGP daemon anew, without a route, and waits for all.
func (x *bgpLab) converge(ctx context.Context, b *bench) error {
	var lines []string
	for i := len(x.Nodes()); i < bgpSpeakers; i++ {
		lines = append(lines, fmt.Sprintf("neighbor %s peer-group nodes", speakerAddress(i)))
	}
	for range b.times(5) {
		if err := errors.Join(x.frr.BGPD().Kill(), x.frr.BGPD().Start()); err != nil {
			return err
		}
		if err := x.frr.Await(ctx); err != nil {
			return err
		}
		begin := time.Now()
		if err := x.frr.Configure(ctx, append(x.routerLines(), lines...)...); err != nil {
			return err
		}
		if err := x.waitPrefixes(ctx); err != nil {
			return err
		}
		b.add("bgp_converge_10000", time.Since(begin).Seconds())
	}
	b.note("bgp_converge_10000", "%d nodes with their agents, %d speakers of one process; the nodes try to connect every %v", len(x.Nodes()), bgpSpeakers-len(x.Nodes()), bgpConnectRetry)
	return nil
}

// oneChange adds an address to the 10,000, again and again, and waits until the router
// has it over all nodes that have agents.
func (x *bgpLab) oneChange(ctx context.Context, b *bench) error {
	a := manyAddresses(bgpAddresses + 1)[bgpAddresses]
	has := func(want int) func(context.Context) error {
		return func(ctx context.Context) error {
			var s struct{ Paths []struct{ Valid bool } }
			err := x.frr.ShowJSON(ctx, fmt.Sprintf("show bgp ipv4 unicast %s/32 json", a), &s)
			if err == nil && len(s.Paths) != want {
				err = fmt.Errorf("the router has it over %d nodes, want %d", len(s.Paths), want)
			}
			return err
		}
	}
	for range b.times(40) {
		if err := x.addVirtualIP(ctx, a); err != nil {
			return err
		}
		begin := time.Now()
		if err := soon(ctx, has(len(x.Nodes()))); err != nil {
			return err
		}
		b.add("bgp_one_change", ms(time.Since(begin)))
		if err := x.onelb.VirtualIPs().Delete(ctx, v1alpha1.VirtualIPName(a), metav1.DeleteOptions{}); err != nil {
			return err
		}
		if err := soon(ctx, has(0)); err != nil {
			return err
		}
		if err := pause(ctx, time.Second); err != nil { // not within the rest after the one before
			return err
		}
	}
	b.note("bgp_one_change", "one VirtualIP beside %d, until the router has it over %d nodes", bgpAddresses, len(x.Nodes()))
	return nil
}

// soon is until without its pauses: for what takes milliseconds.
func soon(ctx context.Context, f func(context.Context) error) error {
	for {
		err := f(ctx)
		if err == nil {
			return nil
		}
		if werr := pause(ctx, 2*time.Millisecond); werr != nil {
			return errors.Join(werr, err)
		}
	}
}
