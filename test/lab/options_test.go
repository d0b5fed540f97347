package lab

import (
	"errors"
	"strings"
	"testing"
)

func TestOptions(t *testing.T) {
	tests := []struct {
		name string
		in   Options
		want string // in the error, "" for none
	}{
		{"zero", Options{}, ""},
		{"name", Options{Name: "two-2"}, ""},
		{"upper case", Options{Name: "Lab"}, "name"},
		{"slash", Options{Name: "../x"}, "name"},
		{"long", Options{Name: strings.Repeat("a", 21)}, "name"},
		{"host in name", Options{Name: "a-node-1"}, "name of a host"},
		{"too many nodes", Options{Nodes: 81}, "nodes"},
		{"negative", Options{Nodes: -1}, "nodes"},
		{"too many routers", Options{Routers: 9}, "routers"},
		{"userspace", Options{ProxyMode: "userspace"}, "proxy mode"},
		{"fast", Options{Slowness: -1}, "slowness"},
		{"relative", Options{Dir: "here"}, "directory"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := tt.in.complete()
			if err != nil && !errors.Is(err, ErrOptions) {
				t.Errorf("error %v is not %v", err, ErrOptions)
			}
			text := ""
			if err != nil {
				text = strings.ReplaceAll(err.Error(), "network namespaces need root", "")
			}
			if tt.want == "" && strings.Trim(strings.TrimPrefix(text, ErrOptions.Error()), ": ") != "" || !strings.Contains(text, tt.want) {
				t.Errorf("error %q; want %q in it", text, tt.want)
			}
		})
	}
}

func TestOwnsNamespace(t *testing.T) {
	tests := []struct {
		lab, namespace string
		want           bool
	}{
		{"a", "onelb-a-switch", true},
		{"a", "onelb-a-node-12", true},
		{"a", "onelb-a-pod-default-web-1", true},
		{"a", "onelb-a-b-switch", false},
		{"a", "onelb-a-b-node-1", false},
		{"a-b", "onelb-a-b-node-1", true},
		{"a", "onelb-a-lanes", false},
	}
	for _, tt := range tests {
		if got := ownsNamespace(tt.lab, tt.namespace); got != tt.want {
			t.Errorf("lab %s owns %s: %v; want %v", tt.lab, tt.namespace, got, tt.want)
		}
	}
}

// TestAddresses holds that no two machines share an address, up to the largest lab,
// and that a machine's addresses lie in its networks.
func TestAddresses(t *testing.T) {
	seen := map[string]string{}
	for i := 1; i <= maxNodes; i++ {
		for _, a := range append(privateNode(i), mgmtNode(i)...) {
			note(t, seen, a.String(), "node")
		}
		for k := 1; k <= 200; k++ {
			for f, a := range podAddrs(i, k) {
				note(t, seen, a.String(), "pod")
				if !podCIDRs(i)[f].Contains(a) {
					t.Errorf("pod address %s is outside %s", a, podCIDRs(i)[f])
				}
			}
		}
		for _, a := range podGateway(i) {
			note(t, seen, a.String(), "gateway")
		}
	}
	for i := 1; i <= maxRouters; i++ {
		for _, a := range append(append(publicRouter(i), privateRouter(i)...), mgmtRouter(i)...) {
			note(t, seen, a.String(), "router")
		}
	}
	for _, a := range []string{"10.20.0.100", "fd00:20::100", "10.20.0.250", "fd00:20::250", ControlAddr.String()} {
		note(t, seen, a, "reserved")
	}
	if mac := macFor(privateNode(1)).String(); mac != "02:00:0a:14:00:0b" {
		t.Errorf("MAC of node 1 is %s", mac)
	}
}

func note(t *testing.T, seen map[string]string, addr, who string) {
	t.Helper()
	if other := seen[addr]; other != "" {
		t.Errorf("%s belongs to a %s and a %s", addr, other, who)
	}
	seen[addr] = who
}
