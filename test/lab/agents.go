package lab

import (
	"context"
	"fmt"
	"net/http"
	"strconv"
	"strings"

	"github.com/onelb/onelb/test/lab/proc"
)

// AgentMetric reads a metric without labels from the node agent.
func (n *Node) AgentMetric(ctx context.Context, name string) (float64, error) {
	status, body, err := n.Get(ctx, "http://"+AgentMetrics+"/metrics")
	if err != nil {
		return 0, err
	}
	if status != http.StatusOK {
		return 0, fmt.Errorf("metrics of the agent on %s: status %d", n.ShortName(), status)
	}
	for line := range strings.Lines(string(body)) {
		if v, found := strings.CutPrefix(strings.TrimSpace(line), name+" "); found {
			return strconv.ParseFloat(v, 64)
		}
	}
	return 0, fmt.Errorf("the agent on %s has no metric %s", n.ShortName(), name)
}

// WaitPeers returns when each node's agent counts all others as live.
func (l *Lab) WaitPeers(ctx context.Context) error {
	for _, n := range l.nodes {
		err := l.wait(ctx, n.ShortName()+" to see the other agents", []*proc.Unit{n.agent}, func(ctx context.Context) error {
			live, err := n.AgentMetric(ctx, "onelb_node_peers")
			if err == nil && int(live) != len(l.nodes)-1 {
				err = fmt.Errorf("%d of %d are live", int(live), len(l.nodes)-1)
			}
			return err
		})
		if err != nil {
			return err
		}
	}
	return nil
}
