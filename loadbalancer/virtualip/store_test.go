package virtualip

import (
	"context"
	"errors"
	"net/netip"
	"sync"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	clienttesting "k8s.io/client-go/testing"

	"github.com/onelb/onelb/api/client"
	"github.com/onelb/onelb/api/client/fake"
	"github.com/onelb/onelb/api/v1alpha1"
	"github.com/onelb/onelb/ipam"
)

var (
	addr   = netip.MustParseAddr("10.20.0.100")
	owner  = ipam.Owner{Namespace: "ns", Name: "web", UID: "u1"}
	detail = Detail{Role: v1alpha1.RoleL2, TrafficPolicy: v1alpha1.TrafficPolicyCluster}
)

func newStore(t *testing.T) (*Store, *fake.Clientset) {
	t.Helper()
	c := fake.New()
	return secondStore(t, c), c
}

// secondStore is the store of another process on the same API server.
func secondStore(t *testing.T, c *fake.Clientset) *Store {
	t.Helper()
	inf := client.NewVirtualIPInformer(c, 0)
	s, err := New(Options{Client: c.VirtualIPs(), Informer: inf})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() { inf.RunWithContext(ctx) })
	t.Cleanup(func() { cancel(); wg.Wait() })
	for !inf.HasSynced() {
		time.Sleep(time.Millisecond)
	}
	return s
}

