package doctor

import (
	"context"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/onelb/onelb/loadbalancer/inventory"
)

// rival is software that does what onelb does.
type rival struct {
	name   string
	image  *regexp.Regexp // of one of its containers
	unless func(w inventory.Workload) bool
	// ownClass: it serves Services of its own class only.
	ownClass func(w inventory.Workload) bool
}

func never(inventory.Workload) bool { return false }

var knownRivals = []rival{
	{name: "MetalLB", image: regexp.MustCompile(`(^|/)metallb/(controller|speaker)|metallb-(controller|speaker)`), unless: never, ownClass: flagged("--lb-class=")},
	{name: "kube-vip", image: regexp.MustCompile(`(^|/)kube-vip(:|@|$)|kube-vip/kube-vip(:|@|$)`), unless: func(w inventory.Workload) bool { return !w.Says("svc_enable=true") && !w.Says("--services") }, ownClass: func(w inventory.Workload) bool { return w.Says("lb_class_only=true") }},
	{name: "the kube-vip cloud provider", image: regexp.MustCompile(`kube-vip-cloud-provider`), unless: never, ownClass: never},
	{name: "OpenELB", image: regexp.MustCompile(`openelb`), unless: never, ownClass: never},
	{name: "PureLB", image: regexp.MustCompile(`purelb/(allocator|lbnodeagent)`), unless: never, ownClass: never},
	{name: "ServiceLB of k3s", image: regexp.MustCompile(`klipper-lb`), unless: never, ownClass: never},
}

// flagged reports whether a container has an argument that begins so and goes on.
func flagged(prefix string) func(inventory.Workload) bool {
	return func(w inventory.Workload) bool { return w.Value(prefix) != "" }
}

// rivals: other load balancers take the same Services, another
// cloud-controller-manager the same nodes.
func rivals(ctx context.Context, p *Patient) []Finding {
	all, err := inventory.Workloads(ctx, p.Clients.Kube)
	if err != nil {
		return []Finding{unknown("other-load-balancer", "Deployments and DaemonSets", err.Error())}
	}
	var out []Finding
	seen := map[string]bool{}
	for _, w := range all {
		for _, r := range knownRivals {
			if w.Runs(r.image) && !r.unless(w) && !seen[r.name] {
				seen[r.name] = true
				out = append(out, r.finding(w, p.Inventory))
			}
		}
		if provider := otherProvider(w); provider != "" {
			out = append(out, Finding{
				Check: "other-cloud-controller-manager", Severity: Error, About: w.String(),
				Meaning: fmt.Sprintf("it is another cloud-controller-manager (%s): the two compete for the initialisation of nodes, whose provider ID cannot be changed afterwards, and for Services", provider),
				Remedy:  "remove it, or run one of them without node controllers and with --default-class=false; addresses of OpenNebula's own one are taken over with onelbctl migrate opennebula-ccm",
			})
		}
	}
	return out
}

func (r rival) finding(w inventory.Workload, inv *inventory.Inventory) Finding {
	f := Finding{Check: "other-load-balancer", About: w.String(), Severity: Warning,
		Meaning: r.name + " runs here too: both give addresses to Services without loadBalancerClass, and the status of such a Service changes back and forth",
		Remedy:  "start onelb with --default-class=false and give its Services loadBalancerClass onelb.io/lb (docs/how-to/load-balancer-class.md), or move them, each with annotation onelb.io/address and its old address (for MetalLB, onelbctl migrate metallb does it); then remove " + r.name,
	}
	if r.ownClass(w) || !inv.DefaultClass() {
		f.Severity, f.Meaning, f.Remedy = Info, r.name+" runs here too; which Services are whose is said by their loadBalancerClass", "nothing"
	}
	return f
}

// ourProvider is the name with which our program is started.
const ourProvider = "opennebula"

// otherProvider names the provider of another cloud-controller-manager; empty if it is none.
func otherProvider(w inventory.Workload) string {
	if w.Namespace == inventory.Namespace && w.Name == inventory.Manager {
		return ""
	}
	for _, c := range w.Pod.Containers {
		for _, a := range append(slices.Clone(c.Command), c.Args...) {
			if name, ok := strings.CutPrefix(a, "--cloud-provider="); ok && name != "" && name != "external" {
				if name == ourProvider && !strings.Contains(c.Image, "cloud-provider-opennebula") {
					continue // ours, under another name
				}
				return name
			}
		}
		if strings.Contains(c.Image, "cloud-provider-opennebula") || strings.HasSuffix(w.Name, "cloud-controller-manager") {
			return c.Image
		}
	}
	return ""
}
