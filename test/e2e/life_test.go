package e2e_test

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/onelb/onelb/test/e2e/kit"
	"github.com/onelb/onelb/test/lab"
)

// TestLife takes a Service through its life in each kind of pool and each family.
func TestLife(t *testing.T) {
	stacks := map[string][]corev1.IPFamily{
		"ipv4": {corev1.IPv4Protocol}, "ipv6": {corev1.IPv6Protocol}, "dual": {corev1.IPv4Protocol, corev1.IPv6Protocol},
		"six-four": {corev1.IPv6Protocol, corev1.IPv4Protocol},
	}
	for _, pool := range []string{"lan", "internet", "direct"} {
		t.Run(pool, func(t *testing.T) {
			w := newWorld(t)
			var names []string
			for stack, f := range stacks {
				name := fmt.Sprintf("life-%s-%s", pool, stack)
				names = append(names, name)
				w.Create(web, name, kit.InPool(pool), families(f...))
			}
			for stack, f := range stacks {
				addrs := w.waitServed(fmt.Sprintf("life-%s-%s", pool, stack))
				w.checkPublished(pool, stack, f, addrs)
			}
			w.NothingLeft()
			w.Remove(names...)
			w.NothingLeft()
		})
	}
}

// checkPublished looks at what a Service has in its status: kube-proxy serves
// nothing else, so forward VIP publishes the inner address too, after the public one.
func (w *world) checkPublished(pool, stack string, f []corev1.IPFamily, addrs []netip.Addr) {
	w.T.Helper()
	want := len(f)
	if pool == "direct" {
		want *= 2
	}
	if len(addrs) != want {
		w.T.Errorf("%s %s: addresses %v, want %d", pool, stack, addrs, want)
	}
	public := lab.PublicV4.Contains(addrs[0]) || lab.PublicV6.Contains(addrs[0])
	if public != (pool != "lan") {
		w.T.Errorf("%s %s: the first address is %s", pool, stack, addrs[0])
	}
	if addrs[0].Is4() != (f[0] == corev1.IPv4Protocol) {
		w.T.Errorf("%s %s: the first address is %s, the first family %s", pool, stack, addrs[0], f[0])
	}
	for _, a := range addrs {
		if holders := w.Holders(a); len(holders) != 1 {
			w.T.Errorf("%s %s: %s is in the kernels of %v, want one", pool, stack, a, holders)
		}
	}
}

// TestChanges changes a Service: ports, type away and back, and the pool.
func TestChanges(t *testing.T) {
	w := newWorld(t)
	const name = "changes"
	before := w.serve(web, name, "internet")

	t.Log("one port moves, another comes, the rest stays")
	w.Update(name, func(s *corev1.Service) {
		s.Spec.Ports[0].Port = 9000
		s.Spec.Ports = append(s.Spec.Ports, corev1.ServicePort{
			Name: "more", Protocol: corev1.ProtocolTCP, Port: 9001, TargetPort: intstr.FromInt32(lab.TargetPort),
		})
	})
	w.waitAnswers(name, before)
	w.waitSilence(before[0], port, corev1.ProtocolTCP)
	if after := w.Addresses(name); !sameAddrs(before, after) {
		t.Errorf("a change of ports moved the Service from %v to %v", before, after)
	}
	w.Update(name, func(s *corev1.Service) { s.Spec.Ports = s.Spec.Ports[:2]; s.Spec.Ports[0].Port = port })
	w.waitAnswers(name, before)
	w.waitSilence(before[0], 9001, corev1.ProtocolTCP)
	w.NothingLeft()

	t.Log("no load balancer any more, and one again")
	w.Update(name, func(s *corev1.Service) { s.Spec.Type = corev1.ServiceTypeClusterIP })
	w.NothingLeft()
	w.waitSilence(before[0], port, corev1.ProtocolTCP)
	w.Update(name, func(s *corev1.Service) { s.Spec.Type = corev1.ServiceTypeLoadBalancer })
	w.waitServed(name)

	for _, pool := range []string{"lan", "direct", "internet"} {
		t.Log("the pool becomes " + pool)
		w.Update(name, kit.InPool(pool))
		w.Eventually("addresses of pool "+pool, w.ofPool(name, pool))
		w.waitServed(name)
		w.NothingLeft()
	}
	w.Remove(name)
	w.NothingLeft()
}

func sameAddrs(a, b []netip.Addr) bool { return fmt.Sprint(a) == fmt.Sprint(b) }

// TestMany makes 20 Services at once.
func TestMany(t *testing.T) {
	w := newWorld(t)
	var names []string
	for i := range 20 {
		name := fmt.Sprintf("many-%02d", i)
		names = append(names, name)
		w.Create(web, name, kit.InPool([]string{"lan", "internet", "lan", "direct"}[i%4]))
	}
	owner := map[netip.Addr]string{}
	for _, name := range names {
		for _, a := range w.waitServed(name) {
			if owner[a] != "" {
				t.Errorf("%s and %s both have %s", owner[a], name, a)
			}
			owner[a] = name
		}
	}
	w.NothingLeft()
	holders := map[string]int{}
	for a := range owner {
		got := w.Holders(a)
		if len(got) != 1 {
			t.Errorf("%s is in the kernels of %v, want one", a, got)
		}
		holders[strings.Join(got, "+")]++
	}
	for _, n := range w.Nodes() {
		if holders[n.ShortName()] == 0 {
			t.Errorf("%s holds no address: %v", n.ShortName(), holders)
		}
	}
	w.Remove(names...)
	w.NothingLeft()
}
