package lab_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/onelb/onelb/test/lab"
	"github.com/onelb/onelb/test/lab/labtest"
)

// vmInfo asks OpenNebula for a VM as the plain user, from the control plane.
func vmInfo(ctx context.Context, l *lab.Lab, id int) (string, error) {
	body := fmt.Sprintf(`<?xml version="1.0"?><methodCall><methodName>one.vm.info</methodName><params>`+
		`<param><value><string>%s:%s</string></value></param><param><value><int>%d</int></value></param>`+
		`</params></methodCall>`, lab.OneUser, lab.OnePassword, id)
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, lab.OneSimURL(), bytes.NewBufferString(body))
	if err != nil {
		return "", err
	}
	req.Header.Set("Content-Type", "text/xml")
	client := &http.Client{Transport: &http.Transport{DialContext: l.Control().DialContext, DisableKeepAlives: true}}
	resp, err := client.Do(req)
	if err != nil {
		return "", err
	}
	defer func() { _ = resp.Body.Close() }()
	answer, err := io.ReadAll(resp.Body)
	return string(answer), err
}

// TestOpenNebulaKnowsTheNodes holds that the VMs have the nodes' names and
// addresses, also after the front-end was away.
func TestOpenNebulaKnowsTheNodes(t *testing.T) {
	l := labtest.Shared(t)
	node := l.Nodes()[1]
	check := func() {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		got, err := vmInfo(ctx, l, l.OneSim().NodeVMs[1])
		must(t, err)
		addrs := node.Addrs(lab.Private)
		for _, want := range []string{node.ShortName(), addrs[0].String(), addrs[1].String(), node.Link(lab.Private).MAC().String()} {
			if !strings.Contains(got, want) {
				t.Errorf("the VM of %s lacks %s: %s", node.ShortName(), want, got)
			}
		}
	}
	check()
	must(t, l.StopOneSim())
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	if _, err := vmInfo(ctx, l, 0); err == nil {
		t.Error("OpenNebula answers after its stop")
	}
	cancel()
	must(t, l.StartOneSim())
	check()
}

// TestOpenNebulaKnowsTheRouter holds that the virtual router's instances have the
// addresses of the hosts, and that the first free address is one of the pool.
func TestOpenNebulaKnowsTheRouter(t *testing.T) {
	l := labtest.Shared(t)
	vm, err := l.OneSim().VM(l.OneSim().RouterVMs[0])
	must(t, err)
	var got []netip.Addr
	for _, nic := range vm.NICs {
		got = append(got, nic.IP, nic.IP6)
	}
	want := slices.Concat(l.Router(1).Addrs(lab.Public), l.Router(1).Addrs(lab.Private))
	if !slices.Equal(got, want) {
		t.Errorf("the router's VM has %v; want %v", got, want)
	}
	for _, id := range []int{l.OneSim().PublicVNet, l.OneSim().PrivateVNet} {
		network, err := l.OneSim().VNet(id)
		must(t, err)
		for _, r := range network.Ranges {
			if pool := r.Type != "IP4_6_STATIC"; !pool && len(r.Leases) != r.Size || pool && len(r.Leases) != 0 {
				t.Errorf("network %s: range from %s: %d of %d leases", network.Name, r.First, len(r.Leases), r.Size)
			}
		}
	}
}

// TestManifests applies the manifests to the real API server, twice.
func TestManifests(t *testing.T) {
	l := labtest.Shared(t)
	for range 2 {
		if err := l.ApplyManifests(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	out, err := l.Kubectl(t.Context(), "get", "crd,deployments,daemonsets", "-A", "-o", "name")
	must(t, err)
	for _, want := range []string{
		"addresspools.onelb.io", "virtualips.onelb.io", "opennebula-cloud-controller-manager", "daemonset.apps/onelb-node",
	} {
		if !strings.Contains(out, want) {
			t.Errorf("the API lacks %s after applying the manifests:\n%s", want, out)
		}
	}
}
