package doctor

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	ktesting "k8s.io/client-go/testing"

	"github.com/onelb/onelb/api/v1alpha1"
	"github.com/onelb/onelb/loadbalancer/inventory"
	"github.com/onelb/onelb/test/sample"
)

// patient makes one of a sample.
func patient(t *testing.T, s *sample.Cluster) *Patient {
	t.Helper()
	c := inventory.Clients{Kube: s.Kube(), OneLB: s.OneLB()}
	inv, err := inventory.Read(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	return &Patient{Clients: c, Inventory: inv, Installed: true, ServerTime: func(context.Context) (time.Time, error) { return time.Now(), nil }}
}

// find returns the findings of a check.
func find(all []Finding, check string) []Finding {
	var out []Finding
	for _, f := range all {
		if f.Check == check {
			out = append(out, f)
		}
	}
	return out
}

// expect wants one finding of a check that says all words, and none of others.
func expect(t *testing.T, all []Finding, check string, severity Severity, words ...string) {
	t.Helper()
	found := find(all, check)
	if len(found) != 1 || len(all) != 1 {
		t.Errorf("want one finding, %s, and have %+v", check, all)
		return
	}
	f := found[0]
	if f.Severity != severity || f.About == "" || f.Remedy == "" {
		t.Errorf("%+v, want severity %s, an object and a remedy", f, severity)
	}
	for _, w := range words {
		if !strings.Contains(f.About+"\n"+f.Meaning+"\n"+f.Remedy, w) {
			t.Errorf("%+v does not say %q", f, w)
		}
	}
}

func TestNothingIsWrong(t *testing.T) {
	if all := Examine(t.Context(), patient(t, sample.New())); len(all) > 0 || Code(all) != 0 {
		t.Errorf("%+v", all)
	}
}

func program(namespace, name, image string, args ...string) appsv1.DaemonSet {
	d := appsv1.DaemonSet{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name}}
	d.Spec.Template.Spec.Containers = []corev1.Container{{Name: "x", Image: image, Args: args}}
	return d
}

func condition(kind string, status metav1.ConditionStatus, reason, message string) metav1.Condition {
	return metav1.Condition{Type: kind, Status: status, Reason: reason, Message: message}
}

// set replaces a condition.
func set(list *[]metav1.Condition, c metav1.Condition) {
	kept := (*list)[:0]
	for _, o := range *list {
		if o.Type != c.Type {
			kept = append(kept, o)
		}
	}
	*list = append(kept, c)
}

