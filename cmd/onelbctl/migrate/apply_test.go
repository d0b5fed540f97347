package migrate

import (
	"bytes"
	"context"
	"errors"
	"net/netip"
	"strconv"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/fake"
	ktesting "k8s.io/client-go/testing"
	"k8s.io/utils/ptr"

	"github.com/onelb/onelb/api/v1alpha1"
	"github.com/onelb/onelb/cmd/onelbctl/term"
	"github.com/onelb/onelb/loadbalancer/inventory"
	"github.com/onelb/onelb/test/sample"
)

// stage is a cluster with two Services of MetalLB, pool main, which is ready, and a
// stand-in for the cloud-controller-manager.
type stage struct {
	c       *sample.Cluster
	clients inventory.Clients
	kube    *fake.Clientset
	patched []string // Services, in their order
	out     bytes.Buffer
}

// newStage makes it; serve is what the stand-in does for a Service that was annotated.
func newStage(t *testing.T, serve func(s *stage, svc *corev1.Service)) *stage {
	t.Helper()
	s := &stage{c: sample.New()}
	s.c.Pools, s.c.VirtualIPs = s.c.Pools[:1], nil
	s.c.Pools[0].Spec.AutoAssign = ptr.To(false)
	s.c.Pools[0].Annotations = map[string]string{Migrating: "true"}
	s.c.Services = []*corev1.Service{service("default", "a", nil, "10.20.0.101"), service("default", "b", nil, "10.20.0.102")}
	s.kube = s.c.Kube()
	s.clients = inventory.Clients{Kube: s.kube, OneLB: s.c.OneLB()}
	s.kube.PrependReactor("patch", "services", func(a ktesting.Action) (bool, runtime.Object, error) {
		name := a.(ktesting.PatchAction).GetName()
		s.patched = append(s.patched, name)
		for _, svc := range s.c.Services {
			if svc.Name == name {
				serve(s, svc)
			}
		}
		return false, nil, nil
	})
	return s
}

// gives is the stand-in that works.
func gives(s *stage, svc *corev1.Service) {
	v := sample.VirtualIP(svc.Status.LoadBalancer.Ingress[0].IP, "main", svc)
	v.Status.Holder = &v1alpha1.Holder{Name: "node-1"}
	_, _ = s.clients.OneLB.VirtualIPs().Create(context.Background(), v, metav1.CreateOptions{})
}

func (s *stage) plan() Plan {
	p := Plan{From: "MetalLB", Pools: []Pool{{Name: "main", There: true, AutoAssign: true}}, Afterwards: []string{"remove it"}}
	for _, svc := range s.c.Services {
		x := Service{Namespace: svc.Namespace, Name: svc.Name, UID: svc.UID, Addresses: shown(svc), Pool: "main"}
		pin(&x, "")
		p.Services = append(p.Services, x)
	}
	return p
}

func (s *stage) apply(t *testing.T, p Plan, only ...string) error {
	t.Helper()
	r := &runner{clients: s.clients, out: &s.out, progress: term.NewProgress(&s.out), timeout: time.Second, every: time.Millisecond, only: only}
	if len(only) == 0 {
		r.timeout = 2 * time.Minute
	}
	return r.apply(t.Context(), p, nil)
}

func TestApply(t *testing.T) {
	s := newStage(t, gives)
	if err := s.apply(t, s.plan()); err != nil || strings.Join(s.patched, " ") != "a b" {
		t.Fatalf("%v, %v\n%s", err, s.patched, s.out.String())
	}
	for _, words := range []string{"Service default/a keeps 10.20.0.101 (1 of 2).", "Service default/b keeps 10.20.0.102 (2 of 2).", "somebody answers", "remove it"} {
		if !strings.Contains(s.out.String(), words) {
			t.Errorf("%q is not said:\n%s", words, s.out.String())
		}
	}
	p, err := s.clients.OneLB.AddressPools().Get(t.Context(), "main", metav1.GetOptions{})
	if err != nil || p.Spec.AutoAssign == nil || !*p.Spec.AutoAssign || migrating(p) {
		t.Errorf("%+v, %v", p.Spec, err)
	}
	svc, err := s.kube.CoreV1().Services("default").Get(t.Context(), "a", metav1.GetOptions{})
	if err != nil || svc.Annotations["onelb.io/address"] != "10.20.0.101" || svc.Annotations["onelb.io/pool"] != "main" {
		t.Errorf("%v, %v", svc.Annotations, err)
	}
	again := s.plan()
	for i := range again.Services {
		again.Services[i].Done = true
	}
	s.patched = nil
	if err := s.apply(t, again); err != nil || len(s.patched) > 0 {
		t.Errorf("%v, %v", err, s.patched)
	}
}

