package member_test

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"

	"go.uber.org/goleak"
	"k8s.io/klog/v2"

	"github.com/onelb/onelb/loadbalancer/announcer/member"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const port = 17947

// agent is a group on a loopback address of its own.
type agent struct {
	*member.Group
	peer member.Peer
	stop func()
}

func start(t *testing.T, n int, keyFile string) *agent {
	t.Helper()
	a := &agent{peer: member.Peer{Name: fmt.Sprintf("node-%d", n), Address: netip.AddrFrom4([4]byte{127, 77, 0, byte(n)})}}
	g, err := member.New(member.Options{Name: a.peer.Name, Port: port, KeyFile: keyFile, Logger: klog.Background()})
	if err != nil {
		t.Fatal(err)
	}
	a.Group = g
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- g.Run(ctx) }()
	stopped := false
	a.stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	t.Cleanup(a.stop)
	return a
}

func introduce(agents ...*agent) {
	var peers []member.Peer
	for _, a := range agents {
		peers = append(peers, a.peer)
	}
	for _, a := range agents {
		a.SetPeers(a.peer.Address, peers)
	}
}

func key(t *testing.T, b byte) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "key")
	if err := os.WriteFile(file, bytes.Repeat([]byte{b}, member.KeySize), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(2 * time.Minute)
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatalf("not in time: %s", what)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

func believes(a *agent, want member.Claim) func() bool {
	var last member.Claim
	return func() bool {
		for _, c := range a.Drain() {
			if c.Address == want.Address {
				last = c
			}
		}
		return last == want
	}
}

func TestGroup(t *testing.T) {
	file := key(t, 1)
	a, b, c := start(t, 1, file), start(t, 2, file), start(t, 3, file)
	introduce(a, b, c)
	for _, x := range []*agent{a, b, c} {
		eventually(t, "all see each other", func() bool { return x.Ready() && len(x.Members()) == 3 })
	}
	first := member.Claim{Address: v4, Node: "node-1", Epoch: 1}
	a.Announce(first)
	eventually(t, "b hears of the claim", believes(b, first))
	eventually(t, "c hears of the claim", believes(c, first))

	unwell := member.State{Settled: true, Unwell: true, Damped: true, MACs: "abcdef123456"}
	a.SetState(unwell)
	eventually(t, "the others know what a says of itself", func() bool {
		for _, x := range []*agent{b, c} {
			if m := x.Members(); len(m) != 3 || m[0].State != unwell || m[1].State != (member.State{}) {
				return false
			}
		}
		return true
	})

	higher := member.Claim{Address: v4, Node: "node-3", Epoch: 2}
	c.Announce(higher)
	eventually(t, "the loser hears of the higher claim", believes(a, higher))
	c.Announce(first) // beaten: changes nothing
	a.Announce(member.Claim{Address: v6, Node: "node-1", Epoch: 1})

	standIn := member.Claim{Address: v4, Node: "node-2", Epoch: 9, StandIn: true}
	b.Announce(standIn)
	eventually(t, "a stand-in stands beside the claim", believes(c, standIn))
	eventually(t, "for all", believes(a, standIn))                  // else it might come with what follows
	c.Announce(member.Claim{Address: v4, Node: "node-3", Epoch: 3}) // and does not beat it
	eventually(t, "the claim goes on", believes(a, member.Claim{Address: v4, Node: "node-3", Epoch: 3}))

	t.Run("death", func(t *testing.T) {
		c.stop()
		began := time.Now()
		eventually(t, "the dead one is noticed", func() bool { return len(a.Members()) == 2 })
		t.Logf("noticed after %v", time.Since(began))
	})
	t.Run("return", func(t *testing.T) {
		again := start(t, 3, file)
		again.SetPeers(again.peer.Address, []member.Peer{a.peer, b.peer})
		eventually(t, "it is told what it missed", believes(again, member.Claim{Address: v6, Node: "node-1", Epoch: 1}))
		eventually(t, "it counts as alive", func() bool { return len(a.Members()) == 3 })
	})
}

func TestKeyMayAppearLate(t *testing.T) {
	file := key(t, 1)
	late := filepath.Join(t.TempDir(), "key")
	a, b := start(t, 4, file), start(t, 5, late)
	introduce(a, b)
	eventually(t, "a is ready alone", a.Ready)
	if b.Ready() || len(b.Members()) != 0 {
		t.Error("takes part without a key")
	}
	if err := os.WriteFile(late, bytes.Repeat([]byte{1}, member.KeySize), 0o600); err != nil {
		t.Fatal(err)
	}
	eventually(t, "both see each other", func() bool { return len(a.Members()) == 2 && len(b.Members()) == 2 })
}

func TestStrangersAreIgnored(t *testing.T) {
	a, b := start(t, 6, key(t, 1)), start(t, 7, key(t, 2))
	introduce(a, b)
	eventually(t, "both are ready", func() bool { return a.Ready() && b.Ready() })
	b.Announce(member.Claim{Address: v4, Node: "node-7", Epoch: 99})

	// A forged packet without encryption.
	c, err := net.Dial("udp", net.JoinHostPort(a.peer.Address.String(), fmt.Sprint(port)))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	const userMessage = 8
	forged := append([]byte{userMessage}, member.Encode(member.Claim{Address: v4, Node: "evil", Epoch: 1 << 40})...)
	if _, err := c.Write(forged); err != nil {
		t.Fatal(err)
	}
	time.Sleep(time.Second)
	if got := a.Drain(); len(got) != 0 {
		t.Errorf("believed %+v", got)
	}
	if got := a.Members(); len(got) != 1 {
		t.Errorf("members %+v", got)
	}
}

func TestAddressChange(t *testing.T) {
	file := key(t, 1)
	a, b := start(t, 8, file), start(t, 9, file)
	introduce(a, b)
	eventually(t, "both see each other", func() bool { return len(a.Members()) == 2 && len(b.Members()) == 2 })
	b.peer.Address = netip.MustParseAddr("127.77.0.99")
	introduce(a, b)
	eventually(t, "they find each other again", func() bool {
		return b.Ready() && len(b.Members()) == 2 && len(a.Members()) == 2
	})
}

func TestNewRefuses(t *testing.T) {
	for _, o := range []member.Options{{}, {Name: "n", KeyFile: "k"}, {Name: "n", KeyFile: "k", Port: 70000}, {Name: "n", Port: 1}} {
		if _, err := member.New(o); err == nil {
			t.Errorf("accepted %+v", o)
		}
	}
}
