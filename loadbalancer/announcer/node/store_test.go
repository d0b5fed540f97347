package node

import (
	"context"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"k8s.io/klog/v2"

	"github.com/onelb/onelb/loadbalancer/announcer"
)

func TestStoreRemembers(t *testing.T) {
	dir := t.TempDir()
	s, err := openStore(dir, klog.Background())
	must(t, err)
	if len(s.Held()) != 0 || len(s.cluster.Nodes) != 0 {
		t.Errorf("a new store knows %+v, %+v", s.Held(), s.cluster)
	}
	held := map[netip.Addr]announcer.Holding{
		netip.MustParseAddr("10.0.0.1"): {Node: "n", Interface: "eth0", Since: time.Unix(5, 0).UTC(), Epoch: 7},
	}
	cluster := &announcer.Cluster{
		Nodes: []announcer.Node{{Name: "n", Addresses: []netip.Addr{netip.MustParseAddr("fd00::1")}, Excluded: true}},
		Addresses: []announcer.Address{{Address: netip.MustParseAddr("10.0.0.1"), Local: true, Endpoints: []string{"n"},
			Services: []announcer.Service{{Namespace: "d", Name: "w", UID: "u"}}}},
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	s.SetHeld(held)
	eventually(t, "it is written", func() bool {
		_, err := os.Stat(filepath.Join(dir, heldFile))
		return err == nil
	})
	s.setCluster(cluster)
	cancel()
	must(t, <-done)
	must(t, s.flush())

	again, err := openStore(dir, klog.Background())
	must(t, err)
	if d := cmp.Diff(held, again.Held(), cmpopts.EquateComparable(netip.Addr{})); d != "" {
		t.Error(d)
	}
	if d := cmp.Diff(cluster, again.cluster, cmpopts.EquateComparable(netip.Addr{})); d != "" {
		t.Error(d)
	}
	left, err := filepath.Glob(filepath.Join(dir, ".*"))
	must(t, err)
	if len(left) != 0 {
		t.Errorf("temporary files left: %v", left)
	}
}

func TestStoreSurvivesBrokenFiles(t *testing.T) {
	dir := t.TempDir()
	must(t, os.WriteFile(filepath.Join(dir, heldFile), []byte(`{"10.0.0.1": {"epo`), 0o600))
	must(t, os.WriteFile(filepath.Join(dir, clusterFile), nil, 0o600))
	s, err := openStore(dir, klog.Background())
	must(t, err)
	if len(s.Held()) != 0 {
		t.Errorf("got %+v", s.Held())
	}
}
