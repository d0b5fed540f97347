package holder_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	apimeta "k8s.io/apimachinery/pkg/api/meta"

	"github.com/onelb/onelb/api/v1alpha1"
	"github.com/onelb/onelb/loadbalancer/announcer/addr"
	"github.com/onelb/onelb/loadbalancer/announcer/wire"
	"github.com/onelb/onelb/test/lab"
)

func (w *world) kubectl(args ...string) {
	w.t.Helper()
	_, err := w.Kubectl(context.Background(), args...)
	w.must(err)
}

// A node that the pool does not name, or that is excluded, hands its addresses to
// one that may have them.
func TestEligibility(t *testing.T) {
	const label, exclude = "onelb-test/edge", "node.kubernetes.io/exclude-from-external-load-balancers"
	t.Run("node selector", func(t *testing.T) {
		w := newWorld(t)
		before, x := w.holder(w.addrs[0]), w.watch(w.addrs[0])
		want := w.Nodes()[0]
		if want == before {
			want = w.Nodes()[1]
		}
		t.Cleanup(func() {
			w.kubectl("patch", "addresspool", "lan", "--type=merge", "-p", `{"spec":{"l2":null}}`)
			w.kubectl("label", "node", want.ShortName(), label+"-")
			w.eventually("the pool names no nodes", func() error { return w.selected("") })
		})
		w.kubectl("label", "node", want.ShortName(), label+"=yes")
		w.kubectl("patch", "addresspool", "lan", "--type=merge", "-p", `{"spec":{"l2":{"nodeSelector":{"matchLabels":{"`+label+`":"yes"}}}}}`)
		if now := w.moved(x, before, noticeable); now != want {
			t.Errorf("%s has it, the pool names %s", now.ShortName(), want.ShortName())
		}
	})
	t.Run("excluded", func(t *testing.T) {
		w := newWorld(t)
		before, x := w.holder(w.addrs[0]), w.watch(w.addrs[0])
		t.Cleanup(func() { w.kubectl("label", "node", before.ShortName(), exclude+"-") })
		w.kubectl("label", "node", before.ShortName(), exclude+"=")
		w.moved(x, before, noticeable)
	})
}

// selected checks that all VirtualIPs have the node selector.
func (w *world) selected(selector string) error {
	for _, a := range w.addrs {
		v, err := w.onelb.VirtualIPs().Get(context.Background(), v1alpha1.VirtualIPName(a), metav1.GetOptions{})
		if err != nil {
			return err
		}
		if v.Spec.NodeSelector != selector {
			return fmt.Errorf("%s has %q", a, v.Spec.NodeSelector)
		}
	}
	return nil
}

// A host that is no node claims a held address: people are told, the holder keeps
// it and says so about once a second, no more.
func TestForeignHost(t *testing.T) {
	w := newWorld(t)
	holder := w.holder(w.addrs[0])
	stranger := w.LAN()
	ctx, cancel := context.WithCancel(t.Context())
	claim, err := wire.New(wire.Options{Enter: stranger.Do, Seen: func(wire.Sighting) {}})
	w.must(err)
	done := make(chan error, 1)
	go func() { done <- claim.Run(ctx) }()
	defer func() { cancel(); w.must(<-done) }()

	sniffer, err := w.Sniff(lab.Private)
	w.must(err)
	defer func() { _ = sniffer.Close() }()
	on := interfaceOf(t, stranger)
	began, mac := time.Now(), on.MAC.String()
	w.eventually("people know", func() error {
		time.Sleep(100 * time.Millisecond)
		w.must(claim.Announce(on, w.addrs[0]))
		return w.conflict(mac)
	})
	seconds := int(time.Since(began)/time.Second) + 1
	defended := 0
	for _, a := range sniffer.Seen() {
		if a.Addr == w.addrs[0] && a.MAC.String() == holder.Link(lab.Private).MAC().String() && a.Time.After(began) {
			defended++
		}
	}
	if defended == 0 || defended > 2*(seconds+2) { // requests and replies
		t.Errorf("the holder announced %d times in %d s", defended, seconds)
	}
	if n, err := holder.AgentMetric(t.Context(), "onelb_node_conflicts_total"); err != nil || n == 0 {
		t.Errorf("conflicts counted: %v, %v", n, err)
	}
	if now := w.holder(w.addrs[0]); now != holder {
		t.Errorf("%s gave it up to %s", holder.ShortName(), now.ShortName())
	}
	if !*long {
		return // it takes a minute without claims
	}
	time.Sleep(time.Minute)
	w.eventually("it is over", func() error {
		if err := w.conflict(mac); err == nil {
			return errors.New("still reported")
		}
		return nil
	})
}

// conflict checks that condition and event name the stranger.
func (w *world) conflict(mac string) error {
	v, err := w.onelb.VirtualIPs().Get(w.t.Context(), v1alpha1.VirtualIPName(w.addrs[0]), metav1.GetOptions{})
	if err != nil {
		return err
	}
	c := apimeta.FindStatusCondition(v.Status.Conditions, v1alpha1.VirtualIPAddressConflict)
	if c == nil || c.Status != metav1.ConditionTrue || !strings.Contains(c.Message, mac) {
		return fmt.Errorf("condition %+v", c)
	}
	if !apimeta.IsStatusConditionTrue(v.Status.Conditions, v1alpha1.VirtualIPOnHold) {
		return errors.New("the condition OnHold is gone")
	}
	events, err := w.Client().CoreV1().Events(namespace).List(w.t.Context(), metav1.ListOptions{FieldSelector: "reason=AddressConflict"})
	if err != nil {
		return err
	}
	for _, e := range events.Items {
		if e.InvolvedObject.Name == name && strings.Contains(e.Message, mac) {
			return nil
		}
	}
	return fmt.Errorf("%d events", len(events.Items))
}

func interfaceOf(t *testing.T, h *lab.Host) addr.Interface {
	t.Helper()
	table, err := addr.Open(addr.Options{Enter: h.Do})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = table.Close() }()
	all, err := table.Interfaces()
	if err != nil {
		t.Fatal(err)
	}
	i := slices.IndexFunc(all, func(i addr.Interface) bool { return i.Name == h.Link(lab.Private).Interface() })
	if i < 0 {
		t.Fatal("the host has no such interface")
	}
	return all[i]
}
