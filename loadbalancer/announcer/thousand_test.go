package announcer_test

import (
	"context"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/onelb/onelb/loadbalancer/announcer/wire"
)

// listener is a host that notes who announces or answers for which address.
type listener struct {
	mu    sync.Mutex
	first map[netip.Addr]time.Time // since the last call of reset
	by    map[netip.Addr]map[string]bool
}

func (l *listener) reset() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.first, l.by = map[netip.Addr]time.Time{}, map[netip.Addr]map[string]bool{}
}

func (l *listener) count() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.first)
}

func (h *host) listen() *listener {
	t := h.lan.t
	l := &listener{}
	l.reset()
	w, err := wire.New(wire.Options{Enter: h.Do, Seen: func(s wire.Sighting) {
		if s.Address.As4()[2] == 0 { // the hosts' own
			return
		}
		l.mu.Lock()
		defer l.mu.Unlock()
		if _, have := l.first[s.Address]; !have {
			l.first[s.Address], l.by[s.Address] = time.Now(), map[string]bool{}
		}
		l.by[s.Address][s.MAC.String()] = true
	}})
	must(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- w.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		must(t, <-done)
	})
	must(t, w.Listen(interfaceOf(t, h), vip4))
	return l
}

// A node with a thousand addresses is lost: two others take them, each of them
// once and all together.
func TestThousandAddresses(t *testing.T) {
	l := newLAN(t)
	hosts := []*host{l.host(), l.host(), l.host()}
	seen := l.host().listen()
	var all []netip.Addr
	for i := range 1000 {
		all = append(all, netip.AddrFrom4([4]byte{10, 77, byte(4 + i/250), byte(1 + i%250)}))
	}
	c := cluster(hosts, all...)
	for i := range c.Addresses {
		c.Addresses[i].Interfaces = []string{"eth0"}
	}
	agents := []*agent{hosts[0].start(nil, 10*time.Second)}
	set(agents, c)
	eventually(t, "one node to have all", func() bool { return seen.count() == len(all) })
	for _, h := range hosts[1:] {
		agents = append(agents, h.start(nil, 10*time.Second))
	}
	set(agents, c)
	for _, a := range agents {
		eventually(t, "all agents see each other", func() bool { return len(a.group.Members()) == len(hosts) })
	}
	time.Sleep(time.Second)
	seen.reset()
	lost := time.Now()
	hosts[0].cable(false)
	eventually(t, "the others to announce all", func() bool { return seen.count() == len(all) })
	begin, end := time.Duration(1<<62), time.Duration(0)
	for _, a := range all {
		d := seen.first[a].Sub(lost)
		begin, end = min(begin, d), max(end, d)
	}
	eventually(t, "each to be held by one", func() bool {
		count := map[netip.Addr]int{}
		for _, h := range hosts[1:] {
			for _, a := range h.all() {
				count[a]++
			}
		}
		for _, a := range all {
			if count[a] != 1 {
				return false
			}
		}
		return true
	})
	t.Logf("first after %v, last after %v, spread %v", begin, end, end-begin)
}
