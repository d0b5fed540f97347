package agent

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"net/netip"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/status"
	"k8s.io/klog/v2"

	"github.com/onelb/onelb/loadbalancer/router"
	"github.com/onelb/onelb/loadbalancer/router/flows"
	"github.com/onelb/onelb/loadbalancer/router/peer"
)

const (
	followFirst = 100 * time.Millisecond
	followLast  = 2 * time.Second
)

// follow keeps copies of a peer's connections in our kernel while the peer is the
// master, so that they are there when we have to go on with them.
func (a *Agent) follow(ctx context.Context, endpoint string) error {
	logger := klog.FromContext(ctx).WithValues("peer", endpoint)
	retry, said := followFirst, ""
	for ctx.Err() == nil {
		began := time.Now()
		err := a.followOnce(ctx, endpoint)
		if ctx.Err() != nil {
			break
		}
		if time.Since(began) > followLast {
			retry = followFirst
		}
		a.metrics.following.WithLabelValues(endpoint).Set(0)
		if err != nil && err.Error() != said {
			said = err.Error()
			logger.Error(err, "Cannot follow the connections of another instance")
		}
		select {
		case <-ctx.Done():
		case <-time.After(retry/2 + rand.N(retry)): //nolint:gosec // jitter
		}
		retry = min(2*retry, followLast)
	}
	return nil
}

// followOnce is one stream. It ends with nil when our role has changed: what was
// told before is of the other time.
func (a *Agent) followOnce(ctx context.Context, endpoint string) error {
	master, changed := a.role.get()
	conn, err := grpc.NewClient("passthrough:///"+endpoint,
		grpc.WithTransportCredentials(credentials.NewTLS(a.certs.peerConfig())),
		grpc.WithNoProxy(), grpc.WithDisableServiceConfig(),
		grpc.WithConnectParams(grpc.ConnectParams{MinConnectTimeout: 3 * time.Second}),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 10 * time.Second, Timeout: 3 * router.Heartbeat}),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(router.MaxMessage)),
	)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		select {
		case <-changed:
			cancel()
		case <-ctx.Done():
		}
	}()
	stream, err := peer.NewPeerClient(conn).Follow(ctx, &peer.FollowRequest{})
	if err == nil {
		_, err = stream.Header() // sent with the first message, or with the refusal
	}
	if err == nil {
		a.metrics.following.WithLabelValues(endpoint).Set(1)
		err = a.copyFrom(stream, master, endpoint)
	}
	select {
	case <-changed:
		return nil
	default:
	}
	if s, ok := status.FromError(err); ok {
		return errors.New(s.Message())
	}
	return err
}

// copyFrom writes what a stream tells to the kernel. Two masters at one time do not
// learn from each other.
func (a *Agent) copyFrom(stream grpc.ServerStreamingClient[peer.Changes], master bool, endpoint string) error {
	kernel, err := flows.Open()
	if err != nil {
		return err
	}
	defer func() { _ = kernel.Close() }()
	c := &copies{kernel: kernel, served: a.serves, have: map[flows.Key]copied{}}
	for {
		changes, err := stream.Recv()
		if err != nil {
			return err
		}
		if master {
			continue
		}
		if err := c.apply(stream.Context(), changes, time.Now()); err != nil {
			klog.FromContext(stream.Context()).Error(err, "Cannot copy connections of another instance", "peer", endpoint)
			a.metrics.copyErrors.Inc()
		}
		a.metrics.copies.WithLabelValues(endpoint).Set(float64(len(c.have)))
	}
}

// copies are the connections of a peer that stand in our kernel.
type copies struct {
	kernel interface {
		Put(c flows.Connection) error
		Delete(key flows.Key) error
		List(ctx context.Context, each func(flows.Connection)) error
	}
	served  func(netip.Addr) bool
	have    map[flows.Key]copied
	listing map[flows.Key]bool // what the listing that goes on has told
}

type copied struct {
	flows.Connection
	written time.Time
}

