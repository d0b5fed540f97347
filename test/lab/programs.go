package lab

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/onelb/onelb/test/lab/kubebin"
	"github.com/onelb/onelb/test/lab/proc"
	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	cloudproviderapi "k8s.io/cloud-provider/api"
)

// Names that the lab's programs share.
const (
	SystemNamespace = "onelb-system"
	ClusterName     = "lab"
	RouterName      = "edge"

	ccmAccount  = "cloud-controller-manager"
	nodeAccount = "onelb-node"

	ccmProgram    = "opennebula-cloud-controller-manager"
	nodeProgram   = "onelb-node"
	routerProgram = "onelb-router"
	ctlProgram    = "onelbctl"

	ccmPort = 10258
)

// Where the agents serve /metrics, /healthz and /readyz on their hosts.
const (
	AgentMetrics       = "127.0.0.1:9911"
	RouterAgentMetrics = "127.0.0.1:9912"
)

// Router is an instance of the virtual router.
type Router struct {
	*Host
	lab   *Lab
	index int // from 1
	agent *proc.Unit
}

// Agent is onelb-router on this instance, nil without Options.Programs.
func (r *Router) Agent() *proc.Unit { return r.agent }

// CCM is the cloud-controller-manager, nil without Options.Programs.
func (l *Lab) CCM() *proc.Unit { return l.ccm }

// Agent is onelb-node on node i, from 1, nil without Options.Programs.
func (l *Lab) Agent(i int) *proc.Unit { return l.nodes[i-1].agent }

const podSource = "test/lab/cmd/labpod"

var programSources = []string{"cmd/" + ccmProgram, "cmd/" + nodeProgram, "cmd/" + routerProgram, "cmd/" + ctlProgram}

// Sources are the packages of the programs that a lab runs from this module, onelb's
// own included.
func Sources() []string { return append([]string{podSource}, programSources...) }

// buildPrograms builds what the lab runs from this module.
func (l *Lab) buildPrograms(ctx context.Context) error {
	if err := kubebin.Programs(ctx, l.path("bin"), false, l.options.Progress, podSource); err != nil {
		return err
	}
	if !l.options.Programs {
		return nil
	}
	return kubebin.Programs(ctx, l.path("bin"), l.options.Race, l.options.Progress, programSources...)
}

// program is the path of a program of this module.
func (l *Lab) program(name string) string { return l.path("bin", name) }

// Program is the path of one of onelb's programs, such as onelbctl.
func (l *Lab) Program(name string) string { return l.program(name) }

// startPrograms starts the router agents and, when the manifests are in the API,
// the programs with the accounts that the manifests give them.
func (l *Lab) startPrograms(ctx context.Context) error {
	if err := l.bootstrapRouters(ctx); err != nil {
		return err
	}
	l.describePrograms()
	g, routersCtx := errgroup.WithContext(ctx)
	for _, r := range l.routers {
		g.Go(func() error { return l.startUnit(routersCtx, r.Host, r.agent, "http://"+RouterAgentMetrics+"/healthz") })
	}
	g.Go(func() error { return l.startKubernetesPrograms(routersCtx) })
	return g.Wait()
}

func (l *Lab) startKubernetesPrograms(ctx context.Context) error {
	if err := l.writeCloudConfig(); err != nil {
		return err
	}
	l.goInside(l.mountSecrets)
	return l.Install(ctx)
}

// Install applies the manifests and starts the programs in the cluster, which must
// not run, with the accounts that the manifests give them. Start does it too; so it
// is for a lab from which onelb was uninstalled.
func (l *Lab) Install(ctx context.Context) error {
	if err := l.ApplyManifests(ctx); err != nil {
		return err
	}
	l.say("manifests are applied")
	err := errors.Join(
		l.accountKubeconfig(ctx, ccmAccount, l.path(ccmAccount+".kubeconfig")),
		l.accountKubeconfig(ctx, nodeAccount, l.path(nodeAccount+".kubeconfig")))
	if err != nil {
		return err
	}
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		return l.startUnit(ctx, l.control, l.ccm, fmt.Sprintf("https://%s:%d/healthz", ControlAddr, ccmPort))
	})
	for _, n := range l.nodes {
		g.Go(func() error { return l.startUnit(ctx, n.Host, n.agent, "http://"+AgentMetrics+"/healthz") })
	}
	return g.Wait()
}

// startUnit starts a program and returns when it answers at url.
func (l *Lab) startUnit(ctx context.Context, h *Host, u *proc.Unit, url string) error {
	if err := u.Start(); err != nil {
		return err
	}
	return l.waitURL(ctx, h, u, url)
}

// NewCCM describes one more cloud-controller-manager, beside CCM or in its place,
// and starts nothing. Flags given here win over the lab's: one replica is the
// default, since after a kill the next would wait for the lease to run out.
func (l *Lab) NewCCM(name string, port int, flags ...string) *proc.Unit {
	args := []string{
		"--cloud-provider=opennebula", "--cloud-config=" + l.path("cloud-config.yaml"),
		"--kubeconfig=" + l.path(ccmAccount+".kubeconfig"),
		"--authentication-kubeconfig=" + l.path(ccmAccount+".kubeconfig"),
		"--authorization-kubeconfig=" + l.path(ccmAccount+".kubeconfig"),
		"--leader-elect=false", "--leader-elect-resource-namespace=" + SystemNamespace,
		"--bind-address=" + ControlAddr.String(), fmt.Sprintf("--secure-port=%d", port),
		"--cluster-cidr=" + PodsV4.String() + "," + PodsV6.String(),
		"--cert-dir=" + l.path(name), "--v=2",
	}
	return l.unit(l.control, name, l.program(ccmProgram), append(args, flags...)...)
}

