package router

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/status"
	"k8s.io/klog/v2"

	"github.com/onelb/onelb/loadbalancer/router/wire"
)

// Times of one connection. The agent sends a status every Heartbeat, so three
// missed ones mean that the instance is gone although TCP still stands.
const (
	// Heartbeat is how often an agent sends its status unasked.
	Heartbeat = 2 * time.Second
	// MaxMessage bounds one message on both sides: a document of the largest
	// allowed size fits.
	MaxMessage = 64 << 20

	silence       = 3 * Heartbeat
	connectWithin = 3 * time.Second
	applyWithin   = 60 * time.Second
	retryFirst    = 100 * time.Millisecond
	retryLast     = 5 * time.Second
	repushAfter   = 10 * time.Second // a refused document is offered again
	filesEvery    = 5 * time.Second
)

var errFilesChanged = errors.New("certificate files changed")

// instance is one endpoint; Client.mu guards it.
type instance struct {
	endpoint  string
	reachable bool
	err       error          // why it is not reachable
	status    *wire.Status   // last report, nil before the first
	revision  uint64         // of status, 0 at the start of a connection
	confirmed uint64         // the desired generation that it is known to run
	rejected  *RejectedError // of the desired document
	retryAt   time.Time      // when a refused document is offered again
	pushed    *desired       // what the last accepted push contained
	expiry    time.Time      // of the certificate that the connection was made with
	renewal   error          // why renewed certificates are not in use
}

// runInstance connects again and again until the context ends.
func (c *Client) runInstance(ctx context.Context, inst *instance) {
	logger := klog.FromContext(ctx).WithValues("endpoint", inst.endpoint)
	ctx = klog.NewContext(ctx, logger)
	retry := retryFirst
	for ctx.Err() == nil {
		began := time.Now()
		err := c.session(ctx, inst)
		if ctx.Err() != nil {
			break
		}
		if errors.Is(err, errFilesChanged) {
			logger.Info("Certificate files changed, connecting again")
			continue
		}
		c.lost(ctx, inst, err)
		if time.Since(began) > silence {
			retry = retryFirst
		}
		select {
		case <-ctx.Done():
		case <-time.After(retry/2 + rand.N(retry)): //nolint:gosec // jitter
		}
		retry = min(2*retry, retryLast)
	}
	c.update(func() { inst.reachable = false })
}

func (c *Client) lost(ctx context.Context, inst *instance, err error) {
	err = fmt.Errorf("endpoint %s: %w%s", inst.endpoint, undecorated(err), c.wayOut(err))
	first := false
	c.update(func() {
		first = inst.reachable || inst.err == nil
		inst.reachable, inst.confirmed, inst.err = false, 0, err
	})
	if first {
		klog.FromContext(ctx).Error(err, "Router instance is not reachable")
	}
}

// tlsAlert is how crypto/tls words an alert of the other side.
const tlsAlert = "remote error: tls: "

// wayOut is what the operator can do about a router that refuses our certificate.
// gRPC hands the peer's TLS alert on as text only.
func (c *Client) wayOut(err error) string {
	if !strings.Contains(err.Error(), tlsAlert) {
		return ""
	}
	return fmt.Sprintf("; the router refuses the client certificate %s: it needs one that its --tls-client-ca has signed (onelbctl router bootstrap)", c.opts.CertFile)
}

// undecorated takes gRPC's decoration off an error, so that it reads well in an
// event, and the same each time: a TLS alert comes in several wrappings.
func undecorated(err error) error {
	if i := strings.Index(err.Error(), tlsAlert); i >= 0 {
		return errors.New(strings.TrimRight(err.Error()[i:], `"`))
	}
	if s, ok := status.FromError(err); ok && s.Message() != "" {
		return errors.New(s.Message())
	}
	return err
}

