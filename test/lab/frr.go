package lab

import (
	"context"

	"github.com/onelb/onelb/test/lab/bgprouter"
)

// FRR starts FRR on a host, without any configuration. It ends with the lab.
func (l *Lab) FRR(ctx context.Context, h *Host) (*bgprouter.FRR, error) {
	return bgprouter.StartFRR(ctx, bgprouter.Options{
		Spawner: l.spawner, Host: h, Name: "frr-" + h.ShortName(), Dir: l.path("frr", h.ShortName()),
	})
}
