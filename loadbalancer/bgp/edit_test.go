package bgp

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"
)

// uptime is since when FRR has its session with a node, in milliseconds; it only
// grows while the session stands.
func uptime(t *testing.T, show func(context.Context, string, any) error, node netip.Addr) (established int, state string) {
	t.Helper()
	var all map[string]struct {
		State string `json:"bgpState"`
		Count int    `json:"connectionsEstablished"`
	}
	must(t, show(t.Context(), "show bgp neighbors "+node.String()+" json", &all))
	return all[node.String()].Count, all[node.String()].State
}

func TestAttributes(t *testing.T) {
	f := frr(t)
	med := uint32(7)
	n := newNode(0)
	n.routes(&Attributes{Communities: []uint32{64512<<16 | 100, 0xffffff01}, LargeCommunities: [][3]uint32{{64512, 1, 2}}, MED: &med, LocalPreference: &med}, "203.0.113.7/32")
	n.start(t, false)
	hops(t, f, "203.0.113.7/32", "10.79.0.11")
	p := route(t, f, "203.0.113.7/32").Paths[0]
	if p.Community.String != "64512:100 noExport" && p.Community.String != "64512:100 no-export" {
		t.Errorf("communities %q", p.Community.String)
	}
	if p.Large.String != "64512:1:2" || p.Med == nil || *p.Med != 7 {
		t.Errorf("%+v", p)
	}
	// Edits of what the routes carry come without a new session.
	n.routes(&Attributes{Communities: []uint32{64512<<16 | 200}}, "203.0.113.7/32")
	eventually(t, "the router has the new community", func() string {
		if p := route(t, f, "203.0.113.7/32").Paths[0]; p.Community.String != "64512:200" || p.Large.String != "" {
			return fmt.Sprintf("%+v", p)
		}
		return ""
	})
	if count, state := uptime(t, f.ShowJSON, nodes4[0]); count != 1 || state != "Established" {
		t.Errorf("%d sessions, %s", count, state)
	}
}

// Routes that are not for all peers reach the right ones, and nobody sees how that
// was done.
func TestRoutesForSomePeers(t *testing.T) {
	f := frr(t)
	must(t, f.Configure(t.Context(), "router bgp 64512", "neighbor fd00:79::11 remote-as 65001",
		"address-family ipv4 unicast", "neighbor fd00:79::11 activate", "exit-address-family"))
	n := newNode(0)
	other := n.desired.Peers[0]
	other.Name, other.Address, other.Source, other.IPv6 = "other", router6, nodes6[0], false
	n.desired.Peers = []Peer{other, n.desired.Peers[0]}
	for i := range n.desired.Peers {
		n.desired.Peers[i].IPv6 = false
	}
	mine := &Attributes{LargeCommunities: [][3]uint32{{64512, 1, 2}}, Peers: []string{"other"}}
	n.routes(mine, "203.0.113.7/32")
	n.start(t, false)
	from := func(prefix string, want ...string) {
		t.Helper()
		eventually(t, "the sessions of "+prefix, func() string {
			var got []string
			s := route(t, f, prefix)
			for _, p := range s.Paths {
				got = append(got, p.Peer.PeerID)
				if p.Large.String != "64512:1:2" && p.Large.String != "" {
					t.Fatalf("large communities %q", p.Large.String)
				}
				if h := p.Nexthops[0].IP; h != "10.79.0.11" { // IPv4 over IPv6, too
					t.Fatalf("next hop %s", h)
				}
			}
			slices.Sort(got)
			if !slices.Equal(got, want) {
				return fmt.Sprintf("%v, want %v", got, want)
			}
			return ""
		})
	}
	from("203.0.113.7/32", "fd00:79::11")
	n.routes(&Attributes{Peers: []string{"rack"}}, "203.0.113.7/32")
	from("203.0.113.7/32", "10.79.0.11")
	n.routes(&Attributes{}, "203.0.113.7/32")
	from("203.0.113.7/32", "10.79.0.11", "fd00:79::11")
	n.routes(mine, "203.0.113.7/32")
	from("203.0.113.7/32", "fd00:79::11")
}

func TestWrongASN(t *testing.T) {
	f := frr(t)
	n := newNode(0)
	n.desired.Peers[0].ASN = 64999
	n.start(t, false).says("another autonomous system than AS 64999")
	n.desired.Peers[0].ASN = 64512
	n.desired.Peers[0].LocalASN = 65099
	n.set()
	n.says("another autonomous system than AS 65099")
	n.desired.Peers[0].LocalASN = 0
	n.set()
	n.up()
	if _, state := uptime(t, f.ShowJSON, nodes4[0]); state != "Established" {
		t.Errorf("the router says %s", state)
	}
}

