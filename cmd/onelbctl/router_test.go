package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func runCommand(t *testing.T, args ...string) (string, error) {
	t.Helper()
	c := root()
	var out bytes.Buffer
	c.SetOut(&out)
	c.SetErr(&out)
	c.SetArgs(args)
	err := c.ExecuteContext(t.Context())
	return out.String(), err
}

func names(t *testing.T, dir string) string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return strings.Join(names, " ")
}

func TestBootstrap(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "pki")
	out, err := runCommand(t, "router", "bootstrap", "--router=edge", "--cluster=lab", "--out="+dir)
	if err != nil {
		t.Fatal(err)
	}
	if got := names(t, dir); got != "ca.crt ca.key client.crt client.key router.crt router.key" {
		t.Errorf("files %s", got)
	}
	if !strings.Contains(out, "--name=edge") || !strings.Contains(out, "cluster lab") {
		t.Errorf("output:\n%s", out)
	}
	for _, key := range []string{"ca.key", "router.key", "client.key"} {
		info, err := os.Stat(filepath.Join(dir, key))
		if err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: mode %v, %v", key, info.Mode(), err)
		}
	}
	read := func(name string) string {
		t.Helper()
		b, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	ca, server, client := read("ca.crt"), read("router.crt"), read("client.crt")

	// Again: nothing is overwritten.
	if _, err := runCommand(t, "router", "bootstrap", "--router=edge", "--cluster=other", "--out="+dir); err == nil || !strings.Contains(err.Error(), "not overwritten") {
		t.Errorf("error %v", err)
	}
	if read("client.crt") != client {
		t.Error("client.crt was overwritten")
	}
	// A further cluster gets its own certificate by the same authority.
	for _, name := range []string{"client.crt", "client.key"} {
		if err := os.Rename(filepath.Join(dir, name), filepath.Join(dir, "lab-"+name)); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := runCommand(t, "router", "bootstrap", "--router=edge", "--cluster=other", "--out="+dir); err != nil {
		t.Fatal(err)
	}
	if read("ca.crt") != ca || read("router.crt") != server || read("client.crt") == client {
		t.Error("authority or router changed, or the client did not")
	}
	// The router's certificate of another name is not taken for this one's.
	if _, err := runCommand(t, "router", "bootstrap", "--router=edge2", "--cluster=third", "--out="+dir); err == nil || !strings.Contains(err.Error(), "not a certificate of router edge2") {
		t.Errorf("error %v", err)
	}
}

func TestBootstrapRefuses(t *testing.T) {
	for want, args := range map[string][]string{
		"required flag":  {"--router=edge", "--cluster=lab"},
		"DNS labels":     {"--router=Edge", "--cluster=lab", "--out=" + t.TempDir()},
		"unknown flag":   {"--router=edge", "--cluster=lab", "--out=" + t.TempDir(), "--force"},
		"unknown comman": {"x", "--router=edge", "--cluster=lab", "--out=" + t.TempDir()},
	} {
		if out, err := runCommand(t, append([]string{"router", "bootstrap"}, args...)...); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v: error %v, output %s, want %q", args, err, out, want)
		}
	}
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "ca.crt"), []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := runCommand(t, "router", "bootstrap", "--router=edge", "--cluster=lab", "--out="+dir); err == nil || !strings.Contains(err.Error(), "ca.key") {
		t.Errorf("half an authority: %v", err)
	}
	if got := names(t, dir); got != "ca.crt" {
		t.Errorf("files %s", got)
	}
}

func TestVersion(t *testing.T) {
	if out, err := runCommand(t, "version"); err != nil || out != "onelbctl dev\n" {
		t.Errorf("%q, %v", out, err)
	}
}
