package addr_test

import (
	"net/netip"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/onelb/onelb/loadbalancer/announcer/addr"
)

// TestProxies: ours come and go, others' stay.
func TestProxies(t *testing.T) {
	n, table := host(t)
	ip := func(args ...string) string {
		t.Helper()
		out, err := exec.CommandContext(t.Context(), "ip", append([]string{"-n", n.Name()}, args...)...).CombinedOutput()
		if err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		return string(out)
	}
	ip("neigh", "add", "proxy", "192.0.2.1", "dev", "eth0")
	ip("neigh", "add", "198.51.100.1", "lladdr", "02:00:00:00:00:01", "dev", "eth0")
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	index := eth0(t, table).Index
	want := []addr.Entry{
		{Address: netip.MustParseAddr("203.0.113.100"), Index: index},
		{Address: netip.MustParseAddr("2001:db8:113::100"), Index: index},
	}
	for _, e := range want {
		for range 2 { // the second time nothing is to be done
			must(table.AddProxy(e))
		}
	}
	got, err := table.Proxies()
	must(err)
	if !slices.Equal(got, want) {
		t.Errorf("proxy entries %v, want %v", got, want)
	}
	for _, e := range want {
		for range 2 {
			must(table.RemoveProxy(e))
		}
	}
	got, err = table.Proxies()
	must(err)
	if out := ip("neigh", "show", "proxy"); len(got) > 0 || !strings.Contains(out, "192.0.2.1 dev eth0") {
		t.Errorf("left are %v and\n%s", got, out)
	}
}
