package lab_test

import (
	"context"
	"net/netip"
	"testing"
	"time"

	"github.com/onelb/onelb/test/lab"
	"github.com/onelb/onelb/test/lab/labtest"
	corev1 "k8s.io/api/core/v1"
)

// workload starts pods and removes them with the test.
func workload(t *testing.T, l *lab.Lab, w lab.Workload) []*lab.Pod {
	t.Helper()
	pods, err := l.StartWorkload(t.Context(), w)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		for _, p := range pods {
			if err := p.Delete(context.Background()); err != nil {
				t.Errorf("delete pod: %v", err)
			}
		}
	})
	return pods
}

// service creates a Service and removes it with the test.
func service(t *testing.T, l *lab.Lab, svc *corev1.Service) *corev1.Service {
	t.Helper()
	created, err := l.CreateService(t.Context(), svc)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.DeleteService(context.Background(), svc.Namespace, svc.Name); err != nil {
			t.Error(err)
		}
	})
	return created
}

// eventually repeats f until it returns no error.
func eventually(t *testing.T, what string, f func(ctx context.Context) error) {
	t.Helper()
	deadline := time.Now().Add(2 * time.Minute)
	for {
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		err := f(ctx)
		cancel()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s: %v", what, err)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// TestNodePort reaches pods from the internet through router and kube-proxy, over
// TCP and UDP, in both families.
func TestNodePort(t *testing.T) {
	l := labtest.Shared(t)
	w := lab.Workload{Name: "nodeport", Replicas: 3}
	workload(t, l, w)
	svc := service(t, l, w.Service("nodeport", corev1.ServiceTypeNodePort))
	for _, to := range l.Nodes()[0].Addrs(lab.Private) {
		for _, port := range svc.Spec.Ports {
			seen := map[string]bool{}
			eventually(t, "all pods answer over "+port.Name+" at "+to.String(), func(ctx context.Context) error {
				for len(seen) < 3 {
					a, err := ask(ctx, l.Internet(), port.Protocol, to, uint16(port.NodePort))
					if err != nil {
						return err
					}
					if a.Proto != string(port.Protocol) || a.Node == "" {
						t.Fatalf("answer %+v over %s", a, port.Protocol)
					}
					seen[a.Pod] = true
				}
				return nil
			})
		}
	}
}

func ask(ctx context.Context, from *lab.Host, protocol corev1.Protocol, to netip.Addr, port uint16) (lab.Answer, error) {
	if protocol == corev1.ProtocolUDP {
		return from.UDP(ctx, to, port)
	}
	return from.HTTPGet(ctx, to, port)
}

// TestClientAddress holds that a pod tells the client's own address where
// Kubernetes keeps it, and the node's where it does not.
func TestClientAddress(t *testing.T) {
	l := labtest.Shared(t)
	w := lab.Workload{Name: "client", Nodes: []string{"node-2"}}
	workload(t, l, w)
	object := w.Service("client", corev1.ServiceTypeNodePort)
	object.Spec.ExternalTrafficPolicy = corev1.ServiceExternalTrafficPolicyLocal
	port := uint16(service(t, l, object).Spec.Ports[0].NodePort)
	for i, to := range l.Nodes()[1].Addrs(lab.Private) {
		eventually(t, "the pod sees the client", func(ctx context.Context) error {
			a, err := l.Internet().HTTPGet(ctx, to, port)
			if err == nil && a.Client.Addr() != l.Internet().Addrs(lab.Public)[i] {
				t.Fatalf("the pod saw %s; want the internet host", a.Client)
			}
			return err
		})
	}
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if a, err := l.Internet().HTTPGet(ctx, l.Nodes()[0].Addrs(lab.Private)[0], port); err == nil {
		t.Errorf("a node without a local pod answered: %+v", a)
	}
}

// TestPodReadiness takes a pod out of its Service and puts it back.
func TestPodReadiness(t *testing.T) {
	l := labtest.Shared(t)
	w := lab.Workload{Name: "ready", Replicas: 2}
	pods := workload(t, l, w)
	service(t, l, w.Service("ready", corev1.ServiceTypeClusterIP))
	if err := l.WaitEndpoints(t.Context(), "default", "ready", 2); err != nil {
		t.Fatal(err)
	}
	if err := pods[0].SetReady(t.Context(), false); err != nil {
		t.Fatal(err)
	}
	eventually(t, "one endpoint is left", func(ctx context.Context) error {
		ctx, cancel := context.WithTimeout(ctx, 50*time.Millisecond)
		defer cancel()
		if l.WaitEndpoints(ctx, "default", "ready", 2) == nil {
			return errStill
		}
		return nil
	})
	if err := pods[0].SetReady(t.Context(), true); err != nil {
		t.Fatal(err)
	}
	if err := l.WaitEndpoints(t.Context(), "default", "ready", 2); err != nil {
		t.Fatal(err)
	}
}
