package appliance

import (
	"context"
	"errors"
	"fmt"

	"github.com/onelb/onelb/loadbalancer/router"
)

// Ask looks at an appliance once and changes nothing: which instances it has, and
// what keeps their contexts from being changed.
func Ask(ctx context.Context, o Options) (router.State, error) {
	c, err := New(o)
	if err != nil {
		return router.State{}, err
	}
	c.look(ctx, nil)
	return c.State(), nil
}

// examine notes what would keep a document from the instances.
func (c *Client) examine(machines []Machine, found map[int]*instance) {
	for _, m := range machines {
		i := found[m.ID]
		if err := c.owner.check(m.Context); !errors.As(err, &i.rejected) && !m.Ready && !m.Busy {
			i.err = unwritable(m)
		}
	}
}

func unwritable(m Machine) error {
	return fmt.Errorf("virtual machine %d is in state %s, in which OpenNebula does not change its context", m.ID, m.State)
}
