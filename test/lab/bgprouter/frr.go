package bgprouter

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/onelb/onelb/test/lab/debian"
	"github.com/onelb/onelb/test/lab/kubebin"
	"github.com/onelb/onelb/test/lab/proc"
)

// startTimeout bounds the start of a daemon.
const startTimeout = 60 * time.Second

// ErrCommand is returned for a command that the router refuses.
var ErrCommand = errors.New("the router refuses")

// Options of Start. All are required.
type Options struct {
	Spawner *proc.Spawner
	Host    proc.Host
	// Name of the router; it names its programs.
	Name string
	// Dir is for sockets and logs. Its path is short: it is part of a socket's name.
	Dir string
}

// FRR is zebra, bgpd and bfdd.
type FRR struct {
	o     Options
	root  string
	units []*proc.Unit
}

// StartFRR starts FRR without any configuration. Its routes go to the kernel.
func StartFRR(ctx context.Context, o Options) (*FRR, error) {
	cache, err := kubebin.CacheDir()
	if err != nil {
		return nil, err
	}
	f := &FRR{o: o}
	if f.root, err = debian.Unpack(ctx, cache, "frr"); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(o.Dir, 0o755); err != nil {
		return nil, err
	}
	// The daemons insist on this group, which an unpacked package has not made.
	if err := os.WriteFile(f.path("group"), []byte("root:x:0:\nfrrvty:x:0:\n"), 0o600); err != nil {
		return nil, err
	}
	libs, err := f.libraries()
	if err != nil {
		return nil, err
	}
	for _, daemon := range []string{"zebra", "bgpd", "bfdd"} {
		u := o.Spawner.NewUnit(o.Host, proc.Spec{
			Name: o.Name + "-" + daemon, Path: "/usr/bin/unshare", Args: f.args(daemon),
			Env: []string{"LD_LIBRARY_PATH=" + libs}, Log: f.path(daemon + ".log"),
		})
		f.units = append(f.units, u)
		if err := u.Start(); err != nil {
			return nil, errors.Join(err, f.Stop())
		}
		if err := f.await(ctx, u, daemon); err != nil {
			return nil, errors.Join(err, f.Stop())
		}
	}
	return f, nil
}

func (f *FRR) path(name string) string { return filepath.Join(f.o.Dir, name) }

func (f *FRR) libraries() (string, error) {
	dirs, err := filepath.Glob(filepath.Join(f.root, "usr/lib/*-linux-gnu*"))
	for _, d := range dirs {
		dirs = append(dirs, filepath.Join(d, "frr"))
	}
	return strings.Join(dirs, ":"), err
}

// args run the daemon where /etc/group is ours.
func (f *FRR) args(daemon string) []string {
	args := []string{
		"--mount", "/bin/sh", "-c", `mount --bind "$0" /etc/group && exec "$@"`, f.path("group"),
		filepath.Join(f.root, "usr/lib/frr", daemon), "--user", "root", "--group", "root",
		"--vty_socket", f.o.Dir, "--socket", f.path("zserv.api"), "--pid_file", f.path(daemon + ".pid"),
		"--vty_port", "0", "--config_file", "/dev/null", "--log", "stdout",
	}
	if daemon == "bfdd" {
		args = append(args, "--bfdctl", f.path("bfdd.sock"))
	}
	return args
}

// await returns when the daemon takes commands.
func (f *FRR) await(ctx context.Context, u *proc.Unit, daemon string) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	for {
		_, err := f.command(ctx, daemon, "show version")
		if err == nil {
			return nil
		}
		if !u.Running() {
			return fmt.Errorf("%s ended: %w; its last lines:\n%s", u.Name(), u.Err(), u.Tail(15))
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s does not take commands: %w", u.Name(), err)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// Stop ends all daemons at once, without a word to anybody.
func (f *FRR) Stop() error {
	var errs []error
	for _, u := range f.units {
		errs = append(errs, u.Kill())
	}
	return errors.Join(errs...)
}

// BGPD is the BGP daemon, to be stopped and started by itself. Started anew it has no
// configuration.
func (f *FRR) BGPD() *proc.Unit { return f.units[1] }

// Await returns when a BGP daemon that was started anew takes commands.
func (f *FRR) Await(ctx context.Context) error { return f.await(ctx, f.BGPD(), "bgpd") }

// Configure gives bgpd lines of configuration, each on its own.
func (f *FRR) Configure(ctx context.Context, lines ...string) error {
	_, err := f.command(ctx, "bgpd", append(append([]string{"configure terminal"}, lines...), "end")...)
	return err
}

// Show is bgpd's answer to a command.
func (f *FRR) Show(ctx context.Context, command string) (string, error) {
	return f.command(ctx, "bgpd", command)
}

// ShowJSON decodes bgpd's answer to a command that ends in json.
func (f *FRR) ShowJSON(ctx context.Context, command string, into any) error {
	text, err := f.Show(ctx, command)
	if err != nil {
		return err
	}
	if err := json.Unmarshal([]byte(text), into); err != nil {
		return fmt.Errorf("answer to %q: %w: %s", command, err, text)
	}
	return nil
}
