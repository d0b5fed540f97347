package e2e_test

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/onelb/onelb/test/e2e/kit"
	"github.com/onelb/onelb/test/lab"
)

// TestForwardRoute: public addresses that nodes hold, behind a router that translates
// nothing. The router learns of a new holder from that one alone.
func TestForwardRoute(t *testing.T) {
	w := newWorld(t)
	w.Pool("routed", `network: {name: public}, exposure: Router, router: {name: edge, forward: Route}, quarantine: 1s,
  ranges: [{start: 203.0.113.192, end: 203.0.113.195}, {start: "2001:db8:113::154", end: "2001:db8:113::157"}], chunkSize: 4`)
	w.serve(web, "anywhere", "routed") // externalTrafficPolicy Cluster
	addrs := w.serve(pair, "routed", "routed", kit.Local, func(s *corev1.Service) {
		s.Spec.AllocateLoadBalancerNodePorts = new(false)
	})
	for _, a := range addrs {
		w.checkLocal("routed", a)
		w.heldBy(a, "node-1", "node-2")
		w.Silent(a, port+10) // no frontend
	}
	w.routes(append(addrs, w.Addresses("anywhere")...)...)

	t.Log("source ranges let others in, then the client")
	w.Update("routed", func(s *corev1.Service) {
		s.Spec.LoadBalancerSourceRanges = []string{"198.51.100.0/24", "2001:db8:1::/48"}
	})
	for _, a := range addrs {
		w.waitSilence(a, port, corev1.ProtocolTCP)
		w.waitSilence(a, port, corev1.ProtocolUDP)
	}
	w.Update("routed", func(s *corev1.Service) { s.Spec.LoadBalancerSourceRanges = nil })
	w.waitAnswers("routed", addrs)

	t.Log("the holder's link is cut")
	a := addrs[0]
	victim := w.Node(w.Holders(a)[0])
	probe := lab.Probe(t.Context(), 20*time.Millisecond, func(ctx context.Context) error {
		_, err := w.Internet().HTTPGet(ctx, a, port)
		return err
	})
	t.Cleanup(func() { w.Must(victim.HealLinks()) })
	w.Must(victim.CutLinks())
	other := map[string]string{"node-1": "pair-2", "node-2": "pair-1"}[victim.ShortName()]
	for _, a := range addrs {
		w.Eventually("answers of "+other+" over "+a.String(), func(ctx context.Context) error { return w.onlyFrom(ctx, a, other) })
	}
	t.Logf("takeover: %v", probe.Stop())
	w.Must(victim.HealLinks())
	for _, a := range addrs {
		w.Eventually("one holder of "+a.String(), func(context.Context) error {
			if in := w.Holders(a); len(in) != 1 || in[0] != w.holder(a) {
				return fmt.Errorf("the kernels of %v have it, the VirtualIP says %s", in, w.holder(a))
			}
			return nil
		})
	}

	t.Log("the pool's way of forwarding is changed, and back")
	anywhere := w.Addresses("anywhere")
	w.Remove("routed")
	w.Patch("routed", `{"router":{"forward":"NodePort"}}`)
	for _, a := range anywhere {
		w.heldBy(a, "router-1")
		w.Eventually("no holder in the VirtualIP of "+a.String(), func(ctx context.Context) error {
			v, err := w.VirtualIP(ctx, a)
			if err == nil && v.Status.Holder != nil {
				err = fmt.Errorf("it is %s", v.Status.Holder.Name)
			}
			return err
		})
	}
	w.routes()
	w.waitAnswers("anywhere", anywhere)
	w.Patch("routed", `{"router":{"forward":"Route"}}`)
	for _, a := range anywhere {
		w.heldBy(a, "node-1", "node-2", "node-3")
	}
	w.routes(anywhere...)
	w.waitAnswers("anywhere", anywhere)
	w.Remove("anywhere")
	w.NothingLeft()
	w.routes()
}

// heldBy waits until one of these hosts, and no other, has the address.
func (w *world) heldBy(a netip.Addr, hosts ...string) {
	w.T.Helper()
	w.Eventually(fmt.Sprintf("%s to be on one of %v", a, hosts), func(context.Context) error {
		if in := w.Holders(a); len(in) != 1 || !slices.Contains(hosts, in[0]) {
			return fmt.Errorf("it is on %v", in)
		}
		return nil
	})
}

// routes waits until the router passes on exactly these addresses, and answers for them
// outside.
func (w *world) routes(want ...netip.Addr) {
	w.T.Helper()
	w.Eventually(fmt.Sprintf("the router to pass on %v", want), func(ctx context.Context) error {
		var errs []error
		for _, what := range [][]string{{"route", "show", "proto", "80"}, {"neigh", "show", "proxy"}} {
			lines := 0
			for _, family := range []string{"-4", "-6"} {
				out, err := run(ctx, "ip", append([]string{"-n", w.Router(1).Name(), family}, what...)...)
				if err != nil {
					return err
				}
				for line := range strings.Lines(string(out)) {
					lines++
					if !slices.ContainsFunc(want, func(a netip.Addr) bool { return strings.HasPrefix(line, a.String()+" ") }) {
						errs = append(errs, fmt.Errorf("unexpected %q", line))
					}
				}
			}
			if lines != len(want) {
				errs = append(errs, fmt.Errorf("%d entries of ip %s", lines, what[0]))
			}
		}
		return errors.Join(errs...)
	})
}
