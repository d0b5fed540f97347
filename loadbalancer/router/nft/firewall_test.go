package nft

import (
	"net/netip"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"

	"github.com/onelb/onelb/loadbalancer/router"
	"github.com/onelb/onelb/test/lab/debian"
	"github.com/onelb/onelb/test/lab/kubebin"
	"github.com/onelb/onelb/test/lab/ns"
)

// firewallWorld has interfaces eth0 and eth1, for rules that name them by number.
func firewallWorld(t *testing.T) (*ns.Namespace, *Kernel, []Traffic) {
	t.Helper()
	n := testNamespace(t)
	links := map[string]Link{}
	err := n.Do(func() error {
		if err := netlink.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "eth0"}, PeerName: "eth1"}); err != nil {
			return err
		}
		for _, name := range []string{"eth0", "eth1"} {
			link, err := netlink.LinkByName(name)
			if err != nil {
				return err
			}
			links[name] = Link{Name: name, Index: link.Attrs().Index}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return n, testKernel(t, n), []Traffic{
		{In: links["eth0"], Out: links["eth1"], Protocol: router.TCP, Backend: netip.MustParseAddrPort("10.20.0.11:30080")},
		{In: links["eth0"], Out: links["eth1"], Protocol: router.UDP, Backend: netip.MustParseAddrPort("[fd00:20::11]:30053")},
	}
}

const (
	v4 = "TCP from eth0 to 10.20.0.11:30080 on eth1"
	v6 = "UDP from eth0 to [fd00:20::11]:30053 on eth1"
)

// TestFirewalls: what drops our traffic for certain is reported, what lets it pass, or
// may, is not; and nothing of it is changed.
func TestFirewalls(t *testing.T) {
	n, k, traffic := firewallWorld(t)
	if err := k.Apply(t.Context(), New(Input{Documents: []router.Document{document(t, 2)}})); err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct {
		rules string // of chain fw, which has policy drop
		want  []string
	}{
		"nothing but the policy":     {"", []string{v4, v6}},
		"only what is established":   {"ct state established,related accept", []string{v4, v6}},
		"only what is established 2": {"ct state vmap { established : accept, related : accept, invalid : drop }", []string{v4, v6}},
		"from inside alone":          {`iifname "eth1" accept; ct state established accept`, []string{v4, v6}},
		"from inside by number":      {`iif "eth1" accept`, []string{v4, v6}},
		"other ports":                {"tcp dport { 22, 80 } accept; udp dport 53 accept", []string{v4, v6}},
		"one family":                 {"meta nfproto ipv4 accept", []string{v6}},
		"one protocol":               {"meta l4proto tcp accept", []string{v6}},
		"one backend":                {"ip daddr 10.20.0.11 accept", []string{v6}},
		"its network":                {"ip daddr 10.20.0.0/24 accept; ip6 daddr fd00:20::/64 accept", nil},
		"its ports":                  {"tcp dport 30000-32767 accept; udp dport 30053 accept", nil},
		"its port among others":      {"tcp dport { 80, 30080 } accept; udp dport { 53, 30053 } accept", nil},
		"what was translated":        {"ct status dnat accept", nil},
		"the way in":                 {`iifname "eth0" oifname "eth1" ct state new accept`, nil},
		"the way in by number":       {`iif "eth0" oif "eth1" accept`, nil},
		"some clients":               {"ip saddr 198.51.100.0/24 accept; ip6 saddr 2001:db8::/32 accept", nil},
		"up to a limit":              {"limit rate 10/second accept", nil},
		"in another chain":           {"jump more", nil},
		"dropped before":             {"meta l4proto udp drop; accept", []string{v6}},
		"marked":                     {"meta mark 7 accept", nil},
		"refused":                    {"reject", []string{v4, v6}},
		"returned before":            {`iifname "eth0" return; accept`, []string{v4, v6}},
		"logged and counted":         {`counter log prefix "x"`, []string{v4, v6}},
	} {
		nftList(t, n, "add table inet other; flush table inet other; add chain inet other more; add rule inet other more ct status dnat accept; "+
			"add chain inet other fw { type filter hook forward priority 0; policy drop; }")
		for rule := range strings.SplitSeq(test.rules, ";") {
			if rule = strings.TrimSpace(rule); rule != "" {
				nftList(t, n, "add rule inet other fw "+rule)
			}
		}
		before := nftList(t, n, "list", "ruleset")
		err := k.Firewalls(t.Context(), traffic)
		var got []string
		for _, what := range []string{v4, v6} {
			if err != nil && strings.Contains(err.Error(), what) {
				got = append(got, what)
			}
		}
		if strings.Join(got, ";") != strings.Join(test.want, ";") || (err == nil) != (len(test.want) == 0) {
			t.Errorf("%s: %v, want %v", name, err, test.want)
		}
		if err != nil && !strings.Contains(err.Error(), "chain fw of table inet other") {
			t.Errorf("%s: error %v", name, err)
		}
		if after := nftList(t, n, "list", "ruleset"); after != before {
			t.Errorf("%s: the ruleset was changed:\n%s", name, after)
		}
	}
	nftList(t, n, "flush table inet other; add rule inet other fw meta nfproto ipv4 drop; chain inet other fw { policy accept; }")
	if err := k.Firewalls(t.Context(), traffic); err == nil || strings.Contains(err.Error(), v6) {
		t.Errorf("a rule that drops under policy accept: %v", err)
	}
	nftList(t, n, "add table inet other { flags dormant; }")
	if err := k.Firewalls(t.Context(), traffic); err != nil {
		t.Errorf("a dormant table: %v", err)
	}
}

