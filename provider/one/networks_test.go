package one

import (
	"context"
	"errors"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"k8s.io/utils/ptr"

	"github.com/onelb/onelb/ipam"
)

const pool = `<VNET_POOL>
<VNET><ID>8</ID><NAME>k8s-lb</NAME><UNAME>k8s</UNAME></VNET>
<VNET><ID>4</ID><NAME>twice</NAME><UNAME>bob</UNAME></VNET>
<VNET><ID>3</ID><NAME>twice</NAME><UNAME>alice</UNAME></VNET>
<VNET><ID>31</ID><NAME>damaged</NAME><UNAME>alice</UNAME></VNET>
<VNET><ID>1</ID><NAME>public</NAME><UNAME>oneadmin</UNAME></VNET>
</VNET_POOL>`

func networkFrontEnd(t *testing.T) *frontEnd {
	t.Helper()
	documents := map[string]string{"1": "vnet-mixed", "3": "vnet-pairs", "8": "vnet-reservation"}
	return newFrontEnd(t, func(r request) string {
		switch r.method {
		case "one.vnpool.info":
			return okText(pool)
		case "one.vn.info":
			if name := documents[r.params[1]]; name != "" {
				return okText(testdata(t, name))
			}
			return failure(0x0400, "[one.vn.info] Error getting virtual network ["+r.params[1]+"].")
		}
		return okID(1)
	})
}

func TestFind(t *testing.T) {
	for _, c := range []struct {
		query ipam.NetworkQuery
		id    ipam.NetworkID
		want  error
		text  []string
	}{
		{ipam.NetworkQuery{Name: "public"}, 1, nil, nil},
		{ipam.NetworkQuery{ID: ptr.To[ipam.NetworkID](3)}, 3, nil, nil},
		{ipam.NetworkQuery{Name: "twice", Owner: "alice"}, 3, nil, nil},
		{ipam.NetworkQuery{Name: "twice"}, 0, ipam.ErrAmbiguous, []string{`"twice"`, "ID 3 owned by alice, ID 4 owned by bob"}},
		{ipam.NetworkQuery{Name: "twice", Owner: "carol"}, 0, ipam.ErrNotFound, []string{"carol"}},
		{ipam.NetworkQuery{Name: "Public"}, 0, ipam.ErrNotFound, []string{`"Public"`, "USE"}},
		{ipam.NetworkQuery{Name: "damaged"}, 0, ipam.ErrNotFound, []string{"database"}},
		{ipam.NetworkQuery{ID: ptr.To[ipam.NetworkID](4711)}, 0, ipam.ErrNotFound, []string{"4711"}},
	} {
		f := networkFrontEnd(t)
		n, err := f.client(Options{}).Find(context.Background(), c.query)
		if !errors.Is(err, c.want) || n.ID != c.id {
			t.Errorf("%+v: got %d, %v", c.query, n.ID, err)
		}
		for _, want := range c.text {
			if !strings.Contains(err.Error(), want) {
				t.Errorf("%q is missing in %q", want, err)
			}
		}
		for _, call := range f.calls("one.vnpool.info") {
			if diff := cmp.Diff([]string{"-2", "-1", "-1"}, call.params[1:]); diff != "" {
				t.Error(diff)
			}
		}
	}
}

func TestFindReservation(t *testing.T) {
	f := networkFrontEnd(t)
	c := f.client(Options{})
	n, err := c.FindReservation(context.Background(), "k8s-lb")
	if err != nil || n.ID != 8 || n.Parent != 1 {
		t.Fatalf("got %+v, %v", n, err)
	}
	if got := f.calls("one.vnpool.info")[0].params[1]; got != "-3" {
		t.Errorf("filter %s: only our own networks count", got)
	}
	if _, err := c.FindReservation(context.Background(), "k8s"); !errors.Is(err, ipam.ErrNotFound) {
		t.Errorf("got %v", err)
	}
	if _, err := c.FindReservation(context.Background(), "public"); !errors.Is(err, ipam.ErrExists) {
		t.Errorf("a network that is no reservation: %v", err)
	}
}

