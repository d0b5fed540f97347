// Command onesim serves a simulated OpenNebula front-end: XML-RPC as oned's, and on a second address, if wanted, the
// simulator's own interface for faults, state and fixtures. It keeps nothing on disk and ends on SIGINT or SIGTERM.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/spf13/pflag"

	"github.com/onelb/onelb/test/onesim"
)

type options struct {
	listen, adminListen, fixture, timing, password string
	empty                                          bool
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:], os.Stdout); err != nil && !errors.Is(err, pflag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "onesim:", err)
		os.Exit(1)
	}
}

func parseFlags(args []string) (options, error) {
	var o options
	flags := pflag.NewFlagSet("onesim", pflag.ContinueOnError)
	flags.StringVar(&o.listen, "listen", "127.0.0.1:2633", "address of the XML-RPC interface")
	flags.StringVar(&o.adminListen, "admin-listen", "", "address of the simulator's own interface (faults, state); off when empty")
	flags.StringVar(&o.fixture, "fixture", "", "YAML or JSON file with users, networks, VMs and routers; a built-in one when empty")
	flags.BoolVar(&o.empty, "empty", false, "start with a fresh installation, without a fixture")
	flags.StringVar(&o.password, "admin-password", "opennebula", "password of oneadmin")
	flags.StringVar(&o.timing, "timing", "drivers",
		"instant: nothing takes time; drivers: drivers need the time measured on a real front-end; measured: drivers and calls do")
	if err := flags.Parse(args); err != nil {
		return o, err
	}
	if o.empty && o.fixture != "" {
		return o, errors.New("--empty and --fixture exclude each other")
	}
	if flags.NArg() > 0 {
		return o, fmt.Errorf("unexpected argument %q", flags.Arg(0))
	}
	return o, nil
}

func run(ctx context.Context, args []string, out io.Writer) error {
	o, err := parseFlags(args)
	if err != nil {
		return err
	}
	sim, fixture, err := build(o)
	if err != nil {
		return err
	}
	var lc net.ListenConfig
	ln, err := lc.Listen(ctx, "tcp", o.listen)
	if err != nil {
		return err
	}
	admin := ""
	if o.adminListen != "" {
		adminLn, err := lc.Listen(ctx, "tcp", o.adminListen)
		if err != nil {
			_ = ln.Close()
			return err
		}
		admin = "http://" + adminLn.Addr().String()
		wait := serveAdmin(ctx, adminLn, sim.AdminHandler())
		defer wait()
	}
	describe(out, sim, fixture, o, "http://"+ln.Addr().String()+"/RPC2", admin)
	return sim.Serve(ctx, ln)
}

// build makes the simulator with its objects.
func build(o options) (*onesim.Sim, onesim.Fixture, error) {
	opts := onesim.Options{AdminPassword: o.password}
	switch o.timing {
	case "instant":
	case "measured":
		opts.Latency = onesim.MeasuredLatency()
		opts.Delays = onesim.MeasuredDelays
	case "drivers":
		opts.Delays = onesim.MeasuredDelays
	default:
		return nil, onesim.Fixture{}, fmt.Errorf("--timing %q is none of instant, drivers, measured", o.timing)
	}
	sim, err := onesim.New(opts)
	if err != nil {
		return nil, onesim.Fixture{}, err
	}
	fixture := onesim.DefaultFixture()
	if o.empty {
		fixture = onesim.Fixture{}
	}
	if o.fixture != "" {
		data, err := os.ReadFile(o.fixture)
		if err != nil {
			return nil, onesim.Fixture{}, err
		}
		if fixture, err = onesim.DecodeFixture(data); err != nil {
			return nil, onesim.Fixture{}, fmt.Errorf("%s: %w", o.fixture, err)
		}
	}
	return sim, fixture, sim.Load(fixture)
}

// serveAdmin serves until ctx ends; the function returned waits for that.
func serveAdmin(ctx context.Context, ln net.Listener, h http.Handler) func() {
	srv := &http.Server{Handler: h, ReadHeaderTimeout: 10 * time.Second}
	done := make(chan struct{})
	stop := context.AfterFunc(ctx, func() { _ = srv.Close() })
	go func() {
		defer close(done)
		_ = srv.Serve(ln)
	}()
	return func() {
		stop()
		_ = srv.Close()
		<-done
	}
}

func describe(out io.Writer, sim *onesim.Sim, f onesim.Fixture, o options, endpoint, admin string) {
	fmt.Fprintf(out, "OpenNebula %s (simulated)\nONE_XMLRPC=%s\n", onesim.Version, endpoint)
	if admin != "" {
		fmt.Fprintf(out, "admin: %s (GET /state /calls /faults, POST /faults /fixture /settle, DELETE /faults /calls)\n", admin)
	}
	fmt.Fprintf(out, "user oneadmin:%s\n", o.password)
	for _, u := range f.Users {
		fmt.Fprintf(out, "user %s:%s\n", u.Name, u.Password)
	}
	state := sim.Snapshot()
	for _, n := range state.Networks {
		fmt.Fprintf(out, "network %d %s\n", n.ID, n.Name)
		for _, r := range n.Ranges {
			fmt.Fprintf(out, "  range %d %s, %d addresses", r.ID, r.Type, r.Size)
			if r.First.IsValid() {
				fmt.Fprintf(out, " from %s", r.First)
			}
			if r.First6.IsValid() {
				fmt.Fprintf(out, " from %s", r.First6)
			}
			fmt.Fprintln(out)
		}
	}
	for _, v := range state.VMs {
		fmt.Fprintf(out, "VM %d %s of %s, %s", v.ID, v.Name, v.Owner, v.State)
		for _, n := range v.NICs {
			fmt.Fprintf(out, ", NIC %d %s", n.ID, n.IP)
		}
		fmt.Fprintln(out)
	}
	for _, r := range state.Routers {
		fmt.Fprintf(out, "virtual router %d %s, VMs %v\n", r.ID, r.Name, r.VMs)
	}
}
