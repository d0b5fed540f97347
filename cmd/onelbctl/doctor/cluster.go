package doctor

import (
	"context"
	"fmt"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	cloudproviderapi "k8s.io/cloud-provider/api"
	"sigs.k8s.io/yaml"

	"github.com/onelb/onelb/loadbalancer/inventory"
	"github.com/onelb/onelb/loadbalancer/path"
	"github.com/onelb/onelb/provider/providerid"
)

func installation(_ context.Context, p *Patient) []Finding {
	if p.Installed {
		return nil
	}
	return []Finding{{
		Check: "not-installed", Severity: Info, About: "cluster", Meaning: "onelb is not installed: the API server knows no AddressPools. What the cluster and OpenNebula need before is looked at nevertheless",
		Remedy: "apply manifests/base, an overlay, or the chart (docs/how-to/install.md)",
	}}
}

func manager(_ context.Context, p *Patient) []Finding {
	inv := p.Inventory
	var out []Finding
	about := "Deployment " + inventory.Namespace + "/" + inventory.Manager
	describe := fmt.Sprintf("kubectl -n %s describe deployment %s; kubectl -n %[1]s logs deployment/%[2]s", inventory.Namespace, inventory.Manager)
	name, fresh := inv.Leads()
	if !inv.Elects() {
		fresh = inv.Manager.Status.ReadyReplicas > 0
	}
	if !fresh && !inv.Unread("the Lease") {
		who := "none ever did"
		if name != "" {
			who = name + " did last"
		}
		out = append(out, Finding{
			Check: "no-leader", Severity: Error, About: about,
			Meaning: "no cloud-controller-manager leads, " + who + ": new Services get no address and new nodes stay tainted; addresses that are given go on to answer",
			Remedy:  describe,
		})
	}
	if d := inv.Manager; d != nil && d.Spec.Replicas != nil && d.Status.ReadyReplicas < *d.Spec.Replicas && d.Status.ReadyReplicas > 0 {
		out = append(out, Finding{
			Check: "manager-replicas", Severity: Warning, About: about,
			Meaning: fmt.Sprintf("%d of %d replicas are ready: nobody takes over at once when it fails", d.Status.ReadyReplicas, *d.Spec.Replicas),
			Remedy:  "on a cluster of one node set replicas to 1; else " + describe,
		})
	}
	return out
}

// agents: every node that may hold addresses has one.
func agents(_ context.Context, p *Patient) []Finding {
	inv := p.Inventory
	if inv.Unread("Nodes") || inv.Unread("Pods") || inv.Unread("the DaemonSet") {
		return nil
	}
	if inv.Agents == nil {
		return []Finding{{
			Check: "agents-missing", Severity: Error, About: "DaemonSet " + inventory.Namespace + "/" + inventory.Agents,
			Meaning: "it is not there: no node answers for addresses of L2 pools, nor for the inner ones of forward: VIP", Remedy: "apply manifests/base, an overlay, or the chart (docs/how-to/install.md)",
		}}
	}
	var out []Finding
	for i := range inv.Nodes {
		n := &inv.Nodes[i]
		if _, excluded := n.Labels[corev1.LabelNodeExcludeBalancers]; excluded {
			continue
		}
		f := Finding{Check: "agent-not-ready", Severity: Warning, About: "node " + n.Name, Remedy: fmt.Sprintf("kubectl -n %s get pods -o wide --field-selector spec.nodeName=%s, and describe what it shows", inventory.Namespace, n.Name)}
		pod := inv.AgentPod(n.Name)
		switch {
		case pod == nil:
			f.Check, f.Meaning = "agent-missing", "no node agent runs there: the node holds no addresses, and its share is held by others"
		case !inventory.PodReady(pod):
			f.Meaning = fmt.Sprintf("its agent %s is not ready (%s): it holds no addresses, or not for long", pod.Name, pod.Status.Phase)
		case inventory.Behind(pod, inv.Agents):
			f.Check, f.Severity = "agent-behind", Info
			f.Meaning = fmt.Sprintf("its agent runs %s, and the DaemonSet asks for %s", inventory.Image(pod.Spec), inventory.Image(inv.Agents.Spec.Template.Spec))
			f.Remedy = "wait for the rolling update, or look at kubectl -n " + inventory.Namespace + " rollout status daemonset " + inventory.Agents
		default:
			continue
		}
		out = append(out, f)
	}
	return out
}

