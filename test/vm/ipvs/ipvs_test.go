package ipvs_test

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/onelb/onelb/test/lab"
)

// TestIPVS follows the addresses of one Service through the faults of their holders
// to the end of the agents.
func TestIPVS(t *testing.T) {
	w := newWorld(t)
	v4 := w.addrs[0]
	for _, a := range w.addrs {
		w.alone("one node answers", a)
		w.served(a)
	}
	w.virtualServers()
	w.defaults()

	w.withoutFilter(v4)

	for _, a := range w.addrs {
		w.holderKilled(a)
	}
	for _, a := range w.addrs {
		w.alone("one node answers after all agents are back", a)
	}
	w.poweredOff(v4)
	w.goodOrder()
}

// end ends a node's agent in good order, however long that takes here.
func (w *world) end(n *lab.Node) {
	w.t.Helper()
	w.must(n.Agent().Signal(syscall.SIGTERM))
	select {
	case <-n.Agent().Done():
		w.must(n.Agent().Err())
	case <-time.After(patience):
		w.t.Fatalf("the agent of %s does not end", n.ShortName())
	}
}

// virtualServers checks that it is IPVS that serves.
func (w *world) virtualServers() {
	w.t.Helper()
	for _, n := range w.Nodes() {
		for _, a := range w.addrs {
			at := fmt.Sprintf("TCP  %s:%04X ", strings.ToUpper(hex.EncodeToString(a.AsSlice())), port)
			if a.Is6() {
				at = fmt.Sprintf("TCP  [%s]:%04X ", a.StringExpanded(), port)
			}
			w.eventually(fmt.Sprintf("%s has a virtual server for %s", n.ShortName(), a), func(context.Context) error {
				if table := w.inNode(n, "/proc/thread-self/net/ip_vs"); !strings.Contains(table, at) {
					return fmt.Errorf("no %q in:\n%s", at, table)
				}
				return nil
			})
		}
	}
}

// withoutFilter shows what the filter is for: without it, all nodes answer.
func (w *world) withoutFilter(a netip.Addr) {
	w.t.Helper()
	for _, n := range w.Nodes() {
		w.end(n)
		_, err := w.NFT(w.t.Context(), n.Host, "delete", "table", "arp", "onelb")
		w.must(err)
	}
	w.eventually("without agents and their filters, all nodes answer", func(ctx context.Context) error {
		got, err := w.answerers(ctx, a, 1)
		if err == nil && len(got) != len(w.Nodes()) {
			err = fmt.Errorf("it is %v", got)
		}
		return err
	})
	for _, n := range w.Nodes() {
		w.must(n.Agent().Start())
	}
	w.alone("with the agents, one node answers", a)
}

// holderKilled ends the holder's agent for good, watches the next node, and starts
// the agent again.
func (w *world) holderKilled(a netip.Addr) {
	w.t.Helper()
	before := w.alone("one node answers", a)
	w.must(before.Agent().Kill())
	w.eventually("the killed agent's node lets go", func(context.Context) error {
		now, err := w.onlyHolder(a)
		if err == nil && now == before {
			err = errors.New("it has it")
		}
		return err
	})
	if now := w.alone("after the kill, the next node answers and only that", a); now == before {
		w.t.Errorf("%s has %s although its agent is dead", now.ShortName(), a)
	}
	w.served(a)
	w.must(before.Agent().Start())
	w.must(w.WaitPeers(w.t.Context()))
}

// poweredOff is the loss of the holder, and its return with nothing that it had.
func (w *world) poweredOff(a netip.Addr) {
	w.t.Helper()
	before := w.alone("one node answers", a)
	w.must(before.PowerOff())
	w.alone("after the holder's loss, the next node answers and only that", a, before)
	w.must(before.PowerOn(w.t.Context()))
	w.must(w.WaitPeers(w.t.Context()))
	w.alone("after its return, one node answers", a)
	w.served(a)
}

// goodOrder ends onelb as docs/how-to/uninstall.md says and looks for what is left.
func (w *world) goodOrder() {
	w.t.Helper()
	ctx := w.t.Context()
	w.must(w.DeleteService(ctx, namespace, name))
	for _, what := range []string{"virtualips", "addresspools"} {
		if what == "addresspools" {
			_, err := w.Kubectl(ctx, "delete", "addresspools", "--all", "--timeout="+patience.String())
			w.must(err)
		}
		w.eventually("no "+what, func(ctx context.Context) error {
			out, err := w.Kubectl(ctx, "get", what, "-o", "name")
			if err == nil && out != "" {
				err = fmt.Errorf("there are %s", out)
			}
			return err
		})
	}
	for _, n := range w.Nodes() {
		for _, a := range w.addrs {
			w.eventually(fmt.Sprintf("%s has no %s, and the filter knows none", n.ShortName(), a), func(ctx context.Context) error {
				on, err := interfaces(n, a)
				if err != nil || len(on) > 0 {
					return fmt.Errorf("it is on %q: %w", on, err)
				}
				table, err := w.NFT(ctx, n.Host, "list", "table", "arp", "onelb")
				if err == nil && strings.Contains(table, a.String()) {
					err = errors.New(table)
				}
				return err
			})
		}
	}
	before := map[*lab.Node]map[string]string{}
	for _, n := range w.Nodes() {
		before[n] = w.settings(n)
		w.end(n)
	}
	w.defaults()
	for _, n := range w.Nodes() {
		if !maps.Equal(before[n], w.settings(n)) {
			w.t.Errorf("%s: settings changed when the agent ended", n.ShortName())
		}
		tables, err := w.NFT(ctx, n.Host, "list", "tables")
		w.must(err)
		if strings.Contains(tables, "onelb") {
			w.t.Errorf("%s has tables of ours: %s", n.ShortName(), tables)
		}
	}
}
