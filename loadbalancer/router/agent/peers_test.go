package agent

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"maps"
	"net/netip"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/status"

	"github.com/onelb/onelb/loadbalancer/router"
	"github.com/onelb/onelb/loadbalancer/router/flows"
	"github.com/onelb/onelb/loadbalancer/router/peer"
)

// TestFollowNeedsRoutersCertificate: a cluster does not hear of connections.
func TestFollowNeedsRoutersCertificate(t *testing.T) {
	b := newBench(t)
	b.start()
	for name, want := range map[string]codes.Code{"lab": codes.PermissionDenied, "router": codes.DeadlineExceeded} {
		pair, err := tls.LoadX509KeyPair(b.path(name+".crt"), b.path(name+".key"))
		b.must(err)
		roots := x509.NewCertPool()
		roots.AppendCertsFromPEM(b.ca.PEM.Cert)
		conn, err := grpc.NewClient("passthrough:///"+b.addr, grpc.WithTransportCredentials(credentials.NewTLS(&tls.Config{
			MinVersion: tls.VersionTLS13, ServerName: router.ServerName("edge"), RootCAs: roots, Certificates: []tls.Certificate{pair},
		})))
		b.must(err)
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		stream, err := peer.NewPeerClient(conn).Follow(ctx, &peer.FollowRequest{})
		b.must(err)
		if want == codes.DeadlineExceeded { // let in
			first, err := stream.Recv()
			if err != nil || !first.GetBegin() || !first.GetComplete() {
				t.Errorf("another instance: %v, %v", first, err)
			}
		} else if _, err := stream.Recv(); status.Code(err) != want {
			t.Errorf("%s: %v, want %v", name, err, want)
		}
		cancel()
		b.must(conn.Close())
	}
}

// fakeFlows is a kernel's connection tracking.
type fakeFlows struct {
	there map[flows.Key]flows.Connection
	puts  int
	fail  error
}

func (f *fakeFlows) Put(c flows.Connection) error {
	if f.fail != nil {
		return f.fail
	}
	f.puts++
	f.there[c.Key] = c
	return nil
}

func (f *fakeFlows) Delete(key flows.Key) error {
	delete(f.there, key)
	return nil
}

func (f *fakeFlows) List(_ context.Context, each func(flows.Connection)) error {
	for _, c := range f.there {
		each(c)
	}
	return nil
}

func connection(port uint16) flows.Connection {
	client := netip.AddrPortFrom(netip.MustParseAddr("198.51.100.9"), port)
	return flows.Connection{
		Key:     flows.Key{Protocol: flows.TCP, Client: client, Frontend: netip.MustParseAddrPort("203.0.113.100:80")},
		Backend: netip.MustParseAddrPort("10.20.0.11:30000"), Source: client, TCPState: 3, Timeout: 400,
	}
}

// TestCopies: a listing replaces what is there, changes edit it, and what stays the
// same is written again only when its time runs out.
func TestCopies(t *testing.T) {
	kernel := &fakeFlows{there: map[flows.Key]flows.Connection{}}
	foreign := connection(9)
	foreign.Frontend = netip.MustParseAddrPort("192.0.2.1:80")
	left := connection(8) // of an earlier time as master
	kernel.there[foreign.Key], kernel.there[left.Key] = foreign, left
	c := &copies{kernel: kernel, have: map[flows.Key]copied{}, served: func(a netip.Addr) bool { return a == netip.MustParseAddr("203.0.113.100") }}
	now := time.Now()
	changes := func(begin, complete bool, ended []uint16, ports ...uint16) *peer.Changes {
		p := &peer.Changes{Begin: begin, Complete: complete}
		for _, port := range ended {
			p.Ended = append(p.Ended, keyToPeer(connection(port).Key))
		}
		for _, port := range ports {
			p.Connections = append(p.Connections, connectionToPeer(connection(port)))
		}
		return p
	}
	for _, step := range []struct {
		name    string
		after   time.Duration
		changes *peer.Changes
		puts    int
		want    []uint16
	}{
		{"a listing begins", 0, changes(true, false, nil, 1, 2), 2, []uint16{1, 2, 8, 9}},
		{"and is complete", 0, changes(false, true, nil, 3), 3, []uint16{1, 2, 3, 9}},
		{"one ends, one comes", 0, changes(false, false, []uint16{1}, 4), 4, []uint16{2, 3, 4, 9}},
		{"ended and begun again at once", 0, changes(false, false, []uint16{4}, 4), 5, []uint16{2, 3, 4, 9}},
		{"the same again", time.Second, changes(true, true, nil, 2, 3, 4), 5, []uint16{2, 3, 4, 9}},
		{"a quarter of the time is over", 101 * time.Second, changes(true, true, nil, 2, 3), 7, []uint16{2, 3, 9}},
		{"nothing is left", 0, changes(true, true, nil), 7, []uint16{9}},
	} {
		now = now.Add(step.after)
		if err := c.apply(t.Context(), step.changes, now); err != nil {
			t.Errorf("%s: %v", step.name, err)
		}
		want := map[flows.Key]bool{}
		for _, port := range step.want {
			if port == 9 {
				want[foreign.Key] = true
			} else {
				want[connection(port).Key] = true
			}
		}
		got := map[flows.Key]bool{}
		for key := range kernel.there {
			got[key] = true
		}
		if !maps.Equal(got, want) || kernel.puts != step.puts {
			t.Errorf("%s: there are %v after %d writes, want %v after %d", step.name, got, kernel.puts, want, step.puts)
		}
	}

	// One that cannot be written is tried again with the next listing.
	kernel.fail = errors.New("no room")
	if err := c.apply(t.Context(), changes(false, false, nil, 5), now); !errors.Is(err, kernel.fail) {
		t.Errorf("error %v", err)
	}
	kernel.fail = nil
	if err := c.apply(t.Context(), changes(true, true, nil, 5), now); err != nil || len(kernel.there) != 2 {
		t.Errorf("tried again: %v, there are %v", err, kernel.there)
	}
}

// FuzzConnectionFromPeer: what another instance says is usable or refused.
func FuzzConnectionFromPeer(f *testing.F) {
	f.Add(uint32(6), []byte{198, 51, 100, 9}, uint32(1), []byte{10, 20, 0, 11}, uint32(70000), uint32(3))
	f.Fuzz(func(t *testing.T, protocol uint32, a []byte, port uint32, b []byte, backendPort, state uint32) {
		p := &peer.Connection{
			Protocol: protocol, TcpState: state, Client: &peer.Endpoint{Address: a, Port: port}, Frontend: &peer.Endpoint{Address: a, Port: port},
			Backend: &peer.Endpoint{Address: b, Port: backendPort}, Source: &peer.Endpoint{Address: a, Port: port},
		}
		c, err := connectionFromPeer(p)
		if err == nil && (c.Client.Addr().Is4() != c.Backend.Addr().Is4() || uint32(c.Backend.Port()) != backendPort) {
			t.Errorf("%v reads as %+v", p, c)
		}
	})
}