func TestPassword(t *testing.T) {
	f := frr(t, "password swordfish")
	n := newNode(0)
	n.desired.Peers[0].Password = "sardine"
	n.start(t, false).says("its password is another one")
	n.desired.Peers[0].Password = "swordfish"
	n.set()
	n.up()
	n.desired.Peers[0].Password = ""
	n.set()
	n.says("it wants a password")
	must(t, f.Configure(t.Context(), "router bgp 64512", "no neighbor 10.79.0.11 password"))
	n.up()
}

// What cannot be followed, and what needs no new session, leave the session alone.
func TestEditsKeepTheSession(t *testing.T) {
	f := frr(t)
	n := newNode(0)
	n.routes(&Attributes{}, "203.0.113.7/32")
	n.start(t, false)
	hops(t, f, "203.0.113.7/32", "10.79.0.11")
	p := &n.desired.Peers[0]
	p.HoldTime, p.KeepaliveTime, p.ConnectRetryTime = 30*time.Second, 10*time.Second, 5*time.Second
	p.BFDInterval, p.BFDMultiplier = time.Second, 3
	n.set()
	good := *p
	p.Problem, p.Password = "there is no such key", ""
	n.set()
	n.says("there is no such key")
	n.routes(&Attributes{}, "203.0.113.8/32") // the rest is followed
	hops(t, f, "203.0.113.8/32", "10.79.0.11")
	n.desired.Peers[0] = good
	n.set()
	n.routes(&Attributes{}, "203.0.113.9/32")
	hops(t, f, "203.0.113.9/32", "10.79.0.11")
	if count, state := uptime(t, f.ShowJSON, nodes4[0]); count != 1 || state != "Established" {
		t.Errorf("%d sessions, %s", count, state)
	}
	// The peer moves to another address.
	must(t, f.Configure(t.Context(), "router bgp 64512", "neighbor fd00:79::11 remote-as 65001",
		"address-family ipv4 unicast", "neighbor fd00:79::11 activate", "exit-address-family"))
	n.desired.Peers[0].Address, n.desired.Peers[0].Source, n.desired.Peers[0].BFDInterval = router6, nodes6[0], 0
	n.set()
	eventually(t, "the session moves", func() string {
		_, old := uptime(t, f.ShowJSON, nodes4[0])
		if _, now := uptime(t, f.ShowJSON, nodes6[0]); now != "Established" || old == "Established" {
			return fmt.Sprintf("now %s, old %s", now, old)
		}
		return ""
	})
	hops(t, f, "203.0.113.9/32", "10.79.0.11")
	// All of them begin anew in another autonomous system.
	must(t, f.Configure(t.Context(), "router bgp 64512", "neighbor fd00:79::11 remote-as 65007"))
	n.desired.Global.ASN = 65007
	n.set()
	n.up()
	hops(t, f, "203.0.113.9/32", "10.79.0.11")
	// The last peer goes, and nothing is left.
	n.desired.Peers = nil
	n.set()
	hops(t, f, "203.0.113.9/32")
}

// TestRestart: the router has the routes all the time, and those that are not wanted
// any more go when the speaker is back.
func TestRestart(t *testing.T) {
	f := frr(t)
	n := newNode(0)
	n.routes(&Attributes{}, "203.0.113.7/32", "203.0.113.8/32", "2001:db8::7/128")
	n.start(t, false)
	hops(t, f, "203.0.113.8/32", "10.79.0.11")
	hops(t, f, "2001:db8::7/128", "fd00:79::11")
	if s := n.session(); !s.Restart {
		t.Errorf("%+v", s)
	}
	n.stop()
	eventually(t, "the router keeps a stale route", func() string {
		s := route(t, f, "203.0.113.7/32")
		if len(s.Paths) != 1 {
			t.Fatalf("%+v", s)
		}
		if !s.Paths[0].Stale {
			return "it is not stale"
		}
		return ""
	})
	n.routes(&Attributes{}, "203.0.113.7/32", "2001:db8::7/128")
	n.start(t, true)
	eventually(t, "the session is back", func() string {
		for _, prefix := range []string{"203.0.113.7/32", "2001:db8::7/128"} {
			s := route(t, f, prefix)
			if len(s.Paths) != 1 || !s.Paths[0].Valid {
				t.Fatalf("%s: %+v", prefix, s)
			}
			if s.Paths[0].Stale {
				return prefix + " is stale"
			}
		}
		return ""
	})
	hops(t, f, "203.0.113.8/32")
}

