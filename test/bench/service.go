package bench

import (
	"context"
	"fmt"
	"net/netip"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"

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
	return b.firstAnswers(ctx, "service_first_answer_l2", lanPool, (*lab.Lab).LAN, false, 20)
}

// measureFirstAnswerRouterCold is create to the first answer on the internet,
// where Kubernetes makes the EndpointSlice after the Service.
func measureFirstAnswerRouterCold(ctx context.Context, b *bench) error {
	return b.firstAnswers(ctx, "service_first_answer_router_cold", routerPool, (*lab.Lab).Internet, false, 10)
}

// measureFirstAnswerRouter is the same with an EndpointSlice that is there
// before the Service.
func measureFirstAnswerRouter(ctx context.Context, b *bench) error {
	return b.firstAnswers(ctx, "service_first_answer_router", routerPool, (*lab.Lab).Internet, true, 20)
}

func (b *bench) firstAnswers(ctx context.Context, row, pool string, client func(*lab.Lab) *lab.Host, sliceFirst bool, n int) error {
	d, err := b.sharedLab(ctx)
	if err != nil {
		return err
	}
	var addresses []float64
	for i := range n {
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
