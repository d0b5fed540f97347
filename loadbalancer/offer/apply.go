package offer

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/klog/v2"

	"github.com/onelb/onelb/api/v1alpha1"
)

const writeTimeout = 10 * time.Second

// apply makes the AddressPool of an offer, or makes it what the offer says now.
// It does nothing to a pool that is being deleted.
func (c *Controller) apply(ctx context.Context, n Network, pool *v1alpha1.AddressPool) error {
	name, spec, err := parse(n)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, writeTimeout)
	defer cancel()
	switch {
	case pool == nil:
		return c.create(ctx, n, name, spec)
	case !pool.DeletionTimestamp.IsZero():
		return errors.New("the AddressPool of that name is being deleted; it is made again when the last Service has left it")
	case equality.Semantic.DeepEqual(pool.Spec, spec):
		return nil
	}
	// Not op "test": the API server answers one that fails as if the patch were
	// invalid, a version that is not the object's with a conflict.
	patch, err := json.Marshal([]map[string]any{
		{"op": "replace", "path": "/metadata/resourceVersion", "value": pool.ResourceVersion},
		{"op": "replace", "path": "/spec", "value": spec},
	})
	if err != nil {
		return fmt.Errorf("encode AddressPool %s: %w", name, err)
	}
	changed, err := c.o.Pools.Patch(ctx, name, types.JSONPatchType, patch, metav1.PatchOptions{})
	switch {
	case stale(ctx, pool.Name, err):
		return nil
	case err != nil:
		return hint(fmt.Errorf("change AddressPool %s: %w", name, err))
	}
	c.o.Recorder.Eventf(changed, corev1.EventTypeNormal, ReasonOfferChanged, "made what %s says", n)
	return nil
}

// stale reports whether a write was refused because somebody wrote the object
// meanwhile: the watch will bring it, and it is looked at again.
func stale(ctx context.Context, name string, err error) bool {
	if !apierrors.IsConflict(err) && !apierrors.IsNotFound(err) {
		return false
	}
	klog.FromContext(ctx).V(2).Info("AddressPool has changed meanwhile", "addressPool", name)
	return true
}

func (c *Controller) create(ctx context.Context, n Network, name string, spec v1alpha1.AddressPoolSpec) error {
	p, err := c.o.Pools.Create(ctx, &v1alpha1.AddressPool{
		ObjectMeta: metav1.ObjectMeta{
			Name:        name,
			Labels:      map[string]string{v1alpha1.OfferedByLabel: v1alpha1.OfferedByOpenNebula},
			Annotations: map[string]string{v1alpha1.OfferNetworkAnnotation: strconv.Itoa(int(n.ID))},
		},
		Spec: spec,
	}, metav1.CreateOptions{})
	switch {
	case apierrors.IsAlreadyExists(err):
		return nil // a person was faster, or another leader; the watch will tell
	case err != nil:
		return hint(fmt.Errorf("make AddressPool %s: %w", name, err))
	}
	klog.FromContext(ctx).Info("OpenNebula offers a pool", "addressPool", name, "network", n.ID)
	c.o.Recorder.Eventf(p, corev1.EventTypeNormal, ReasonPoolOffered, "offered by %s", n)
	return nil
}

// hint says what to do about a right that is missing.
func hint(err error) error {
	if apierrors.IsForbidden(err) {
		return fmt.Errorf("%w; apply manifests/components/offered-pools, which gives the right", err)
	}
	return err
}

// withdrawn deletes a pool that its network no longer offers. The deletion is
// held back while Services have addresses of it.
func (c *Controller) withdrawn(ctx context.Context, pool *v1alpha1.AddressPool) {
	network := networkOf(pool)
	if !pool.DeletionTimestamp.IsZero() {
		return
	}
	if !c.seen[network] {
		c.report(ctx, pool.Name, pool, fmt.Errorf("virtual network %d, which offered the pool, cannot be seen: give our OpenNebula user USE on it, or delete the AddressPool", network))
		return
	}
	ctx, cancel := context.WithTimeout(ctx, writeTimeout)
	defer cancel()
	err := c.o.Pools.Delete(ctx, pool.Name, metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &pool.UID, ResourceVersion: &pool.ResourceVersion}})
	switch {
	case stale(ctx, pool.Name, err):
	case err != nil:
		c.report(ctx, pool.Name, pool, hint(fmt.Errorf("delete AddressPool %s: %w", pool.Name, err)))
	default:
		klog.FromContext(ctx).Info("OpenNebula has withdrawn a pool", "addressPool", pool.Name, "network", network)
		c.o.Recorder.Eventf(pool, corev1.EventTypeNormal, ReasonOfferWithdrawn, "virtual network %d no longer offers the pool", network)
	}
}

// annotate writes what is wrong with an offer on its pool; empty: nothing.
func (c *Controller) annotate(ctx context.Context, pool *v1alpha1.AddressPool, problem string) error {
	ctx, cancel := context.WithTimeout(ctx, writeTimeout)
	defer cancel()
	var value any
	if problem != "" {
		value = problem
	}
	body, err := json.Marshal(map[string]any{"metadata": map[string]any{
		"uid": pool.UID, "annotations": map[string]any{v1alpha1.OfferProblemAnnotation: value},
	}})
	if err != nil {
		return fmt.Errorf("encode AddressPool %s: %w", pool.Name, err)
	}
	_, err = c.o.Pools.Patch(ctx, pool.Name, types.MergePatchType, body, metav1.PatchOptions{})
	if err != nil && !stale(ctx, pool.Name, err) {
		return fmt.Errorf("annotate AddressPool %s: %w", pool.Name, err)
	}
	return nil
}
