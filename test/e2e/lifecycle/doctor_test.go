package lifecycle

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/onelb/onelb/cmd/onelbctl/doctor"
	"github.com/onelb/onelb/ipam"
	"github.com/onelb/onelb/test/e2e/kit"
	"github.com/onelb/onelb/test/lab"
	"github.com/onelb/onelb/test/onesim"
)

// seeded are the faults that are put in together: the check that finds each, what
// it is about, and words of what it says and advises.
var seeded = []struct {
	check, about string
	words        []string
}{
	{"network", "AddressPool nowhere", []string{`"nowhere"`, "USE"}},
	{"pool-range", "AddressPool beyond", []string{"10.20.0.205", "10.20.0.200", "onevnet addar"}},
	{"network-ranges", "AddressPool bare", []string{`"ether"`, "onevnet addar"}},
	{"spoofing-filter", "AddressPool filtered", []string{"FILTER_IP_SPOOFING", "guard: alias"}},
	{"pool-without-nodes", "AddressPool filtered", []string{`"filtered"`, "attach the nodes"}},
	{"pool-exhausted", "AddressPool full", []string{"all 1 IPv4", "widen spec.ranges"}},
	{"pool-overlapping", "AddressPool same", []string{"full", "ranges"}},
	{"pool-router", "AddressPool misrouted", []string{`"egde"`, "cloud-config"}},
	{"pool-inner", "AddressPool inward", []string{`"nope"`, "spec.router.innerPool"}},
	{"pool-not-ready", "AddressPool foreign", []string{"ForeignReservation"}},
	{"service-pending", "Service default/typo", []string{"onelb.io/pol", "explain service"}},
	{"service-foreign-address", "Service default/stranger", []string{"10.20.0.8", "onelb.io/address"}},
	{"node-vm", "node ghost", []string{"VM 999", "oneacl create"}},
	{"kubelet-cloud-provider", "node plain", []string{"--cloud-provider=external"}},
	{"node-provider-id", "node other", []string{"hcloud://1", "delete the Node"}},
	{"node-provider-id", "node twin", []string{"of node node-1"}},
	{"clock", "node late", []string{"clock is wrong", "chrony"}},
	{"kube-proxy-mode", "ConfigMap kube-system/kube-proxy", []string{"userspace", "nftables"}},
	{"other-load-balancer", "Deployment kube-system/controller", []string{"MetalLB", "onelbctl migrate metallb"}},
	{"other-cloud-controller-manager", "DaemonSet kube-system/ccm", []string{"hcloud", "remove it"}},
	{"address-doubled", "VirtualIP 10.20.0.190", []string{"double", "another address"}},
	{"router-unreachable", "router edge, instance 10.30.0.11:9443", []string{"onelb-router runs"}},
}

// examine runs the program as an operator does.
func examine(ctx context.Context, w *kit.World) ([]doctor.Finding, error) {
	out, err := w.Ctl(ctx, "doctor", "--cloud-config", w.CloudConfig(), "-o", "json")
	var r doctor.Report
	if jsonErr := json.Unmarshal([]byte(out), &r); jsonErr != nil {
		return nil, errors.Join(err, jsonErr)
	}
	return r.Findings, nil
}

// told reports whether a finding is there and says all the words.
func told(all []doctor.Finding, check, about string, words []string) bool {
	return slices.ContainsFunc(all, func(f doctor.Finding) bool {
		return f.Check == check && strings.HasPrefix(f.About, about) && containsAll(f.Meaning+"\n"+f.Remedy, words...)
	})
}

// doctorFinds seeds faults into the API server, OpenNebula and the router; each is
// found, and none is when they are gone.
func doctorFinds(t *testing.T, w *kit.World) {
	look := func(what string, f func([]doctor.Finding) error) {
		t.Helper()
		w.Every(500*time.Millisecond, kit.Patience, what, func(context.Context) error {
			ctx, cancel := context.WithTimeout(w.Context(), time.Minute)
			defer cancel()
			all, err := examine(ctx, w)
			if err != nil {
				return err
			}
			return f(all)
		})
	}
	// The Deployment and the DaemonSet have no pods in a lab.
	base := map[string]bool{}
	look("a lab without faults", func(all []doctor.Finding) error {
		clear(base)
		for _, f := range all {
			base[f.Check+" "+f.About] = true
			if strings.HasPrefix(f.Check, "pool") || strings.HasPrefix(f.Check, "router") || strings.HasPrefix(f.Check, "service") {
				return fmt.Errorf("%+v", f)
			}
		}
		return nil
	})
	undo := seed(w)
	look("all faults to be found", func(all []doctor.Finding) error {
		var missing []string
		for _, s := range seeded {
			if !told(all, s.check, s.about, s.words) {
				missing = append(missing, s.check+" of "+s.about)
			}
		}
		if len(missing) > 0 {
			return fmt.Errorf("not found: %s; there are: %+v", strings.Join(missing, ", "), all)
		}
		return nil
	})
	undo()
	look("nothing to be found any more", func(all []doctor.Finding) error {
		left := map[string]bool{}
		for _, f := range all {
			if !base[f.Check+" "+f.About] {
				left[fmt.Sprintf("%+v", f)] = true
			}
		}
		if len(left) > 0 {
			return fmt.Errorf("still found: %q", slices.Sorted(maps.Keys(left)))
		}
		return nil
	})
	w.Must(w.StopOneSim())
	look("OpenNebula to be away", func(all []doctor.Finding) error {
		if !told(all, "opennebula-unreachable", "OpenNebula http://", []string{"see that oned runs"}) {
			return fmt.Errorf("%+v", all)
		}
		return nil
	})
	w.Must(w.StartOneSim())
	w.Must(w.OneSim().SetPassword(lab.OneUser, "changed123"))
	look("the password to be wrong", func(all []doctor.Finding) error {
		if !told(all, "opennebula-credentials", "OpenNebula http://", []string{"oneuser token-create"}) {
			return fmt.Errorf("%+v", all)
		}
		return nil
	})
	w.Must(w.OneSim().SetPassword(lab.OneUser, lab.OnePassword))
}

