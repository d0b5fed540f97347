package migrate

import (
	"context"
	"fmt"
	"maps"
	"net/netip"
	"regexp"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/utils/ptr"

	"github.com/onelb/onelb/api/v1alpha1"
	"github.com/onelb/onelb/ipam"
	"github.com/onelb/onelb/loadbalancer/inventory"
	"github.com/onelb/onelb/provider/one"
)

// OpenNebula's own cloud-controller-manager keeps the addresses of a cluster in one
// reservation, <cluster>-lb, with one range of one address for each Service. The
// range says whose it is, and the address is on hold. A virtual router of that
// name, whose own addresses are in the reservation <cluster>-vr, answers for all.
//
// onelb takes the reservation over as it is: the addresses are never free.
const (
	officialLB = "-lb"
	officialVR = "-vr"
)

var officialImage = regexp.MustCompile(`cloud-provider-opennebula`)

// OwnNetworks is what is read, and written, of OpenNebula here.
type OwnNetworks interface {
	OwnNetworks(ctx context.Context) ([]one.Listed, error)
	Get(ctx context.Context, id ipam.NetworkID) (ipam.Network, error)
	// Annotate sets attributes of a network and leaves the others.
	Annotate(ctx context.Context, id ipam.NetworkID, attributes map[string]string) error
	// AnnotateRange replaces the attributes of a range.
	AnnotateRange(ctx context.Context, id ipam.NetworkID, r ipam.RangeID, attributes map[string]string) error
}

// official is all that is planned from.
type official struct {
	front     OwnNetworks
	inv       *inventory.Inventory
	workloads []inventory.Workload
	// cluster and identity are onelb's, old is the name that the predecessor had
	// for the cluster, name that of its reservation, pool that of the AddressPool to make.
	cluster, identity, old, name, pool string
	exposure                           v1alpha1.Exposure
	router                             *v1alpha1.RouterSpec

	reservation, parent ipam.Network
	// owners are for whom addresses are, by range.
	owners map[ipam.RangeID]map[netip.Addr]ipam.Title
}

// read finds the reservation, and says who still answers for its addresses.
func (o *official) read(ctx context.Context, p *Plan) error {
	all, err := o.front.OwnNetworks(ctx)
	if err != nil {
		return err
	}
	for _, l := range all {
		switch l.Name {
		case o.name:
			if o.reservation, err = o.front.Get(ctx, l.ID); err != nil {
				return err
			}
		case o.old + officialVR:
			n, err := o.front.Get(ctx, l.ID)
			if err != nil {
				return err
			}
			if used(n) {
				p.Answering = append(p.Answering, fmt.Sprintf("virtual router %s%s (onevrouter delete %[1]s%[2]s)", o.old, officialLB))
			}
			p.Afterwards = append(p.Afterwards, fmt.Sprintf("give back the reservation of the virtual router: onevnet delete %d", n.ID))
		}
	}
	if o.reservation.Name == "" {
		return fmt.Errorf("our OpenNebula user owns no reservation %s: there is nothing to take over. --old-cluster is what the other cloud-controller-manager has as --cluster-name; with another user, give the reservation to ours first (onevnet chown)", o.name)
	}
	if o.reservation.Parent == ipam.NoNetwork {
		return fmt.Errorf("network %q (%d) is no reservation", o.reservation.Name, o.reservation.ID)
	}
	o.parent, err = o.front.Get(ctx, o.reservation.Parent)
	return err
}

// used reports whether a machine or a router has an address of the network.
func used(n ipam.Network) bool {
	return slices.ContainsFunc(n.Ranges, func(r ipam.Range) bool {
		return slices.ContainsFunc(r.Leases, func(l ipam.Lease) bool {
			return strings.HasPrefix(l.User, "VM ") || strings.HasPrefix(l.User, "VROUTER ")
		})
	})
}

// plan makes the plan, and with it the owners that apply writes.
func (o *official) plan(ctx context.Context) (Plan, error) {
	p := Plan{From: "OpenNebula's own cloud-controller-manager"}
	if err := o.read(ctx, &p); err != nil {
		return p, err
	}
	for _, w := range o.workloads {
		if w.Wanted > 0 && w.Runs(officialImage) {
			p.Running = append(p.Running, fmt.Sprintf("%s (kubectl -n %s delete %s %s)", w, w.Namespace, strings.ToLower(w.Kind), w.Name))
		}
	}
	o.services(&p)
	p.Pools = []Pool{o.poolPlan()}
	p.Problems = append(p.Problems, o.problems()...)
	p.Problems = append(p.Problems, takers(o.inv, &p)...)
	p.sort()
	return p, nil
}

func (o *official) problems() []string {
	var out []string
	n := o.reservation
	if want := o.cluster + "-" + o.pool; n.Name != want {
		out = append(out, fmt.Sprintf("reservation %q (%d) would be %q for onelb, by the cluster's name in the cloud-config and --pool: give --pool the part after the cluster's name, or, once the other cloud-controller-manager has ended, onevnet rename %[2]d %[3]s and plan again with --reservation %[3]s", n.Name, n.ID, want))
	}
	switch uid, of := n.Attributes[ipam.AttributeClusterUID], n.Attributes[ipam.AttributePool]; {
	case uid == "":
	case uid != o.identity:
		out = append(out, fmt.Sprintf("reservation %q (%d) is another cluster's already (%s)", n.Name, n.ID, uid))
	case of != o.pool:
		out = append(out, fmt.Sprintf("reservation %q (%d) is of AddressPool %s already: give --pool %[3]s", n.Name, n.ID, of))
	}
	return out
}

