package lab

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"strings"
	"sync"

	"github.com/onelb/onelb/test/lab/proc"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
)

// controlPlane are etcd, the API server and the controller manager.
type controlPlane struct {
	etcd, apiServer, controllerManager *proc.Unit
	forwarder                          net.Listener
}

// controllers are the ones the lab's objects need. The full set takes seconds
// longer to make a namespace usable. Deployments and DaemonSets get no pods,
// since nothing could run them.
var controllers = []string{
	"serviceaccount-controller", "namespace-controller", "garbage-collector-controller",
	"endpoints-controller", "endpointslice-controller", "endpointslice-mirroring-controller",
	"root-ca-certificate-publisher-controller", "clusterrole-aggregation-controller",
}

// lifecycleControllers act on dead nodes.
var lifecycleControllers = []string{
	"node-lifecycle-controller", "taint-eviction-controller", "pod-garbage-collector-controller",
}

// startControlPlane starts all three and returns when the API server is ready.
func (l *Lab) startControlPlane(ctx context.Context) error {
	err := errors.Join(
		l.certUser(l.Kubeconfig(), "admin", "system:masters"),
		l.certUser(l.path("controller-manager.kubeconfig"), "system:kube-controller-manager", ""),
		l.certUser(l.path("proxy.kubeconfig"), "system:kube-proxy", ""))
	if err != nil {
		return err
	}
	if l.client, err = l.clientFrom(l.control, 0); err != nil {
		return err
	}
	l.plane.etcd = l.unit(l.control, "etcd", l.kube("etcd"), l.etcdArgs()...)
	l.plane.apiServer = l.unit(l.control, "kube-apiserver", l.kube("kube-apiserver"), l.apiServerArgs()...)
	l.plane.controllerManager = l.unit(l.control, "kube-controller-manager", l.kube("kube-controller-manager"), l.controllerManagerArgs()...)
	// The API server waits for etcd by itself.
	for _, u := range []*proc.Unit{l.plane.etcd, l.plane.apiServer} {
		if err := u.Start(); err != nil {
			return err
		}
	}
	if err := l.waitAPIServer(ctx); err != nil {
		return err
	}
	// Not earlier: it ends when its own role does not exist yet.
	if err := l.plane.controllerManager.Start(); err != nil {
		return err
	}
	l.say("API server is ready")
	return l.forwardAPIServer()
}

func (l *Lab) kube(name string) string { return filepath.Join(l.kubeDir, name) }

func (l *Lab) etcdArgs() []string {
	const client, peer = "http://127.0.0.1:2379", "http://127.0.0.1:2380"
	return []string{
		"--name=lab", "--data-dir=" + l.path("etcd"), "--unsafe-no-fsync",
		"--listen-client-urls=" + client, "--advertise-client-urls=" + client,
		"--listen-peer-urls=" + peer, "--initial-advertise-peer-urls=" + peer,
		"--initial-cluster=lab=" + peer, "--log-level=warn",
	}
}

func (l *Lab) apiServerArgs() []string {
	p := l.pki
	return []string{
		"--etcd-servers=http://127.0.0.1:2379",
		"--bind-address=0.0.0.0", fmt.Sprintf("--secure-port=%d", APIServerPort),
		"--advertise-address=" + ControlAddr.String(),
		"--service-cluster-ip-range=" + ServicesV4.String() + "," + ServicesV6.String(),
		"--authorization-mode=Node,RBAC", "--allow-privileged=true",
		"--client-ca-file=" + p.ca.certFile,
		"--tls-cert-file=" + p.apiServer.certFile, "--tls-private-key-file=" + p.apiServer.keyFile,
		"--service-account-key-file=" + p.saKeyFile, "--service-account-signing-key-file=" + p.saKeyFile,
		"--service-account-issuer=https://kubernetes.default.svc",
		"--requestheader-client-ca-file=" + p.frontProxy.certFile,
		"--requestheader-allowed-names=front-proxy-client",
		"--requestheader-username-headers=X-Remote-User",
		"--requestheader-group-headers=X-Remote-Group",
		"--requestheader-extra-headers-prefix=X-Remote-Extra-",
		"--proxy-client-cert-file=" + p.proxyPair.certFile, "--proxy-client-key-file=" + p.proxyPair.keyFile,
		"--cert-dir=" + p.dir,
	}
}

