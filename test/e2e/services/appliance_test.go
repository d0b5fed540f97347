package services

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/onelb/onelb/test/e2e/kit"
	"github.com/onelb/onelb/test/lab"
)

// forwards lists what a stock virtual router's machine has been told to forward.
func (w world) forwards(vm int) ([]string, error) {
	variables, err := w.OneSim().Context(vm)
	var out []string
	for name, value := range variables {
		if strings.HasPrefix(name, "ONEAPP_VNF_NAT4_PORT_FWD") && value != "" {
			out = append(out, value)
		}
		if strings.HasPrefix(name, "ONEAPP_VROUTER_ETH") && value != "" {
			out = append(out, value)
		}
	}
	slices.Sort(out)
	return out, err
}

// told waits until both machines of the lab's virtual router have n entries that
// begin with the address.
func (w world) told(a string, n int) {
	w.T.Helper()
	w.Eventually(fmt.Sprintf("%d entries of %q on all machines", n, a), func(context.Context) error {
		for _, vm := range w.OneSim().RouterVMs {
			list, err := w.forwards(vm)
			if err != nil || len(list) != n || slices.ContainsFunc(list, func(s string) bool { return !strings.HasPrefix(s, a) }) {
				return errors.Join(err, fmt.Errorf("VM %d has %v", vm, list))
			}
		}
		return nil
	})
}

// TestStockAppliance gives the lab's virtual router, as OpenNebula shows it, to onelb
// as a stock one: Services come and go in the context of its machines, what it cannot
// do is refused, and all is taken back when the cloud-config does not name it any more.
func TestStockAppliance(t *testing.T) {
	w := newWorld(t)
	one := w.OneSim()
	w.Must(one.Allow(lab.OneUser, "VROUTER", one.VirtualRouter, "USE"))
	for _, vm := range one.RouterVMs {
		w.Must(one.Allow(lab.OneUser, "VM", vm, "USE", "MANAGE"))
	}
	before, err := os.ReadFile(w.CloudConfig())
	w.Must(err)
	configure := func(extra string) {
		w.Must(os.WriteFile(w.CloudConfig(), append(slices.Clone(before), extra...), 0o600))
		w.Must(w.CCM().Restart())
	}
	t.Cleanup(func() { configure("") })
	configure(fmt.Sprintf("  - {name: stock, driver: appliance, virtualRouter: %d}\n", one.VirtualRouter))
	pool := fmt.Sprintf("stock-%d", time.Now().Unix()) // another one when the test is repeated
	w.Pool(pool, `network: {name: public}, exposure: Router, router: {name: stock, forward: VIP, innerPool: inner}, quarantine: 1s,
  ranges: [{start: 203.0.113.188, end: 203.0.113.199}], chunkSize: 4`)

	w.Create(web, "stocked", kit.V4, kit.InPool(pool))
	w.told("203.0.113.1", 2) // one port, TCP and UDP, and the address
	if a := w.AddressesOf("stocked", v4, v4)[0]; !lab.PublicV4.Contains(a) {
		t.Errorf("the first address is %s, want a public one", a)
	}
	w.Create(web, "limited", kit.V4, kit.InPool(pool), func(s *corev1.Service) { s.Spec.LoadBalancerSourceRanges = []string{"198.51.100.0/24"} })
	w.Waits("limited", "Refused", "stock appliance cannot limit clients")
	w.Remove("stocked", "limited")
	w.told("", 0)

	w.Create(web, "left", kit.V4, kit.InPool(pool))
	w.told("203.0.113.1", 2)
	configure("")
	w.told("", 0)
	w.Remove("left")
}
