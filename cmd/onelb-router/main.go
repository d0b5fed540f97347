// Command onelb-router runs on a virtual router and makes it do what clusters ask
// for: see the package loadbalancer/router/agent.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/pflag"
	"k8s.io/klog/v2"

	"github.com/onelb/onelb/loadbalancer/router/agent"
)

// version is set by the linker.
var version = "dev"

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil {
		klog.Background().Error(err, "onelb-router ends")
		klog.Flush()
		fmt.Fprintln(os.Stderr, "onelb-router:", err)
		os.Exit(1) //nolint:gocritic // nothing is left to be stopped
	}
	klog.Flush()
}

func run(ctx context.Context, args []string) error {
	flags := pflag.NewFlagSet("onelb-router", pflag.ContinueOnError)
	o := addFlags(flags)
	logging := flag.NewFlagSet("klog", flag.ContinueOnError)
	klog.InitFlags(logging)
	flags.AddGoFlag(logging.Lookup("v"))
	flags.AddGoFlag(logging.Lookup("vmodule"))
	showVersion := flags.Bool("version", false, "print the version and end")
	letGo := flags.Bool("let-go", false, "take off the public addresses that an agent left on this machine, and end: for keepalived, when this instance stops being the master")
	switch err := flags.Parse(args); {
	case err == pflag.ErrHelp: //nolint:errorlint // the library returns it as it is
		return nil
	case err != nil:
		return err
	case flags.NArg() > 0:
		return fmt.Errorf("unexpected argument %q", flags.Arg(0))
	case *showVersion:
		fmt.Println("onelb-router", version)
		return nil
	case *letGo:
		n, err := agent.LetGo()
		fmt.Println("public addresses taken off:", n)
		return err
	}
	return o.run(ctx)
}