// session is one connection: it returns why it ended.
func (c *Client) session(ctx context.Context, inst *instance) error {
	files, err := readFiles(c.opts)
	if err != nil {
		return err
	}
	conn, err := c.connect(inst.endpoint, files)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	rpc := wire.NewRouterClient(conn)
	reports := make(chan *wire.Status, 1)
	received := make(chan struct{})
	go func() {
		defer close(received)
		cancel(c.receive(ctx, rpc, reports))
	}()
	err = c.serve(ctx, inst, rpc, reports, files)
	cancel(err)
	<-received
	return err
}

func (c *Client) connect(endpoint string, files *tlsFiles) (*grpc.ClientConn, error) {
	dial := c.opts.Dial
	if dial == nil {
		dialer := &net.Dialer{Timeout: connectWithin, KeepAlive: Heartbeat}
		dial = func(ctx context.Context, address string) (net.Conn, error) {
			return dialer.DialContext(ctx, "tcp", address)
		}
	}
	return grpc.NewClient("passthrough:///"+endpoint,
		grpc.WithTransportCredentials(alertCredentials{credentials.NewTLS(files.config(ServerName(c.opts.Router)))}),
		grpc.WithContextDialer(dial),
		grpc.WithNoProxy(),
		grpc.WithDisableServiceConfig(),
		grpc.WithConnectParams(grpc.ConnectParams{MinConnectTimeout: connectWithin}),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 10 * time.Second, Timeout: silence}),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(MaxMessage), grpc.MaxCallSendMsgSize(MaxMessage)),
	)
}

// try reports whether a router takes these certificates.
func (c *Client) try(ctx context.Context, endpoint string, files *tlsFiles) error {
	conn, err := c.connect(endpoint, files)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	ctx, cancel := context.WithTimeout(ctx, connectWithin)
	defer cancel()
	stream, err := wire.NewRouterClient(conn).Watch(ctx, &wire.WatchRequest{Cluster: c.opts.Cluster})
	if err == nil {
		_, err = stream.Recv()
	}
	if err != nil {
		return fmt.Errorf("endpoint %s does not take the renewed certificates, the ones before are used: %w%s", endpoint, undecorated(err), c.wayOut(err))
	}
	return nil
}

// receive passes on the newest status; older ones that nobody took are dropped.
func (c *Client) receive(ctx context.Context, rpc wire.RouterClient, reports chan *wire.Status) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	watchdog := time.AfterFunc(connectWithin+silence, func() {
		cancel(fmt.Errorf("no status within %s", silence))
	})
	defer watchdog.Stop()
	stream, err := rpc.Watch(ctx, &wire.WatchRequest{Cluster: c.opts.Cluster})
	for err == nil {
		var s *wire.Status
		if s, err = stream.Recv(); err != nil {
			break
		}
		watchdog.Reset(silence)
		select {
		case <-reports:
		default:
		}
		reports <- s
	}
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	return err
}

// serve reacts to reports and to new desired state until the context ends.
func (c *Client) serve(ctx context.Context, inst *instance, rpc wire.RouterClient, reports <-chan *wire.Status, files *tlsFiles) error {
	check := time.NewTicker(filesEvery)
	defer check.Stop()
	c.update(func() { inst.revision, inst.renewal, inst.expiry = 0, nil, files.pair.Leaf.NotAfter })
	for {
		c.mu.Lock()
		changed := c.changed
		c.mu.Unlock()
		if inst.ready(c) {
			if err := c.sync(ctx, inst, rpc); err != nil {
				return err
			}
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-changed:
		case s := <-reports:
			c.report(ctx, inst, s)
		case <-check.C:
			now := files.changed(c.opts)
			if now == nil {
				continue
			}
			// What stands is kept until the new ones are known to work: the router
			// may get its new authority later than we do.
			err := c.try(ctx, inst.endpoint, now)
			if err == nil {
				return errFilesChanged
			}
			c.update(func() { inst.renewal = err })
		}
	}
}

func (i *instance) ready(c *Client) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return i.reachable
}
