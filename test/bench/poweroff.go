package bench

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/onelb/onelb/test/lab"
)

// measurePowerOff loses the holder's machine and has it back, again and again.
func measurePowerOff(ctx context.Context, b *bench) (err error) {
	d, err := b.sharedLab(ctx)
	if err != nil {
		return err
	}
	t, err := d.newTarget(ctx, lanPool)
	if err != nil {
		return err
	}
	var udp, http []float64
	for i := range b.times(20) {
		holder, o, err := t.measure(ctx, faultLimit, powerOff)
		if err != nil {
			return fmt.Errorf("loss %d: %w", i+1, err)
		}
		b.say("  %s lost: UDP %.0f ms, HTTP %.0f ms, who-has %.0f ms", holder.ShortName(), o.udp, o.http, o.whoHas)
		udp, http = append(udp, o.udp), append(http, o.http)
		b.add("failover_poweroff", o.client())
		b.add("who_has_gap_poweroff", o.whoHas)
		b.add("dual_answer_poweroff", o.dual)
		back, err := t.comeBack(ctx, holder)
		if err != nil {
			return fmt.Errorf("return %d: %w", i+1, err)
		}
		b.add("failover_return", back.client())
		b.add("dual_answer_return", back.dual)
		if err := t.waitWell(ctx); err != nil {
			return fmt.Errorf("return %d: %w", i+1, err)
		}
	}
	b.note("failover_poweroff", "the longer of UDP (median %g) and HTTP (median %g)", newRow("", "", udp, nil).Median, newRow("", "", http, nil).Median)
	return t.remove(ctx)
}

func powerOff(_ context.Context, holder *lab.Node, _ *watcher) error { return holder.PowerOff() }

// comeBack boots the lost node under probes.
func (t *target) comeBack(ctx context.Context, n *lab.Node) (outages, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	w := t.d.watch(ctx, t.addr)
	err := n.PowerOn(ctx)
	if err == nil {
		err = pause(ctx, afterFault)
	}
	o, serr := w.stop()
	return o, errors.Join(err, serr)
}
