package explain

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/onelb/onelb/api/v1alpha1"
	"github.com/onelb/onelb/loadbalancer/inventory"
	"github.com/onelb/onelb/loadbalancer/path"
	"github.com/onelb/onelb/test/sample"
)

// cluster gives the fake clients of a sample.
type cluster struct{ *sample.Cluster }

func (c cluster) Connect() (inventory.Clients, error) {
	return inventory.Clients{Kube: c.Kube(), OneLB: c.OneLB()}, nil
}

func (c cluster) Namespace() (string, error) { return "default", nil }

func run(t *testing.T, s *sample.Cluster, args ...string) (string, error) {
	t.Helper()
	cmd := Command(cluster{s})
	var out bytes.Buffer
	cmd.SetOut(&out)
	cmd.SetErr(&out)
	cmd.SetArgs(args)
	err := cmd.ExecuteContext(t.Context())
	return out.String(), err
}

func report(t *testing.T, s *sample.Cluster, name string) *Report {
	t.Helper()
	c, _ := cluster{s}.Connect()
	r, err := New(t.Context(), c, "default", name)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func kinds(w path.Way) string {
	var out []string
	for _, h := range w.Hops {
		out = append(out, h.Kind+":"+string(h.State))
	}
	return strings.Join(out, " ")
}

func TestTheWholeWay(t *testing.T) {
	out, err := run(t, sample.New(), "service", "default/web")
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"Service default/web, class none (the default), externalTrafficPolicy Cluster\n",
		"  main: 1 of 100 used, has its address of it\n",
		"  ok    address 10.20.0.107: Active, of AddressPool main (network private), on hold in OpenNebula (for 2h)\n",
		"  ok    holder node-1: answers for 10.20.0.107 on eth0, takeover 3 (for 60m)\n",
		"  ok    service default/web: its status shows the address; ports 80/TCP → 8080\n",
		"  ok    endpoints: 2 of 2 ready, on node-1 (1), node-2 (1)\n",
	} {
		if !strings.Contains(out, want) {
			t.Errorf("missing %q in\n%s", want, out)
		}
	}
	if strings.Contains(out, "Waiting") || strings.Contains(out, "->") {
		t.Errorf("nothing is wrong:\n%s", out)
	}
	w := report(t, sample.New(), "shop").Ways
	if len(w) != 1 || kinds(w[0]) != "address:ok router:ok nodes:ok service:ok endpoints:ok" {
		t.Errorf("%+v", w)
	}
}

func TestWayThroughAnInnerAddress(t *testing.T) {
	s := sample.New()
	s.VirtualIPs[1].Spec.Router.Forward = v1alpha1.ForwardVIP
	if w := report(t, s, "shop").Ways[0]; kinds(w) != "address:ok router:ok inner:down service:ok endpoints:ok" || w.State != path.Down {
		t.Errorf("without inner address: %s", kinds(w))
	}
	inner := sample.VirtualIP("10.20.0.108", "main", s.Services[1])
	inner.Spec.Role = v1alpha1.RoleInner
	s.VirtualIPs = append(s.VirtualIPs, inner)
	w := report(t, s, "shop").Ways
	if len(w) != 1 || kinds(w[0]) != "address:ok router:ok inner:ok holder:down service:ok endpoints:ok" {
		t.Fatalf("without holder: %+v", w)
	}
	inner.Status.Holder = &v1alpha1.Holder{Name: "node-2", Interface: "eth0"}
	if w := report(t, s, "shop").Ways; kinds(w[0]) != "address:ok router:ok inner:ok holder:ok service:ok endpoints:ok" {
		t.Errorf("%+v", w)
	}
}

func TestWayStraightToThePods(t *testing.T) {
	s := sample.New()
	s.VirtualIPs[1].Spec.Router.Forward = v1alpha1.ForwardPod
	if w := report(t, s, "shop").Ways[0]; kinds(w) != "address:ok router:ok service:ok endpoints:ok" {
		t.Errorf("%s", kinds(w))
	}
}

func TestWayToTheHolder(t *testing.T) {
	s := sample.New()
	s.VirtualIPs[1].Spec.Router.Forward = v1alpha1.ForwardRoute
	if w := report(t, s, "shop").Ways[0]; kinds(w) != "address:ok router:ok holder:down service:ok endpoints:ok" || !strings.Contains(w.Hops[2].Remedy, "InternalIP") {
		t.Errorf("without holder: %+v", w)
	}
	s.VirtualIPs[1].Status.Holder = &v1alpha1.Holder{Name: "node-2", Interface: "eth0"}
	if w := report(t, s, "shop").Ways[0]; kinds(w) != "address:ok router:ok holder:ok service:ok endpoints:ok" {
		t.Errorf("%s", kinds(w))
	}
}

