package nft

import (
	"errors"
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

// testKernel writes to a namespace.
func testKernel(tb testing.TB, n *ns.Namespace) *Kernel {
	tb.Helper()
	k := Open(Options{NetNS: n.FD()})
	tb.Cleanup(func() {
		if err := k.Close(); err != nil {
			tb.Error(err)
		}
	})
	return k
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
	k := testKernel(t, n)
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

// TestEdits walks through many states; each must be in the kernel afterwards, and
// other tables must stay.
func TestEdits(t *testing.T) {
	n := testNamespace(t)
	nftList(t, n, "add table ip other")
	k := testKernel(t, n)
	for i, size := range []int{0, 4, 1000, 999, 5, 0, 2000} {
		d := document(t, size)
		if i%2 == 1 {
			d.Groups[0].Members = d.Groups[0].Members[:1]
			for j := range d.Frontends {
				d.Frontends[j].BackendPort++
			}
		}
		p := planOf(d)
		if err := k.Apply(t.Context(), p); err != nil {
			t.Fatalf("%d frontends: %v", size, err)
		}
		verify(t, k, p)
		if changed, err := k.Repair(t.Context()); changed || err != nil {
			t.Fatalf("%d frontends: repair without a cause: %v, %v", size, changed, err)
		}
	}
	if out := nftList(t, n, "list tables"); out != "table ip other\ntable ip onelb\ntable ip6 onelb\n" {
		t.Errorf("tables:\n%s", out)
	}
	if err := k.Remove(); err != nil {
		t.Fatal(err)
	}
	if out := nftList(t, n, "list tables"); out != "table ip other\n" {
		t.Errorf("tables after the removal:\n%s", out)
	}
}

func verify(t *testing.T, k *Kernel, want *Plan) {
	t.Helper()
	found, err := k.read(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if found == nil || !equal(found, want) {
		t.Fatalf("kernel holds\n%v\nwant\n%s", found, want)
	}
}

// TestRepair undoes whatever others do to our tables.
func TestRepair(t *testing.T) {
	n := testNamespace(t)
	k := testKernel(t, n)
	p := planOf(document(t, 6))
	if err := k.Apply(t.Context(), p); err != nil {
		t.Fatal(err)
	}
	for _, damage := range []string{
		"delete table ip onelb",
		"flush ruleset",
		"delete table ip6 onelb; delete table ip onelb",
		"flush chain ip onelb postrouting",
		"add rule ip onelb prerouting accept",
		"insert rule ip6 onelb input drop",
		"add chain ip onelb extra",
		"add set ip onelb extra { type ipv4_addr; }",
		"delete element ip onelb ports { 203.0.113.100 . tcp . 80 }",
		"add element ip onelb frontends { 203.0.113.200 . tcp . 80 : 1 }",
		"delete element ip onelb allowed { 203.0.113.100 . tcp . 80 . 192.0.2.0/24 }",
		"add table ip onelb { flags dormant; }",
		"add chain ip onelb input { policy drop; }",
	} {
		nftList(t, n, damage)
		changed, err := k.Repair(t.Context())
		if err != nil {
			t.Fatalf("%s: %v", damage, err)
		}
		if !changed {
			t.Errorf("%s: not noticed", damage)
		}
		verify(t, k, p)
	}
	nftList(t, n, "add table ip other")
	if changed, err := k.Repair(t.Context()); changed || err != nil {
		t.Errorf("change to another table: %v, %v", changed, err)
	}
}

// TestApplyAfterDamage: the next change works although the kernel is not as remembered.
func TestApplyAfterDamage(t *testing.T) {
	n := testNamespace(t)
	k := testKernel(t, n)
	for i, damage := range []string{
		"flush ruleset",
		"delete element ip onelb ports { 203.0.113.100 . tcp . 80 }",
		"add element ip onelb addresses { 203.0.113.101 }",
	} {
		if err := k.Apply(t.Context(), planOf(document(t, 4))); err != nil {
			t.Fatal(err)
		}
		nftList(t, n, damage)
		// It touches what was damaged: the frontends of 4 go, those of 200 come.
		d := document(t, 200+i)
		d.Frontends = d.Frontends[3:]
		p := planOf(d)
		if err := k.Apply(t.Context(), p); err != nil {
			t.Fatalf("%s: %v", damage, err)
		}
		if _, err := k.Repair(t.Context()); err != nil {
			t.Fatal(err)
		}
		verify(t, k, p)
	}
}

// TestRefusedTransaction: one bad element in the middle, and nothing has changed.
func TestRefusedTransaction(t *testing.T) {
	n := testNamespace(t)
	k := testKernel(t, n)
	p := planOf(document(t, 4))
	if err := k.Apply(t.Context(), p); err != nil {
		t.Fatal(err)
	}
	bad := planOf(document(t, 3000))
	e := bad.tables[0][ports]
	e[len(e)/2].val = "\x01\x02\x03\x04" // of another length than the map's
	err := k.Apply(t.Context(), bad)
	if !errors.Is(err, ErrRefused) {
		t.Fatalf("error %v, want a refusal", err)
	}
	verify(t, k, p)
	if err := k.Apply(t.Context(), planOf(document(t, 10))); err != nil {
		t.Fatal(err)
	}
}

// TestRestart: a new Kernel takes over what an earlier one left, without a new table.
func TestRestart(t *testing.T) {
	n := testNamespace(t)
	if err := testKernel(t, n).Apply(t.Context(), planOf(document(t, 100))); err != nil {
		t.Fatal(err)
	}
	before := nftList(t, n, "-a", "list", "table", "ip", "onelb")
	k := testKernel(t, n)
	p := planOf(document(t, 100))
	if err := k.Apply(t.Context(), p); err != nil {
		t.Fatal(err)
	}
	if after := nftList(t, n, "-a", "list", "table", "ip", "onelb"); after != before {
		t.Error("the table was replaced although nothing differs")
	}
	verify(t, k, p)
}
