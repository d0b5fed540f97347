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

	"github.com/onelb/onelb/test/lab"
	"github.com/onelb/onelb/test/onesim"
)

const (
	// askEvery is how often a new Service is asked, each time over a new connection.
	askEvery = 5 * time.Millisecond
	// askLimit is how long one answer may take: a lost packet must not stand in
	// the way of what a later question would find out.
	askLimit = 250 * time.Millisecond
	// settle lets kube-proxy finish with the Service before, so that the next
	// one does not wait for the end of its pause between two syncs.
	settle = 2500 * time.Millisecond
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
	w, err := d.Client().CoreV1().Services(namespace).Watch(ctx, metav1.ListOptions{
		FieldSelector: fields.OneTermEqualSelector("metadata.name", svc.Name).String(),
	})
	if err != nil {
		return created{}, fmt.Errorf("watch Service %s: %w", svc.Name, err)
	}
	defer w.Stop()
	c := created{begin: time.Now()}
	if _, err := d.CreateService(ctx, svc); err != nil {
		return created{}, err
	}
	c.call = time.Since(c.begin)
	for event := range w.ResultChan() {
		got, ok := event.Object.(*corev1.Service)
		if !ok || len(got.Status.LoadBalancer.Ingress) == 0 {
			continue
		}
		c.took = time.Since(c.begin)
		c.addr, err = netip.ParseAddr(got.Status.LoadBalancer.Ingress[0].IP)
		return c, err
	}
	return created{}, fmt.Errorf("watch Service %s: ended before it had an address: %w", svc.Name, context.Cause(ctx))
}

// firstAnswer asks every askEvery until somebody answers, and returns when that was.
func firstAnswer(ctx context.Context, from *lab.Host, to netip.Addr) (time.Time, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	answered := make(chan time.Time, 1)
	ticker := time.NewTicker(askEvery)
	defer ticker.Stop()
	for {
		go func() {
			attempt, cancel := context.WithTimeout(ctx, askLimit)
			defer cancel()
			if _, err := from.HTTPGet(attempt, to, port); err != nil {
				return
			}
			select {
			case answered <- time.Now():
			default:
			}
		}()
		select {
		case at := <-answered:
			return at, nil
		case <-ctx.Done():
			return time.Time{}, fmt.Errorf("no answer from %s: %w", to, context.Cause(ctx))
		case <-ticker.C:
		}
	}
}

// measureAddress is create to address in the status.
func measureAddress(ctx context.Context, b *bench) error {
	const name = "service_address"
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
		b.add(name, ms(c.took))
		calls = append(calls, fmt.Sprintf("%.0f", ms(c.call)))
		if err := d.DeleteService(ctx, namespace, svc.Name); err != nil {
			return err
		}
		if err := pause(ctx, 500*time.Millisecond); err != nil {
			return err
		}
	}
	b.note(name, "of it the API server's answer to the create, ms: %s", strings.Join(calls, " "))
	return nil
}

// oneDelay is by how much every call to OpenNebula is delayed to find out which
// of them a Service waits for.
const oneDelay = time.Second

// measureCriticalPath counts the calls to OpenNebula that a Service waits for:
// every call takes a second more, so each one on the way to the address costs it
// a whole second. Counting calls that happen meanwhile would count those in the
// background too.
func measureCriticalPath(ctx context.Context, b *bench) error {
	const name = "ipam_oned_calls_critical_path"
	d, err := b.sharedLab(ctx)
	if err != nil {
		return err
	}
	if err := d.OneSim().Inject(onesim.Fault{Kind: onesim.FaultDelay, Delay: oneDelay}); err != nil {
		return err
	}
	defer d.OneSim().ClearFaults()
	var slowest time.Duration
	for i := range 10 {
		svc := service(fmt.Sprintf("path-%d", i), lanPool)
		c, err := d.create(ctx, svc)
		if err != nil {
			return err
		}
		b.add(name, float64(c.took/oneDelay))
		slowest = max(slowest, c.took)
		if err := d.DeleteService(ctx, namespace, svc.Name); err != nil {
			return err
		}
		if err := pause(ctx, 500*time.Millisecond); err != nil {
			return err
		}
	}
	b.note(name, "every call delayed by %v; slowest address %.0f ms", oneDelay, ms(slowest))
	return nil
}

// measureFirstAnswerL2 is create to the first answer on the LAN.
func measureFirstAnswerL2(ctx context.Context, b *bench) error {
	return b.firstAnswers(ctx, "service_first_answer_l2", lanPool, (*lab.Lab).LAN, false)
}

// measureFirstAnswerRouterCold is create to the first answer on the internet,
// where Kubernetes makes the EndpointSlice after the Service.
func measureFirstAnswerRouterCold(ctx context.Context, b *bench) error {
	return b.firstAnswers(ctx, "service_first_answer_router_cold", routerPool, (*lab.Lab).Internet, false)
}

// measureFirstAnswerRouter is the same with an EndpointSlice that is there
// before the Service.
func measureFirstAnswerRouter(ctx context.Context, b *bench) error {
	return b.firstAnswers(ctx, "service_first_answer_router", routerPool, (*lab.Lab).Internet, true)
}

func (b *bench) firstAnswers(ctx context.Context, row, pool string, client func(*lab.Lab) *lab.Host, sliceFirst bool) error {
	d, err := b.sharedLab(ctx)
	if err != nil {
		return err
	}
	var addresses []float64
	for i := range 20 {
		svc := service(fmt.Sprintf("%s-%d", strings.ReplaceAll(row, "_", "-"), i), pool)
		c, at, err := d.createAndAsk(ctx, svc, client(d.Lab), sliceFirst)
		if err != nil {
			return err
		}
		b.add(row, ms(at.Sub(c.begin)))
		addresses = append(addresses, ms(c.took))
	}
	b.note(row, "address in the status after %g ms (median)", newRow("", "", addresses, nil).Median)
	return nil
}

// createAndAsk makes a Service, asks it until it answers, and removes it.
func (d *datacenter) createAndAsk(ctx context.Context, svc *corev1.Service, client *lab.Host, sliceFirst bool) (c created, at time.Time, err error) {
	if sliceFirst {
		svc.Spec.Selector = nil
		if err := d.setEndpoints(ctx, svc, d.pods); err != nil {
			return c, at, err
		}
		defer func() { err = firstError(err, d.removeEndpoints(ctx, svc)) }()
	}
	if err := pause(ctx, settle); err != nil {
		return c, at, err
	}
	if c, err = d.create(ctx, svc); err != nil {
		return c, at, err
	}
	attempt, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	if at, err = firstAnswer(attempt, client, c.addr); err != nil {
		return c, at, err
	}
	return c, at, d.DeleteService(ctx, namespace, svc.Name)
}

func firstError(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}
