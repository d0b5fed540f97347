package main

import (
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
