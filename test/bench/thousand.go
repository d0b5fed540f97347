package bench

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/onelb/onelb/test/lab"
)

const (
	thousand = 1000
	// idleBefore passes between the last change and the window in which the agents'
	// CPU time is counted.
	idleBefore = 20 * time.Second
	idleWindow = time.Minute
	// clockTicks per second are what /proc counts CPU time in, on every architecture
	// that Go has.
	clockTicks = 100
)

// measureThousand gives one of three nodes 1,000 addresses, lets it idle, and loses
// its machine.
func measureThousand(ctx context.Context, b *bench) error {
	// Renewing the addresses is most of what idle agents do: as often as in production.
	return b.burstLab(ctx, lab.Options{Name: "bench-1000", AddressLifetime: 10 * time.Second}, func(d *datacenter, _ int) error {
		d.manyPorts = true
		t := thousands{datacenter: d, one: d.Nodes()[0]}
		if err := t.fill(ctx); err != nil {
			return err
		}
		if err := t.idle(ctx, b); err != nil {
			return err
		}
		if b.opts.Select != nil && !slices.ContainsFunc(lossRows(), func(c column) bool { return matches(b.opts.Select, c.name) }) {
			return nil
		}
		return t.lose(ctx, b)
	})
}

func lossRows() []column {
	return []column{{"failover_poweroff_1000", "ms"}, {"failover_poweroff_1000_spread", "ms"}, {"failover_poweroff_1000_all", "ms"}}
}

// thousands is a lab in which one node has all addresses.
type thousands struct {
	*datacenter
	one *lab.Node
}

// fill makes the Services. kube-proxy of three nodes would slow it down, so it
// starts afterwards; an agent that has seen none takes that for absent.
func (t thousands) fill(ctx context.Context) error {
	if err := t.cordon(ctx, "cordon"); err != nil {
		return err
	}
	for _, n := range t.Nodes() {
		if err := errors.Join(n.Proxy().Stop(), n.Agent().Restart()); err != nil {
			return err
		}
	}
	if err := errors.Join(t.WaitReady(ctx), t.WaitPeers(ctx)); err != nil {
		return err
	}
	if _, err := t.createMany(ctx, 0, thousand); err != nil {
		return err
	}
	for _, n := range t.Nodes() {
		if err := n.Proxy().Start(); err != nil {
			return err
		}
	}
	for _, n := range t.Nodes() {
		if err := proxyWell(ctx, n); err != nil {
			return err
		}
	}
	return t.waitAll(ctx)
}

func proxyWell(ctx context.Context, n *lab.Node) error {
	return until(ctx, "kube-proxy on "+n.ShortName(), func(ctx context.Context) error {
		status, _, err := n.Get(ctx, "http://127.0.0.1:10256/healthz")
		if err == nil && status != http.StatusOK {
			err = fmt.Errorf("status %d", status)
		}
		return err
	})
}

// cordon makes the one node the only one that may take addresses, uncordon ends that.
func (t thousands) cordon(ctx context.Context, verb string) error {
	for _, n := range t.Nodes() {
		if n == t.one {
			continue
		}
		if _, err := t.Kubectl(ctx, verb, n.ShortName()); err != nil {
			return err
		}
	}
	return nil
}

// waitAll returns when the one node has all addresses, and the others none.
func (t thousands) waitAll(ctx context.Context) error {
	return until(ctx, "one node to have all addresses", func(ctx context.Context) error {
		for _, n := range t.Nodes() {
			held, err := n.AgentMetric(ctx, "onelb_node_held_addresses")
			if err != nil {
				return err
			}
			if n == t.one && held < thousand || n != t.one && held > 0 {
				return fmt.Errorf("%s holds %g", n.ShortName(), held)
			}
		}
		return nil
	})
}

// idle reads what the agents cost while nothing happens.
func (t thousands) idle(ctx context.Context, b *bench) error {
	if err := pause(ctx, idleBefore); err != nil {
		return err
	}
	begin, before := time.Now(), map[*lab.Node]int{}
	for _, n := range t.Nodes() {
		var err error
		if before[n], err = cpuTicks(n.Agent().PID()); err != nil {
			return err
		}
	}
	if err := pause(ctx, idleWindow); err != nil {
		return err
	}
	for _, n := range t.Nodes() {
		after, err := cpuTicks(n.Agent().PID())
		if err != nil {
			return err
		}
		share := float64(after-before[n]) / clockTicks / time.Since(begin).Seconds() * 100
		memory, err := residentMiB(n.Agent().PID())
		if err != nil {
			return err
		}
		if n == t.one {
			b.add("agent_cpu_1000", share)
			b.add("agent_rss_1000", memory.now)
			b.note("agent_rss_1000", "at most %.1f before", memory.peak)
			continue
		}
		b.note("agent_cpu_1000", "of an agent in the same cluster that holds none: %.2f", share)
		b.note("agent_rss_1000", "an agent in the same cluster that holds none: %.1f", memory.now)
	}
	return nil
}