// apply goes on after an error with one connection; the first one is returned.
func (c *copies) apply(ctx context.Context, changes *peer.Changes, now time.Time) error {
	var first error
	note := func(err error) {
		if first == nil {
			first = err
		}
	}
	if changes.GetBegin() {
		c.listing = map[flows.Key]bool{}
	}
	for _, p := range changes.GetEnded() {
		key, err := keyFromPeer(p)
		if err == nil {
			delete(c.have, key)
			err = c.kernel.Delete(key)
		}
		note(err)
	}
	for _, p := range changes.GetConnections() {
		connection, err := connectionFromPeer(p)
		if err == nil {
			err = c.put(connection, now)
		}
		note(err)
	}
	if changes.GetComplete() && c.listing != nil {
		note(c.prune(ctx))
		c.listing = nil
	}
	return first
}

// put writes a connection that is new, has changed, or whose copy has used up a
// quarter of its time.
func (c *copies) put(connection flows.Connection, now time.Time) error {
	if c.listing != nil {
		c.listing[connection.Key] = true
	}
	before, known := c.have[connection.Key]
	if known && before.Same(connection) && now.Sub(before.written) < time.Duration(connection.Timeout)*time.Second/4 {
		return nil
	}
	if err := c.kernel.Put(connection); err != nil {
		delete(c.have, connection.Key) // the next listing tries again
		return err
	}
	c.have[connection.Key] = copied{connection, now}
	return nil
}

// prune ends what a complete listing has not told: copies, and what is left of a
// time as master.
func (c *copies) prune(ctx context.Context) error {
	gone := map[flows.Key]bool{}
	for key := range c.have {
		if !c.listing[key] {
			gone[key] = true
			delete(c.have, key)
		}
	}
	err := c.kernel.List(ctx, func(own flows.Connection) {
		if c.served(own.Frontend.Addr()) && !c.listing[own.Key] {
			gone[own.Key] = true
		}
	})
	errs := []error{err}
	for key := range gone {
		errs = append(errs, c.kernel.Delete(key))
	}
	return errors.Join(errs...)
}

func keyFromPeer(p *peer.Connection) (flows.Key, error) {
	k := flows.Key{Protocol: uint8(min(p.GetProtocol(), math.MaxUint8))} //nolint:gosec // bounded
	var errs [2]error
	k.Client, errs[0] = endpointFromPeer(p.GetClient())
	k.Frontend, errs[1] = endpointFromPeer(p.GetFrontend())
	if err := errors.Join(errs[:]...); err != nil {
		return k, fmt.Errorf("connection of a peer: %w", err)
	}
	if k.Client.Addr().Is4() != k.Frontend.Addr().Is4() || k.Protocol != flows.TCP && k.Protocol != flows.UDP {
		return k, fmt.Errorf("connection of a peer: protocol %d from %s to %s", p.GetProtocol(), k.Client, k.Frontend)
	}
	return k, nil
}

func connectionFromPeer(p *peer.Connection) (c flows.Connection, err error) {
	if c.Key, err = keyFromPeer(p); err != nil {
		return c, err
	}
	var errs [2]error
	c.Backend, errs[0] = endpointFromPeer(p.GetBackend())
	c.Source, errs[1] = endpointFromPeer(p.GetSource())
	if err := errors.Join(errs[:]...); err != nil {
		return c, fmt.Errorf("connection of a peer: %w", err)
	}
	if c.Backend.Addr().Is4() != c.Client.Addr().Is4() || c.Source.Addr().Is4() != c.Client.Addr().Is4() || p.GetTcpState() > math.MaxUint8 {
		return c, fmt.Errorf("connection of a peer: from %s to %s by way of %s, state %d", c.Source, c.Backend, c.Frontend, p.GetTcpState())
	}
	c.TCPState, c.Mark, c.Timeout = uint8(p.GetTcpState()), p.GetMark(), p.GetTimeout()
	copy(c.Labels[:], p.GetLabels())
	return c, nil
}

func endpointFromPeer(e *peer.Endpoint) (netip.AddrPort, error) {
	address, ok := netip.AddrFromSlice(e.GetAddress())
	if !ok || e.GetPort() > math.MaxUint16 {
		return netip.AddrPort{}, fmt.Errorf("address of %d bytes, port %d", len(e.GetAddress()), e.GetPort())
	}
	return netip.AddrPortFrom(address, uint16(e.GetPort())), nil
}

// peerConfig is ours as the client of another instance: the router's certificate on
// both sides, by the authority of the clients.
func (c *certificates) peerConfig() *tls.Config {
	pair, roots := c.current()
	return &tls.Config{
		MinVersion: tls.VersionTLS13, ServerName: router.ServerName(c.opts.Name), RootCAs: roots,
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return pair, nil },
	}
}
