package main

import (
	"context"
	"fmt"
	"io"
	"net/netip"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/onelb/onelb/test/lab"
)

const (
	namespace = "default"
	public    = "hello"     // over the virtual router
	lan       = "hello-lan" // held by a node
	port      = 8765
	stepLimit = 2 * time.Minute
)

// demo is one run. Each step uses what the ones before it found.
type demo struct {
	lab   *lab.Lab
	out   io.Writer
	begin time.Time

	publicAddrs, lanAddrs []netip.Addr
	arp                   []string
}

func newDemo(l *lab.Lab, out io.Writer) *demo { return &demo{lab: l, out: out, begin: time.Now()} }

// play runs all steps.
func (d *demo) play(ctx context.Context) error {
	steps := []struct {
		title string
		run   func(context.Context) error
	}{
		{"The private datacenter: OpenNebula, a router, three Kubernetes nodes, a client on the internet", d.datacenter},
		{"The nodes are initialised by the cloud-controller-manager", d.nodes},
		{"Two AddressPools become ready: addresses of the nodes' network, and public ones behind the router", d.pools},
		{"Three pods, and a Service of type LoadBalancer for the internet, one for the LAN", d.services},
		{"What Kubernetes shows", d.kubernetes},
		{"The gratuitous ARP with which a node takes the LAN address", d.gratuitousARP},
		{"What the router's kernel runs", d.routerMap},
		{"Ten answers on the internet, over the public address", d.fromInternet},
		{"Ten answers on the LAN, over the address that a node holds", d.fromLAN},
		{"The node that holds the LAN address loses its links", d.failover},
		{"The Services are deleted; OpenNebula has its addresses back", d.deletion},
	}
	for i, s := range steps {
		limit := stepLimit
		if i == 0 {
			limit = time.Hour // the first run builds Kubernetes
		}
		sctx, cancel := context.WithTimeout(ctx, limit)
		d.say("\n%s  %d. %s", d.clock(), i+1, s.title)
		err := s.run(sctx)
		cancel()
		if err != nil {
			d.say("%s  failed: %v", d.clock(), err)
			d.say("logs: %s", d.lab.Dir())
			return fmt.Errorf("step %d (%s): %w", i+1, s.title, err)
		}
	}
	d.say("\n%s  all %d steps were seen to work", d.clock(), len(steps))
	return nil
}

func (d *demo) clock() string { return fmt.Sprintf("[%6.1f s]", time.Since(d.begin).Seconds()) }

func (d *demo) say(format string, args ...any) { _, _ = fmt.Fprintf(d.out, format+"\n", args...) }

// show prints a command's output, indented.
func (d *demo) show(title, text string) {
	d.say("  %s", title)
	for line := range strings.SplitSeq(strings.TrimRight(text, "\n"), "\n") {
		d.say("    %s", line)
	}
}

func (d *demo) kubectl(ctx context.Context, args ...string) error {
	out, err := d.lab.Kubectl(ctx, args...)
	if err != nil {
		return err
	}
	d.show("$ kubectl "+strings.Join(args, " "), out)
	return nil
}

// explore says how to look around.
func (d *demo) explore() {
	d.say("\nIt stays up. In another shell:")
	d.say("  export KUBECONFIG=%s", d.lab.HostKubeconfig())
	d.say("  %s get svc,virtualips,addresspools -A", d.lab.Program("kubectl"))
	d.say("  ip netns exec %s curl -s http://ADDRESS:%d/", d.lab.Internet().Name(), port)
	d.say("  ip netns exec %s ip addr", d.lab.Nodes()[0].Name())
	d.say("  ip netns exec %s nft list ruleset", d.lab.Router(1).Name())
	d.say("namespaces: %s", strings.Join(d.lab.Namespaces(), " "))
	d.say("logs: %s", d.lab.Dir())
	d.say("Ctrl-C ends it and removes everything.")
}

// service is one of the two Services over the same pods.
func service(w lab.Workload, name, pool string) *corev1.Service {
	s := w.Service(name, corev1.ServiceTypeLoadBalancer)
	s.Annotations = map[string]string{"onelb.io/pool": pool}
	return s
}
