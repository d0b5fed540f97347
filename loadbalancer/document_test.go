package loadbalancer

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/onelb/onelb/api/v1alpha1"
	"github.com/onelb/onelb/loadbalancer/router"
)

func TestMakeDocument(t *testing.T) {
	nodes := []*corev1.Node{
		testNode("n1", "10.20.0.11", "fd00:20::11"),
		testNode("n2", "10.20.0.12", "fd00:20::12"),
		testNode("n3", "10.20.0.13", "fd00:20::13"),
	}
	excluded := testNode("n4", "10.20.0.14", "fd00:20::14")
	excluded.Labels = map[string]string{corev1.LabelNodeExcludeBalancers: ""}
	leaving := testNode("n5", "10.20.0.15", "")
	leaving.DeletionTimestamp = new(metav1.Now())
	scaledDown := testNode("n6", "10.20.0.16", "fd00:20::16")
	scaledDown.Spec.Taints = []corev1.Taint{{Key: "ToBeDeletedByClusterAutoscaler", Effect: corev1.TaintEffectNoSchedule}}
	nodes = append(nodes, excluded, leaving, scaledDown)

	tests := []struct {
		name     string
		service  func(*corev1.Service)
		forward  v1alpha1.Forward
		address  string
		slices   []*endpoints
		inner    string
		want     string
		problems int
		snat     v1alpha1.SNAT
		unrouted string // a pod's address
		detour   string
		only4    bool
	}{
		{
			name: "NodePort, Cluster: one group of all nodes", forward: v1alpha1.ForwardNodePort, address: "203.0.113.100",
			want: `
group nodes-ipv4 check :10256/healthz: 10.20.0.11*1 10.20.0.12*1 10.20.0.13*1
203.0.113.100:80/TCP ns/web -> nodes-ipv4:30080
203.0.113.100:53/UDP ns/web -> nodes-ipv4:30053`,
		},
		{
			name: "IPv6", forward: v1alpha1.ForwardNodePort, address: "2001:db8::1",
			want: `
group nodes-ipv6 check :10256/healthz: fd00:20::11*1@10.20.0.11 fd00:20::12*1@10.20.0.12 fd00:20::13*1@10.20.0.13
[2001:db8::1]:80/TCP ns/web -> nodes-ipv6:30080
[2001:db8::1]:53/UDP ns/web -> nodes-ipv6:30053`,
		},
		{
			name: "Local: nodes with ready endpoints, weighted by their number", forward: v1alpha1.ForwardNodePort, address: "203.0.113.100",
			service: func(s *corev1.Service) {
				s.Spec.ExternalTrafficPolicy = corev1.ServiceExternalTrafficPolicyLocal
				s.Spec.HealthCheckNodePort = 31000
			},
			slices: []*endpoints{testSlice("a", "n1", true), testSlice("b", "n3", true), testSlice("c", "n3", true), testSlice("d", "n2", false), testSlice("e", "n4", true)},
			want: `
group local-ns/web-ipv4 check :31000/healthz: 10.20.0.11*1 10.20.0.13*2
203.0.113.100:80/TCP ns/web -> local-ns/web-ipv4:30080
203.0.113.100:53/UDP ns/web -> local-ns/web-ipv4:30053`,
		},
		{
			name: "Local: none is ready, one still serves", forward: v1alpha1.ForwardNodePort, address: "203.0.113.100",
			service: func(s *corev1.Service) { s.Spec.ExternalTrafficPolicy = corev1.ServiceExternalTrafficPolicyLocal },
			slices:  []*endpoints{testSlice("d", "n2", false)},
			want: `
group local-ns/web-ipv4: 10.20.0.12*1
203.0.113.100:80/TCP ns/web -> local-ns/web-ipv4:30080
203.0.113.100:53/UDP ns/web -> local-ns/web-ipv4:30053`,
		},
		{
			name: "VIP: onto the inner address and the Service's own ports", forward: v1alpha1.ForwardVIP, address: "203.0.113.100", inner: "10.20.0.100",
			service: func(s *corev1.Service) {
				for i := range s.Spec.Ports {
					s.Spec.Ports[i].NodePort = 0
				}
			},
			want: `
group vip-10.20.0.100: 10.20.0.100*1
203.0.113.100:80/TCP ns/web -> vip-10.20.0.100:80
203.0.113.100:53/UDP ns/web -> vip-10.20.0.100:53`,
		},
		{
			name: "VIP without an inner address yet", forward: v1alpha1.ForwardVIP, address: "203.0.113.100", problems: 1,
		},
		{
			name: "NodePort without NodePorts", forward: v1alpha1.ForwardNodePort, address: "203.0.113.100", problems: 1,
			service: func(s *corev1.Service) { s.Spec.Ports = s.Spec.Ports[:1]; s.Spec.Ports[0].NodePort = 0 },
			want: `
group nodes-ipv4 check :10256/healthz: 10.20.0.11*1 10.20.0.12*1 10.20.0.13*1`,
		},
		{
			name: "session affinity and a limit of connections", forward: v1alpha1.ForwardNodePort, address: "203.0.113.100",
			service: func(s *corev1.Service) {
				s.Annotations = map[string]string{"onelb.io/connection-limit": "100"}
				s.Spec.SessionAffinity = corev1.ServiceAffinityClientIP
				s.Spec.SessionAffinityConfig = &corev1.SessionAffinityConfig{ClientIP: &corev1.ClientIPConfig{TimeoutSeconds: new(int32(90))}}
			},
			want: `
group nodes-ipv4 check :10256/healthz: 10.20.0.11*1 10.20.0.12*1 10.20.0.13*1
203.0.113.100:80/TCP ns/web -> nodes-ipv4:30080 affinity 1m30s most 100
203.0.113.100:53/UDP ns/web -> nodes-ipv4:30053 affinity 1m30s most 100`,
		},
		{
			name: "the router's address as source, as the pool says", forward: v1alpha1.ForwardNodePort, address: "203.0.113.100", snat: v1alpha1.SNATAlways,
			service: func(s *corev1.Service) { s.Spec.Ports = s.Spec.Ports[:1] },
			want: `
group nodes-ipv4 check :10256/healthz: 10.20.0.11*1 10.20.0.12*1 10.20.0.13*1
203.0.113.100:80/TCP ns/web -> nodes-ipv4:30080 snat always`,
		},
		{
			name: "a limit that cannot be read takes nothing away", forward: v1alpha1.ForwardNodePort, address: "203.0.113.100",
			service: func(s *corev1.Service) {
				s.Annotations = map[string]string{"onelb.io/connection-limit": "many"}
				s.Spec.Ports = s.Spec.Ports[:1]
			},
			want: `
group nodes-ipv4 check :10256/healthz: 10.20.0.11*1 10.20.0.12*1 10.20.0.13*1
203.0.113.100:80/TCP ns/web -> nodes-ipv4:30080`,
		},
		{
			name: "VIP: affinity is kube-proxy's", forward: v1alpha1.ForwardVIP, address: "203.0.113.100", inner: "10.20.0.100",
			service: func(s *corev1.Service) {
				s.Spec.SessionAffinity = corev1.ServiceAffinityClientIP
				s.Spec.Ports = s.Spec.Ports[:1]
			},
			want: `
group vip-10.20.0.100: 10.20.0.100*1
203.0.113.100:80/TCP ns/web -> vip-10.20.0.100:80`,
		},
		{
			name: "Pod: ready pods, those on excluded and unknown nodes left out, one group for all ports", forward: v1alpha1.ForwardPod, address: "203.0.113.100",
			service: func(s *corev1.Service) { withoutNodePorts(s); s.Spec.SessionAffinity = corev1.ServiceAffinityClientIP },
			slices: []*endpoints{
				podSlice(8080, "10.244.1.5 n1", "10.244.2.5 n2", "10.244.1.6 n1", "10.244.4.5 n4", "10.244.9.5 n9", "10.244.3.5 n3 ending"),
				podSlice(8080, "10.244.1.5 n1", "10.244.3.6 n3"), podSlice(8080, "fd00:244:1::5 n1"),
			},
			want: `
group pods-ns/web-ipv4 check :10256/healthz: 10.244.1.5*1@10.20.0.11 10.244.1.6*1@10.20.0.11 10.244.2.5*1@10.20.0.12 10.244.3.6*1@10.20.0.13
203.0.113.100:80/TCP ns/web -> pods-ns/web-ipv4:8080 affinity 3h0m0s
203.0.113.100:53/UDP ns/web -> pods-ns/web-ipv4:5353 affinity 3h0m0s`,
		},
		{
			name: "Pod: IPv6, none is ready, one still serves", forward: v1alpha1.ForwardPod, address: "2001:db8::1",
			slices: []*endpoints{podSlice(8080, "10.244.1.5 n1"), podSlice(8080, "fd00:244:1::5 n1 ending")},
			want: `
group pods-ns/web-ipv6 check :10256/healthz: fd00:244:1::5*1@10.20.0.11
[2001:db8::1]:80/TCP ns/web -> pods-ns/web-ipv6:8080
[2001:db8::1]:53/UDP ns/web -> pods-ns/web-ipv6:5353`,
		},
		{
			name: "Pod: there is none", forward: v1alpha1.ForwardPod, address: "203.0.113.100",
			service: func(s *corev1.Service) { s.Spec.Ports = s.Spec.Ports[:1] },
			want: `
group pods-ns/web-ipv4 check :10256/healthz:
203.0.113.100:80/TCP ns/web -> pods-ns/web-ipv4:80`,
		},
		{
			name: "Pod: ports with pods of their own", forward: v1alpha1.ForwardPod, address: "203.0.113.100",
			slices: []*endpoints{podSlice(8080, "10.244.1.5 n1"), tcpOnly(podSlice(8080, "10.244.2.5 n2"))},
			want: `
group pods-ns/web-ipv4 check :10256/healthz: 10.244.1.5*1@10.20.0.11 10.244.2.5*1@10.20.0.12
group pods-ns/web-ipv4-53/UDP check :10256/healthz: 10.244.1.5*1@10.20.0.11
203.0.113.100:80/TCP ns/web -> pods-ns/web-ipv4:8080
203.0.113.100:53/UDP ns/web -> pods-ns/web-ipv4-53/UDP:5353`,
		},
		{
			name: "Pod: no route to one", forward: v1alpha1.ForwardPod, address: "203.0.113.100",
			slices:   []*endpoints{podSlice(8080, "10.244.1.5 n1", "10.244.2.5 n2")},
			unrouted: "10.244.2.5", detour: "no route to pod 10.244.2.5 on node n2: have it learn the pods' routes, or set podRoutes in the cloud-config; connections go to NodePorts instead",
			want: `
group nodes-ipv4 check :10256/healthz: 10.20.0.11*1 10.20.0.12*1 10.20.0.13*1
203.0.113.100:80/TCP ns/web -> nodes-ipv4:30080
203.0.113.100:53/UDP ns/web -> nodes-ipv4:30053`,
		},
		{
			name: "Pod: no route, and no NodePorts", forward: v1alpha1.ForwardPod, address: "203.0.113.100",
			service:  func(s *corev1.Service) { withoutNodePorts(s); s.Spec.Ports = s.Spec.Ports[:1] },
			slices:   []*endpoints{podSlice(8080, "10.244.1.5 n1")},
			unrouted: "10.244.1.5", detour: "no NodePorts to be used instead",
			want: `
group pods-ns/web-ipv4 check :10256/healthz: 10.244.1.5*1@10.20.0.11
203.0.113.100:80/TCP ns/web -> pods-ns/web-ipv4:8080`,
		},
		{
			name: "Pod: a named port that differs", forward: v1alpha1.ForwardPod, address: "203.0.113.100",
			service: func(s *corev1.Service) { s.Spec.Ports = s.Spec.Ports[:1] },
			slices:  []*endpoints{podSlice(8080, "10.244.1.5 n1"), podSlice(8081, "10.244.2.5 n2")},
			detour:  "port 80/TCP is 8080 on some pods and 8081 on others",
			want: `
group nodes-ipv4 check :10256/healthz: 10.20.0.11*1 10.20.0.12*1 10.20.0.13*1
203.0.113.100:80/TCP ns/web -> nodes-ipv4:30080`,
		},
		{
			name: "Route: the Service's own ports, by the nodes' network", forward: v1alpha1.ForwardRoute, address: "203.0.113.100", snat: v1alpha1.SNATAuto,
			service: func(s *corev1.Service) {
				withoutNodePorts(s)
				s.Annotations = map[string]string{"onelb.io/connection-limit": "100"}
				s.Spec.SessionAffinity = corev1.ServiceAffinityClientIP
				s.Spec.ExternalTrafficPolicy = corev1.ServiceExternalTrafficPolicyLocal
				s.Spec.LoadBalancerSourceRanges = []string{"192.0.2.0/24"}
			},
			want: `
group holders-ipv4: 10.20.0.11*1 10.20.0.12*1 10.20.0.13*1
203.0.113.100:80/TCP ns/web -> holders-ipv4:80 from [192.0.2.0/24] snat never most 100 routed
203.0.113.100:53/UDP ns/web -> holders-ipv4:53 from [192.0.2.0/24] snat never most 100 routed`,
		},
		{
			name: "Route: an IPv6 address, and nodes with IPv4 alone", forward: v1alpha1.ForwardRoute, address: "2001:db8::1", only4: true,
			service: func(s *corev1.Service) { s.Spec.Ports = s.Spec.Ports[:1] },
			want: `
group holders-ipv4: 10.20.0.11*1
[2001:db8::1]:80/TCP ns/web -> holders-ipv4:80 snat never routed`,
		},
		{
			name: "source ranges of the family; only others' means nobody", forward: v1alpha1.ForwardNodePort, address: "203.0.113.100",
			service: func(s *corev1.Service) {
				s.Spec.Ports = s.Spec.Ports[:1]
				s.Spec.LoadBalancerSourceRanges = []string{"2001:db8::/32", "192.0.2.77/24"}
			},
			want: `
group nodes-ipv4 check :10256/healthz: 10.20.0.11*1 10.20.0.12*1 10.20.0.13*1
203.0.113.100:80/TCP ns/web -> nodes-ipv4:30080 from [192.0.2.0/24]`,
		},
		{
			name: "what the router would refuse is left out alone", forward: v1alpha1.ForwardNodePort, address: "203.0.113.100", problems: 1,
			service: func(s *corev1.Service) {
				for i := range 1025 {
					s.Spec.LoadBalancerSourceRanges = append(s.Spec.LoadBalancerSourceRanges, fmt.Sprintf("10.%d.%d.0/24", i/256, i%256))
				}
			},
			want: `
group nodes-ipv4 check :10256/healthz: 10.20.0.11*1 10.20.0.12*1 10.20.0.13*1`,
		},
		{
			name: "a port twice", forward: v1alpha1.ForwardNodePort, address: "203.0.113.100", problems: 1,
			service: func(s *corev1.Service) { s.Spec.Ports[1] = s.Spec.Ports[0] },
			want: `
group nodes-ipv4 check :10256/healthz: 10.20.0.11*1 10.20.0.12*1 10.20.0.13*1
203.0.113.100:80/TCP ns/web -> nodes-ipv4:30080`,
		},
		{
			name: "only another family's source ranges", forward: v1alpha1.ForwardNodePort, address: "203.0.113.100",
			service: func(s *corev1.Service) {
				s.Spec.Ports = s.Spec.Ports[:1]
				s.Spec.LoadBalancerSourceRanges = []string{"2001:db8::/32"}
			},
			want: `
group nodes-ipv4 check :10256/healthz: 10.20.0.11*1 10.20.0.12*1 10.20.0.13*1
203.0.113.100:80/TCP ns/web -> nodes-ipv4:30080 from [0.0.0.0/32]`,
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			svc := testService()
			if tt.service != nil {
				tt.service(svc)
			}
			in := documentInput{
				VIPs: []*v1alpha1.VirtualIP{{
					Spec: v1alpha1.VirtualIPSpec{
						Address: tt.address, Router: &v1alpha1.VirtualIPRouter{Name: "edge", Forward: tt.forward},
						Services: []v1alpha1.ServiceReference{{Namespace: "ns", Name: "web", UID: "u"}, {Namespace: "ns", Name: "gone", UID: "g"}},
					},
				}},
				Service: func(r v1alpha1.ServiceReference) *corev1.Service {
					if r.UID == svc.UID {
						return svc
					}
					return nil
				},
				Inner: func(v1alpha1.ServiceReference, bool) netip.Addr {
					if tt.inner == "" {
						return netip.Addr{}
					}
					return netip.MustParseAddr(tt.inner)
				},
				Nodes:     nodes,
				Endpoints: func(v1alpha1.ServiceReference) []*endpoints { return tt.slices },
				SNAT:      func(string) v1alpha1.SNAT { return tt.snat },
				Routed:    func(a netip.Addr) bool { return a.String() != tt.unrouted },
				Lacks:     func(...router.Feature) error { return nil },
			}
			if tt.only4 {
				in.Nodes = []*corev1.Node{testNode("n1", "10.20.0.11", "")}
			}
			d, detours, problems := makeDocument(in)
			if got, want := dump(d), strings.TrimPrefix(tt.want, "\n"); got != want {
				t.Errorf("got\n%s\nwant\n%s", got, want)
			}
			if len(detours) > 1 || (len(detours) == 1) != (tt.detour != "") || len(detours) == 1 && !strings.Contains(detours[0].message, tt.detour) {
				t.Errorf("detours %v, want %q", detours, tt.detour)
			}
			if len(problems) != tt.problems {
				t.Errorf("problems %v, want %d", problems, tt.problems)
			}
			d.Cluster = "lab"
			if err := d.Validate(); err != nil {
				t.Errorf("the router would refuse it: %v", err)
			}
		})
	}
}

