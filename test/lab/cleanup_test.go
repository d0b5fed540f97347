package lab_test

import (
	"bufio"
	"context"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/onelb/onelb/test/lab"
	"github.com/onelb/onelb/test/lab/labtest"
	"github.com/onelb/onelb/test/lab/ns"
	"github.com/onelb/onelb/test/lab/proc"
)

// TestKilled kills a process with a lab: its programs die with it, and the next
// lab of the name starts in its place and leaves nothing.
func TestKilled(t *testing.T) {
	labtest.RequireRoot(t)
	const name = "labtest-killed"
	runChild(t, name)
	// The kernel kills the programs when the lab's process is gone.
	eventually(t, "the programs of a killed lab end", func(context.Context) error {
		if pids, err := proc.Marked(name); err != nil || len(pids) > 0 {
			return errors.Join(err, errStill)
		}
		return nil
	})
	if left, err := ns.Named("onelb-" + name + "-"); err != nil || len(left) == 0 {
		t.Fatalf("namespaces after the kill: %v, %v; the test proves nothing without any", left, err)
	}
	l, err := lab.New(lab.Options{Name: name, Nodes: 1, ProxyMode: lab.IPTables, NodeLifecycle: true})
	must(t, err)
	must(t, l.Start(t.Context()))
	t.Run("iptables", func(t *testing.T) { testIPTables(t, l) })
	t.Run("lifecycle", func(t *testing.T) { testLifecycle(t, l) })
	must(t, l.Close())
	if left, err := ns.Named("onelb-" + name + "-"); err != nil || len(left) > 0 {
		t.Errorf("namespaces after Close: %v, %v", left, err)
	}
	if pids, err := proc.Marked(name); err != nil || len(pids) > 0 {
		t.Errorf("processes after Close: %v, %v", pids, err)
	}
	for _, path := range []string{l.Dir(), "/run/onelb-lab/" + name + ".lock"} {
		if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s after Close: %v", path, err)
		}
	}
	must(t, l.Close()) // again: harmless
}

// runChild starts a process with a lab and kills it when the lab is up.
func runChild(t *testing.T, name string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0])
	cmd.Env = append(os.Environ(), childVariable+"="+name)
	out, err := cmd.StdoutPipe()
	must(t, err)
	cmd.Stderr = os.Stderr
	must(t, cmd.Start())
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil || strings.TrimSpace(line) != "up" {
		t.Errorf("the lab of the child says %q, %v", line, err)
	}
	must(t, cmd.Process.Signal(syscall.SIGKILL))
	if err := cmd.Wait(); err == nil {
		t.Error("the child was not killed")
	}
	if t.Failed() {
		t.FailNow()
	}
}

// testIPTables reaches a pod through kube-proxy in its other mode.
func testIPTables(t *testing.T, l *lab.Lab) {
	w := lab.Workload{Name: "iptables"}
	workload(t, l, w)
	svc := service(t, l, w.Service("iptables", corev1.ServiceTypeNodePort))
	for _, to := range l.Nodes()[0].Addrs(lab.Private) {
		eventually(t, "the pod answers at "+to.String(), func(ctx context.Context) error {
			_, err := l.Internet().HTTPGet(ctx, to, uint16(svc.Spec.Ports[0].NodePort))
			return err
		})
	}
}

// testLifecycle silences a kubelet and revives it.
func testLifecycle(t *testing.T, l *lab.Lab) {
	ready := func(ctx context.Context) (corev1.ConditionStatus, error) {
		node, err := l.Client().CoreV1().Nodes().Get(ctx, "node-1", metav1.GetOptions{})
		if err != nil {
			return "", err
		}
		for _, c := range node.Status.Conditions {
			if c.Type == corev1.NodeReady {
				return c.Status, nil
			}
		}
		return "", nil
	}
	is := func(want corev1.ConditionStatus) func(context.Context) error {
		return func(ctx context.Context) error {
			if got, err := ready(ctx); err != nil || got != want {
				return errors.Join(err, errStill)
			}
			return nil
		}
	}
	node := l.Nodes()[0]
	node.StopKubelet()
	eventually(t, "the node is thought dead", is(corev1.ConditionUnknown))
	must(t, node.StartKubelet(t.Context()))
	eventually(t, "the node is Ready again", is(corev1.ConditionTrue))
	// A cut management link silences it as well.
	must(t, node.Link(lab.Management).Cut())
	eventually(t, "the node is thought dead after the cut", is(corev1.ConditionUnknown))
	must(t, node.Link(lab.Management).Heal())
	eventually(t, "the node is Ready after the cut", is(corev1.ConditionTrue))
}

// TestInUse starts a second lab under a live one's name.
func TestInUse(t *testing.T) {
	l := labtest.Shared(t)
	second, err := lab.New(lab.Options{Name: l.Name()})
	must(t, err)
	if err := second.Start(t.Context()); !errors.Is(err, lab.ErrInUse) {
		t.Errorf("a second lab of the same name: %v; want %v", err, lab.ErrInUse)
	}
	must(t, second.Close())
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if _, err := l.Client().CoreV1().Nodes().List(ctx, metav1.ListOptions{}); err != nil {
		t.Errorf("the first lab is harmed: %v", err)
	}
}
