package migrate

import (
	"bytes"
	"net/netip"
	"slices"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic/fake"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/yaml"

	"github.com/onelb/onelb/api/v1alpha1"
	"github.com/onelb/onelb/ipam"
	"github.com/onelb/onelb/loadbalancer/inventory"
	"github.com/onelb/onelb/test/sample"
)

var addr = netip.MustParseAddr

// objects are MetalLB's, as YAML of one kind each.
func objects(t *testing.T, text string) *fake.FakeDynamicClient {
	t.Helper()
	kinds := map[schema.GroupVersionResource]string{}
	for kind, plural := range map[string]string{"IPAddressPool": "ipaddresspools", "L2Advertisement": "l2advertisements", "BGPAdvertisement": "bgpadvertisements", "Community": "communities"} {
		kinds[schema.GroupVersionResource{Group: metalGroup, Version: "v1beta1", Resource: plural}] = kind + "List"
	}
	var all []runtime.Object
	for _, part := range strings.Split(text, "---\n") {
		o := map[string]any{}
		if err := yaml.Unmarshal([]byte("apiVersion: metallb.io/v1beta1\n"+part), &o); err != nil {
			t.Fatal(err)
		}
		all = append(all, &unstructured.Unstructured{Object: o})
	}
	return fake.NewSimpleDynamicClientWithCustomListKinds(runtime.NewScheme(), kinds, all...)
}

func readAll(t *testing.T, text string) metal {
	t.Helper()
	m, err := readMetal(t.Context(), objects(t, text))
	if err != nil {
		t.Fatal(err)
	}
	return m
}

const twoPools = `
kind: IPAddressPool
metadata: {name: main, namespace: metallb-system, labels: {tier: inner}}
spec:
  addresses: ["10.20.0.100-10.20.0.119", "10.20.0.128/28"]
---
kind: IPAddressPool
metadata: {name: edge, namespace: metallb-system}
spec:
  addresses: ["203.0.113.100/31", "2001:db8::100-2001:db8::1ff"]
  autoAssign: false
  avoidBuggyIPs: true
  serviceAllocation:
    priority: 50
    namespaces: [shop]
    namespaceSelectors: [{matchLabels: {team: a}}]
    serviceSelectors: [{matchLabels: {tier: x}}, {matchExpressions: [{key: tier, operator: In, values: [z, x]}]}]
---
kind: L2Advertisement
metadata: {name: l2, namespace: metallb-system}
spec:
  ipAddressPoolSelectors: [{matchLabels: {tier: inner}}]
  interfaces: [eth0, bond0.5]
  nodeSelectors: [{matchLabels: {kubernetes.io/hostname: node-1}}, {matchLabels: {kubernetes.io/hostname: node-2}}]
---
kind: BGPAdvertisement
metadata: {name: bgp, namespace: metallb-system}
spec:
  ipAddressPools: [edge]
  communities: [vpn, "64512:7", "large:1:2:3"]
  localPref: 150
  aggregationLength: 32
  aggregationLengthV6: 64
  peers: [tor-1]
---
kind: Community
metadata: {name: names, namespace: metallb-system}
spec: {communities: [{name: vpn, value: "64512:1"}]}
`

func TestConvert(t *testing.T) {
	m := readAll(t, twoPools)
	namespaces := []corev1.Namespace{{ObjectMeta: metav1.ObjectMeta{Name: "default"}}, {ObjectMeta: metav1.ObjectMeta{Name: "blue", Labels: map[string]string{"team": "a"}}}}
	if m.pools[0].Name == "edge" {
		slices.Reverse(m.pools)
	}
	main, edge := m.convert(&m.pools[0], namespaces), m.convert(&m.pools[1], namespaces)
	want := `
autoAssign: false
exposure: L2
l2:
  interfaces: ["bond0\\.5", eth0]
  nodeSelector: {matchExpressions: [{key: kubernetes.io/hostname, operator: In, values: [node-1, node-2]}]}
network: {}
priority: 51
ranges: [{start: 10.20.0.100, end: 10.20.0.119}, {start: 10.20.0.128, end: 10.20.0.143}]
`
	equal(t, main.Spec, want)
	if !main.AutoAssign || len(main.Problems)+len(main.Notes) > 0 {
		t.Errorf("%+v", main)
	}
	equal(t, edge.Spec, `
autoAssign: false
avoidEdgeAddresses: true
bgp: {peers: [tor-1], communities: ["64512:1", "64512:7"], largeCommunities: ["1:2:3"], localPreference: 150, aggregationLengthV6: 64}
exposure: BGP
namespaceSelector: {matchExpressions: [{key: kubernetes.io/metadata.name, operator: In, values: [blue, shop]}]}
network: {}
priority: 50
ranges: [{start: 203.0.113.100, end: 203.0.113.101}, {start: "2001:db8::100", end: "2001:db8::1ff"}]
serviceSelector: {matchExpressions: [{key: tier, operator: In, values: [x, z]}]}
`)
	if edge.AutoAssign || len(edge.Problems) > 0 || len(edge.Notes) != 3 {
		t.Errorf("%+v", edge)
	}
}

