package policy

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// goca is OpenNebula's Go client.
const goca = "github.com/OpenNebula/one/src/oca/go"

// direction lists, per directory, which of our directories it must not import.
// cmd → provider → loadbalancer → ipam; api is at the bottom beside ipam.
var direction = []struct {
	dir    string
	denied []string
	reason string
}{
	{"provider", []string{"cmd"}, "commands are the outermost layer"},
	{"loadbalancer", []string{"cmd", "provider"}, "nothing points back: declare a small interface here and let provider implement it"},
	{"ipam", []string{"cmd", "provider", "loadbalancer", "api"}, "ipam knows neither Kubernetes nor OpenNebula's client: it declares the interfaces that others implement"},
	{"api", []string{"cmd", "provider", "loadbalancer", "ipam"}, "the API types are data for everybody and depend on nobody"},
	{"cmd", []string{"test"}, "product code does not depend on test code"},
	{"provider", []string{"test"}, "product code does not depend on test code"},
	{"loadbalancer", []string{"test"}, "product code does not depend on test code"},
	{"ipam", []string{"test"}, "product code does not depend on test code"},
	{"api", []string{"test"}, "product code does not depend on test code"},
}

// sole lists packages that one directory alone may import.
// Several lines for one package allow several directories.
var sole = []struct{ pkg, dir, reason string }{
	{goca, "provider/one", "deadlines, the number of connections and OpenNebula's error codes are handled in one place"},
	{"github.com/osrg/gobgp", "loadbalancer/bgp", "one package knows the library's traps, and the rest stays testable without it"},
	{"github.com/google/nftables", "loadbalancer/router/nft", "one package for each table owns it alone, and the rest stays testable without it"},
	{"github.com/google/nftables", "loadbalancer/announcer/arpfilter", "one package for each table owns it alone, and the rest stays testable without it"},
}

// badImports returns the violations of direction and sole by one file.
func badImports(s source) []string {
	if s.isTest() {
		return nil
	}
	var out []string
	for _, imported := range s.imports() {
		for _, rule := range direction {
			for _, denied := range rule.denied {
				if within(s.path, rule.dir) && within(imported, module+"/"+denied) {
					out = append(out, fmt.Sprintf("%s imports %s: %s", s.path, imported, rule.reason))
				}
			}
		}
		reasons, allowed := "", false
		for _, rule := range sole {
			if within(imported, rule.pkg) {
				reasons = fmt.Sprintf("which is for other packages: %s", rule.reason)
				allowed = allowed || within(s.path, rule.dir)
			}
		}
		if reasons != "" && !allowed {
			out = append(out, fmt.Sprintf("%s imports %s, %s", s.path, imported, reasons))
		}
	}
	return out
}

func TestImportDirection(t *testing.T) {
	for _, s := range sources(t) {
		report(t, badImports(s))
	}
}

func TestImportDirectionRulesBite(t *testing.T) {
	for _, c := range []struct {
		path, imported string
		bad            bool
	}{
		{"loadbalancer/service.go", module + "/provider/one", true},
		{"loadbalancer/service_test.go", module + "/provider/one", false},
		{"ipam/pool.go", module + "/api/v1alpha1", true},
		{"ipam/pool.go", goca, true},
		{"provider/one/client.go", goca + "/goca", false},
		{"provider/instances/instances.go", goca + "/goca", true},
		{"loadbalancer/router/nft/table.go", "github.com/google/nftables/expr", false},
		{"loadbalancer/announcer/addr/addr.go", "github.com/google/nftables", true},
		{"loadbalancer/announcer/arpfilter/table.go", "github.com/google/nftables", false},
		{"cmd/onelb-node/main.go", module + "/test/lab", true},
		{"provider/cloud.go", module + "/loadbalancer", false},
	} {
		s := parse(t, c.path, "package x\n\nimport _ \""+c.imported+"\"\n")
		if got := len(badImports(s)) > 0; got != c.bad {
			t.Errorf("%s importing %s: violation %v, want %v", c.path, c.imported, got, c.bad)
		}
	}
}

