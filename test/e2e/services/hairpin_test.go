package services

import (
	"context"
	"fmt"
	"net/netip"
	"testing"

	corev1 "k8s.io/api/core/v1"

	"github.com/onelb/onelb/test/e2e/kit"
	"github.com/onelb/onelb/test/lab"
)

// TestHairpin: a public address answers those inside too, as an issuer of
// certificates expects who tries its own HTTP challenge first: another machine of the
// nodes' network, whose way leads to the router and back, the nodes themselves, and pods.
func TestHairpin(t *testing.T) {
	w := newWorld(t)
	dual := kit.Families(corev1.IPFamilyPolicyRequireDualStack, v4, v6)
	for _, pool := range []string{"internet", "direct", "lan"} {
		w.Create(web, "challenge-"+pool, kit.InPool(pool), dual)
	}
	inside := []*lab.Host{w.LAN()}
	for _, n := range w.Nodes() {
		inside = append(inside, n.Host)
	}
	for _, p := range w.Pods() {
		inside = append(inside, p.Host)
	}
	for _, pool := range []string{"internet", "direct", "lan"} {
		for _, a := range w.Served(web, "challenge-"+pool) {
			for _, h := range inside {
				w.Eventually(fmt.Sprintf("%s to reach %s of pool %s", h.ShortName(), a, pool), func(ctx context.Context) error {
					_, err := h.HTTPGet(ctx, a, kit.Port)
					return err
				})
			}
		}
	}
	if !netip.MustParsePrefix("203.0.113.0/24").Contains(w.Addresses("challenge-internet")[0]) {
		t.Error("that was no public address")
	}
	w.Remove("challenge-internet", "challenge-direct", "challenge-lan")
	w.NothingLeft()
}