// equal compares a spec with YAML.
func equal(t *testing.T, got v1alpha1.AddressPoolSpec, want string) {
	t.Helper()
	a, err := yaml.Marshal(got)
	if err != nil {
		t.Fatal(err)
	}
	var parsed v1alpha1.AddressPoolSpec
	if err := yaml.UnmarshalStrict([]byte(want), &parsed); err != nil {
		t.Fatal(err)
	}
	b, err := yaml.Marshal(parsed)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(a, b) {
		t.Errorf("have\n%s\nwant\n%s", a, b)
	}
}

func TestWhatCannotBeSaid(t *testing.T) {
	m := readAll(t, `
kind: IPAddressPool
metadata: {name: `+strings.Repeat("long", 17)+`, namespace: m}
spec:
  addresses: ["10.0.0.0/30"]
  serviceAllocation:
    namespaceSelectors: [{matchLabels: {team: a}}, {matchLabels: {stage: b}}]
    serviceSelectors: [{matchLabels: {a: b}}, {matchLabels: {c: d}}]
---
kind: L2Advertisement
metadata: {name: a, namespace: m}
spec: {nodeSelectors: [{matchLabels: {rack: a}}, {matchExpressions: [{key: x, operator: Exists}]}], interfaces: [eth0]}
---
kind: L2Advertisement
metadata: {name: b, namespace: m}
spec: {nodeSelectors: [{matchLabels: {rack: b}}]}
---
kind: BGPAdvertisement
metadata: {name: c, namespace: m}
spec: {}
`)
	p := m.convert(&m.pools[0], nil)
	text := strings.Join(append(p.Problems, p.Notes...), "\n")
	for _, words := range []string{"at most 63 characters", "nodeSelectors of its advertisements", "by L2 and by BGP", "namespaceSelectors cannot be said", "serviceSelectors cannot be said"} {
		if !strings.Contains(text, words) {
			t.Errorf("%q is not said:\n%s", words, text)
		}
	}
	if p.AutoAssign || p.Spec.L2 != nil || p.Spec.Priority != 0 {
		t.Errorf("%+v", p)
	}
	m = readAll(t, `
kind: IPAddressPool
metadata: {name: p, namespace: m}
spec: {addresses: ["10.0.0.0/30"]}
---
kind: BGPAdvertisement
metadata: {name: a, namespace: m}
---
kind: BGPAdvertisement
metadata: {name: b, namespace: m}
`)
	if p := m.convert(&m.pools[0], nil); len(p.Problems) != 1 || !strings.Contains(p.Problems[0], "(a, b)") {
		t.Errorf("%+v", p)
	}
	if _, err := readMetal(t.Context(), objects(t, "kind: IPAddressPool\nmetadata: {name: p, namespace: m}\nspec: {addresses: [nonsense]}\n")); err == nil || !strings.Contains(err.Error(), `IPAddressPool p: "nonsense"`) {
		t.Errorf("%v", err)
	}
}

func TestParseMetalRange(t *testing.T) {
	for text, want := range map[string]string{
		"10.0.0.5/32": "10.0.0.5-10.0.0.5", "10.0.0.7/29": "10.0.0.0-10.0.0.7", " 10.0.0.1 - 10.0.0.9 ": "10.0.0.1-10.0.0.9",
		"fd00::/120": "fd00::-fd00::ff", "10.0.0.9-10.0.0.1": "", "10.0.0.1-fd00::1": "", "10.0.0.1": "", "": "",
	} {
		r, err := parseMetalRange(text)
		if (err != nil) != (want == "") || err == nil && r.Start.String()+"-"+r.End.String() != want {
			t.Errorf("%q: %v %v, want %q", text, r, err, want)
		}
	}
}

func FuzzParseMetalRange(f *testing.F) {
	f.Add("10.0.0.0/28")
	f.Add("fd00::1-fd00::9")
	f.Fuzz(func(t *testing.T, text string) {
		if r, err := parseMetalRange(text); err == nil && (r.End.Less(r.Start) || r.Start.BitLen() != r.End.BitLen()) {
			t.Errorf("%q: %v", text, r)
		}
	})
}

