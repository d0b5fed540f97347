package main

import (
	"bytes"
	"encoding/base64"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/onelb/onelb/loadbalancer/router"
	"github.com/onelb/onelb/loadbalancer/router/pki"
)

// bootstrapped is a directory as bootstrap leaves it.
func bootstrapped(t *testing.T) (dir string, read func(name string) []byte) {
	t.Helper()
	dir = filepath.Join(t.TempDir(), "pki")
	if _, err := runCommand(t, "router", "bootstrap", "--router=edge", "--cluster=lab", "--out="+dir); err != nil {
		t.Fatal(err)
	}
	return dir, func(name string) []byte {
		t.Helper()
		b, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
}

// trusts reports whether an authority file accepts the directory's router certificate.
func trusts(t *testing.T, ca, cert []byte) bool {
	t.Helper()
	authorities, err := certificates(ca)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := certificates(cert)
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range authorities {
		if leaf[0].CheckSignatureFrom(a) == nil {
			return true
		}
	}
	return false
}

func TestRotate(t *testing.T) {
	dir, read := bootstrapped(t)
	ca, server, client := read("ca.crt"), read("router.crt"), read("client.crt")
	out, err := runCommand(t, "router", "rotate", "--out="+dir)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(out, "router edge") || !strings.Contains(out, "cluster lab") {
		t.Errorf("output:\n%s", out)
	}
	if !bytes.Equal(read("ca.crt"), ca) || bytes.Equal(read("router.crt"), server) || bytes.Equal(read("client.crt"), client) {
		t.Error("the authority changed, or the certificates did not")
	}
	authority, err := pki.LoadAuthority(pki.Pair{Cert: read("ca.crt"), Key: read("ca.key")})
	if err != nil {
		t.Fatal(err)
	}
	if err := authority.Verify(read("router.crt"), router.ServerName("edge")); err != nil {
		t.Error(err)
	}
	renewed, err := certificates(read("client.crt"))
	if err != nil {
		t.Fatal(err)
	}
	if cluster, err := router.ClusterOf(renewed[0]); cluster != "lab" || !trusts(t, ca, read("client.crt")) {
		t.Errorf("client of cluster %q, %v", cluster, err)
	}
	if info, err := os.Stat(filepath.Join(dir, "router.key")); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("router.key: %v, %v", info.Mode(), err)
	}
	if got := names(t, dir); got != "ca.crt ca.key client.crt client.key router.crt router.key" {
		t.Errorf("files %s", got)
	}
}

// TestRotateAuthority: at each step what is in place trusts what may come.
func TestRotateAuthority(t *testing.T) {
	dir, read := bootstrapped(t)
	refused := func(want string, args ...string) {
		t.Helper()
		if _, err := runCommand(t, append([]string{"router", "rotate", "--out=" + dir}, args...)...); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v: error %v, want %q", args, err, want)
		}
	}
	step := func(args ...string) {
		t.Helper()
		if _, err := runCommand(t, append([]string{"router", "rotate", "--out=" + dir}, args...)...); err != nil {
			t.Fatal(err)
		}
	}
	oldCA, oldServer := read("ca.crt"), read("router.crt")
	refused("no exchange has begun", "--authority=finish")
	refused("neither begin nor finish", "--authority=x")
	step("--authority=begin")
	both := read("ca.crt")
	if !trusts(t, both, oldServer) {
		t.Error("the old certificate is not trusted between the steps")
	}
	refused("begun already", "--authority=begin")
	refused("still of the old authority", "--authority=finish")
	step()
	if !trusts(t, both, read("router.crt")) || trusts(t, oldCA, read("router.crt")) {
		t.Error("the new certificate is not of the new authority")
	}
	step("--authority=finish")
	if !trusts(t, read("ca.crt"), read("client.crt")) || trusts(t, read("ca.crt"), oldServer) {
		t.Error("the new authority does not count alone")
	}
	step() // and so it goes on
	if err := os.Remove(filepath.Join(dir, "ca.key")); err != nil {
		t.Fatal(err)
	}
	refused("belong together")
}

// TestContext runs the start script that is printed, up to the init system.
func TestContext(t *testing.T) {
	dir, read := bootstrapped(t)
	out, err := runCommand(t, "router", "context", "--out="+dir, "--listen=10.30.0.11:9443", "--args=--public-interfaces=eth0 --v=4")
	if err != nil {
		t.Fatal(err)
	}
	match := regexp.MustCompile(`START_SCRIPT_BASE64 = "([A-Za-z0-9+/=]+)"`).FindStringSubmatch(out)
	if match == nil || !strings.Contains(out, `$FILE[IMAGE=\"onelb-router\"]:'onelb-router'`) {
		t.Fatalf("output:\n%s", out)
	}
	script, err := base64.StdEncoding.DecodeString(match[1])
	if err != nil {
		t.Fatal(err)
	}
	// In place of install.sh, whose work is the machine's: look at what it would find.
	mount, found := t.TempDir(), t.TempDir()
	if err := os.WriteFile(filepath.Join(mount, "onelb-router"), []byte("binary"), 0o600); err != nil {
		t.Fatal(err)
	}
	probe := strings.Replace(string(script), "sh ./install.sh\n", "cp * "+found+"/\n", 1)
	cmd := exec.CommandContext(t.Context(), "sh", "-c", probe)
	cmd.Env = append(os.Environ(), "MOUNT_DIR="+mount)
	if text, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, text)
	}
	if got := names(t, found); got != "ca.crt install.sh onelb-router onelb-router.env onelb-router.initd onelb-router.service router.crt router.key" {
		t.Errorf("files %s", got)
	}
	for _, name := range []string{"ca.crt", "router.crt", "router.key"} {
		if data, err := os.ReadFile(filepath.Join(found, name)); err != nil || !bytes.Equal(data, read(name)) {
			t.Errorf("%s differs: %v", name, err)
		}
	}
	settings := exec.CommandContext(t.Context(), "sh", "-c", `. ./onelb-router.env; echo "$ONELB_ROUTER_NAME|$ONELB_ROUTER_LISTEN|$ONELB_ROUTER_ARGS"`)
	settings.Dir = found
	if text, err := settings.CombinedOutput(); err != nil || string(text) != "edge|10.30.0.11:9443|--public-interfaces=eth0 --v=4\n" {
		t.Errorf("settings %s, %v", text, err)
	}
	for _, args := range [][]string{{"--listen=x"}, {"--args=$(reboot)"}, {"--image=a'b"}} {
		if _, err := runCommand(t, append([]string{"router", "context", "--out=" + dir}, args...)...); err == nil {
			t.Errorf("%v is taken", args)
		}
	}
	if _, err := runCommand(t, "router", "context", "--out="+t.TempDir()); err == nil || !strings.Contains(err.Error(), "bootstrap") {
		t.Errorf("empty directory: %v", err)
	}
}