// describePrograms makes the units; nothing is started.
func (l *Lab) describePrograms() {
	l.ccm = l.NewCCM(ccmProgram, ccmPort)
	for _, n := range l.nodes {
		name := n.ShortName()
		n.agent = l.unit(n.Host, nodeProgram+"-"+name, l.program(nodeProgram),
			"--node-name="+name, "--kubeconfig="+l.path(nodeAccount+".kubeconfig"),
			"--gossip-key-file="+l.gossipKeyFile(n), "--gossip-port=7947", "--bgp-password-dir="+l.bgpPasswordDir(n),
			"--state-dir="+l.path("state", name), "--metrics-address="+AgentMetrics,
			"--address-lifetime="+l.options.AddressLifetime.String(), "--daemonset="+SystemNamespace+"/onelb-node", "--v=2")
	}
	for _, r := range l.routers {
		name := r.ShortName()
		r.agent = l.unit(r.Host, "onelb-"+name, l.program(routerProgram),
			"--name="+RouterName, fmt.Sprintf("--listen=:%d", RouterPort),
			"--tls-cert="+l.path("router-pki", "router.crt"), "--tls-key="+l.path("router-pki", "router.key"),
			"--tls-client-ca="+l.path("router-pki", "ca.crt"),
			"--state-dir="+l.path("state", name), "--public-interfaces=eth0",
			"--pod-networks="+PodsV4.String()+","+PodsV6.String(),
			"--metrics-address="+RouterAgentMetrics, "--v=2")
	}
}

// bootstrapRouters makes the certificates as an operator does.
func (l *Lab) bootstrapRouters(ctx context.Context) error {
	_, err := l.runIn(ctx, l.control, "", l.program(ctlProgram), "router", "bootstrap",
		"--router", RouterName, "--cluster", ClusterName, "--out", l.path("router-pki"))
	return err
}

// writeCloudConfig writes the CCM's configuration and credentials.
func (l *Lab) writeCloudConfig() error {
	var endpoints []string
	for i := range l.routers {
		endpoints = append(endpoints, fmt.Sprintf("%q", fmt.Sprintf("%s:%d", mgmtRouter(i + 1)[0], RouterPort)))
	}
	pki := l.path("router-pki")
	config := fmt.Sprintf(`endpoint: %s
credentials:
  file: %s
cluster: %s
instances:
  internalNetworks: [private]
routers:
  - name: %s
    endpoints: [%s]
    caFile: %s
    certFile: %s
    keyFile: %s
    podRoutes: true
`, OneSimURL(), l.path("one_auth"), ClusterName, RouterName, strings.Join(endpoints, ", "),
		filepath.Join(pki, "ca.crt"), filepath.Join(pki, "client.crt"), filepath.Join(pki, "client.key"))
	return errors.Join(
		os.WriteFile(l.path("one_auth"), []byte(OneUser+":"+OnePassword+"\n"), 0o600),
		os.WriteFile(l.path("cloud-config.yaml"), []byte(config), 0o600))
}

// CloudConfig is the path of the CCM's configuration, and Credentials that of its
// password file; the CCM reads the latter again when it changes.
func (l *Lab) CloudConfig() string { return l.path("cloud-config.yaml") }

// Credentials is the path of the CCM's file with user and password.
func (l *Lab) Credentials() string { return l.path("one_auth") }

// WaitNodesInitialised returns when the CCM has taken the taint off every node
// and given it a provider ID.
func (l *Lab) WaitNodesInitialised(ctx context.Context) error {
	return l.wait(ctx, "nodes to be initialised", []*proc.Unit{l.ccm}, func(ctx context.Context) error {
		nodes, err := l.client.CoreV1().Nodes().List(ctx, metav1.ListOptions{})
		if err != nil {
			return err
		}
		for _, n := range nodes.Items {
			if n.Spec.ProviderID == "" {
				return fmt.Errorf("%s has no provider ID", n.Name)
			}
			for _, t := range n.Spec.Taints {
				if t.Key == cloudproviderapi.TaintExternalCloudProvider && t.Effect == corev1.TaintEffectNoSchedule {
					return fmt.Errorf("%s is tainted", n.Name)
				}
			}
		}
		return nil
	})
}

// WaitReady returns when the nodes are initialised and every agent says at /readyz
// that it does its work.
func (l *Lab) WaitReady(ctx context.Context) error {
	if err := l.WaitNodesInitialised(ctx); err != nil {
		return err
	}
	g, ctx := errgroup.WithContext(ctx)
	for _, n := range l.nodes {
		g.Go(func() error { return l.waitURL(ctx, n.Host, n.agent, "http://"+AgentMetrics+"/readyz") })
	}
	for _, r := range l.routers {
		g.Go(func() error { return l.waitURL(ctx, r.Host, r.agent, "http://"+RouterAgentMetrics+"/readyz") })
	}
	return g.Wait()
}

// Races are the names of the logs in which the race detector has reported.
func (l *Lab) Races() ([]string, error) {
	files, err := filepath.Glob(l.path("logs", "*.log"))
	if err != nil {
		return nil, err
	}
	var found []string
	for _, f := range files {
		content, err := os.ReadFile(f)
		if err != nil {
			return nil, err
		}
		if strings.Contains(string(content), "WARNING: DATA RACE") {
			found = append(found, f)
		}
	}
	return found, nil
}