// network is one that has all addresses of the pools above but 10.20.0.140 and up.
func networks() []ipam.Network {
	return []ipam.Network{
		{ID: 3, Name: "private", Parent: ipam.NoNetwork, Ranges: []ipam.Range{{First4: addr("10.20.0.100"), Size: 40, Leases: []ipam.Lease{
			{IP4: addr("10.20.0.104"), Held: true}, {IP4: addr("10.20.0.105"), User: "VM 9"}, {IP4: addr("10.20.0.106"), User: "VNET 31"},
		}}}},
		{ID: 4, Name: "public", Parent: ipam.NoNetwork, Ranges: []ipam.Range{{First4: addr("203.0.113.100"), First6: addr("2001:db8::100"), Size: 100}}},
	}
}

// service shows addresses, and says things to MetalLB.
func service(namespace, name string, says map[string]string, addresses ...string) *corev1.Service {
	s := sample.Service(namespace, name, "")
	s.Annotations = says
	for _, a := range addresses {
		s.Status.LoadBalancer.Ingress = append(s.Status.LoadBalancer.Ingress, corev1.LoadBalancerIngress{IP: a})
	}
	return s
}

// planned makes the plan of a cluster that has no AddressPools.
func planned(t *testing.T, change func(*sample.Cluster), workloads ...inventory.Workload) Plan {
	t.Helper()
	c := sample.New()
	c.Pools, c.VirtualIPs, c.Services = nil, nil, nil
	change(c)
	inv, err := inventory.Read(t.Context(), inventory.Clients{Kube: c.Kube(), OneLB: c.OneLB()})
	if err != nil {
		t.Fatal(err)
	}
	p := metalPlan{metal: readAll(t, twoPools), inv: inv, workloads: workloads, networks: networks()}
	return p.make()
}

func TestServices(t *testing.T) {
	share := map[string]string{"metallb.universe.tf/allow-shared-ip": "one key"}
	for name, tt := range map[string]struct {
		services    []*corev1.Service
		annotations map[string]string // of the first
		problem     string
		note        string
	}{
		"kept": {services: []*corev1.Service{service("default", "a", nil, "10.20.0.101")}, annotations: map[string]string{"onelb.io/address": "10.20.0.101"}},
		"both families, a pool named": {
			services:    []*corev1.Service{service("default", "a", map[string]string{"metallb.io/address-pool": "edge", "metallb.universe.tf/address-pool": "old"}, "203.0.113.101", "2001:db8::100")},
			annotations: map[string]string{"onelb.io/address": "203.0.113.101,2001:db8::100", "onelb.io/pool": "edge"},
		},
		"shared": {
			services:    []*corev1.Service{service("default", "a", share, "10.20.0.101"), service("default", "b", share, "10.20.0.101")},
			annotations: map[string]string{"onelb.io/address": "10.20.0.101", "onelb.io/share": "metallb-fbe88405edea9992"}, note: `"one key"`,
		},
		"not shared": {services: []*corev1.Service{service("default", "a", nil, "10.20.0.101"), service("default", "b", share, "10.20.0.101")}, problem: "Service default/b shows 10.20.0.101 too"},
		"waits":      {services: []*corev1.Service{service("default", "a", map[string]string{"metallb.io/loadBalancerIPs": "10.20.0.102"})}, annotations: map[string]string{"onelb.io/address": "10.20.0.102"}, note: "no address yet"},
		"waits for a Service's": {services: []*corev1.Service{
			service("default", "a", map[string]string{"metallb.io/loadBalancerIPs": "2001:db8::100, 10.20.0.102"}), service("default", "b", nil, "10.20.0.102"),
		}, problem: "Service default/b shows 10.20.0.102 too", note: "no address yet"},
		"waits to share": {services: []*corev1.Service{
			service("default", "a", map[string]string{"metallb.io/loadBalancerIPs": "10.20.0.102", "metallb.io/allow-shared-ip": "one key"}), service("default", "b", share, "10.20.0.102"),
		}, annotations: map[string]string{"onelb.io/address": "10.20.0.102", "onelb.io/share": "metallb-fbe88405edea9992"}},
		"waits for nonsense": {services: []*corev1.Service{service("default", "a", map[string]string{"metallb.io/loadBalancerIPs": "nonsense"})}, problem: `says "nonsense", which is no address`},
		"somebody's":         {services: []*corev1.Service{service("default", "a", nil, "10.9.9.9")}, problem: "10.9.9.9 is in no IPAddressPool"},
		"unknown word":       {services: []*corev1.Service{service("default", "a", map[string]string{"metallb.io/magic": "1"}, "10.20.0.101")}, annotations: map[string]string{"onelb.io/address": "10.20.0.101"}, note: "metallb.io/magic has no counterpart"},
		"on hold":            {services: []*corev1.Service{service("default", "a", nil, "10.20.0.104")}, problem: "onevnet release 3 10.20.0.104"},
		"a VM's":             {services: []*corev1.Service{service("default", "a", nil, "10.20.0.105")}, problem: "used by VM 9"},
		"of a stranger":      {services: []*corev1.Service{service("default", "a", nil, "10.20.0.106")}, problem: "used by VNET 31"},
		"no such pool":       {services: []*corev1.Service{service("default", "a", map[string]string{"metallb.io/address-pool": "gone"})}, problem: "the pool gone, which is not there"},
		"not in network":     {services: []*corev1.Service{service("default", "a", nil, "10.20.0.101"), service("default", "b", nil, "10.20.0.141")}, problem: ""},
	} {
		t.Run(name, func(t *testing.T) {
			p := planned(t, func(c *sample.Cluster) { c.Services = tt.services })
			if len(p.Services) != len(tt.services) {
				t.Fatalf("%+v", p.Services)
			}
			s := p.Services[0]
			text := strings.Join(s.Problems, "\n")
			if (text != "") != (tt.problem != "") || !strings.Contains(text, tt.problem) {
				t.Errorf("problems %q, want %q", s.Problems, tt.problem)
			}
			if !strings.Contains(strings.Join(s.Notes, "\n"), tt.note) {
				t.Errorf("notes %q, want %q", s.Notes, tt.note)
			}
			for key, value := range tt.annotations {
				if s.Annotations[key] != value {
					t.Errorf("annotations %v, want %v", s.Annotations, tt.annotations)
				}
			}
			if tt.annotations != nil && len(s.Annotations) != len(tt.annotations) {
				t.Errorf("annotations %v, want %v", s.Annotations, tt.annotations)
			}
		})
	}
}

