package loadbalancer

import (
	"context"

	corev1 "k8s.io/api/core/v1"

	"github.com/onelb/onelb/ipam"
)

// always: an address that is kept for the Service's name needs no other reason.
func always(ipam.Record, want) bool { return true }

// comeBack gives a Service an address that was kept for its name.
func (c *Controller) comeBack(ctx context.Context, svc *corev1.Service, w want, r ipam.Record, p *poolView, inner bool) (ipam.Record, *poolView, error) {
	if err := checkServable(svc, p); err != nil {
		return r, p, err
	}
	n, err := c.own(ctx, svc, w, r, p, inner)
	if err == nil {
		c.events.CameBack(svc, n)
	}
	return n, p, err
}