// graphs are the rules about whole dependency graphs.
var graphs = []struct {
	pkg     string
	denied  []string
	allowed []string
	reason  string
}{
	{
		"./ipam/...",
		[]string{"k8s.io", goca, module + "/api"},
		[]string{"k8s.io/klog"},
		"ipam knows neither Kubernetes nor OpenNebula's client, so its model test can run it alone",
	},
	{
		"./cmd/onelb-router",
		[]string{"k8s.io", "sigs.k8s.io", goca, module + "/api"},
		[]string{"k8s.io/klog"},
		"the router agent runs outside the cluster and stays small: it carries no Kubernetes client",
	},
	{
		"./loadbalancer/router/agent",
		[]string{"k8s.io", "sigs.k8s.io", goca, module + "/api"},
		[]string{"k8s.io/klog"},
		"the router agent runs outside the cluster and stays small: it carries no Kubernetes client",
	},
	{
		"./cmd/opennebula-cloud-controller-manager",
		[]string{"golang.org/x/net/trace"},
		nil,
		"its pages are templates, which call methods by name: the linker would keep every exported method, and the program be half as large again",
	},
	{
		"./cmd/onelb-node",
		[]string{goca},
		nil,
		"the node agent works while oned is down: it never talks to OpenNebula",
	},
	{
		"./cmd/onelb-node",
		[]string{"k8s.io/client-go/kubernetes", "k8s.io/client-go/informers"},
		nil,
		"client-go's clientset brings the types of all of Kubernetes, 15 MiB on each node: see node/kube.go",
	},
}

// deniedIn returns the packages of a dependency graph that a rule denies.
func deniedIn(deps, denied, allowed []string) []string {
	under := func(pkg string, dirs []string) bool {
		return slices.ContainsFunc(dirs, func(dir string) bool { return within(pkg, dir) })
	}
	return slices.DeleteFunc(slices.Clone(deps), func(pkg string) bool {
		return !under(pkg, denied) || under(pkg, allowed)
	})
}

func TestDependencyGraphs(t *testing.T) {
	for _, g := range graphs {
		t.Run(g.pkg, func(t *testing.T) {
			cmd := exec.CommandContext(t.Context(), "go", "list", "-deps", g.pkg)
			cmd.Dir = root
			cmd.Env = append(os.Environ(), "GOFLAGS="+buildFlags(t))
			var stderr bytes.Buffer
			cmd.Stderr = &stderr
			out, err := cmd.Output()
			if err != nil {
				t.Fatalf("go list -deps %s: %v\n%s", g.pkg, err, stderr.String())
			}
			for _, pkg := range deniedIn(strings.Fields(string(out)), g.denied, g.allowed) {
				t.Errorf("%s depends on %s (go mod why -m, or go list -deps -json, says how): %s", g.pkg, pkg, g.reason)
			}
		})
	}
}

// buildFlags are the GOFLAGS with which programs are built for a release.
func buildFlags(t *testing.T) string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(root, "Makefile"))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(data)) {
		if flags, ok := strings.CutPrefix(line, "export GOFLAGS := "); ok {
			return strings.TrimSpace(flags)
		}
	}
	t.Fatal("the Makefile exports no GOFLAGS")
	return ""
}

func TestDependencyGraphRulesBite(t *testing.T) {
	deps := []string{"fmt", "k8s.io/klog/v2", "k8s.io/client-go/kubernetes", module + "/api/v1alpha1"}
	got := deniedIn(deps, []string{"k8s.io", module + "/api"}, []string{"k8s.io/klog"})
	if want := []string{"k8s.io/client-go/kubernetes", module + "/api/v1alpha1"}; !slices.Equal(got, want) {
		t.Errorf("denied %v, want %v", got, want)
	}
}
