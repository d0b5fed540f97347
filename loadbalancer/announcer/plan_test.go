package announcer_test

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/onelb/onelb/loadbalancer/announcer"
	"github.com/onelb/onelb/loadbalancer/announcer/member"
)

func subjects(n int) []announcer.Subject {
	var out []announcer.Subject
	for i := range n {
		out = append(out, announcer.Subject{Address: netip.AddrFrom4([4]byte{10, 1, byte(i >> 8), byte(i)}), Wanted: true, Free: t0})
	}
	return out
}

// firsts are the nodes that take each address first, as each node sees itself.
func firsts(t *testing.T, all []announcer.Peer, s []announcer.Subject) map[netip.Addr]string {
	t.Helper()
	out := map[netip.Addr]string{}
	for _, p := range all {
		for _, d := range announcer.Decide(announcer.View{Self: p.Name, Peers: all, Subjects: s}) {
			if !d.Hold || d.Rank > 0 {
				continue
			}
			if out[d.Address] != "" {
				t.Fatalf("%s and %s both take %s first", out[d.Address], p.Name, d.Address)
			}
			out[d.Address] = p.Name
		}
	}
	return out
}

// spread is the lowest and the highest number of addresses of a node.
func spread(all []announcer.Peer, holders map[netip.Addr]string) (low, high int) {
	count := map[string]int{}
	for _, n := range holders {
		count[n]++
	}
	low = len(holders)
	for _, p := range all {
		low, high = min(low, count[p.Name]), max(high, count[p.Name])
	}
	return low, high
}

func TestPlacementIsBalanced(t *testing.T) {
	for _, nodes := range []int{3, 10, 100} {
		for _, addresses := range []int{1, 7, 100, 1000} {
			t.Run(fmt.Sprintf("%d nodes %d addresses", nodes, addresses), func(t *testing.T) {
				all := peers(nodes)
				if nodes*addresses > 20_000 { // a few nodes speak for all
					for _, p := range []announcer.Peer{all[0], all[nodes/2], all[nodes-1]} {
						n := 0
						for _, d := range announcer.Decide(announcer.View{Self: p.Name, Peers: all, Subjects: subjects(addresses)}) {
							if d.Hold && d.Rank == 0 {
								n++
							}
						}
						if n < addresses/nodes || n > addresses/nodes+1 {
							t.Errorf("%s takes %d of %d", p.Name, n, addresses)
						}
					}
					return
				}
				got := firsts(t, all, subjects(addresses))
				if len(got) != addresses {
					t.Fatalf("%d of %d addresses are taken", len(got), addresses)
				}
				if low, high := spread(all, got); high-low > 1 {
					t.Errorf("from %d to %d addresses on a node", low, high)
				}
			})
		}
	}
}

// One by one, with claims heard or not, the plan is the same and stays balanced.
func TestPlacementOneByOne(t *testing.T) {
	all := peers(7)
	planned := firsts(t, all, subjects(100))
	s := subjects(100)
	for i := range s {
		if i%2 == 0 { // every second one has been taken by now
			s[i].Claim = member.Claim{Address: s[i].Address, Node: planned[s[i].Address], Epoch: 1}
			s[i].Recent = true
		}
	}
	for a, n := range firsts(t, all, s) {
		if planned[a] != n && !slices.ContainsFunc(s, func(x announcer.Subject) bool { return x.Address == a && !x.Claim.IsZero() }) {
			t.Errorf("%s: %s planned, then %s", a, planned[a], n)
		}
	}
	held := map[netip.Addr]string{}
	backwards := subjects(50)
	for i := range backwards { // the last one came first
		backwards[i].Created = t0.Add(-time.Duration(i) * time.Second)
	}
	slices.Reverse(backwards)
	for i := range 50 {
		now := slices.Clone(backwards[:i+1])
		for j := range now[:i] {
			now[j].Claim = member.Claim{Address: now[j].Address, Node: held[now[j].Address], Epoch: 1}
			now[j].Recent = j > i-10
		}
		held[now[i].Address] = firsts(t, all, now)[now[i].Address]
		if low, high := spread(all, held); high-low > 1 {
			t.Fatalf("after %d addresses: from %d to %d on a node", i+1, low, high)
		}
	}
}

