package doctor

import (
	"context"
	"fmt"

	apimeta "k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/onelb/onelb/api/v1alpha1"
	"github.com/onelb/onelb/ipam"
	"github.com/onelb/onelb/loadbalancer/inventory"
)

// fewLeft: a pool with less than this part of its addresses free is nearly full.
const fewLeft = 10 // a tenth

func pools(_ context.Context, p *Patient) []Finding {
	inv := p.Inventory
	if len(inv.Pools) == 0 {
		return []Finding{{
			Check: "no-pool", Severity: Warning, About: "cluster", Meaning: "there is no AddressPool: no Service gets an address", Remedy: "make one (docs/how-to/pools.md, manifests/examples/pool-l2.yaml)",
		}}
	}
	var out []Finding
	for i := range inv.Pools {
		out = append(out, pool(p, &inv.Pools[i])...)
	}
	return out
}

func pool(p *Patient, a *v1alpha1.AddressPool) []Finding {
	about := "AddressPool " + a.Name
	var out []Finding
	if ready, reason, message := inventory.Ready(a); !ready {
		f := Finding{Check: "pool-not-ready", Severity: Error, About: about, Meaning: fmt.Sprintf("it gives no addresses: %s: %s", reason, message), Remedy: "do what the text says; kubectl describe pool " + a.Name + " has its events (docs/reference/events.md)"}
		switch reason {
		case ipam.ReasonDraining:
			f.Severity, f.Remedy = Info, "nothing, if that is meant; else set spec.draining to false"
		case ipam.ReasonLeaving:
			f.Severity, f.Remedy = Info, "it goes when the last Service has let go of its addresses: onelbctl status shows which have some"
		case "":
			f.Meaning, f.Remedy = "it gives no addresses: "+message, "see that a cloud-controller-manager leads"
		}
		out = append(out, f)
	}
	out = append(out, fullness(a, about)...)
	for kind, f := range map[string]Finding{
		v1alpha1.PoolSpoofingFilter: {Check: "spoofing-filter", Severity: Error, Remedy: "have FILTER_IP_SPOOFING turned off for the network and attach the nodes' NICs anew, or move the Services to a pool with guard: alias (docs/how-to/spoofing-filter.md)"},
		v1alpha1.PoolOverlapping:    {Check: "pool-overlapping", Severity: Warning, Remedy: "give each pool ranges, or a network, of its own"},
		v1alpha1.PoolStranded:       {Check: "pool-stranded", Severity: Warning, Remedy: "put the range back, or make the Services named get other addresses (annotation onelb.io/pool); until then they keep what they have"},
	} {
		if c := apimeta.FindStatusCondition(a.Status.Conditions, kind); c != nil && c.Status == metav1.ConditionTrue {
			f.About, f.Meaning = about, c.Message
			out = append(out, f)
		}
	}
	if c := apimeta.FindStatusCondition(a.Status.Conditions, v1alpha1.PoolGuarded); c != nil && c.Status == metav1.ConditionFalse && c.Reason != "Attaching" {
		out = append(out, Finding{Check: "pool-guard", Severity: Error, About: about, Meaning: "its addresses cannot be attached to nodes: " + c.Message, Remedy: "docs/how-to/spoofing-filter.md says what guard: alias needs"})
	}
	return append(out, references(p, a, about)...)
}

// references: what a pool names has to be there.
func references(p *Patient, a *v1alpha1.AddressPool, about string) []Finding {
	r := a.Spec.Router
	if r == nil {
		return nil
	}
	var out []Finding
	if r.InnerPool != "" {
		inner := p.Inventory.Pool(r.InnerPool)
		if inner == nil || inner.Spec.Exposure != v1alpha1.ExposureL2 {
			out = append(out, Finding{
				Check: "pool-inner", Severity: Error, About: about, Meaning: fmt.Sprintf("its innerPool %q is no AddressPool with exposure L2: Services get no address of it", r.InnerPool), Remedy: "make that pool, or name another one in spec.router.innerPool",
			})
		}
	}
	if p.Config != nil {
		for _, known := range p.Config.Routers {
			if known.Name == r.Name {
				return out
			}
		}
		out = append(out, Finding{
			Check: "pool-router", Severity: Error, About: about, Meaning: fmt.Sprintf("its router %q is not in the cloud-config: nothing forwards its addresses", r.Name), Remedy: "add the router under routers of the cloud-config, or change spec.router.name",
		})
	}
	return out
}

func fullness(a *v1alpha1.AddressPool, about string) []Finding {
	var out []Finding
	for family, c := range map[string]*v1alpha1.AddressCounts{"IPv4": a.Status.IPv4, "IPv6": a.Status.IPv6} {
		switch {
		case c == nil || c.Total == 0 || a.Spec.Draining:
		case c.Free <= 0:
			out = append(out, Finding{
				Check: "pool-exhausted", Severity: Error, About: about, Meaning: fmt.Sprintf("all %d %s addresses are in use: the next Service gets none", c.Total, family),
				Remedy: "release addresses, widen spec.ranges, add an address range to the network in OpenNebula, or make another pool",
			})
		case c.Free*fewLeft < c.Total:
			out = append(out, Finding{
				Check: "pool-nearly-full", Severity: Warning, About: about, Meaning: fmt.Sprintf("%d of %d %s addresses are left", c.Free, c.Total, family),
				Remedy: "widen spec.ranges, add an address range to the network in OpenNebula, or make another pool, before they are gone",
			})
		}
	}
	return out
}