func dump(d router.Document) string {
	var lines []string
	for _, g := range d.Groups {
		var line strings.Builder
		line.WriteString("group " + g.Name)
		if g.Check != nil {
			line.WriteString(fmt.Sprintf(" check :%d%s", g.Check.Port, g.Check.Path))
		}
		line.WriteString(":")
		for _, m := range g.Members {
			line.WriteString(fmt.Sprintf(" %s*%d", m.Address, m.Weight))
			if m.CheckAddress.IsValid() {
				line.WriteString("@" + m.CheckAddress.String())
			}
		}
		lines = append(lines, line.String())
	}
	for _, f := range d.Frontends {
		line := fmt.Sprintf("%s %s -> %s:%d", f.Key(), f.Service, f.Group, f.BackendPort)
		if len(f.SourceRanges) > 0 {
			line += fmt.Sprintf(" from %v", f.SourceRanges)
		}
		if f.SNAT != router.SNATAuto {
			line += " snat " + string(f.SNAT)
		}
		if f.Affinity > 0 {
			line += " affinity " + f.Affinity.String()
		}
		if f.MaxConnections > 0 {
			line += fmt.Sprintf(" most %d", f.MaxConnections)
		}
		if f.Routed {
			line += " routed"
		}
		lines = append(lines, line)
	}
	return strings.Join(lines, "\n")
}