// evenOut lets all nodes decide again and again, and returns the number of moves.
func evenOut(t *testing.T, all []announcer.Peer, s []announcer.Subject) int {
	t.Helper()
	for moves := 0; ; moves++ {
		if moves > len(s) {
			t.Fatal("there is no end to it")
		}
		due := t0.Add(time.Duration(moves) * time.Minute)
		from, to := "", ""
		var moved netip.Addr
		for _, p := range all {
			v := announcer.View{Self: p.Name, Peers: all, Subjects: slices.Clone(s), Even: due}
			for i := range v.Subjects {
				v.Subjects[i].Held = v.Subjects[i].Claim.Node == p.Name
			}
			for i, d := range announcer.Decide(v) {
				switch {
				case !d.HandOver:
					continue
				case v.Subjects[i].Held && from == "" && d.Hold && (!moved.IsValid() || moved == d.Address):
					from, moved = p.Name, d.Address
				case !v.Subjects[i].Held && to == "" && d.Hold && d.NotBefore.Equal(due) && (!moved.IsValid() || moved == d.Address):
					to, moved = p.Name, d.Address
				default:
					t.Fatalf("%s: a second move, of %s: %+v", p.Name, d.Address, d)
				}
			}
		}
		if (from == "") != (to == "") {
			t.Fatalf("%s gives %s to %q", from, moved, to)
		}
		if to == "" {
			return moves
		}
		for i := range s {
			if s[i].Address == moved {
				s[i].Claim.Node, s[i].Claim.Epoch = to, s[i].Claim.Epoch+1
			}
		}
	}
}

func TestSkewIsEvenedOut(t *testing.T) {
	skew := func(n int, nodes ...string) []announcer.Subject {
		s := subjects(n)
		for i := range s {
			s[i].Claim = member.Claim{Address: s[i].Address, Node: nodes[i%len(nodes)], Epoch: 1}
		}
		return s
	}
	holders := func(s []announcer.Subject) map[netip.Addr]string {
		out := map[netip.Addr]string{}
		for _, x := range s {
			out[x.Address] = x.Claim.Node
		}
		return out
	}
	for _, nodes := range []int{3, 10, 30} {
		all, s := peers(nodes), skew(60, "node-00", "node-01")
		moves := evenOut(t, all, s)
		if low, high := spread(all, holders(s)); high-low > 1 {
			t.Errorf("%d nodes: from %d to %d addresses on a node", nodes, low, high)
		}
		if want := 60 - 2*(60/nodes); moves > want {
			t.Errorf("%d nodes: %d moves, %d are enough", nodes, moves, want)
		}
	}
	t.Run("balanced", func(t *testing.T) {
		if n := evenOut(t, peers(3), skew(10, "node-00", "node-01", "node-02")); n != 0 {
			t.Errorf("%d moves", n)
		}
	})
	t.Run("only where it may", func(t *testing.T) {
		all, s := peers(5), skew(20, "node-00")
		all[1].Excluded, all[2].Reluctant, all[3].Settled = true, true, false
		for i := range 8 {
			s[i].Local, s[i].Endpoints = true, []string{"node-00"}
		}
		evenOut(t, all, s)
		for i, x := range s {
			if n := x.Claim.Node; n != "node-00" && (n != "node-04" || i < 8) {
				t.Errorf("address %d moved to %s", i, n)
			}
		}
		if _, high := spread(all, holders(s)); high != 10 {
			t.Errorf("%d addresses on a node, want 10 on two each", high)
		}
	})
	t.Run("not while one has no holder", func(t *testing.T) {
		s := skew(20, "node-00")
		s[19].Claim.Node = "gone"
		for _, p := range peers(3) {
			for i, d := range announcer.Decide(announcer.View{Self: p.Name, Peers: peers(3), Subjects: s, Even: t0}) {
				if d.HandOver {
					t.Errorf("%s moves address %d", p.Name, i)
				}
			}
		}
	})
}

func TestEvensOutOnceAMinute(t *testing.T) {
	for _, even := range []bool{false, true} {
		bubble(t, func(w *world) { w.even, w.members, w.answerer = even, live("me", "other"), stranger }, func(w *world) {
			c, services := wanted(), wanted().Addresses[0].Services
			c.Addresses = nil
			for i := range 6 {
				c.Addresses = append(c.Addresses, announcer.Address{
					Address: netip.AddrFrom4([4]byte{10, 77, 0, byte(100 + i)}), Services: services,
					Holder: &announcer.Holding{Node: "other", Epoch: 1},
				})
			}
			count := func() (n int) {
				for _, a := range c.Addresses {
					if w.has(a.Address) {
						n++
					}
				}
				return n
			}
			w.SetCluster(c)
			for minute, want := range []int{0, 1, 2, 3, 3, 3} {
				if !even {
					want = 0
				}
				if minute > 0 {
					after(59 * time.Second)
					if got := count(); even && got > want || !even && got > 0 {
						t.Errorf("just before minute %d: %d addresses", minute, got)
					}
					after(2 * time.Second)
				}
				if got := count(); got != want {
					t.Errorf("even %v, after minute %d: %d addresses, want %d", even, minute, got, want)
				}
			}
		})
	}
}
