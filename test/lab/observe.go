package lab

import (
	"context"
	"fmt"
	"net/netip"

	"github.com/onelb/onelb/test/lab/wire"
)

// Sniff collects the gratuitous ARP frames and unsolicited neighbour
// advertisements on an L2 network, as every port of it gets them. While the
// network is partitioned, that is the part with the hosts of no group. The
// caller closes the sniffer.
func (l *Lab) Sniff(network string) (*wire.Sniffer, error) {
	n, ok := l.l2s[network]
	if !ok {
		return nil, fmt.Errorf("sniff on %s: %w", network, ErrNoNetwork)
	}
	return wire.NewSniffer(n.space, n.bridge(0))
}

// WhoHas asks an L2 network once, from this host, who has the address, and
// returns everyone who answers before ctx ends.
func (h *Host) WhoHas(ctx context.Context, network string, target netip.Addr) ([]wire.Responder, error) {
	link := h.links[network]
	if link == nil {
		return nil, fmt.Errorf("ask %s from %s: %w", network, h.short, ErrNoLink)
	}
	ctx, cancel := withDeadline(ctx)
	defer cancel()
	for _, own := range link.addrs {
		if own.Is4() == target.Is4() {
			return wire.Asker{Space: h.Namespace, Dev: link.dev, MAC: link.MAC(), Addr: own}.WhoHas(ctx, target)
		}
	}
	return nil, fmt.Errorf("ask %s from %s for %s: no address of its family", network, h.short, target)
}