func (o *official) poolPlan() Pool {
	if there := o.inv.Pool(o.pool); there != nil {
		return Pool{Name: o.pool, Spec: there.Spec, There: true, AutoAssign: migrating(there)}
	}
	id := int32(o.parent.ID) //nolint:gosec // OpenNebula's IDs are small
	out := Pool{Name: o.pool, AutoAssign: true, Spec: v1alpha1.AddressPoolSpec{
		Network: v1alpha1.NetworkReference{ID: &id}, Exposure: o.exposure, Router: o.router, AutoAssign: ptr.To(false),
	}}
	from := map[ipam.RangeID]bool{}
	for _, r := range o.reservation.Ranges {
		from[r.ParentRange] = true
	}
	for _, r := range o.parent.Ranges {
		if !from[r.ID] || !r.First4.IsValid() {
			continue
		}
		last := r.First4
		for range r.Size - 1 {
			last = last.Next()
		}
		out.Spec.Ranges = append(out.Spec.Ranges, v1alpha1.AddressRange{Start: r.First4.String(), End: last.String()})
	}
	return out
}

// services matches the ranges of the reservation with Services.
func (o *official) services(p *Plan) {
	o.owners = map[ipam.RangeID]map[netip.Addr]ipam.Title{}
	byName := map[string][]*corev1.Service{}
	for i := range o.inv.Services {
		svc := &o.inv.Services[i]
		if svc.Spec.LoadBalancerClass == nil && svc.DeletionTimestamp == nil {
			key := o.old + "-" + svc.Namespace + "-" + svc.Name
			byName[key] = append(byName[key], svc)
		}
	}
	for _, r := range o.reservation.Ranges {
		name := r.Attributes[ipam.AttributeOfficialService]
		if name == "" && r.Attributes[ipam.AttributeOwners] == "" {
			p.Notes = append(p.Notes, fmt.Sprintf("range %d of the reservation (%s) says nothing of a Service: its hold is released as an orphan", r.ID, r.First4))
			continue
		}
		// Also those that cannot be moved yet: with the signature, a hold that is
		// nobody's is an orphan. Of several, none gets it before the plan lets it.
		for _, svc := range byName[name] {
			o.inscribes(r, svc)
		}
		if name != "" && len(byName[name]) == 0 {
			p.Notes = append(p.Notes, fmt.Sprintf("%s is on record for %s, which is no Service of this cluster: its hold is released as an orphan", r.First4, name))
		}
	}
	for _, name := range slices.Sorted(maps.Keys(byName)) {
		for _, svc := range byName[name] {
			p.Services = append(p.Services, o.service(svc, name, byName[name]))
		}
	}
}

// inscribes notes that the address of a range is a Service's, beside others who
// have the same name to the predecessor.
func (o *official) inscribes(r ipam.Range, svc *corev1.Service) {
	owner := ipam.Owner{Namespace: svc.Namespace, Name: svc.Name}
	t := o.owners[r.ID][r.First4]
	if !r.First4.IsValid() || t.Has(owner) {
		return
	}
	t.Owners = append(t.Owners, owner)
	o.owners[r.ID] = map[netip.Addr]ipam.Title{r.First4: t}
}

func (o *official) service(svc *corev1.Service, name string, same []*corev1.Service) Service {
	s := Service{Namespace: svc.Namespace, Name: svc.Name, UID: svc.UID, Pool: o.pool}
	if len(same) > 1 {
		s.Problems = append(s.Problems, fmt.Sprintf("several Services are called %s to the other cloud-controller-manager, and have one address: make all but one again, under other names", name))
	}
	for _, a := range shown(svc) {
		i := slices.IndexFunc(o.reservation.Ranges, func(r ipam.Range) bool { return r.First4 == a })
		if i < 0 {
			if o.inv.Owns(svc, a) {
				s.Addresses = append(s.Addresses, a)
				continue
			}
			s.Problems = append(s.Problems, fmt.Sprintf("it shows %s, which is not in reservation %q", a, o.reservation.Name))
			continue
		}
		r := o.reservation.Ranges[i]
		if r.Attributes[ipam.AttributeOfficialService] != name && !o.inv.Owns(svc, a) {
			s.Problems = append(s.Problems, fmt.Sprintf("it shows %s, which is on record for %q", a, r.Attributes[ipam.AttributeOfficialService]))
		}
		s.Addresses = append(s.Addresses, a)
		if len(s.Problems) == 0 {
			o.inscribes(r, svc)
		}
	}
	if len(s.Addresses) == 0 {
		s.Notes = append(s.Notes, "it has no address yet")
		s.Pool = ""
	}
	pin(&s, "")
	s.settle(o.inv, svc)
	return s
}

// inscribe writes for whom the addresses are, before onelb reads the reservation:
// so nobody else gets one, and no hold is taken for an orphan. Then it signs the
// reservation with the cluster's identity, as the cloud-controller-manager does.
func (o *official) inscribe(ctx context.Context) error {
	for _, r := range o.reservation.Ranges {
		titles := o.owners[r.ID]
		if len(titles) == 0 || r.Attributes[ipam.AttributeOwners] != "" {
			continue
		}
		attributes := map[string]string{}
		maps.Copy(attributes, r.Attributes)
		text, _ := ipam.Titles(titles)
		attributes[ipam.AttributeOwners] = text
		if err := o.front.AnnotateRange(ctx, o.reservation.ID, r.ID, attributes); err != nil {
			return err
		}
	}
	if o.reservation.Attributes[ipam.AttributeClusterUID] == o.identity {
		return nil
	}
	return o.front.Annotate(ctx, o.reservation.ID, map[string]string{
		ipam.AttributeCluster: o.cluster, ipam.AttributeClusterUID: o.identity, ipam.AttributePool: o.pool,
	})
}
