package inventory

import (
	"errors"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	ktesting "k8s.io/client-go/testing"

	"github.com/onelb/onelb/test/sample"
)

func read(t *testing.T, s *sample.Cluster) *Inventory {
	t.Helper()
	inv, err := Read(t.Context(), Clients{Kube: s.Kube(), OneLB: s.OneLB()})
	if err != nil {
		t.Fatal(err)
	}
	return inv
}

func TestVersion(t *testing.T) {
	for image, want := range map[string]string{
		"onelb/onelb-node:v1": "v1", "registry.example.org:5000/onelb/node": "", "registry.example.org:5000/onelb/node:v2": "v2",
		"onelb/node:v1@sha256:abc": "sha256:abc", "": "",
	} {
		if got := Version(image); got != want {
			t.Errorf("%s: %q, want %q", image, got, want)
		}
	}
}

func TestLeads(t *testing.T) {
	s := sample.New()
	if name, fresh := read(t, s).Leads(); name != "node-1" || !fresh {
		t.Errorf("%s %v", name, fresh)
	}
	s.Leader.Spec.RenewTime = &metav1.MicroTime{Time: time.Now().Add(-time.Hour)}
	if name, fresh := read(t, s).Leads(); name != "node-1" || fresh {
		t.Errorf("%s %v", name, fresh)
	}
	s.Leader.Spec.HolderIdentity = new(string) // given back
	s.Leader.Spec.RenewTime = &metav1.MicroTime{Time: time.Now()}
	if name, fresh := read(t, s).Leads(); name != "" || fresh {
		t.Errorf("%s %v", name, fresh)
	}
	s.Leader = nil
	if name, fresh := read(t, s).Leads(); name != "" || fresh {
		t.Errorf("%s %v", name, fresh)
	}
}

func TestReadManager(t *testing.T) {
	s := sample.New()
	inv, err := ReadManager(t.Context(), s.Kube())
	if err != nil || inv.Manager == nil || inv.Leader == nil {
		t.Fatal(inv, err)
	}
	if name, fresh := inv.Leads(); name != "node-1" || !fresh || !inv.Elects() {
		t.Errorf("%s %v", name, fresh)
	}
	s.Leader = nil
	kube := s.Kube()
	if inv, err := ReadManager(t.Context(), kube); err != nil || inv.Leader != nil {
		t.Error(inv, err)
	}
	kube.PrependReactor("get", "leases", func(ktesting.Action) (bool, runtime.Object, error) { return true, nil, errors.New("forbidden") })
	if _, err := ReadManager(t.Context(), kube); err == nil || !strings.Contains(err.Error(), "cloud-controller-manager: forbidden") {
		t.Errorf("an error was lost: %v", err)
	}
}

func TestEndpointsAreCountedOnce(t *testing.T) {
	s := sample.New()
	again := s.Slices[0].DeepCopy()
	again.Name = "web-y"
	not := false
	again.Endpoints[1].Conditions.Ready = &not
	again.Endpoints[1].Addresses = []string{"10.244.3.9"}
	s.Slices = append(s.Slices, again)
	inv := read(t, s)
	e := inv.Endpoints(inv.Service("default", "web"), false)
	if e.Total != 3 || e.Ready != 2 || e.Nodes["node-1"] != 1 || e.Nodes["node-2"] != 1 {
		t.Errorf("%+v", e)
	}
	if e := inv.Endpoints(inv.Service("default", "web"), true); e.Total != 0 {
		t.Errorf("IPv6: %+v", e)
	}
}

func TestBehind(t *testing.T) {
	s := sample.New()
	s.Agents.Spec.Template.Spec.Containers[0].Image = "onelb/onelb-node:v2"
	inv := read(t, s)
	if p := inv.AgentPod("node-2"); p == nil || !Behind(p, inv.Agents) || Behind(p, nil) {
		t.Errorf("%+v", p)
	}
	if len(inv.ManagerPods()) != 2 {
		t.Errorf("%d pods of the manager", len(inv.ManagerPods()))
	}
}
