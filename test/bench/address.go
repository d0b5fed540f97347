package bench

import (
	"context"
	"fmt"
	"net/netip"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
)

// created is a Service that was given its address.
type created struct {
	addr  netip.Addr
	begin time.Time     // before the call that created it
	call  time.Duration // the call
	took  time.Duration // from begin to the address in its status
}

// create makes a Service and waits for its address by a watch that runs already.
func (d *datacenter) create(ctx context.Context, svc *corev1.Service) (created, error) {
	w, err := d.watchService(ctx, svc.Name)
	if err != nil {
		return created{}, err
	}
	defer w.Stop()
	c := created{begin: time.Now()}
	if _, err := d.CreateService(ctx, svc); err != nil {
		return created{}, err
	}
	c.call = time.Since(c.begin)
	got, err := next(ctx, w, hasAddress)
	if err != nil {
		return created{}, err
	}
	c.took = time.Since(c.begin)
	c.addr, err = netip.ParseAddr(got.Status.LoadBalancer.Ingress[0].IP)
	return c, err
}

func (d *datacenter) watchService(ctx context.Context, name string) (watch.Interface, error) {
	w, err := d.Client().CoreV1().Services(namespace).Watch(ctx, metav1.ListOptions{
		FieldSelector: fields.OneTermEqualSelector("metadata.name", name).String(),
	})
	if err != nil {
		return nil, fmt.Errorf("watch Service %s: %w", name, err)
	}
	return w, nil
}

func hasAddress(svc *corev1.Service) bool { return len(svc.Status.LoadBalancer.Ingress) > 0 }

// next returns the first Service in a watch that is as wanted.
func next(ctx context.Context, w watch.Interface, wanted func(*corev1.Service) bool) (*corev1.Service, error) {
	for event := range w.ResultChan() {
		if svc, ok := event.Object.(*corev1.Service); ok && wanted(svc) {
			return svc, nil
		}
	}
	return nil, fmt.Errorf("the watch of a Service ended before what was waited for: %w", context.Cause(ctx))
}

// measureAddress is create to address in the status, in turns with the floor: a
// loaded machine slows both alike.
func measureAddress(ctx context.Context, b *bench) error {
	const row, floor = "service_address", "service_address_floor"
	d, err := b.sharedLab(ctx)
	if err != nil {
		return err
	}
	var calls []string
	for i := range 20 {
		svc := service(fmt.Sprintf("address-%d", i), lanPool)
		c, err := d.create(ctx, svc)
		if err != nil {
			return err
		}
		b.add(row, ms(c.took))
		calls = append(calls, fmt.Sprintf("%.0f", ms(c.call)))
		if err := d.DeleteService(ctx, namespace, svc.Name); err != nil {
			return err
		}
		if err := pause(ctx, 700*time.Millisecond); err != nil {
			return err
		}
		took, err := d.floor(ctx, fmt.Sprintf("floor-%d", i))
		if err != nil {
			return err
		}
		b.add(floor, ms(took))
		if err := pause(ctx, 700*time.Millisecond); err != nil {
			return err
		}
	}
	b.note(row, "of it the API server's answer to the create, ms: %s", strings.Join(calls, " "))
	b.note(floor, "the same four writes one after the other, without any of our code")
	return nil
}

// floor does what every load balancer on the cloud-provider library with a
// record for each address has to do in the API, and nothing else: the Service
// is created and seen, gets its finalizer, a record is created, the status is
// written and seen.
func (d *datacenter) floor(ctx context.Context, name string) (time.Duration, error) {
	w, err := d.watchService(ctx, name)
	if err != nil {
		return 0, err
	}
	defer w.Stop()
	svc := service(name, lanPool)
	svc.Spec.LoadBalancerClass = new("bench.onelb.io/nobody")
	services, records := d.Client().CoreV1().Services(namespace), d.Client().CoreV1().ConfigMaps(namespace)
	begin := time.Now()
	created := make(chan error, 1)
	go func() {
		_, err := d.CreateService(ctx, svc)
		created <- err
	}()
	if _, err := next(ctx, w, func(*corev1.Service) bool { return true }); err != nil {
		return 0, err
	}
	patch := func(body string, subresource string) error {
		_, err := services.Patch(ctx, name, types.MergePatchType, []byte(body), metav1.PatchOptions{}, subresource)
		return err
	}
	if err := patch(`{"metadata":{"finalizers":["bench.onelb.io/floor"]}}`, "status"); err != nil {
		return 0, err
	}
	record := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: name}}
	if _, err := records.Create(ctx, record, metav1.CreateOptions{}); err != nil {
		return 0, err
	}
	if err := patch(`{"status":{"loadBalancer":{"ingress":[{"ip":"10.20.0.240"}]}}}`, "status"); err != nil {
		return 0, err
	}
	if _, err := next(ctx, w, hasAddress); err != nil {
		return 0, err
	}
	took := time.Since(begin)
	return took, firstError(<-created,
		patch(`{"metadata":{"finalizers":null}}`, "status"),
		d.DeleteService(ctx, namespace, name),
		records.Delete(ctx, name, metav1.DeleteOptions{}))
}
