package crash

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"

	"github.com/onelb/onelb/api/v1alpha1"
	"github.com/onelb/onelb/loadbalancer/annotation"
)

var (
	poolAnnotation    = annotation.Pool.Name
	addressAnnotation = annotation.Address.Name
)

// most is how many Services there are at most.
const most = 14

// script is what people do to the cluster meanwhile.
type script struct {
	*world
	services map[string]string // name → pool that it names
	extra    []string          // pools besides main and side, oldest first
	number   int
	wanted   netip.Addr // the next address that a Service asks for by name
}

// operation is one thing that people do.
type operation struct {
	name string
	run  func(context.Context) error
	// kinds of calls that follow from it and from few others.
	kinds []string
}

func newScript(w *world) *script {
	return &script{world: w, services: map[string]string{}, wanted: netip.MustParseAddr("203.0.113.120")}
}

func (s *script) operations() []operation {
	return []operation{
		{"create", s.create, []string{"POST virtualips", "one.vn.hold"}},
		{"delete", s.delete, []string{"one.vn.release", "DELETE virtualips"}},
		{"families", s.families, nil},
		{"move", s.move, []string{"one.vn.release"}},
		{"type", s.changeType, nil},
		{"policy", s.policy, []string{"PATCH virtualips"}},
		{"burst", s.burst, []string{"one.vn.reserve"}},
		{"clear", s.clear, []string{"one.vn.free_ar"}},
		{"new pool", s.newPool, []string{"one.vn.reserve", "one.vn.update", "PATCH addresspools"}},
		{"drop pool", s.dropPool, []string{"one.vn.delete", "PATCH addresspools"}},
		{"edit pool", s.editPool, []string{"one.vn.free_ar", "PATCH addresspools/status"}},
		{"wanted address", s.want, []string{"one.vn.reserve"}},
		{"delete VirtualIP", s.deleteVirtualIP, []string{"POST virtualips"}},
		{"release hold", s.releaseHold, []string{"one.vn.hold"}},
	}
}

// pick draws an operation; half of the time one that leads to a kind of call.
func (s *script) pick(kind string) operation {
	all := s.operations()
	if kind != "" && s.rng.IntN(4) > 0 {
		fit := slices.DeleteFunc(slices.Clone(all), func(o operation) bool { return !slices.Contains(o.kinds, kind) })
		if len(fit) > 0 {
			all = fit
		}
	}
	return all[s.rng.IntN(len(all))]
}

// setup makes the pools that are always there.
func (s *script) setup(ctx context.Context) error {
	return errors.Join(
		s.makePool(ctx, "main", "public", true, nil),
		s.makePool(ctx, "side", "private", false, nil),
		s.makePool(ctx, bare, "open", false, nil))
}

// bare is the pool without reservation.
const bare = "bare"

func (s *script) makePool(ctx context.Context, name, network string, auto bool, ranges []v1alpha1.AddressRange) error {
	reservation := v1alpha1.ReservationChild
	if name == bare {
		reservation = v1alpha1.ReservationNone
	}
	_, err := s.onelb.AddressPools().Create(ctx, &v1alpha1.AddressPool{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: v1alpha1.AddressPoolSpec{
			Network: v1alpha1.NetworkReference{Name: network}, Exposure: v1alpha1.ExposureL2, AutoAssign: &auto, Reservation: reservation,
			ChunkSize: 2, ReserveAhead: ptr.To[int32](1), Quarantine: &metav1.Duration{Duration: time.Second}, Ranges: ranges,
		},
	}, metav1.CreateOptions{})
	return err
}

// any draws a Service, "" without any.
func (s *script) any() string {
	names := slices.Sorted(maps.Keys(s.services))
	if len(names) == 0 {
		return ""
	}
	return names[s.rng.IntN(len(names))]
}

func (s *script) create(ctx context.Context) error {
	pools := append([]string{"", "", "side", bare, bare}, s.extra...)
	return s.createIn(ctx, pools[s.rng.IntN(len(pools))], nil)
}

