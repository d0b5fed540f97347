// Command demo brings up a private datacenter on this machine, gives a Service
// of type LoadBalancer its address, shows clients getting answers from its
// pods, lets the node that holds an address die, and deletes the Services
// again. It then stays up for exploring until Ctrl-C; with --once it ends by
// itself. The exit code is not zero if a step failed.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/pflag"

	"github.com/onelb/onelb/test/lab"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "demo:", err)
		os.Exit(1)
	}
}

func run() (err error) {
	var once bool
	o := lab.Options{Name: "demo", Programs: true, Progress: os.Stderr}
	pflag.BoolVar(&once, "once", false, "end after the last step")
	pflag.IntVar(&o.Nodes, "nodes", 3, "number of nodes")
	pflag.StringVar((*string)(&o.ProxyMode), "proxy-mode", string(lab.NFTables), "mode of kube-proxy: nftables or iptables")
	pflag.Parse()
	ctx, cancel := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer cancel()
	l, err := lab.New(o)
	if err != nil {
		return err
	}
	defer func() {
		if cerr := l.Close(); err == nil {
			err = cerr
		}
	}()
	d := newDemo(l, os.Stdout)
	if err := d.play(ctx); err != nil || once {
		return err
	}
	d.explore()
	<-ctx.Done()
	return nil
}
