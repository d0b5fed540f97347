package bench

import (
	"context"
	"errors"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/onelb/onelb/api/v1alpha1"
	"github.com/onelb/onelb/test/lab"
)

// A way to the pods of which one node dies.
type deathOf struct {
	row, pool string
	policy    corev1.ServiceExternalTrafficPolicy
	// calmFor is how long no request may fail before it is believed that none does
	// any more.
	calmFor time.Duration
}

var deaths = []deathOf{
	{"backend_death_pod", "pods", corev1.ServiceExternalTrafficPolicyCluster, 3 * time.Second},
	{"backend_death_nodeport_local", routerPool, corev1.ServiceExternalTrafficPolicyLocal, 3 * time.Second},
	{"backend_death_nodeport_cluster", routerPool, corev1.ServiceExternalTrafficPolicyCluster, 15 * time.Second},
}

// errRestless is of a loss that was not begun.
var errRestless = errors.New("requests failed before the loss")

func deathRows() []column {
	var rows []column
	for _, d := range deaths {
		rows = append(rows, column{d.row, "ms"})
	}
	return rows
}

// measureDeath loses a node with one of three pods while the internet asks.
func measureDeath(ctx context.Context, b *bench) (err error) {
	d, err := startLab(ctx, lab.Options{Name: "bench-death", NodeLifecycle: true})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, d.Close()) }()
	pods := pool("pods", "public", "203.0.113.200", "203.0.113.219")
	pods.Spec.Exposure, pods.Spec.Router = v1alpha1.ExposureRouter, &v1alpha1.RouterSpec{Name: lab.RouterName, Forward: v1alpha1.ForwardPod}
	if err := d.addPools(ctx, publicPool(), pods); err != nil {
		return err
	}
	if d.pods, err = d.StartWorkload(ctx, workload); err != nil {
		return err
	}
	for _, how := range deaths {
		if !matches(b.opts.Select, how.row) {
			continue
		}
		svc := service("death", how.pool)
		svc.Spec.ExternalTrafficPolicy = how.policy
		c, err := d.create(ctx, svc)
		if err != nil {
			return err
		}
		for i := range b.times(12) {
			took, failed, err := d.death(ctx, c, how)
			for again := 0; errors.Is(err, errRestless) && again < 3; again++ { // a busy machine; nothing was lost yet
				b.say("  %s, loss %d again: %v", how.row, i+1, err)
				took, failed, err = d.death(ctx, c, how)
			}
			if err != nil {
				return fmt.Errorf("%s, loss %d: %w", how.row, i+1, err)
			}
			b.say("  %s: %.0f ms, %s", how.row, ms(took), failed)
			b.add(how.row, ms(took))
		}
		if err := d.DeleteService(ctx, namespace, svc.Name); err != nil {
			return err
		}
	}
	b.note("backend_death_nodeport_cluster", "the living nodes' kube-proxies go on choosing the dead pod until Kubernetes calls its node not ready: some 7 s here, 40 to 50 s with the default settings")
	return nil
}

// death has the third node lost under probes, and back.
func (d *datacenter) death(ctx context.Context, c created, how deathOf) (took time.Duration, seen string, err error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Minute)
	defer cancel()
	if _, err := firstAnswer(ctx, d.Internet(), c.addr); err != nil {
		return 0, "", err
	}
	if err := pause(ctx, settle); err != nil {
		return 0, "", err
	}
	p := lab.Probe(ctx, probeEvery, func(ctx context.Context) error {
		_, err := d.Internet().HTTPGet(ctx, c.addr, port)
		return err
	})
	defer p.Stop()
	if err := pause(ctx, calm); err != nil {
		return 0, "", err
	}
	if r := p.Result(); r.Failed > 0 {
		return 0, "", fmt.Errorf("%w: %s: %v", errRestless, c.addr, r)
	}
	victim := d.Nodes()[2]
	begin := time.Now()
	if err := victim.PowerOff(); err != nil {
		return 0, "", err
	}
	last := begin
	for time.Since(last) < how.calmFor {
		if err := pause(ctx, 200*time.Millisecond); err != nil {
			return 0, "", err
		}
		if o := p.Result().Outages; len(o) > 0 {
			last = o[len(o)-1].Begin.Add(o[len(o)-1].Duration)
		}
	}
	r := p.Stop()
	if err := victim.PowerOn(ctx); err != nil {
		return 0, "", err
	}
	return last.Sub(begin), r.String(), d.WaitReady(ctx)
}