// deafStore is a store whose informer does not run: it knows what it has
// written, and what it reads when a write fails.
func deafStore(t *testing.T, c *fake.Clientset) *Store {
	t.Helper()
	s, err := New(Options{Client: c.VirtualIPs(), Informer: client.NewVirtualIPInformer(c, 0)})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func create(t *testing.T, s *Store) ipam.Record {
	t.Helper()
	r, err := s.Create(t.Context(), ipam.Record{Address: addr, Pool: "p", Owners: []ipam.Owner{owner}, Detail: detail})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestCreateIsTheAllocation(t *testing.T) {
	s, _ := newStore(t)
	create(t, s)
	if _, err := s.Create(t.Context(), ipam.Record{Address: addr, Pool: "p", Detail: detail}); !errors.Is(err, ipam.ErrTaken) {
		t.Errorf("second create: %v, want ErrTaken", err)
	}
	if got := s.OwnedBy("u1"); len(got) != 1 || got[0].Address != addr || got[0].Phase != ipam.Active {
		t.Errorf("OwnedBy at once after Create: %+v", got)
	}
}

func TestLifeOfARecord(t *testing.T) {
	s, c := newStore(t)
	r := create(t, s)
	ctx := t.Context()
	r.OnHold = true
	r, err := s.Update(ctx, r)
	if err != nil || !r.OnHold || r.Phase != ipam.Active {
		t.Fatalf("%+v, %v", r, err)
	}
	if _, err := s.Disown(ctx, addr, "u1", false); err != nil {
		t.Fatal(err)
	}
	r, _ = s.Get(addr)
	if r.Phase != ipam.Releasing || len(r.Owners) != 0 || !r.OnHold {
		t.Fatalf("after Disown: %+v", r)
	}
	if v, _ := c.VirtualIPs().Get(ctx, addr.String(), metav1.GetOptions{}); v.Spec.ReleaseTime == nil {
		t.Error("no release time")
	}
	stale := r
	r.Phase, r.OnHold, r.ReleasedAt = ipam.Quarantined, false, time.Now()
	r, err = s.Update(ctx, r)
	if err != nil || r.Phase != ipam.Quarantined || r.OnHold || r.ReleasedAt.IsZero() {
		t.Fatalf("%+v, %v", r, err)
	}
	if err := s.Delete(ctx, stale); !errors.Is(err, ipam.ErrConflict) {
		t.Errorf("delete of an outdated record: %v, want ErrConflict", err)
	}
	if err := s.Delete(ctx, r); err != nil {
		t.Fatal(err)
	}
	if _, ok := s.Get(addr); ok {
		t.Error("the record is still there")
	}
	if err := s.Delete(ctx, r); err != nil {
		t.Errorf("deleting what is gone: %v", err)
	}
	if l, _ := c.VirtualIPs().List(ctx, metav1.ListOptions{}); len(l.Items) != 0 {
		t.Errorf("%d objects left", len(l.Items))
	}
	create(t, s) // the address can be given again
}

func TestRestore(t *testing.T) {
	s, c := newStore(t)
	create(t, s)
	ctx := t.Context()
	if err := c.VirtualIPs().Delete(ctx, addr.String(), metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	v, err := c.VirtualIPs().Get(ctx, addr.String(), metav1.GetOptions{})
	if err != nil || v.DeletionTimestamp == nil {
		t.Fatalf("%v, %v: want one that waits for its finalizer", v, err)
	}
	if err := s.Restore(ctx, v); err != nil {
		t.Fatal(err)
	}
	n, err := c.VirtualIPs().Get(ctx, addr.String(), metav1.GetOptions{})
	if err != nil || n.UID == v.UID || n.DeletionTimestamp != nil || len(n.Spec.Services) != 1 {
		t.Fatalf("%+v, %v: want a new object", n, err)
	}
	if got := s.OwnedBy("u1"); len(got) != 1 {
		t.Errorf("OwnedBy after Restore: %+v", got)
	}
}

// TestRestoreLeavesNoGap has the creation fail: the record stays, whatever the
// watch says, and a second Restore finishes.
func TestRestoreLeavesNoGap(t *testing.T) {
	s, c := newStore(t)
	create(t, s)
	ctx := t.Context()
	if err := c.VirtualIPs().Delete(ctx, addr.String(), metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	v, err := c.VirtualIPs().Get(ctx, addr.String(), metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	down := true
	c.PrependReactor("create", "virtualips", func(clienttesting.Action) (bool, runtime.Object, error) {
		if got := s.OwnedBy("u1"); len(got) != 1 {
			t.Errorf("between the two: %+v, want the record", got)
		}
		return down, nil, errors.New("away")
	})
	if err := s.Restore(ctx, v); err == nil {
		t.Fatal("no error")
	}
	s.observeDelete(v)
	if got := s.OwnedBy("u1"); len(got) != 1 {
		t.Fatalf("after an error: %+v, want the record", got)
	}
	down = false
	if err := s.Restore(ctx, v); err != nil {
		t.Fatal(err)
	}
	s.observe(v) // late
	n, err := c.VirtualIPs().Get(ctx, addr.String(), metav1.GetOptions{})
	if got, _ := s.Get(addr); err != nil || n.UID == v.UID || got.ID != string(n.UID) {
		t.Errorf("%+v, %v: want a new object, in the store too: %+v", n, err, got)
	}
}

func TestStaleWatchEventIsIgnored(t *testing.T) {
	// The informer does not run: its events are those of this test alone.
	c := fake.New()
	s := deafStore(t, c)
	r := create(t, s)
	old, err := c.VirtualIPs().Get(t.Context(), addr.String(), metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	r.OnHold = true
	if _, err := s.Update(t.Context(), r); err != nil {
		t.Fatal(err)
	}
	s.observe(old)
	if r, _ := s.Get(addr); !r.OnHold {
		t.Error("an old event undid our own write")
	}
	if _, err := s.Disown(t.Context(), addr, "u1", false); err != nil {
		t.Fatal(err)
	}
	cur, _ := s.Get(addr)
	if err := s.Delete(t.Context(), cur); err != nil {
		t.Fatal(err)
	}
	s.observe(old)
	if _, ok := s.Get(addr); ok {
		t.Error("an old event brought back what we removed")
	}
}

func TestMisnamedObjectIsIgnored(t *testing.T) {
	s, _ := newStore(t)
	s.observe(&v1alpha1.VirtualIP{ObjectMeta: metav1.ObjectMeta{Name: "x", UID: "1"}, Spec: v1alpha1.VirtualIPSpec{Address: "2001:db8::1"}})
	if len(s.List()) != 0 {
		t.Error("an object with another name than its address' was taken in")
	}
}

func TestClaimIsNeverActive(t *testing.T) {
	s, _ := newStore(t)
	until := time.Now().Add(time.Minute).Truncate(time.Second)
	r, err := s.Create(t.Context(), ipam.Record{Address: addr, Pool: "p", Phase: ipam.Quarantined, ReleasedAt: until})
	if err != nil || r.Phase != ipam.Quarantined || !r.ReleasedAt.Equal(until) || len(r.Owners) != 0 {
		t.Fatalf("%+v, %v", r, err)
	}
	if _, err := s.Create(t.Context(), ipam.Record{Address: addr, Pool: "p", Owners: []ipam.Owner{owner}, Detail: detail}); !errors.Is(err, ipam.ErrTaken) {
		t.Errorf("allocating a claimed address: %v, want ErrTaken", err)
	}
	if err := s.Delete(t.Context(), r); err != nil {
		t.Fatal(err)
	}
}
