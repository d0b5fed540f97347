package loadbalancer

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	utilfeature "k8s.io/apiserver/pkg/util/feature"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes/fake"
	"k8s.io/client-go/tools/record"
	cloudprovider "k8s.io/cloud-provider"
	servicecontroller "k8s.io/cloud-provider/controllers/service"
	"k8s.io/component-base/metrics/prometheus/controllers"

	"github.com/onelb/onelb/api/client"
	onelbfake "github.com/onelb/onelb/api/client/fake"
	"github.com/onelb/onelb/api/v1alpha1"
	"github.com/onelb/onelb/ipam"
	"github.com/onelb/onelb/loadbalancer/router"
	"github.com/onelb/onelb/loadbalancer/virtualip"
)

// harness is the real Controller and, on request, the library's real service
// controller, over in-memory API servers, with fakes for IPAM and router.
type harness struct {
	t          *testing.T
	kube       *fake.Clientset
	onelb      *onelbfake.Clientset
	store      *virtualip.Store
	controller *Controller
	shared     informers.SharedInformerFactory
	ipam       *fakeAllocator
	router     *fakeRouter
	calls      *recorder
	events     *record.FakeRecorder
}

func newHarness(t *testing.T, kubeObjects []runtime.Object, pools ...runtime.Object) *harness {
	t.Helper()
	return newHarnessWith(t, func(*Options) {}, kubeObjects, pools...)
}

func newHarnessWith(t *testing.T, change func(*Options), kubeObjects []runtime.Object, pools ...runtime.Object) *harness {
	t.Helper()
	h := &harness{t: t, kube: fake.NewSimpleClientset(kubeObjects...), onelb: onelbfake.New(pools...), router: newFakeRouter(), events: record.NewFakeRecorder(1000)}
	h.shared = informers.NewSharedInformerFactory(h.kube, 0)
	slices := h.shared.Discovery().V1().EndpointSlices().Informer()
	if err := KeepEndpoints(slices); err != nil {
		t.Fatal(err)
	}
	vips, poolInformer := client.NewVirtualIPInformer(h.onelb, 0), client.NewAddressPoolInformer(h.onelb, 0)
	var err error
	h.store, err = virtualip.New(virtualip.Options{
		Client: h.onelb.VirtualIPs(), Informer: vips,
		Announced: func(v *v1alpha1.VirtualIP) bool { return h.controller.Announced(v) },
		OnChange:  func() { h.controller.VirtualIPsChanged() },
	})
	if err != nil {
		t.Fatal(err)
	}
	h.ipam = &fakeAllocator{store: h.store, next: netip.MustParseAddr("10.20.0.100")}
	o := Options{
		Kube: h.kube, OneLB: h.onelb, Recorder: h.events,
		Routers:  map[string]RouterClient{"edge": h.router},
		Services: h.shared.Core().V1().Services().Informer(), Namespaces: h.shared.Core().V1().Namespaces().Informer(), Nodes: h.shared.Core().V1().Nodes().Informer(),
		EndpointSlices: slices, Pools: poolInformer, Store: h.store, Allocator: h.ipam,
		RetryAfter: 50 * time.Millisecond, Timeout: time.Minute, SweepInterval: 100 * time.Millisecond,
	}
	change(&o)
	h.controller, err = New(o)
	if err != nil {
		t.Fatal(err)
	}
	h.calls = &recorder{LoadBalancer: h.controller}
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() { vips.RunWithContext(ctx) })
	wg.Go(func() { poolInformer.RunWithContext(ctx) })
	wg.Go(func() {
		if err := h.controller.Run(ctx); err != nil && ctx.Err() == nil {
			t.Errorf("controller: %v", err)
		}
	})
	h.shared.Start(ctx.Done())
	t.Cleanup(func() { cancel(); wg.Wait(); h.shared.Shutdown() })
	return h
}

