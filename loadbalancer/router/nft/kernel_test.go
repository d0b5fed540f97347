package nft

import (
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"testing"

	"github.com/onelb/onelb/loadbalancer/router"
	"github.com/onelb/onelb/test/lab/ns"
)

// testNamespace makes a namespace of the test's own, also after an interrupted
// earlier run.
func testNamespace(tb testing.TB) *ns.Namespace {
	tb.Helper()
	if os.Geteuid() != 0 {
		tb.Skip("needs root")
	}
	name := fmt.Sprintf("onelb-nft-%d", os.Getpid())
	if err := ns.DeleteNamed(name); err != nil {
		tb.Fatal(err)
	}
	n, err := ns.New(name)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := n.Delete(); err != nil {
			tb.Error(err)
		}
	})
	return n
}

func nftList(tb testing.TB, n *ns.Namespace, args ...string) string {
	tb.Helper()
	out, err := exec.CommandContext(tb.Context(), "ip", append([]string{"netns", "exec", n.Name(), "nft"}, args...)...).CombinedOutput()
	if err != nil {
		tb.Fatalf("nft %v: %v\n%s", args, err, out)
	}
	return string(out)
}

func document(tb testing.TB, frontends int) router.Document {
	tb.Helper()
	d := router.Document{Cluster: "lab", Groups: []router.Group{
		{Name: "nodes4", Check: &router.Check{Port: 10256, Path: "/healthz"}, Members: []router.Member{
			{Address: netip.MustParseAddr("10.20.0.11"), Node: "node-1"},
			{Address: netip.MustParseAddr("10.20.0.12"), Node: "node-2"},
		}},
		{Name: "nodes6", Members: []router.Member{
			{Address: netip.MustParseAddr("fd00:20::11"), Node: "node-1"},
			{Address: netip.MustParseAddr("fd00:20::12"), Node: "node-2"},
		}},
	}}
	four, six := netip.MustParseAddr("203.0.113.100"), netip.MustParseAddr("2001:db8:113::100")
	for i := range frontends {
		if i > 0 && i%50 == 0 {
			four, six = four.Next(), six.Next()
		}
		f := router.Frontend{
			Address: four, Protocol: router.TCP, Port: uint16(80 + i%50), Service: fmt.Sprintf("default/web-%d", i),
			Group: "nodes4", BackendPort: uint16(30000 + i%2700),
		}
		if i%2 == 1 {
			f.Address, f.Group, f.Protocol = six, "nodes6", router.UDP
		}
		if i == 0 {
			f.SourceRanges = []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24"), netip.MustParsePrefix("192.0.2.0/25"), netip.MustParsePrefix("198.51.100.7/32")}
			f.SNAT = router.SNATAlways
		}
		d.Frontends = append(d.Frontends, f)
	}
	d = d.Normalize()
	if err := d.Validate(); err != nil {
		tb.Fatal(err)
	}
	return d
}

var testInput = Input{
	Inner:    []string{"eth1"},
	Networks: []netip.Prefix{netip.MustParsePrefix("10.20.0.0/24"), netip.MustParsePrefix("fd00:20::/64"), netip.MustParsePrefix("10.20.0.0/16")},
}

func planOf(documents ...router.Document) *Plan {
	in := testInput
	in.Documents = documents
	return New(in)
}

// TestKernelRoundTrip is the proof that what is read back equals what was
// written, on which edit and repair rely.
func TestKernelRoundTrip(t *testing.T) {
	n := testNamespace(t)
	k := Open(Options{NetNS: n.FD()})
	p := planOf(document(t, 4))
	if err := k.Apply(t.Context(), p); err != nil {
		t.Fatal(err)
	}
	found, err := k.read(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if found == nil {
		t.Fatalf("tables read back are not as they must be:\n%s", nftList(t, n, "list", "ruleset"))
	}
	if !equal(found, p) {
		t.Fatal("elements read back differ")
	}
}