// TestPoolsOfOthersStayAsTheyAre: autoAssign is set once, on what was made here.
func TestPoolsOfOthersStayAsTheyAre(t *testing.T) {
	s := newStage(t, gives)
	own := s.c.Pools[0].DeepCopy()
	own.Annotations = nil
	if _, err := s.clients.OneLB.AddressPools().Update(t.Context(), own, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	if err := s.apply(t, s.plan()); err != nil { // also with a plan from before it was made
		t.Fatal(err)
	}
	p, err := s.clients.OneLB.AddressPools().Get(t.Context(), "main", metav1.GetOptions{})
	if err != nil || p.Spec.AutoAssign == nil || *p.Spec.AutoAssign {
		t.Errorf("%+v, %v", p.Spec, err)
	}
	r := &runner{clients: s.clients, out: &s.out, progress: term.NewProgress(&s.out)}
	for _, auto := range []bool{true, false} {
		name := "made-" + strconv.FormatBool(auto)
		if err := r.makePool(t.Context(), Pool{Name: name, AutoAssign: auto}); err != nil {
			t.Fatal(err)
		}
		if p, err = s.clients.OneLB.AddressPools().Get(t.Context(), name, metav1.GetOptions{}); err != nil || migrating(p) != auto {
			t.Errorf("%+v, %v", p, err)
		}
	}
}

// TestTheFirstThatFailsEndsIt: the others are not touched.
func TestTheFirstThatFailsEndsIt(t *testing.T) {
	s := newStage(t, func(*stage, *corev1.Service) {})
	err := s.apply(t, s.plan(), "default/a", "default/b")
	if err == nil || !strings.Contains(err.Error(), "Service default/a keeps its address, but is not published") || !strings.Contains(err.Error(), "has no VirtualIP") || strings.Join(s.patched, " ") != "a" {
		t.Errorf("%v, %v", err, s.patched)
	}
	s = newStage(t, func(s *stage, svc *corev1.Service) {
		v := sample.VirtualIP(svc.Status.LoadBalancer.Ingress[0].IP, "main", s.c.Services[1])
		_, _ = s.clients.OneLB.VirtualIPs().Create(context.Background(), v, metav1.CreateOptions{})
	})
	if err := s.apply(t, s.plan(), "default/a"); err == nil || !strings.Contains(err.Error(), "is not the Service's") {
		t.Errorf("%v", err)
	}
}

func TestGate(t *testing.T) {
	nobody := func(*stage, *corev1.Service) {}
	s := newStage(t, nobody)
	p := s.plan()
	p.Running = []string{"the controller"}
	if err := s.apply(t, p); !errors.Is(err, ErrWaits) || !strings.Contains(err.Error(), "the controller") || len(s.patched) > 0 {
		t.Errorf("%v, %v", err, s.patched)
	}
	s = newStage(t, nobody)
	s.c.Manager.Spec.Template.Spec.Containers[0].Args = []string{"--default-class=false"}
	if _, err := s.kube.AppsV1().Deployments(inventory.Namespace).Update(t.Context(), s.c.Manager, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	if err := s.apply(t, s.plan()); !errors.Is(err, ErrWaits) || !strings.Contains(err.Error(), "--default-class=false") || len(s.patched) > 0 {
		t.Errorf("%v, %v", err, s.patched)
	}
	s = newStage(t, gives)
	p = s.plan()
	p.Services[0].Problems = []string{"it cannot"}
	if err := s.apply(t, p); !errors.Is(err, ErrBlocked) || strings.Join(s.patched, " ") != "b" {
		t.Errorf("%v, %v", err, s.patched)
	}
	p.Problems = []string{"first that"}
	s.patched = nil
	if err := s.apply(t, p); !errors.Is(err, ErrBlocked) || !strings.Contains(err.Error(), "first that") || len(s.patched) > 0 {
		t.Errorf("%v, %v", err, s.patched)
	}
}

// TestAChangedService is not touched: it shows something else than was planned with.
func TestAChangedService(t *testing.T) {
	s := newStage(t, gives)
	p := s.plan()
	p.Services[0].Addresses = []netip.Addr{addr("10.20.0.109")}
	if err := s.apply(t, p); err == nil || !strings.Contains(err.Error(), "has changed since the plan was made (it shows 10.20.0.101)") || len(s.patched) > 0 {
		t.Errorf("%v, %v", err, s.patched)
	}
}

// TestSpeakersAnswer: nobody of onelb can, and nobody waits for it.
func TestSpeakersAnswer(t *testing.T) {
	s := newStage(t, func(s *stage, svc *corev1.Service) {
		v := sample.VirtualIP(svc.Status.LoadBalancer.Ingress[0].IP, "main", svc)
		_, _ = s.clients.OneLB.VirtualIPs().Create(context.Background(), v, metav1.CreateOptions{})
	})
	p := s.plan()
	p.Answering = []string{"the speakers"}
	if err := s.apply(t, p); err != nil || !strings.Contains(s.out.String(), "Others still answer for their addresses") || !strings.Contains(s.out.String(), "the speakers") {
		t.Errorf("%v\n%s", err, s.out.String())
	}
}
