package nft

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"syscall"
	"testing"
	"time"

	"github.com/onelb/onelb/loadbalancer/router"
)

// newRoutedStage has the public addresses on node-1, and the router send there what is
// for them.
func newRoutedStage(t *testing.T) *stage {
	t.Helper()
	s := newStage(t)
	s.ip("router", fmt.Sprintf("addr del %s/32 dev eth0\naddr del %s/128 dev eth0\n", public4, public6)+
		fmt.Sprintf("neigh add proxy %s dev eth0\nneigh add proxy %s dev eth0\nroute add %[1]s/32 dev eth1 scope link\nroute add %[2]s/128 dev eth1", public4, public6))
	s.sysctl("router", "net/ipv4/neigh/eth0/proxy_delay", "0")
	s.sysctl("router", "net/ipv6/neigh/eth0/proxy_delay", "0")
	s.sysctl("router", "net/ipv6/conf/all/proxy_ndp", "1")
	s.ip("client", "route add 10.20.0.0/24 via 203.0.113.2\nroute add fd00:20::/64 via 2001:db8:113::2")
	s.ip("node-1", fmt.Sprintf("addr add %s/32 dev eth0\naddr add %s/128 dev eth0 nodad preferred_lft 0", public4, public6))
	return s
}

// serveUDP answers from the addresses that were asked.
func (s *stage) serveUDP() {
	s.t.Helper()
	eachFamily(func(public netip.Addr) { s.serveAt("node-1", "udp", netip.AddrPortFrom(public, 80).String()) })
}

// routedDocument has one Service of both families, for each port.
func routedDocument(change func(*router.Frontend), ports ...uint16) router.Document {
	return stageDocument(func(f *router.Frontend) {
		f.Routed, f.BackendPort, f.SNAT = true, f.Port, router.SNATNever
		if change != nil {
			change(f)
		}
	}, ports...)
}

// TestRouted: packets reach the holder as they are, from outside and from inside; what
// is no frontend is refused on the way, and the router's own addresses are not concerned.
func TestRouted(t *testing.T) {
	s := newRoutedStage(t)
	s.serve("node-1", "tcp", 22)
	s.serve("node-1", "udp", 22)
	s.serve("node-1", "tcp", 80)
	s.serveUDP()
	s.apply(routedDocument(nil, 80))
	clients := func(public netip.Addr) map[string]string {
		if public.Is4() {
			return map[string]string{"client": "203.0.113.1", "lan": "10.20.0.250", "node-2": "10.20.0.12", "router": "10.20.0.1"}
		}
		return map[string]string{"client": "2001:db8:113::1", "lan": "fd00:20::250", "node-2": "fd00:20::12", "router": "fd00:20::1"}
	}
	eachFamily(func(public netip.Addr) {
		for _, network := range []string{"tcp", "udp"} {
			for from, want := range clients(public) {
				if node, seen := s.asks(from, network, netip.AddrPortFrom(public, 80)); node != "node-1" || seen != want {
					t.Errorf("%s asks %s/%s: %s saw %s, want %s", from, public, network, node, seen, want)
				}
			}
			s.refused("client", network, netip.AddrPortFrom(public, 22))
		}
		s.asks("client", "tcp", netip.AddrPortFrom(netip.MustParseAddr(map[bool]string{true: nodes4[0], false: nodes6[0]}[public.Is4()]), 22))
	})
}

// TestRoutedSourceRanges: whoever is outside of them hears nothing, also with packets
// that belong to no connection; a connection that stands is not cut.
func TestRoutedSourceRanges(t *testing.T) {
	s := newRoutedStage(t)
	s.serve("node-1", "tcp", 80)
	s.serveUDP()
	none := []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}
	eachFamily(func(public netip.Addr) {
		to := netip.AddrPortFrom(public, 80)
		s.apply(routedDocument(func(f *router.Frontend) {
			f.SourceRanges = []netip.Prefix{netip.MustParsePrefix("203.0.113.1/32"), netip.MustParsePrefix("2001:db8:113::1/128")}
		}, 80))
		conn, _, err := s.open("client", "tcp", to, patience)
		s.must(err)
		s.silent("lan", "tcp", to)
		s.silent("lan", "udp", to)
		s.apply(routedDocument(func(f *router.Frontend) { f.SourceRanges = none }, 80))
		s.silent("client", "tcp", to)
		s.silent("client", "udp", to)
		if _, err := ask(conn, patience); err != nil {
			t.Errorf("the connection that stands: %v", err)
		}
		s.must(conn.Close())
	})
}

// TestRoutedConnectionLimit: one connection too many waits until another one ends.
func TestRoutedConnectionLimit(t *testing.T) {
	s := newRoutedStage(t)
	s.serve("node-1", "tcp", 80)
	s.apply(routedDocument(func(f *router.Frontend) { f.MaxConnections = 1 }, 80))
	eachFamily(func(public netip.Addr) {
		to := netip.AddrPortFrom(public, 80)
		conn, _, err := s.open("client", "tcp", to, patience)
		s.must(err)
		s.silent("client", "tcp", to)
		s.must(conn.Close())
		s.asks("client", "tcp", to)
	})
}

// TestRoutedWhenAnotherInstanceTakesOver: the kernel of that one knows of no connection,
// and the first packet that it sees of one may be a reply. It must not hide that behind
// its own address, as it does with what the nodes begin.
func TestRoutedWhenAnotherInstanceTakesOver(t *testing.T) {
	s := newRoutedStage(t)
	s.apply(routedDocument(nil, 80))
	for _, family := range []string{"ip", "ip6"} {
		nftList(t, s.hosts["router"], "add", "table", family, "masq")
		nftList(t, s.hosts["router"], "add chain "+family+" masq out { type nat hook postrouting priority srcnat; }")
		nftList(t, s.hosts["router"], "add", "rule", family, "masq", "out", "oifname", "eth0", "masquerade")
	}
	eachFamily(func(public netip.Addr) {
		for from, want := range map[string]string{public.String(): public.String(), "": outsideRouter(public)} {
			var client net.PacketConn
			s.must(s.hosts["client"].Do(func() (err error) {
				client, err = net.ListenPacket("udp", net.JoinHostPort(outside(public), "0"))
				return err
			}))
			port := netip.MustParseAddrPort(client.LocalAddr().String()).Port()
			var node net.Conn
			s.must(s.hosts["node-1"].Do(func() (err error) {
				d := net.Dialer{Timeout: patience}
				if from != "" {
					d.LocalAddr = &net.UDPAddr{IP: public.AsSlice(), Port: 80}
				}
				node, err = d.DialContext(t.Context(), "udp", netip.AddrPortFrom(netip.MustParseAddr(outside(public)), port).String())
				return err
			}))
			b := make([]byte, 64)
			for end := time.Now().Add(patience); ; { // the first one may be lost to neighbour discovery
				if _, err := node.Write([]byte("answer")); err != nil && !errors.Is(err, syscall.ECONNREFUSED) {
					s.must(err)
				}
				s.must(client.SetReadDeadline(time.Now().Add(time.Second)))
				_, seen, err := client.ReadFrom(b)
				if err == nil {
					if got := hostOf(seen); got != want {
						t.Errorf("what node-1 sends from %q comes from %s, want %s", from, got, want)
					}
					break
				}
				if time.Now().After(end) {
					t.Fatalf("%s: nothing arrives: %v", public, err)
				}
			}
			s.must(errors.Join(client.Close(), node.Close()))
		}
	})
}

func outsideRouter(public netip.Addr) string {
	if public.Is4() {
		return "203.0.113.2"
	}
	return "2001:db8:113::2"
}
