package e2e_test

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// TestChartIsTakenByTheAPIServer: what the chart makes, with its default values and
// with all others, is valid to the real API server beside the base.
func TestChartIsTakenByTheAPIServer(t *testing.T) {
	w := newWorld(t)
	program := filepath.Join(t.TempDir(), "helm")
	build := exec.CommandContext(t.Context(), "go", "build", "-C", "../helm", "-o", program, ".")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for name, args := range map[string][]string{"default": nil, "everything": {"-f", "../helm/testdata/everything.yaml"}} {
		text, err := exec.CommandContext(t.Context(), program, append(args, "../../manifests/chart")...).Output()
		w.Must(err)
		file := filepath.Join(t.TempDir(), "chart.yaml")
		w.Must(os.WriteFile(file, text, 0o600))
		w.Eventually("the API server takes the chart, "+name, func(ctx context.Context) error {
			out, err := w.Kubectl(ctx, "apply", "--dry-run=server", "-f", file)
			t.Log(out)
			return err
		})
	}
}

// TestOverlaysAreTakenByTheAPIServer: kustomize builds each overlay, and the real
// API server takes it.
func TestOverlaysAreTakenByTheAPIServer(t *testing.T) {
	w := newWorld(t)
	overlays, err := filepath.Glob("../../manifests/overlays/*/kustomization.yaml")
	w.Must(err)
	if len(overlays) == 0 {
		t.Fatal("there are none")
	}
	for _, o := range overlays {
		w.Eventually("the API server takes "+o, func(ctx context.Context) error {
			out, err := w.Kubectl(ctx, "apply", "--dry-run=server", "-k", filepath.Dir(o))
			t.Log(out)
			return err
		})
	}
}
