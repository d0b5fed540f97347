package e2e_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"k8s.io/client-go/kubernetes"

	"github.com/onelb/onelb/cmd/onelbctl/explain"
	"github.com/onelb/onelb/loadbalancer/inventory"
	"github.com/onelb/onelb/loadbalancer/overview"
	"github.com/onelb/onelb/loadbalancer/path"
	"github.com/onelb/onelb/test/e2e/kit"
)

// TestToolsSeeWhatThereIs: what onelbctl reads from real objects says that the ways
// of Services that answer are in order, and why one that waits does.
func TestToolsSeeWhatThereIs(t *testing.T) {
	w := newWorld(t)
	for _, pool := range []string{"lan", "internet", "direct"} {
		w.Create(web, "seen-"+pool, kit.InPool(pool))
	}
	w.Create(web, "seen-nowhere", kit.InPool("nowhere"))
	cfg, err := w.RESTConfig(w.Control())
	w.Must(err)
	kube, err := kubernetes.NewForConfig(cfg)
	w.Must(err)
	clients := inventory.Clients{Kube: kube, OneLB: w.OneLB}
	for _, pool := range []string{"lan", "internet", "direct"} {
		w.waitServed("seen-" + pool)
		said := ""
		w.Eventually("the whole way to be in order", func(ctx context.Context) error {
			r, err := explain.New(ctx, clients, namespace, "seen-"+pool)
			if err != nil {
				return fmt.Errorf("%w; before: %s", err, said)
			}
			for _, way := range r.Ways {
				if h := path.Worst(way.Hops); h.State != path.OK {
					said = fmt.Sprintf("%s: %s %s: %s", way.Address, h.Kind, h.State, h.Detail)
					return errors.New(said)
				}
			}
			if len(r.Ways) == 0 || len(r.Pending) > 0 || len(r.Gaps) > 0 || len(r.Events) == 0 {
				said = fmt.Sprintf("%+v", r)
				return errors.New(said)
			}
			return nil
		})
	}
	inv, err := inventory.Read(w.Context(), clients)
	w.Must(err)
	r := overview.New(inv)
	waits := slices.IndexFunc(r.Pending, func(p overview.Pending) bool { return p.Service == namespace+"/seen-nowhere" })
	if waits < 0 || len(r.Pending[waits].Reasons) == 0 || !strings.Contains(r.Pending[waits].Reasons[0].Why, `no AddressPool is called "nowhere"`) {
		t.Errorf("Services that wait: %+v", r.Pending)
	}
	if len(r.Routers) != 1 || r.Routers[0].Generation == 0 || len(r.Pools) < 4 {
		t.Errorf("routers %+v, pools %+v", r.Routers, r.Pools)
	}
}