// TestSeededFaults puts one thing wrong at a time: it is found, nothing else is
// said, and what to do is.
func TestSeededFaults(t *testing.T) {
	tests := map[string]struct {
		fault    func(*sample.Cluster)
		check    string
		severity Severity
		words    []string
	}{
		"no leader": {func(c *sample.Cluster) { c.Leader.Spec.RenewTime.Time = time.Now().Add(-time.Hour) },
			"no-leader", Error, []string{"node-1 did last", "kubectl -n onelb-system logs deployment/"}},
		"one replica": {func(c *sample.Cluster) { c.Manager.Status.ReadyReplicas = 1 }, "manager-replicas", Warning, []string{"1 of 2 replicas"}},
		"no agents":   {func(c *sample.Cluster) { c.Agents = nil }, "agents-missing", Error, []string{"no node answers", "manifests/base"}},
		"agent missing on a node": {func(c *sample.Cluster) { c.Pods = append(c.Pods[:2:2], c.Pods[3:]...) },
			"agent-missing", Warning, []string{"node node-3", "spec.nodeName=node-3"}},
		"agent not ready": {func(c *sample.Cluster) { c.Pods[2].Status.Conditions = nil }, "agent-not-ready", Warning, []string{"node node-3", "is not ready"}},
		"agent behind": {func(c *sample.Cluster) { c.Pods[2].Spec.Containers[0].Image = "onelb/onelb-node:v0" },
			"agent-behind", Info, []string{"onelb-node:v0", "onelb-node:v1", "rollout status"}},
		"gossip Secret gone": {func(c *sample.Cluster) { c.Others = c.Others[1:] }, "gossip-secret", Error, []string{"onelb-gossip", "ContainerCreating"}},
		"gossip key short": {func(c *sample.Cluster) { c.Others[0].(*corev1.Secret).Data["key"] = []byte("short") },
			"gossip-secret", Error, []string{"5 bytes instead of 32", "delete secret onelb-gossip"}},
		"kubelet without external": {func(c *sample.Cluster) { c.Nodes[2].Spec.ProviderID = "" },
			"kubelet-cloud-provider", Error, []string{"node node-3", "--cloud-provider=external", "kubeletExtraArgs"}},
		"foreign provider ID": {func(c *sample.Cluster) { c.Nodes[2].Spec.ProviderID = "k3s://node-3" },
			"node-provider-id", Error, []string{"k3s://node-3", "--disable-cloud-controller"}},
		"twice the same VM": {func(c *sample.Cluster) { c.Nodes[2].Spec.ProviderID = "one://1" }, "node-provider-id", Error, []string{"of node node-1", "delete the Node"}},
		"uninitialized": {func(c *sample.Cluster) {
			c.Nodes[2].Spec.ProviderID = ""
			c.Nodes[2].Spec.Taints = []corev1.Taint{{Key: "node.cloudprovider.kubernetes.io/uninitialized", Effect: corev1.TaintEffectNoSchedule}}
		}, "node-uninitialized", Error, []string{"node node-3", "visible to the OpenNebula user"}},
		"kube-proxy in IPVS mode": {kubeProxyConfig("mode: ipvs"), "kube-proxy-mode", Info, []string{"strictARP is not needed"}},
		"kube-proxy in no mode":   {kubeProxyConfig("mode: userspace"), "kube-proxy-mode", Error, []string{"userspace", "nftables"}},
		"NodePorts elsewhere":     {kubeProxyConfig("nodePortAddresses: [127.0.0.0/8]"), "kube-proxy-node-ports", Warning, []string{"127.0.0.0/8", "forward: VIP"}},
		"no kube-proxy":           {func(c *sample.Cluster) { c.Others = c.Others[:1] }, "kube-proxy-mode", Info, []string{"RKE2"}},
		"MetalLB": {running(program("metallb-system", "speaker", "example.org/metallb/speaker:v0.15")),
			"other-load-balancer", Warning, []string{"MetalLB", "--default-class=false", "onelb.io/address"}},
		"MetalLB of its own class": {running(program("metallb-system", "speaker", "example.org/metallb/speaker:v0.15", "--lb-class=metallb")),
			"other-load-balancer", Info, []string{"loadBalancerClass"}},
		"kube-vip for Services": {running(program("kube-system", "kube-vip-ds", "example.org/kube-vip/kube-vip:v1", "manager", "--services")),
			"other-load-balancer", Warning, []string{"kube-vip"}},
		"another CCM": {running(program("kube-system", "ccm", "example.org/hcloud:v1", "--cloud-provider=hcloud")),
			"other-cloud-controller-manager", Error, []string{"DaemonSet kube-system/ccm", "hcloud", "remove it"}},
		"the official CCM": {running(program("kube-system", "ccm", "example.org/cloud-provider-opennebula:v1", "--cloud-provider=opennebula")),
			"other-cloud-controller-manager", Error, []string{"kube-system/ccm"}},
		"clock of a node": {running2(&coordinationv1.Lease{
			ObjectMeta: metav1.ObjectMeta{Namespace: "kube-node-lease", Name: "node-2"}, Spec: coordinationv1.LeaseSpec{RenewTime: &metav1.MicroTime{Time: time.Now().Add(time.Hour)}},
		}), "clock", Warning, []string{"node node-2", "h0m", "chrony"}},
		"no pool": {func(c *sample.Cluster) { c.Pools, c.VirtualIPs, c.Services = nil, nil, nil }, "no-pool", Warning, []string{"pool-l2.yaml"}},
		"pool not ready": {func(c *sample.Cluster) {
			set(&c.Pools[0].Status.Conditions, condition(v1alpha1.PoolReady, "False", "ForeignReservation", "reservation lab-main belongs to another cluster; run onelbctl adopt"))
		}, "pool-not-ready", Error, []string{"AddressPool main", "ForeignReservation", "onelbctl adopt"}},
		"pool draining": {func(c *sample.Cluster) {
			c.Pools[0].Spec.Draining = true
			set(&c.Pools[0].Status.Conditions, condition(v1alpha1.PoolReady, "False", "Draining", "as asked"))
		}, "pool-not-ready", Info, []string{"spec.draining"}},
		"pool exhausted":   {func(c *sample.Cluster) { c.Pools[0].Status.IPv4.Free = 0 }, "pool-exhausted", Error, []string{"all 100 IPv4", "widen spec.ranges"}},
		"pool nearly full": {func(c *sample.Cluster) { c.Pools[0].Status.IPv4.Free = 9 }, "pool-nearly-full", Warning, []string{"9 of 100 IPv4"}},
		"pools overlap": {func(c *sample.Cluster) {
			set(&c.Pools[0].Status.Conditions, condition(v1alpha1.PoolOverlapping, "True", "SameNetwork", "AddressPool other is on the same network"))
		}, "pool-overlapping", Warning, []string{"AddressPool other", "ranges"}},
		"stranded": {func(c *sample.Cluster) {
			set(&c.Pools[0].Status.Conditions, condition(v1alpha1.PoolStranded, "True", "RangeRemoved", "10.20.0.107 is in no range"))
		}, "pool-stranded", Warning, []string{"10.20.0.107", "put the range back"}},
		"guard fails": {func(c *sample.Cluster) {
			set(&c.Pools[0].Status.Conditions, condition(v1alpha1.PoolGuarded, "False", "HotplugFailing", "virtual machine 3 failed"))
		}, "pool-guard", Error, []string{"virtual machine 3 failed"}},
		"no inner pool": {func(c *sample.Cluster) {
			c.Pools[1].Spec.Router.Forward, c.Pools[1].Spec.Router.InnerPool = "VIP", "nope"
		},
			"pool-inner", Error, []string{`"nope"`, "spec.router.innerPool"}},
		"Service refused": {func(c *sample.Cluster) {
			s := sample.Service("default", "new", "")
			s.Annotations = map[string]string{"onelb.io/pol": "main"}
			c.Services = append(c.Services, s)
		}, "service-pending", Error, []string{"Service default/new", "unknown annotation onelb.io/pol", "explain service default/new"}},
		"address of another": {func(c *sample.Cluster) {
			c.Services[0].Status.LoadBalancer.Ingress = append(c.Services[0].Status.LoadBalancer.Ingress, corev1.LoadBalancerIngress{IP: "10.20.0.9"})
		}, "service-foreign-address", Warning, []string{"10.20.0.9", "onelb.io/address"}},
		"no holder":   {func(c *sample.Cluster) { c.VirtualIPs[0].Status.Holder = nil }, "address-without-holder", Error, []string{"no node answers for 10.20.0.107", "ready agent"}},
		"no pods":     {func(c *sample.Cluster) { c.Slices = c.Slices[1:] }, "no-endpoints", Warning, []string{"0 of 0 ready", "get pods"}},
		"router mute": {func(c *sample.Cluster) { c.VirtualIPs[1].Status.Router = nil }, "address-not-on-router", Error, []string{"203.0.113.105", "--cloud-config"}},
		"orphan":      {func(c *sample.Cluster) { c.Services = c.Services[1:] }, "address-orphan", Warning, []string{"Service default/web is gone"}},
		"not on hold": {func(c *sample.Cluster) { c.VirtualIPs[0].Status.Conditions = nil }, "address-not-on-hold", Warning, []string{"could be given it", "AddressPool main"}},
		"conflict": {func(c *sample.Cluster) {
			set(&c.VirtualIPs[0].Status.Conditions, condition(v1alpha1.VirtualIPAddressConflict, "True", "Claimed", "02:00:00:00:00:09 claims it"))
		}, "address-conflict", Error, []string{"02:00:00:00:00:09", "take the address off"}},
		"set aside": {func(c *sample.Cluster) {
			c.VirtualIPs = append(c.VirtualIPs, sample.VirtualIP("10.20.0.120", "main", c.Services[0]))
			c.VirtualIPs[2].Spec.Services, c.VirtualIPs[2].Status.Phase = nil, v1alpha1.PhaseSetAside
		}, "address-set-aside", Warning, []string{"onevnet release"}},
		"not released": {func(c *sample.Cluster) {
			v := sample.VirtualIP("10.20.0.120", "main", c.Services[0])
			v.Spec.Services, v.Status.Phase, v.Spec.ReleaseTime = nil, v1alpha1.PhaseReleasing, &metav1.Time{Time: time.Now().Add(-time.Hour)}
			c.VirtualIPs = append(c.VirtualIPs, v)
		}, "address-not-released", Warning, []string{"1h0m", "tried again"}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			s := sample.New()
			tt.fault(s)
			expect(t, Examine(t.Context(), patient(t, s)), tt.check, tt.severity, tt.words...)
		})
	}
}

