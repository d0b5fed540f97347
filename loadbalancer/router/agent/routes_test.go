package agent

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/onelb/onelb/loadbalancer/router"
	"github.com/onelb/onelb/test/lab/ns"
)

func route(to, gateway string) router.Route {
	return router.Route{Destination: netip.MustParsePrefix(to), Gateway: netip.MustParseAddr(gateway)}
}

// TestRoutes: they come with the document, also from disk, and only where they may.
func TestRoutes(t *testing.T) {
	b := newBench(t)
	b.start()
	c, other := b.client("lab", 1), b.client("other", 1)
	d := doc("lab", "203.0.113.100", 1)
	d.Routes = []router.Route{route("10.244.1.0/24", "10.20.0.11"), route("10.244.2.0/24", "10.20.0.12")}
	b.must(b.wait(c, c.Set(d)))
	b.kernelRoutes(d.Routes)
	if got := c.State().Instances[0].Routes; !slices.Contains(got, netip.MustParsePrefix("10.20.0.0/24")) {
		t.Errorf("the client knows of routes %v", got)
	}
	d.Routes = d.Routes[1:]
	b.must(b.wait(c, c.Set(d)))
	b.kernelRoutes(d.Routes)
	for name, r := range map[string]router.Route{
		"outside": route("10.20.1.0/24", "10.20.0.11"), "larger": route("10.0.0.0/8", "192.0.2.1"),
		"far gateway": route("10.244.3.0/24", "192.0.2.1"), "another cluster's": route("10.244.2.128/25", "10.20.0.11"),
	} {
		bad := doc("other", "203.0.113.101", 1)
		bad.Routes = []router.Route{r}
		var rejected *router.RejectedError
		if err := b.wait(other, other.Set(bad)); !errors.As(err, &rejected) || rejected.Reason != router.ReasonRoute || !strings.Contains(rejected.Message, r.String()) {
			t.Errorf("%s: %v", name, err)
		}
	}
	b.kernelRoutes(d.Routes)
	b.stop()
	b.kernel.routes = nil
	b.start()
	b.eventually("routes from disk", func() bool {
		b.kernel.mu.Lock()
		defer b.kernel.mu.Unlock()
		return slices.Equal(b.kernel.routes, d.Routes)
	})
}

func (b *bench) kernelRoutes(want []router.Route) {
	b.t.Helper()
	b.kernel.mu.Lock()
	defer b.kernel.mu.Unlock()
	if !slices.Equal(b.kernel.routes, want) {
		b.t.Errorf("routes %v, want %v", b.kernel.routes, want)
	}
}

// TestKernelRoutes: ours are changed, others' stay.
func TestKernelRoutes(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	name := fmt.Sprintf("onelb-routes-%d", os.Getpid())
	if err := ns.DeleteNamed(name); err != nil {
		t.Fatal(err)
	}
	n, err := ns.New(name)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = n.Delete() })
	run := func(batch string) {
		t.Helper()
		if out, err := ipBatch(t, name, batch); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
	}
	run("link add eth1 type veth peer name eth2\nlink set eth1 up\nlink set eth2 up\naddr add 10.20.0.1/24 dev eth1\naddr add fd00:20::1/64 dev eth1 nodad\n" +
		"route add 192.0.2.0/24 via 10.20.0.9\nroute add 0.0.0.0/0 via 10.20.0.9")
	k := KernelRoutes{}
	for _, want := range [][]router.Route{
		{route("10.244.1.0/24", "10.20.0.11"), route("fd00:244:1::/64", "fd00:20::11")},
		{route("10.244.1.0/24", "10.20.0.12"), route("10.244.2.0/24", "10.20.0.12"), route("fd00:244:1::/64", "fd00:20::12")},
		{route("10.244.2.0/24", "10.20.0.12")},
		{},
	} {
		var have []netip.Prefix
		err := n.Do(func() (err error) {
			for range 2 { // the second time nothing is to be done
				if err = k.Set(t.Context(), want); err != nil {
					return err
				}
			}
			have, err = k.List()
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		expect := []netip.Prefix{netip.MustParsePrefix("10.20.0.0/24"), netip.MustParsePrefix("192.0.2.0/24"), netip.MustParsePrefix("fd00:20::/64")}
		for _, r := range want {
			expect = append(expect, r.Destination)
		}
		if missing := slices.DeleteFunc(expect, func(p netip.Prefix) bool { return slices.Contains(have, p) }); len(missing) > 0 || len(have) != len(want)+3 {
			t.Errorf("routes to %v; missing %v", have, missing)
		}
		for _, r := range want {
			family := "-4"
			if r.Gateway.Is6() {
				family = "-6"
			}
			if out, err := ipCommand(t, name, family, "route", "show", r.Destination.String()); err != nil || !strings.Contains(out, "via "+r.Gateway.String()+" ") || strings.Count(out, "via") != 1 {
				t.Errorf("%s: %v\n%s", r, err, out)
			}
		}
	}
}

func ipCommand(t *testing.T, name string, args ...string) (string, error) {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "ip", append([]string{"-n", name}, args...)...).CombinedOutput()
	return string(out), err
}

func ipBatch(t *testing.T, name, batch string) (string, error) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "ip", "-n", name, "-batch", "-")
	cmd.Stdin = strings.NewReader(batch)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// TestElsewhere: a backend that replies past the router is hidden from clients,
// and the cluster is told.
func TestElsewhere(t *testing.T) {
	b := newBench(t)
	b.kernel.past = netip.MustParseAddr("10.20.0.11")
	b.start()
	c := b.client("lab", 1)
	d := doc("lab", "203.0.113.100", 1)
	b.must(b.wait(c, c.Set(d)))
	before := b.size().Elements
	says := func(c *router.Client, text string) bool {
		return strings.Contains(strings.Join(c.State().Instances[0].Problems, " "), text)
	}
	b.eventually("told", func() bool { return says(c, "from 10.20.0.11 (node-1): there, clients are hidden") })
	if got := b.size().Elements; got != before+1 {
		t.Errorf("%d elements, want one more than %d", got, before)
	}
	d.Frontends[0].SNAT = router.SNATAlways
	b.must(b.wait(c, c.Set(d)))
	b.eventually("no longer told", func() bool { return !says(c, "hidden") })
}