func (s *script) createIn(ctx context.Context, pool string, annotations map[string]string) error {
	if len(s.services) >= most {
		return s.delete(ctx)
	}
	s.number++
	svc := &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("s%d", s.number), Annotations: map[string]string{}},
		Spec: corev1.ServiceSpec{
			Type:  corev1.ServiceTypeLoadBalancer,
			Ports: []corev1.ServicePort{{Port: 80, Protocol: corev1.ProtocolTCP}},
		},
	}
	maps.Copy(svc.Annotations, annotations)
	if pool != "" {
		svc.Annotations[poolAnnotation] = pool
	}
	switch n := s.rng.IntN(3); {
	case len(annotations) > 0 || n == 0:
	case n == 1:
		svc.Spec.IPFamilyPolicy = ptr.To(corev1.IPFamilyPolicyRequireDualStack)
	default:
		svc.Spec.IPFamilies = []corev1.IPFamily{corev1.IPv6Protocol}
	}
	if _, err := s.plane.kube.CoreV1().Services(metav1.NamespaceDefault).Create(ctx, svc, metav1.CreateOptions{}); err != nil {
		return err
	}
	s.services[svc.Name] = pool
	return nil
}

func (s *script) delete(ctx context.Context) error {
	name := s.any()
	if name == "" {
		return s.create(ctx)
	}
	return s.deleteNamed(ctx, name)
}

func (s *script) deleteNamed(ctx context.Context, name string) error {
	delete(s.services, name)
	return s.plane.kube.CoreV1().Services(metav1.NamespaceDefault).Delete(ctx, name, metav1.DeleteOptions{})
}

func (s *script) patch(ctx context.Context, name string, body map[string]any) error {
	data, err := json.Marshal(body)
	if err != nil {
		return err
	}
	_, err = s.plane.kube.CoreV1().Services(metav1.NamespaceDefault).Patch(ctx, name, types.MergePatchType, data, metav1.PatchOptions{})
	return err
}

func (s *script) get(ctx context.Context, name string) (*corev1.Service, error) {
	return s.plane.kube.CoreV1().Services(metav1.NamespaceDefault).Get(ctx, name, metav1.GetOptions{})
}

// change draws a Service and patches it with what f makes of it.
func (s *script) change(ctx context.Context, f func(*corev1.Service) map[string]any) error {
	name := s.any()
	if name == "" {
		return s.create(ctx)
	}
	svc, err := s.get(ctx, name)
	if err != nil {
		return err
	}
	return s.patch(ctx, name, f(svc))
}

func (s *script) families(ctx context.Context) error {
	return s.change(ctx, func(svc *corev1.Service) map[string]any {
		policy := corev1.IPFamilyPolicyRequireDualStack
		if len(svc.Spec.IPFamilies) > 1 {
			policy = corev1.IPFamilyPolicySingleStack
		}
		return map[string]any{"spec": map[string]any{"ipFamilyPolicy": policy}}
	})
}

// move changes the pool that a Service names.
func (s *script) move(ctx context.Context) error {
	return s.change(ctx, func(svc *corev1.Service) map[string]any {
		pools := slices.DeleteFunc([]string{"main", "side", bare}, func(p string) bool { return p == s.services[svc.Name] })
		pool := pools[s.rng.IntN(len(pools))]
		s.services[svc.Name] = pool
		return map[string]any{"metadata": map[string]any{"annotations": map[string]any{poolAnnotation: pool, addressAnnotation: nil}}}
	})
}

func (s *script) changeType(ctx context.Context) error {
	return s.change(ctx, func(svc *corev1.Service) map[string]any {
		t := corev1.ServiceTypeLoadBalancer
		if svc.Spec.Type == t {
			t = corev1.ServiceTypeClusterIP
		}
		return map[string]any{"spec": map[string]any{"type": t}}
	})
}

func (s *script) policy(ctx context.Context) error {
	return s.change(ctx, func(svc *corev1.Service) map[string]any {
		p := corev1.ServiceExternalTrafficPolicyLocal
		if svc.Spec.ExternalTrafficPolicy == p {
			p = corev1.ServiceExternalTrafficPolicyCluster
		}
		if svc.Spec.Type != corev1.ServiceTypeLoadBalancer {
			return map[string]any{"spec": map[string]any{"type": corev1.ServiceTypeLoadBalancer}}
		}
		return map[string]any{"spec": map[string]any{"externalTrafficPolicy": p}}
	})
}

