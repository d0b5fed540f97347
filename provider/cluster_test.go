package provider

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/fake"
)

func TestNextTokenGrowsWithEachLeader(t *testing.T) {
	kube := fake.NewSimpleClientset()
	last := uint64(0)
	for range 3 {
		token, err := nextToken(t.Context(), kube, "host")
		if err != nil {
			t.Fatal(err)
		}
		if token <= last {
			t.Fatalf("token %d after %d", token, last)
		}
		last = token
	}
	// A clock that was far ahead once does not make later tokens smaller.
	l, err := kube.CoordinationV1().Leases(Namespace).Get(t.Context(), FencingLease, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	ahead := *l.Spec.LeaseTransitions + 1_000_000
	l.Spec.LeaseTransitions = &ahead
	if _, err := kube.CoordinationV1().Leases(Namespace).Update(t.Context(), l, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	token, err := nextToken(t.Context(), kube, "host")
	if err != nil || token != uint64(ahead)+1 {
		t.Errorf("token %d, %v; want %d", token, err, ahead+1)
	}
}

func TestGossipSecretIsMadeOnce(t *testing.T) {
	kube := fake.NewSimpleClientset()
	key := func() string {
		if err := ensureGossipSecret(t.Context(), kube); err != nil {
			t.Fatal(err)
		}
		s, err := kube.CoreV1().Secrets(Namespace).Get(t.Context(), GossipSecret, metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		return string(s.Data[GossipKey])
	}
	first := key()
	if len(first) != 32 {
		t.Errorf("%d bytes, want 32", len(first))
	}
	if key() != first {
		t.Error("the key was replaced")
	}
}

func TestRetryUntilItWorks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tries := 0
		err := retry(t.Context(), "something", func(context.Context) error {
			if tries++; tries < 5 {
				return errors.New("not yet")
			}
			return nil
		})
		if err != nil || tries != 5 {
			t.Errorf("%v after %d tries", err, tries)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		err = retry(ctx, "something", func(context.Context) error { return errors.New("never") })
		if !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "something") {
			t.Errorf("got %v", err)
		}
	})
}

func TestBalancerSaysThatItIsStarting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLateBalancer()
		svc := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "web"}}
		if _, err := l.EnsureLoadBalancer(t.Context(), "", svc, nil); err == nil || !strings.Contains(err.Error(), "starting") {
			t.Errorf("Ensure: %v", err)
		}
		if _, exists, err := l.GetLoadBalancer(t.Context(), "", svc); err == nil || exists {
			t.Errorf("Get: %v, %v: only an error keeps the library from dropping the finalizer", exists, err)
		}
		if err := l.EnsureLoadBalancerDeleted(t.Context(), "", svc); err == nil {
			t.Error("Delete reports success before anything runs")
		}
	})
}

func TestNewNamesWhatIsWrong(t *testing.T) {
	if _, err := New(nil); err == nil || !strings.Contains(err.Error(), "--cloud-config") {
		t.Errorf("no file: %v", err)
	}
	_, err := New(strings.NewReader("endpoint: http://one:2633/RPC2\ncredentials: {env: X}\ncluster: c\nrouterz: []\n"))
	if err == nil || !strings.Contains(err.Error(), "routerz") || !strings.Contains(err.Error(), "routers") {
		t.Errorf("unknown key: %v", err)
	}
}
