package witness

import (
	"context"
	"net/netip"
	"slices"
	"sync"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/onelb/onelb/api/client"
	"github.com/onelb/onelb/api/v1alpha1"
)

// pollEvery is how often the API server is asked. What lasts less is not seen.
const pollEvery = 50 * time.Millisecond

// Record is the holders of an address that the API server has named, one after the
// other. Its methods may be called from several goroutines.
type Record struct {
	cancel  context.CancelFunc
	polling sync.WaitGroup

	mu      sync.Mutex // guards holders
	holders []v1alpha1.Holder
}

// Read begins to ask the API server. Stop ends it, as does ctx.
func Read(ctx context.Context, vips client.VirtualIPs, a netip.Addr) *Record {
	ctx, cancel := context.WithCancel(ctx)
	r := &Record{cancel: cancel}
	r.polling.Go(func() { r.poll(ctx, vips, v1alpha1.VirtualIPName(a)) })
	return r
}

// Stop ends it, and may be called again.
func (r *Record) Stop() {
	r.cancel()
	r.polling.Wait()
}

func (r *Record) poll(ctx context.Context, vips client.VirtualIPs, name string) {
	for ctx.Err() == nil {
		try, cancel := context.WithTimeout(ctx, time.Second)
		v, err := vips.Get(try, name, metav1.GetOptions{})
		cancel()
		if err == nil && v.Status.Holder != nil {
			r.note(*v.Status.Holder)
		}
		select {
		case <-ctx.Done():
		case <-time.After(pollEvery):
		}
	}
}

func (r *Record) note(h v1alpha1.Holder) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if n := len(r.holders); n == 0 || r.holders[n-1].Name != h.Name || r.holders[n-1].Epoch != h.Epoch {
		r.holders = append(r.holders, h)
	}
}

// Holders are the holders that were named, a new epoch of the same one included.
func (r *Record) Holders() []v1alpha1.Holder {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.holders)
}

// Moves is how often another node was named.
func (r *Record) Moves() int {
	holders, n := r.Holders(), 0
	for i := 1; i < len(holders); i++ {
		if holders[i].Name != holders[i-1].Name {
			n++
		}
	}
	return n
}
