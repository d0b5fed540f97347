package leaders

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/onelb/onelb/test/e2e/kit"
	"github.com/onelb/onelb/test/lab"
	"github.com/onelb/onelb/test/onesim"
)

// burst is how many Services are made and deleted at once.
const burst = 12

var pools = []string{"lan", "internet", "direct"}

// TestLeaderChanges takes the leader away while Services are made and while they
// are deleted, at moments drawn from a seed that it prints. OpenNebula executes
// what the former leader asked for only after the change.
func TestLeaderChanges(t *testing.T) {
	r := newReplicas(t)
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	r.Create(kit.Web, "steady", kit.InPool("internet"))
	steady := r.Served(kit.Web, "steady")
	for i, c := range changes {
		t.Logf("the leader is %s while Services are made", c.name)
		names := r.during(c, random, func() []string { return r.burst(fmt.Sprintf("burst-%d", i)) })
		r.served(names)
		r.Answers(kit.Web, "steady", steady...)

		t.Logf("the leader is %s while Services are deleted", c.name)
		r.during(c, random, func() []string { r.delete(names); return nil })
		r.Remove(names...)
		r.NothingLeft()
		r.Shows("steady", steady...)
		r.Answers(kit.Web, "steady", steady...)
	}
	r.Remove("steady")
	r.NothingLeft()
}

// during runs the requests and, some moment after their begin, the change. The
// calls to OpenNebula that were made meanwhile are executed 4 s late.
func (r *replicas) during(c change, random *rand.Rand, requests func() []string) (names []string) {
	r.T.Helper()
	for _, method := range []string{"one.vn.hold", "one.vn.release", "one.vn.reserve", "one.vn.rm_ar", "one.vn.free_ar"} {
		if !slices.Contains(r.OneSim().Methods(), method) {
			continue
		}
		r.Must(r.OneSim().Inject(onesim.Fault{Method: method, Kind: onesim.FaultDelay, Delay: 4 * time.Second, Count: 4}))
	}
	defer r.OneSim().ClearFaults()
	done := make(chan []string, 1)
	go func() { done <- requests() }()
	after := time.Duration(random.IntN(800)) * time.Millisecond
	r.T.Logf("%s after %s", c.name, after)
	time.Sleep(after)
	c.do(r)
	return <-done
}

// burst makes Services one after the other; a failure ends the test later.
func (r *replicas) burst(prefix string) (names []string) {
	for i := range burst {
		svc := kit.Web.Service(fmt.Sprintf("%s-%02d", prefix, i), corev1.ServiceTypeLoadBalancer)
		kit.InPool(pools[i%len(pools)])(svc)
		names = append(names, svc.Name)
		if _, err := r.Client().CoreV1().Services(kit.Namespace).Create(r.T.Context(), svc, metav1.CreateOptions{}); err != nil {
			r.T.Error(err)
		}
		time.Sleep(30 * time.Millisecond)
	}
	return names
}

func (r *replicas) delete(names []string) {
	for _, name := range names {
		err := r.Client().CoreV1().Services(kit.Namespace).Delete(r.T.Context(), name, metav1.DeleteOptions{})
		if err != nil && !apierrors.IsNotFound(err) {
			r.T.Error(err)
		}
		time.Sleep(30 * time.Millisecond)
	}
}

// served waits until each Service is, and fails the test if two have one address.
func (r *replicas) served(names []string) {
	r.T.Helper()
	owner := map[netip.Addr]string{}
	for _, name := range names {
		for _, a := range r.Served(kit.Web, name) {
			if owner[a] != "" {
				r.T.Errorf("%s and %s both have %s", owner[a], name, a)
			}
			owner[a] = name
		}
	}
}

// TestFormerLeaderRouter: a leader that was away and comes back does not roll back
// what its successor has given the router, and its pushes are refused.
func TestFormerLeaderRouter(t *testing.T) {
	r := newReplicas(t)
	r.Create(kit.Web, "fence-old", kit.InPool("internet"))
	r.Served(kit.Web, "fence-old")
	r.Must(r.leads.Signal(syscall.SIGSTOP))
	r.took()
	r.Create(kit.Web, "fence-new", kit.InPool("internet"))
	fresh := r.Served(kit.Web, "fence-new")
	r.Remove("fence-old")
	probe := lab.Probe(t.Context(), 50*time.Millisecond, func(ctx context.Context) error {
		c, err := r.Internet().Knock(ctx, netip.AddrPortFrom(fresh[0], kit.Port))
		if err == nil {
			_ = c.Close()
		}
		return err
	})
	r.Must(r.waits.Signal(syscall.SIGCONT))
	r.Eventually("the former leader to end", func(context.Context) error {
		if r.waits.Running() {
			return errors.New("it runs")
		}
		return nil
	})
	time.Sleep(time.Second)
	if got := probe.Stop(); got.Failed > 0 {
		t.Errorf("the successor's Service was disturbed: %v", got)
	}
	_, metrics, err := r.Router(1).Get(r.Context(), "http://"+lab.RouterAgentMetrics+"/metrics")
	r.Must(err)
	for line := range strings.Lines(string(metrics)) {
		if strings.HasPrefix(line, "onelb_router_refusals_total") {
			t.Log(strings.TrimSpace(line)) // StaleToken, if it had the time to try
		}
	}
	table, err := r.Table(r.Context())
	r.Must(err)
	if !strings.Contains(table, fresh[0].String()) {
		t.Errorf("%s is not in the router's table", fresh[0])
	}
	r.Must(r.waits.Start())
	r.Remove("fence-new")
	r.NothingLeft()
}