func TestPlan(t *testing.T) {
	other, own := service("default", "theirs", nil, "10.20.0.101"), service("default", "ours", nil, "10.20.0.102")
	other.Spec.LoadBalancerClass, own.Spec.LoadBalancerClass = ptr.To("cilium"), ptr.To("onelb.io/lb")
	share := map[string]string{"metallb.io/allow-shared-ip": "k"}
	spec := appsv1.Deployment{}.Spec.Template.Spec
	spec.Containers = []corev1.Container{{Image: "example.org/metallb/controller:v1"}}
	speaker := *spec.DeepCopy()
	speaker.Containers[0].Image = "example.org/metallb/speaker:v1"
	p := planned(t, func(c *sample.Cluster) {
		taker := sample.New().Pools[0]
		taker.Name = "taker"
		c.Pools = append(c.Pools, taker)
		c.Services = append(c.Services, other, own, service("a", "x", share, "10.20.0.103"), service("b", "y", share, "10.20.0.103"))
	}, inventory.Workload{Kind: "Deployment", Namespace: "m", Name: "controller", Pod: spec, Wanted: 1}, inventory.Workload{Kind: "DaemonSet", Namespace: "m", Name: "speaker", Pod: speaker, Wanted: 3})
	if len(p.Services) != 2 || len(p.Running) != 1 || len(p.Answering) != 1 || len(p.Problems) != 1 || !strings.Contains(p.Problems[0], "AddressPool taker") {
		t.Errorf("%+v", p)
	}
	main := p.pool("main")
	if main == nil || main.Spec.Network.Name != "private" || !main.Spec.ShareAcrossNamespaces || len(main.Notes) != 1 || !strings.Contains(main.Notes[0], "for example not 10.20.0.140") {
		t.Errorf("%+v", main)
	}
	for mark, want := range map[string]bool{"true": true, "": false} {
		p := planned(t, func(c *sample.Cluster) {
			there := sample.New().Pools[0]
			there.Name, there.Annotations = "main", map[string]string{Migrating: mark}
			c.Pools = append(c.Pools, there)
		})
		if main := p.pool("main"); !main.There || main.AutoAssign != want {
			t.Errorf("mark %q: %+v", mark, main)
		}
	}
	if edge := p.pool("edge"); edge == nil || edge.Spec.Network.Name != "public" || edge.Spec.ShareAcrossNamespaces {
		t.Errorf("%+v", edge)
	}
	var out bytes.Buffer
	if err := p.Print(&out); err != nil || !strings.Contains(out.String(), "2 Services to be moved, 0 stay where they are, 0 are onelb's") {
		t.Errorf("%v\n%s", err, out.String())
	}
}

