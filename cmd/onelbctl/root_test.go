package main

import (
	"bytes"
	"os"
	"strings"
	"testing"
)

func TestKubectlPlugin(t *testing.T) {
	name := os.Args[0]
	defer func() { os.Args[0] = name }()
	os.Args[0] = "/usr/local/bin/kubectl-onelb"
	out, err := runCommand(t, "status", "--help")
	if err != nil || !strings.Contains(out, "kubectl onelb status [flags]") {
		t.Errorf("%v\n%s", err, out)
	}
}

// TestKubectlCompletes: kubectl's completion of plugins calls a program of this name.
func TestKubectlCompletes(t *testing.T) {
	args := os.Args
	defer func() { os.Args = args }()
	os.Args = []string{"/usr/local/bin/kubectl_complete-onelb", "mig"}
	c := root()
	var out bytes.Buffer
	c.SetOut(&out)
	c.SetErr(&out)
	if err := c.ExecuteContext(t.Context()); err != nil || !strings.Contains(out.String(), "migrate\tMove Services") {
		t.Errorf("%v\n%s", err, out.String())
	}
}

func TestCompletion(t *testing.T) {
	for _, shell := range []string{"bash", "zsh", "fish", "powershell"} {
		if out, err := runCommand(t, "completion", shell); err != nil || !strings.Contains(out, "onelbctl") {
			t.Errorf("%s: %v\n%s", shell, err, out)
		}
	}
	if out, err := runCommand(t, "__complete", "status", "-o", ""); err != nil || !strings.Contains(out, "yaml") {
		t.Errorf("%v\n%s", err, out)
	}
}

func TestNoCluster(t *testing.T) {
	t.Setenv("KUBECONFIG", "")
	for _, args := range [][]string{{"status"}, {"explain", "service", "a/b"}} {
		if _, err := runCommand(t, append(args, "--kubeconfig", "/nonexistent")...); err == nil || !strings.Contains(err.Error(), "/nonexistent") {
			t.Errorf("%v: %v", args, err)
		}
	}
}