// gossipKey is the size of the key in bytes, and its name in the Secret.
const (
	gossipName = "onelb-gossip"
	gossipKey  = "key"
	gossipSize = 32
)

func gossipSecret(ctx context.Context, p *Patient) []Finding {
	about := "Secret " + inventory.Namespace + "/" + gossipName
	s, err := p.Clients.Kube.CoreV1().Secrets(inventory.Namespace).Get(ctx, gossipName, metav1.GetOptions{})
	switch {
	case apierrors.IsNotFound(err):
		return []Finding{{
			Check: "gossip-secret", Severity: Error, About: about, Meaning: "it is not there: new pods of the node agents wait in ContainerCreating, since they encrypt with its key what they tell each other",
			Remedy: "the cloud-controller-manager makes it when it first leads: see why none does. If somebody deleted it, restart the one that leads, then the agents",
		}}
	case err != nil:
		return []Finding{unknown("gossip-secret", about, err.Error())}
	case len(s.Data[gossipKey]) != gossipSize:
		return []Finding{{
			Check: "gossip-secret", Severity: Error, About: about,
			Meaning: fmt.Sprintf("its key %q has %d bytes instead of %d: agents refuse it, or use different ones and do not hear each other", gossipKey, len(s.Data[gossipKey]), gossipSize),
			Remedy:  fmt.Sprintf("kubectl -n %s delete secret %s, restart the cloud-controller-manager that leads, which makes a new one, then the agents", inventory.Namespace, gossipName),
		}}
	}
	return nil
}

func nodes(_ context.Context, p *Patient) []Finding {
	var out []Finding
	for i := range p.Inventory.Nodes {
		n := &p.Inventory.Nodes[i]
		about := "node " + n.Name
		tainted := false
		for _, t := range n.Spec.Taints {
			tainted = tainted || t.Key == cloudproviderapi.TaintExternalCloudProvider
		}
		_, err := providerid.Parse(n.Spec.ProviderID)
		switch {
		case tainted && p.Installed && p.Inventory.Time.Sub(n.CreationTimestamp.Time) > time.Minute:
			out = append(out, Finding{
				Check: "node-uninitialized", Severity: Error, About: about,
				Meaning: "it still has the taint " + cloudproviderapi.TaintExternalCloudProvider + ": pods without a toleration do not run there",
				Remedy:  "its VM has to be visible to the OpenNebula user, with a UUID, name or address that matches the node (docs/reference/cloud-config.md); the log of the cloud-controller-manager says what it found",
			})
		case tainted:
		case n.Spec.ProviderID == "":
			out = append(out, Finding{
				Check: "kubelet-cloud-provider", Severity: Error, About: about,
				Meaning: "it has neither a provider ID nor the taint " + cloudproviderapi.TaintExternalCloudProvider + ": its kubelet was started without --cloud-provider=external, so no cloud-controller-manager initialises it",
				Remedy:  "start the kubelet with --cloud-provider=external (kubeadm: kubeletExtraArgs of nodeRegistration; RKE2, k3s: kubelet-arg), delete the Node and let it register again",
			})
		case err != nil:
			out = append(out, Finding{
				Check: "node-provider-id", Severity: Error, About: about,
				Meaning: fmt.Sprintf("its provider ID %q is of another provider: it cannot be matched with an OpenNebula VM (one://<VM ID>), and the field cannot be changed", n.Spec.ProviderID),
				Remedy:  "remove the other cloud-controller-manager (or k3s' own: --disable-cloud-controller), delete the Node and let it register again",
			})
		}
	}
	return append(out, twins(p.Inventory)...)
}

// twins are nodes with the provider ID of another.
func twins(inv *inventory.Inventory) []Finding {
	var out []Finding
	first := map[string]string{}
	for i := range inv.Nodes {
		n := &inv.Nodes[i]
		id := n.Spec.ProviderID
		if id == "" {
			continue
		}
		if other, twice := first[id]; twice {
			out = append(out, Finding{
				Check: "node-provider-id", Severity: Error, About: "node " + n.Name,
				Meaning: fmt.Sprintf("it has the provider ID %s of node %s: one of them is no such VM", id, other), Remedy: "delete the Node that is not the VM's, and let it register again",
			})
			continue
		}
		first[id] = n.Name
	}
	return out
}

