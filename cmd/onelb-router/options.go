package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/spf13/pflag"
	"golang.org/x/sync/errgroup"
	"k8s.io/klog/v2"

	"github.com/onelb/onelb/loadbalancer/router/agent"
	"github.com/onelb/onelb/loadbalancer/router/nft"
)

type options struct {
	name, listen             string
	cert, key, clientCA      string
	stateDir, metricsAddress string
	publicInterfaces         []string
	podNetworks              []string
	floating                 []net.IP
	peers                    []string
}

func addFlags(flags *pflag.FlagSet) *options {
	o := &options{}
	flags.StringVar(&o.name, "name", "", "router's name, as in the clusters' cloud-config (required)")
	flags.StringVar(&o.listen, "listen", ":9443", "address to take clients' connections on")
	flags.StringVar(&o.cert, "tls-cert", "", "server certificate, PEM, with DNS name <name>.router.onelb (required)")
	flags.StringVar(&o.key, "tls-key", "", "its key, PEM (required)")
	flags.StringVar(&o.clientCA, "tls-client-ca", "", "authority of the clusters' certificates, PEM (required)")
	flags.StringVar(&o.stateDir, "state-dir", "/var/lib/onelb-router", "directory that keeps the documents")
	flags.StringSliceVar(&o.publicInterfaces, "public-interfaces", nil, "interfaces that may hold public addresses, names or regular expressions; default: the one whose network contains the address")
	flags.StringSliceVar(&o.podNetworks, "pod-networks", nil, "networks in which clusters may have routes to their pods, for example 10.244.0.0/16,fd00:244::/56; default: none")
	flags.IPSliceVar(&o.floating, "floating-addresses", nil, "addresses that keepalived moves between the router's instances: this one carries the traffic exactly while it has all of them; default: always")
	flags.StringSliceVar(&o.peers, "peers", nil, "host:port of the router's other instances; their connections are copied here, so that they survive when this one takes over")
	flags.StringVar(&o.metricsAddress, "metrics-address", "127.0.0.1:9912", "address for /metrics, /healthz and /readyz; empty: off")
	return o
}

// run puts the agent together and runs it.
func (o *options) run(ctx context.Context) error {
	var pods []netip.Prefix
	for _, text := range o.podNetworks {
		p, err := netip.ParsePrefix(text)
		if err != nil {
			return fmt.Errorf("--pod-networks: %w", err)
		}
		pods = append(pods, p.Masked())
	}
	addresses, err := agent.OpenAddresses(o.publicInterfaces)
	if err != nil {
		return err
	}
	role, err := o.role()
	if err != nil {
		return err
	}
	registry := prometheus.NewRegistry()
	registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", o.listen)
	if err != nil {
		return fmt.Errorf("--listen %s: %w", o.listen, err)
	}
	a, err := agent.New(agent.Options{
		Name: o.name, Listener: listener, CertFile: o.cert, KeyFile: o.key, ClientCAFile: o.clientCA,
		StateDir: o.stateDir, Version: version, Registerer: registry,
		Table: nft.Open(nft.Options{}), Addresses: addresses, Flows: agent.KernelFlows{}, Routes: agent.KernelRoutes{}, PodNetworks: pods, System: agent.KernelSettings,
		Role: role, Peers: o.peers,
	})
	if err != nil {
		return errors.Join(err, listener.Close())
	}
	klog.FromContext(ctx).Info("Router agent starts", "version", version, "router", o.name, "listen", listener.Addr().String())
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return a.Run(ctx) })
	if o.metricsAddress != "" {
		g.Go(func() error { return serveMetrics(ctx, o.metricsAddress, registry, a.Ready) })
	}
	return g.Wait()
}

// role follows the floating addresses, if there are any.
func (o *options) role() (agent.Role, error) {
	if len(o.floating) == 0 {
		if len(o.peers) > 0 {
			return nil, errors.New("--peers without --floating-addresses: nothing says which instance carries the traffic")
		}
		return nil, nil //nolint:nilnil // the agent's default
	}
	var addresses agent.FloatingAddresses
	for _, ip := range o.floating {
		address, ok := netip.AddrFromSlice(ip)
		if !ok {
			return nil, fmt.Errorf("--floating-addresses %s: no address", ip)
		}
		addresses = append(addresses, address.Unmap())
	}
	return addresses, nil
}

func serveMetrics(ctx context.Context, address string, registry *prometheus.Registry, ready func() error) error {
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", address)
	if err != nil {
		return fmt.Errorf("--metrics-address %s: %w", address, err)
	}
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(registry, promhttp.HandlerOpts{}))
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { _, _ = fmt.Fprintln(w, "ok") })
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		if err := ready(); err != nil {
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
			return
		}
		_, _ = fmt.Fprintln(w, "ok")
	})
	server := &http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second, WriteTimeout: 30 * time.Second, IdleTimeout: time.Minute}
	stop := context.AfterFunc(ctx, func() { _ = server.Close() })
	defer stop()
	if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve metrics: %w", err)
	}
	return nil
}
