package e2e_test

import (
	"context"
	"fmt"
	"net/netip"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/onelb/onelb/test/lab"
)

// TestAlone stops the API server and OpenNebula: the data path goes on, also
// over restarts of the agents, and a dead node's addresses are taken over.
func TestAlone(t *testing.T) {
	w := newWorld(t)
	// Pods on one node only: what other nodes hold can lose its holder and keep its pods.
	solo := lab.Workload{Name: "solo", Replicas: 2, Nodes: []string{"node-3"}}
	_, err := w.StartWorkload(w.Context(), solo)
	w.Must(err)
	names := []string{"alone-0", "alone-1", "alone-2", "alone-3", "alone-internet"}
	var moving netip.Addr
	held := map[string]bool{}
	all := w.serve(solo, "alone-internet", "internet")
	for _, name := range names[:4] {
		a := w.serve(solo, name, "lan")[0]
		all = append(all, a)
		if h := w.holder(a); h != "node-3" {
			moving, held[h] = a, true
		}
	}
	if !moving.IsValid() {
		t.Fatal("four addresses are all held by one of three nodes")
	}
	victim := w.Node(w.holder(moving))

	w.Must(w.StopAPIServer())
	w.Must(w.StopOneSim())
	back := func() {
		w.Must(w.StartOneSim())
		w.Must(apiFault.back(w))
	}
	restored := false
	t.Cleanup(func() {
		w.Must(victim.HealLinks())
		if !restored {
			back()
		}
	})
	x := w.watch(all...)
	time.Sleep(5 * time.Second)
	w.Must(w.Router(1).Agent().Restart())
	time.Sleep(2 * time.Second)
	x.undisturbed("without API server and OpenNebula")

	probe := lab.Probe(t.Context(), 20*time.Millisecond, func(ctx context.Context) error {
		_, err := w.ClientOf(moving).HTTPGet(ctx, moving, port)
		return err
	})
	w.Must(victim.CutLinks())
	w.Eventually("the loss of "+victim.ShortName()+" to be felt", func(context.Context) error {
		if result := probe.Result(); result.Failed == 0 {
			return fmt.Errorf("%s: %v", moving, result)
		}
		return nil
	})
	w.Eventually("another node to answer for "+moving.String(), func(ctx context.Context) error {
		_, err := w.Ask(ctx, moving, port, corev1.ProtocolTCP)
		return err
	})
	result := probe.Stop()
	t.Logf("takeover without API server: %v", result)
	w.Must(victim.HealLinks())

	back()
	restored = true
	w.Eventually("the new holder of "+moving.String()+" in its VirtualIP", func(context.Context) error {
		in, named := w.Holders(moving), w.holder(moving)
		if len(in) != 1 || in[0] != named {
			return fmt.Errorf("the kernels of %v have it, the VirtualIP says %s", in, named)
		}
		return nil
	})
	w.serve(solo, "alone-after", "internet")
	w.Remove(append(names, "alone-after")...)
	w.NothingLeft()
}
