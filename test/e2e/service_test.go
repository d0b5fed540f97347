package e2e_test

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/util/retry"
	"k8s.io/utils/ptr"

	"github.com/onelb/onelb/api/v1alpha1"
	"github.com/onelb/onelb/test/lab"
)

const poolAnnotation = "onelb.io/pool"

type edit func(*corev1.Service)

func inPool(name string) edit {
	return func(s *corev1.Service) { metav1.SetMetaDataAnnotation(&s.ObjectMeta, poolAnnotation, name) }
}

func localPolicy(s *corev1.Service) {
	s.Spec.ExternalTrafficPolicy = corev1.ServiceExternalTrafficPolicyLocal
}

func families(f ...corev1.IPFamily) edit {
	return func(s *corev1.Service) {
		s.Spec.IPFamilies = f
		s.Spec.IPFamilyPolicy = ptr.To(corev1.IPFamilyPolicySingleStack)
		if len(f) > 1 {
			s.Spec.IPFamilyPolicy = ptr.To(corev1.IPFamilyPolicyRequireDualStack)
		}
	}
}

// create makes a Service of type LoadBalancer, dual-stack unless edited. It is
// deleted with the test.
func (w *world) create(work lab.Workload, name string, edits ...edit) {
	w.t.Helper()
	svc := work.Service(name, corev1.ServiceTypeLoadBalancer)
	for _, e := range edits {
		e(svc)
	}
	if _, err := w.CreateService(w.context(), svc); err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { w.deleteAnyway(name) })
}

func (w *world) deleteAnyway(names ...string) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	for _, name := range names {
		err := w.Client().CoreV1().Services(namespace).Delete(ctx, name, metav1.DeleteOptions{})
		if err != nil && !apierrors.IsNotFound(err) {
			w.t.Error(err)
		}
	}
}

// serve makes a Service and waits until it answers; it returns its addresses.
func (w *world) serve(work lab.Workload, name, pool string, edits ...edit) []netip.Addr {
	w.t.Helper()
	w.create(work, name, append([]edit{inPool(pool)}, edits...)...)
	return w.waitServed(name)
}

// waitServed waits until a Service has an address for each of its families, and
// each answers over every port.
func (w *world) waitServed(name string) []netip.Addr {
	w.t.Helper()
	addrs := w.addresses(name)
	w.waitAnswers(name, addrs)
	return addrs
}

// addresses waits until the Service's status has an address for each family.
func (w *world) addresses(name string) (out []netip.Addr) {
	w.t.Helper()
	w.eventually("addresses of "+name, func(ctx context.Context) error {
		svc, err := w.Client().CoreV1().Services(namespace).Get(ctx, name, metav1.GetOptions{})
		if err != nil {
			return err
		}
		out = nil
		for _, i := range svc.Status.LoadBalancer.Ingress {
			out = append(out, netip.MustParseAddr(i.IP))
		}
		for _, f := range svc.Spec.IPFamilies {
			if !slices.ContainsFunc(out, func(a netip.Addr) bool { return a.Is4() == (f == corev1.IPv4Protocol) }) {
				return fmt.Errorf("no %s address in %v", f, out)
			}
		}
		return nil
	})
	return out
}

// waitAnswers waits for an answer over each address and port of the Service.
func (w *world) waitAnswers(name string, addrs []netip.Addr) {
	w.t.Helper()
	svc, err := w.Client().CoreV1().Services(namespace).Get(w.context(), name, metav1.GetOptions{})
	w.must(err)
	for _, a := range addrs {
		for _, p := range svc.Spec.Ports {
			w.waitAnswer(a, uint16(p.Port), p.Protocol) //nolint:gosec // a port
		}
	}
}

// client is where the clients of an address are.
func (w *world) client(a netip.Addr) *lab.Host {
	if lab.PublicV4.Contains(a) || lab.PublicV6.Contains(a) {
		return w.Internet()
	}
	return w.LAN()
}

// ask asks once, over a new connection.
func (w *world) ask(ctx context.Context, a netip.Addr, p uint16, proto corev1.Protocol) (lab.Answer, error) {
	ctx, cancel := context.WithTimeout(ctx, 700*time.Millisecond)
	defer cancel()
	if proto == corev1.ProtocolUDP {
		return w.client(a).UDP(ctx, a, p)
	}
	return w.client(a).HTTPGet(ctx, a, p)
}

func (w *world) waitAnswer(a netip.Addr, p uint16, proto corev1.Protocol) lab.Answer {
	w.t.Helper()
	var got lab.Answer
	w.eventually(fmt.Sprintf("an answer from %s port %d/%s", a, p, proto), func(ctx context.Context) error {
		var err error
		got, err = w.ask(ctx, a, p, proto)
		return err
	})
	return got
}

func (w *world) waitSilence(a netip.Addr, p uint16, proto corev1.Protocol) {
	w.t.Helper()
	w.eventually(fmt.Sprintf("silence of %s port %d/%s", a, p, proto), func(ctx context.Context) error {
		if got, err := w.ask(ctx, a, p, proto); err == nil {
			return fmt.Errorf("%s answers", got.Pod)
		}
		return nil
	})
}

// update edits a Service in the API.
func (w *world) update(name string, edits ...edit) {
	w.t.Helper()
	services := w.Client().CoreV1().Services(namespace)
	err := retry.RetryOnConflict(retry.DefaultBackoff, func() error {
		svc, err := services.Get(w.context(), name, metav1.GetOptions{})
		if err != nil {
			return err
		}
		for _, e := range edits {
			e(svc)
		}
		_, err = services.Update(w.context(), svc, metav1.UpdateOptions{})
		return err
	})
	w.must(err)
}

// remove deletes Services and returns when the objects are gone.
func (w *world) remove(names ...string) {
	w.t.Helper()
	w.deleteAnyway(names...)
	for _, name := range names {
		w.eventually("Service "+name+" to be gone", func(ctx context.Context) error {
			_, err := w.Client().CoreV1().Services(namespace).Get(ctx, name, metav1.GetOptions{})
			if apierrors.IsNotFound(err) {
				return nil
			}
			return errors.Join(err, errors.New("still there"))
		})
	}
}

// virtualIPs are those of a Service, by address.
func (w *world) virtualIPs(ctx context.Context, service string) ([]v1alpha1.VirtualIP, error) {
	all, err := w.onelb.VirtualIPs().List(ctx, metav1.ListOptions{})
	if err != nil {
		return nil, err
	}
	return slices.DeleteFunc(all.Items, func(v v1alpha1.VirtualIP) bool {
		return !slices.ContainsFunc(v.Spec.Services, func(r v1alpha1.ServiceReference) bool { return r.Name == service })
	}), nil
}

// holder waits until a VirtualIP names its holder.
func (w *world) holder(a netip.Addr) string {
	w.t.Helper()
	name := ""
	w.eventually("a holder of "+a.String(), func(ctx context.Context) error {
		v, err := w.onelb.VirtualIPs().Get(ctx, v1alpha1.VirtualIPName(a), metav1.GetOptions{})
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
