package e2e_test

import (
	"context"
	"fmt"
	"net/netip"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/onelb/onelb/api/v1alpha1"
	"github.com/onelb/onelb/test/e2e/kit"
	"github.com/onelb/onelb/test/lab"
)

// TestCountsAgreeWithOpenNebula compares the status of a pool with what
// OpenNebula itself has, in both families.
func TestCountsAgreeWithOpenNebula(t *testing.T) {
	w := newWorld(t)
	names := []string{"counted-1", "counted-2", "counted-3"}
	for i, name := range names {
		stack := families(corev1.IPv4Protocol, corev1.IPv6Protocol)
		if i == 2 {
			stack = families(corev1.IPv6Protocol)
		}
		w.Create(web, name, kit.InPool("lan"), stack)
	}
	for _, name := range names {
		w.waitServed(name)
	}
	w.Eventually("the counts of pool lan to agree with OpenNebula", w.countsAgree)
	w.Remove(names[0], names[2])
	w.Eventually("the counts of pool lan to agree after a release", w.countsAgree)
	w.Remove(names[1])
	w.NothingLeft()
}

func (w *world) countsAgree(ctx context.Context) error {
	pool, err := w.OneLB.AddressPools().Get(ctx, "lan", metav1.GetOptions{})
	if err != nil {
		return err
	}
	vips, err := w.OneLB.VirtualIPs().List(ctx, metav1.ListOptions{})
	if err != nil {
		return err
	}
	for i, r := range pool.Spec.Ranges {
		want, err := w.countIn(r, vips.Items)
		if err != nil {
			return err
		}
		got := []*v1alpha1.AddressCounts{pool.Status.IPv4, pool.Status.IPv6}[i]
		if got == nil || *got != want {
			return fmt.Errorf("range from %s: the status says %+v, OpenNebula %+v", r.Start, got, want)
		}
	}
	return nil
}

// countIn counts one of the pool's ranges, in OpenNebula and the VirtualIPs.
func (w *world) countIn(r v1alpha1.AddressRange, vips []v1alpha1.VirtualIP) (c v1alpha1.AddressCounts, err error) {
	sim := w.OneSim()
	child, err := sim.VNetNamed(lab.OneUser, lab.ClusterName+"-lan")
	if err != nil {
		return c, err
	}
	parent, err := sim.VNet(sim.PrivateVNet)
	if err != nil {
		return c, err
	}
	users, held := map[netip.Addr]string{}, map[netip.Addr]bool{}
	for _, ar := range parent.Ranges {
		for _, l := range ar.Leases {
			users[l.IP], users[l.IP6] = l.Owner, l.Owner
		}
	}
	for _, ar := range child.Ranges {
		for _, l := range ar.Leases {
			held[l.IP], held[l.IP6] = l.Owner == "hold", l.Owner == "hold"
		}
	}
	used := map[netip.Addr]bool{}
	for _, v := range vips {
		if v.Spec.Pool == "lan" { // others may just be giving addresses of this range back
			used[mustAddr(v.Spec.Address)] = true
		}
	}
	for a := mustAddr(r.Start); !mustAddr(r.End).Less(a); a = a.Next() {
		ours := users[a] == fmt.Sprintf("VNET %d", child.ID)
		if !ours && users[a] != "" && !strings.HasPrefix(users[a], "VNET") {
			return c, fmt.Errorf("%s is used by %s", a, users[a])
		}
		if users[a] == "" || ours {
			c.Total++
		}
		if ours {
			c.Reserved++
			if !used[a] {
				c.Ahead++
			}
		}
		if used[a] {
			c.Used++
		}
		if held[a] {
			c.Held++
		}
	}
	c.Free = c.Total - c.Used
	return c, nil
}