// kubeProxy reads the configuration that kubeadm and others leave.
func kubeProxy(ctx context.Context, p *Patient) []Finding {
	const about = "ConfigMap kube-system/kube-proxy"
	m, err := p.Clients.Kube.CoreV1().ConfigMaps("kube-system").Get(ctx, "kube-proxy", metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return []Finding{{
			Check: "kube-proxy-mode", Severity: Info, About: about, Meaning: "it is not there (RKE2 and k3s have none, nor clusters where something else stands in for kube-proxy): its mode is not known",
			Remedy: "nothing for kube-proxy in any mode; what stands in for it has to serve addresses in a Service's status",
		}}
	}
	if err != nil {
		return []Finding{unknown("kube-proxy-mode", about, err.Error())}
	}
	var c struct {
		Mode              string   `json:"mode"`
		NodePortAddresses []string `json:"nodePortAddresses"`
	}
	if err := yaml.Unmarshal([]byte(m.Data["config.conf"]), &c); err != nil {
		return []Finding{unknown("kube-proxy-mode", about, err.Error())}
	}
	var out []Finding
	switch c.Mode {
	case "", "iptables", "nftables":
	case "ipvs":
		out = append(out, Finding{
			Check: "kube-proxy-mode", Severity: Info, About: about, Meaning: "kube-proxy runs in IPVS mode, which gives every address to every node; the node agents let only the holder answer (strictARP is not needed)",
			Remedy: "nothing, where the nodes' kernel has nf_tables with the family arp (docs/how-to/maintenance.md); new clusters are better off with mode nftables",
		})
	default:
		out = append(out, Finding{
			Check: "kube-proxy-mode", Severity: Error, About: about, Meaning: fmt.Sprintf("kube-proxy's mode %q is none that Linux nodes have: it may not run at all", c.Mode), Remedy: "set mode to nftables, iptables or ipvs and restart kube-proxy",
		})
	}
	if len(c.NodePortAddresses) > 0 && c.NodePortAddresses[0] != "primary" && usesNodePorts(p.Inventory) {
		out = append(out, Finding{
			Check: "kube-proxy-node-ports", Severity: Warning, About: about,
			Meaning: fmt.Sprintf("NodePorts are served on %s only: a router with forward: NodePort reaches the nodes if their InternalIPs are among these", strings.Join(c.NodePortAddresses, ", ")),
			Remedy:  "add the nodes' network to nodePortAddresses, or use a pool with forward: VIP",
		})
	}
	return out
}

func usesNodePorts(inv *inventory.Inventory) bool {
	for i := range inv.Pools {
		if r := inv.Pools[i].Spec.Router; r != nil && (r.Forward == "" || r.Forward == "NodePort") {
			return true
		}
	}
	return false
}

// services: those that wait, and those that show what is not theirs.
func services(_ context.Context, p *Patient) []Finding {
	inv := p.Inventory
	var out []Finding
	for i := range inv.Services {
		svc := &inv.Services[i]
		if svc.DeletionTimestamp != nil {
			continue
		}
		about := "Service " + svc.Namespace + "/" + svc.Name
		if len(svc.Status.LoadBalancer.Ingress) == 0 {
			for _, r := range path.Pending(inv, svc) {
				if r.Remedy == "" {
					r.Remedy = "do what the text says; onelbctl explain service " + svc.Namespace + "/" + svc.Name + " has its events"
				}
				out = append(out, Finding{Check: "service-pending", Severity: Error, About: about, Meaning: "it has no address: " + r.Why, Remedy: r.Remedy})
			}
			continue
		}
		if strangers := strangers(inv, svc); len(strangers) > 0 {
			out = append(out, Finding{
				Check: "service-foreign-address", Severity: Warning, About: about,
				Meaning: fmt.Sprintf("its status shows %s, which onelb has not given: another load balancer has, or did before it was removed", strings.Join(strangers, ", ")),
				Remedy:  "keep the address with annotation onelb.io/address once the other load balancer is gone and the address is in a pool, or let it go on with a loadBalancerClass of its own",
			})
		}
	}
	return out
}