func TestLocalPolicy(t *testing.T) {
	s := sample.New()
	s.Services[0].Spec.ExternalTrafficPolicy = corev1.ServiceExternalTrafficPolicyLocal
	s.VirtualIPs[0].Spec.TrafficPolicy = v1alpha1.TrafficPolicyLocal
	s.VirtualIPs[0].Status.Holder.Name = "node-3"
	if w := report(t, s, "web").Ways[0]; kinds(w) != "address:ok holder:down service:ok endpoints:ok" || !strings.Contains(w.Hops[1].Detail, "no ready endpoint") {
		t.Errorf("%+v", w)
	}
	s.VirtualIPs[0].Status.Holder = nil
	s.Slices = nil
	if w := report(t, s, "web").Ways[0]; !strings.Contains(w.Hops[1].Detail, "no node has a ready endpoint") {
		t.Errorf("%+v", w)
	}
}

// TestPending: why, by the code that decides, and the way out.
func TestPending(t *testing.T) {
	notReady := func(p *v1alpha1.AddressPool) {
		p.Status.Conditions[0] = metav1.Condition{Type: v1alpha1.PoolReady, Status: metav1.ConditionFalse, Reason: "NetworkNotFound", Message: "virtual network \"private\": not found; check the name, and that our OpenNebula user has USE on the network"}
	}
	for name, c := range map[string]struct {
		change func(*sample.Cluster, *corev1.Service)
		want   []string
	}{
		"nothing wrong": {func(*sample.Cluster, *corev1.Service) {}, nil},
		"no pool":       {func(c *sample.Cluster, _ *corev1.Service) { c.Pools = nil }, []string{"no AddressPool has autoAssign: create one, or name one with annotation onelb.io/pool"}},
		"unknown pool":  {func(_ *sample.Cluster, s *corev1.Service) { s.Annotations["onelb.io/pool"] = "mian" }, []string{`is called "mian"`, "name one of: edge, main"}},
		"annotation":    {func(_ *sample.Cluster, s *corev1.Service) { s.Annotations["onelb.io/poool"] = "main" }, []string{"unknown annotation onelb.io/poool: remove it, or use one of"}},
		"pools not ready": {func(c *sample.Cluster, _ *corev1.Service) { notReady(c.Pools[0]); notReady(c.Pools[1]) },
			[]string{"AddressPool main: NetworkNotFound", "AddressPool edge: NetworkNotFound", "that our OpenNebula user has USE"}},
		"exhausted": {func(c *sample.Cluster, s *corev1.Service) {
			s.Annotations["onelb.io/pool"] = "main"
			c.Pools[0].Status.IPv4 = &v1alpha1.AddressCounts{Total: 4, Used: 4}
		}, []string{"AddressPool main: no free address: all 4 IPv4 addresses are in use; release some"}},
		"no such family": {func(_ *sample.Cluster, s *corev1.Service) { s.Spec.IPFamilies = []corev1.IPFamily{corev1.IPv6Protocol} },
			[]string{"no pool can give an IPv6 address", "AddressPool main has no IPv6 addresses"}},
		"taken": {func(_ *sample.Cluster, s *corev1.Service) { s.Annotations["onelb.io/address"] = sample.L2Address },
			[]string{"10.20.0.107: address is taken by default/web", "annotation onelb.io/share"}},
		"no NodePort": {func(_ *sample.Cluster, s *corev1.Service) {
			s.Annotations["onelb.io/pool"] = "edge"
			s.Spec.Ports[0].NodePort = 0
		},
			[]string{"port 80/TCP has no NodePort", "or use a pool with forward: VIP"}},
		"not selected": {func(c *sample.Cluster, s *corev1.Service) {
			c.Pools = c.Pools[:1]
			c.Pools[0].Spec.NamespaceSelector = &metav1.LabelSelector{MatchLabels: map[string]string{"team": "a"}}
		}, []string{"is for namespaces with labels", "namespace default has"}},
		"not ours": {func(_ *sample.Cluster, s *corev1.Service) { class := "metallb"; s.Spec.LoadBalancerClass = &class }, []string{`loadBalancerClass is "metallb"`, "onelb.io/lb"}},
		"no default": {func(c *sample.Cluster, _ *corev1.Service) {
			c.Manager.Spec.Template.Spec.Containers[0].Args = []string{"--default-class=false"}
		}, []string{"--default-class=false"}},
		"no leader": {func(c *sample.Cluster, _ *corev1.Service) {
			c.Leader.Spec.RenewTime.Time = time.Now().Add(-time.Hour)
		}, []string{"no cloud-controller-manager leads: node-1 did last", "kubectl -n onelb-system"}},
		"none ready": {func(c *sample.Cluster, _ *corev1.Service) {
			c.Leader, c.Manager.Status.ReadyReplicas = nil, 0
		}, []string{"no cloud-controller-manager is ready"}},
	} {
		t.Run(name, func(t *testing.T) {
			s := sample.New()
			svc := sample.Service("default", "new", "")
			svc.Annotations = map[string]string{}
			s.Services = append(s.Services, svc)
			c.change(s, svc)
			r := report(t, s, "new")
			var text []string
			for _, p := range r.Pending {
				text = append(text, p.Why, p.Remedy)
			}
			for _, want := range c.want {
				if !strings.Contains(strings.Join(text, "\n"), want) {
					t.Errorf("missing %q in %q", want, text)
				}
			}
			if len(c.want) == 0 && len(text) > 0 {
				t.Errorf("%q", text)
			}
		})
	}
}