func TestHoldAndRelease(t *testing.T) {
	for _, c := range []struct{ address, want string }{
		{"10.12.0.210", "<TEMPLATE><LEASES><IP>10.12.0.210</IP></LEASES></TEMPLATE>"},
		{"::ffff:10.12.0.210", "<TEMPLATE><LEASES><IP>10.12.0.210</IP></LEASES></TEMPLATE>"},
		{"2001:DB8::0:5", "<TEMPLATE><LEASES><IP6>2001:db8::5</IP6></LEASES></TEMPLATE>"},
	} {
		f := networkFrontEnd(t)
		client := f.client(Options{})
		a := netip.MustParseAddr(c.address)
		if err := errors.Join(client.Hold(context.Background(), 1, a), client.Release(context.Background(), 1, a)); err != nil {
			t.Fatal(err)
		}
		for _, method := range []string{"one.vn.hold", "one.vn.release"} {
			calls := f.calls(method)
			if len(calls) != 1 {
				t.Fatalf("%s: %d calls", method, len(calls))
			}
			if diff := cmp.Diff([]string{"1", c.want}, calls[0].params[1:]); diff != "" {
				t.Error(diff)
			}
		}
	}
	for _, a := range []netip.Addr{{}, netip.MustParseAddr("fe80::1%eth0")} {
		f := networkFrontEnd(t)
		if f.client(Options{}).Release(context.Background(), 1, a) == nil || len(f.seen) > 0 {
			t.Errorf("release of %q was sent: OpenNebula would call it a success", a)
		}
	}
}

func TestAnnotateAppends(t *testing.T) {
	f := networkFrontEnd(t)
	c := f.client(Options{})
	if err := c.Annotate(context.Background(), 8, map[string]string{"ONELB_B": "2\"", "ONELB_A": "1"}); err != nil {
		t.Fatal(err)
	}
	want := []string{"8", "<TEMPLATE><ONELB_A>1</ONELB_A><ONELB_B>2&#34;</ONELB_B></TEMPLATE>", "1"}
	if diff := cmp.Diff(want, f.calls("one.vn.update")[0].params[1:]); diff != "" {
		t.Error(diff)
	}
	if err := c.Annotate(context.Background(), 8, nil); err != nil || len(f.seen) != 1 {
		t.Errorf("an empty annotation: %v, %d calls", err, len(f.seen))
	}
	if err := c.Annotate(context.Background(), 8, map[string]string{"A": "]]>"}); err == nil || len(f.seen) != 1 {
		t.Errorf("a value that cannot be stored: %v", err)
	}
}

func TestFreeAndDelete(t *testing.T) {
	f := networkFrontEnd(t)
	c := f.client(Options{})
	if err := c.FreeRange(context.Background(), 8, 1); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"8", "1"}, f.calls("one.vn.free_ar")[0].params[1:]); diff != "" {
		t.Error(diff)
	}
	if err := c.DeleteReservation(context.Background(), 1); err == nil || len(f.calls("one.vn.delete")) > 0 {
		t.Errorf("a network that is no reservation: %v", err)
	}
	if err := c.DeleteReservation(context.Background(), 8); err != nil || len(f.calls("one.vn.delete")) != 1 {
		t.Errorf("got %v", err)
	}
	if err := c.DeleteReservation(context.Background(), 4711); err != nil {
		t.Errorf("one that is gone: %v", err)
	}
}

func TestDeleteReservationStates(t *testing.T) {
	for state, want := range map[string]error{"2": ipam.ErrNotReady, "3": nil} {
		f := newFrontEnd(t, func(request) string {
			return okText("<VNET><ID>8</ID><STATE>" + state + "</STATE><PARENT_NETWORK_ID>1</PARENT_NETWORK_ID></VNET>")
		})
		if err := f.client(Options{}).DeleteReservation(context.Background(), 8); !errors.Is(err, want) || len(f.calls("one.vn.delete")) > 0 {
			t.Errorf("state %s: %v", state, err)
		}
	}
}
