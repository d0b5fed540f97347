package agent

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"sync"
	"time"

	"golang.org/x/net/netutil"
	"golang.org/x/time/rate"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/keepalive"
	grpcpeer "google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"

	"github.com/onelb/onelb/loadbalancer/router"
	"github.com/onelb/onelb/loadbalancer/router/peer"
	"github.com/onelb/onelb/loadbalancer/router/wire"
)

// Bounds on clients.
const (
	maxConnections = 64
	maxStreams     = 4 // of one connection, each with a message of the largest size; a client needs two
	// pushes a second of one cluster; a client that loses a race pushes again.
	pushRate  = 100
	pushBurst = 50
	// settle gathers changes that come together into one status.
	settle = 20 * time.Millisecond
)

// serve answers clients until the context ends.
func (a *Agent) serve(ctx context.Context) error {
	server := grpc.NewServer(
		grpc.Creds(credentials.NewTLS(a.certs.config())),
		grpc.MaxRecvMsgSize(router.MaxMessage), grpc.MaxSendMsgSize(router.MaxMessage),
		grpc.MaxConcurrentStreams(maxStreams), grpc.ConnectionTimeout(5*time.Second),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: 5 * time.Second, PermitWithoutStream: true}),
		grpc.KeepaliveParams(keepalive.ServerParameters{Time: 10 * time.Second, Timeout: 3 * router.Heartbeat}),
	)
	wire.RegisterRouterServer(server, &service{agent: a, limits: limits{of: map[string]*rate.Limiter{}}, ended: ctx.Done()})
	peer.RegisterPeerServer(server, &peerService{agent: a, ended: ctx.Done()})
	stop := context.AfterFunc(ctx, server.Stop)
	defer stop()
	err := server.Serve(netutil.LimitListener(a.opts.Listener, maxConnections))
	server.Stop() // waits for the handlers
	if ctx.Err() != nil {
		return nil
	}
	return fmt.Errorf("serve clients: %w", err)
}

type service struct {
	wire.UnimplementedRouterServer
	agent  *Agent
	limits limits
	ended  <-chan struct{}
}

// limits are the clusters' rates: one that pushes all the time delays nobody else.
type limits struct {
	mu sync.Mutex // guards of
	of map[string]*rate.Limiter
}

// wait blocks until a cluster, which has a certificate, may push.
func (l *limits) wait(ctx context.Context, cluster string) error {
	l.mu.Lock()
	limiter := l.of[cluster]
	if limiter == nil {
		limiter = rate.NewLimiter(pushRate, pushBurst)
		l.of[cluster] = limiter
	}
	l.mu.Unlock()
	return limiter.Wait(ctx)
}

// Apply implements wire.RouterServer.
func (s *service) Apply(ctx context.Context, r *wire.ApplyRequest) (*wire.ApplyResponse, error) {
	if err := s.authorize(ctx, r.GetCluster()); err != nil {
		return nil, err
	}
	if err := s.limits.wait(ctx, r.GetCluster()); err != nil {
		return nil, status.Error(codes.ResourceExhausted, "too many pushes")
	}
	// The change is finished even if the client goes away in the middle.
	q := request{apply: r, answer: make(chan *wire.ApplyResponse, 1)}
	select {
	case s.agent.requests <- q:
	case <-ctx.Done():
		return nil, status.FromContextError(ctx.Err()).Err()
	case <-s.ended:
		return nil, status.Error(codes.Unavailable, "agent is ending")
	}
	select {
	case answer := <-q.answer:
		return answer, nil
	case <-ctx.Done():
		return nil, status.FromContextError(ctx.Err()).Err()
	}
}

// Watch implements wire.RouterServer.
func (s *service) Watch(r *wire.WatchRequest, stream grpc.ServerStreamingServer[wire.Status]) error {
	heartbeat := time.NewTicker(router.Heartbeat)
	defer heartbeat.Stop()
	for {
		// Again each time, so that a certificate that has expired, or whose
		// authority was replaced, ends the session.
		if err := s.authorize(stream.Context(), r.GetCluster()); err != nil {
			return err
		}
		changed := s.agent.status.wait()
		if err := stream.Send(s.agent.status.get(r.GetCluster())); err != nil {
			return err
		}
		select {
		case <-changed:
			if err := pause(stream.Context()); err != nil {
				return err
			}
		case <-heartbeat.C:
		case <-s.ended:
			return status.Error(codes.Unavailable, "agent is ending")
		case <-stream.Context().Done():
			return stream.Context().Err()
		}
	}
}

func pause(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(settle):
		return nil
	}
}

// authorize lets a client at its own cluster alone.
func (s *service) authorize(ctx context.Context, cluster string) error {
	chain, err := certificatesOf(ctx)
	if err != nil {
		return err
	}
	own, err := s.agent.certs.verifyClient(chain)
	if err != nil {
		return status.Errorf(codes.Unauthenticated, "client certificate: %v", err)
	}
	if own != cluster {
		return status.Errorf(codes.PermissionDenied, "the client certificate is of cluster %q, the request is for %q", own, cluster)
	}
	return nil
}

// authorizePeer lets the router's other instances in.
func (a *Agent) authorizePeer(ctx context.Context) error {
	chain, err := certificatesOf(ctx)
	if err != nil {
		return err
	}
	if err := a.certs.verifyPeer(chain); err != nil {
		return status.Errorf(codes.PermissionDenied, "the certificate is not of router %s: %v", a.opts.Name, err)
	}
	return nil
}

func certificatesOf(ctx context.Context) ([]*x509.Certificate, error) {
	p, _ := grpcpeer.FromContext(ctx)
	if p == nil {
		return nil, status.Error(codes.Unauthenticated, "no peer")
	}
	info, is := p.AuthInfo.(credentials.TLSInfo)
	if !is || len(info.State.PeerCertificates) == 0 {
		return nil, status.Error(codes.Unauthenticated, "no client certificate")
	}
	return info.State.PeerCertificates, nil
}

// errNoClient is for a handshake without a certificate, which TLS itself refuses.
var errNoClient = errors.New("no client certificate")