// burst makes the reservations grow.
func (s *script) burst(ctx context.Context) error {
	if len(s.services) > most-6 {
		return s.clear(ctx)
	}
	pool := []string{"", "side", bare}[s.rng.IntN(3)]
	for range 6 {
		if err := s.createIn(ctx, pool, nil); err != nil {
			return err
		}
	}
	return nil
}

// clear lets them shrink.
func (s *script) clear(ctx context.Context) error {
	for len(s.services) > 2 {
		if err := s.deleteNamed(ctx, s.any()); err != nil {
			return err
		}
	}
	return nil
}

// newPool makes a pool with ranges, and a Service in it at once.
func (s *script) newPool(ctx context.Context) error {
	if len(s.extra) > 1 {
		return s.dropPool(ctx)
	}
	s.number++
	name := fmt.Sprintf("extra%d", s.number)
	err := s.makePool(ctx, name, "public", false, []v1alpha1.AddressRange{
		{Start: "203.0.113.60", End: "203.0.113.99"}, {Start: "2001:db8:113::160", End: "2001:db8:113::190"},
	})
	if err != nil {
		return err
	}
	s.extra = append(s.extra, name)
	return s.createIn(ctx, name, nil)
}

// dropPool deletes a pool and its Services.
func (s *script) dropPool(ctx context.Context) error {
	if len(s.extra) == 0 {
		return s.newPool(ctx)
	}
	name := s.extra[0]
	s.extra = s.extra[1:]
	for _, svc := range slices.Sorted(maps.Keys(s.services)) {
		if s.services[svc] != name {
			continue
		}
		if err := s.deleteNamed(ctx, svc); err != nil {
			return err
		}
	}
	return s.onelb.AddressPools().Delete(ctx, name, metav1.DeleteOptions{})
}

func (s *script) editPool(ctx context.Context) error {
	name := []string{"main", "side", bare}[s.rng.IntN(3)]
	body := fmt.Sprintf(`{"spec":{"chunkSize":%d,"reserveAhead":%d}}`, 1+s.rng.IntN(4), s.rng.IntN(3))
	_, err := s.onelb.AddressPools().Patch(ctx, name, types.MergePatchType, []byte(body), metav1.PatchOptions{})
	return err
}

// want makes a Service that asks for an address by name.
func (s *script) want(ctx context.Context) error {
	a := s.wanted
	if a.As4()[3] >= 199 || len(s.services) >= most {
		return s.delete(ctx)
	}
	s.wanted = a.Next()
	return s.createIn(ctx, "main", map[string]string{addressAnnotation: a.String()})
}

// deleteVirtualIP is what a careless administrator does.
func (s *script) deleteVirtualIP(ctx context.Context) error {
	vips, err := s.onelb.VirtualIPs().List(ctx, metav1.ListOptions{})
	if err != nil || len(vips.Items) == 0 {
		return err
	}
	err = s.onelb.VirtualIPs().Delete(ctx, vips.Items[s.rng.IntN(len(vips.Items))].Name, metav1.DeleteOptions{})
	if apierrors.IsNotFound(err) {
		return nil
	}
	return err
}

// releaseHold is what a careless administrator of OpenNebula does.
func (s *script) releaseHold(context.Context) error {
	var held []onHold
	for _, n := range s.sim.Snapshot().Networks {
		for _, a := range s.sim.Holds(n.ID) {
			if !s.strangers[a] {
				held = append(held, onHold{n.ID, a})
			}
		}
	}
	if len(held) == 0 {
		return nil
	}
	h := held[s.rng.IntN(len(held))]
	return s.sim.Release(h.network, h.address)
}

type onHold struct {
	network int
	address netip.Addr
}

// end deletes everything.
func (s *script) end(ctx context.Context) error {
	for name := range s.services {
		if err := s.deleteNamed(ctx, name); err != nil {
			return err
		}
	}
	for _, name := range append([]string{"main", "side", bare}, s.extra...) {
		if err := s.onelb.AddressPools().Delete(ctx, name, metav1.DeleteOptions{}); err != nil {
			return err
		}
	}
	return nil
}