// seed puts the faults in; undo takes them out.
func seed(w *kit.World) (undo func()) {
	w.T.Helper()
	sim, ctx := w.OneSim(), w.Context()
	network := func(name, more string) int {
		id, err := sim.AddVNet("", fmt.Sprintf("NAME=%q\nVN_MAD=\"dummy\"\nBRIDGE=\"br\"\n%s\n", name, more))
		w.Must(err)
		return id
	}
	network("ether", `AR=[TYPE="ETHER",SIZE="9"]`)
	network("filtered", "FILTER_IP_SPOOFING=\"YES\"\n"+`AR=[TYPE="IP4",IP="10.40.0.10",SIZE="9"]`)
	twin := network("twin", `AR=[TYPE="IP4",IP="10.20.0.185",SIZE="10"]`)
	double, err := sim.AddVM(onesim.VMSpec{Name: "double", Owner: lab.OneUser, NICs: []onesim.NICSpec{{Network: twin, IP: netip.MustParseAddr("10.20.0.190")}}})
	w.Must(err)

	front := client(w)
	foreign := reserve(w, front, ipam.NoNetwork, lab.ClusterName+"-foreign", addr("10.20.0.195"))
	w.Must(front.Annotate(ctx, foreign, map[string]string{ipam.AttributeCluster: lab.ClusterName, ipam.AttributeClusterUID: "somebody", ipam.AttributePool: "foreign"}))
	text, err := os.ReadFile("testdata/faults.yaml")
	w.Must(err)
	for doc := range strings.SplitSeq(string(text), "---\n") { // two pools want its address: it is the first
		if strings.Contains(doc, "{name: full,") {
			w.Apply(doc)
		}
	}
	w.Create(web, "full", kit.V4, kit.InPool("full"))
	w.Served(web, "full")
	w.Apply(string(text))
	w.Create(web, "typo", kit.V4, kit.Annotate("pol", "lan"))
	w.Create(web, "stranger", kit.V4)
	shows(w, "stranger", addr("10.20.0.8"))
	nodes := map[string]string{
		"ghost": "one://999", "plain": "", "other": "hcloud://1", "late": fmt.Sprintf("one://%d", double),
		"twin": fmt.Sprintf("one://%d", sim.NodeVMs[0]),
	}
	for name, id := range nodes {
		node(w, name, id)
	}
	late := metav1.NewMicroTime(time.Now().Add(3 * time.Hour))
	_, err = w.Client().CoordinationV1().Leases(corev1.NamespaceNodeLease).Create(ctx, &coordinationv1.Lease{
		ObjectMeta: metav1.ObjectMeta{Name: "late"}, Spec: coordinationv1.LeaseSpec{RenewTime: &late},
	}, metav1.CreateOptions{})
	w.Must(err)
	w.Must(w.Router(1).Agent().Stop())
	return func() {
		w.T.Helper()
		w.Must(w.Router(1).Agent().Start())
		for name := range nodes {
			w.Must(w.Client().CoreV1().Nodes().Delete(ctx, name, metav1.DeleteOptions{}))
		}
		w.Must(w.Client().CoordinationV1().Leases(corev1.NamespaceNodeLease).Delete(ctx, "late", metav1.DeleteOptions{}))
		w.Remove("full", "typo", "stranger")
		for _, what := range []string{"addresspools", "configmaps,deployments,daemonsets"} {
			if out, err := w.Kubectl(ctx, "delete", what, "-A", "-l", "test=faults", "--timeout=80s"); err != nil {
				w.T.Fatalf("%v: %s", err, out)
			}
		}
		w.Must(front.DeleteReservation(ctx, foreign))
	}
}

// node makes a Node that is Ready and has no kubelet.
func node(w *kit.World, name, providerID string) {
	w.T.Helper()
	nodes := w.Client().CoreV1().Nodes()
	n, err := nodes.Create(w.Context(), &corev1.Node{
		ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{corev1.LabelNodeExcludeBalancers: ""}}, Spec: corev1.NodeSpec{ProviderID: providerID},
	}, metav1.CreateOptions{})
	w.Must(err)
	n.Status.Conditions = []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionTrue, LastHeartbeatTime: metav1.Now(), LastTransitionTime: metav1.Now()}}
	_, err = nodes.UpdateStatus(w.Context(), n, metav1.UpdateOptions{})
	w.Must(err)
}
