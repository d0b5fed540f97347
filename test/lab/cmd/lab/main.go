// Command lab brings up the private datacenter and keeps it until Ctrl-C.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/spf13/pflag"

	"github.com/onelb/onelb/test/lab"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "lab:", err)
		os.Exit(1)
	}
}

func run() error {
	o := lab.Options{Progress: os.Stderr}
	pflag.StringVar(&o.Name, "name", "lab", "name of the lab; two of different names may run at once")
	pflag.IntVar(&o.Nodes, "nodes", 3, "number of nodes")
	pflag.StringVar((*string)(&o.ProxyMode), "proxy-mode", string(lab.NFTables), "mode of kube-proxy: nftables or iptables")
	pflag.BoolVar(&o.NodeLifecycle, "node-lifecycle", false, "mark dead nodes not ready and evict their pods")
	pflag.BoolVar(&o.Programs, "programs", true, "start onesim and onelb's programs")
	pflag.BoolVar(&o.Race, "race", false, "build onelb's programs with the race detector")
	pflag.Parse()
	if args := pflag.Args(); len(args) > 0 {
		return fmt.Errorf("unexpected arguments %q", args)
	}
	l, err := lab.New(o)
	if err != nil {
		return err
	}
	ctx, cancel := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer cancel()
	begin := time.Now()
	if err := l.Start(ctx); err != nil {
		return err
	}
	fmt.Printf("lab %s is up after %.1f s\n\n", l.Name(), time.Since(begin).Seconds())
	fmt.Printf("export KUBECONFIG=%s\n\nnamespaces (ip netns exec NAME …):\n", l.HostKubeconfig())
	for _, n := range l.Namespaces() {
		fmt.Println("  " + n)
	}
	fmt.Printf("\nlogs: %s/logs\nCtrl-C ends it\n", l.Dir())
	<-ctx.Done()
	return l.Close()
}
