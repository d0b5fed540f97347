package agent

import (
	"context"
	"errors"
	"net/netip"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/onelb/onelb/loadbalancer/router/flows"
	"github.com/onelb/onelb/loadbalancer/router/peer"
)

const (
	// tellEvery is how long changes of connections gather: what begins and ends
	// within is not told.
	tellEvery = 50 * time.Millisecond
	// listEvery is how often all connections are told. It keeps the timeouts of
	// the peer's copies alive and ends those whose end was missed.
	listEvery = 30 * time.Second
	// atOnce is the number of connections in a message.
	atOnce = 2000
	// maxPending bounds what gathers for a peer that does not read.
	maxPending = 500_000
)

// peerService tells the router's other instances about connections.
type peerService struct {
	peer.UnimplementedPeerServer
	agent *Agent
	ended <-chan struct{}
}

// Follow implements peer.PeerServer.
func (s *peerService) Follow(_ *peer.FollowRequest, stream grpc.ServerStreamingServer[peer.Changes]) error {
	ctx := stream.Context()
	if err := s.agent.authorizePeer(ctx); err != nil {
		return err
	}
	for {
		master, changed := s.agent.role.get()
		if master {
			if err := s.tell(ctx, changed, stream); err != nil {
				return err
			}
			continue
		}
		select {
		case <-changed:
		case <-s.ended:
			return status.Error(codes.Unavailable, "agent is ending")
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// tell goes on until the role changes, which is no error.
func (s *peerService) tell(ctx context.Context, changed <-chan struct{}, stream grpc.ServerStreamingServer[peer.Changes]) error {
	kernel, err := flows.Open()
	if err != nil {
		return status.Error(codes.Internal, err.Error())
	}
	defer func() { _ = kernel.Close() }()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	t := &teller{agent: s.agent, kernel: kernel, stream: stream, pending: map[flows.Key]flows.Event{}}
	ready, ended := make(chan struct{}), make(chan error, 1)
	go func() { ended <- watchConnections(ctx, sync.OnceFunc(func() { close(ready) }), t) }()
	defer func() { cancel(); <-ended }()
	select {
	case <-ready:
	case err := <-ended:
		ended <- err
		return status.Error(codes.Internal, err.Error())
	}
	tick, list := time.NewTicker(tellEvery), time.NewTicker(listEvery)
	defer tick.Stop()
	defer list.Stop()
	for {
		if err := t.flush(ctx); err != nil {
			return err
		}
		select {
		case <-tick.C:
		case <-list.C:
			t.lose()
		case <-changed:
			return nil
		case err := <-ended:
			ended <- err
			return status.Error(codes.Internal, err.Error())
		case <-s.ended:
			return status.Error(codes.Unavailable, "agent is ending")
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// watchConnections watches until the context ends; lost events are no reason to end.
func watchConnections(ctx context.Context, ready func(), t *teller) error {
	for {
		err := flows.Watch(ctx, func() { t.lose(); ready() }, t.take)
		if !errors.Is(err, flows.ErrLost) {
			return err
		}
	}
}

// teller gathers events for one peer.
type teller struct {
	agent  *Agent
	kernel *flows.Kernel
	stream grpc.ServerStreamingServer[peer.Changes]

	mu      sync.Mutex // guards what follows
	pending map[flows.Key]flows.Event
	lost    bool // all must be told
}

// take is called for each event.
func (t *teller) take(e flows.Event) {
	if !t.agent.serves(e.Frontend.Addr()) {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.pending) >= maxPending {
		clear(t.pending)
		t.lost = true
	}
	t.pending[e.Key] = e
}

// lose has everything told with the next flush.
func (t *teller) lose() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.lost = true
	clear(t.pending)
}

// flush tells what has gathered.
func (t *teller) flush(ctx context.Context) error {
	t.mu.Lock()
	pending, lost := t.pending, t.lost
	t.pending, t.lost = map[flows.Key]flows.Event{}, false
	t.mu.Unlock()
	if lost {
		if err := t.list(ctx); err != nil {
			return err
		}
	}
	changes := &peer.Changes{}
	for _, e := range pending {
		if e.Ended {
			changes.Ended = append(changes.Ended, keyToPeer(e.Key))
		} else {
			changes.Connections = append(changes.Connections, connectionToPeer(e.Connection))
		}
		if len(changes.Ended)+len(changes.Connections) >= atOnce {
			if err := t.stream.Send(changes); err != nil {
				return err
			}
			changes = &peer.Changes{}
		}
	}
	if len(changes.Ended)+len(changes.Connections) == 0 {
		return nil
	}
	return t.stream.Send(changes)
}

// list tells all connections.
func (t *teller) list(ctx context.Context) error {
	var failed error
	changes := &peer.Changes{Begin: true}
	err := t.kernel.List(ctx, func(c flows.Connection) {
		if failed != nil || !t.agent.serves(c.Frontend.Addr()) {
			return
		}
		if changes.Connections = append(changes.Connections, connectionToPeer(c)); len(changes.Connections) >= atOnce {
			failed, changes = t.stream.Send(changes), &peer.Changes{}
		}
	})
	if err != nil {
		return status.Error(codes.Internal, err.Error())
	}
	if failed != nil {
		return failed
	}
	changes.Complete = true
	return t.stream.Send(changes)
}

// serves reports whether an address is a frontend's.
func (a *Agent) serves(address netip.Addr) bool {
	served := a.served.Load()
	return served != nil && (*served)[address]
}

func keyToPeer(k flows.Key) *peer.Connection {
	return &peer.Connection{Protocol: uint32(k.Protocol), Client: endpointToPeer(k.Client), Frontend: endpointToPeer(k.Frontend)}
}

func connectionToPeer(c flows.Connection) *peer.Connection {
	p := keyToPeer(c.Key)
	p.Backend, p.Source = endpointToPeer(c.Backend), endpointToPeer(c.Source)
	p.TcpState, p.Mark, p.Labels, p.Timeout = uint32(c.TCPState), c.Mark, c.Labels[:], c.Timeout
	return p
}

func endpointToPeer(a netip.AddrPort) *peer.Endpoint {
	return &peer.Endpoint{Address: a.Addr().AsSlice(), Port: uint32(a.Port())}
}
