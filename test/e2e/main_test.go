package e2e_test

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
	namespace = metav1.NamespaceDefault
	port      = 8765

	// patience is the longest wait for an end state. Nothing is measured here.
	patience = 60 * time.Second
)

func TestMain(m *testing.M) {
	os.Exit(labtest.Run(m, lab.Options{Name: "e2e", Programs: true}))
}

// world is the shared lab with what every test needs in it.
type world struct {
	*lab.Lab
	onelb client.Interface
	t     *testing.T
}

var prepared struct {
	sync.Once
	onelb client.Interface
	err   error
}

// web has a pod on each node, pair on the first two only.
var (
	web  = lab.Workload{Name: "web", Replicas: 3}
	pair = lab.Workload{Name: "pair", Replicas: 2, Nodes: []string{"node-1", "node-2"}}
)

// newWorld gives a test the lab with pools and pods, and shows the programs' last
// words if the test fails.
func newWorld(t *testing.T) *world {
	t.Helper()
	l := labtest.Shared(t)
	prepared.Do(func() { prepared.onelb, prepared.err = prepare(l) })
	if prepared.err != nil {
		t.Fatal(prepared.err)
	}
	labtest.Logs(t, l.CCM(), l.Router(1).Agent(), l.Agent(1))
	return &world{Lab: l, onelb: prepared.onelb, t: t}
}

func prepare(l *lab.Lab) (client.Interface, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	if err := l.WaitReady(ctx); err != nil {
		return nil, err
	}
	file := filepath.Join(l.Dir(), "pools.yaml")
	if err := os.WriteFile(file, []byte(pools), 0o600); err != nil {
		return nil, err
	}
	if _, err := l.Kubectl(ctx, "apply", "-f", file); err != nil {
		return nil, err
	}
	if out, err := l.Kubectl(ctx, "wait", "addresspools", "--all", "--for=condition=Ready", "--timeout=60s"); err != nil {
		return nil, fmt.Errorf("pools: %w: %s", err, out)
	}
	for _, w := range []lab.Workload{web, pair} {
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

// context ends with the test and is never longer than a wait may be.
func (w *world) context() context.Context {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.t.Context(), 2*patience)
	w.t.Cleanup(cancel)
	return ctx
}

// eventually waits until f returns nil.
func (w *world) eventually(what string, f func(ctx context.Context) error) {
	w.t.Helper()
	w.every(50*time.Millisecond, patience, what, f)
}

// every calls f at intervals until it returns nil.
func (w *world) every(pause, limit time.Duration, what string, f func(ctx context.Context) error) {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.t.Context(), limit)
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
			w.t.Fatalf("waited %s for %s: %v", limit, what, err)
		case <-time.After(pause):
		}
	}
}

// must ends the test on an error.
func (w *world) must(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}
