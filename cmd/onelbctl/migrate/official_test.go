package migrate

import (
	"context"
	"maps"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"

	"github.com/onelb/onelb/ipam"
	"github.com/onelb/onelb/loadbalancer/inventory"
	"github.com/onelb/onelb/provider/one"
	"github.com/onelb/onelb/test/sample"
)

// frontEnd has one reservation of the predecessor, cut from one network.
type frontEnd struct {
	networks map[ipam.NetworkID]ipam.Network
}

func (f *frontEnd) OwnNetworks(context.Context) ([]one.Listed, error) {
	return []one.Listed{{ID: 7, Name: f.networks[7].Name, Parent: 3}}, nil
}

func (f *frontEnd) Get(_ context.Context, id ipam.NetworkID) (ipam.Network, error) {
	n, ok := f.networks[id]
	if !ok {
		return n, ipam.ErrNotFound
	}
	return n, nil
}

func (f *frontEnd) Annotate(_ context.Context, id ipam.NetworkID, attributes map[string]string) error {
	maps.Copy(f.networks[id].Attributes, attributes)
	return nil
}

func (f *frontEnd) AnnotateRange(_ context.Context, id ipam.NetworkID, r ipam.RangeID, attributes map[string]string) error {
	f.networks[id].Ranges[r].Attributes = attributes
	return nil
}

// officialWorld has a range of one address for each name, from 10.20.0.101 on.
func officialWorld(t *testing.T, services []*corev1.Service, ranges ...string) (*official, *frontEnd) {
	t.Helper()
	f := &frontEnd{networks: map[ipam.NetworkID]ipam.Network{3: networks()[0]}}
	n := ipam.Network{ID: 7, Name: "lab-lb", Parent: 3, Attributes: map[string]string{}}
	a := addr("10.20.0.101")
	for i, name := range ranges {
		n.Ranges = append(n.Ranges, ipam.Range{
			ID: ipam.RangeID(i), First4: a, Size: 1, Attributes: map[string]string{ipam.AttributeOfficialService: name},
			Leases: []ipam.Lease{{IP4: a, Held: true}},
		})
		a = a.Next()
	}
	f.networks[7] = n
	c := sample.New()
	c.Pools, c.VirtualIPs, c.Services = nil, nil, services
	inv, err := inventory.Read(t.Context(), inventory.Clients{Kube: c.Kube(), OneLB: c.OneLB()})
	if err != nil {
		t.Fatal(err)
	}
	return &official{front: f, inv: inv, cluster: "lab", identity: "us", old: "lab", name: "lab-lb", pool: "lb"}, f
}

// TestAllAreInscribed: also Services that stay where they are, since the signature
// makes the sweep take holds of nobody for orphans.
func TestAllAreInscribed(t *testing.T) {
	o, f := officialWorld(t, []*corev1.Service{
		service("a", "b-c", nil, "10.20.0.101"), service("a-b", "c", nil, "10.20.0.101"), // of one name there
		service("default", "web", nil, "10.20.0.102", "10.9.9.9"), // one address is not of the reservation
		service("default", "silent", nil),                         // shows its address no more
		service("default", "free", nil, "10.20.0.104"),
	}, "lab-a-b-c", "lab-default-web", "lab-default-silent", "lab-default-free", "lab-default-gone")
	p, err := o.plan(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if open, blocked := p.Left(); open != 1 || blocked != 3 || len(p.Problems) > 0 {
		t.Errorf("%d open, %d blocked, %v", open, blocked, p.Problems)
	}
	if err := o.inscribe(t.Context()); err != nil {
		t.Fatal(err)
	}
	for i, want := range []string{
		"10.20.0.101=a-b/c,a/b-c", "10.20.0.102=default/web", "10.20.0.103=default/silent", "10.20.0.104=default/free", "",
	} {
		got := f.networks[7].Ranges[i].Attributes
		if got[ipam.AttributeOwners] != want || !strings.HasPrefix(got[ipam.AttributeOfficialService], "lab-") {
			t.Errorf("range %d: %v, want %q", i, got, want)
		}
	}
	// ipam keeps the address for whoever of the two comes first.
	title := ipam.ParseTitles(f.networks[7].Ranges[0].Attributes[ipam.AttributeOwners])[addr("10.20.0.101")]
	if !title.Has(ipam.Owner{Namespace: "a", Name: "b-c"}) || !title.Has(ipam.Owner{Namespace: "a-b", Name: "c"}) {
		t.Errorf("%+v", title)
	}
	if f.networks[7].Attributes[ipam.AttributeClusterUID] != "us" {
		t.Errorf("not signed: %v", f.networks[7].Attributes)
	}
}
