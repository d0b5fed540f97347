package adopt

import (
	"context"
	"errors"
	"maps"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/onelb/onelb/ipam"
	"github.com/onelb/onelb/provider/one"
)

// fake is what our user owns in OpenNebula.
type fake map[ipam.NetworkID]ipam.Network

func (f fake) OwnNetworks(context.Context) ([]one.Listed, error) {
	var out []one.Listed
	for id := range ipam.NetworkID(20) {
		if n, ok := f[id]; ok {
			out = append(out, one.Listed{ID: id, Name: n.Name, Parent: n.Parent, Attributes: n.Attributes})
		}
	}
	return out, nil
}

func (f fake) Get(_ context.Context, id ipam.NetworkID) (ipam.Network, error) {
	n, ok := f[id]
	if !ok {
		return n, ipam.ErrNotFound
	}
	return n, nil
}

func (f fake) Annotate(_ context.Context, id ipam.NetworkID, attributes map[string]string) error {
	maps.Copy(f[id].Attributes, attributes)
	return nil
}

func reservation(id ipam.NetworkID, cluster, uid, pool string, alive time.Time) ipam.Network {
	n := ipam.Network{ID: id, Name: cluster + "-" + pool, Parent: 0, Attributes: map[string]string{
		ipam.AttributeCluster: cluster, ipam.AttributeClusterUID: uid, ipam.AttributePool: pool,
	}}
	if !alive.IsZero() {
		n.Attributes[ipam.AttributeAlive] = alive.UTC().Format(time.RFC3339)
	}
	return n
}

func world() fake {
	long := time.Now().Add(-time.Hour)
	f := fake{
		1: reservation(1, "lab", "dead", "main", long),
		2: reservation(2, "lab", "dead", "side", time.Time{}),
		3: reservation(3, "lab", "new", "third", time.Now()),
		4: reservation(4, "other", "dead", "main", long),
		5: reservation(5, "lab", "", "unsigned", long),
		6: reservation(6, "lab", "dead", "parent", long),
	}
	n := f[6]
	n.Parent = ipam.NoNetwork // not a reservation, whatever it says
	f[6] = n
	n = f[1]
	n.Ranges = []ipam.Range{{
		Attributes: map[string]string{ipam.AttributeOwners: "10.0.0.1=a/b"},
		Leases:     []ipam.Lease{{IP4: netip.MustParseAddr("10.0.0.1"), Held: true}, {IP4: netip.MustParseAddr("10.0.0.2"), Held: true}, {IP4: netip.MustParseAddr("10.0.0.3"), User: "VM 1"}},
	}}
	f[1] = n
	return f
}

func TestAdopt(t *testing.T) {
	f := world()
	plan, err := New(t.Context(), f, "lab", "new")
	if err != nil || len(plan.Steps) != 2 || plan.Ours != 1 || plan.Steps[0].Held != 2 || plan.Steps[0].Owned != 1 {
		t.Fatalf("%+v, %v", plan, err)
	}
	var text strings.Builder
	if err := plan.Print(&text); err != nil || !strings.Contains(text.String(), "lab-main") || !strings.Contains(text.String(), "never") {
		t.Errorf("%s, %v", &text, err)
	}
	if f[1].Attributes[ipam.AttributeClusterUID] != "dead" {
		t.Fatal("a plan changes nothing")
	}
	for range 2 { // the second time there is nothing to do
		if err := plan.Apply(t.Context(), f); err != nil {
			t.Fatal(err)
		}
	}
	for id, want := range map[ipam.NetworkID]string{1: "new", 2: "new", 3: "new", 4: "dead", 5: "", 6: "dead"} {
		if got := f[id].Attributes[ipam.AttributeClusterUID]; got != want {
			t.Errorf("%s is signed with %q, want %q", f[id].Name, got, want)
		}
	}
	plan, err = New(t.Context(), f, "lab", "new")
	if err != nil || len(plan.Steps) != 0 || plan.Ours != 3 {
		t.Errorf("%+v, %v", plan, err)
	}
	text.Reset()
	if err := plan.Print(&text); err != nil || !strings.Contains(text.String(), "nothing to adopt") {
		t.Errorf("%s, %v", &text, err)
	}
}

func TestALivingClusterIsLeftAlone(t *testing.T) {
	f := world()
	for _, alive := range []time.Time{time.Now(), time.Now().Add(-Silence + time.Minute), time.Now().Add(time.Hour)} {
		f[1].Attributes[ipam.AttributeAlive] = alive.UTC().Format(time.RFC3339)
		plan, err := New(t.Context(), f, "lab", "new")
		if !errors.Is(err, ErrAlive) || len(plan.Steps) != 2 {
			t.Errorf("seen at %s: %v", alive, err)
		}
	}
	// It shows itself after the plan was made.
	f = world()
	plan, err := New(t.Context(), f, "lab", "new")
	if err != nil {
		t.Fatal(err)
	}
	f[1].Attributes[ipam.AttributeAlive] = time.Now().UTC().Format(time.RFC3339)
	if err := plan.Apply(t.Context(), f); !errors.Is(err, ErrAlive) || f[1].Attributes[ipam.AttributeClusterUID] != "dead" {
		t.Errorf("%v", err)
	}
	f = world()
	f[1].Attributes[ipam.AttributeClusterUID] = "third"
	if err := plan.Apply(t.Context(), f); !errors.Is(err, ErrChanged) || f[1].Attributes[ipam.AttributeClusterUID] != "third" {
		t.Errorf("%v", err)
	}
}
