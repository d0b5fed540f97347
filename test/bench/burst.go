package bench

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/onelb/onelb/api/v1alpha1"
	"github.com/onelb/onelb/test/lab"
)

const (
	creators  = 20
	burstPool = "burst"
	// burstChunk is by how many addresses the pool's reservation grows, and how
	// many are reserved ahead: what an operator who expects bursts sets.
	burstChunk = 64
)

// burstNetwork has room for the largest burst. Nobody routes to it: what is
// measured is the way to the address.
const burstNetwork = `NAME="burst"
VN_MAD="dummy"
BRIDGE="br-private"
NETWORK_ADDRESS="10.21.0.0"
NETWORK_MASK="255.255.0.0"
AR=[TYPE="IP4",IP="10.21.0.1",SIZE="12000"]
`

func measureBurst500(ctx context.Context, b *bench) error {
	r, err := b.burst(ctx, 500)
	if err != nil {
		return err
	}
	b.add("burst_500_address", r.took...)
	b.note("burst_500_address", "%s", r.about())
	return b.burstFloor(ctx, 500)
}

func measureBurst1000(ctx context.Context, b *bench) error {
	r, err := b.burst(ctx, 1000)
	if err != nil {
		return err
	}
	b.add("burst_1000_address", r.took...)
	b.note("burst_1000_address", "%s", r.about())
	b.add("burst_1000_lag", r.lag.Seconds())
	b.add("ipam_oned_calls_1000", float64(total(r.calls))/float64(len(r.took)))
	b.note("ipam_oned_calls_1000", "chunkSize and reserveAhead %d; until every address was on hold and its owner on record: %v", burstChunk, r.calls)
	return nil
}

// burstResult is what a burst was like.
type burstResult struct {
	took  []float64     // ms from each create's start to its address
	all   time.Duration // from the first create's start to the last one's return
	lag   time.Duration // from there to the last address
	calls map[string]int
}

func (r burstResult) about() string {
	call := time.Duration(creators) * r.all / time.Duration(len(r.took))
	return fmt.Sprintf("%d creators, creating took %.1f s, so a create alone %.0f ms on average; the last address came %.1f s later",
		creators, r.all.Seconds(), ms(call), r.lag.Seconds())
}

func total(calls map[string]int) int {
	n := 0
	for _, c := range calls {
		n += c
	}
	return n
}

// burst creates n Services in a lab of its own.
func (b *bench) burst(ctx context.Context, n int) (r burstResult, err error) {
	err = b.burstLab(ctx, lab.Options{Name: "bench-burst"}, func(d *datacenter, network int) error {
		r, err = d.burstOf(ctx, network, n, 0)
		return err
	})
	return r, err
}

// addBurstPool makes the pool of the bursts and returns its network.
func (d *datacenter) addBurstPool(ctx context.Context) (network int, err error) {
	if network, err = d.OneSim().AddVNet("", burstNetwork); err != nil {
		return network, err
	}
	// The lab's own quota is for the tests, which make few Services.
	quota := fmt.Sprintf(`NETWORK=[ID="%d",LEASES="12000"]`, network)
	if err := d.OneSim().Quota(lab.OneUser, quota); err != nil {
		return network, err
	}
	p := pool(burstPool, "burst", "10.21.0.1", "10.21.46.224")
	p.Spec.ChunkSize, p.Spec.ReserveAhead = burstChunk, ptr.To[int32](burstChunk)
	p.Spec.L2 = &v1alpha1.L2Spec{Interfaces: []string{"eth0"}} // no node has an address there
	return network, d.addPools(ctx, p)
}

func burstName(i int) string { return fmt.Sprintf("burst-%d", i) }

// arrivals notes when each Service was created and had its address.
type arrivals struct {
	mu    sync.Mutex // guards all below
	begin map[string]time.Time
	at    map[string]time.Time
}

// createMany creates n Services at once, numbered from first, and waits for all
// addresses.
func (d *datacenter) createMany(ctx context.Context, first, n int) (burstResult, error) {
	w, err := d.Client().CoreV1().Services(namespace).Watch(ctx, metav1.ListOptions{})
	if err != nil {
		return burstResult{}, fmt.Errorf("watch Services: %w", err)
	}
	defer w.Stop()
	a := &arrivals{begin: map[string]time.Time{}, at: map[string]time.Time{}}
	for i := range n {
		a.begin[burstName(first+i)] = time.Time{}
	}
	watching := make(chan error, 1)
	go func() {
		for event := range w.ResultChan() {
			svc, ok := event.Object.(*corev1.Service)
			if ok && len(svc.Status.LoadBalancer.Ingress) > 0 && a.arrived(svc.Name) == n {
				watching <- nil
				return
			}
		}
		watching <- errors.New("the watch of Services has ended")
	}()
	begin := time.Now()
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(creators)
	for i := range n {
		g.Go(func() error {
			svc := service(burstName(first+i), burstPool)
			if d.manyPorts {
				svc.Spec.AllocateLoadBalancerNodePorts = new(false)
			}
			a.begins(svc.Name)
			_, err := d.CreateService(gctx, svc)
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return burstResult{}, err
	}
	last := time.Now()
	select {
	case err = <-watching:
	case <-ctx.Done():
		err = context.Cause(ctx)
	}
	r := a.result()
	r.all, r.lag = last.Sub(begin), max(a.latest().Sub(last), 0)
	if err != nil {
		return r, fmt.Errorf("%d of %d Services have an address: %w", len(r.took), n, err)
	}
	return r, nil
}

func (a *arrivals) begins(name string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.begin[name] = time.Now()
}

// arrived notes an address and returns how many there are.
func (a *arrivals) arrived(name string) int {
	now := time.Now()
	a.mu.Lock()
	defer a.mu.Unlock()
	_, wanted := a.begin[name]
	if _, known := a.at[name]; wanted && !known {
		a.at[name] = now
	}
	return len(a.at)
}

func (a *arrivals) result() burstResult {
	a.mu.Lock()
	defer a.mu.Unlock()
	var r burstResult
	for name, at := range a.at {
		r.took = append(r.took, ms(at.Sub(a.begin[name])))
	}
	slices.Sort(r.took)
	return r
}

func (a *arrivals) latest() time.Time {
	a.mu.Lock()
	defer a.mu.Unlock()
	var last time.Time
	for _, at := range a.at {
		if at.After(last) {
			last = at
		}
	}
	return last
}

// waitHeld returns when n addresses are on hold in OpenNebula, so that no call
// is left out of the count.
func (d *datacenter) waitHeld(ctx context.Context, network, n int) error {
	one := d.OneSim()
	return until(ctx, "every address to be on hold", func(context.Context) error {
		held := 0
		for _, id := range one.Reservations(network) {
			held += len(one.Holds(id))
		}
		if held < n {
			return fmt.Errorf("%d of %d are", held, n)
		}
		return nil
	})
}

func difference(after, before map[string]int) map[string]int {
	out := map[string]int{}
	for method, n := range after {
		if n -= before[method]; n > 0 {
			out[method] = n
		}
	}
	return out
}
