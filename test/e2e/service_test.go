package e2e_test

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/onelb/onelb/api/v1alpha1"
	"github.com/onelb/onelb/test/e2e/kit"
	"github.com/onelb/onelb/test/lab"
)

func families(f ...corev1.IPFamily) kit.Edit {
	return func(s *corev1.Service) {
		s.Spec.IPFamilies = f
		s.Spec.IPFamilyPolicy = ptr.To(corev1.IPFamilyPolicySingleStack)
		if len(f) > 1 {
			s.Spec.IPFamilyPolicy = ptr.To(corev1.IPFamilyPolicyRequireDualStack)
		}
	}
}

// serve makes a Service and waits until it answers; it returns its addresses.
func (w *world) serve(work lab.Workload, name, pool string, edits ...kit.Edit) []netip.Addr {
	w.T.Helper()
	w.Create(work, name, append([]kit.Edit{kit.InPool(pool)}, edits...)...)
	return w.waitServed(name)
}

// waitServed waits until a Service has an address for each of its families, and
// each answers over every port.
func (w *world) waitServed(name string) []netip.Addr {
	w.T.Helper()
	addrs := w.Addresses(name)
	w.waitAnswers(name, addrs)
	return addrs
}

// waitAnswers waits for an answer over each address and port of the Service.
func (w *world) waitAnswers(name string, addrs []netip.Addr) {
	w.T.Helper()
	svc, err := w.Client().CoreV1().Services(namespace).Get(w.Context(), name, metav1.GetOptions{})
	w.Must(err)
	for _, a := range addrs {
		for _, p := range svc.Spec.Ports {
			w.waitAnswer(a, uint16(p.Port), p.Protocol)
		}
	}
}

func (w *world) waitAnswer(a netip.Addr, p uint16, proto corev1.Protocol) lab.Answer {
	w.T.Helper()
	var got lab.Answer
	w.Eventually(fmt.Sprintf("an answer from %s port %d/%s", a, p, proto), func(ctx context.Context) error {
		var err error
		got, err = w.Ask(ctx, a, p, proto)
		return err
	})
	return got
}

func (w *world) waitSilence(a netip.Addr, p uint16, proto corev1.Protocol) {
	w.T.Helper()
	w.Eventually(fmt.Sprintf("silence of %s port %d/%s", a, p, proto), func(ctx context.Context) error {
		if got, err := w.Ask(ctx, a, p, proto); err == nil {
			return fmt.Errorf("%s answers", got.Pod)
		}
		return nil
	})
}

// virtualIPs are those of a Service, by address.
func (w *world) virtualIPs(ctx context.Context, service string) ([]v1alpha1.VirtualIP, error) {
	all, err := w.OneLB.VirtualIPs().List(ctx, metav1.ListOptions{})
	if err != nil {
		return nil, err
	}
	return slices.DeleteFunc(all.Items, func(v v1alpha1.VirtualIP) bool {
		return !slices.ContainsFunc(v.Spec.Services, func(r v1alpha1.ServiceReference) bool { return r.Name == service })
	}), nil
}

// holder waits until a VirtualIP names its holder.
func (w *world) holder(a netip.Addr) string {
	w.T.Helper()
	name := ""
	w.Eventually("a holder of "+a.String(), func(ctx context.Context) error {
		v, err := w.OneLB.VirtualIPs().Get(ctx, v1alpha1.VirtualIPName(a), metav1.GetOptions{})
		if err != nil {
			return err
		}
		if v.Status.Holder == nil {
			return errors.New("none")
		}
		name = v.Status.Holder.Name
		return nil
	})
	return name
}
