package bench

import (
	"context"
	"errors"
	"time"

	"github.com/onelb/onelb/test/lab"
	"github.com/onelb/onelb/test/lab/kubebin"
)

// measureDemo is from the start of a lab to the first answer from outside, as
// in the demo. Kubernetes is built before.
func measureDemo(ctx context.Context, b *bench) error {
	const name = "demo_first_answer"
	if _, err := kubebin.Build(ctx, b.opts.Progress); err != nil {
		return err
	}
	if err := b.closeShared(); err != nil { // two labs at once would share the cores
		return err
	}
	for range 2 {
		took, err := demo(ctx)
		if err != nil {
			return err
		}
		b.add(name, took.Seconds())
	}
	b.note(name, "onelb's programs are built by the first run if they have changed")
	return nil
}

func demo(ctx context.Context) (took time.Duration, err error) {
	begin := time.Now()
	l, err := lab.New(lab.Options{Name: "bench-demo", Programs: true})
	if err != nil {
		return 0, err
	}
	d := &datacenter{Lab: l}
	defer func() { err = errors.Join(err, l.Close()) }()
	if err := d.start(ctx); err != nil {
		return 0, err
	}
	if err := d.addPools(ctx, publicPool()); err != nil {
		return 0, err
	}
	if d.pods, err = d.StartWorkload(ctx, workload); err != nil {
		return 0, err
	}
	c, err := d.create(ctx, service("demo", routerPool))
	if err != nil {
		return 0, err
	}
	at, err := firstAnswer(ctx, d.Internet(), c.addr)
	return at.Sub(begin), err
}
