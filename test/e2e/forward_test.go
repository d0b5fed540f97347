package e2e_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"

	"github.com/onelb/onelb/test/e2e/kit"
	"github.com/onelb/onelb/test/lab"
)

// TestForwardPod sends connections straight to pods, over the routes that the
// router gets from the Nodes, with the client's address and without NodePorts.
func TestForwardPod(t *testing.T) {
	w := newWorld(t)
	w.Pool("pods", `network: {name: public}, exposure: Router, router: {name: edge, forward: Pod}, quarantine: 1s,
  ranges: [{start: 203.0.113.188, end: 203.0.113.191}, {start: "2001:db8:113::150", end: "2001:db8:113::153"}], chunkSize: 4`)
	addrs := w.serve(pair, "to-pods", "pods", func(s *corev1.Service) {
		s.Spec.AllocateLoadBalancerNodePorts = new(false)
	})
	for _, family := range []string{"-4", "-6"} {
		out, err := run(w.Context(), "ip", "-n", w.Router(1).Name(), family, "route", "show", "proto", "79")
		w.Must(err)
		if n := strings.Count(string(out), "via"); n != len(w.Nodes()) {
			t.Errorf("the router has %d routes to pods, want one for each of %d nodes:\n%s", n, len(w.Nodes()), out)
		}
	}
	own := append(w.ClientOf(addrs[0]).Addrs(lab.Public), w.ClientOf(addrs[0]).Addrs(lab.Private)...)
	for _, a := range addrs {
		for _, proto := range []corev1.Protocol{corev1.ProtocolTCP, corev1.ProtocolUDP} {
			seen := map[string]bool{}
			w.Eventually(fmt.Sprintf("both pods to answer over %s/%s", a, proto), func(ctx context.Context) error {
				got, err := w.Ask(ctx, a, port, proto)
				if err != nil {
					return err
				}
				if !slices.Contains(own, got.Client.Addr()) {
					t.Errorf("%s/%s: the pod saw %s as client, want one of %v", a, proto, got.Client.Addr(), own)
				}
				if seen[got.Pod] = true; len(seen) < 2 {
					return fmt.Errorf("only %v", seen)
				}
				return nil
			})
		}
	}
	t.Log("a pod is no longer ready")
	pods := slices.DeleteFunc(w.Pods(), func(p *lab.Pod) bool { return p.PodName() != "pair-1" })
	w.Must(pods[0].SetReady(t.Context(), false))
	t.Cleanup(func() { w.Must(pods[0].SetReady(context.Background(), true)) })
	for _, a := range addrs {
		w.Eventually("answers of pair-2 alone over "+a.String(), func(ctx context.Context) error { return w.onlyFrom(ctx, a, "pair-2") })
	}
	w.Remove("to-pods")
	w.NothingLeft()
}

// TestAffinity keeps a client on its node, and its pod, behind the router. What the
// router remembers of clients ends by itself, so the time is short.
func TestAffinity(t *testing.T) {
	w := newWorld(t)
	addrs := w.serve(web, "sticky", "internet", func(s *corev1.Service) {
		s.Spec.SessionAffinity = corev1.ServiceAffinityClientIP
		s.Spec.SessionAffinityConfig = &corev1.SessionAffinityConfig{ClientIP: &corev1.ClientIPConfig{TimeoutSeconds: new(int32(5))}}
	}, kit.Local, kit.Annotate("connection-limit", "100"))
	for _, a := range addrs {
		w.Eventually("one pod to answer over "+a.String(), func(ctx context.Context) error {
			first, err := w.Ask(ctx, a, port, corev1.ProtocolTCP)
			if err != nil {
				return err
			}
			return w.onlyFrom(ctx, a, first.Pod)
		})
	}
	w.hasRule("keep-5", "limit-100")
	w.Remove("sticky")
	w.NothingLeft()
}

// hasRule waits until the router's rules have all of these words.
func (w *world) hasRule(words ...string) {
	w.T.Helper()
	w.Eventually(fmt.Sprintf("rules with %v", words), func(ctx context.Context) error {
		out, err := run(ctx, "ip", "netns", "exec", w.Router(1).Name(), "nft", "list", "table", "ip", "onelb")
		if err != nil {
			return err
		}
		for _, word := range words {
			if !strings.Contains(string(out), word) {
				return fmt.Errorf("%s is missing:\n%s", word, out)
			}
		}
		return nil
	})
}
