package doctor

import (
	"context"
	"fmt"
	"regexp"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/onelb/onelb/cmd/onelbctl/inventory"
)

// workload is a Deployment or a DaemonSet of the cluster.
type workload struct {
	kind, namespace, name string
	pod                   corev1.PodSpec
}

func (w workload) String() string { return fmt.Sprintf("%s %s/%s", w.kind, w.namespace, w.name) }

// says reports whether a container has the word in its command, arguments or
// environment (as NAME=value).
func (w workload) says(word string) bool {
	for _, c := range w.pod.Containers {
		if slices.Contains(c.Command, word) || slices.Contains(c.Args, word) {
			return true
		}
		for _, e := range c.Env {
			if e.Name+"="+e.Value == word {
				return true
			}
		}
	}
	return false
}

// rival is software that does what onelb does.
type rival struct {
	name   string
	image  *regexp.Regexp // of one of its containers
	unless func(w workload) bool
	// ownClass: it serves Services of its own class only.
	ownClass func(w workload) bool
}

func never(workload) bool { return false }

var knownRivals = []rival{
	{name: "MetalLB", image: regexp.MustCompile(`(^|/)metallb/(controller|speaker)|metallb-(controller|speaker)`), unless: never, ownClass: flagged("--lb-class=")},
	{name: "kube-vip", image: regexp.MustCompile(`(^|/)kube-vip(:|@|$)|kube-vip/kube-vip(:|@|$)`), unless: func(w workload) bool { return !w.says("svc_enable=true") && !w.says("--services") }, ownClass: func(w workload) bool { return w.says("lb_class_only=true") }},
	{name: "the kube-vip cloud provider", image: regexp.MustCompile(`kube-vip-cloud-provider`), unless: never, ownClass: never},
	{name: "OpenELB", image: regexp.MustCompile(`openelb`), unless: never, ownClass: never},
	{name: "PureLB", image: regexp.MustCompile(`purelb/(allocator|lbnodeagent)`), unless: never, ownClass: never},
	{name: "ServiceLB of k3s", image: regexp.MustCompile(`klipper-lb`), unless: never, ownClass: never},
}

// flagged reports whether a container has an argument that begins so and goes on.
func flagged(prefix string) func(workload) bool {
	return func(w workload) bool {
		return slices.ContainsFunc(w.pod.Containers, func(c corev1.Container) bool {
			return slices.ContainsFunc(append(slices.Clone(c.Command), c.Args...), func(a string) bool { return strings.HasPrefix(a, prefix) && a != prefix })
		})
	}
}

// rivals: other load balancers take the same Services, another
// cloud-controller-manager the same nodes.
func rivals(ctx context.Context, p *Patient) []Finding {
	all, err := workloads(ctx, p)
	if err != nil {
		return []Finding{unknown("other-load-balancer", "Deployments and DaemonSets", err.Error())}
	}
	var out []Finding
	seen := map[string]bool{}
	for _, w := range all {
		for _, r := range knownRivals {
			if w.runs(r.image) && !r.unless(w) && !seen[r.name] {
				seen[r.name] = true
				out = append(out, r.finding(w, p.Inventory))
			}
		}
		if provider := otherProvider(w); provider != "" {
			out = append(out, Finding{
				Check: "other-cloud-controller-manager", Severity: Error, About: w.String(),
				Meaning: fmt.Sprintf("it is another cloud-controller-manager (%s): the two compete for the initialisation of nodes, whose provider ID cannot be changed afterwards, and for Services", provider),
				Remedy:  "remove it, or run one of them without node controllers and with --default-class=false",
			})
		}
	}
	return out
}

func (w workload) runs(image *regexp.Regexp) bool {
	return slices.ContainsFunc(w.pod.Containers, func(c corev1.Container) bool { return image.MatchString(c.Image) })
}

func (r rival) finding(w workload, inv *inventory.Inventory) Finding {
	f := Finding{Check: "other-load-balancer", About: w.String(), Severity: Warning,
		Meaning: r.name + " runs here too: both give addresses to Services without loadBalancerClass, and the status of such a Service changes back and forth",
		Remedy:  "start onelb with --default-class=false and give its Services loadBalancerClass onelb.io/lb (docs/how-to/load-balancer-class.md), or move them, each with annotation onelb.io/address and its old address; then remove " + r.name,
	}
	if r.ownClass(w) || !inv.DefaultClass() {
		f.Severity, f.Meaning, f.Remedy = Info, r.name+" runs here too; which Services are whose is said by their loadBalancerClass", "nothing"
	}
	return f
}

// ourProvider is the name with which our program is started.
const ourProvider = "opennebula"

// otherProvider names the provider of another cloud-controller-manager; empty if it is none.
func otherProvider(w workload) string {
	if w.namespace == inventory.Namespace && w.name == inventory.Manager {
		return ""
	}
	for _, c := range w.pod.Containers {
		for _, a := range append(slices.Clone(c.Command), c.Args...) {
			if name, ok := strings.CutPrefix(a, "--cloud-provider="); ok && name != "" && name != "external" {
				if name == ourProvider && !strings.Contains(c.Image, "cloud-provider-opennebula") {
					continue // ours, under another name
				}
				return name
			}
		}
		if strings.Contains(c.Image, "cloud-provider-opennebula") || strings.HasSuffix(w.name, "cloud-controller-manager") {
			return c.Image
		}
	}
	return ""
}

func workloads(ctx context.Context, p *Patient) ([]workload, error) {
	apps := p.Clients.Kube.AppsV1()
	deployments, err := apps.Deployments("").List(ctx, metav1.ListOptions{})
	if err != nil {
		return nil, err
	}
	sets, err := apps.DaemonSets("").List(ctx, metav1.ListOptions{})
	if err != nil {
		return nil, err
	}
	var out []workload
	for i := range deployments.Items {
		d := &deployments.Items[i]
		out = append(out, workload{"Deployment", d.Namespace, d.Name, d.Spec.Template.Spec})
	}
	for i := range sets.Items {
		d := &sets.Items[i]
		out = append(out, workload{"DaemonSet", d.Namespace, d.Name, d.Spec.Template.Spec})
	}
	return out, nil
}
