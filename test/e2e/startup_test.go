package e2e_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/onelb/onelb/test/e2e/kit"
)

// run runs a program on this machine and returns all its output.
func run(ctx context.Context, path string, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	out, err := exec.CommandContext(ctx, path, args...).CombinedOutput()
	if ctx.Err() != nil {
		err = errNoExit
	}
	return string(out), err
}

// TestBadCloudConfig starts the cloud-controller-manager with files that it must
// refuse, naming file, line and key.
func TestBadCloudConfig(t *testing.T) {
	w := newWorld(t)
	good, err := os.ReadFile(w.CloudConfig())
	w.Must(err)
	swap := func(old, new string) string {
		if !strings.Contains(string(good), old) {
			t.Fatalf("the lab's cloud-config has no %q", old)
		}
		return strings.Replace(string(good), old, new, 1)
	}
	for name, c := range map[string]struct {
		text  string
		words []string
	}{
		"unknown key":       {swap("cluster: lab", "clutser: lab"), []string{"line 4", "clutser", "cluster"}},
		"unknown inner key": {swap("file: ", "flie: "), []string{"line 3", "flie", "file"}},
		"wrong type":        {swap("internalNetworks: [private]", "internalNetworks: private"), []string{"line 6", "instances.internalNetworks", "must be a list"}},
		"number":            {swap("cluster: lab", "cluster: 7"), []string{"line 4", "cluster", "must be a text"}},
		"no label":          {swap("cluster: lab", "cluster: My_Lab"), []string{"line 4", "cluster"}},
		"endpoint":          {swap("endpoint: http://10.30.0.1:2633/RPC2", "endpoint: one.example.org"), []string{"line 1", "endpoint", "http"}},
		"duration":          {string(good) + "requestTimeout: 10\n", []string{"requestTimeout", "10s"}},
		"router endpoint":   {swap("10.30.0.11:9443", "10.30.0.11"), []string{"routers[0].endpoints[0]", "port"}},
		"no YAML":           {"endpoint: [", []string{"not YAML", "line 1"}},
		"empty":             {"", []string{"endpoint", "credentials", "cluster"}},
		"two at once":       {swap("cluster: lab", "clutser: lab") + "zone: x\n", []string{"clutser", "zone"}},
	} {
		t.Run(name, func(t *testing.T) {
			w := &world{&kit.World{Lab: w.Lab, OneLB: w.OneLB, T: t}}
			file := filepath.Join(t.TempDir(), "cloud-config.yaml")
			w.Must(os.WriteFile(file, []byte(c.text), 0o600))
			out, err := run(t.Context(), w.Program("opennebula-cloud-controller-manager"), "--cloud-provider=opennebula", "--cloud-config="+file,
				"--kubeconfig="+w.HostKubeconfig(), "--leader-elect=false", "--secure-port=0")
			var exit *exec.ExitError
			if !errors.As(err, &exit) {
				t.Fatalf("ended with %v, want an exit code: %s", err, out)
			}
			w.mentions(out, append(c.words, file)...)
			if strings.Contains(out, "goroutine 1 ") {
				t.Errorf("a stack trace instead of an error: %s", out)
			}
		})
	}
}

// TestBadFlags starts the agents without what they need.
func TestBadFlags(t *testing.T) {
	w := newWorld(t)
	missing := filepath.Join(t.TempDir(), "missing")
	for program, c := range map[string]struct {
		args  []string
		words []string
	}{
		"onelb-node":   {[]string{"--kubeconfig=" + w.HostKubeconfig(), "--state-dir=" + t.TempDir()}, []string{"node-name"}},
		"onelb-router": {[]string{"--name=edge", "--tls-cert=" + missing, "--tls-key=" + missing, "--tls-client-ca=" + missing, "--state-dir=" + t.TempDir()}, []string{missing}},
	} {
		out, err := run(t.Context(), w.Program(program), c.args...)
		var exit *exec.ExitError
		if !errors.As(err, &exit) {
			t.Errorf("%s ended with %v, want an exit code: %s", program, err, out)
			continue
		}
		w.mentions(fmt.Sprint(out), c.words...)
	}
}