// cpuTicks is the CPU time that a process has used, in user and kernel mode.
func cpuTicks(pid int) (int, error) {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, fmt.Errorf("CPU time of process %d: %w", pid, err)
	}
	// The name, in brackets, may contain anything; the fields after it are numbered from 3.
	_, rest, _ := strings.Cut(string(data), ") ")
	fields := strings.Fields(rest)
	const user, system = 14 - 3, 15 - 3
	if len(fields) <= system {
		return 0, fmt.Errorf("CPU time of process %d: %q", pid, data)
	}
	u, err1 := strconv.Atoi(fields[user])
	s, err2 := strconv.Atoi(fields[system])
	if err := errors.Join(err1, err2); err != nil {
		return 0, fmt.Errorf("CPU time of process %d: %w", pid, err)
	}
	return u + s, nil
}

// lose takes the machine away that has all addresses, and brings it back.
func (t thousands) lose(ctx context.Context, b *bench) error {
	if err := t.routeFromLAN(); err != nil {
		return err
	}
	probed, err := t.newTarget(ctx, burstPool)
	if err != nil {
		return err
	}
	for i := range b.times(4) {
		if err := t.loseOnce(ctx, b, probed); err != nil {
			return fmt.Errorf("loss %d: %w", i+1, err)
		}
		if err := t.bringBack(ctx); err != nil {
			return fmt.Errorf("return %d: %w", i+1, err)
		}
	}
	return nil
}

// routeFromLAN lets the client on the LAN reach the pool's network, which is on
// the same wire.
func (t thousands) routeFromLAN() error {
	nl, err := t.LAN().Netlink()
	if err != nil {
		return err
	}
	defer nl.Close()
	link, err := nl.LinkByName(t.LAN().Link(lab.Private).Interface())
	if err != nil {
		return fmt.Errorf("the client's interface: %w", err)
	}
	dst := &net.IPNet{IP: net.IPv4(10, 21, 0, 0).To4(), Mask: net.CIDRMask(16, 32)}
	if err := nl.RouteReplace(&netlink.Route{LinkIndex: link.Attrs().Index, Dst: dst, Scope: netlink.SCOPE_LINK}); err != nil {
		return fmt.Errorf("route to %s: %w", dst, err)
	}
	return nil
}

// held are the addresses that the one node's kernel has of the pool.
func (t thousands) held() (map[netip.Addr]bool, error) {
	nl, err := t.one.Netlink()
	if err != nil {
		return nil, err
	}
	defer nl.Close()
	all, err := nl.AddrList(nil, netlink.FAMILY_V4)
	if err != nil {
		return nil, fmt.Errorf("addresses of %s: %w", t.one.ShortName(), err)
	}
	out, network := map[netip.Addr]bool{}, netip.MustParsePrefix("10.21.0.0/16")
	for _, x := range all {
		if a, ok := netip.AddrFromSlice(x.IP); ok && network.Contains(a.Unmap()) {
			out[a.Unmap()] = true
		}
	}
	return out, nil
}

func (t thousands) loseOnce(ctx context.Context, b *bench, probed *target) (err error) {
	if err := t.cordon(ctx, "uncordon"); err != nil {
		return err
	}
	sniffer, err := t.Sniff(lab.Private)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, sniffer.Close()) }()
	var after []float64 // ms from the loss to the first announcement of another node, for each address
	_, o, err := probed.measure(ctx, 2*time.Minute, func(ctx context.Context, holder *lab.Node, _ *watcher) error {
		if holder != t.one {
			return fmt.Errorf("%s has the probed address, not %s", holder.ShortName(), t.one.ShortName())
		}
		held, err := t.held()
		if err != nil {
			return err
		}
		lost, old := time.Now(), holder.Link(lab.Private).MAC().String()
		if err := holder.PowerOff(); err != nil {
			return err
		}
		return until(ctx, "announcements of all addresses", func(ctx context.Context) error {
			first := map[netip.Addr]time.Time{}
			for _, a := range sniffer.Seen() {
				if _, have := first[a.Addr]; !have && held[a.Addr] && a.Time.After(lost) && a.MAC.String() != old {
					first[a.Addr] = a.Time
				}
			}
			if len(first) < len(held) {
				// Looking costs time on the cores that are measured.
				return errors.Join(fmt.Errorf("%d of %d are announced", len(first), len(held)), pause(ctx, 500*time.Millisecond))
			}
			after = nil
			for _, at := range first {
				after = append(after, ms(at.Sub(lost)))
			}
			return nil
		})
	})
	if err != nil {
		return err
	}
	first, last := slices.Min(after), slices.Max(after)
	b.say("  %d addresses: the first again after %.0f ms, the last after %.0f ms; the probed one: UDP %.0f ms, HTTP %.0f ms, who-has %.0f ms",
		len(after), first, last, o.udp, o.http, o.whoHas)
	b.add("failover_poweroff_1000", o.client())
	b.add("failover_poweroff_1000_all", after...)
	b.add("failover_poweroff_1000_spread", last-first)
	b.note("failover_poweroff_1000_spread", "%d addresses, from %.0f to %.0f ms after the loss", len(after), first, last)
	return nil
}

// bringBack boots the machine and gives it all addresses again.
func (t thousands) bringBack(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Minute)
	defer cancel()
	if err := t.one.PowerOn(ctx); err != nil {
		return err
	}
	if err := errors.Join(t.WaitReady(ctx), t.WaitPeers(ctx)); err != nil {
		return err
	}
	if err := t.cordon(ctx, "cordon"); err != nil {
		return err
	}
	return t.waitAll(ctx)
}
