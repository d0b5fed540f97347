package announcer_test

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/onelb/onelb/loadbalancer/announcer"
	"github.com/onelb/onelb/loadbalancer/announcer/member"
)

var t0 = time.Unix(1000, 0)

func peers(n int) []announcer.Peer {
	var out []announcer.Peer
	for i := range n {
		out = append(out, announcer.Peer{Name: fmt.Sprintf("node-%02d", i), Live: true, Settled: true})
	}
	return out
}

// takers are the nodes that would take s, in the order in which they would.
func takers(all []announcer.Peer, s announcer.Subject) []string {
	at := map[time.Duration]string{}
	for _, p := range all {
		d := announcer.Decide(announcer.View{Self: p.Name, Peers: all, Subjects: []announcer.Subject{s}})[0]
		if d.Hold {
			wait := d.NotBefore.Sub(s.Free)
			if at[wait] != "" {
				panic(fmt.Sprintf("%s and %s would take %s at the same time", at[wait], p.Name, s.Address))
			}
			at[wait] = p.Name
		}
	}
	var out []string
	for i := range len(at) {
		out = append(out, at[time.Duration(i)*announcer.Step])
	}
	return out
}

func subject(i int) announcer.Subject {
	return announcer.Subject{Address: netip.AddrFrom4([4]byte{203, 0, 113, byte(i)}), Wanted: true, Free: t0}
}

func TestDecideBalanceAndMinimalMovement(t *testing.T) {
	all := peers(10)
	count, first := map[string]int{}, map[int]string{}
	for i := range 250 {
		order := takers(all, subject(i))
		if len(order) != len(all) {
			t.Fatalf("%d of %d nodes would take it in the end", len(order), len(all))
		}
		first[i] = order[0]
		count[order[0]]++
	}
	for _, p := range all {
		if c := count[p.Name]; c < 12 || c > 40 { // mean 25
			t.Errorf("%s gets %d of 250", p.Name, c)
		}
	}
	gone := all[3].Name
	all[3].Live = false
	for i := range 250 {
		if got := takers(all, subject(i))[0]; got != first[i] && first[i] != gone {
			t.Errorf("address %d moved from %s to %s although its node is there", i, first[i], got)
		}
	}
}