func kubeProxyConfig(text string) func(*sample.Cluster) {
	return func(c *sample.Cluster) { c.Others[1].(*corev1.ConfigMap).Data["config.conf"] = text }
}

func running(d appsv1.DaemonSet) func(*sample.Cluster) { return running2(&d) }

func running2(o runtime.Object) func(*sample.Cluster) {
	return func(c *sample.Cluster) { c.Others = append(c.Others, o) }
}

// TestSpoofingFilter: what packets are dropped by is found twice, at the pool and
// at the address, which is down.
func TestSpoofingFilter(t *testing.T) {
	s := sample.New()
	set(&s.Pools[0].Status.Conditions, condition(v1alpha1.PoolSpoofingFilter, "True", "NodesFiltered", "OpenNebula drops what node-1 sends"))
	expect(t, Examine(t.Context(), patient(t, s)), "spoofing-filter", Error, "node-1", "guard: alias")
}

func TestTheOpenNebulaCCMOfOursIsNoRival(t *testing.T) {
	for _, d := range []appsv1.DaemonSet{
		program(inventory.Namespace, inventory.Manager, "onelb/x", "--cloud-provider=opennebula"),
		program("elsewhere", "mine", "onelb/x", "--cloud-provider=opennebula"),
		program("kube-system", "kube-vip-ds", "example.org/kube-vip/kube-vip:v1", "manager", "--controlplane"),
		program("kube-system", "kubelet", "x", "--cloud-provider=external"),
	} {
		s := sample.New()
		s.Others = append(s.Others, &d)
		if all := Examine(t.Context(), patient(t, s)); len(all) > 0 {
			t.Errorf("%s: %+v", d.Name, all)
		}
	}
}

