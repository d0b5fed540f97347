package main

import (
	"fmt"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/onelb/onelb/ipam"
	"github.com/onelb/onelb/provider/one"
	"github.com/onelb/onelb/test/onesim"
)

// TestAdopt runs the command against OpenNebula as a plain user.
func TestAdopt(t *testing.T) {
	sim, err := onesim.New(onesim.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := sim.AddUser("k8s", "k8spass123", ""); err != nil {
		t.Fatal(err)
	}
	parent, err := sim.AddVNet("", "NAME=\"public\"\nVN_MAD=\"dummy\"\nBRIDGE=\"br\"\nAR=[TYPE=\"IP4\",IP=\"10.0.0.1\",SIZE=\"20\"]\n")
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(sim.Handler())
	defer server.Close()
	dir := t.TempDir()
	files := map[string]string{
		"one_auth": "k8s:k8spass123\n", "identity": "new-identity\n",
		"cloud-config.yaml": fmt.Sprintf("endpoint: %s/RPC2\ncredentials: {file: %s/one_auth}\ncluster: lab\nidentityFile: %s/identity\n", server.URL, dir, dir),
		"no-file.yaml":      fmt.Sprintf("endpoint: %s/RPC2\ncredentials: {file: %s/one_auth}\ncluster: lab\n", server.URL, dir),
	}
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	config := "--cloud-config=" + filepath.Join(dir, "cloud-config.yaml")
	if out, err := runCommand(t, "adopt", config, "--yes"); err != nil || !strings.Contains(out, "nothing to adopt") {
		t.Errorf("%v\n%s", err, out)
	}
	if _, err := runCommand(t, "adopt", "--cloud-config="+filepath.Join(dir, "no-file.yaml")); err == nil || !strings.Contains(err.Error(), "--kubeconfig") {
		t.Errorf("%v", err)
	}

	client, err := one.New(one.Options{Endpoint: server.URL + "/RPC2", Credentials: one.CredentialFile(filepath.Join(dir, "one_auth"))})
	if err != nil {
		t.Fatal(err)
	}
	id, err := client.Reserve(t.Context(), ipam.ReserveRequest{Parent: ipam.NetworkID(parent), Name: "lab-main", Into: ipam.NoNetwork, Size: 4})
	if err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(30 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		if n, err := client.Get(t.Context(), id); err == nil && n.Ready {
			break
		} else if time.Now().After(end) {
			t.Fatal(n, err)
		}
	}
	sign := func(alive time.Time) {
		t.Helper()
		err := client.Annotate(t.Context(), id, map[string]string{
			ipam.AttributeCluster: "lab", ipam.AttributeClusterUID: "dead", ipam.AttributePool: "main", ipam.AttributeAlive: alive.UTC().Format(time.RFC3339),
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	uid := func() string {
		n, err := client.Get(t.Context(), id)
		if err != nil {
			t.Fatal(err)
		}
		return n.Attributes[ipam.AttributeClusterUID]
	}
	sign(time.Now())
	if out, err := runCommand(t, "adopt", config, "--yes"); err == nil || !strings.Contains(err.Error(), "is alive") || !strings.Contains(out, "lab-main") || uid() != "dead" {
		t.Errorf("%v, signed with %s\n%s", err, uid(), out)
	}
	sign(time.Now().Add(-time.Hour))
	if out, err := runCommand(t, "adopt", config); err != nil || !strings.Contains(out, "Nothing was changed") || uid() != "dead" {
		t.Errorf("%v, signed with %s\n%s", err, uid(), out)
	}
	if out, err := runCommand(t, "adopt", config, "--yes"); err != nil || !strings.Contains(out, "Adopted") || uid() != "new-identity" {
		t.Errorf("%v, signed with %s\n%s", err, uid(), out)
	}
}
