// Command kubebin builds etcd and the Kubernetes programs that the lab runs, if
// they are not built yet, and prints the directory they are in. How far a build
// is goes to standard error.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/onelb/onelb/test/lab/kubebin"
)

func main() {
	ctx, cancel := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer cancel()
	dir, err := kubebin.Build(ctx, os.Stderr)
	if err != nil {
		fmt.Fprintln(os.Stderr, "kubebin:", err)
		os.Exit(1)
	}
	fmt.Println(dir)
}