// TestLeave: the routes are marked before they go, and do not come back.
func TestLeave(t *testing.T) {
	f := frr(t)
	n := newNode(0)
	n.routes(&Attributes{Communities: []uint32{64512<<16 | 100}}, "203.0.113.7/32")
	n.start(t, false)
	hops(t, f, "203.0.113.7/32", "10.79.0.11")
	left := make(chan struct{})
	go func() {
		defer close(left)
		n.speaker.Leave(t.Context())
	}()
	eventually(t, "the route is marked", func() string {
		s := route(t, f, "203.0.113.7/32")
		if len(s.Paths) != 1 {
			t.Fatalf("gone before it was marked: %+v", s)
		}
		if c := strings.ToLower(s.Paths[0].Community.String); !strings.Contains(c, "64512:100") || !strings.Contains(c, "graceful") {
			return c
		}
		return ""
	})
	<-left
	hops(t, f, "203.0.113.7/32")
	n.set()
	n.speaker.Leave(t.Context()) // again is harmless
	if s := n.session(); s.Up() {
		t.Errorf("%+v", s)
	}
}

// TestPeerSendsRoutes: they are counted, and go nowhere.
func TestPeerSendsRoutes(t *testing.T) {
	f := frr(t)
	must(t, f.Configure(t.Context(), "router bgp 64512", "no bgp network import-check",
		"neighbor fd00:79::11 remote-as 65001", "address-family ipv4 unicast", "network 198.51.100.0/24", "exit-address-family"))
	n := newNode(0)
	n.routes(&Attributes{}, "203.0.113.7/32")
	n.start(t, false)
	n.up()
	eventually(t, "it is counted", func() string {
		if s := n.session(); s.Received == 0 || s.Announced != 1 {
			return fmt.Sprintf("%+v", s)
		}
		return ""
	})
}

// TestPeerRestarts: the routes are there again when the router is.
func TestPeerRestarts(t *testing.T) {
	f := frr(t)
	n := newNode(0)
	n.routes(&Attributes{}, "203.0.113.7/32")
	n.start(t, false)
	hops(t, f, "203.0.113.7/32", "10.79.0.11")
	must(t, f.BGPD().Kill())
	eventually(t, "the session is gone", func() string {
		if s := n.session(); s.Up() || s.Breaks != 1 || s.Since.IsZero() || s.LastError == "" {
			return fmt.Sprintf("%+v", s)
		}
		return ""
	})
	must(t, f.BGPD().Start())
	must(t, f.Await(t.Context()))
	must(t, f.Configure(t.Context(), frrConfig(nodes4)...))
	hops(t, f, "203.0.113.7/32", "10.79.0.11")
}

// TestListen: nothing listens unless it is asked for, and then strangers get nothing.
func TestListen(t *testing.T) {
	f := frr(t, "timers connect 2")
	n := newNode(0)
	n.desired.Peers[0].Port = 1 // nobody is there: the router has to come
	n.start(t, false).says("no connection")
	if listens(t) {
		t.Error("port 179 is open")
	}
	n.desired.Global.ListenPort = 179
	n.set()
	n.up()
	d := net.Dialer{Timeout: 30 * time.Second, LocalAddr: &net.TCPAddr{IP: nodes4[1].AsSlice()}}
	c, err := d.DialContext(t.Context(), "tcp", "10.79.0.11:179")
	must(t, err)
	defer func() { _ = c.Close() }()
	_, _ = c.Write([]byte("who are you?"))
	must(t, c.SetReadDeadline(time.Now().Add(30*time.Second)))
	if got, err := c.Read(make([]byte, 1)); got != 0 || err == nil || strings.Contains(err.Error(), "timeout") {
		t.Errorf("a stranger got %d bytes, %v", got, err)
	}
	if count, state := uptime(t, f.ShowJSON, nodes4[0]); count != 1 || state != "Established" {
		t.Errorf("%d sessions, %s", count, state)
	}
	n.stop()
	if listens(t) {
		t.Error("port 179 is still open")
	}
}

func listens(t *testing.T) bool {
	t.Helper()
	c, err := (&net.Dialer{Timeout: 30 * time.Second}).DialContext(t.Context(), "tcp", "10.79.0.11:179")
	if err == nil {
		_ = c.Close()
	}
	return err == nil
}
