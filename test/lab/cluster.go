package lab

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/onelb/onelb/test/lab/proc"
	"golang.org/x/sync/errgroup"
)

// startCluster starts everything that runs. Most of the time goes into programs
// that initialise themselves, so whatever does not need another starts with it.
func (l *Lab) startCluster(ctx context.Context) error {
	for _, n := range l.nodes {
		n.proxy = l.unit(n.Host, "kube-proxy-"+n.ShortName(), l.kube("kube-proxy"), n.proxyArgs()...)
	}
	if err := l.startControlPlane(ctx); err != nil {
		return err
	}
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return l.startNodes(ctx) })
	if l.options.Programs {
		g.Go(func() error { return l.startPrograms(ctx) })
	}
	return g.Wait()
}

func (l *Lab) startNodes(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	for _, n := range l.nodes {
		g.Go(func() error { return n.start(ctx) })
	}
	if err := g.Wait(); err != nil {
		return err
	}
	l.say("%d nodes are registered, kube-proxy works on each", len(l.nodes))
	return nil
}

// runIn runs a command to its end in a namespace and returns its output, also with an error.
func (l *Lab) runIn(ctx context.Context, h *Host, stdin, path string, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, l.scaled(startTimeout))
	defer cancel()
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.Env = append(l.tools.env(), "HOME="+l.options.Dir, proc.MarkVariable+"="+l.options.Name)
	cmd.Stdin = strings.NewReader(stdin)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	// Only the start needs the namespace; the goroutine's thread goes back at once.
	err := h.Do(cmd.Start)
	if err == nil {
		err = cmd.Wait()
	}
	if err != nil {
		name := filepath.Base(path)
		return stdout.String(), fmt.Errorf("%s %s on %s: %w: %s", name, strings.Join(args, " "), h.ShortName(),
			errors.Join(err, ctx.Err()), strings.TrimSpace(stderr.String()))
	}
	return stdout.String(), nil
}

// Kubectl runs kubectl as administrator and returns what it prints.
func (l *Lab) Kubectl(ctx context.Context, args ...string) (string, error) {
	return l.runIn(ctx, l.control, "", l.kube("kubectl"), append([]string{"--kubeconfig=" + l.Kubeconfig()}, args...)...)
}

// Ctl runs onelbctl as administrator, on the control plane's host, and returns what
// it prints; its errors have what it says on standard error.
func (l *Lab) Ctl(ctx context.Context, args ...string) (string, error) {
	return l.runIn(ctx, l.control, "", l.program(ctlProgram), append(args, "--kubeconfig="+l.Kubeconfig())...)
}

// Shell runs a script as an operator would, on the machine the lab runs on, in a
// directory: kubectl and onelbctl are on its PATH, and reach the API server.
func (l *Lab) Shell(ctx context.Context, dir, script string) (string, error) {
	cmd := exec.CommandContext(ctx, "sh", "-euc", script)
	cmd.Dir = dir
	// All that the script has started ends with it.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.Env = append(os.Environ(), "HOME="+l.options.Dir, "KUBECONFIG="+l.HostKubeconfig(), proc.MarkVariable+"="+l.options.Name,
		"PATH="+l.kubeDir+":"+l.path("bin")+":"+os.Getenv("PATH"))
	out, err := cmd.CombinedOutput()
	if err != nil {
		err = fmt.Errorf("%w\n%s", errors.Join(err, ctx.Err()), out)
	}
	return string(out), err
}

// NFT runs the nft program on a host and returns what it prints.
func (l *Lab) NFT(ctx context.Context, h *Host, args ...string) (string, error) {
	return l.runIn(ctx, h, "", l.tools.nft.Path, args...)
}
