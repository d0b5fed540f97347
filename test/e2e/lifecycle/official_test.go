package lifecycle

import (
	"context"
	"errors"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"

	"github.com/onelb/onelb/ipam"
	"github.com/onelb/onelb/provider/one"
	"github.com/onelb/onelb/test/e2e/kit"
	"github.com/onelb/onelb/test/lab"
)

// fromOfficial: what OpenNebula's own cloud-controller-manager leaves in OpenNebula,
// a reservation with one range for each Service, becomes that of an AddressPool.
func fromOfficial(t *testing.T, w *kit.World) {
	front := client(w)
	keeps := map[string]netip.Addr{"first": addr("10.20.0.160"), "second": addr("10.20.0.161")}
	id := ipam.NoNetwork
	for _, name := range []string{"first", "second"} {
		w.Create(web, name, kit.V4)
		shows(w, name, keeps[name])
		id = officialRange(w, front, id, lab.ClusterName+"-default-"+name, keeps[name])
	}
	watched := guard(w, keeps)
	migrate := func(args ...string) (string, error) {
		return w.Ctl(w.Context(), append([]string{"migrate", "opennebula-ccm", "--cloud-config", w.CloudConfig()}, args...)...)
	}
	if out, err := migrate(); err != nil || !containsAll(out, "AddressPool lb is made", "keeps 10.20.0.160", "2 Services to be moved, 0 stay", "Nothing was changed") {
		t.Fatalf("%v\n%s", err, out)
	}
	if out, err := migrate("--pool", "other"); err != nil || !strings.Contains(out, "onevnet rename") {
		t.Fatalf("%v\n%s", err, out)
	}
	if out, err := migrate("--apply"); err != nil || !strings.Contains(out, "All Services are onelb's") {
		t.Fatalf("%v\n%s", err, out)
	}
	if out, err := migrate("--apply"); err != nil || !strings.Contains(out, "0 Services to be moved, 0 stay where they are, 2 are onelb's") {
		t.Fatalf("%v\n%s", err, out)
	}
	watched()
	for name, a := range keeps {
		w.Shows(name, a)
		w.Answers(web, name, a)
	}
	n, err := front.Get(w.Context(), id)
	w.Must(err)
	if n.Attributes[ipam.AttributePool] != "lb" || n.Attributes[ipam.AttributeClusterUID] == "" {
		t.Errorf("the reservation says %v", n.Attributes)
	}
	w.Patch("lb", `{"autoAssign":false,"quarantine":"1s"}`)
	w.Remove("first", "second")
}

// client is one of OpenNebula, as the cluster's user.
func client(w *kit.World) *one.Client {
	w.T.Helper()
	server := httptest.NewServer(w.OneSim().Handler())
	w.T.Cleanup(server.Close)
	front, err := one.New(one.Options{Endpoint: server.URL + "/RPC2", Credentials: one.CredentialFile(w.Credentials())})
	w.Must(err)
	return front
}

// reserve cuts one address of the private network out, into a reservation of a name.
func reserve(w *kit.World, front *one.Client, into ipam.NetworkID, name string, a netip.Addr) ipam.NetworkID {
	w.T.Helper()
	parent, err := front.Get(w.Context(), ipam.NetworkID(w.OneSim().PrivateVNet))
	w.Must(err)
	request := ipam.ReserveRequest{Parent: parent.ID, Name: name, Into: into, Size: 1, First: a}
	for _, r := range parent.Ranges {
		if _, inside := (ipam.Network{Ranges: []ipam.Range{r}}).Covers(ipam.AddressRange{Start: a, End: a}); inside {
			request.Range = r.ID
		}
	}
	id, err := front.Reserve(w.Context(), request)
	w.Must(err)
	w.Eventually("the reservation to be made", func(ctx context.Context) error {
		n, err := front.Get(ctx, id)
		if err == nil && !n.Ready {
			err = errors.New(n.State)
		}
		return err
	})
	return id
}

// officialRange reserves one address as that program does: a range that names the
// Service, and a hold.
func officialRange(w *kit.World, front *one.Client, into ipam.NetworkID, name string, a netip.Addr) ipam.NetworkID {
	w.T.Helper()
	id := reserve(w, front, into, lab.ClusterName+"-lb", a)
	n, err := front.Get(w.Context(), id)
	w.Must(err)
	for _, r := range n.Ranges {
		if r.First4 == a {
			w.Must(front.AnnotateRange(w.Context(), id, r.ID, map[string]string{"LB_NAME": name}))
		}
	}
	w.Must(front.Hold(w.Context(), id, a))
	return id
}
