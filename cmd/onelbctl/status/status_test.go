package status

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/kubernetes/fake"
	ktesting "k8s.io/client-go/testing"
	"sigs.k8s.io/yaml"

	"github.com/onelb/onelb/api/v1alpha1"
	"github.com/onelb/onelb/cmd/onelbctl/term"
	"github.com/onelb/onelb/loadbalancer/inventory"
	"github.com/onelb/onelb/loadbalancer/overview"
	"github.com/onelb/onelb/loadbalancer/path"
	"github.com/onelb/onelb/test/sample"
)

func clients(c *sample.Cluster) inventory.Clients {
	return inventory.Clients{Kube: c.Kube(), OneLB: c.OneLB()}
}

func run(t *testing.T, c inventory.Clients, args ...string) (string, error) {
	t.Helper()
	cmd := Command(func() (inventory.Clients, error) { return c, nil })
	var out bytes.Buffer
	cmd.SetOut(&out)
	cmd.SetErr(&out)
	cmd.SetArgs(args)
	err := cmd.ExecuteContext(t.Context())
	return out.String(), err
}

func TestHealthyCluster(t *testing.T) {
	out, err := run(t, clients(sample.New()))
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"cloud-controller-manager: led from node-1, 2 of 2 replicas ready, version v1\n",
		"main  private  L2           [#.........]  1 of 100  -     -  yes\n",
		"edge  public   Router edge  [#.........]  1 of 100  -     -  yes\n",
		"10.20.0.107    main  default/web   node-1  -       ok\n",
		"203.0.113.105  edge  default/shop  -       edge    ok\n",
		"node-1  yes    v1       1\n",
		"edge    1          0               12\n",
	} {
		if !strings.Contains(out, want) {
			t.Errorf("missing %q in\n%s", want, out)
		}
	}
	if strings.Contains(out, "\x1b") || strings.Contains(out, "without an address") || strings.Contains(out, "not read") {
		t.Errorf("colours, waiting Services or gaps that are none:\n%s", out)
	}
}

func TestWhatIsNotWell(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*sample.Cluster)
		health path.State
		want   string
	}{
		"no holder":     {func(c *sample.Cluster) { c.VirtualIPs[0].Status.Holder = nil }, path.Down, "holder: no node answers for 10.20.0.107"},
		"holder gone":   {func(c *sample.Cluster) { c.Nodes = c.Nodes[1:] }, path.Down, "no such node any more"},
		"not Ready":     {func(c *sample.Cluster) { c.Nodes[0].Status.Conditions = nil }, path.Warning, "the node is not Ready"},
		"agent away":    {func(c *sample.Cluster) { c.Pods = c.Pods[1:] }, path.Warning, "the agent there is not ready"},
		"not shown":     {func(c *sample.Cluster) { c.Services[0].Status = corev1.ServiceStatus{} }, path.Down, "its status does not show the address"},
		"no endpoints":  {func(c *sample.Cluster) { c.Slices = c.Slices[1:] }, path.Down, "endpoints: 0 of 0 ready"},
		"not on hold":   {func(c *sample.Cluster) { c.VirtualIPs[0].Status.Conditions = nil }, path.Warning, "not on hold in OpenNebula"},
		"Service gone":  {func(c *sample.Cluster) { c.Services = c.Services[1:] }, path.Warning, "is gone; the address is about to be released"},
		"another UID":   {func(c *sample.Cluster) { c.Services[0].UID = "new" }, path.Warning, "is gone; the address is about to be released"},
		"pool filtered": {func(c *sample.Cluster) { condition(&c.Pools[0].Status.Conditions, v1alpha1.PoolSpoofingFilter) }, path.Down, "drops"},
		"conflict": {func(c *sample.Cluster) {
			condition(&c.VirtualIPs[0].Status.Conditions, v1alpha1.VirtualIPAddressConflict)
		}, path.Warning, "another host claims it too"},
	} {
		t.Run(name, func(t *testing.T) {
			s := sample.New()
			c.change(s)
			inv, err := inventory.Read(t.Context(), clients(s))
			if err != nil {
				t.Fatal(err)
			}
			a := overview.New(inv).Addresses[0]
			if a.Address != sample.L2Address || a.Health != c.health || !strings.Contains(a.Why, c.want) {
				t.Errorf("%+v, want %s because %q", a, c.health, c.want)
			}
		})
	}
}

func condition(to *[]metav1.Condition, kind string) {
	*to = append(*to, metav1.Condition{Type: kind, Status: metav1.ConditionTrue, Message: "OpenNebula drops what nodes send; claimed by 02:00:00:00:00:01"})
}

