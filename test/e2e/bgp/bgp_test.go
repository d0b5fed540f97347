package bgp_test

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/onelb/onelb/test/e2e/kit"
	"github.com/onelb/onelb/test/lab"
)

var all = []string{"node-1", "node-2", "node-3"}

// dual makes a Service of both families of the routed network.
var dual = kit.Families(corev1.IPFamilyPolicyRequireDualStack)

// TestSpread: the router has an address over all nodes, and traffic from the
// internet comes over each of them, with the client's address.
func TestSpread(t *testing.T) {
	w := newWorld(t)
	w.Create(kit.Web, "spread", kit.InPool("routed"), dual, kit.Local)
	addrs := w.Addresses("spread")
	w.over(addrs, all...)
	for i, a := range addrs {
		client := w.Internet().Addrs(lab.Public)[i]
		answered := map[string]bool{}
		// kube-proxy on each node learns of the address by itself.
		w.Eventually(fmt.Sprintf("answers of %s over all nodes", a), func(ctx context.Context) error {
			got, err := w.Internet().HTTPGet(ctx, a, kit.Port)
			if err != nil {
				return err
			}
			if got.Client.Addr().Unmap() != client {
				t.Errorf("the pod on %s saw client %s, want %s", got.Node, got.Client, client)
			}
			answered[got.Node] = true
			if len(answered) < len(all) {
				return fmt.Errorf("so far of %v", answered)
			}
			return nil
		})
	}
	w.Remove("spread")
	w.over(addrs)
}

// TestWhoAnnounces: nodes come and go as they do with layer 2.
func TestWhoAnnounces(t *testing.T) {
	w := newWorld(t)
	w.Create(kit.Pair, "who", kit.InPool("routed"), dual)
	addrs := w.Addresses("who")
	w.over(addrs, all...)
	w.known(addrs, all...)
	w.said("BGPAnnounced", addrs[0].String(), "is announced by node-") // those that had told of their session then
	w.said("BGPSessionUp", "node-1", "10.20.0.1")
	w.Update("who", kit.Local)
	w.over(addrs, "node-1", "node-2")
	w.known(addrs, "node-1", "node-2")
	w.cordon("node-1", true)
	w.over(addrs, "node-2")
	w.cordon("node-2", true) // nobody else is left: both go on
	w.over(addrs, "node-1", "node-2")
	w.cordon("node-1", false)
	w.over(addrs, "node-1")
	w.cordon("node-2", false)
	w.over(addrs, "node-1", "node-2")
	w.label("node-1", `{"metadata":{"labels":{"node.kubernetes.io/exclude-from-external-load-balancers":""}}}`)
	w.over(addrs, "node-2")
	w.label("node-1", `{"metadata":{"labels":{"node.kubernetes.io/exclude-from-external-load-balancers":null}}}`)
	w.over(addrs, "node-1", "node-2")
}

// known waits until the VirtualIPs say that these nodes announce them to the peer.
func (w *world) known(addrs []netip.Addr, want ...string) {
	w.T.Helper()
	for _, a := range addrs {
		w.Eventually(fmt.Sprintf("the VirtualIP of %s to name %v", a, want), func(ctx context.Context) error {
			v, err := w.VirtualIP(ctx, a)
			if err != nil {
				return err
			}
			var got []string
			for _, x := range v.Status.Announcers {
				if !slices.Equal(x.Peers, []string{"rack"}) {
					return fmt.Errorf("%s announces it to %v", x.Node, x.Peers)
				}
				got = append(got, x.Node)
			}
			if !slices.Equal(got, want) {
				return fmt.Errorf("it names %v", got)
			}
			return nil
		})
	}
}

// said waits for an event of the reason with all the words.
func (w *world) said(reason string, words ...string) {
	w.T.Helper()
	w.Eventually("an event "+reason, func(ctx context.Context) error {
		out, err := w.Kubectl(ctx, "get", "events", "-A", "--field-selector=reason="+reason, "-o", `jsonpath={range .items[*]}{.message}{"\n"}{end}`)
		if err != nil {
			return err
		}
		for line := range strings.Lines(out) {
			if !slices.ContainsFunc(words, func(word string) bool { return !strings.Contains(line, word) }) {
				return nil
			}
		}
		return fmt.Errorf("none with %q: %s", words, out)
	})
}

func (w *world) cordon(node string, unschedulable bool) {
	w.T.Helper()
	w.label(node, fmt.Sprintf(`{"spec":{"unschedulable":%v}}`, unschedulable))
}

func (w *world) label(node, patch string) {
	w.T.Helper()
	_, err := w.Client().CoreV1().Nodes().Patch(w.Context(), node, "application/merge-patch+json", []byte(patch), metav1.PatchOptions{})
	w.Must(err)
}

// TestAgentRestarts: no route is withdrawn and nobody notices.
func TestAgentRestarts(t *testing.T) {
	w := newWorld(t)
	w.Create(kit.Web, "restart", kit.InPool("routed"), dual)
	addrs := w.Addresses("restart")
	w.over(addrs, all...)
	stop := make(chan struct{})
	done := make(chan error, 1)
	go func() { done <- w.unchanged(addrs[0], stop) }()
	for _, n := range w.Nodes() {
		w.Must(n.Agent().Restart())
		w.established(n.ShortName())
	}
	close(stop)
	w.Must(<-done)
	w.over(addrs, all...)
}

// unchanged looks at the router's routes to an address until it is stopped.
func (w *world) unchanged(a netip.Addr, stop chan struct{}) error {
	for looks := 0; ; looks++ {
		select {
		case <-stop:
			if looks < 10 {
				return errors.New("hardly looked")
			}
			return nil
		default:
		}
		got, err := w.nodes(w.T.Context(), a)
		if err != nil {
			return err
		}
		if !slices.Equal(got, all) {
			return fmt.Errorf("look %d: %s is announced by %v only", looks, a, got)
		}
	}
}

// established waits until the router has a session with the node, of which it has
// all routes, and the node's BGPNode says so.
func (w *world) established(node string) {
	w.T.Helper()
	a := w.Node(node).Addrs(lab.Private)[0].String()
	w.Eventually("a session of "+node, func(ctx context.Context) error {
		var got map[string]struct {
			State string `json:"bgpState"`
		}
		if err := w.frr.ShowJSON(ctx, "show bgp neighbors "+a+" json", &got); err != nil {
			return err
		}
		if got[a].State != "Established" {
			return fmt.Errorf("the router says %q", got[a].State)
		}
		out, err := w.Kubectl(ctx, "get", "bgpnode", node, "-o", "jsonpath={.status.established}/{.status.peers}")
		if err == nil && out != "1/1" {
			err = fmt.Errorf("the BGPNode says %s", out)
		}
		return err
	})
}