func TestEvents(t *testing.T) {
	s := sample.New()
	now := time.Now()
	add := func(namespace, kind, name string, uid types.UID, ago time.Duration, reason string) {
		s.Others = append(s.Others, &corev1.Event{
			ObjectMeta:     metav1.ObjectMeta{Namespace: namespace, Name: reason},
			InvolvedObject: corev1.ObjectReference{Kind: kind, Name: name, UID: uid},
			LastTimestamp:  metav1.NewTime(now.Add(-ago)), Type: corev1.EventTypeWarning, Reason: reason, Message: "why",
		})
	}
	add("default", "Service", "web", "default-web", time.Minute, "AllocationFailed")
	add("default", "Service", "web", "of-an-earlier-one", time.Minute, "OfAnEarlierOne")
	add("default", "Service", "shop", "default-shop", time.Minute, "OfAnother")
	add("default", "VirtualIP", sample.L2Address, "", 30*time.Second, "nodeAssigned")
	add("default", "AddressPool", "main", "", time.Hour, "PoolReady")
	var got []string
	for _, e := range report(t, s, "web").Events {
		got = append(got, e.Reason)
	}
	if strings.Join(got, " ") != "PoolReady AllocationFailed nodeAssigned" {
		t.Errorf("%v", got)
	}
	if out, err := run(t, s, "service", "web"); err != nil || !strings.Contains(out, "AllocationFailed  Service web: why") {
		t.Errorf("%v\n%s", err, out)
	}
}

func TestCommand(t *testing.T) {
	s := sample.New()
	s.Services = append(s.Services, sample.Service("other", "web", ""))
	plain := sample.Service("default", "plain", "")
	plain.Spec.Type = corev1.ServiceTypeClusterIP
	s.Services = append(s.Services, plain)
	for _, args := range [][]string{{"service", "default/web"}, {"service", "web"}, {"svc", "web", "-n", "default"}, {"service", "default/web", "-n", "default"}} {
		if out, err := run(t, s, args...); err != nil || !strings.Contains(out, "Service default/web,") {
			t.Errorf("%v: %v\n%s", args, err, out)
		}
	}
	for want, args := range map[string][]string{
		"there is no Service default/nope": {"service", "nope"},
		"is of type ClusterIP":             {"service", "plain"},
		"NAMESPACE/NAME":                   {"service", "a/b/c"},
		"another namespace":                {"service", "default/web", "-n", "other"},
		"-o wide: there is json, yaml":     {"service", "web", "-o", "wide"},
	} {
		if out, err := run(t, s, args...); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v: %v\n%s", args, err, out)
		}
	}
	out, err := run(t, s, "service", "shop", "-o", "json")
	var r Report
	if err != nil || json.Unmarshal([]byte(out), &r) != nil || len(r.Ways) != 1 || r.Ways[0].Address != sample.Public {
		t.Errorf("%v\n%s", err, out)
	}
	if names := complete(t.Context(), cluster{s}, "default/w"); strings.Join(names, " ") != "default/web" {
		t.Errorf("%v", names)
	}
}

func TestBeingDeleted(t *testing.T) {
	s := sample.New()
	s.Services[0].DeletionTimestamp, s.Services[0].Finalizers = &metav1.Time{Time: time.Now()}, []string{"service.kubernetes.io/load-balancer-cleanup"}
	if r := report(t, s, "web"); len(r.Pending) != 1 || !strings.Contains(r.Pending[0].Why, "being deleted") {
		t.Errorf("%+v", r.Pending)
	}
}