func TestDecide(t *testing.T) {
	base := subject(7)
	order := takers(peers(3), base)
	held := member.Claim{Address: base.Address, Node: order[1], Epoch: 3}
	other := func(n string) string { // a node that is not n, in order
		if n == order[0] {
			return order[1]
		}
		return order[0]
	}
	for _, c := range []struct {
		name    string
		peers   func(map[string]*announcer.Peer)
		subject func(*announcer.Subject)
		want    []string
	}{
		{"nobody has it: in order", nil, nil, order},
		{"not wanted", nil, func(s *announcer.Subject) { s.Wanted = false }, nil},
		{"its live holder keeps it", nil, func(s *announcer.Subject) { s.Claim = held }, []string{order[1]}},
		{"its holder died", func(p map[string]*announcer.Peer) { p[order[1]].Live = false },
			func(s *announcer.Subject) { s.Claim = held }, []string{order[0], order[2]}},
		{"its holder let it go", nil, func(s *announcer.Subject) { s.Claim = held; s.Claim.Released = true }, order},
		{"its holder is deleted", func(p map[string]*announcer.Peer) { delete(p, order[1]) },
			func(s *announcer.Subject) { s.Claim = held }, []string{order[0], order[2]}},
		{"excluded nodes take nothing", func(p map[string]*announcer.Peer) { p[order[0]].Excluded = true }, nil, order[1:]},
		{"nor do those without network", func(p map[string]*announcer.Peer) { p[order[0]].Reluctant = true }, nil, order[1:]},
		{"a node that has just come up is last", func(p map[string]*announcer.Peer) { p[order[0]].Settled = false },
			func(s *announcer.Subject) { s.Claim = held; s.Claim.Released = true }, []string{order[1], order[2], order[0]}},
		{"but not for a new address", func(p map[string]*announcer.Peer) { p[order[0]].Settled = false }, nil, order},
		{"local: only nodes with endpoints", nil,
			func(s *announcer.Subject) { s.Local, s.Endpoints = true, []string{order[2]} }, []string{order[2]}},
		{"the pool names nodes", nil,
			func(s *announcer.Subject) { s.Selected, s.Nodes = true, []string{order[1]} }, []string{order[1]}},
		{"the pool names none that is there", nil, func(s *announcer.Subject) { s.Selected = true }, nil},
		{"the pool prefers nodes", nil,
			func(s *announcer.Subject) { s.Weights = map[string]int{order[1]: 1, order[2]: 2} }, []string{order[2], order[1], order[0]}},
		{"a live holder is left in peace for no preference", nil,
			func(s *announcer.Subject) { s.Claim, s.Weights = held, map[string]int{order[0]: 9} }, []string{order[1]}},
		{"one that comes and goes is the last", func(p map[string]*announcer.Peer) { p[order[0]].Damped, p[order[1]].Settled = true, false },
			func(s *announcer.Subject) { s.Claim = held; s.Claim.Released = true }, []string{order[2], order[1], order[0]}},
		{"but better than nobody", func(p map[string]*announcer.Peer) { p[order[0]].Damped = true },
			func(s *announcer.Subject) { s.Selected, s.Nodes = true, []string{order[0]} }, []string{order[0]}},
		{"a stand-in is left in peace", func(p map[string]*announcer.Peer) { p[order[1]].Live = false },
			func(s *announcer.Subject) {
				s.Claim, s.StandIn = held, member.Claim{Address: base.Address, Node: order[2], Epoch: 4, StandIn: true}
			}, []string{order[2]}},
		{"until the holder is back", nil,
			func(s *announcer.Subject) {
				s.Claim, s.StandIn = held, member.Claim{Address: base.Address, Node: order[2], Epoch: 4, StandIn: true}
			}, []string{order[1]}},
		{"local without endpoints: nobody", nil, func(s *announcer.Subject) { s.Local = true }, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			byName := map[string]*announcer.Peer{}
			for _, p := range peers(3) {
				byName[p.Name] = &p
			}
			if c.peers != nil {
				c.peers(byName)
			}
			var all []announcer.Peer
			for _, p := range peers(3) {
				if byName[p.Name] != nil {
					all = append(all, *byName[p.Name])
				}
			}
			s := base
			if c.subject != nil {
				c.subject(&s)
			}
			if got := takers(all, s); fmt.Sprint(got) != fmt.Sprint(c.want) {
				t.Errorf("got %v, want %v", got, c.want)
			}
		})
	}
	keeps := func(all []announcer.Peer, self string, change func(*announcer.Subject)) bool {
		s := base
		s.Held = true
		s.Claim = member.Claim{Address: base.Address, Node: self, Epoch: 3}
		change(&s)
		return announcer.Decide(announcer.View{Self: self, Peers: all, Subjects: []announcer.Subject{s}})[0].Hold
	}
	for _, c := range []struct {
		name    string
		change  func(*announcer.Peer) // of the holder, order[1]
		all     bool                  // of all nodes
		subject func(*announcer.Subject)
		want    []string // who takes it from the living holder
	}{
		{"drained or unwell", func(p *announcer.Peer) { p.Reluctant = true }, false, nil, []string{order[0], order[2]}},
		{"excluded", func(p *announcer.Peer) { p.Excluded = true }, false, nil, []string{order[0], order[2]}},
		{"all are reluctant", func(p *announcer.Peer) { p.Reluctant = true }, true, nil, nil},
		{"all are excluded", func(p *announcer.Peer) { p.Excluded = true }, true, nil, nil},
		{"no endpoint any more", func(*announcer.Peer) {}, false,
			func(s *announcer.Subject) { s.Local, s.Endpoints = true, []string{order[2]} }, []string{order[2]}},
		{"the only endpoint, drained", func(p *announcer.Peer) { p.Reluctant = true }, false,
			func(s *announcer.Subject) { s.Local, s.Endpoints = true, []string{order[1]} }, nil},
		{"nobody wants it", func(p *announcer.Peer) { p.Reluctant = true }, false,
			func(s *announcer.Subject) { s.Wanted = false }, nil},
	} {
		t.Run("relieved: "+c.name, func(t *testing.T) {
			all, s := peers(3), base
			s.Claim = held
			if c.subject != nil {
				c.subject(&s)
			}
			for i := range all {
				if c.all || all[i].Name == order[1] {
					c.change(&all[i])
				}
			}
			at := map[time.Duration]string{}
			for _, p := range all {
				s.Held = p.Name == order[1]
				d := announcer.Decide(announcer.View{Self: p.Name, Peers: all, Subjects: []announcer.Subject{s}})[0]
				if s.Held {
					if d.HandOver != (len(c.want) > 0) || d.HandOver && !d.Hold {
						t.Errorf("the holder: %+v", d)
					}
					continue
				}
				if d.Hold != d.HandOver {
					t.Errorf("%s: %+v", p.Name, d)
				}
				if d.HandOver {
					at[d.NotBefore.Sub(s.Free)] = p.Name
				}
			}
			var got []string
			for i := range len(at) {
				got = append(got, at[announcer.HandOverDelay+time.Duration(i)*announcer.Step])
			}
			if fmt.Sprint(got) != fmt.Sprint(c.want) {
				t.Errorf("taken by %v, want %v", got, c.want)
			}
		})
	}
	self := order[0]
	nothing := func(*announcer.Subject) {}
	local := func(nodes ...string) func(*announcer.Subject) {
		return func(s *announcer.Subject) { s.Local, s.Endpoints = true, nodes }
	}
	for _, c := range []struct {
		name   string
		peer   announcer.Peer
		change func(*announcer.Subject)
		want   bool
	}{
		{"as a matter of course", announcer.Peer{Live: true}, nothing, true},
		{"until it is relieved, excluded", announcer.Peer{Live: true, Excluded: true}, nothing, true},
		{"not excluded without anybody to take it", announcer.Peer{Live: true, Excluded: true}, local(), false},
		{"until it is relieved, without network", announcer.Peer{Live: true, Reluctant: true}, nothing, true},
		{"with a local endpoint", announcer.Peer{Live: true}, local(self), true},
		{"until it is relieved, if only others have endpoints", announcer.Peer{Live: true}, local(other(self)), true},
		{"if nobody has endpoints", announcer.Peer{Live: true}, local(), true},
		{"not against a live node with a newer claim", announcer.Peer{Live: true},
			func(s *announcer.Subject) { s.Claim.Node, s.Claim.Epoch = other(self), 4 }, false},
		{"against a newer claim that was released", announcer.Peer{Live: true},
			func(s *announcer.Subject) { s.Claim.Node, s.Claim.Epoch, s.Claim.Released = other(self), 4, true }, true},
		{"not if nobody wants it", announcer.Peer{Live: true}, func(s *announcer.Subject) { s.Wanted = false }, false},
	} {
		t.Run("a holder keeps it: "+c.name, func(t *testing.T) {
			all := peers(3)
			for i := range all {
				if all[i].Name == self {
					c.peer.Name, c.peer.Settled = self, true
					all[i] = c.peer
				}
			}
			if got := keeps(all, self, c.change); got != c.want {
				t.Errorf("keeps it: %v", got)
			}
		})
	}
}
