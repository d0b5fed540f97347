package e2e_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"

	"github.com/onelb/onelb/test/e2e/kit"
	"github.com/onelb/onelb/test/lab/proc"
)

// fault takes one program away and brings it back.
type fault struct {
	name string
	away func(w *world) error
	back func(w *world) error
}

func unitFault(name string, unit func(w *world) *proc.Unit) fault {
	return fault{
		name: name,
		away: func(w *world) error { return unit(w).Kill() },
		back: func(w *world) error { return unit(w).Start() },
	}
}

var (
	ccmFault    = unitFault("cloud-controller-manager", func(w *world) *proc.Unit { return w.CCM() })
	nodeFault   = unitFault("node agent", func(w *world) *proc.Unit { return w.Agent(1) })
	routerFault = unitFault("router agent", func(w *world) *proc.Unit { return w.Router(1).Agent() })
	oneFault    = fault{
		name: "OpenNebula",
		away: func(w *world) error { return w.StopOneSim() },
		back: func(w *world) error { return w.StartOneSim() },
	}
	apiFault = fault{
		name: "API server",
		away: func(w *world) error { return w.StopAPIServer() },
		back: func(w *world) error {
			ctx, cancel := context.WithTimeout(context.Background(), patience)
			defer cancel()
			return w.StartAPIServer(ctx)
		},
	}
	faults = []fault{ccmFault, nodeFault, routerFault, oneFault, apiFault}
)

// round makes three Services, or deletes those of the round before, and lets a
// fault come at the given time after the first request.
type round struct {
	w     *world
	names []string
	pools []string
}

func newRound(w *world, name string) *round {
	r := &round{w: w, pools: []string{"lan", "internet", "direct"}}
	for _, p := range r.pools {
		r.names = append(r.names, name+"-"+p)
	}
	return r
}

// strike runs the requests and, meanwhile, the fault.
func (r *round) strike(f fault, after, outage time.Duration, request func()) {
	r.w.T.Helper()
	struck := make(chan error, 1)
	go func() {
		time.Sleep(after)
		err := f.away(r.w)
		time.Sleep(outage)
		struck <- errors.Join(err, f.back(r.w))
	}()
	request()
	r.w.Must(<-struck)
}

func (r *round) create() {
	for i, name := range r.names {
		svc := web.Service(name, "LoadBalancer")
		kit.InPool(r.pools[i])(svc)
		// The API server may be the fault: a person tries again as well.
		r.w.Eventually("creation of "+name, func(ctx context.Context) error {
			_, err := r.w.Client().CoreV1().Services(namespace).Create(ctx, svc, createOptions)
			return ignoreExists(err)
		})
		r.w.T.Cleanup(func() { r.w.DeleteAnyway(name) })
	}
}

func (r *round) delete() {
	for _, name := range r.names {
		r.w.Eventually("deletion of "+name, func(ctx context.Context) error {
			return ignoreNotFound(r.w.Client().CoreV1().Services(namespace).Delete(ctx, name, deleteOptions))
		})
	}
}

// complete checks the end state with the Services there, and without.
func (r *round) complete() {
	r.w.T.Helper()
	seen := map[netip.Addr]string{}
	for _, name := range r.names {
		for _, a := range r.w.waitServed(name) {
			if seen[a] != "" {
				r.w.T.Errorf("%s has the address %s of %s", name, a, seen[a])
			}
			seen[a] = name
			r.w.Eventually("one holder of "+a.String(), func(context.Context) error {
				if h := r.w.Holders(a); len(h) != 1 {
					return fmt.Errorf("it is in the kernels of %v", h)
				}
				return nil
			})
		}
	}
}

// TestKilled kills each program while Services are made and while they are
// deleted, at set moments.
func TestKilled(t *testing.T) {
	for _, f := range faults {
		t.Run(f.name, func(t *testing.T) {
			w := newWorld(t)
			r := newRound(w, "killed")
			outage := 500 * time.Millisecond
			if f.name == oneFault.name {
				outage = 3 * time.Second // nothing of a Service waits for it
			}
			begin := time.Now()
			r.strike(f, 30*time.Millisecond, outage, r.create)
			t.Logf("%s is back after %s", f.name, time.Since(begin))
			r.complete()
			t.Logf("Services answer after %s", time.Since(begin))
			begin = time.Now()
			r.strike(f, 60*time.Millisecond, outage, r.delete)
			t.Logf("%s is back after %s", f.name, time.Since(begin))
			w.Remove(r.names...)
			t.Logf("Services are gone after %s", time.Since(begin))
			w.NothingLeft()
			t.Logf("nothing is left after %s", time.Since(begin))
		})
	}
}

// TestKilledAtRandom kills programs at moments drawn from a seed that it prints.
func TestKilledAtRandom(t *testing.T) {
	w := newWorld(t)
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	for i := range 5 {
		r := newRound(w, fmt.Sprintf("random-%d", i))
		strike := func(request func()) {
			f := faults[random.IntN(len(faults)-1)] // the API server's start takes long; see TestKilled
			after, outage := time.Duration(random.IntN(700))*time.Millisecond, time.Duration(random.IntN(1500))*time.Millisecond
			t.Logf("round %d: %s away after %s for %s", i, f.name, after, outage)
			r.strike(f, after, outage, request)
		}
		strike(r.create)
		r.complete()
		strike(r.delete)
		w.Remove(r.names...)
		w.NothingLeft()
	}
}
