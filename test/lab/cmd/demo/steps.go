package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/onelb/onelb/api/client"
	"github.com/onelb/onelb/test/lab"
)

var workload = lab.Workload{Name: "hello", Replicas: 3}

func (d *demo) datacenter(ctx context.Context) error {
	if err := d.lab.Start(ctx); err != nil {
		return err
	}
	d.say("  %d namespaces; logs and files in %s", len(d.lab.Namespaces()), d.lab.Dir())
	return nil
}

func (d *demo) nodes(ctx context.Context) error {
	if err := d.lab.WaitNodesInitialised(ctx); err != nil {
		return err
	}
	return d.kubectl(ctx, "get", "nodes", "-o", "custom-columns=NAME:.metadata.name,PROVIDER-ID:.spec.providerID,ADDRESSES:.status.addresses[*].address,TAINTS:.spec.taints[*].key")
}

const pools = `
apiVersion: onelb.io/v1alpha1
kind: AddressPool
metadata:
  name: lan
spec:
  network: {name: private}
  ranges:
  - {start: 10.20.0.100, end: 10.20.0.199}
  - {start: "fd00:20::100", end: "fd00:20::163"}
  exposure: L2
---
apiVersion: onelb.io/v1alpha1
kind: AddressPool
metadata:
  name: internet
spec:
  network: {name: public}
  ranges:
  - {start: 203.0.113.100, end: 203.0.113.199}
  - {start: "2001:db8:113::100", end: "2001:db8:113::163"}
  exposure: Router
  router: {name: edge, forward: NodePort}
`

func (d *demo) pools(ctx context.Context) error {
	file := filepath.Join(d.lab.Dir(), "pools.yaml")
	if err := os.WriteFile(file, []byte(pools), 0o600); err != nil {
		return err
	}
	if err := d.kubectl(ctx, "apply", "-f", file); err != nil {
		return err
	}
	if _, err := d.lab.Kubectl(ctx, "wait", "addresspools", "--all", "--for=condition=Ready", "--timeout=60s"); err != nil {
		return err
	}
	if err := d.kubectl(ctx, "get", "addresspools"); err != nil {
		return err
	}
	for _, id := range d.reservations() {
		if n, err := d.lab.OneSim().VNet(id); err == nil {
			d.say("    in OpenNebula: network %d %q, reserved from network %d", n.ID, n.Name, n.Parent)
		}
	}
	return nil
}

// services creates both and waits for the first answer on each side.
func (d *demo) services(ctx context.Context) error {
	if _, err := d.lab.StartWorkload(ctx, workload); err != nil {
		return err
	}
	sniffer, err := d.lab.Sniff(lab.Private)
	if err != nil {
		return err
	}
	defer func() { _ = sniffer.Close() }()
	d.publicAddrs, err = d.serve(ctx, public, "internet", d.lab.Internet())
	if err != nil {
		return err
	}
	d.say("%s  first answer from outside", d.clock())
	d.lanAddrs, err = d.serve(ctx, lan, "lan", d.lab.LAN())
	if err != nil {
		return err
	}
	for _, a := range sniffer.Seen() {
		if slices.Contains(d.lanAddrs, a.Addr) {
			d.arp = append(d.arp, a.String())
		}
	}
	return nil
}

