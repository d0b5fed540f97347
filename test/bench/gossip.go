package bench

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"k8s.io/klog/v2"

	"github.com/onelb/onelb/loadbalancer/announcer/member"
	"github.com/onelb/onelb/test/lab/ns"
)

const (
	gossipPort = 7947
	// gossipSettle is how long the agents have to have told each other all there
	// is, once each sees all others.
	gossipSettle = 20 * time.Second
	// gossipWindow is how long bytes are counted: several of the intervals in which
	// agents exchange all they know.
	gossipWindow = time.Minute
)

// measureGossip counts what agents of an idle cluster send.
func measureGossip(ctx context.Context, b *bench) error {
	if err := b.closeShared(); err != nil { // it would take the cores
		return err
	}
	for _, n := range []int{10, 100} {
		row := fmt.Sprintf("gossip_bytes_per_node_%d", n)
		if !matches(b.opts.Select, row) {
			continue
		}
		if err := b.gossip(ctx, row, n); err != nil {
			return fmt.Errorf("%d agents: %w", n, err)
		}
	}
	return nil
}

func (b *bench) gossip(ctx context.Context, row string, n int) (err error) {
	g, err := startGossip(ctx, n)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, g.close()) }()
	if err := g.waitAll(ctx); err != nil {
		return err
	}
	if err := pause(ctx, gossipSettle); err != nil {
		return err
	}
	deaths := g.deaths.Load()
	for range b.times(3) {
		before, at, err := g.sent()
		if err != nil {
			return err
		}
		if err := pause(ctx, gossipWindow); err != nil {
			return err
		}
		after, end, err := g.sent()
		if err != nil {
			return err
		}
		b.add(row, float64(after-before)/end.Sub(at).Seconds()/float64(n))
	}
	b.note(row, "counted for %v each; agents that counted as dead meanwhile: %d", gossipWindow, g.deaths.Load()-deaths)
	return nil
}

// gossips is agents without nodes, on loopback addresses of one namespace.
type gossips struct {
	space  *ns.Namespace
	dir    string
	groups []*member.Group
	cancel context.CancelFunc
	all    sync.WaitGroup
	deaths atomic.Int64
}

// startGossip starts n agents, each with a claim as if it held one address.
func startGossip(ctx context.Context, n int) (g *gossips, err error) {
	ctx, cancel := context.WithCancel(ctx)
	g = &gossips{cancel: cancel}
	defer func() {
		if err != nil {
			err = errors.Join(err, g.close())
		}
	}()
	if g.dir, err = os.MkdirTemp("", "onelb-gossip-"); err != nil {
		return g, err
	}
	key := make([]byte, member.KeySize)
	_, _ = rand.Read(key) // never fails
	file := filepath.Join(g.dir, "key")
	if err := os.WriteFile(file, key, 0o600); err != nil {
		return g, err
	}
	const name = "onelb-gossip-bench"
	if err := ns.DeleteNamed(name); err != nil { // of a run that was killed
		return g, err
	}
	if g.space, err = ns.New(name); err != nil {
		return g, err
	}
	var peers []member.Peer
	for i := range n {
		peers = append(peers, member.Peer{
			Name: fmt.Sprintf("node-%d", i+1), Address: netip.AddrFrom4([4]byte{127, 77, 0, byte(i + 1)}),
		})
	}
	for i, p := range peers {
		group, err := member.New(member.Options{
			Name: p.Name, Port: gossipPort, KeyFile: file, Enter: g.space.Do, Logger: klog.Background(),
			Died: func(time.Duration) { g.deaths.Add(1) },
		})
		if err != nil {
			return g, err
		}
		// To look for those that are to come would cost more than all the rest.
		group.SetPeers(p.Address, peers[:i])
		group.SetState(member.State{Settled: true, MACs: fmt.Sprintf("%06d", i)})
		group.Announce(member.Claim{Address: netip.AddrFrom4([4]byte{10, 77, 0, byte(i + 1)}), Node: p.Name, Epoch: 1})
		g.groups = append(g.groups, group)
		g.all.Go(func() { _ = group.Run(ctx) }) // it returns no error
		// Together they would dial each other thousands of times at once, each from a
		// thread of its own.
		err = until(ctx, p.Name+" to be ready", func(context.Context) error {
			if !group.Ready() {
				return errors.New("it is not")
			}
			return nil
		})
		if err != nil {
			return g, err
		}
	}
	for i, group := range g.groups {
		group.SetPeers(peers[i].Address, peers)
	}
	return g, nil
}

// waitAll returns when each agent sees all others and knows all claims.
func (g *gossips) waitAll(ctx context.Context) error {
	known := make([]map[netip.Addr]bool, len(g.groups))
	for i := range known {
		known[i] = map[netip.Addr]bool{}
	}
	return until(ctx, "all agents to see each other", func(context.Context) error {
		for i, group := range g.groups {
			for _, c := range group.Drain() {
				known[i][c.Address] = true
			}
			if m, k := len(group.Members()), len(known[i])+1; m != len(g.groups) || k < len(g.groups) {
				return fmt.Errorf("agent %d sees %d and knows %d claims", i+1, m, k)
			}
		}
		return nil
	})
}

// sent is the bytes that all have sent so far, with Ethernet and IP headers.
func (g *gossips) sent() (uint64, time.Time, error) {
	nl, err := g.space.Netlink()
	if err != nil {
		return 0, time.Time{}, err
	}
	defer nl.Close()
	link, err := nl.LinkByName("lo")
	if err != nil {
		return 0, time.Time{}, fmt.Errorf("loopback: %w", err)
	}
	stats := link.Attrs().Statistics
	if stats == nil {
		return 0, time.Time{}, errors.New("loopback: the kernel tells no statistics")
	}
	return stats.TxBytes, time.Now(), nil
}

func (g *gossips) close() error {
	g.cancel()
	g.all.Wait()
	var errs []error
	if g.space != nil {
		errs = append(errs, g.space.Delete())
	}
	if g.dir != "" {
		errs = append(errs, os.RemoveAll(g.dir))
	}
	return errors.Join(errs...)
}