func (l *Lab) controllerManagerArgs() []string {
	enabled := controllers
	if l.options.NodeLifecycle {
		enabled = append(append([]string{}, enabled...), lifecycleControllers...)
	}
	config := l.path("controller-manager.kubeconfig")
	return []string{
		"--kubeconfig=" + config, "--authentication-kubeconfig=" + config, "--authorization-kubeconfig=" + config,
		"--leader-elect=false", "--use-service-account-credentials=true",
		"--controllers=" + strings.Join(enabled, ","),
		"--root-ca-file=" + l.pki.ca.certFile,
		"--service-account-private-key-file=" + l.pki.saKeyFile,
		"--allocate-node-cidrs=false", "--cluster-cidr=" + PodsV4.String() + "," + PodsV6.String(),
		"--service-cluster-ip-range=" + ServicesV4.String() + "," + ServicesV6.String(),
		"--node-monitor-grace-period=6s", "--node-monitor-period=1s",
		"--bind-address=127.0.0.1", "--cert-dir=" + l.pki.dir,
	}
}

// waitAPIServer returns when /readyz says ok, or early when the program ended.
func (l *Lab) waitAPIServer(ctx context.Context) error {
	return l.wait(ctx, "API server to be ready", []*proc.Unit{l.plane.etcd, l.plane.apiServer}, func(ctx context.Context) error {
		_, err := l.client.Discovery().RESTClient().Get().AbsPath("/readyz").DoRaw(ctx)
		return err
	})
}

// StopAPIServer kills the API server, as its machine's loss would; etcd keeps its
// state. An orderly end takes up to a minute, since it waits for every watch.
func (l *Lab) StopAPIServer() error { return l.plane.apiServer.Kill() }

// StartAPIServer starts it again and returns when it is ready.
func (l *Lab) StartAPIServer(ctx context.Context) error {
	if err := l.plane.apiServer.Start(); err != nil {
		return err
	}
	return l.waitAPIServer(ctx)
}

// forwardAPIServer makes the API server reachable from the machine itself, for
// people with kubectl. It is the lab's only socket outside its namespaces.
func (l *Lab) forwardAPIServer() error {
	listener, err := (&net.ListenConfig{}).Listen(l.ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return fmt.Errorf("forward the API server: %w", err)
	}
	l.plane.forwarder = listener
	l.goInside(func(ctx context.Context) {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return // closed
			}
			go l.forward(ctx, conn)
		}
	})
	user := clientcmdapi.AuthInfo{
		ClientCertificate: filepath.Join(l.pki.dir, "admin.crt"),
		ClientKey:         filepath.Join(l.pki.dir, "admin.key"),
	}
	return l.writeKubeconfig(l.HostKubeconfig(), "https://"+listener.Addr().String(), user)
}

// forward copies one connection in both directions until either side closes it.
func (l *Lab) forward(ctx context.Context, conn net.Conn) {
	defer func() { _ = conn.Close() }()
	server, err := l.control.DialContext(ctx, "tcp", fmt.Sprintf("%s:%d", ControlAddr, APIServerPort))
	if err != nil {
		return
	}
	defer func() { _ = server.Close() }()
	var both sync.WaitGroup
	for _, p := range [][2]net.Conn{{conn, server}, {server, conn}} {
		both.Go(func() {
			_, _ = io.Copy(p[0], p[1])
			_ = p[0].Close()
			_ = p[1].Close()
		})
	}
	both.Wait()
}

func (p *controlPlane) closeForwarder() error {
	if p.forwarder == nil {
		return nil
	}
	err := p.forwarder.Close()
	if errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}
