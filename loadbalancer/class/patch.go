package class

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	servicehelper "k8s.io/cloud-provider/service/helpers"
)

// patchTimeout is the deadline of one write to the API server.
const patchTimeout = 10 * time.Second

func (c *Controller) addFinalizer(ctx context.Context, svc *corev1.Service) error {
	return c.patch(ctx, svc, map[string]any{"finalizers": []string{servicehelper.LoadBalancerCleanupFinalizer}}, nil)
}

func (c *Controller) removeFinalizer(ctx context.Context, svc *corev1.Service) error {
	return c.patch(ctx, svc, map[string]any{
		"$deleteFromPrimitiveList/finalizers": []string{servicehelper.LoadBalancerCleanupFinalizer},
	}, nil)
}

// setStatus writes the addresses if they differ from those that are there.
func (c *Controller) setStatus(ctx context.Context, svc *corev1.Service, st *corev1.LoadBalancerStatus) error {
	if servicehelper.LoadBalancerStatusEqual(&svc.Status.LoadBalancer, st) {
		return nil
	}
	var ingress any // null removes the list
	if len(st.Ingress) > 0 {
		ingress = st.Ingress
	}
	return c.patch(ctx, svc, map[string]any{}, map[string]any{"loadBalancer": map[string]any{"ingress": ingress}})
}

// patch changes the very Service, by its UID, not another of the same name.
// Finalizers are patched on the status as the library does: we may not write
// Services themselves.
func (c *Controller) patch(ctx context.Context, svc *corev1.Service, metadata, status map[string]any) error {
	metadata["uid"] = svc.UID
	body := map[string]any{"metadata": metadata}
	if status != nil {
		body["status"] = status
	}
	data, err := json.Marshal(body)
	if err != nil {
		return fmt.Errorf("encode patch of Service %s/%s: %w", svc.Namespace, svc.Name, err)
	}
	ctx, cancel := context.WithTimeout(ctx, patchTimeout)
	defer cancel()
	_, err = c.o.Kube.CoreV1().Services(svc.Namespace).Patch(ctx, svc.Name, types.StrategicMergePatchType, data, metav1.PatchOptions{}, "status")
	if err != nil {
		return fmt.Errorf("patch status of Service %s/%s: %w", svc.Namespace, svc.Name, err)
	}
	return nil
}