func testService() *corev1.Service {
	return &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "web", UID: "u"},
		Spec: corev1.ServiceSpec{
			Type:                  corev1.ServiceTypeLoadBalancer,
			IPFamilies:            []corev1.IPFamily{corev1.IPv4Protocol},
			ExternalTrafficPolicy: corev1.ServiceExternalTrafficPolicyCluster,
			Ports: []corev1.ServicePort{
				{Name: "http", Protocol: corev1.ProtocolTCP, Port: 80, NodePort: 30080},
				{Name: "dns", Protocol: corev1.ProtocolUDP, Port: 53, NodePort: 30053},
			},
		},
	}
}

func testNode(name, ip4, ip6 string) *corev1.Node {
	n := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name, UID: types.UID(name)}}
	for _, a := range []string{"203.0.113.250", ip4, ip6} {
		kind := corev1.NodeInternalIP
		if a == "203.0.113.250" {
			kind = corev1.NodeExternalIP
		}
		if a != "" {
			n.Status.Addresses = append(n.Status.Addresses, corev1.NodeAddress{Type: kind, Address: a})
		}
	}
	return n
}

func testSlice(pod, node string, ready bool) *endpoints {
	return endpointsOf(&discoveryv1.EndpointSlice{Endpoints: []discoveryv1.Endpoint{{
		NodeName:   &node,
		Conditions: discoveryv1.EndpointConditions{Ready: &ready, Serving: new(true)},
		TargetRef:  &corev1.ObjectReference{UID: types.UID(pod)},
	}}})
}

