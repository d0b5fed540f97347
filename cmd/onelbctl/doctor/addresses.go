package doctor

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/onelb/onelb/api/v1alpha1"
	"github.com/onelb/onelb/loadbalancer/inventory"
	"github.com/onelb/onelb/loadbalancer/path"
)

// What has been so for less time may be just being worked on.
const (
	youngAddress = 30 * time.Second
	lateHold     = 5 * time.Minute
	lateRelease  = 10 * time.Minute
)

// addresses: each VirtualIP does what its phase says.
func addresses(_ context.Context, p *Patient) []Finding {
	var out []Finding
	for i := range p.Inventory.VirtualIPs {
		out = append(out, address(p.Inventory, &p.Inventory.VirtualIPs[i])...)
	}
	return out
}

func address(inv *inventory.Inventory, v *v1alpha1.VirtualIP) []Finding {
	about := "VirtualIP " + v.Name
	age := inv.Time.Sub(v.CreationTimestamp.Time)
	switch {
	case v.Status.Phase == v1alpha1.PhaseSetAside:
		return []Finding{{
			Check: "address-set-aside", Severity: Warning, About: about,
			Meaning: "nobody knows whether its hold in OpenNebula is ours: it is neither given nor released",
			Remedy:  "release it in OpenNebula if nobody there needs it (onevnet release), or delete the VirtualIP if it is somebody else's (docs/how-to/pools.md)",
		}}
	case v.Spec.ReleaseTime != nil && v.Spec.Retain == nil && v.Status.Phase == v1alpha1.PhaseReleasing && inv.Time.Sub(v.Spec.ReleaseTime.Time) > lateRelease:
		return []Finding{{
			Check: "address-not-released", Severity: Warning, About: about,
			Meaning: fmt.Sprintf("no Service has had it for %s, and its holder, its router or OpenNebula has not let go", inv.Time.Sub(v.Spec.ReleaseTime.Time).Round(time.Minute)),
			Remedy:  "see that OpenNebula answers (condition Ready of AddressPool " + v.Spec.Pool + ") and that the router can be reached; the release is tried again until it is done",
		}}
	case len(v.Spec.Services) == 0:
		return nil
	}
	var out []Finding
	if gone := absent(inv, v); gone != "" && age > youngAddress {
		out = append(out, Finding{
			Check: "address-orphan", Severity: Warning, About: about, Meaning: "Service " + gone + " is gone and still stands behind it",
			Remedy: "the cloud-controller-manager that leads takes it off within a minute: see that one does",
		})
	}
	out = append(out, hops(inv, v, about, age)...)
	c := apimeta.FindStatusCondition(v.Status.Conditions, v1alpha1.VirtualIPOnHold)
	if (c == nil || c.Status != metav1.ConditionTrue) && age > lateHold {
		why := ""
		if c != nil && c.Message != "" {
			why = " (" + c.Message + ")"
		}
		out = append(out, Finding{
			Check: "address-not-on-hold", Severity: Warning, About: about, Meaning: "it is not on hold in OpenNebula" + why + ": a VM of our own OpenNebula user could be given it; other users cannot",
			Remedy: "see that OpenNebula answers and that the user may hold addresses: condition Ready of AddressPool " + v.Spec.Pool,
		})
	}
	if c := apimeta.FindStatusCondition(v.Status.Conditions, v1alpha1.VirtualIPAddressConflict); c != nil && c.Status == metav1.ConditionTrue {
		out = append(out, Finding{
			Check: "address-conflict", Severity: Error, About: about, Meaning: "another host claims it too: " + c.Message,
			Remedy: "find the host with that hardware address (the switch's table, onevm list) and take the address off it: clients may reach either",
		})
	}
	return out
}

// hops finds what is wrong on the way to the pods, but for what has findings of its own.
func hops(inv *inventory.Inventory, v *v1alpha1.VirtualIP, about string, age time.Duration) []Finding {
	checks := map[string]string{"router": "address-not-on-router", "inner": "address-without-inner", "holder": "address-without-holder", "announcers": "address-not-announced", "nodes": "no-nodes", "endpoints": "no-endpoints", "service": "address-not-shown"}
	if age < youngAddress || v.Spec.Role == v1alpha1.RoleInner {
		return nil // inner ones are hops of the public ones
	}
	var out []Finding
	for _, ref := range v.Spec.Services {
		svc := inv.Service(ref.Namespace, ref.Name)
		if svc == nil || svc.UID != ref.UID {
			continue
		}
		for _, h := range path.Of(inv, svc, v) {
			if name, ours := checks[h.Kind]; ours && (h.State == path.Down || h.State == path.Warning) {
				f := Finding{Check: name, Severity: Error, About: about, Meaning: fmt.Sprintf("%s, of Service %s/%s: %s %s", v.Spec.Address, ref.Namespace, ref.Name, h.Kind, h.Detail), Remedy: h.Remedy}
				if h.State == path.Warning || h.Kind == "endpoints" { // a Service without pods is its owner's affair
					f.Severity = Warning
				}
				out = append(out, f)
			}
		}
	}
	return out
}

// absent names a Service of an address that is not there any more.
func absent(inv *inventory.Inventory, v *v1alpha1.VirtualIP) string {
	if inv.Unread("Services") {
		return ""
	}
	for _, r := range v.Spec.Services {
		if svc := inv.Service(r.Namespace, r.Name); svc == nil || svc.UID != r.UID {
			return r.Namespace + "/" + r.Name
		}
	}
	return ""
}

// strangers are the addresses that a Service shows and that are not its own.
func strangers(inv *inventory.Inventory, svc *corev1.Service) []string {
	if svc.Spec.LoadBalancerClass != nil && len(inv.Owned(svc)) == 0 {
		return nil // theirs
	}
	var out []string
	for _, i := range svc.Status.LoadBalancer.Ingress {
		shown, err := netip.ParseAddr(i.IP)
		if err != nil {
			continue
		}
		if !slices.ContainsFunc(inv.Owned(svc), func(v *v1alpha1.VirtualIP) bool { return v.Spec.Address == shown.String() }) {
			out = append(out, shown.String())
		}
	}
	return out
}
