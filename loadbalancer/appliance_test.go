package loadbalancer

import (
	"context"
	"fmt"
	"maps"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/onelb/onelb/api/v1alpha1"
	"github.com/onelb/onelb/loadbalancer/annotation"
	"github.com/onelb/onelb/loadbalancer/appliance"
)

// contexts is a virtual router with two instances, which take each context at once.
type contexts struct {
	mu     sync.Mutex
	vms    map[int]map[string]string
	writes map[int]int
}

func newContexts() *contexts {
	c := &contexts{vms: map[int]map[string]string{}, writes: map[int]int{}}
	for _, id := range []int{3, 4} {
		c.vms[id] = map[string]string{"ETH0_IP": "10.20.255.1", "ETH0_MASK": "255.255.0.0", "NETWORK": "YES"}
	}
	return c
}

func (c *contexts) Instances(context.Context, int) ([]int, error) { return []int{3, 4}, nil }

func (c *contexts) Machine(_ context.Context, id int) (appliance.Machine, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return appliance.Machine{ID: id, State: "RUNNING", Ready: true, Context: maps.Clone(c.vms[id])}, nil
}

func (c *contexts) SetContext(_ context.Context, id int, variables map[string]string) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	maps.Copy(c.vms[id], variables)
	c.writes[id]++
	return nil
}

// forwards counts an instance's entries.
func (c *contexts) forwards(id int) (n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for name, value := range c.vms[id] {
		if strings.HasPrefix(name, "ONEAPP_VNF_NAT4_PORT_FWD") && value != "" {
			n++
		}
	}
	return n
}

// written counts an instance's writes.
func (c *contexts) written(id int) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.writes[id]
}

// withAppliance has router "edge" be a stock appliance.
func withAppliance(t *testing.T, gather time.Duration, kube []runtime.Object, pools ...runtime.Object) (*harness, *contexts) {
	t.Helper()
	vr := newContexts()
	client, err := appliance.New(appliance.Options{
		Router: "edge", VirtualRouter: 7, Cluster: "lab", Identity: "uid", Token: 1, OpenNebula: vr, Gather: gather, Poll: 20 * time.Millisecond,
	})
	if err != nil {
		t.Fatal(err)
	}
	h := newHarnessWith(t, func(o *Options) {
		o.Routers, o.Appliances = map[string]RouterClient{"edge": client}, []string{"edge"}
	}, kube, pools...)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); _ = client.Run(ctx) }()
	t.Cleanup(func() { cancel(); <-done })
	return h, vr
}

// webService has one TCP port.
func webService(name string) *corev1.Service {
	s := namedService(name)
	s.Spec.Ports = []corev1.ServicePort{{Name: "http", Protocol: corev1.ProtocolTCP, Port: 80}}
	return s
}

// sees waits for a warning.
func (h *harness) sees(reason, text string) {
	h.t.Helper()
	h.eventually(fmt.Sprintf("an event %s with %q", reason, text), func() bool {
		for len(h.events.Events) > 0 {
			if e := <-h.events.Events; strings.HasPrefix(e, "Warning "+reason) && strings.Contains(e, text) {
				return true
			}
		}
		return false
	})
}

func vipPool() *v1alpha1.AddressPool { return routerPool("public", v1alpha1.ForwardVIP, "private") }

// innerOnly is a pool that nobody gets an address of without asking.
func innerOnly() *v1alpha1.AddressPool {
	p := l2Pool("private")
	p.Spec.AutoAssign = new(bool)
	return p
}

// TestBurstOnAppliance: 100 Services, worked on by as many at once as the library
// does, are three writes of each instance at most; and one when all have gone.
func TestBurstOnAppliance(t *testing.T) {
	const services = 100
	var there []runtime.Object
	for i := range services {
		there = append(there, webService(fmt.Sprint("s", i)))
	}
	// So long that the burst is one on the slowest machine too.
	h, vr := withAppliance(t, 10*time.Second, there, innerOnly(), vipPool())
	work := func(do func(*corev1.Service) error) {
		queue, wg := make(chan runtime.Object, services), sync.WaitGroup{}
		for _, s := range there {
			queue <- s
		}
		close(queue)
		for range 32 {
			wg.Go(func() {
				for s := range queue {
					if err := do(s.(*corev1.Service)); err != nil { //nolint:forcetypeassert // made above
						t.Error(err)
					}
				}
			})
		}
		wg.Wait()
	}
	work(func(s *corev1.Service) error {
		st, err := h.controller.EnsureLoadBalancer(t.Context(), "lab", s, nil)
		if err == nil && len(st.Ingress) != 2 {
			err = fmt.Errorf("%s has %v", s.Name, st.Ingress)
		}
		return err
	})
	if a, b := vr.forwards(3), vr.forwards(4); a != services || b != services {
		t.Errorf("%d and %d entries, want %d", a, b, services)
	}
	before := vr.written(3)
	if other := vr.written(4); before > 3 || other > 3 {
		t.Errorf("%d and %d writes, want 3 at most", before, other)
	}
	work(func(s *corev1.Service) error {
		h.delete(s.Name)
		return h.controller.EnsureLoadBalancerDeleted(t.Context(), "lab", s)
	})
	h.eventually("nothing is left", func() bool { return vr.forwards(3)+vr.forwards(4) == 0 })
	if n := vr.written(3) - before; n > 3 {
		t.Errorf("%d writes to take it back, want 3 at most", n)
	}
}