func TestClockOfThisMachine(t *testing.T) {
	p := patient(t, sample.New())
	p.ServerTime = func(context.Context) (time.Time, error) { return time.Now().Add(-10 * time.Minute), nil }
	expect(t, Examine(t.Context(), p), "clock", Warning, "this machine", "10m0s")
	p.ServerTime = func(context.Context) (time.Time, error) { return time.Time{}, errors.New("no Date") }
	expect(t, Examine(t.Context(), p), "clock", Warning, "could not be looked at: no Date")
}

func TestNoElection(t *testing.T) {
	s := sample.New()
	s.Leader, s.Manager.Spec.Replicas = nil, nil
	s.Manager.Spec.Template.Spec.Containers[0].Args = []string{"--leader-elect=false"}
	if all := Examine(t.Context(), patient(t, s)); len(all) > 0 {
		t.Errorf("%+v", all)
	}
	s.Manager.Status.ReadyReplicas = 0
	expect(t, Examine(t.Context(), patient(t, s)), "no-leader", Error)
}

func TestBeforeTheInstallation(t *testing.T) {
	s := sample.New()
	s.Agents, s.Manager, s.Leader, s.Pods, s.Pools, s.VirtualIPs = nil, nil, nil, nil, nil, nil
	s.Nodes[0].Spec.ProviderID = ""
	p := patient(t, s)
	p.Installed = false
	all := Examine(t.Context(), p)
	if len(all) != 2 || all[0].Check != "kubelet-cloud-provider" || all[1].Check != "not-installed" || Code(all) != 3 {
		t.Errorf("%+v", all)
	}
}

func TestWhatMayNotBeReadIsSaid(t *testing.T) {
	s := sample.New()
	k := s.Kube()
	for _, r := range []string{"secrets", "configmaps", "deployments", "nodes"} {
		k.PrependReactor("*", r, func(ktesting.Action) (bool, runtime.Object, error) {
			return true, nil, apierrors.NewForbidden(schema.GroupResource{Resource: r}, "", errors.New("you may not"))
		})
	}
	c := inventory.Clients{Kube: k, OneLB: s.OneLB()}
	inv, err := inventory.Read(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	all := Examine(t.Context(), &Patient{Clients: c, Inventory: inv, Installed: true, ServerTime: func(context.Context) (time.Time, error) { return time.Now(), nil }})
	for _, f := range all {
		if f.Severity != Warning || !strings.Contains(f.Meaning, "could not be looked at") {
			t.Errorf("%+v", f)
		}
	}
	if len(find(all, "gossip-secret")) != 1 || len(find(all, "kube-proxy-mode")) != 1 || len(find(all, "other-load-balancer")) != 1 || len(find(all, "reading")) != 2 {
		t.Errorf("%+v", all)
	}
}