// serve creates a Service and asks it until it answers.
func (d *demo) serve(ctx context.Context, name, pool string, from *lab.Host) ([]netip.Addr, error) {
	begin := time.Now()
	if _, err := d.lab.CreateService(ctx, service(workload, name, pool)); err != nil {
		return nil, err
	}
	addrs, err := d.lab.WaitAddress(ctx, namespace, name)
	if err != nil {
		return nil, err
	}
	d.say("  Service %s has %v after %d ms", name, addrs, time.Since(begin).Milliseconds())
	for {
		attempt, cancel := context.WithTimeout(ctx, 500*time.Millisecond)
		a, err := from.HTTPGet(attempt, addrs[0], port)
		cancel()
		if err == nil {
			d.say("  %s answered a client on the %s side after %d ms", a.Pod, pool, time.Since(begin).Milliseconds())
			return addrs, nil
		}
		if ctx.Err() != nil {
			return nil, fmt.Errorf("no answer from %s: %w", addrs[0], err)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

func (d *demo) kubernetes(ctx context.Context) error {
	return errors.Join(
		d.kubectl(ctx, "get", "service", public, lan),
		d.kubectl(ctx, "get", "virtualips"),
		d.kubectl(ctx, "get", "events", "--field-selector", "involvedObject.kind=Service,involvedObject.name="+lan,
			"-o", "custom-columns=TYPE:.type,REASON:.reason,MESSAGE:.message"))
}

func (d *demo) gratuitousARP(context.Context) error {
	if len(d.arp) == 0 {
		return errors.New("none was seen on the private network")
	}
	for _, a := range d.arp {
		d.say("    %s", a)
	}
	return nil
}

func (d *demo) routerMap(ctx context.Context) error {
	out, err := d.lab.NFT(ctx, d.lab.Router(1).Host, "list", "ruleset")
	if err != nil {
		return err
	}
	found := false
	for line := range strings.SplitSeq(out, "\n") {
		if strings.Contains(line, d.publicAddrs[0].String()) {
			d.say("    %s", strings.TrimSpace(line))
			found = true
		}
	}
	if !found {
		return fmt.Errorf("%s is not in the router's table", d.publicAddrs[0])
	}
	return nil
}

func (d *demo) fromInternet(ctx context.Context) error {
	return d.answers(ctx, d.lab.Internet(), d.publicAddrs)
}

func (d *demo) fromLAN(ctx context.Context) error { return d.answers(ctx, d.lab.LAN(), d.lanAddrs) }

// answers asks ten times over each address, TCP and UDP, and wants more than one pod.
func (d *demo) answers(ctx context.Context, from *lab.Host, addrs []netip.Addr) error {
	for _, a := range addrs {
		pods := map[string]int{}
		for range 10 {
			got, err := from.HTTPGet(ctx, a, port)
			if err != nil {
				return err
			}
			pods[got.Pod]++
		}
		udp, err := from.UDP(ctx, a, port)
		if err != nil {
			return fmt.Errorf("over UDP: %w", err)
		}
		d.say("    %-22s TCP: %s; UDP: %s", a, countText(pods), udp.Pod)
		if len(pods) < 2 {
			return fmt.Errorf("all ten answers from %s came from one pod", a)
		}
	}
	return nil
}

func countText(pods map[string]int) string {
	names := make([]string, 0, len(pods))
	for n := range pods {
		names = append(names, n)
	}
	slices.Sort(names)
	for i, n := range names {
		names[i] = fmt.Sprintf("%d× %s", pods[n], n)
	}
	return strings.Join(names, ", ")
}

// failover cuts the holder off and measures how long the Service was away. Its
// pods stay where they are, so what the cut node's pod would have answered is
// left out: the probe asks a Service whose pods are on the other nodes.
func (d *demo) failover(ctx context.Context) error {
	addr := d.lanAddrs[0]
	holder, err := d.holder(ctx, addr)
	if err != nil {
		return err
	}
	node := d.lab.Node(holder)
	if node == nil {
		return fmt.Errorf("the holder of %s is %q, which is no node", addr, holder)
	}
	for _, p := range d.lab.Pods() {
		if p.Node() == node {
			if err := p.SetReady(ctx, false); err != nil {
				return err
			}
		}
	}
	if err := d.lab.WaitEndpoints(ctx, namespace, lan, 2); err != nil {
		return err
	}
	probe := lab.Probe(ctx, 10*time.Millisecond, func(ctx context.Context) error {
		_, err := d.lab.LAN().HTTPGet(ctx, addr, port)
		return err
	})
	time.Sleep(2 * time.Second) // kube-proxy has taken the pod out by then
	d.say("  %s holds %s; its links are cut", holder, addr)
	if err := node.CutLinks(); err != nil {
		return err
	}
	time.Sleep(3 * time.Second)
	result := probe.Stop()
	next, err := d.holder(ctx, addr)
	if err != nil {
		return err
	}
	d.say("  %s holds it now; the Service was away for %d ms (%s)", next, result.Longest.Duration.Milliseconds(), result)
	if next == holder || result.Longest.Open {
		return fmt.Errorf("no other node has taken %s over", addr)
	}
	return node.HealLinks()
}

// holder waits until the VirtualIP names a holder.
func (d *demo) holder(ctx context.Context, a netip.Addr) (string, error) {
	cfg, err := d.lab.RESTConfig(d.lab.Control())
	if err != nil {
		return "", err
	}
	c, err := client.New(cfg)
	if err != nil {
		return "", err
	}
	for {
		v, err := c.VirtualIPs().Get(ctx, a.String(), metav1.GetOptions{})
		if err == nil && v.Status.Holder != nil {
			return v.Status.Holder.Name, nil
		}
		select {
		case <-time.After(20 * time.Millisecond):
		case <-ctx.Done():
			return "", fmt.Errorf("VirtualIP %s has no holder: %w", a, errors.Join(err, ctx.Err()))
		}
	}
}

func (d *demo) deletion(ctx context.Context) error {
	one := d.lab.OneSim()
	before := d.held()
	d.say("  on hold in OpenNebula before: %v", before)
	for _, name := range []string{public, lan} {
		if err := d.lab.DeleteService(ctx, namespace, name); err != nil {
			return err
		}
	}
	for len(d.held()) > 0 {
		select {
		case <-time.After(20 * time.Millisecond):
		case <-ctx.Done():
			return fmt.Errorf("still on hold in OpenNebula: %v", d.held())
		}
	}
	d.say("  on hold in OpenNebula now: %v", d.held())
	d.say("  calls to OpenNebula since the start: %v", one.Calls())
	if len(before) == 0 {
		return errors.New("no address was on hold while the Services had it")
	}
	return d.kubectl(ctx, "get", "virtualips")
}

// held are all addresses on hold in our reservations.
func (d *demo) held() []netip.Addr {
	one := d.lab.OneSim()
	var out []netip.Addr
	for _, id := range d.reservations() {
		out = append(out, one.Holds(id)...)
	}
	return out
}

func (d *demo) reservations() []int {
	one := d.lab.OneSim()
	return append(one.Reservations(one.PrivateVNet), one.Reservations(one.PublicVNet)...)
}