// podSlice has pods given as address, node and, if they are, "ending".
func podSlice(port int32, pods ...string) *endpoints {
	s := &discoveryv1.EndpointSlice{Ports: []discoveryv1.EndpointPort{
		{Name: new("http"), Protocol: new(corev1.ProtocolTCP), Port: &port},
		{Name: new("dns"), Protocol: new(corev1.ProtocolUDP), Port: new(int32(5353))},
	}}
	for _, text := range pods {
		f := strings.Fields(text)
		s.Endpoints = append(s.Endpoints, discoveryv1.Endpoint{
			Addresses: f[:1], NodeName: &f[1],
			Conditions: discoveryv1.EndpointConditions{Ready: new(len(f) < 3), Serving: new(true)},
			TargetRef:  &corev1.ObjectReference{UID: types.UID(f[0])},
		})
	}
	return endpointsOf(s)
}

func tcpOnly(e *endpoints) *endpoints {
	e.ports = e.ports[:1]
	return e
}

func withoutNodePorts(s *corev1.Service) {
	for i := range s.Spec.Ports {
		s.Spec.Ports[i].NodePort = 0
	}
}

func TestPodRoutes(t *testing.T) {
	cidrs := func(n *corev1.Node, cidrs ...string) *corev1.Node {
		n.Spec.PodCIDRs = cidrs
		return n
	}
	routes, problems := podRoutes([]*corev1.Node{
		cidrs(testNode("n1", "10.20.0.11", "fd00:20::11"), "10.244.1.0/24", "fd00:244:1::/64"),
		cidrs(testNode("n2", "10.20.0.12", ""), "10.244.2.0/24", "fd00:244:2::/64"), // no IPv6 of its own
		cidrs(testNode("n3", "10.20.0.13", ""), "10.244.1.0/24"),                    // somebody else's
		cidrs(testNode("n4", "10.20.0.14", ""), "0.0.0.0/0"),
		testNode("n5", "10.20.0.15", ""),
	})
	var got []string
	for _, r := range routes {
		got = append(got, r.node+" "+r.String())
	}
	want := []string{"n1 10.244.1.0/24 via 10.20.0.11", "n1 fd00:244:1::/64 via fd00:20::11", "n2 10.244.2.0/24 via 10.20.0.12"}
	if !slices.Equal(got, want) || len(problems) != 3 {
		t.Errorf("routes %q with problems %v", got, problems)
	}
}

func TestRouted(t *testing.T) {
	prefixes := func(texts ...string) []netip.Prefix {
		var out []netip.Prefix
		for _, s := range texts {
			out = append(out, netip.MustParsePrefix(s))
		}
		return out
	}
	own := []podRoute{{router.Route{Destination: netip.MustParsePrefix("10.244.9.0/24")}, "n9"}}
	both := router.State{Instances: []router.InstanceState{
		{Reachable: true, Routes: prefixes("10.244.1.0/24", "10.244.2.0/26", "fd00:244::/48")},
		{Reachable: true, Routes: prefixes("10.244.0.0/16", "fd00:244::/48")},
		{Routes: prefixes("192.0.2.0/24")},
	}}
	for address, want := range map[string]bool{
		"10.244.1.5": true, "10.244.2.5": true, "10.244.2.200": false, "10.244.3.5": false, "fd00:244:0:1::5": true, "fd01::1": false, "10.244.9.1": true,
	} {
		if got := routed(both, own)(netip.MustParseAddr(address)); got != want {
			t.Errorf("%s: %v", address, got)
		}
	}
	if routed(router.State{}, own)(netip.MustParseAddr("10.244.1.5")) {
		t.Error("a router of which nothing is known reaches a pod")
	}
}
