package bench

import (
	"context"
	"errors"
	"net/netip"
	"time"
)

// apiGone is how long the API server is away under a thousand connections.
const apiGone = 10 * time.Second

// measureRouterRestart restarts whatever stands behind the router's rules while
// connections through one of its frontends carry requests.
func measureRouterRestart(ctx context.Context, b *bench) error {
	const row = "router_restart_broken_connections"
	d, err := b.sharedLab(ctx)
	if err != nil {
		return err
	}
	svc := service("restarts", routerPool)
	c, err := d.create(ctx, svc)
	if err != nil {
		return err
	}
	if _, err := firstAnswer(ctx, d.Internet(), c.addr); err != nil {
		return err
	}
	if err := pause(ctx, settle); err != nil { // the other nodes' kube-proxies
		return err
	}
	err = b.under(ctx, row, d, func(ctx context.Context) error {
		agent := d.Router(1).Agent()
		if err := errors.Join(agent.Restart(), d.WaitReady(ctx), agent.Kill(), pause(ctx, time.Second), agent.Start(), d.CCM().Restart()); err != nil {
			return err
		}
		// One that has not come up yet would end for want of the API server.
		other := service("restarts-other", routerPool)
		if _, err := d.create(ctx, other); err != nil {
			return err
		}
		if err := errors.Join(d.DeleteService(ctx, namespace, other.Name), d.StopAPIServer()); err != nil {
			return err
		}
		if err := pause(ctx, apiGone); err != nil {
			return err
		}
		return errors.Join(d.StartAPIServer(ctx), d.WaitReady(ctx))
	}, netip.AddrPortFrom(c.addr, port))
	if err != nil {
		return err
	}
	b.note(row, "agent restarted, killed and started after a second, cloud-controller-manager restarted, API server away for %v", apiGone)
	return d.DeleteService(ctx, namespace, svc.Name)
}
