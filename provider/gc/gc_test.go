package gc

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/onelb/onelb/ipam"
	"github.com/onelb/onelb/provider/one"
)

// fake is what our user owns in OpenNebula.
type fake struct {
	networks map[ipam.NetworkID]ipam.Network
	released []netip.Addr
	deleted  []ipam.NetworkID
	fails    error
}

func (f *fake) OwnNetworks(context.Context) ([]one.Listed, error) {
	var out []one.Listed
	for id := range ipam.NetworkID(20) {
		if n, ok := f.networks[id]; ok {
			out = append(out, one.Listed{ID: id, Name: n.Name, Parent: n.Parent, Attributes: n.Attributes})
		}
	}
	return out, nil
}

func (f *fake) Get(_ context.Context, id ipam.NetworkID) (ipam.Network, error) {
	n, ok := f.networks[id]
	if !ok {
		return n, ipam.ErrNotFound
	}
	return n, nil
}

func (f *fake) Release(_ context.Context, _ ipam.NetworkID, a netip.Addr) error {
	f.released = append(f.released, a)
	return f.fails
}

func (f *fake) DeleteReservation(_ context.Context, id ipam.NetworkID) error {
	f.deleted = append(f.deleted, id)
	delete(f.networks, id)
	return nil
}

var addr = netip.MustParseAddr

func reservation(id ipam.NetworkID, name, uid, pool string, leases ...ipam.Lease) ipam.Network {
	return ipam.Network{ID: id, Name: name, Parent: 0, Ready: true, Attributes: map[string]string{ipam.AttributeClusterUID: uid, ipam.AttributePool: pool},
		Ranges: []ipam.Range{{First4: addr("10.0.0.1"), Size: 20, Leases: leases, Used: len(leases)}}}
}

func hold(a string) ipam.Lease { return ipam.Lease{IP4: addr(a), Held: true} }

func world() *fake {
	f := &fake{networks: map[ipam.NetworkID]ipam.Network{
		1: reservation(1, "lab-main", "us", "main", hold("10.0.0.1"), hold("10.0.0.2"), hold("10.0.0.3"), hold("10.0.0.4"), hold("10.0.0.5")),
		2: reservation(2, "lab-gone", "us", "gone", hold("10.0.0.7"), ipam.Lease{IP6: addr("fd00::7"), Held: true}),
		3: reservation(3, "lab-used", "us", "used", hold("10.0.0.8"), ipam.Lease{IP4: addr("10.0.0.9"), User: "VM 4"}),
		4: reservation(4, "lab-theirs", "them", "theirs", hold("10.0.0.10")),
		5: reservation(5, "other-main", "us", "main", hold("10.0.0.11")),
		6: reservation(6, "lab-bare", "", "", hold("10.0.0.12")),
		7: reservation(7, "lab-hidden", "us", "hidden"),
		8: reservation(8, "lab-net", "us", "net"),
		9: reservation(9, "lab-moved", "us", "elsewhere"),
		// Of OpenNebula's own cloud-controller-manager: before and after it was taken over.
		10: reservation(10, "lab-lb", "", "", hold("10.0.0.13")),
		11: reservation(11, "lab-main2", "", "", hold("10.0.0.14")),
		12: reservation(12, "lab-lb2", "us", "lb2", hold("10.0.0.15")),
	}}
	for id := ipam.NetworkID(10); id < 13; id++ {
		f.networks[id].Ranges[0].Attributes = map[string]string{ipam.AttributeOfficialService: "lab-default-web"}
	}
	n := f.networks[1]
	n.Ranges[0].Attributes = map[string]string{ipam.AttributeOwners: "10.0.0.2=default/web 10.0.0.3=default/old;until=2020-01-01T00:00:00Z"}
	n = f.networks[7]
	n.Ranges[0].Used = 2
	n = f.networks[8]
	n.Parent = ipam.NoNetwork // no reservation, whatever it is called
	f.networks[8] = n
	return f
}

func TestPlan(t *testing.T) {
	f := world()
	w := Wanted{Pools: []string{"main", "main2"}, Addresses: map[string][]Address{"main": {{Addr: addr("10.0.0.1")}, {Addr: addr("10.0.0.5"), Fence: true}}}}
	plan, err := New(t.Context(), f, "lab", "us", w, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]Verdict{}
	for _, i := range plan.Items {
		if i.Why == "" {
			t.Errorf("%s without a reason", i)
		}
		got[i.key()] = i.Verdict
	}
	want := map[string]Verdict{
		"1 10.0.0.2": Keep, "1 10.0.0.3": Return, "1 10.0.0.4": Return, "1 10.0.0.5": Return,
		"2 invalid IP": Return, "3 invalid IP": Keep, "4 invalid IP": Keep, "6 invalid IP": Return, "7 invalid IP": Keep, "9 invalid IP": Keep,
		"10 invalid IP": Keep, "11 invalid IP": Keep, "12 invalid IP": Return,
	}
	for k, v := range want {
		if got[k] != v {
			t.Errorf("%s: %q, want %q", k, got[k], v)
		}
		delete(got, k)
	}
	if len(got) > 0 || len(f.released)+len(f.deleted) > 0 || plan.Returns() != 6 {
		t.Errorf("also %v; released %v, deleted %v, %d to be given back", got, f.released, f.deleted, plan.Returns())
	}
}

var errUnwilling = errors.New("not now")

func TestApplyGivesBackWhatWasSeenTwice(t *testing.T) {
	f := world()
	w := Wanted{Pools: []string{"main"}}
	first, err := New(t.Context(), f, "lab", "us", w, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	// Meanwhile 10.0.0.4 gets a VirtualIP, and somebody makes the AddressPool gone.
	w = Wanted{Pools: []string{"main", "gone"}, Addresses: map[string][]Address{"main": {{Addr: addr("10.0.0.4")}}, "gone": {{Addr: addr("10.0.0.7")}, {Addr: addr("fd00::7")}}}}
	second, err := New(t.Context(), f, "lab", "us", w, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	both := second.Both(first)
	told := 0
	if err := both.Apply(t.Context(), f, Steps{Before: func(Item) error { return nil }, Done: func(Item) { told++ }}); err != nil {
		t.Fatal(err)
	}
	if want := []netip.Addr{addr("10.0.0.1"), addr("10.0.0.3"), addr("10.0.0.5"), addr("10.0.0.12"), addr("10.0.0.15")}; !slices.Equal(f.released, want) {
		t.Errorf("released %v, want %v", f.released, want)
	}
	if !slices.Equal(f.deleted, []ipam.NetworkID{6, 12}) || told != 5 {
		t.Errorf("deleted %v, told of %d", f.deleted, told)
	}
	failed := func(Item) { t.Error("told of what failed") }
	f.fails = errors.New("no")
	if err := both.Apply(t.Context(), f, Steps{Before: func(Item) error { return nil }, Done: failed}); !errors.Is(err, f.fails) {
		t.Errorf("an error was lost: %v", err)
	}
	f.released = nil
	if err := both.Apply(t.Context(), f, Steps{Before: func(Item) error { return errUnwilling }, Done: failed}); !errors.Is(err, errUnwilling) || len(f.released) > 0 {
		t.Errorf("%v, released %v", err, f.released)
	}
}

func TestNamesAreNeeded(t *testing.T) {
	if _, err := New(t.Context(), world(), "lab", "", Wanted{}, time.Now()); err == nil {
		t.Error("no identity, and no error")
	}
}
