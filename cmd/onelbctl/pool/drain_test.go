package pool

import (
	"bytes"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/onelb/onelb/loadbalancer/inventory"
	"github.com/onelb/onelb/test/sample"
)

func run(t *testing.T, c inventory.Clients, args ...string) (string, error) {
	t.Helper()
	cmd := Command(func() (inventory.Clients, error) { return c, nil })
	var out bytes.Buffer
	cmd.SetOut(&out)
	cmd.SetErr(&out)
	cmd.SetArgs(append([]string{"drain"}, args...))
	err := cmd.ExecuteContext(t.Context())
	return out.String(), err
}

func TestDrain(t *testing.T) {
	s := sample.New()
	c := inventory.Clients{OneLB: s.OneLB()}
	draining := func() bool {
		p, err := c.OneLB.AddressPools().Get(t.Context(), "main", metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		return p.Spec.Draining && p.Spec.Network.Name == "private"
	}
	out, err := run(t, c, "main")
	if err != nil || !draining() || !strings.Contains(out, "1 Services still have addresses") || !strings.Contains(out, "default/web has 10.20.0.107") || strings.Contains(out, "shop") {
		t.Errorf("%v\n%s", err, out)
	}
	if out, err := run(t, c, "main", "--undo"); err != nil || draining() || !strings.Contains(out, "again") {
		t.Errorf("%v\n%s", err, out)
	}
	if _, err := run(t, c, "nope"); err == nil || !strings.Contains(err.Error(), "there is no AddressPool nope") {
		t.Errorf("%v", err)
	}
	if _, err := run(t, c, "main", "--undo", "--wait", "1s"); err == nil || draining() {
		t.Errorf("%v", err)
	}
	if names := complete(t.Context(), func() (inventory.Clients, error) { return c, nil }); strings.Join(names, " ") != "edge main" {
		t.Errorf("%v", names)
	}
}

func TestDrainWaits(t *testing.T) {
	c := sample.New().OneLB()
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		d := drain{wait: 10 * time.Second, every: 2 * time.Second}
		if err := d.run(t.Context(), &out, c, "main"); err == nil || !strings.Contains(err.Error(), "after 10s, 1 Services still have") || strings.Count(out.String(), "default/web") != 1 {
			t.Errorf("%v\n%s", err, out.String())
		}
		if err := c.VirtualIPs().Delete(t.Context(), sample.L2Address, metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
		out.Reset()
		v, err := c.VirtualIPs().Get(t.Context(), sample.L2Address, metav1.GetOptions{})
		if err == nil { // its finalizer keeps it; the cloud-controller-manager takes the Service off first
			v.Spec.Services, v.Finalizers = nil, nil
			if _, err := c.VirtualIPs().Update(t.Context(), v, metav1.UpdateOptions{}); err != nil {
				t.Fatal(err)
			}
		}
		if err := d.run(t.Context(), &out, c, "main"); err != nil || !strings.Contains(out.String(), "No Service has an address of it.") {
			t.Errorf("%v\n%s", err, out.String())
		}
	})
}