// TestApplianceRefuses what it cannot do, and says why, before there is an address.
func TestApplianceRefuses(t *testing.T) {
	h, _ := withAppliance(t, time.Millisecond, nil, innerOnly(), vipPool())
	for text, change := range map[string]func(s *corev1.ServiceSpec){
		"cannot limit clients": func(s *corev1.ServiceSpec) { s.LoadBalancerSourceRanges = []string{"10.0.0.0/8"} },
		"no session affinity":  func(s *corev1.ServiceSpec) { s.SessionAffinity = corev1.ServiceAffinityClientIP },
		"never UDP alone":      func(s *corev1.ServiceSpec) { s.Ports[0].Protocol = corev1.ProtocolUDP },
		"not SCTP":             func(s *corev1.ServiceSpec) { s.Ports[0].Protocol = corev1.ProtocolSCTP },
		"forwards IPv4 only":   func(s *corev1.ServiceSpec) { s.IPFamilies = []corev1.IPFamily{corev1.IPv6Protocol} },
	} {
		s := webService("refused")
		change(&s.Spec)
		_, err := h.controller.EnsureLoadBalancer(t.Context(), "lab", s, nil)
		if err == nil || !strings.Contains(err.Error(), text) {
			t.Errorf("%v, want %q", err, text)
			continue
		}
		h.sees(ReasonRefused, text)
	}
	if n := h.ipam.count(); n != 0 {
		t.Errorf("%d addresses given", n)
	}
}

// TestApplianceClosesLimited: a Service that gets a connection limit later is closed for
// that, and nobody is sent to update an agent that is not there.
func TestApplianceClosesLimited(t *testing.T) {
	web := webService("web")
	h, vr := withAppliance(t, time.Millisecond, []runtime.Object{web}, innerOnly(), vipPool())
	if _, err := h.controller.EnsureLoadBalancer(t.Context(), "lab", web, nil); err != nil {
		t.Fatal(err)
	}
	limited := web.DeepCopy()
	limited.Annotations = map[string]string{annotation.ConnectionLimit.Name: "10"}
	if _, err := h.kube.CoreV1().Services(web.Namespace).Update(t.Context(), limited, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	h.controller.kickRouters()
	h.eventually("it is closed", func() bool { return vr.forwards(3)+vr.forwards(4) == 0 })
	for len(h.events.Events) > 0 {
		if e := <-h.events.Events; strings.Contains(e, ReasonRouterTooOld) {
			t.Error(e)
		}
	}
	if p := h.controller.o.Routers["edge"].State().Instances[0].Problems; len(p) != 1 || !strings.Contains(p[0], annotation.ConnectionLimit.Name) {
		t.Errorf("problems %q", p)
	}
}

// TestApplianceIsPublished: who sees published objects alone comes to the same end.
func TestApplianceIsPublished(t *testing.T) {
	h, _ := withAppliance(t, time.Millisecond, nil, innerOnly(), vipPool())
	s := webService("limited")
	s.Spec.LoadBalancerSourceRanges = []string{"10.0.0.0/8"}
	h.eventually("explain knows that it is refused", func() bool {
		l, err := h.onelb.AddressPools().List(t.Context(), metav1.ListOptions{})
		if err != nil {
			t.Fatal(err)
		}
		v := Judge(Inquiry{Service: s, Pools: l.Items})
		return v.Err != nil && strings.Contains(v.Err.Error(), "cannot limit clients")
	})
}

// TestApplianceLeavesOut what its instances cannot have, with an event; others work.
func TestApplianceLeavesOut(t *testing.T) {
	web, fine := webService("web"), webService("fine")
	web.Spec.Ports[0].Port = 8080
	h, vr := withAppliance(t, time.Millisecond, []runtime.Object{web, fine}, innerOnly(), vipPool())
	vr.mu.Lock()
	vr.vms[4]["ONEAPP_VNF_NAT4_PORT_FWD1"] = "8080:10.20.0.9"
	vr.mu.Unlock()
	_, err := h.controller.EnsureLoadBalancer(t.Context(), "lab", web, nil)
	if err == nil || !strings.Contains(err.Error(), "ONEAPP_VNF_NAT4_PORT_FWD1 of the appliance's context has port 8080") {
		t.Errorf("%v", err)
	}
	if _, err := h.controller.EnsureLoadBalancer(t.Context(), "lab", fine, nil); err != nil {
		t.Error(err)
	}
	h.sees(ReasonRefused, "ONEAPP_VNF_NAT4_PORT_FWD1")
}

// TestApplianceNeedsVIP: other pools on it give nothing and say why.
func TestApplianceNeedsVIP(t *testing.T) {
	pool := routerPool("public", v1alpha1.ForwardNodePort, "")
	h, _ := withAppliance(t, time.Millisecond, nil, pool)
	if _, err := h.controller.EnsureLoadBalancer(t.Context(), "lab", webService("web"), nil); err == nil || !strings.Contains(err.Error(), "use a pool with forward VIP") {
		t.Errorf("%v", err)
	}
	h.sees(ReasonInvalidPool, "use a pool with forward VIP")
}
