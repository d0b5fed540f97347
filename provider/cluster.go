package provider

import (
	"context"
	"crypto/rand"
	"fmt"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/kubernetes"
	"k8s.io/klog/v2"
	"k8s.io/utils/ptr"

	"github.com/onelb/onelb/loadbalancer/inventory"
	"github.com/onelb/onelb/provider/page"
)

const (
	// Namespace is where onelb's own namespaced objects are.
	Namespace = "onelb-system"
	// FencingLease counts leaders: its leaseTransitions is the last fencing token.
	FencingLease = inventory.FencingLease
	// GossipSecret holds the key with which node agents talk to each other.
	GossipSecret = "onelb-gossip"
	// GossipKey is the key of the Secret's data: 32 random bytes.
	GossipKey = "key"

	callTimeout = 10 * time.Second
	startupWait = 20 * time.Second
)

// retry calls f until it succeeds or ctx ends, and says what it waits for
// whenever that changes.
func retry(ctx context.Context, what string, f func(context.Context) error) error {
	last := ""
	backoff := wait.Backoff{Duration: 250 * time.Millisecond, Factor: 2, Jitter: 0.2, Steps: 100, Cap: 10 * time.Second}
	for {
		cctx, cancel := context.WithTimeout(ctx, callTimeout)
		err := f(cctx)
		cancel()
		if err == nil {
			return nil
		}
		if err.Error() != last {
			klog.FromContext(ctx).Error(err, "Not possible yet; trying again", "what", what)
			last = err.Error()
		}
		select {
		case <-time.After(backoff.Step()):
		case <-ctx.Done():
			return fmt.Errorf("%s: %w", what, ctx.Err())
		}
	}
}

// nextToken makes this process' fencing token: greater than that of every
// leader before it. It is a counter in the API, so clocks do not matter; it
// starts at the present second, so that a router that has seen a lost etcd's
// tokens takes the new ones too.
func nextToken(ctx context.Context, kube kubernetes.Interface, holder string) (uint64, error) {
	leases := kube.CoordinationV1().Leases(Namespace)
	seconds := int32(time.Now().Unix() - 1_600_000_000) //nolint:gosec // fits until 2088
	l, err := leases.Get(ctx, FencingLease, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		l, err = leases.Create(ctx, &coordinationv1.Lease{
			ObjectMeta: metav1.ObjectMeta{Name: FencingLease, Namespace: Namespace},
			Spec:       coordinationv1.LeaseSpec{LeaseTransitions: &seconds, HolderIdentity: &holder},
		}, metav1.CreateOptions{})
		if err != nil {
			return 0, fmt.Errorf("create Lease %s/%s: %w", Namespace, FencingLease, err)
		}
		return uint64(*l.Spec.LeaseTransitions), nil //nolint:gosec // positive
	}
	if err != nil {
		return 0, fmt.Errorf("read Lease %s/%s: %w", Namespace, FencingLease, err)
	}
	token := max(ptr.Deref(l.Spec.LeaseTransitions, 0)+1, seconds)
	l.Spec.LeaseTransitions, l.Spec.HolderIdentity = &token, &holder
	delete(l.Annotations, page.Annotation) // of the leader before
	delete(l.Annotations, page.CertificateAnnotation)
	if _, err := leases.Update(ctx, l, metav1.UpdateOptions{}); err != nil {
		return 0, fmt.Errorf("update Lease %s/%s: %w", Namespace, FencingLease, err)
	}
	return uint64(token), nil //nolint:gosec // positive
}

// ensureGossipSecret makes the node agents' key if there is none.
func ensureGossipSecret(ctx context.Context, kube kubernetes.Interface) error {
	secrets := kube.CoreV1().Secrets(Namespace)
	_, err := secrets.Get(ctx, GossipSecret, metav1.GetOptions{})
	if !apierrors.IsNotFound(err) {
		if err != nil {
			return fmt.Errorf("read Secret %s/%s: %w", Namespace, GossipSecret, err)
		}
		return nil
	}
	key := make([]byte, 32)
	if _, err := rand.Read(key); err != nil {
		return fmt.Errorf("make a key: %w", err)
	}
	_, err = secrets.Create(ctx, &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Name: GossipSecret, Namespace: Namespace},
		Data:       map[string][]byte{GossipKey: key},
	}, metav1.CreateOptions{})
	if err != nil && !apierrors.IsAlreadyExists(err) {
		return fmt.Errorf("create Secret %s/%s: %w", Namespace, GossipSecret, err)
	}
	return nil
}
