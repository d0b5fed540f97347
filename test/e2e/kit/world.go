package kit

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/onelb/onelb/api/client"
	"github.com/onelb/onelb/test/lab"
	"github.com/onelb/onelb/test/lab/labtest"
)

const (
	// Namespace is where Services are unless edited.
	Namespace = metav1.NamespaceDefault
	// Port is the first port of every Service.
	Port = 8765
	// Patience is the longest wait for an end state: kube-proxy alone pauses for up to
	// 103 s after the API server was away.
	Patience = 150 * time.Second
)

// Web has a pod on each node, Pair on the first two only.
var (
	Web  = lab.Workload{Name: "web", Replicas: 3}
	Pair = lab.Workload{Name: "pair", Replicas: 2, Nodes: []string{"node-1", "node-2"}}
)

// Setup is done once for all tests of a package.
type Setup struct {
	// Pools are applied as they are.
	Pools     string
	Workloads []lab.Workload

	once  sync.Once
	onelb client.Interface
	err   error
}

// World is the shared lab with what every test needs in it.
type World struct {
	*lab.Lab
	OneLB client.Interface
	T     *testing.T
}

// New gives a test the package's lab with pools and pods, and shows the programs'
// last words if the test fails.
func New(t *testing.T, s *Setup) *World {
	t.Helper()
	l := labtest.Shared(t)
	s.once.Do(func() { s.onelb, s.err = s.prepare(l) })
	if s.err != nil {
		t.Fatal(s.err)
	}
	labtest.Logs(t, l.CCM(), l.Router(1).Agent(), l.Agent(1))
	return &World{Lab: l, OneLB: s.onelb, T: t}
}

func (s *Setup) prepare(l *lab.Lab) (client.Interface, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	if err := l.WaitReady(ctx); err != nil {
		return nil, err
	}
	file := filepath.Join(l.Dir(), "pools.yaml")
	if err := os.WriteFile(file, []byte(s.Pools), 0o600); err != nil {
		return nil, err
	}
	if _, err := l.Kubectl(ctx, "apply", "-f", file); err != nil {
		return nil, err
	}
	if out, err := l.Kubectl(ctx, "wait", "addresspools", "--all", "--for=condition=Ready", "--timeout=60s"); err != nil {
		return nil, fmt.Errorf("pools: %w: %s", err, out)
	}
	for _, w := range s.Workloads {
		if _, err := l.StartWorkload(ctx, w); err != nil {
			return nil, err
		}
	}
	cfg, err := l.RESTConfig(l.Control())
	if err != nil {
		return nil, err
	}
	return client.New(cfg)
}

// Context ends with the test and is never longer than a wait may be.
func (w *World) Context() context.Context {
	w.T.Helper()
	ctx, cancel := context.WithTimeout(w.T.Context(), 2*Patience)
	w.T.Cleanup(cancel)
	return ctx
}

// Eventually waits until f returns nil.
func (w *World) Eventually(what string, f func(ctx context.Context) error) {
	w.T.Helper()
	w.Every(50*time.Millisecond, Patience, what, f)
}

// Every calls f at intervals until it returns nil; after the limit the test ends.
func (w *World) Every(pause, limit time.Duration, what string, f func(ctx context.Context) error) {
	w.T.Helper()
	ctx, cancel := context.WithTimeout(w.T.Context(), limit)
	defer cancel()
	for {
		attempt, end := context.WithTimeout(ctx, 5*time.Second)
		err := f(attempt)
		end()
		if err == nil {
			return
		}
		select {
		case <-ctx.Done():
			w.T.Fatalf("waited %s for %s: %v", limit, what, err)
		case <-time.After(pause):
		}
	}
}

// Must ends the test on an error.
func (w *World) Must(err error) {
	w.T.Helper()
	if err != nil {
		w.T.Fatal(err)
	}
}
