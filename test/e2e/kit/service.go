package kit

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

	"github.com/onelb/onelb/api/v1alpha1"
	"github.com/onelb/onelb/test/lab"
)

// Edit changes a Service before it is written.
type Edit func(*corev1.Service)

// Annotate sets an annotation of ours, without the prefix onelb.io/. An empty
// value takes it away.
func Annotate(key, value string) Edit {
	return func(s *corev1.Service) {
		if value == "" {
			delete(s.Annotations, "onelb.io/"+key)
			return
		}
		metav1.SetMetaDataAnnotation(&s.ObjectMeta, "onelb.io/"+key, value)
	}
}

// InPool names the pool.
func InPool(name string) Edit { return Annotate("pool", name) }

// Local sets the traffic policy.
func Local(s *corev1.Service) {
	s.Spec.ExternalTrafficPolicy = corev1.ServiceExternalTrafficPolicyLocal
}

// OnPort moves all ports of the Service to the number.
func OnPort(n int32) Edit {
	return func(s *corev1.Service) {
		for i := range s.Spec.Ports {
			s.Spec.Ports[i].Port = n
		}
	}
}

// Class sets the loadBalancerClass.
func Class(name string) Edit {
	return func(s *corev1.Service) { s.Spec.LoadBalancerClass = &name }
}

// Families sets policy and families. Without families, the API server chooses;
// with fewer than the Service has, it drops the others.
func Families(policy corev1.IPFamilyPolicy, f ...corev1.IPFamily) Edit {
	return func(s *corev1.Service) {
		s.Spec.IPFamilyPolicy = new(policy)
		s.Spec.IPFamilies = f
		if len(f) == 1 && len(s.Spec.ClusterIPs) > 1 {
			s.Spec.ClusterIPs = s.Spec.ClusterIPs[:1]
		}
	}
}

// V4 and V6 make a Service of one family.
var (
	V4 = Families(corev1.IPFamilyPolicySingleStack, corev1.IPv4Protocol)
	V6 = Families(corev1.IPFamilyPolicySingleStack, corev1.IPv6Protocol)
)

// Create makes a Service of type LoadBalancer, dual-stack unless edited. It is
// deleted with the test.
func (w *World) Create(work lab.Workload, name string, edits ...Edit) *corev1.Service {
	w.T.Helper()
	svc := work.Service(name, corev1.ServiceTypeLoadBalancer)
	for _, e := range edits {
		e(svc)
	}
	made, err := w.CreateService(w.Context(), svc)
	if err != nil {
		w.T.Fatal(err)
	}
	w.T.Cleanup(func() { w.DeleteAnyway(made.Namespace, name) })
	return made
}

// DeleteAnyway deletes Services, also when the test has ended.
func (w *World) DeleteAnyway(namespace string, names ...string) {
	ctx, cancel := context.WithTimeout(context.Background(), Patience)
	defer cancel()
	for _, name := range names {
		err := w.Client().CoreV1().Services(namespace).Delete(ctx, name, metav1.DeleteOptions{})
		if err != nil && !apierrors.IsNotFound(err) {
			w.T.Error(err)
		}
	}
}

// Remove deletes Services and returns when the objects are gone.
func (w *World) Remove(names ...string) {
	w.T.Helper()
	w.DeleteAnyway(Namespace, names...)
	for _, name := range names {
		w.Eventually("Service "+name+" to be gone", func(ctx context.Context) error {
			_, err := w.Client().CoreV1().Services(Namespace).Get(ctx, name, metav1.GetOptions{})
			if apierrors.IsNotFound(err) {
				return nil
			}
			return errors.Join(err, errors.New("still there"))
		})
	}
}

// Update edits a Service in the API.
func (w *World) Update(name string, edits ...Edit) {
	w.T.Helper()
	services := w.Client().CoreV1().Services(Namespace)
	w.Must(retry.RetryOnConflict(retry.DefaultBackoff, func() error {
		svc, err := services.Get(w.Context(), name, metav1.GetOptions{})
		if err != nil {
			return err
		}
		for _, e := range edits {
			e(svc)
		}
		_, err = services.Update(w.Context(), svc, metav1.UpdateOptions{})
		return err
	}))
}

