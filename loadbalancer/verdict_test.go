package loadbalancer

import (
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/onelb/onelb/api/v1alpha1"
	"github.com/onelb/onelb/loadbalancer/annotation"
)

// TestJudgeAgreesWithTheController: what is said of a Service from published
// objects alone is what the Controller does with it.
func TestJudgeAgreesWithTheController(t *testing.T) {
	locked, broken, noAuto := l2Pool("locked"), l2Pool("broken"), l2Pool("named")
	locked.Spec.NamespaceSelector = &metav1.LabelSelector{MatchLabels: map[string]string{"team": "a"}}
	broken.Spec.Ranges = []v1alpha1.AddressRange{{Start: "10.0.0.9", End: "10.0.0.1"}}
	noAuto.Spec.AutoAssign = new(bool)
	pools := []runtime.Object{
		l2Pool("private"), locked, broken, noAuto,
		routerPool("edge", v1alpha1.ForwardNodePort, ""), routerPool("inner", v1alpha1.ForwardVIP, "private"), routerPool("lost", v1alpha1.ForwardVIP, "nope"), routerPool("wrong", v1alpha1.ForwardVIP, "edge"),
	}
	ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "ns"}}
	h := newHarness(t, []runtime.Object{readyNode("n1", "10.20.0.11"), ns}, pools...)
	var published []v1alpha1.AddressPool
	h.eventually("all pools are published", func() bool {
		l, err := h.onelb.AddressPools().List(t.Context(), metav1.ListOptions{})
		if err != nil {
			t.Fatal(err)
		}
		published = l.Items
		for _, p := range l.Items {
			if apimeta.FindStatusCondition(p.Status.Conditions, v1alpha1.PoolReady) == nil {
				return false
			}
		}
		return len(l.Items) == len(pools)
	})
	for name, change := range map[string]func(*corev1.Service){
		"plain":      func(*corev1.Service) {},
		"named":      annotated(annotation.Pool, "named"),
		"none":       annotated(annotation.Pool, "nope"),
		"locked":     annotated(annotation.Pool, "locked"),
		"broken":     annotated(annotation.Pool, "broken"),
		"inner":      annotated(annotation.Pool, "inner"),
		"lost":       annotated(annotation.Pool, "lost"),
		"wrong":      annotated(annotation.Pool, "wrong"),
		"edge":       annotated(annotation.Pool, "edge"),
		"no-port":    func(s *corev1.Service) { annotated(annotation.Pool, "edge")(s); s.Spec.Ports[0].NodePort = 0 },
		"share":      annotated(annotation.Share, "-"),
		"address":    annotated(annotation.Address, "here"),
		"ipv6":       func(s *corev1.Service) { annotated(annotation.Address, "2001:db8::1")(s) },
		"annotation": func(s *corev1.Service) { s.Annotations = map[string]string{"onelb.io/nope": ""} },
	} {
		t.Run(name, func(t *testing.T) {
			svc := namedService(name)
			change(svc)
			verdict := Judge(Inquiry{Service: svc, NamespaceLabels: labels.Set{}, Pools: published})
			h.create(svc) // else the sweep takes its addresses
			_, err := h.controller.ensure(t.Context(), svc)
			switch {
			case (err == nil) != (verdict.Err == nil):
				t.Fatalf("the Controller says %v, the verdict %v", err, verdict.Err)
			case err != nil:
				if !strings.Contains(err.Error(), strings.TrimSpace(verdict.Err.Error())) {
					t.Errorf("the Controller says\n%v\nthe verdict\n%v", err, verdict.Err)
				}
			default:
				first := verdict.Choices[0].Pools[0]
				has := currentPools(h.store.OwnedBy(svc.UID))
				if first.Err != nil || has[verdict.Choices[0].Family] != first.Pool {
					t.Errorf("it has addresses of %v, the verdict is %+v", has, verdict.Choices)
				}
			}
		})
	}
}

func TestJudgeCountsAndTakenAddresses(t *testing.T) {
	pool := l2Pool("private")
	pool.Status.IPv4 = &v1alpha1.AddressCounts{Total: 2, Used: 2}
	pool.Status.Conditions = []metav1.Condition{{Type: v1alpha1.PoolReady, Status: metav1.ConditionTrue, Reason: "Reserved"}}
	other := v1alpha1.ServiceReference{Namespace: "ns", Name: "other", UID: "other"}
	v := v1alpha1.VirtualIP{Spec: v1alpha1.VirtualIPSpec{Address: "10.20.0.100", Pool: "private", Role: v1alpha1.RoleL2, Services: []v1alpha1.ServiceReference{other}}}
	for name, tt := range map[string]struct {
		change func(*corev1.Service, *v1alpha1.VirtualIP)
		want   string
	}{
		"full":    {func(*corev1.Service, *v1alpha1.VirtualIP) {}, "all 2 IPv4 addresses are in use"},
		"has one": {func(s *corev1.Service, v *v1alpha1.VirtualIP) { v.Spec.Services[0].UID = s.UID }, ""},
		"one is retained": {func(s *corev1.Service, v *v1alpha1.VirtualIP) {
			v.Spec.Services, v.Spec.Retain = nil, &v1alpha1.Retention{Namespace: s.Namespace, Name: s.Name}
		}, ""},
		"joins": {func(s *corev1.Service, v *v1alpha1.VirtualIP) {
			annotated(annotation.Share, "k")(s)
			v.Spec.Share = "k"
		}, ""},
		"another key": {func(s *corev1.Service, v *v1alpha1.VirtualIP) {
			annotated(annotation.Share, "k")(s)
			v.Spec.Share = "l"
		}, "are in use"},
		"taken": {func(s *corev1.Service, _ *v1alpha1.VirtualIP) { annotated(annotation.Address, "10.20.0.100")(s) }, "10.20.0.100: address is taken by ns/other"},
		"asks for its own": {func(s *corev1.Service, v *v1alpha1.VirtualIP) {
			annotated(annotation.Address, "10.20.0.100")(s)
			v.Spec.Services[0].UID = s.UID
		}, ""},
		"asks for a shared": {func(s *corev1.Service, v *v1alpha1.VirtualIP) {
			s.Annotations = map[string]string{annotation.Address.Name: "10.20.0.100", annotation.Share.Name: "k"}
			v.Spec.Share = "k"
		}, ""},
	} {
		svc, vip := namedService("web"), *v.DeepCopy()
		tt.change(svc, &vip)
		err := Judge(Inquiry{Service: svc, Pools: []v1alpha1.AddressPool{*pool}, VirtualIPs: []v1alpha1.VirtualIP{vip}}).Err
		if (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, want %q", name, err, tt.want)
		}
	}
}