// TestHasty: onelb reads spec.loadBalancerIP, and would not wait for who has it.
func TestHasty(t *testing.T) {
	a := service("default", "a", nil)
	a.Spec.LoadBalancerIP = "10.20.0.102"
	all := []*corev1.Service{a, service("default", "b", nil, "10.20.0.103")}
	if p := planned(t, func(c *sample.Cluster) { c.Services = all }); len(p.Problems) > 0 {
		t.Errorf("%v", p.Problems)
	}
	all[1] = service("default", "b", nil, "10.20.0.102")
	if p := planned(t, func(c *sample.Cluster) { c.Services = all }); len(p.Problems) != 1 || !strings.Contains(p.Problems[0], "Service default/a asks for 10.20.0.102 with spec.loadBalancerIP, which Service default/b has") {
		t.Errorf("%v", p.Problems)
	}
}

// TestAPoolThatCannotBeMade keeps all Services that have an address of it, also
// those that have one of another pool beside.
func TestAPoolThatCannotBeMade(t *testing.T) {
	c := sample.New()
	c.Pools, c.VirtualIPs = nil, nil
	c.Services = []*corev1.Service{service("default", "both", nil, "10.20.0.101", "2001:db8::100"), service("default", "edge", nil, "2001:db8::101"), service("default", "main", nil, "10.20.0.102")}
	inv, err := inventory.Read(t.Context(), inventory.Clients{Kube: c.Kube(), OneLB: c.OneLB()})
	if err != nil {
		t.Fatal(err)
	}
	m := metalPlan{metal: readAll(t, twoPools), inv: inv, networks: networks()[:1]}
	p := m.make()
	if open, blocked := p.Left(); open != 1 || blocked != 2 || !strings.Contains(strings.Join(p.Services[0].Problems, "; "), "AddressPool edge, which has its 2001:db8::100, cannot be made") {
		t.Errorf("%d open, %d blocked, %+v", open, blocked, p.Services)
	}
}

func TestClassOfMetalLB(t *testing.T) {
	svc := service("default", "a", nil, "10.20.0.101")
	svc.Spec.LoadBalancerClass = ptr.To("metallb")
	pod := corev1.PodSpec{Containers: []corev1.Container{{Image: "metallb/controller:v1", Args: []string{"--lb-class=metallb"}}}}
	p := planned(t, func(c *sample.Cluster) {
		c.Services = []*corev1.Service{svc, service("default", "b", nil, "10.20.0.102")}
	},
		inventory.Workload{Kind: "Deployment", Name: "controller", Pod: pod})
	if len(p.Services) != 1 || p.Services[0].Name != "a" || len(p.Services[0].Problems) != 1 || !strings.Contains(p.Services[0].Problems[0], "cannot be changed") {
		t.Errorf("%+v", p.Services)
	}
}

func TestLocate(t *testing.T) {
	all := append(networks(), ipam.Network{ID: 5, Name: "copy", Ranges: networks()[0].Ranges})
	r := []ipam.AddressRange{{Start: addr("10.20.0.100"), End: addr("10.20.0.101")}}
	for _, tt := range []struct {
		named string
		used  []netip.Addr
		id    ipam.NetworkID
		err   string
	}{
		{named: "private", id: 3}, {named: "5", id: 5}, {named: "nope", err: "--network says"},
		{used: []netip.Addr{addr("203.0.113.100")}, id: 4},
		{err: `"private" (3), "copy" (5)`},
		{used: []netip.Addr{addr("10.1.1.1")}, err: "onevnet addar"},
	} {
		n, err := locate(all, tt.named, r, tt.used)
		if tt.err == "" && (err != nil || n.ID != tt.id) || tt.err != "" && (err == nil || !strings.Contains(err.Error(), tt.err)) {
			t.Errorf("%+v: %v, %v", tt, n, err)
		}
	}
}

func TestParseNetworks(t *testing.T) {
	got, err := parseNetworks([]string{"private", "edge=public"})
	if err != nil || got[""] != "private" || got["edge"] != "public" {
		t.Errorf("%v, %v", got, err)
	}
	for _, bad := range [][]string{{"a", "b"}, {"=x"}, {"x="}, {""}} {
		if _, err := parseNetworks(bad); err == nil {
			t.Errorf("%q is taken", bad)
		}
	}
}
