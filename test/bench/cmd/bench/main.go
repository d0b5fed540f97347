// Command bench measures onelb in the lab and writes bench.json in the current
// directory. Progress goes to standard error. The exit code is not zero if a
// row could not be measured; the rows that could are written nevertheless.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"regexp"
	"syscall"

	"github.com/spf13/pflag"

	"github.com/onelb/onelb/test/bench"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run() error {
	ctx, cancel := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer cancel()
	if len(os.Args) > 1 && os.Args[1] == bench.SpeakersCommand {
		return bench.Speakers(ctx, os.Args[2:])
	}
	// One dash, as the go command has it: `-run failover`.
	for i, a := range os.Args {
		if a == "-run" {
			os.Args[i] = "--run"
		}
	}
	pattern := pflag.String("run", "", "measure only rows whose names match this regular expression")
	out := pflag.String("out", "bench.json", "file to write")
	quick := pflag.Bool("quick", false, "a tenth of the length of faults that last for minutes, and a quarter of the repetitions")
	pflag.Parse()
	o := bench.Options{Progress: os.Stderr, Quick: *quick}
	if *pattern != "" {
		var err error
		if o.Select, err = regexp.Compile(*pattern); err != nil {
			return fmt.Errorf("-run: %w", err)
		}
	}
	rows, err := bench.Run(ctx, o)
	return errors.Join(err, bench.Write(*out, rows))
}
