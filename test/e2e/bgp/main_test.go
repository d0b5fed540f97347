// Package bgp_test announces addresses to a real router, FRR on router-1, which
// spreads what comes from the internet over the nodes.
package bgp_test

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/vishvananda/netlink"

	"github.com/onelb/onelb/test/e2e/kit"
	"github.com/onelb/onelb/test/lab"
	"github.com/onelb/onelb/test/lab/bgprouter"
	"github.com/onelb/onelb/test/lab/labtest"
)

func TestMain(m *testing.M) {
	os.Exit(labtest.Run(m, lab.Options{Name: "bgp", Programs: true}))
}

// routed is a network that exists nowhere but in the routers' tables.
const routed = `NAME="routed"
VN_MAD="dummy"
BRIDGE="br-routed"
AR=[TYPE="IP4",IP="192.0.2.1",SIZE="100"]
AR=[TYPE="IP6_STATIC",IP6="2001:db8:200::1",PREFIX_LENGTH="64",SIZE="100"]
`

const objects = `
apiVersion: v1
kind: Secret
metadata: {name: onelb-bgp, namespace: onelb-system}
stringData: {rack: "swordfish"}
---
apiVersion: onelb.io/v1alpha1
kind: BGPConfiguration
metadata: {name: default}
spec: {asn: 65001}
---
apiVersion: onelb.io/v1alpha1
kind: BGPPeer
metadata: {name: rack}
spec: {address: 10.20.0.1, asn: 64512, passwordKey: rack, families: [IPv4, IPv6]}
---
apiVersion: onelb.io/v1alpha1
kind: AddressPool
metadata: {name: routed}
spec:
  network: {name: routed}
  exposure: BGP
  quarantine: 1s
  bgp: {communities: ["64512:100"]}
`

var setup = kit.Setup{Pools: kit.Pools, Workloads: []lab.Workload{kit.Web, kit.Pair}}

var prepared struct {
	sync.Once
	frr *bgprouter.FRR
	err error
}

// world is the shared lab with FRR on router-1.
type world struct {
	*kit.World
	frr *bgprouter.FRR
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{World: kit.New(t, &setup)}
	prepared.Do(func() { prepared.frr, prepared.err = w.prepare() })
	w.Must(prepared.err)
	labtest.Logs(t, w.Agent(1), w.Agent(3), prepared.frr.BGPD())
	w.frr = prepared.frr
	return w
}

func (w *world) prepare() (*bgprouter.FRR, error) {
	ctx := w.Context()
	if _, err := w.OneSim().AddVNet("", routed); err != nil {
		return nil, err
	}
	frr, err := w.FRR(context.WithoutCancel(ctx), w.Router(1).Host)
	if err != nil {
		return nil, err
	}
	lines := []string{
		"router bgp 64512", "bgp router-id 10.20.0.1", "no bgp ebgp-requires-policy", "no bgp default ipv4-unicast",
		"neighbor nodes peer-group", "neighbor nodes remote-as 65001", "neighbor nodes password swordfish",
	}
	for _, n := range w.Nodes() {
		lines = append(lines, fmt.Sprintf("neighbor %s peer-group nodes", n.Addrs(lab.Private)[0]))
	}
	for _, family := range []string{"ipv4", "ipv6"} {
		lines = append(lines, "address-family "+family+" unicast", "neighbor nodes activate", "maximum-paths 64", "exit-address-family")
	}
	if err := frr.Configure(ctx, lines...); err != nil {
		return nil, err
	}
	for _, family := range []string{"ipv4", "ipv6"} { // by ports, as routers do
		if err := w.Router(1).Sysctl("net/"+family+"/fib_multipath_hash_policy", "1"); err != nil {
			return nil, err
		}
	}
	w.Apply(objects)
	return frr, w.uplink()
}

// uplink gives the internet its way to the network.
func (w *world) uplink() error {
	nl, err := w.Internet().Netlink()
	if err != nil {
		return err
	}
	defer nl.Close()
	link, err := nl.LinkByName("eth0")
	if err != nil {
		return err
	}
	for i, prefix := range []string{"192.0.2.0/24", "2001:db8:200::/64"} {
		_, to, err := net.ParseCIDR(prefix)
		if err != nil {
			return err
		}
		via := w.Router(1).Addrs(lab.Public)[i].AsSlice()
		if err := nl.RouteAdd(&netlink.Route{LinkIndex: link.Attrs().Index, Dst: to, Gw: via}); err != nil {
			return fmt.Errorf("route to %s: %w", prefix, err)
		}
	}
	return nil
}

// seen is a prefix as FRR has it.
type seen struct {
	Paths []struct {
		Valid     bool
		Community struct{ String string }
		Nexthops  []struct {
			IP    string
			Scope string
		}
	}
}

// nodes are the names of the nodes over which the router has the address.
func (w *world) nodes(ctx context.Context, a netip.Addr) ([]string, error) {
	family := map[bool]string{true: "ipv4", false: "ipv6"}[a.Is4()]
	var s seen
	if err := w.frr.ShowJSON(ctx, fmt.Sprintf("show bgp %s unicast %s json", family, netip.PrefixFrom(a, a.BitLen())), &s); err != nil {
		return nil, err
	}
	var names []string
	for _, p := range s.Paths {
		if p.Community.String != "64512:100" {
			return nil, fmt.Errorf("communities %q", p.Community.String)
		}
		for _, h := range p.Nexthops {
			for _, n := range w.Nodes() {
				if p.Valid && slices.Contains(n.Addrs(lab.Private), netip.MustParseAddr(h.IP)) {
					names = append(names, n.ShortName())
				}
			}
		}
	}
	slices.Sort(names)
	return names, nil
}

// over waits until the router has the addresses over these nodes and no others.
func (w *world) over(addrs []netip.Addr, want ...string) {
	w.T.Helper()
	for _, a := range addrs {
		w.Eventually(fmt.Sprintf("%s to be announced by %v", a, want), func(ctx context.Context) error {
			got, err := w.nodes(ctx, a)
			if err == nil && !slices.Equal(got, want) {
				err = fmt.Errorf("it is by %s", strings.Join(got, ", "))
			}
			return err
		})
	}
}
