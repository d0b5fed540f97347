// Command onelbctl is the operator's tool.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/onelb/onelb/cmd/onelbctl/doctor"
)

// version is set by the linker.
var version = "dev"

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	if err := root().ExecuteContext(ctx); err != nil {
		var code doctor.CodeError
		if errors.As(err, &code) {
			os.Exit(int(code)) //nolint:gocritic // nothing is left to be stopped
		}
		fmt.Fprintln(os.Stderr, "onelbctl:", err)
		os.Exit(1)
	}
}
