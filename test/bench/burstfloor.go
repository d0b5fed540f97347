package bench

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"

	"github.com/onelb/onelb/test/lab"
)

// burstFloor is a burst in a lab like that of the others, in which the measuring
// program itself makes the writes that no load balancer on the cloud-provider
// library with a record for each address can do without, and nobody makes others.
func (b *bench) burstFloor(ctx context.Context, n int) error {
	row := fmt.Sprintf("burst_%d_floor", n)
	return b.burstLab(ctx, lab.Options{Name: "bench-floor"}, func(d *datacenter, _ int) error {
		if err := d.CCM().Stop(); err != nil {
			return err
		}
		took, calls, err := d.floorOf(ctx, n)
		if err != nil {
			return err
		}
		slices.Sort(calls)
		b.add(row, took...)
		b.note(row, "without our cloud-controller-manager; of it the create alone: median %.0f, p95 %.0f ms", quantile(calls, 0.5), quantile(calls, 0.95))
		return nil
	})
}

// floorOf creates n Services by as many creators as the other bursts. What a Service
// needs then does not keep its creator from the next one.
func (d *datacenter) floorOf(ctx context.Context, n int) (took, calls []float64, err error) {
	var mu sync.Mutex // guards took and calls
	create, cctx := errgroup.WithContext(ctx)
	create.SetLimit(creators)
	serve, sctx := errgroup.WithContext(ctx)
	for i := range n {
		create.Go(func() error {
			svc := service(burstName(i), burstPool)
			svc.Spec.LoadBalancerClass = ptr.To("bench.onelb.io/nobody")
			begin := time.Now()
			if _, err := d.CreateService(cctx, svc); err != nil {
				return err
			}
			call := ms(time.Since(begin))
			serve.Go(func() error {
				err := d.serveBare(sctx, svc.Name)
				mu.Lock()
				defer mu.Unlock()
				took, calls = append(took, ms(time.Since(begin))), append(calls, call)
				return err
			})
			return nil
		})
	}
	err = firstError(create.Wait(), serve.Wait())
	return took, calls, err
}

// serveBare writes a Service's finalizer, a record and the status, in this order.
func (d *datacenter) serveBare(ctx context.Context, name string) error {
	services := d.Client().CoreV1().Services(namespace)
	patch := func(body string) error {
		_, err := services.Patch(ctx, name, types.MergePatchType, []byte(body), metav1.PatchOptions{}, "status")
		return err
	}
	if err := patch(`{"metadata":{"finalizers":["bench.onelb.io/floor"]}}`); err != nil {
		return err
	}
	record := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: name}}
	if _, err := d.Client().CoreV1().ConfigMaps(namespace).Create(ctx, record, metav1.CreateOptions{}); err != nil {
		return err
	}
	return patch(`{"status":{"loadBalancer":{"ingress":[{"ip":"10.21.0.1"}]}}}`)
}