// Get reads a Service.
func (w *World) Get(name string) *corev1.Service {
	w.T.Helper()
	svc, err := w.Client().CoreV1().Services(Namespace).Get(w.Context(), name, metav1.GetOptions{})
	w.Must(err)
	return svc
}

// Shown are the addresses in a Service's status.
func Shown(svc *corev1.Service) []netip.Addr {
	var out []netip.Addr
	for _, i := range svc.Status.LoadBalancer.Ingress {
		if a, err := netip.ParseAddr(i.IP); err == nil {
			out = append(out, a)
		}
	}
	return out
}

// Addresses waits until the Service's status has an address for each of its
// families, and none of another.
func (w *World) Addresses(name string) (out []netip.Addr) {
	w.T.Helper()
	w.Eventually("addresses of "+name, func(ctx context.Context) error {
		svc, err := w.Client().CoreV1().Services(Namespace).Get(ctx, name, metav1.GetOptions{})
		if err != nil {
			return err
		}
		out = Shown(svc)
		return matches(out, svc.Spec.IPFamilies)
	})
	return out
}

// AddressesOf waits until the Service's status has exactly one address of each
// given family, in their order.
func (w *World) AddressesOf(name string, families ...corev1.IPFamily) (out []netip.Addr) {
	w.T.Helper()
	w.Eventually(fmt.Sprintf("addresses of %s to be %v", name, families), func(ctx context.Context) error {
		svc, err := w.Client().CoreV1().Services(Namespace).Get(ctx, name, metav1.GetOptions{})
		if err != nil {
			return err
		}
		out = Shown(svc)
		if len(out) != len(families) {
			return fmt.Errorf("they are %v", out)
		}
		for i, a := range out {
			if family(a) != families[i] {
				return fmt.Errorf("they are %v", out)
			}
		}
		return nil
	})
	return out
}

func family(a netip.Addr) corev1.IPFamily {
	if a.Is4() {
		return corev1.IPv4Protocol
	}
	return corev1.IPv6Protocol
}

func matches(addrs []netip.Addr, families []corev1.IPFamily) error {
	for _, f := range families {
		if !slices.ContainsFunc(addrs, func(a netip.Addr) bool { return family(a) == f }) {
			return fmt.Errorf("no %s address in %v", f, addrs)
		}
	}
	for _, a := range addrs {
		if !slices.Contains(families, family(a)) {
			return fmt.Errorf("%s in %v, families are %v", a, addrs, families)
		}
	}
	return nil
}

// Shows waits until a Service's status has exactly these addresses.
func (w *World) Shows(name string, want ...netip.Addr) {
	w.T.Helper()
	w.Eventually(fmt.Sprintf("%s to show %v", name, want), func(ctx context.Context) error {
		svc, err := w.Client().CoreV1().Services(Namespace).Get(ctx, name, metav1.GetOptions{})
		if err == nil && !slices.Equal(Shown(svc), want) {
			err = fmt.Errorf("it shows %v", Shown(svc))
		}
		return err
	})
}

// Served waits until a Service has an address for each of its families, and each
// answers over every port, with pods of the workload; it returns the addresses.
func (w *World) Served(work lab.Workload, name string) []netip.Addr {
	w.T.Helper()
	addrs := w.Addresses(name)
	w.Answers(work, name, addrs...)
	return addrs
}

// Pending fails the test if a Service has an address.
func (w *World) Pending(name string) {
	w.T.Helper()
	if got := Shown(w.Get(name)); len(got) > 0 {
		w.T.Errorf("Service %s has %v", name, got)
	}
}

// Stays fails the test if f returns an error within the time.
func (w *World) Stays(what string, d time.Duration, f func() error) {
	w.T.Helper()
	for end := time.Now().Add(d); time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
		if err := f(); err != nil {
			w.T.Fatalf("%s: %v", what, err)
		}
	}
}

// VirtualIP reads the object of an address.
func (w *World) VirtualIP(ctx context.Context, a netip.Addr) (*v1alpha1.VirtualIP, error) {
	return w.OneLB.VirtualIPs().Get(ctx, v1alpha1.VirtualIPName(a), metav1.GetOptions{})
}
