package ipvs_test

import (
	"context"
	"flag"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/onelb/onelb/test/lab"
	"github.com/onelb/onelb/test/lab/kubebin"
	"github.com/onelb/onelb/test/lab/labtest"
	"github.com/onelb/onelb/test/vm"
)

var machine = flag.Bool("vm", false, "start the virtual machine; without it, nothing is tested")

const (
	// limit is for all that happens in the machine. Emulated, it needs about a
	// quarter of that on two cores.
	limit = 40 * time.Minute
	// source and built are where the machine has what the lab looks for in a clone
	// of the repository and in the cache.
	source, built = "/onelb", "/built"
)

func TestMain(m *testing.M) {
	vm.Init()
	if !vm.Inside() {
		os.Exit(m.Run())
	}
	os.Exit(labtest.Run(m, lab.Options{
		Name: "ipvs", Programs: true, ProxyMode: lab.IPVS,
		AddressLifetime: 10 * time.Second, Slowness: 10, Progress: os.Stdout,
	}))
}

// TestInMachine runs the other tests of this file's package in a virtual machine,
// with the lab that they need.
func TestInMachine(t *testing.T) {
	if vm.Inside() || !*machine {
		t.Skip("the virtual machine is started by make vm only")
	}
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	began := time.Now()
	status, err := vm.Run(ctx, options(ctx, t))
	if err != nil || status != 0 {
		t.Errorf("the tests in the machine ended with status %d: %v", status, err)
	}
	t.Logf("the machine ran for %s", time.Since(began).Round(time.Second))
}

func options(ctx context.Context, t *testing.T) vm.Options {
	t.Helper()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	cache, err := kubebin.CacheDir()
	must(err)
	root, err := kubebin.ModuleRoot()
	must(err)
	kube, err := kubebin.Build(ctx, os.Stderr)
	must(err)
	self, err := os.Executable()
	must(err)
	t.Setenv("CGO_ENABLED", "0") // the machine has the libraries of its tools only
	bin := t.TempDir()
	must(kubebin.Programs(ctx, bin, false, os.Stderr, lab.Sources()...))

	o := vm.Options{
		Program:   self,
		Args:      []string{"-test.v", "-test.timeout=" + limit.String(), "-test.failfast"},
		Env:       []string{kubebin.BuiltVariable + "=" + built},
		Directory: source,
		Files: map[string]string{
			source + "/go.mod":         filepath.Join(root, "go.mod"),
			source + "/manifests/base": filepath.Join(root, "manifests", "base"),
			built + "/kube/kube":       filepath.Join(kube, "kube"),
			built + "/bin":             bin,
		},
		Links: map[string]string{},
		Tools: []vm.Tool{
			{Name: "nft", Package: "nftables"},
			{Name: "ipset", Package: "ipset"},
			{Name: "xtables-nft-multi", Package: "iptables", Plugins: "xtables"},
		},
		// kube-proxy loads modules only if it finds a program for that beside it.
		Modules:    []string{"ip_vs", "ip_vs_rr", "ip_vs_sh", "ip_vs_wrr", "nf_conntrack", "dummy"},
		Memory:     4096,
		Processors: 2,
		Cache:      cache,
		Output:     os.Stderr,
	}
	for _, name := range kubebin.Names() {
		o.Links[built+"/kube/"+name] = "kube"
	}
	return o
}
