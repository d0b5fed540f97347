package lab

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync"

	"github.com/onelb/onelb/test/lab/proc"
)

// Node is a Kubernetes node: a host with a hollow kubelet, a real kube-proxy and
// onelb's node agent.
type Node struct {
	*Host
	lab     *Lab
	index   int // from 1
	kubelet *kubelet
	proxy   *proc.Unit
	agent   *proc.Unit // nil without Options.Programs

	mu   sync.Mutex // guards next
	next int        // the number of pods that were ever on this node
}

func newNode(l *Lab, h *Host, index int) *Node {
	n := &Node{Host: h, lab: l, index: index}
	n.kubelet = &kubelet{node: n}
	return n
}

// Proxy is the node's kube-proxy.
func (n *Node) Proxy() *proc.Unit { return n.proxy }

// Agent is the node's onelb-node, nil without Options.Programs.
func (n *Node) Agent() *proc.Unit { return n.agent }

// buildRoutes gives the node its way out, and the ways to the pods of the other
// nodes, as a CNI plugin with plain routing does.
func (n *Node) buildRoutes() error {
	if err := n.defaultRoute("eth0", privateRouter(1)); err != nil {
		return err
	}
	for i := 1; i <= n.lab.options.Nodes; i++ {
		if i == n.index {
			continue
		}
		via := privateNode(i)
		for f, cidr := range podCIDRs(i) {
			if err := n.route(cidr, "eth0", via[f]); err != nil {
				return err
			}
		}
	}
	return nil
}

// masquerade makes the node's pods leave the cluster under the node's address,
// as CNI plugins do: nothing outside knows the pods' networks.
func (n *Node) masquerade(ctx context.Context) error {
	rules := fmt.Sprintf(`table inet lab-cni {
	chain postrouting {
		type nat hook postrouting priority srcnat + 10;
		ip saddr %[1]s ip daddr != %[1]s oifname "eth0" masquerade
		ip6 saddr %[2]s ip6 daddr != %[2]s oifname "eth0" masquerade
	}
}
`, PodsV4, PodsV6)
	_, err := n.lab.runIn(ctx, n.Host, rules, n.lab.tools.nft.Path, "-f", "-")
	return err
}

// start brings up kubelet and kube-proxy and returns when both work.
func (n *Node) start(ctx context.Context) error {
	if err := n.masquerade(ctx); err != nil {
		return err
	}
	// kube-proxy waits for its node to appear; its own start takes longer.
	if err := n.proxy.Start(); err != nil {
		return err
	}
	if err := n.kubelet.start(ctx); err != nil {
		return err
	}
	return n.waitProxy(ctx)
}

func (n *Node) proxyArgs() []string {
	return []string{
		"--kubeconfig=" + n.lab.path("proxy.kubeconfig"),
		"--hostname-override=" + n.ShortName(),
		"--proxy-mode=" + string(n.lab.options.ProxyMode),
		"--cluster-cidr=" + PodsV4.String() + "," + PodsV6.String(),
		// These settings belong to the machine, and a namespace may not write them.
		"--conntrack-max-per-core=0", "--conntrack-min=0",
		"--conntrack-tcp-timeout-established=0", "--conntrack-tcp-timeout-close-wait=0",
	}
}

// waitProxy returns when kube-proxy has programmed its first rules.
func (n *Node) waitProxy(ctx context.Context) error {
	return n.lab.waitURL(ctx, n.Host, n.proxy, "http://127.0.0.1:10256/healthz")
}

// StopKubelet silences the kubelet, as if it hung; StartKubelet revives it.
func (n *Node) StopKubelet() { n.kubelet.stop() }

// StartKubelet revives the kubelet and returns when the node is Ready.
func (n *Node) StartKubelet(ctx context.Context) error { return n.kubelet.start(ctx) }

// PowerOff is the loss of the machine: the links go first, so that nobody hears a
// last word, then everything that ran. Its pods' processes stay, unreachable.
func (n *Node) PowerOff() error {
	errs := []error{n.CutLinks()}
	if n.agent != nil {
		errs = append(errs, n.agent.Kill())
	}
	errs = append(errs, n.proxy.Kill())
	n.kubelet.stop()
	return errors.Join(errs...)
}

// PowerOn boots the machine: with the addresses and rules of a fresh start, not
// those it lost power with. It returns when the node is Ready and kube-proxy
// works; the node agent has been started then.
func (n *Node) PowerOn(ctx context.Context) error {
	if err := n.wipe(ctx); err != nil {
		return err
	}
	if err := n.HealLinks(); err != nil {
		return err
	}
	if err := n.start(ctx); err != nil {
		return err
	}
	if n.agent != nil {
		return n.agent.Start()
	}
	return nil
}

// wipe removes what a running node adds to the kernel and a reboot would lose:
// addresses that are not its own, packet filter rules, connection tracking and
// neighbours.
func (n *Node) wipe(ctx context.Context) error {
	if n.lab.options.ProxyMode == IPVS { // virtual servers, their sets and the interface with their addresses
		if _, err := n.lab.runIn(ctx, n.Host, "", n.lab.kube("kube-proxy"), "--cleanup"); err != nil {
			return err
		}
	}
	if _, err := n.lab.runIn(ctx, n.Host, "flush ruleset\n", n.lab.tools.nft.Path, "-f", "-"); err != nil {
		return err
	}
	nl, err := n.Netlink()
	if err != nil {
		return err
	}
	defer nl.Close()
	var errs []error
	for _, link := range n.links {
		errs = append(errs, wipeLink(nl, link))
	}
	return errors.Join(append(errs, wipeConntrack(nl))...)
}

// pods are those on this node, by name.
func (n *Node) pods() []*Pod {
	n.lab.mu.Lock()
	defer n.lab.mu.Unlock()
	var out []*Pod
	for _, p := range n.lab.pods {
		if p.node == n {
			out = append(out, p)
		}
	}
	slices.SortFunc(out, func(a, b *Pod) int { return cmp.Compare(a.key(), b.key()) })
	return out
}

// newPodAddrs are the addresses of the node's next pod.
func (n *Node) newPodAddrs() (addrs []netip.Addr, number int) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.next++
	return podAddrs(n.index, n.next), n.next
}
