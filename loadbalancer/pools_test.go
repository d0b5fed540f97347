package loadbalancer

import (
	"context"
	"sync"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/record"

	"github.com/onelb/onelb/api/client"
	onelbfake "github.com/onelb/onelb/api/client/fake"
	"github.com/onelb/onelb/ipam"
)

// strictAllocator knows the pools that it was given, as IPAM does, and notes
// those that it was given without finalizer.
type strictAllocator struct {
	Allocator
	onelb *onelbfake.Clientset

	mu    sync.Mutex
	known map[string]bool
	bare  []string
}

func (a *strictAllocator) SetPools(specs []ipam.PoolSpec) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, s := range specs {
		p, err := a.onelb.AddressPools().Get(context.TODO(), s.Name, metav1.GetOptions{})
		if err != nil || !hasPoolFinalizer(p) {
			a.bare = append(a.bare, s.Name)
		}
		a.known[s.Name] = true
	}
}

func (a *strictAllocator) PoolStatus(name string) (ipam.PoolStatus, bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return ipam.PoolStatus{Name: name, Ready: true}, a.known[name]
}

// TestNoReservationWithoutFinalizer: a pool that is deleted before it has our
// finalizer is gone at once, and its reservation would be nobody's.
func TestNoReservationWithoutFinalizer(t *testing.T) {
	onelb := onelbfake.New(l2Pool("private"))
	a := &strictAllocator{onelb: onelb, known: map[string]bool{}}
	inf := client.NewAddressPoolInformer(onelb, 0)
	p := newPoolSet(onelb.AddressPools(), inf, a, newEvents(record.NewFakeRecorder(10)), nil, nil)
	if err := p.watch(); err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	t.Cleanup(wg.Wait)
	wg.Go(func() { inf.RunWithContext(t.Context()) })
	wg.Go(func() { p.Run(t.Context()) })
	if !cache.WaitForCacheSync(t.Context().Done(), inf.HasSynced) {
		t.Fatal("the informer does not sync")
	}
	p.load() // as Controller.Run does: what was heard before was not the whole set
	for end := time.Now().Add(2 * time.Minute); ; time.Sleep(5 * time.Millisecond) {
		if _, known := a.PoolStatus("private"); known {
			break
		}
		if time.Now().After(end) {
			t.Fatal("IPAM is never given the pool")
		}
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.bare) > 0 {
		t.Errorf("given to IPAM before they had the finalizer: %v", a.bare)
	}
}
