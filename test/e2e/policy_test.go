package e2e_test

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"testing"

	corev1 "k8s.io/api/core/v1"

	"github.com/onelb/onelb/api/v1alpha1"
	"github.com/onelb/onelb/test/e2e/kit"
	"github.com/onelb/onelb/test/lab"
)

// ofPool says whether all addresses of a Service are of a pool, those in its status too.
func (w *world) ofPool(service, pool string) func(ctx context.Context) error {
	return func(ctx context.Context) error {
		vips, err := w.virtualIPs(ctx, service)
		if err != nil {
			return err
		}
		if len(vips) == 0 {
			return errors.New("it has none")
		}
		published := w.Addresses(service)
		for _, v := range vips {
			if v.Spec.Pool != pool && (pool != "direct" || v.Spec.Pool != "inner") {
				return fmt.Errorf("%s is of pool %s", v.Spec.Address, v.Spec.Pool)
			}
		}
		for _, a := range published {
			if !slices.ContainsFunc(vips, func(v v1alpha1.VirtualIP) bool { return v.Spec.Address == a.String() }) {
				return fmt.Errorf("%s is published and not the Service's", a)
			}
		}
		return nil
	}
}

// TestLocalPolicy keeps the client's address, and uses nodes with endpoints only.
func TestLocalPolicy(t *testing.T) {
	w := newWorld(t)
	names := []string{"local-lan", "local-internet", "local-direct"}
	for i, pool := range []string{"lan", "internet", "direct"} {
		w.Create(pair, names[i], kit.InPool(pool), kit.Local)
	}
	for _, name := range names {
		for _, a := range w.waitServed(name) {
			w.checkLocal(name, a)
		}
	}
	t.Log("an endpoint goes; its node gets no more traffic")
	pods := slices.DeleteFunc(w.Pods(), func(p *lab.Pod) bool { return p.PodName() != "pair-1" })
	w.Must(pods[0].SetReady(t.Context(), false))
	t.Cleanup(func() { w.Must(pods[0].SetReady(context.Background(), true)) })
	for _, name := range names {
		for _, a := range w.Addresses(name) {
			w.Eventually("answers of pair-2 alone over "+a.String(), func(ctx context.Context) error { return w.onlyFrom(ctx, a, "pair-2") })
		}
	}
	w.Remove(names...)
	w.NothingLeft()
}

func (w *world) onlyFrom(ctx context.Context, a netip.Addr, pods ...string) error {
	for range 6 {
		got, err := w.Ask(ctx, a, port, corev1.ProtocolTCP)
		if err != nil {
			return err
		}
		if !slices.Contains(pods, got.Pod) {
			return fmt.Errorf("%s answers", got.Pod)
		}
	}
	return nil
}

// checkLocal asks an address and looks at whom the pod saw and where it runs.
func (w *world) checkLocal(name string, a netip.Addr) {
	w.T.Helper()
	client := w.ClientOf(a)
	for _, proto := range []corev1.Protocol{corev1.ProtocolTCP, corev1.ProtocolUDP} {
		got := w.waitAnswer(a, port, proto)
		own := append(client.Addrs(lab.Public), client.Addrs(lab.Private)...)
		if !slices.Contains(own, got.Client.Addr()) {
			w.T.Errorf("%s: over %s/%s the pod saw %s as client, want one of %v", name, a, proto, got.Client.Addr(), own)
		}
	}
	if lab.PrivateV4.Contains(a) || lab.PrivateV6.Contains(a) {
		if h := w.holder(a); h != "node-1" && h != "node-2" {
			w.T.Errorf("%s: %s is held by %s, which has no endpoint", name, a, h)
		}
	}
}
