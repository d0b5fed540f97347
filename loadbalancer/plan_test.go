package loadbalancer

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/onelb/onelb/api/v1alpha1"
	"github.com/onelb/onelb/ipam"
	"github.com/onelb/onelb/loadbalancer/annotation"
)

func TestPlanWants(t *testing.T) {
	v4, v6, both := []ipam.Family{ipam.IPv4}, []ipam.Family{ipam.IPv6}, []ipam.Family{ipam.IPv4, ipam.IPv6}
	pool := func(name string, f []ipam.Family, change ...func(*poolView)) *poolView {
		p := &poolView{Name: name, Exposure: v1alpha1.ExposureL2, AutoAssign: true, Families: f}
		for _, c := range change {
			c(p)
		}
		return p
	}
	manual := func(p *poolView) { p.AutoAssign = false }
	broken := func(p *poolView) { p.Problem = errors.New("NetworkNotFound: no network") }
	priority := func(n int32) func(*poolView) { return func(p *poolView) { p.Priority = n } }

	behind := func(inner string) func(*poolView) {
		return func(p *poolView) {
			p.Exposure, p.Router = v1alpha1.ExposureRouter, &v1alpha1.RouterSpec{Forward: v1alpha1.ForwardVIP, InnerPool: inner}
		}
	}
	only := func(namespaces, services string) func(*poolView) {
		return func(p *poolView) {
			p.namespaces, _ = labels.Parse(namespaces)
			p.services, _ = labels.Parse(services)
		}
	}

	tests := []struct {
		name    string
		service func(*corev1.Service)
		pools   []*poolView
		current map[ipam.Family]string
		want    string
		wantErr string
		refused bool
	}{
		{name: "by name", pools: []*poolView{pool("b", v4), pool("a", both)}, want: "IPv4 from a,b"},
		{name: "by priority first", pools: []*poolView{pool("a", v4, priority(5)), pool("b", v4)}, want: "IPv4 from b,a"},
		{name: "not without autoAssign", pools: []*poolView{pool("a", v4, manual), pool("b", v4)}, want: "IPv4 from b"},
		{name: "the pool it has comes first", pools: []*poolView{pool("a", v4), pool("b", v4)}, current: map[ipam.Family]string{ipam.IPv4: "b"}, want: "IPv4 from b,a"},
		{name: "also if it is no longer autoAssign", pools: []*poolView{pool("a", v4), pool("b", v4, manual)}, current: map[ipam.Family]string{ipam.IPv4: "b"}, want: "IPv4 from b,a"},
		{name: "and also if it is broken", pools: []*poolView{pool("a", v4), pool("b", v4, broken)}, current: map[ipam.Family]string{ipam.IPv4: "b"}, want: "IPv4 from b,a"},
		{name: "named", service: annotated(annotation.Pool, "a"), pools: []*poolView{pool("a", v4, manual), pool("b", v4)}, want: "IPv4 from a"},
		{name: "named, missing", service: annotated(annotation.Pool, "x"), pools: []*poolView{pool("b", v4)}, wantErr: `no AddressPool is called "x"`},
		{name: "named, broken", service: annotated(annotation.Pool, "a"), pools: []*poolView{pool("a", v4, broken)}, wantErr: "AddressPool a: NetworkNotFound"},
		{name: "no pool at all", wantErr: "no AddressPool has autoAssign"},
		{name: "no pool of the family", pools: []*poolView{pool("a", v6)}, wantErr: "AddressPool a has no IPv4 addresses"},
		{name: "broken ones are passed over", pools: []*poolView{pool("a", v4, broken), pool("b", v4)}, want: "IPv4 from b"},
		{name: "families unknown yet", pools: []*poolView{pool("a", nil)}, want: "IPv4 from a"},
		{
			name: "an inner pool of one family", service: dual(corev1.IPFamilyPolicyPreferDualStack),
			pools: []*poolView{pool("a", both, behind("inner")), pool("inner", v4, manual)}, want: "IPv4 from a",
		},
		{
			name: "an inner pool of one family, both required", service: dual(corev1.IPFamilyPolicyRequireDualStack),
			pools:   []*poolView{pool("a", both, behind("inner")), pool("inner", v4, manual)},
			wantErr: "AddressPool a has innerPool inner, which has no IPv6 addresses",
		},
		{name: "an inner pool that is missing", pools: []*poolView{pool("a", v4, behind("inner"))}, want: "IPv4 from a"},
		{name: "dual-stack", service: dual(corev1.IPFamilyPolicyRequireDualStack), pools: []*poolView{pool("a", v4), pool("b", both)}, want: "IPv6 from b; IPv4 from a,b"},
		{name: "dual-stack required, one family missing", service: dual(corev1.IPFamilyPolicyRequireDualStack), pools: []*poolView{pool("a", v4)}, wantErr: "has no IPv6"},
		{name: "dual-stack preferred, one family missing", service: dual(corev1.IPFamilyPolicyPreferDualStack), pools: []*poolView{pool("a", v4)}, want: "IPv4 from a"},
		{name: "dual-stack preferred, both missing", service: dual(corev1.IPFamilyPolicyPreferDualStack), wantErr: "no AddressPool"},
		{name: "an address", service: annotated(annotation.Address, "10.0.0.7"), pools: []*poolView{pool("a", v4), pool("b", v4, manual)}, want: "IPv4 10.0.0.7 from a,b"},
		{name: "an address of another family", service: annotated(annotation.Address, "2001:db8::7"), pools: []*poolView{pool("a", both)}, wantErr: "spec.ipFamilies has no IPv6", refused: true},
		{name: "selected by namespace", pools: []*poolView{pool("a", v4, only("team=b", "")), pool("b", v4, only("team=a", ""))}, want: "IPv4 from b"},
		{name: "selected by both", service: labelled("app", "web"), pools: []*poolView{pool("a", v4, only("team=a", "app=web")), pool("b", v4, only("team=a", "app!=web"))}, want: "IPv4 from a"},
		{name: "not selected", pools: []*poolView{pool("a", v4, only("team=b", "")), pool("b", v4, manual)}, wantErr: `AddressPool a is for namespaces with labels "team=b", and namespace ns has "team=a"`, refused: true},
		{name: "not selected, named", service: annotated(annotation.Pool, "a"), pools: []*poolView{pool("a", v4, only("", "app=x")), pool("b", v4)}, wantErr: `AddressPool a is for Services with labels "app=x", and this one has ""; name another pool`, refused: true},
		{name: "not selected, by address", service: annotated(annotation.Address, "10.0.0.7"), pools: []*poolView{pool("a", v4, only("", "app=x")), pool("b", v4)}, want: "IPv4 10.0.0.7 from b"},
		{name: "not selected any more, keeps it", pools: []*poolView{pool("a", v4, only("team=b", ""))}, current: map[ipam.Family]string{ipam.IPv4: "a"}, want: "IPv4 from a"},
		{name: "named and not selected any more, keeps it", service: annotated(annotation.Pool, "a"), pools: []*poolView{pool("a", v4, only("team=b", ""))}, current: map[ipam.Family]string{ipam.IPv4: "a"}, want: "IPv4 from a"},
		{name: "the family has left the pool, keeps it", service: dual(corev1.IPFamilyPolicyPreferDualStack), pools: []*poolView{pool("a", v4)}, current: map[ipam.Family]string{ipam.IPv4: "a", ipam.IPv6: "a"}, want: "IPv6 from a; IPv4 from a"},
		{name: "an unknown annotation", service: func(s *corev1.Service) { s.Annotations = map[string]string{"onelb.io/pol": "x"} }, wantErr: "unknown annotation", refused: true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			svc := testService()
			if tt.service != nil {
				tt.service(svc)
			}
			wants, err := planWants(svc, labels.Set{"team": "a"}, tt.pools, tt.current)
			if tt.wantErr != "" {
				if err == nil || !strings.Contains(err.Error(), tt.wantErr) {
					t.Fatalf("error %v, want one with %q", err, tt.wantErr)
				}
				if errors.Is(err, errRefused) != tt.refused {
					t.Errorf("refused is %v, want %v", !tt.refused, tt.refused)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if got := dumpWants(wants); got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

func annotated(k annotation.Key, value string) func(*corev1.Service) {
	return func(s *corev1.Service) { s.Annotations = map[string]string{k.Name: value} }
}

func labelled(key, value string) func(*corev1.Service) {
	return func(s *corev1.Service) { s.Labels = map[string]string{key: value} }
}

func dual(p corev1.IPFamilyPolicy) func(*corev1.Service) {
	return func(s *corev1.Service) {
		s.Spec.IPFamilyPolicy = new(p)
		s.Spec.IPFamilies = []corev1.IPFamily{corev1.IPv6Protocol, corev1.IPv4Protocol}
	}
}

func dumpWants(wants []want) string {
	var parts []string
	for _, w := range wants {
		var names []string
		for _, p := range w.Pools {
			names = append(names, p.Name)
		}
		s := fmt.Sprint(w.Family)
		if w.Address.IsValid() {
			s += " " + w.Address.String()
		}
		parts = append(parts, s+" from "+strings.Join(names, ","))
	}
	return strings.Join(parts, "; ")
}

func TestCheckPorts(t *testing.T) {
	svc := testService()
	svc.Spec.Ports[1].NodePort = 0
	p := &poolView{Name: "public", Exposure: v1alpha1.ExposureRouter, Router: &v1alpha1.RouterSpec{Forward: v1alpha1.ForwardNodePort}}
	err := checkServable(svc, p)
	if !errors.Is(err, errRefused) || !strings.Contains(err.Error(), "53/UDP") {
		t.Errorf("got %v, want a refusal that names 53/UDP", err)
	}
	for _, p.Router.Forward = range []v1alpha1.Forward{v1alpha1.ForwardVIP, v1alpha1.ForwardPod, v1alpha1.ForwardRoute} {
		if err := checkServable(svc, p); err != nil {
			t.Errorf("forward %s needs no NodePorts: %v", p.Router.Forward, err)
		}
	}
}

func TestGuardedPoolsRefuseLocal(t *testing.T) {
	svc := &corev1.Service{Spec: corev1.ServiceSpec{ExternalTrafficPolicy: corev1.ServiceExternalTrafficPolicyLocal}}
	p := &poolView{Name: "p", Exposure: v1alpha1.ExposureL2, Guarded: true}
	if err := checkServable(svc, p); !errors.Is(err, errRefused) {
		t.Errorf("Local in a guarded pool: %v, want a refusal", err)
	}
	svc.Spec.ExternalTrafficPolicy = corev1.ServiceExternalTrafficPolicyCluster
	if err := checkServable(svc, p); err != nil {
		t.Errorf("Cluster: %v", err)
	}
}