// runLibrary starts the service controller of k8s.io/cloud-provider.
//
// It has a data race of its own: its node worker reads, in allServices, what a
// service worker writes. So what needs it runs without the race detector, in
// stage contract of make test.
func (h *harness) runLibrary() {
	h.t.Helper()
	if raceDetector {
		h.t.Skip("the library's service controller has a data race of its own; stage contract runs this without the detector")
	}
	c, err := servicecontroller.New(&fakeCloud{balancer: h.calls}, h.kube,
		h.shared.Core().V1().Services(), h.shared.Core().V1().Nodes(), "lab", utilfeature.DefaultFeatureGate)
	if err != nil {
		h.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(h.t.Context())
	done := make(chan struct{})
	go func() { defer close(done); c.Run(ctx, 4, controllers.NewControllerManagerMetrics("test")) }()
	h.shared.Start(ctx.Done())
	h.t.Cleanup(func() { cancel(); <-done })
}

// eventually waits for a condition; the deadline is generous, since what is
// tested is that it comes to pass.
func (h *harness) eventually(what string, ok func() bool) {
	h.t.Helper()
	for end := time.Now().Add(2 * time.Minute); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		if ok() {
			return
		}
	}
	h.t.Fatalf("never: %s (calls: %v)", what, h.calls.list())
}

// quiet returns when nothing has been written for a while.
func (h *harness) quiet() {
	h.t.Helper()
	n := -1
	h.eventually("nobody writes any more", func() bool {
		was := n
		n = len(h.kube.Actions()) + len(h.onelb.Actions())
		if n == was {
			return true
		}
		time.Sleep(200 * time.Millisecond)
		return false
	})
}

func (h *harness) service(name string) *corev1.Service {
	h.t.Helper()
	s, err := h.kube.CoreV1().Services("ns").Get(h.t.Context(), name, metav1.GetOptions{})
	if err != nil {
		return nil
	}
	return s
}

func (h *harness) addressesOf(name string) []string {
	s := h.service(name)
	if s == nil {
		return nil
	}
	var out []string
	for _, i := range s.Status.LoadBalancer.Ingress {
		out = append(out, i.IP)
	}
	return out
}

func (h *harness) create(s *corev1.Service) {
	h.t.Helper()
	if _, err := h.kube.CoreV1().Services("ns").Create(h.t.Context(), s, metav1.CreateOptions{}); err != nil {
		h.t.Fatal(err)
	}
}

func (h *harness) update(name string, change func(*corev1.Service)) {
	h.t.Helper()
	s := h.service(name)
	change(s)
	if _, err := h.kube.CoreV1().Services("ns").Update(h.t.Context(), s, metav1.UpdateOptions{}); err != nil {
		h.t.Fatal(err)
	}
}

func namedService(name string) *corev1.Service {
	s := testService()
	s.Name, s.UID = name, types.UID("uid-"+name)
	return s
}

func l2Pool(name string) *v1alpha1.AddressPool {
	return &v1alpha1.AddressPool{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec:       v1alpha1.AddressPoolSpec{Network: v1alpha1.NetworkReference{Name: "private"}, Exposure: v1alpha1.ExposureL2},
	}
}

func routerPool(name string, forward v1alpha1.Forward, inner string) *v1alpha1.AddressPool {
	p := l2Pool(name)
	p.Spec.Exposure = v1alpha1.ExposureRouter
	p.Spec.Router = &v1alpha1.RouterSpec{Name: "edge", Forward: forward, InnerPool: inner}
	return p
}

// recorder writes down the library's calls.
type recorder struct {
	cloudprovider.LoadBalancer

	mu    sync.Mutex
	calls []string
}

func (r *recorder) add(call string, s *corev1.Service) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.calls = append(r.calls, call+" "+s.Name)
}

func (r *recorder) list() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]string(nil), r.calls...)
}

func (r *recorder) count(call string) int {
	n := 0
	for _, c := range r.list() {
		if c == call {
			n++
		}
	}
	return n
}

func (r *recorder) GetLoadBalancer(ctx context.Context, c string, s *corev1.Service) (*corev1.LoadBalancerStatus, bool, error) {
	r.add("get", s)
	return r.LoadBalancer.GetLoadBalancer(ctx, c, s)
}

func (r *recorder) EnsureLoadBalancer(ctx context.Context, c string, s *corev1.Service, n []*corev1.Node) (*corev1.LoadBalancerStatus, error) {
	r.add("ensure", s)
	return r.LoadBalancer.EnsureLoadBalancer(ctx, c, s, n)
}

func (r *recorder) UpdateLoadBalancer(ctx context.Context, c string, s *corev1.Service, n []*corev1.Node) error {
	r.add("update", s)
	return r.LoadBalancer.UpdateLoadBalancer(ctx, c, s, n)
}