func TestRouterThatHasNotAcknowledged(t *testing.T) {
	s := sample.New()
	s.VirtualIPs[1].Status.Router = nil
	out, err := run(t, clients(s))
	if err != nil || !strings.Contains(out, "203.0.113.105: router: has not acknowledged the address yet") || !strings.Contains(out, "edge    1          1               0") {
		t.Errorf("%v\n%s", err, out)
	}
}

func TestPending(t *testing.T) {
	s := sample.New()
	s.Services = append(s.Services, sample.Service("default", "new", ""), sample.Service("default", "theirs", ""))
	s.Services[2].Annotations = map[string]string{"onelb.io/pool": "nope"}
	s.Services[3].Spec.LoadBalancerClass = new(string)
	inv, err := inventory.Read(t.Context(), clients(s))
	if err != nil {
		t.Fatal(err)
	}
	p := overview.New(inv).Pending
	if len(p) != 1 || p[0].Service != "default/new" || len(p[0].Reasons) != 1 || !strings.Contains(p[0].Reasons[0].Why, `no AddressPool is called "nope"`) {
		t.Errorf("%+v", p)
	}
}

func TestOutputs(t *testing.T) {
	for _, form := range []string{"json", "yaml"} {
		out, err := run(t, clients(sample.New()), "-o", form)
		if err != nil {
			t.Fatal(err)
		}
		var r overview.Report
		decode := json.Unmarshal
		if form == "yaml" {
			decode = func(b []byte, v any) error { return yaml.UnmarshalStrict(b, v) }
		}
		if err := decode([]byte(out), &r); err != nil || len(r.Pools) != 2 || r.Addresses[1].Router != "edge" || r.Agents[2].Node != "node-3" {
			t.Errorf("%s: %v\n%s", form, err, out)
		}
	}
	if out, err := run(t, clients(sample.New()), "-o", "wide"); err != nil || !strings.Contains(out, "HELD FOR") {
		t.Errorf("%v\n%s", err, out)
	}
	if _, err := run(t, clients(sample.New()), "-o", "xml"); err == nil || !strings.Contains(err.Error(), "wide, json, yaml") {
		t.Errorf("%v", err)
	}
}

func TestColours(t *testing.T) {
	inv, err := inventory.Read(t.Context(), clients(sample.New()))
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	if err := Print(overview.New(inv), &out, term.Painter{Colours: true}, false); err != nil || !strings.Contains(out.String(), string(term.Green)+"ok") {
		t.Errorf("%v\n%q", err, out.String())
	}
}

// forbid makes a fake client refuse to list something.
func forbid(k *fake.Clientset, resource string) {
	k.PrependReactor("*", resource, func(ktesting.Action) (bool, runtime.Object, error) {
		return true, nil, apierrors.NewForbidden(schema.GroupResource{Resource: resource}, "", errors.New("you may not"))
	})
}

func TestGaps(t *testing.T) {
	s := sample.New()
	k := s.Kube()
	for _, r := range []string{"nodes", "endpointslices", "pods", "services"} {
		forbid(k, r)
	}
	out, err := run(t, inventory.Clients{Kube: k, OneLB: s.OneLB()})
	if err != nil || !strings.Contains(out, "Nodes not read: nodes is forbidden") || !strings.Contains(out, "service: cannot be read") || strings.Contains(out, "about to be released") {
		t.Errorf("%v\n%s", err, out)
	}
}

func TestNotInstalled(t *testing.T) {
	s := sample.New()
	ours := s.OneLB()
	ours.PrependReactor("list", "addresspools", func(ktesting.Action) (bool, runtime.Object, error) {
		return true, nil, apierrors.NewNotFound(v1alpha1.GroupVersion.WithResource("addresspools").GroupResource(), "")
	})
	for _, args := range [][]string{nil, {"--watch"}} {
		if _, err := run(t, inventory.Clients{Kube: s.Kube(), OneLB: ours}, args...); !errors.Is(err, inventory.ErrNotInstalled) {
			t.Errorf("%v: %v", args, err)
		}
	}
}

func TestWatch(t *testing.T) {
	c := clients(sample.New())
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		var out bytes.Buffer
		if err := (options{watch: true, interval: 2 * time.Second}).run(ctx, &out, c); err != nil {
			t.Fatal(err)
		}
		if n := strings.Count(out.String(), "every 2s"); n != 3 {
			t.Errorf("%d looks in 5 s:\n%s", n, out.String())
		}
	})
}