// TestFirewallsIPTables: the same with what iptables makes of it.
func TestFirewallsIPTables(t *testing.T) {
	n, k, traffic := firewallWorld(t)
	cache, err := kubebin.CacheDir()
	if err != nil {
		t.Fatal(err)
	}
	multi, err := debian.Find(t.Context(), cache, "xtables-nft-multi", "iptables")
	if err != nil {
		t.Fatal(err)
	}
	iptables := func(args string) {
		t.Helper()
		cmd := exec.CommandContext(t.Context(), multi.Path, append([]string{"iptables"}, strings.Fields(args)...)...)
		cmd.Env = multi.Env()
		for _, lib := range multi.LibDirs {
			cmd.Env = append(cmd.Env, "XTABLES_LIBDIR="+filepath.Join(lib, "xtables"))
		}
		out := &strings.Builder{}
		cmd.Stdout, cmd.Stderr = out, out
		if err := n.Do(cmd.Start); err != nil {
			t.Fatal(err)
		}
		if err := cmd.Wait(); err != nil {
			t.Fatalf("iptables %s: %v: %s", args, err, out)
		}
	}
	reported := func(when string, want bool) {
		t.Helper()
		err := k.Firewalls(t.Context(), traffic)
		if got := err != nil && strings.Contains(err.Error(), v4); got != want || err != nil && strings.Contains(err.Error(), v6) {
			t.Errorf("%s: %v", when, err)
		}
	}
	iptables("-P FORWARD DROP")
	reported("policy", true)
	iptables("-A FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT")
	iptables("-A FORWARD -i eth1 -o eth0 -j ACCEPT")
	iptables("-A FORWARD -p tcp --dport 443 -m comment --comment web -j ACCEPT")
	iptables("-A FORWARD -j LOG")
	reported("rules for other traffic", true)
	iptables("-A FORWARD -m conntrack --ctstate DNAT -j ACCEPT")
	reported("what was translated passes", false)
	iptables("-F FORWARD")
	iptables("-A FORWARD -p tcp --dport 30000:32767 -j ACCEPT")
	reported("its ports pass", false)
	iptables("-F FORWARD")
	iptables("-P FORWARD ACCEPT")
	iptables("-A FORWARD -i eth0 -j REJECT")
	reported("refused", true)
}