func (r *recorder) EnsureLoadBalancerDeleted(ctx context.Context, c string, s *corev1.Service) error {
	r.add("delete", s)
	return r.LoadBalancer.EnsureLoadBalancerDeleted(ctx, c, s)
}

type fakeCloud struct {
	cloudprovider.Interface
	balancer cloudprovider.LoadBalancer
}

func (f *fakeCloud) LoadBalancer() (cloudprovider.LoadBalancer, bool) { return f.balancer, true }
func (f *fakeCloud) ProviderName() string                             { return "fake" }

// fakeAllocator gives the next address, creating the record as IPAM does.
type fakeAllocator struct {
	store *virtualip.Store
	hang  atomic.Bool

	mu       sync.Mutex
	next     netip.Addr
	notReady map[string]string
	allocs   int
	next6    netip.Addr // invalid: no pool has IPv6 addresses
	full6    bool       // they have, and none is free
	formers  []ipam.Former
	unread   []string
}

func (f *fakeAllocator) Allocate(ctx context.Context, r ipam.Request) (ipam.Record, error) {
	if f.hang.Load() {
		<-ctx.Done()
		return ipam.Record{}, ctx.Err()
	}
	f.mu.Lock()
	next := &f.next
	if r.Family == ipam.IPv6 {
		next = &f.next6
		if f.full6 {
			f.mu.Unlock()
			return ipam.Record{}, ipam.ErrNoSpace
		}
	}
	a := *next
	if r.Want.IsValid() {
		a = r.Want
	} else if _, taken := f.store.Get(r.Prefer); r.Prefer.IsValid() && !taken {
		a = r.Prefer
	} else {
		*next = next.Next()
	}
	f.allocs++
	f.mu.Unlock()
	return f.store.Create(ctx, ipam.Record{Address: a, Pool: r.Pool, Owners: []ipam.Owner{r.Owner}, Detail: r.Detail})
}

func (f *fakeAllocator) count() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.allocs
}

func (f *fakeAllocator) setIPv6(next netip.Addr, full bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.next6, f.full6 = next, full
}

func (f *fakeAllocator) SetPools([]ipam.PoolSpec) {}
func (f *fakeAllocator) Notify()                  {}

func (f *fakeAllocator) Formers(o ipam.Owner) []ipam.Former {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(f.formers), func(x ipam.Former) bool { return !x.Has(o) })
}

func (f *fakeAllocator) Unread() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.unread
}

func (f *fakeAllocator) Reserved(string, netip.Addr) bool { return true }

func (f *fakeAllocator) setNotReady(pool, why string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.notReady = map[string]string{pool: why}
}

func (f *fakeAllocator) PoolStatus(name string) (ipam.PoolStatus, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if why := f.notReady[name]; why != "" {
		return ipam.PoolStatus{Name: name, Reason: "NetworkNotFound", Message: why}, true
	}
	st := ipam.PoolStatus{Name: name, Ready: true, Reason: "Reserved", IPv4: ipam.Counts{Total: 100, Free: 100}}
	if f.next6.IsValid() {
		st.IPv6 = ipam.Counts{Total: 100, Free: 100}
	}
	return st, true
}

// fakeRouter runs each document at once, unless it is told to be unreachable.
type fakeRouter struct {
	mu         sync.Mutex
	generation uint64
	doc        router.Document
	hash       string
	fail       error
	features   []router.Feature
}

func newFakeRouter() *fakeRouter { return &fakeRouter{features: router.Features()} }

func (f *fakeRouter) Set(d router.Document) uint64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	if h := d.Hash(); h != f.hash {
		f.generation++
		f.hash, f.doc = h, d
	}
	return f.generation
}

func (f *fakeRouter) Wait(context.Context, uint64) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.fail
}

func (f *fakeRouter) setFail(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.fail = err
}

func (f *fakeRouter) State() router.State {
	f.mu.Lock()
	defer f.mu.Unlock()
	i := router.InstanceState{Endpoint: "r1", Reachable: f.fail == nil, Master: f.fail == nil, WasMaster: true, Confirmed: f.generation, Version: "0.9", Features: f.features}
	return router.State{Router: "edge", Instances: []router.InstanceState{i}}
}

func (f *fakeRouter) dump() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return dump(f.doc)
}

func (h *harness) String() string { return fmt.Sprint(h.calls.list()) }
